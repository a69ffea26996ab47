//! A run: the cluster, its clients, what may go wrong, and the loop that lets it all happen.

mod ambush;
mod clients;
mod forgery;
mod machine;
mod measuring;
mod members;
mod nemesis;
mod node;
mod observe;
mod processes;
mod replicator;
mod rot;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};
use std::ops::RangeInclusive;
use std::time::Duration;

use raftlog_raft::RoleName;
use raftlog_raft::feature::Supports;
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, OperationIndex};
use raftlog_raft::membership::Member;
use raftlog_raft::planted::Bug;
use raftlog_raft::time::Time;
use raftlog_server::node::{Refusal, RequestId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use ambush::Ambush;
pub use measuring::Commits;

use crate::client::{Client, Request};
use crate::clock::{Clock, TRUE_RATE};
use crate::coverage::{Coverage, Seen};
use crate::fault::Fault;
use crate::happening::{Agenda, Entry, Happening, Target};
use crate::invariants::{Invariants, Verdict, Violation, bounded};
use crate::network::Network;
use crate::options::Options;
use crate::pod::Pod;

/// Lines of the story that are kept.
const STORY_LINES_MAX: usize = 400;
/// Happenings at one moment, at most: a deadline that is not met by what it brings about would keep a processor busy.
const AT_ONCE_MAX: u64 = 50_000;
/// Happenings on the agenda, at most.
const AGENDA_MAX: u64 = 200_000;

/// A run.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    now: Time,
    random: ChaCha8Rng,
    agenda: Agenda,
    network: Network,
    /// The partition around a leader that was hit.
    leader_cut: Vec<(NodeNumber, NodeNumber)>,
    /// What goes on around a leader, step by step.
    ambush: Option<Ambush>,
    pods: BTreeMap<NodeNumber, Pod>,
    /// Every identity that a node ever had.
    members: BTreeMap<MemberId, NodeNumber>,
    /// The cluster, once a node belongs to one, and with whom it was formed.
    formed: Option<ClusterId>,
    bootstrap: Vec<Member>,
    /// Identities whose disk was lost or damaged: the others have to do without them.
    lost: BTreeSet<MemberId>,
    clients: Vec<Client>,
    requests: BTreeMap<RequestId, Request>,
    last_request: RequestId,
    last_stream: u64,
    /// What became of [`Request::Measured`].
    measured: Vec<Result<Duration, Refusal>>,
    /// What some client knows to be committed.
    known: OperationIndex,
    invariants: Invariants,
    coverage: Coverage,
    violation: Option<Violation>,
    story: VecDeque<String>,
    tells: bool,
    trace: DefaultHasher,
    happenings: u64,
    /// Happenings at this very moment.
    at_once: u64,
    /// Who has to make progress, once faults have ended; empty before.
    core: BTreeSet<NodeNumber>,
    began: Time,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What must never happen, and has.
    pub violation: Option<Violation>,
    /// How long the cluster ran, in its own time.
    pub simulated: Duration,
    /// Things that happened.
    pub happenings: u64,
    /// Operations that were committed.
    pub operations: OperationIndex,
    /// How often what occurred.
    pub coverage: Coverage,
    /// A hash of everything that happened, and when.
    pub trace: u64,
    /// The last lines of what nodes and faults had to say.
    pub story: Vec<String>,
}

impl Cluster {
    /// A cluster whose pods start at about the same time, with empty disks.
    pub fn new(options: Options) -> Self {
        let began = Time(1_000_000);
        let mut cluster = Self {
            now: began,
            random: ChaCha8Rng::seed_from_u64(options.seed),
            agenda: Agenda::default(),
            network: Network::default(),
            leader_cut: Vec::new(),
            ambush: None,
            pods: BTreeMap::new(),
            members: BTreeMap::new(),
            formed: None,
            bootstrap: Vec::new(),
            lost: BTreeSet::new(),
            clients: Vec::new(),
            requests: BTreeMap::new(),
            last_request: 0,
            last_stream: 0,
            measured: Vec::new(),
            known: 0,
            invariants: Invariants::default(),
            coverage: Coverage::default(),
            violation: None,
            story: VecDeque::new(),
            tells: false,
            trace: DefaultHasher::new(),
            happenings: 0,
            at_once: 0,
            core: BTreeSet::new(),
            began,
            options,
        };
        for number in cluster.numbers() {
            let shown = Time(cluster.random.random_range(1..10_000_000_000));
            let clock = Clock::new(cluster.now, shown, cluster.any_rate());
            let mut pod = Pod::new(clock, cluster.options.volume_bytes);
            if cluster.options.planted.has(Bug::FsyncSkipped) {
                pod.node_disk.content.skip_sync();
            }
            if cluster.options.faults.contains_key(&Fault::Upgrade) && cluster.one_in(2) {
                pod.supports = Supports::REHEARSAL;
            }
            cluster.pods.insert(number, pod);
            cluster.start_soon(number, Duration::from_millis(500));
        }
        for fault in cluster.options.faults.keys().copied().collect::<Vec<Fault>>() {
            cluster.expect_fault(fault);
        }
        cluster.begin_clients();
        let end = cluster.now + cluster.options.safety;
        cluster.agenda.add(end, Target::World, Happening::Heal);
        cluster
    }

