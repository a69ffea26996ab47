//! The core by the sections of the paper: a few members in one thread, whose messages and disks the test holds in its hand.

mod doubt;
mod execution_mark;
mod feature_level;
mod leases;
mod membership;
mod snapshot;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::SeedableRng;

use super::*;
use crate::effect::{Committed, Proposal, Proposed, Refusal, TransferRefusal};
use crate::entry::{Operation, Payload, SessionStamp};
use crate::feature::Supports;
use crate::fold::Fold;
use crate::membership::Member;
use crate::membership::change::{Change, ChangeRefusal, MembershipChange};
use crate::message::{
    AppendEntries, AppendEntriesResponse, Conflict, Full, LogPosition, READS_MAX, RequestVote, VoteAnswer,
};

fn id(n: u64) -> MemberId {
    MemberId::new(n).unwrap()
}

fn listed(n: u64) -> Member {
    Member {
        id: id(n),
        node: NodeNumber::try_from(n).unwrap(),
        peer_address: format!("node{n}:5001"),
        client_address: format!("node{n}:5001"),
        voter: true,
    }
}

fn configuration(voters: u64) -> Configuration {
    Configuration::new(0, (1..=voters).map(listed).collect())
}

fn member(n: u64, voters: u64, config: Config, disk: &Disk, now: Time) -> Raft {
    let (base, fold) = disk.beginning(voters);
    let mut log = Log::over(base, fold, config.recent_bytes_max);
    for entry in disk.entries_behind(base.index) {
        log.append(entry.clone()).unwrap();
    }
    Raft::new(config, disk.hard_state, log, ChaCha8Rng::seed_from_u64(n), now)
}

/// What one member's disk holds.
#[derive(Default, Clone)]
struct Disk {
    hard_state: HardState,
    snapshot: Option<(LogPosition, Fold)>,
    entries: Vec<Entry>,
}

impl Disk {
    fn holding(hard_state: HardState, entries: Vec<Entry>) -> Self {
        Self {
            hard_state,
            snapshot: None,
            entries,
        }
    }

    /// Where the log begins, and what it adds up to there.
    fn beginning(&self, voters: u64) -> (LogPosition, Fold) {
        let empty = || (LogPosition::default(), Fold::new(configuration(voters)));
        self.snapshot.clone().unwrap_or_else(empty)
    }

    fn entries_behind(&self, index: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.log_index > index)
    }

    fn write(&mut self, persist: &Persist) {
        if let Some(from) = persist.truncate_from {
            self.entries.retain(|entry| entry.log_index < from);
        }
        self.entries.extend(persist.entries.iter().cloned());
        self.hard_state = persist.hard_state.unwrap_or(self.hard_state);
    }
}

struct Cluster {
    voters: u64,
    now: Time,
    members: BTreeMap<u64, Raft>,
    disks: BTreeMap<u64, Disk>,
    queue: VecDeque<Message>,
    /// Neither sends nor receives.
    cut_off: BTreeSet<u64>,
    /// Members on one side of a partition; empty without one.
    apart: BTreeSet<u64>,
    /// Messages that get lost.
    lost: fn(&Message) -> bool,
    /// Does not complete writes.
    stalled: BTreeMap<u64, Vec<Persist>>,
    answers: BTreeMap<RequestId, Result<Committed, Refusal>>,
    transferred: BTreeMap<RequestId, Result<MemberId, TransferRefusal>>,
    changed: BTreeMap<RequestId, Result<Configuration, ChangeRefusal>>,
    reads: BTreeMap<RequestId, Option<u64>>,
    /// From whom, to whom.
    snapshots_ordered: Vec<(u64, u64)>,
    notices: Vec<Notice>,
    sent: Vec<Message>,
    /// Who found itself damaged, and what it said.
    stopped: BTreeMap<u64, String>,
}

impl Cluster {
    fn new(voters: u64) -> Self {
        Self::with(voters, |_| {})
    }

    fn with(voters: u64, change: impl Fn(&mut Config)) -> Self {
        let mut cluster = Self {
            voters,
            now: Time(1_000_000),
            members: BTreeMap::new(),
            disks: BTreeMap::new(),
            queue: VecDeque::new(),
            cut_off: BTreeSet::new(),
            apart: BTreeSet::new(),
            lost: |_| false,
            stalled: BTreeMap::new(),
            answers: BTreeMap::new(),
            transferred: BTreeMap::new(),
            changed: BTreeMap::new(),
            reads: BTreeMap::new(),
            snapshots_ordered: Vec::new(),
            notices: Vec::new(),
            sent: Vec::new(),
            stopped: BTreeMap::new(),
        };
        for n in 1..=voters {
            let mut config = Config::new(id(n));
            change(&mut config);
            cluster.start(n, config);
        }
        cluster
    }

    /// Starts a member that knows nothing but the configuration of bootstrap.
    fn start(&mut self, n: u64, config: Config) {
        let raft = member(n, self.voters, config, &Disk::default(), self.now);
        self.members.insert(n, raft);
        self.disks.insert(n, Disk::default());
    }

    /// Asks a member for a membership change, from the configuration that it knows.
    fn change(&mut self, n: u64, request: RequestId, changes: &[Change]) {
        let version = self.members[&n].configuration().version;
        self.change_from(n, request, version, changes, false);
    }

    fn change_from(&mut self, n: u64, request: RequestId, version: u64, changes: &[Change], force: bool) {
        let change = MembershipChange {
            id: request,
            expected_version: version,
            changes: changes.to_vec(),
            force,
            dry_run: false,
        };
        let now = self.now;
        self.raft(n).change_membership(now, &change);
        self.flush(n);
        self.deliver();
    }

