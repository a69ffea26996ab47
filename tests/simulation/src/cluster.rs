//! The simulated cluster: pods, network, client, and the loop that lets things happen.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::time::Duration;

use raftlog_raft::ids::NodeNumber;
use raftlog_raft::time::Time;
use raftlog_replicator::core::{
    Config as ReplicatorConfig, Effect, Event, Operation, Position, Replicator,
    StartAction as ReplicatorStart, StreamId,
};
use raftlog_server::node::{
    FromReplicator, Input, Node, NodeConfig, Output, PeerReport, Place, Progress, Proposal, Proposed,
    StartAction, Status, ToReplicator,
};
use raftlog_storage::Disk;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::client::Client;
use crate::happening::{Agenda, Happening};
use crate::pod::{Executed, Pod, Running};

/// What a run is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Everything that is left to chance.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: NodeNumber,
    /// Operations that the client submits.
    pub operations: usize,
    /// Power failures of single pods, at any time.
    pub power_failures: usize,
    /// A message takes up to so long.
    pub delay_max: Duration,
    /// Of so many messages one gets lost; 0: none.
    pub lost_of: u32,
}

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    now: Time,
    random: ChaCha8Rng,
    agenda: Agenda,
    pods: BTreeMap<NodeNumber, Pod>,
    client: Client,
    streams: u64,
    trace: std::hash::DefaultHasher,
    happenings: u64,
    /// Happenings at this very moment.
    at_once: u64,
}

impl Cluster {
    /// A cluster whose pods start at about the same time, with empty disks.
    pub fn new(options: Options) -> Self {
        let mut cluster = Self {
            now: Time(1_000_000),
            random: ChaCha8Rng::seed_from_u64(options.seed),
            agenda: Agenda::default(),
            pods: (1..=options.nodes).map(|number| (number, Pod::new())).collect(),
            client: Client::new(),
            streams: 0,
            trace: std::hash::DefaultHasher::new(),
            happenings: 0,
            at_once: 0,
            options,
        };
        for number in 1..=cluster.options.nodes {
            let at = cluster.soon(Duration::from_millis(500));
            cluster.agenda.add(at, number, 0, Happening::Start);
        }
        for _ in 0..cluster.options.power_failures {
            let number = cluster.any_pod();
            let at = cluster.soon(Duration::from_mins(1));
            cluster.agenda.add(at, number, u64::MAX, Happening::PowerFailure);
        }
        cluster.try_submit(Duration::ZERO);
        cluster
    }

    /// Lets things happen until all operations are acknowledged and executed everywhere. Panics if that takes longer than
    /// `limit` of virtual time.
    pub fn run(&mut self, limit: Duration) {
        let end = self.now + limit;
        while !self.is_done() {
            let (at, pod, life, happening) =
                self.agenda.next().expect("a cluster always has something ahead");
            assert!(
                at <= end,
                "seed {}: not done after {limit:?} of virtual time: {self:#?}",
                self.options.seed
            );
            self.count(at);
            self.trace
                .write(format!("{at:?} {pod} {life} {happening:?}").as_bytes());
            self.happen(pod, life, happening);
        }
    }

    /// Time must go on: a deadline that is not met by what it brings about would keep a real node's processor busy.
    fn count(&mut self, at: Time) {
        const HAPPENINGS_AT_ONCE_MAX: u64 = 10_000;
        self.at_once = if at == self.now { self.at_once + 1 } else { 0 };
        assert!(
            self.at_once < HAPPENINGS_AT_ONCE_MAX,
            "seed {}: time stands still at {at:?}",
            self.options.seed
        );
        self.now = at;
        self.happenings += 1;
    }