    /// Prints every line of the story as it is told.
    #[must_use]
    pub fn telling(mut self) -> Self {
        self.tells = true;
        self
    }

    /// Lets things happen: first with faults, then without, until every operation is acknowledged and executed everywhere,
    /// or something is wrong.
    pub fn run(mut self) -> Outcome {
        while self.violation.is_none() && !self.is_done() {
            let Some((at, entry)) = self.agenda.next() else {
                self.judge(violation("progress", "nothing is ahead any more".to_owned()));
                break;
            };
            self.step(at, entry);
        }
        Outcome {
            violation: self.violation,
            simulated: self.now - self.began,
            happenings: self.happenings,
            operations: self.invariants.operations(),
            coverage: self.coverage,
            trace: self.trace.finish(),
            story: self.story.into(),
        }
    }

    fn step(&mut self, at: Time, entry: Entry) {
        self.at_once = if at == self.now { self.at_once + 1 } else { 0 };
        self.now = at;
        self.happenings += 1;
        self.judge(bounded("happenings at one moment", self.at_once, AT_ONCE_MAX));
        self.judge(bounded(
            "things on the agenda",
            self.agenda.len() as u64,
            AGENDA_MAX,
        ));
        let limit = self.began + self.options.safety + self.liveness_limit();
        if at > limit {
            let what = self.what_is_missing();
            self.judge(violation("progress", what));
            return;
        }
        self.trace.write_u64(at.0);
        entry.hash(&mut self.trace);
        self.happen(entry);
    }

    /// How long after the last fault everything has to be done: elections, each candidate's back-off, a restart, what waits on
    /// disks and in replicators, and the patience of clients.
    fn liveness_limit(&self) -> Duration {
        Duration::from_mins(2) + self.options.election_timeout * 40
    }

    fn happen(&mut self, entry: Entry) {
        let Entry { target, happening } = entry;
        let (Target::Node(number, _) | Target::Replicator(number, _) | Target::Pod(number)) = target else {
            return self.happen_to_world(happening);
        };
        let is_power = matches!(
            happening,
            Happening::PowerFails | Happening::Resume | Happening::Room
        );
        let pod = self.pod(number);
        if let Some(later) = &mut pod.suspended
            && !is_power
        {
            later.push_back(Entry { target, happening });
            return;
        }
        let is_alive = match target {
            Target::Node(_, life) => life.is_none_or(|life| pod.node.is_some() && life == pod.node_life),
            Target::Replicator(_, life) => {
                life.is_none_or(|life| pod.replicator.is_some() && life == pod.replicator_life)
            }
            Target::Pod(_) | Target::World => true,
        };
        if !is_alive {
            return;
        }
        match target {
            Target::Node(..) => self.happen_to_node(number, happening),
            Target::Replicator(..) => self.happen_to_replicator(number, &happening),
            _ => self.happen_to_pod(number, &happening),
        }
    }