    /// Starts a new member and lets it have the log as a learner.
    fn add_learner(&mut self, leader: u64, n: u64) {
        self.start(n, Config::new(id(n)));
        self.change(leader, 1_000 + n, &[Change::AddLearner(listed(n))]);
        self.run(Duration::from_secs(2));
        assert!(self.changed[&(1_000 + n)].is_ok(), "{:?}", self.changed);
    }

    /// A member's voters and learners.
    fn roster(&self, n: u64) -> String {
        crate::effect::Roster::of(self.members[&n].configuration()).to_string()
    }

    fn raft(&mut self, n: u64) -> &mut Raft {
        self.members.get_mut(&n).unwrap()
    }

    /// Carries out what a member wants done. One that is damaged ends.
    fn flush(&mut self, n: u64) {
        let now = self.now;
        if let Some(why) = self.raft(n).damaged() {
            let why = why.to_owned();
            self.stopped.insert(n, why);
            self.members.remove(&n);
            return;
        }
        for effect in self.raft(n).flush(now) {
            match effect {
                Effect::Persist(persist) => {
                    if let Some(held) = self.stalled.get_mut(&n) {
                        held.push(persist);
                    } else {
                        self.disks.get_mut(&n).unwrap().write(&persist);
                        self.raft(n).persisted(now, persist.ticket);
                        self.flush(n);
                    }
                }
                Effect::Send(message) => {
                    self.sent.push(message.clone());
                    self.queue.push_back(message);
                }
                Effect::Answer(id, result) => {
                    assert_eq!(self.answers.insert(id, result), None, "answered twice");
                }
                Effect::Transferred(id, result) => assert_eq!(self.transferred.insert(id, result), None),
                Effect::MembershipChanged(id, result) => {
                    assert_eq!(self.changed.insert(id, result), None, "answered twice");
                }
                Effect::ReadReady(id, index) => assert_eq!(self.reads.insert(id, index), None),
                Effect::ReadEntries {
                    member, first, last, ..
                } => {
                    let entries = self.disks[&n].entries.iter();
                    let entries = entries
                        .filter(|e| (first..=last).contains(&e.log_index))
                        .cloned()
                        .collect();
                    self.raft(n).entries_read(now, member, entries);
                    self.flush(n);
                }
                Effect::ReadHash { member, theirs } => {
                    let entries = &self.disks[&n].entries;
                    let entry = entries.iter().find(|e| e.log_index == theirs.position.index);
                    let own = entry.unwrap().running_hash;
                    self.raft(n).hash_read(now, member, theirs, own);
                    self.flush(n);
                }
                Effect::SendSnapshot { member } => self.snapshots_ordered.push((n, member.get())),
                Effect::Notice(notice) => self.notices.push(notice),
            }
        }
    }

    fn resume_disk(&mut self, n: u64) {
        let now = self.now;
        for persist in self.stalled.remove(&n).unwrap() {
            self.disks.get_mut(&n).unwrap().write(&persist);
            self.raft(n).persisted(now, persist.ticket);
        }
        self.flush(n);
        self.deliver();
    }

    /// Delivers messages until there are none.
    fn deliver(&mut self) {
        while let Some(message) = self.queue.pop_front() {
            let (from, to) = (message.from.get(), message.to.get());
            let cut = self.cut_off.contains(&from)
                || self.cut_off.contains(&to)
                || self.apart.contains(&from) != self.apart.contains(&to);
            if !cut && !(self.lost)(&message) && self.members.contains_key(&to) {
                let now = self.now;
                self.raft(to).message(now, message);
                self.flush(to);
            }
        }
    }

    /// Lets time pass up to then, with all timers.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let due = self.members.values().map(Raft::deadline).min().unwrap();
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            for n in self.members.keys().copied().collect::<Vec<_>>() {
                let now = self.now;
                if self.members.get(&n).is_some_and(|raft| raft.deadline() <= now) {
                    self.raft(n).tick(now);
                    self.flush(n);
                }
            }
            self.deliver();
        }
        self.now = end;
    }

    fn leader(&self) -> Option<u64> {
        let leaders = self
            .members
            .iter()
            .filter(|(n, raft)| raft.role() == RoleName::Leader && !self.cut_off.contains(n));
        leaders.max_by_key(|(_, raft)| raft.term()).map(|(&n, _)| n)
    }

    fn elect(&mut self) -> u64 {
        for _ in 0..20 {
            self.run(Duration::from_secs(1));
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("no leader after 20 s");
    }

    fn submit_as(&mut self, n: u64, request: RequestId, data: &'static str, session: Option<SessionStamp>) {
        let proposed = Proposed::Operation(Operation {
            data: data.into(),
            session,
        });
        let now = self.now;
        self.raft(n).propose(
            now,
            Proposal {
                id: request,
                stream: None,
                proposed,
            },
        );
        self.flush(n);
        self.deliver();
    }

    fn submit(&mut self, n: u64, request: RequestId) {
        self.submit_as(n, request, "op", None);
    }

    fn index_of(&self, request: RequestId) -> u64 {
        self.answers[&request].as_ref().unwrap().operation_index
    }

    fn restart(&mut self, n: u64) {
        let config = self.members[&n].config().clone();
        let raft = member(n, self.voters, config, &self.disks[&n], self.now);
        self.members.insert(n, raft);
    }

    fn followers(&self, leader: u64) -> Vec<u64> {
        (1..=self.voters).filter(|&n| n != leader).collect()
    }
}