    fn is_done(&self) -> bool {
        let wanted = self.options.operations;
        self.client.acknowledged().len() >= wanted
            && self.pods.values().all(|pod| {
                pod.executed.iter().map(|executed| executed.index).max() == u64::try_from(wanted).ok()
            })
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What that node's replicator executed, over all its lives.
    pub fn executed(&self, number: NodeNumber) -> &[Executed] {
        &self.pods[&number].executed
    }

    /// Each running node's view.
    pub fn statuses(&self) -> Vec<Status> {
        self.pods
            .values()
            .filter_map(|pod| Some(pod.running.as_ref()?.node.status(self.now)))
            .collect()
    }

    /// A hash of everything that happened and when.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// How many things have happened.
    pub fn happenings(&self) -> u64 {
        self.happenings
    }

    fn soon(&mut self, max: Duration) -> Time {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        self.now + Duration::from_micros(self.random.random_range(0..=micros))
    }

    fn any_pod(&mut self) -> NodeNumber {
        self.random.random_range(1..=self.options.nodes)
    }

    fn happen(&mut self, number: NodeNumber, life: u64, happening: Happening) {
        match happening {
            Happening::Start => self.start(number),
            Happening::PowerFailure => self.power_failure(number),
            Happening::Submit { attempt } => self.submit(number, attempt),
            Happening::Asked { by } => self.answer_peer(number, by),
            other => {
                let pod = self.pods.get_mut(&number).expect("pods are numbered");
                // What was on its way to a process that died is lost with it; the network does not care who receives.
                let from_network = matches!(
                    other,
                    Happening::Message(..) | Happening::Report(..) | Happening::Bootstrap(..)
                );
                if pod.running.is_some() && (from_network || pod.life == life) {
                    self.happen_inside(number, other);
                }
            }
        }
    }

    fn happen_inside(&mut self, number: NodeNumber, happening: Happening) {
        let now = self.now;
        let pod = self.pods.get_mut(&number).expect("pods are numbered");
        let Some(running) = &mut pod.running else { return };
        match happening {
            Happening::Tick => {
                // One that an earlier deadline overtook must not bring about another.
                if running.tick_at <= now {
                    running.tick_at = Time::NEVER;
                }
                if running.node.deadline() <= now {
                    running.node.handle(now, Input::Tick);
                }
            }
            Happening::Message(cluster, message) => {
                if running.node.cluster_id() == Some(cluster) && running.node.member_id() == message.to {
                    running.node.handle(now, Input::Message(message));
                }
            }
            Happening::NodeDisk(id, op) => {
                running.node_under_way.remove(0);
                let result = pod.node_disk.execute(&op);
                running.node.handle(now, Input::Disk(id, result));
            }
            Happening::ReplicatorDisk(id, op) => {
                running.replicator_under_way.remove(0);
                let result = pod.replicator_disk.execute(&op);
                running.replicator.handle(Event::Disk(id, result));
            }
            Happening::Report(node, report) => running.node.handle(now, Input::PeerReport { node, report }),
            Happening::Bootstrap(cluster_id, to_member, members) => {
                running.node.handle(
                    now,
                    Input::Bootstrap {
                        id: 0,
                        cluster_id,
                        to_member,
                        members,
                    },
                );
            }
            Happening::ToNode(said) => running.node.handle(now, Input::Replicator(said)),
            Happening::ToReplicator(event) => running.replicator.handle(event),
            Happening::Executed(through) => running.replicator.handle(Event::Executed { through }),
            Happening::Connect => self.connect(number),
            Happening::Start
            | Happening::PowerFailure
            | Happening::Submit { .. }
            | Happening::Asked { .. } => {}
        }
        self.settle(number);
    }

    fn start(&mut self, number: NodeNumber) {
        let now = self.now;
        let mut random = ChaCha8Rng::from_rng(&mut self.random);
        let initial_peers = (1..=self.options.nodes)
            .map(|number| (number, format!("node{number}:5001")))
            .collect();
        let config = NodeConfig {
            node: number,
            peer_address: format!("node{number}:5001"),
            client_address: format!("node{number}:5001"),
            initial_peers,
            election_timeout_min: Duration::from_millis(1_500),
            election_timeout_max: Duration::from_secs(3),
            heartbeat_interval: Duration::from_secs(1),
        };
        let pod = self.pods.get_mut(&number).expect("pods are numbered");
        let replicator_config = ReplicatorConfig::new(number);
        let replicator = Replicator::open(replicator_config, &mut pod.replicator_disk, &mut random)
            .unwrap_or_else(|error| panic!("replicator {number} does not start: {error}"));
        let node = Node::open(config, &mut pod.node_disk, now, random)
            .unwrap_or_else(|error| panic!("node {number} does not start: {error}"));
        pod.life += 1;
        pod.running = Some(Running {
            node,
            replicator,
            tick_at: Time::NEVER,
            stream: None,
            connecting: false,
            node_under_way: Vec::new(),
            replicator_under_way: Vec::new(),
            node_disk_free: now,
            replicator_disk_free: now,
        });
        self.settle(number);
    }

    fn power_failure(&mut self, number: NodeNumber) {
        let pod = self.pods.get_mut(&number).expect("pods are numbered");
        let Some(running) = pod.running.take() else { return };
        pod.node_disk
            .power_failure(&running.node_under_way, &mut self.random);
        pod.replicator_disk
            .power_failure(&running.replicator_under_way, &mut self.random);
        let at = self.soon(Duration::from_secs(20));
        self.agenda.add(at, number, 0, Happening::Start);
    }

    /// Carries out whatever both processes of a pod want, until they want nothing at this moment.
    fn settle(&mut self, number: NodeNumber) {
        let now = self.now;
        loop {
            let Some(running) = self.pods.get_mut(&number).and_then(|pod| pod.running.as_mut()) else {
                return;
            };
            let outputs = running.node.outputs(now);
            let effects = running.replicator.effects();
            if outputs.is_empty() && effects.is_empty() {
                break;
            }
            for output in outputs {
                self.carry_out(number, output);
            }
            for effect in effects {
                self.carry_out_of_replicator(number, effect);
            }
        }
        self.schedule(number);
    }

    fn schedule(&mut self, number: NodeNumber) {
        let Some(pod) = self.pods.get_mut(&number) else {
            return;
        };
        let (life, Some(running)) = (pod.life, &mut pod.running) else {
            return;
        };
        let deadline = running.node.deadline().max(self.now);
        if deadline < running.tick_at {
            running.tick_at = deadline;
            self.agenda.add(deadline, number, life, Happening::Tick);
        }
        let formed = running.node.cluster_id().is_some();
        if formed && running.stream.is_none() && !running.connecting {
            running.connecting = true;
            self.inside(number, Duration::from_millis(50), Happening::Connect);
        }
    }

    /// Something on its way within a pod.
    fn inside(&mut self, number: NodeNumber, max: Duration, happening: Happening) {
        let life = self.pods[&number].life;
        let at = self.soon(max);
        self.agenda.add(at, number, life, happening);
    }

    /// Something on its way in the network, if it is not lost.
    fn network(&mut self, to: NodeNumber, happening: Happening) {
        let lost_of = self.options.lost_of;
        if lost_of > 0 && self.random.random_range(0..lost_of) == 0 {
            return;
        }
        let at = self.soon(self.options.delay_max);
        self.agenda.add(at, to, 0, happening);
    }

    fn carry_out(&mut self, number: NodeNumber, output: Output) {
        match output {
            Output::Disk(id, op) => {
                let at = self.disk_done_at(number, |running| &mut running.node_disk_free);
                let pod = self.pods.get_mut(&number).expect("pods are numbered");
                let Some(running) = &mut pod.running else { return };
                running.node_under_way.push(op.clone());
                self.agenda.add(at, number, pod.life, Happening::NodeDisk(id, op));
            }
            Output::Send(message) => {
                let Some(running) = &self.pods[&number].running else {
                    return;
                };
                let cluster = running.node.cluster_id().expect("only members send messages");
                let status = running.node.status(self.now);
                if let Some(to) = status.configuration.member(message.to) {
                    self.network(to.node, Happening::Message(cluster, message));
                }
            }
            Output::Answer { id, result } => match result {
                Ok(committed) => {
                    if self.client.acknowledge(id, committed.operation_index) {
                        self.try_submit(Duration::from_millis(100));
                    }
                }
                Err(_) if id == self.client.attempt() - 1 => self.try_submit(Duration::from_millis(500)),
                Err(_) => {}
            },
            Output::AskPeer { node, .. } => self.network(node, Happening::Asked { by: number }),
            Output::SendBootstrap {
                node,
                cluster_id,
                to_member,
                members,
                ..
            } => {
                self.network(node, Happening::Bootstrap(cluster_id, to_member, members));
            }
            Output::Replicator(said) => self.say_to_replicator(number, said),
            Output::Stop(why) => panic!("seed {}: node {number} stops: {why}", self.options.seed),
            Output::Transferred { .. }
            | Output::MembershipChanged { .. }
            | Output::ReadReady { .. }
            | Output::Bootstrapped { .. }
            | Output::Notice(_) => {}
        }
    }

    /// One operation after the other, each takes a moment.
    fn disk_done_at(&mut self, number: NodeNumber, free: impl Fn(&mut Running) -> &mut Time) -> Time {
        let done = self.soon(Duration::from_millis(2));
        let running = self
            .pods
            .get_mut(&number)
            .and_then(|pod| pod.running.as_mut())
            .expect("it runs");
        let free = free(running);
        *free = done.max(*free);
        *free
    }

    fn answer_peer(&mut self, number: NodeNumber, by: NodeNumber) {
        let Some(running) = &self.pods[&number].running else {
            return;
        };
        let status = running.node.status(self.now);
        let report = match (status.cluster_id, &status.bootstrap) {
            (Some(cluster_id), Some(bootstrap)) => PeerReport::Formed {
                cluster_id,
                member_ids: status
                    .configuration
                    .members()
                    .iter()
                    .map(|member| member.id)
                    .collect(),
                bootstrap: bootstrap.members().to_vec(),
            },
            _ => PeerReport::Unformed {
                member_id: status.member_id,
                peer_address: format!("node{number}:5001"),
                client_address: format!("node{number}:5001"),
            },
        };
        self.network(by, Happening::Report(number, report));
    }

    fn connect(&mut self, number: NodeNumber) {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let Some(running) = self.pods.get_mut(&number).and_then(|pod| pod.running.as_mut()) else {
            return;
        };
        let Some(cluster) = running.node.cluster_id() else {
            return;
        };
        let member = running.node.member_id();
        running.connecting = false;
        running.stream = Some(stream);
        running
            .node
            .handle(self.now, Input::Replicator(FromReplicator::Opened));
        running.replicator.handle(Event::NodeOpened {
            stream,
            cluster,
            member,
            node: number,
        });
    }

    /// Nothing overtakes within a stream: both ends are in one pod and hear each other at once.
    fn say_to_replicator(&mut self, number: NodeNumber, said: ToReplicator) {
        let Some(stream) = self.pods[&number]
            .running
            .as_ref()
            .and_then(|running| running.stream)
        else {
            return;
        };
        let event = match said {
            ToReplicator::Start { action, commit } => {
                let action = match action {
                    StartAction::ResumeFrom(index) => ReplicatorStart::ResumeFrom(index),
                    StartAction::CutTo(index) => ReplicatorStart::CutTo(index),
                    StartAction::WaitUntil(index) => ReplicatorStart::WaitUntil(index),
                };
                Event::Start {
                    stream,
                    action,
                    commit,
                }
            }
            ToReplicator::Feed { operations, commit } => {
                let operations = operations
                    .into_iter()
                    .map(|fed| Operation {
                        index: fed.index,
                        term: fed.term,
                        running_hash: fed.running_hash,
                        data: fed.data,
                    })
                    .collect();
                Event::Feed {
                    stream,
                    operations,
                    commit,
                }
            }
            ToReplicator::ReadAnswer { .. } => return,
            ToReplicator::Close { why } => {
                panic!(
                    "seed {}: node {number} closes the stream to its replicator: {why}",
                    self.options.seed
                )
            }
        };
        self.inside(number, Duration::ZERO, Happening::ToReplicator(event));
    }

    fn carry_out_of_replicator(&mut self, number: NodeNumber, effect: Effect) {
        let seed = self.options.seed;
        match effect {
            Effect::Disk(id, op) => {
                let at = self.disk_done_at(number, |running| &mut running.replicator_disk_free);
                let pod = self.pods.get_mut(&number).expect("pods are numbered");
                let Some(running) = &mut pod.running else { return };
                running.replicator_under_way.push(op.clone());
                self.agenda
                    .add(at, number, pod.life, Happening::ReplicatorDisk(id, op));
            }
            Effect::Position(_, position) => {
                self.inside(
                    number,
                    Duration::ZERO,
                    Happening::ToNode(FromReplicator::Position(node_position(&position))),
                );
            }
            Effect::Progress(_, progress) => {
                let progress = Progress {
                    last_index: progress.last,
                    commit_index: progress.commit,
                    executed_index: progress.executed,
                    durable_executed_index: progress.durable_executed,
                };
                self.inside(
                    number,
                    Duration::ZERO,
                    Happening::ToNode(FromReplicator::Progress(progress)),
                );
            }
            Effect::Execute(operations) => self.execute(number, operations),
            Effect::WakeIn(span) => {
                let life = self.pods[&number].life;
                self.agenda.add(
                    self.now + span,
                    number,
                    life,
                    Happening::ToReplicator(Event::Wake),
                );
            }
            Effect::Close(_, refusal) => {
                panic!("seed {seed}: replicator {number} refuses its node: {refusal}")
            }
            Effect::Fatal(why) => panic!("seed {seed}: replicator {number} stops: {why}"),
            Effect::Story(_)
            | Effect::Notice(_)
            | Effect::AskReadIndex(..)
            | Effect::Fetched { .. }
            | Effect::ReadIndexReady(..)
            | Effect::Stopped => {}
        }
    }

    /// The executor prints each operation at once, and reports all of them a moment later.
    fn execute(&mut self, number: NodeNumber, operations: Vec<Operation>) {
        let pod = self.pods.get_mut(&number).expect("pods are numbered");
        let Some(last) = operations.last().map(|operation| operation.index) else {
            return;
        };
        for Operation { index, data, .. } in operations {
            let data = String::from_utf8_lossy(&data).into_owned();
            pod.executed.push(Executed {
                life: pod.life,
                index,
                data,
            });
        }
        self.inside(number, Duration::from_millis(5), Happening::Executed(last));
    }

    /// The client tries its current operation at some node, and again elsewhere if that comes to nothing.
    fn try_submit(&mut self, pause: Duration) {
        let attempt = self.client.next_attempt();
        let number = self.any_pod();
        let at = self.soon(pause);
        self.agenda
            .add(at, number, u64::MAX, Happening::Submit { attempt });
    }

    fn submit(&mut self, number: NodeNumber, attempt: u64) {
        if attempt != self.client.attempt() || self.client.acknowledged().len() >= self.options.operations {
            return;
        }
        let now = self.now;
        // Should no answer come, as after a crash, the same operation is tried elsewhere.
        let again = self.any_pod();
        let next = self.client.next_attempt();
        self.agenda.add(
            now + Duration::from_secs(5),
            again,
            u64::MAX,
            Happening::Submit { attempt: next },
        );
        let Some(running) = self.pods.get_mut(&number).and_then(|pod| pod.running.as_mut()) else {
            return self.try_submit(Duration::from_millis(500));
        };
        let proposed = Proposed::Operation(self.client.operation());
        running.node.handle(
            now,
            Input::Submit(vec![Proposal {
                id: attempt,
                stream: None,
                proposed,
            }]),
        );
        self.settle(number);
    }
}

fn node_position(position: &Position) -> raftlog_server::node::Position {
    let place = |place: raftlog_replicator::core::Place| Place {
        index: place.index,
        term: place.term,
        running_hash: place.running_hash,
    };
    raftlog_server::node::Position {
        cluster_id: position.cluster,
        member_id: position.member,
        first_index: position.first_index,
        last: place(position.last),
        commit: place(position.commit),
        executed: place(position.executed),
    }
}