    fn happen_to_world(&mut self, happening: Happening) {
        match happening {
            Happening::Wish(client) => self.wish(client),
            Happening::Answered(id, result) => self.answered(id, result),
            Happening::Impatient(id) => self.impatient(id),
            Happening::HasRead(index) => self.known = self.known.max(index),
            Happening::Fault(fault) => self.bring_about(fault),
            Happening::HitLeader(number) => self.hit_leader(number),
            Happening::Isolate(number, longest) => {
                self.isolate(number, longest);
                self.everybody_wishes();
            }
            Happening::Ambush(stage) => self.go_on_with_ambush(stage),
            Happening::ChangeMembership => self.change_membership(),
            Happening::MendLeader(cut) if cut == self.leader_cut => self.leader_is_back(),
            // What had been cut by then is whole already; what is cut now stays so.
            Happening::Mend(directions) if !self.has_healed() => self.network.mend(&directions),
            Happening::Heal => self.heal(),
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        !self.core.is_empty()
            && self.are_clients_done()
            && self.core.iter().all(|&number| self.has_caught_up(number))
            && self.goes_on_forged().is_none()
    }

    fn has_caught_up(&self, number: NodeNumber) -> bool {
        if !self.belongs(number) {
            return true;
        }
        let pod = &self.pods[&number];
        let operations = self.invariants.operations();
        let node = pod.node.as_ref().and_then(|process| process.node.raft());
        node.is_some_and(|raft| raft.log().operation_index_at(raft.commit()) == operations)
            && pod.replicator.as_ref().is_some_and(|replicator| {
                let progress = replicator.progress();
                progress.executed == operations && progress.durable_executed == operations
            })
    }

    fn what_is_missing(&self) -> String {
        let behind: Vec<String> = self
            .core
            .iter()
            .filter(|&&number| !self.has_caught_up(number))
            .map(|number| {
                let pod = &self.pods[number];
                let node = pod
                    .node
                    .as_ref()
                    .map(|process| process.node.status(pod.clock.shown(self.now)));
                let node = node.map_or("no node".to_owned(), |status| {
                    format!(
                        "{} of term {}, commit {}, {}",
                        status.role,
                        status.term,
                        status.commit_index,
                        status.waiting_for.unwrap_or_default()
                    )
                });
                let progress = pod
                    .replicator
                    .as_ref()
                    .map(raftlog_replicator::core::Replicator::progress);
                format!("pod {number} ({node}; replicator {progress:?})")
            })
            .collect();
        let clients: Vec<usize> = self.clients.iter().map(|client| client.under_way.len()).collect();
        format!(
            "{:?} after the last fault {} operations are committed; behind: {}; clients wait for {clients:?}; forged and not \
             stopped: {:?}",
            self.liveness_limit(),
            self.invariants.operations(),
            behind.join(", "),
            self.goes_on_forged()
        )
    }

    fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict
            && self.violation.is_none()
        {
            self.tell(|| format!("VIOLATION {violation}"));
            self.violation = Some(violation);
        }
    }

    fn count(&mut self, seen: Seen) {
        self.coverage.count(seen);
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        let line = format!(
            "{:>12.6} {}",
            Duration::from_micros(self.now.0).as_secs_f64(),
            line()
        );
        if self.tells {
            println!("{line}");
        }
        if self.story.len() >= STORY_LINES_MAX {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    fn pod(&mut self, number: NodeNumber) -> &mut Pod {
        self.pods.get_mut(&number).expect("pods are numbered")
    }

    /// What the pod's clock shows.
    fn shown(&self, number: NodeNumber) -> Time {
        self.pods[&number].clock.shown(self.now)
    }

    fn span(&mut self, max: Duration) -> Duration {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random.random_range(0..=micros))
    }

    fn soon(&mut self, max: Duration) -> Time {
        self.now + self.span(max)
    }

    /// Whether something that happens once in `of` cases does; never for 0.
    fn one_in(&mut self, of: u32) -> bool {
        of > 0 && self.random.random_range(0..of) == 0
    }

    /// Of all pods: the first members and those that may become some.
    fn numbers(&self) -> RangeInclusive<NodeNumber> {
        1..=self.options.nodes + self.options.spares
    }

    fn any_pod(&mut self) -> NodeNumber {
        let last = *self.numbers().end();
        self.random.random_range(1..=last)
    }

    /// Who leads, in the highest term where several think that they do.
    fn leader(&self) -> Option<NodeNumber> {
        let leads = |(&number, pod): (&NodeNumber, &Pod)| {
            let raft = pod.node.as_ref()?.node.raft()?;
            (raft.role() == RoleName::Leader).then(|| (raft.term(), number))
        };
        let (_, number) = self.pods.iter().filter_map(leads).max()?;
        Some(number)
    }

    /// The leader more often than others: it has more to lose.
    fn any_victim(&mut self) -> NodeNumber {
        let any = self.any_pod();
        let leader = self.leader().filter(|_| self.random.random_bool(0.4));
        leader.unwrap_or(any)
    }

    fn any_rate(&mut self) -> u64 {
        let drift = self.options.drift_millionths;
        self.random.random_range(TRUE_RATE - drift..=TRUE_RATE + drift)
    }

    fn has_healed(&self) -> bool {
        !self.core.is_empty()
    }
}

fn violation(invariant: &'static str, what: String) -> Verdict {
    Err(Violation { invariant, what })
}