/// A leader that had been deposed without knowing once called a session expired that its successor had just opened.
#[test]
fn a_session_of_a_later_leader_is_not_expired() {
    for (lease_reads, of_later) in [
        (
            false,
            Refusal::NotAppended("its session is of a later leader, if of this cluster at all"),
        ),
        (true, Refusal::SessionExpired),
    ] {
        let mut cluster = Cluster::with(3, |config| config.lease_reads = lease_reads);
        let leader = cluster.elect();
        let term = cluster.members[&leader].term();
        for (request, opened, expected) in [(1, term, Refusal::SessionExpired), (2, term + 1, of_later)] {
            let session = SessionStamp {
                client_id: crate::session::opened_id(opened, 9).into(),
                ..stamp(1)
            };
            cluster.submit_as(leader, request, "op", Some(session));
            assert_eq!(cluster.answers[&request], Err(expected), "lease {lease_reads}");
        }
    }
}

fn stamp(sequence: u64) -> SessionStamp {
    SessionStamp {
        client_id: "client".into(),
        sequence,
        acknowledged_through: 0,
    }
}

#[test]
fn s5_2_one_leader_and_everybody_follows_it() {
    for voters in [1, 2, 3, 5, 9] {
        let mut cluster = Cluster::new(voters);
        let leader = cluster.elect();
        cluster.run(Duration::from_secs(10));
        assert_eq!(cluster.leader(), Some(leader), "heartbeats keep it");
        assert!(
            cluster
                .members
                .values()
                .all(|raft| raft.leader() == Some(id(leader)))
        );
        let now = cluster.now;
        assert!(cluster.members.values().all(|raft| raft.has_live_leader(now)));
    }
}

#[test]
fn s5_2_a_vote_is_given_once_a_term_also_across_a_restart() {
    let mut cluster = Cluster::new(3);
    let ask = |from: u64| Message {
        from: id(from),
        to: id(3),
        term: 1,
        level: FeatureLevel::FIRST,
        body: Body::RequestVote(RequestVote {
            pre_vote: false,
            transfer: true,
            last: LogPosition::default(),
        }),
    };
    let now = cluster.now;
    cluster.raft(3).message(now, ask(1));
    cluster.flush(3);
    cluster.restart(3);
    cluster.raft(3).message(now, ask(2));
    cluster.flush(3);
    let votes: Vec<(MemberId, VoteAnswer)> = cluster
        .sent
        .iter()
        .filter_map(|message| match message.body {
            Body::Vote { answer, .. } => Some((message.to, answer)),
            _ => None,
        })
        .collect();
    assert_eq!(
        votes,
        [(id(1), VoteAnswer::Granted), (id(2), VoteAnswer::Refused)]
    );
}

#[test]
fn s5_2_a_vote_counts_only_once_it_is_on_disk() {
    let mut cluster = Cluster::new(3);
    for n in 1..=3 {
        cluster.stalled.insert(n, Vec::new());
    }
    cluster.run(Duration::from_secs(4));
    assert_eq!(cluster.leader(), None);
    let candidate = (1..=3)
        .find(|n| cluster.members[n].role() == RoleName::Candidate)
        .expect("pre-votes need no disk");
    cluster.resume_disk(candidate);
    assert_eq!(cluster.leader(), None, "its own vote is not a majority");
    let other = cluster.followers(candidate)[0];
    cluster.resume_disk(other);
    assert_eq!(cluster.leader(), Some(candidate));
}

#[test]
fn s5_3_what_a_majority_has_on_disk_is_committed_and_everybody_learns_it_at_once() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect();
    for request in 1..=3 {
        cluster.submit(leader, request);
        assert_eq!(cluster.index_of(request), request);
    }
    let commit = cluster.members[&leader].commit();
    assert_eq!(commit, 4, "a no-op and three operations");
    assert!(
        cluster.members.values().all(|raft| raft.commit() == commit),
        "with no heartbeat in between"
    );
}

#[test]
fn s5_3_a_push_of_the_commit_index_is_not_answered() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.sent.clear();
    cluster.submit(leader, 1);
    let answers = cluster
        .sent
        .iter()
        .filter(|message| matches!(message.body, Body::AppendEntriesResponse(_)));
    assert_eq!(answers.count(), 2, "one for the entry from each follower");
    assert!(cluster.members.values().all(|raft| raft.commit() == 2));
}

#[test]
fn s5_3_a_minority_commits_nothing() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect();
    cluster.cut_off.extend(&cluster.followers(leader)[..3]);
    cluster.submit(leader, 1);
    assert!(!cluster.answers.contains_key(&1));
}

#[test]
fn s5_3_the_own_disk_counts_like_any_other() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.stalled.insert(leader, Vec::new());
    cluster.submit(leader, 1);
    assert_eq!(cluster.index_of(1), 1, "the two others are a majority");
    let followers = cluster.followers(leader);
    cluster.stalled.insert(followers[0], Vec::new());
    cluster.submit(leader, 2);
    assert!(!cluster.answers.contains_key(&2), "one of three");
    cluster.resume_disk(leader);
    assert_eq!(cluster.index_of(2), 2);
}

#[test]
fn s5_3_logs_that_differ_are_made_equal() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.submit(old, 1);
    // The old leader goes on alone, and what it appends is lost.
    cluster.cut_off.insert(old);
    for request in 2..=30 {
        cluster.submit(old, request);
    }
    let new = cluster.elect();
    for request in 31..=40 {
        cluster.submit(new, request);
    }
    cluster.cut_off.clear();
    cluster.run(Duration::from_secs(3));
    assert_eq!(
        cluster.members[&old].log().last(),
        cluster.members[&new].log().last()
    );
    assert_eq!(
        cluster.members[&old].log().fold(),
        cluster.members[&new].log().fold()
    );
    assert_eq!(cluster.disks[&old].entries, cluster.disks[&new].entries);
    assert_eq!(cluster.answers[&2], Err(Refusal::LeadershipLost));
    assert_eq!(cluster.index_of(40), 11);
}

#[test]
fn s5_4_1_who_lacks_entries_is_not_elected() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let followers = cluster.followers(leader);
    cluster.cut_off.insert(followers[0]);
    cluster.submit(leader, 1);
    cluster.cut_off.insert(leader);
    cluster.cut_off.remove(&followers[0]);
    assert_eq!(cluster.elect(), followers[1]);
}

#[test]
fn s5_4_2_an_older_term_commits_only_with_the_current_one() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let followers = cluster.followers(leader);
    cluster.cut_off.extend(&followers);
    cluster.submit(leader, 1);
    let before = cluster.members[&leader].commit();
    // It comes back as leader of a later term and sends its old entry, but its disk holds back the new term's no-op.
    cluster.cut_off = BTreeSet::from([followers[1]]);
    cluster.restart(leader);
    let old_entry = cluster.disks[&leader].entries.last().unwrap().log_index;
    let elected = cluster.elect();
    assert_eq!(elected, leader, "only it is up to date");
    let raft = &cluster.members[&leader];
    assert!(
        before < old_entry && raft.commit() > old_entry,
        "the no-op of the new term brings the old entry with it"
    );
    assert_eq!(raft.log().term_at(raft.commit()), Some(raft.term()));
}

#[test]
fn t9_6_a_member_that_was_cut_off_disturbs_nobody() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let term = cluster.members[&leader].term();
    let away = cluster.followers(leader)[0];
    cluster.cut_off.insert(away);
    cluster.run(Duration::from_secs(30));
    cluster.cut_off.clear();
    cluster.run(Duration::from_secs(5));
    assert_eq!(
        (cluster.leader(), cluster.members[&leader].term()),
        (Some(leader), term)
    );
    assert_eq!(cluster.members[&away].leader(), Some(id(leader)));
}

#[test]
fn t6_2_a_leader_without_a_quorum_steps_down_and_says_so() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect();
    cluster.cut_off.extend(&cluster.followers(leader)[..3]);
    cluster.submit(leader, 1);
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.leader(), None);
    assert_eq!(cluster.answers[&1], Err(Refusal::LeadershipLost));
    let now = cluster.now;
    assert!(!cluster.members[&leader].has_live_leader(now));
    cluster.submit(leader, 2);
    assert_eq!(cluster.answers[&2], Err(Refusal::NotLeader { leader: None }));
}

#[test]
fn a_leader_that_slept_acts_on_nothing_it_was() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let now = cluster.now + Duration::from_secs(10);
    cluster.now = now;
    cluster.submit(leader, 1);
    assert_eq!(
        cluster.answers[&1],
        Err(Refusal::NotLeader { leader: None }),
        "before any timer has run"
    );
}

#[test]
fn a_leader_whose_disk_stalls_steps_down_and_its_cluster_goes_on() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.stalled.insert(leader, Vec::new());
    cluster.submit(leader, 1);
    cluster.run(Duration::from_secs(10));
    let new = cluster.leader().unwrap();
    assert_ne!(new, leader);
    cluster.submit(new, 2);
    assert_eq!(cluster.index_of(2), 2);
    cluster.resume_disk(leader);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.disks[&leader].entries, cluster.disks[&new].entries);
}

#[test]
fn a_follower_whose_disk_stalls_bounds_what_is_under_way_and_recovers() {
    let mut cluster = Cluster::with(3, |config| config.in_flight_bytes_max = 1_000);
    let leader = cluster.elect();
    let slow = cluster.followers(leader)[0];
    cluster.stalled.insert(slow, Vec::new());
    for request in 1..=100 {
        cluster.submit(leader, request);
    }
    let under_way = cluster.members[&leader]
        .progress()
        .find(|(member, _)| *member == id(slow))
        .unwrap()
        .1;
    assert!(
        (1..=1_200).contains(&under_way.in_flight_bytes()),
        "{}",
        under_way.in_flight_bytes()
    );
    assert_eq!(cluster.index_of(100), 100);
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.leader(), Some(leader));
    cluster.resume_disk(slow);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.disks[&slow].entries, cluster.disks[&leader].entries);
}

#[test]
fn a_follower_that_is_far_behind_is_served_from_disk() {
    let mut cluster = Cluster::with(3, |config| config.recent_bytes_max = 1_000);
    let leader = cluster.elect();
    let away = cluster.followers(leader)[0];
    cluster.cut_off.insert(away);
    for request in 1..=200 {
        cluster.submit(leader, request);
    }
    assert!(cluster.members[&leader].log().recent_bytes() <= 1_000);
    let now = cluster.now;
    cluster.raft(leader).peer_stream_broken(id(away));
    cluster.now = now;
    cluster.cut_off.clear();
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.disks[&away].entries, cluster.disks[&leader].entries);
}

#[test]
fn a_follower_that_lost_what_it_acknowledged_gets_it_back_and_votes_only_then() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    for request in 1..=5 {
        cluster.submit(leader, request);
    }
    let damaged = cluster.followers(leader)[0];
    cluster.disks.get_mut(&damaged).unwrap().entries.truncate(2);
    cluster.disks.get_mut(&damaged).unwrap().hard_state.commit = 1;
    cluster.restart(damaged);
    cluster.raft(damaged).set_suspect();
    cluster.cut_off.insert(damaged);
    cluster.run(Duration::from_secs(10));
    assert_eq!(
        cluster.members[&damaged].role(),
        RoleName::Follower,
        "it does not campaign"
    );
    let last = cluster.members[&leader].log().last();
    let term = cluster.members[&leader].term() + 1;
    let request = RequestVote {
        pre_vote: false,
        transfer: true,
        last,
    };
    let message = Message {
        from: id(leader),
        to: id(damaged),
        term,
        level: FeatureLevel::FIRST,
        body: Body::RequestVote(request),
    };
    let now = cluster.now;
    cluster.raft(damaged).message(now, message);
    cluster.flush(damaged);
    assert_eq!(
        cluster.sent.last().unwrap().body,
        Body::Vote {
            pre_vote: false,
            answer: VoteAnswer::GrantedIfAll
        }
    );
    cluster.queue.clear();
    cluster.raft(leader).peer_stream_broken(id(damaged));
    cluster.cut_off.clear();
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.disks[&damaged].entries, cluster.disks[&leader].entries);
    assert!(!cluster.members[&damaged].is_suspect());
}

/// With two voters, or with one of three away for good, whose log was damaged was needed for an election, and only a leader could
/// have repaired it.
#[test]
fn who_may_have_lost_something_votes_where_all_voters_do() {
    for voters in [2, 3] {
        let mut cluster = Cluster::new(voters);
        let leader = cluster.elect();
        cluster.submit(leader, 1);
        let damaged = cluster.followers(leader)[0];
        for n in 1..=voters {
            cluster.restart(n);
        }
        cluster.raft(damaged).set_suspect();
        if voters == 3 {
            let away = cluster.followers(leader)[1];
            cluster.cut_off.insert(away);
            cluster.run(Duration::from_secs(20));
            assert_eq!(cluster.leader(), None, "who is away may hold what was lost");
            cluster.cut_off.clear();
        }
        cluster.elect();
        cluster.run(Duration::from_secs(2));
        assert!(!cluster.members[&damaged].is_suspect(), "{voters} voters");
    }
}

#[test]
fn part_of_what_was_lost_is_not_enough_to_vote() {
    // One entry a message, so that what was lost comes back in steps.
    let mut cluster = Cluster::with(3, |config| config.append_bytes_max = 1);
    let leader = cluster.elect();
    for request in 1..=5 {
        cluster.submit(leader, request);
    }
    let damaged = cluster.followers(leader)[0];
    let disk = cluster.disks.get_mut(&damaged).unwrap();
    disk.entries.truncate(3);
    disk.hard_state.commit = 2;
    cluster.restart(damaged);
    cluster.raft(damaged).set_suspect();
    cluster.raft(leader).peer_stream_broken(id(damaged));
    let committed = cluster.members[&leader].commit();
    let end = cluster.now + Duration::from_secs(3);
    while cluster.now < end {
        cluster.now = cluster.now + Duration::from_millis(100);
        let now = cluster.now;
        cluster.raft(leader).tick(now);
        cluster.flush(leader);
        while let Some(message) = cluster.queue.pop_front() {
            let to = message.to.get();
            cluster.raft(to).message(now, message);
            cluster.flush(to);
            let complete = cluster.members[&damaged].persisted_index() >= committed;
            assert!(complete || cluster.members[&damaged].is_suspect());
        }
    }
    assert!(!cluster.members[&damaged].is_suspect());
}

#[test]
fn a_member_that_lost_nothing_votes_again_though_nothing_is_written() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    let damaged = cluster.followers(leader)[0];
    cluster.restart(damaged);
    cluster.raft(damaged).set_suspect();
    cluster.run(Duration::from_secs(3));
    assert!(!cluster.members[&damaged].is_suspect());
    cluster.cut_off.insert(leader);
    assert_ne!(cluster.elect(), leader);
}

#[test]
fn messages_that_got_lost_are_sent_again() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let now = cluster.now;
    let proposed = Proposed::Operation(Operation {
        data: "op".into(),
        session: None,
    });
    cluster.raft(leader).propose(
        now,
        Proposal {
            id: 1,
            stream: None,
            proposed,
        },
    );
    cluster.flush(leader);
    cluster.queue.clear();
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.index_of(1), 1);
}

#[test]
fn t3_10_leadership_is_handed_over_without_a_timeout() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    let target = cluster.followers(leader)[1];
    let now = cluster.now;
    cluster
        .raft(leader)
        .transfer_leadership(now, 7, Some(NodeNumber::try_from(target).unwrap()));
    cluster.flush(leader);
    cluster.deliver();
    assert_eq!(cluster.now, now);
    assert_eq!(cluster.leader(), Some(target));
    assert_eq!(cluster.members[&target].elected_by(), Some(ElectedBy::Transfer));
    assert_eq!(cluster.transferred[&7], Ok(id(target)));
}

#[test]
fn t3_10_a_transfer_to_nowhere_is_given_up() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let target = cluster.followers(leader)[0];
    cluster.cut_off.insert(target);
    let now = cluster.now;
    cluster
        .raft(leader)
        .transfer_leadership(now, 7, Some(NodeNumber::try_from(target).unwrap()));
    cluster.submit(leader, 1);
    assert!(matches!(cluster.answers[&1], Err(Refusal::NotAppended(_))));
    cluster.run(Duration::from_millis(1_500));
    assert_eq!(cluster.transferred[&7], Err(TransferRefusal::TimedOut));
    cluster.submit(leader, 2);
    assert_eq!(cluster.index_of(2), 1);
    let now = cluster.now;
    cluster.raft(leader).transfer_leadership(now, 8, Some(9));
    cluster.flush(leader);
    assert_eq!(cluster.transferred[&8], Err(TransferRefusal::NoTarget));
}

#[test]
fn t6_3_the_same_sequence_is_appended_once_also_by_the_next_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.submit_as(leader, 1, "a", Some(stamp(1)));
    cluster.submit_as(leader, 2, "a", Some(stamp(1)));
    assert_eq!((cluster.index_of(1), cluster.index_of(2)), (1, 1));
    cluster.cut_off.insert(leader);
    let next = cluster.elect();
    cluster.submit_as(next, 3, "a", Some(stamp(1)));
    cluster.submit_as(next, 4, "b", Some(stamp(2)));
    assert_eq!((cluster.index_of(3), cluster.index_of(4)), (1, 2));
}

#[test]
fn t6_3_a_duplicate_waits_for_the_first_copy() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let followers = cluster.followers(leader);
    cluster.cut_off.extend(&followers);
    cluster.submit_as(leader, 1, "a", Some(stamp(1)));
    cluster.submit_as(leader, 2, "a", Some(stamp(1)));
    assert!(cluster.answers.is_empty());
    cluster.cut_off.clear();
    cluster.run(Duration::from_secs(2));
    assert_eq!((cluster.index_of(1), cluster.index_of(2)), (1, 1));
}

#[test]
fn after_a_refused_operation_the_rest_of_its_stream_is_refused() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.elect();
    let mut submit = |request, data: &'static str| {
        let proposed = Proposed::Operation(Operation {
            data: data.into(),
            session: None,
        });
        let now = cluster.now;
        cluster.raft(leader).propose(
            now,
            Proposal {
                id: request,
                stream: Some(5),
                proposed,
            },
        );
        cluster.flush(leader);
        cluster.answers[&request].clone()
    };
    assert!(submit(1, "a").is_ok());
    assert!(matches!(submit(2, ""), Err(Refusal::InvalidOperation(_))));
    assert!(matches!(submit(3, "c"), Err(Refusal::NotAppended(_))));
}

#[test]
fn what_is_not_committed_is_bounded() {
    let mut cluster = Cluster::with(3, |config| config.uncommitted_bytes_max = 500);
    let leader = cluster.elect();
    cluster.cut_off.extend(&cluster.followers(leader));
    for request in 1..=20 {
        cluster.submit(leader, request);
    }
    assert_eq!(cluster.answers[&20], Err(Refusal::Backpressure));
    assert!(cluster.members[&leader].log().unsettled_bytes() < 700);
}

#[test]
fn what_waits_for_the_own_disk_is_bounded_though_others_commit_it() {
    let mut cluster = Cluster::with(3, |config| {
        config.uncommitted_bytes_max = 1_000;
        config.recent_bytes_max = 1_000;
    });
    let leader = cluster.elect();
    cluster.stalled.insert(leader, Vec::new());
    for request in 1..=100 {
        cluster.submit(leader, request);
    }
    assert!(cluster.answers[&1].is_ok());
    assert_eq!(cluster.answers[&100], Err(Refusal::Backpressure));
    assert!(cluster.members[&leader].log().recent_bytes() < 2_200);
    cluster.resume_disk(leader);
    cluster.submit(leader, 101);
    assert!(cluster.answers[&101].is_ok());
}

#[test]
fn a_full_disk_refuses_and_room_accepts() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.elect();
    let now = cluster.now;
    cluster.raft(leader).set_disk_full(now, true);
    cluster.submit(leader, 1);
    assert_eq!(cluster.answers[&1], Err(Refusal::DiskFull));
    cluster.raft(leader).set_disk_full(now, false);
    cluster.submit(leader, 2);
    assert_eq!(cluster.index_of(2), 1);
}

#[test]
fn a_full_log_refuses_what_is_new() {
    let mut cluster = Cluster::new(1);
    let leader = cluster.elect();
    let now = cluster.now;
    cluster.raft(leader).set_log_full(now, true);
    cluster.submit(leader, 1);
    assert_eq!(cluster.answers[&1], Err(Refusal::LogFull));
    cluster.raft(leader).set_log_full(now, false);
    cluster.submit(leader, 2);
    assert_eq!(cluster.index_of(2), 1);
}

#[test]
fn t6_4_reads_see_what_was_acknowledged_through_any_member() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    for (request, n) in (10..).zip(1..=3) {
        let now = cluster.now;
        cluster.raft(n).read_index(now, request);
        cluster.flush(n);
        cluster.deliver();
        assert_eq!(cluster.reads[&request], Some(1), "through member {n}");
    }
}

#[test]
fn t6_4_a_leader_that_is_cut_off_answers_no_read() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.cut_off.insert(leader);
    // Its lease ends first.
    cluster.now = cluster.now + cluster.members[&leader].config().lease();
    let now = cluster.now;
    cluster.raft(leader).read_index(now, 1);
    cluster.flush(leader);
    cluster.deliver();
    assert!(cluster.reads.is_empty());
    cluster.run(Duration::from_secs(4));
    assert_eq!(cluster.reads[&1], None);
}

#[test]
fn t6_4_a_single_voter_answers_reads_from_before_its_first_commit() {
    let mut raft = member(1, 1, Config::new(id(1)), &Disk::default(), Time(0));
    let now = raft.deadline();
    raft.tick(now);
    let persist = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::Persist(persist) => Some(persist.ticket),
            _ => None,
        })
    };
    let vote = persist(raft.flush(now)).unwrap();
    raft.persisted(now, vote);
    let noop = persist(raft.flush(now)).unwrap();
    raft.read_index(now, 7);
    raft.persisted(now, noop);
    assert!(raft.flush(now).contains(&Effect::ReadReady(7, Some(0))));
}

#[test]
fn answers_to_many_reads_go_in_several_messages() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let reader = cluster.followers(leader)[0];
    let count = 2 * READS_MAX as u64 + 1;
    let now = cluster.now;
    for request in 1..=count {
        cluster.raft(reader).read_index(now, request);
    }
    // The leader hears all of them before it says anything.
    for effect in cluster.raft(reader).flush(now) {
        if let Effect::Send(message) = effect {
            cluster.raft(leader).message(now, message);
        }
    }
    cluster.sent.clear();
    cluster.flush(leader);
    for message in &cluster.sent {
        if let Body::AppendEntries(append) = &message.body {
            assert!(append.read_answers.len() <= READS_MAX);
        }
    }
    cluster.deliver();
    assert_eq!(cluster.reads.len() as u64, count);
}

#[test]
fn t6_4_an_answer_to_a_read_of_an_earlier_life_answers_no_later_one() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let (reader, other) = (cluster.followers(leader)[0], cluster.followers(leader)[1]);
    let read = |cluster: &mut Cluster| {
        let now = cluster.now;
        cluster.raft(reader).read_index(now, 1);
        cluster.flush(reader);
    };
    // A read from before an operation is committed, whose round nobody answers.
    let proposed = Proposed::Operation(Operation {
        data: "op".into(),
        session: None,
    });
    let now = cluster.now;
    cluster.raft(leader).propose(
        now,
        Proposal {
            id: 1,
            stream: None,
            proposed,
        },
    );
    cluster.flush(leader);
    let append = std::mem::take(&mut cluster.queue);
    read(&mut cluster);
    let request = cluster.queue.pop_back().unwrap();
    cluster.raft(leader).message(now, request);
    cluster.flush(leader);
    cluster.queue.clear();
    cluster.queue.extend(append);
    while let Some(message) = cluster.queue.pop_front() {
        let to = message.to.get();
        if to != reader && message.from != id(reader) {
            cluster.raft(to).message(now, message);
            cluster.flush(to);
        }
        if cluster.answers.contains_key(&1) {
            break;
        }
    }
    cluster.queue.clear();
    assert_eq!(cluster.index_of(1), 1, "acknowledged");
    // Its reader comes back, and asks again as soon as it hears the leader.
    cluster.restart(reader);
    cluster.raft(leader).peer_stream_broken(id(reader));
    cluster.cut_off.clear();
    cluster.cut_off.insert(other);
    cluster.now = cluster.now + Duration::from_secs(1);
    let now = cluster.now;
    cluster.raft(leader).tick(now);
    cluster.flush(leader);
    while cluster.members[&reader].leader().is_none() {
        let message = cluster.queue.pop_front().unwrap();
        if message.to == id(reader) {
            cluster.raft(reader).message(now, message);
            cluster.flush(reader);
        }
    }
    read(&mut cluster);
    cluster.deliver();
    assert_eq!(cluster.reads[&1], Some(1));
}

#[test]
fn s5_3_what_no_leader_can_have_sent_is_refused() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    let follower = cluster.followers(leader)[0];
    let term = cluster.members[&leader].term();
    let held = cluster.disks[&leader].entries.clone();
    let log = cluster.members[&leader].log();
    let next = log.fold().next_entry(
        log.last().index + 1,
        term,
        Payload::Operation(Operation {
            data: "x".into(),
            session: None,
        }),
    );
    let (first, second) = (held[0].clone(), held[1].clone());
    let bad = [
        (
            "a gap",
            second.log_index,
            Entry {
                log_index: next.log_index + 1,
                ..next.clone()
            },
        ),
        (
            "another hash",
            second.log_index,
            Entry {
                running_hash: 1,
                ..next.clone()
            },
        ),
        (
            "another index",
            second.log_index,
            Entry {
                operation_index: 9,
                ..next.clone()
            },
        ),
        (
            "a later term",
            second.log_index,
            Entry {
                term: term + 1,
                ..next
            },
        ),
        (
            "a committed one",
            first.log_index,
            Entry {
                term: term - 1,
                ..second
            },
        ),
    ];
    for (name, previous, entry) in bad {
        let notices = cluster.notices.len();
        let request = AppendEntries {
            previous: LogPosition {
                index: previous,
                term,
            },
            entries: vec![entry],
            commit: 0,
            round: 1,
            heartbeat: false,
            minimum_election_timeout: Duration::ZERO,
            read_answers: Vec::new(),
            previous_hash: None,
        };
        let now = cluster.now;
        let message = Message {
            from: id(leader),
            to: id(follower),
            term,
            level: FeatureLevel::FIRST,
            body: Body::AppendEntries(request),
        };
        cluster.raft(follower).message(now, message);
        cluster.flush(follower);
        assert!(
            matches!(&cluster.notices[notices..], [Notice::EntriesRefused { .. }]),
            "{name}"
        );
        assert!(cluster.members[&follower].refused().is_some(), "{name}");
        assert_eq!(cluster.disks[&follower].entries, held, "{name}");
    }
    let heartbeat = |commit| {
        let request = AppendEntries {
            previous: LogPosition {
                index: held[held.len() - 1].log_index,
                term,
            },
            entries: Vec::new(),
            commit,
            round: 2,
            heartbeat: true,
            minimum_election_timeout: Duration::ZERO,
            read_answers: Vec::new(),
            previous_hash: None,
        };
        Message {
            from: id(leader),
            to: id(follower),
            term,
            level: FeatureLevel::FIRST,
            body: Body::AppendEntries(request),
        }
    };
    let (now, last) = (cluster.now, held[held.len() - 1].log_index);
    cluster.raft(follower).message(now, heartbeat(last + 1));
    assert!(
        cluster.members[&follower].refused().is_some(),
        "what others have committed is missing here"
    );
    cluster.raft(follower).message(now, heartbeat(last));
    assert_eq!(
        cluster.members[&follower].refused(),
        None,
        "nothing committed is missing"
    );
}

#[test]
fn what_a_leader_before_was_refused_for_does_not_concern_a_new_leader() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = cluster.followers(leader)[0];
    let term = cluster.members[&leader].term();
    let last = cluster.members[&leader].log().last();
    let bad = Entry {
        log_index: last.index + 1,
        term,
        operation_index: 9,
        running_hash: 0,
        payload: Payload::Noop,
    };
    let request = AppendEntries {
        previous: last,
        entries: vec![bad],
        commit: 0,
        round: 1,
        heartbeat: false,
        minimum_election_timeout: Duration::ZERO,
        read_answers: Vec::new(),
        previous_hash: None,
    };
    for body in [Body::AppendEntries(request), Body::TimeoutNow] {
        assert_eq!(
            cluster.members[&follower].refused().is_some(),
            body == Body::TimeoutNow
        );
        let message = Message {
            from: id(leader),
            to: id(follower),
            term,
            level: FeatureLevel::FIRST,
            body,
        };
        let now = cluster.now;
        cluster.raft(follower).message(now, message);
        cluster.flush(follower);
    }
    cluster.deliver();
    assert_eq!(cluster.leader(), Some(follower));
    assert_eq!(cluster.members[&follower].refused(), None);
}

#[test]
fn numbers_that_no_member_can_have_sent_harm_nobody() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.submit(leader, 1);
    let follower = cluster.followers(leader)[0];
    // While the leader probes, it compares what is said to differ with where it probes.
    cluster.raft(leader).peer_stream_broken(id(follower));
    let term = cluster.members[&leader].term();
    let conflict = Conflict {
        previous: u64::MAX,
        hint: LogPosition::default(),
    };
    let response = |conflict| {
        Body::AppendEntriesResponse(AppendEntriesResponse {
            round: 0,
            matched: 0,
            received: 0,
            conflict,
            read_requests: Vec::new(),
            full: Full::default(),
            supports: Supports::default(),
            wants_snapshot: None,
        })
    };
    for (term, body) in [(term, response(Some(conflict))), (u64::MAX, response(None))] {
        let message = Message {
            from: id(follower),
            to: id(leader),
            term,
            level: FeatureLevel::FIRST,
            body,
        };
        let now = cluster.now;
        cluster.raft(leader).message(now, message);
        cluster.flush(leader);
    }
    cluster.run(Duration::from_secs(3));
    assert_eq!(
        (cluster.leader(), cluster.members[&leader].term()),
        (Some(leader), term)
    );
    cluster.cut_off.insert(leader);
    assert_ne!(cluster.elect(), leader, "there is a term to campaign in");
}

#[test]
fn a_vote_is_of_its_own_term_though_the_log_is_of_a_later_one() {
    let (config, now) = (Config::new(id(1)), Time(0));
    let hard_state = HardState {
        term: 1,
        voted_for: Some(id(2)),
        ..HardState::default()
    };
    let noop = Fold::new(configuration(3)).next_entry(1, 2, Payload::Noop);
    let mut raft = member(1, 3, config, &Disk::holding(hard_state, vec![noop]), now);
    let request = RequestVote {
        pre_vote: false,
        transfer: true,
        last: LogPosition { index: 1, term: 2 },
    };
    raft.message(
        now,
        Message {
            from: id(3),
            to: id(1),
            term: 2,
            level: FeatureLevel::FIRST,
            body: Body::RequestVote(request),
        },
    );
    let effects = raft.flush(now);
    let persist = effects.iter().find_map(|effect| match effect {
        Effect::Persist(persist) => persist.hard_state,
        _ => None,
    });
    assert_eq!(
        persist.map(|state| (state.term, state.voted_for)),
        Some((2, Some(id(3))))
    );
}

#[test]
fn a_restarted_voter_sticks_to_the_leader_it_may_have_had() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let followers = cluster.followers(leader);
    cluster.restart(followers[0]);
    let last = cluster.members[&leader].log().last();
    let term = cluster.members[&leader].term() + 1;
    for (transfer, answer) in [(false, VoteAnswer::Refused), (true, VoteAnswer::Granted)] {
        let request = RequestVote {
            pre_vote: false,
            transfer,
            last,
        };
        let message = Message {
            from: id(followers[1]),
            to: id(followers[0]),
            term,
            level: FeatureLevel::FIRST,
            body: Body::RequestVote(request),
        };
        let now = cluster.now;
        cluster.raft(followers[0]).message(now, message);
        cluster.flush(followers[0]);
        assert_eq!(
            &cluster.sent.last().unwrap().body,
            &Body::Vote {
                pre_vote: false,
                answer
            },
            "transfer: {transfer}"
        );
    }
}

#[test]
fn no_stated_minimum_silences_a_voter_for_ever() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = cluster.followers(leader)[0];
    let term = cluster.members[&leader].term();
    let request = AppendEntries {
        previous: LogPosition::default(),
        entries: Vec::new(),
        commit: 0,
        round: 1,
        heartbeat: false,
        minimum_election_timeout: Duration::MAX,
        read_answers: Vec::new(),
        previous_hash: None,
    };
    let message = Message {
        from: id(leader),
        to: id(follower),
        term,
        level: FeatureLevel::FIRST,
        body: Body::AppendEntries(request),
    };
    let now = cluster.now;
    cluster.raft(follower).message(now, message);
    cluster.flush(follower);
    let stated = cluster.disks[&follower].hard_state.stated_minimum;
    assert_eq!(stated, crate::config::ELECTION_TIMEOUT_MAX);
    // Nor one that was believed before there was a limit.
    cluster.cut_off.insert(leader);
    for other in cluster.followers(leader) {
        let disk = cluster.disks.get_mut(&other).unwrap();
        disk.hard_state.stated_minimum = Duration::MAX;
        cluster.restart(other);
    }
    cluster.run(crate::config::ELECTION_TIMEOUT_MAX + Duration::from_secs(20));
    assert!(
        cluster.leader().is_some(),
        "the two that are left elect one of them"
    );
}

#[test]
fn the_largest_stated_minimum_is_kept_across_restarts() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = cluster.followers(leader)[0];
    assert_eq!(
        cluster.disks[&follower].hard_state.stated_minimum,
        Duration::from_millis(1_500)
    );
}
