//! A snapshot on its way from a leader to a learner that lacks what the leader's log no longer holds, over a network that loses,
//! repeats and delays, and with restarts anywhere.

use std::collections::VecDeque;

use raftlog_raft::entry::Operation;
use raftlog_raft::fold::Fold;
use raftlog_raft::log::Base;
use raftlog_raft::message::LogPosition;
use raftlog_storage::snapshots::{Manifest, Whole};
use rand::RngExt as _;

use super::*;
use crate::node::api::Change;
use crate::node::snapshot::{Contents, Origin};

/// Bytes of the replicator's state: some chunks of the store, and several windows.
const STATE_BYTES: usize = 3 << 20;

/// A node that is the only voter, and a second one that becomes its learner.
struct Pair {
    leader: Alone,
    learner: Alone,
    /// On the way, by whether it is for the learner.
    network: VecDeque<(bool, Input)>,
    random: ChaCha8Rng,
    /// One in so many messages is lost, repeated, or overtaken; 0: none.
    faults_of: u32,
    /// Data sent.
    sent: u64,
    requests: u64,
}

fn origin(of: &Alone) -> Origin {
    Origin {
        cluster: of.node.cluster_id().unwrap(),
        member: of.node.member_id(),
    }
}

fn config(node: u32, voter: bool) -> NodeConfig {
    let address = format!("node{node}:5001");
    let initial_peers = if voter {
        BTreeMap::from([(node, address.clone())])
    } else {
        BTreeMap::new()
    };
    NodeConfig {
        node,
        peer_address: address.clone(),
        client_address: address,
        initial_peers,
        was_removed: false,
        election_timeout_min: Duration::from_millis(1_500),
        election_timeout_max: Duration::from_secs(3),
        heartbeat_interval: Duration::from_secs(1),
        // These tests take them by themselves.
        snapshots: SnapshotPolicy {
            every_operations: 0,
            every_bytes: None,
        },
        lease_reads: true,
        supports: Supports::default(),
        bounds: Bounds::default(),
        planted: Planted::default(),
    }
}

fn open(node: u32, disk: MemoryDisk, now: Time) -> Alone {
    open_with(config(node, node == 1), disk, now)
}

fn open_with(config: NodeConfig, mut disk: MemoryDisk, now: Time) -> Alone {
    let random = ChaCha8Rng::seed_from_u64(u64::from(config.node));
    let node = Node::open(config, &mut disk, now, random).unwrap();
    Alone {
        node,
        disk,
        now,
        said: Vec::new(),
        answers: BTreeMap::new(),
        taken: BTreeMap::new(),
        read: BTreeMap::new(),
        queried: BTreeMap::new(),
        notices: Vec::new(),
        stopped: None,
    }
}

impl Pair {
    /// Which of the two a member is.
    fn new(seed: u64) -> Self {
        let now = Time(1_000_000);
        let mut pair = Self {
            leader: open(1, MemoryDisk::new(1 << 30), now),
            learner: open(2, MemoryDisk::new(1 << 30), now),
            network: VecDeque::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            faults_of: 0,
            sent: 0,
            requests: 0,
        };
        pair.leader.run(Duration::from_secs(5));
        pair.submit(5);
        pair
    }

    fn formed(alone: &mut Alone) -> (&mut Formed, &mut Store) {
        match &mut alone.node.state {
            State::Formed(formed) => (formed, &mut alone.node.store),
            State::Unformed(_) => panic!("it belongs to no cluster"),
        }
    }

    fn raft(alone: &Alone) -> &Raft {
        alone.node.raft().expect("it belongs to a cluster")
    }

    fn submit(&mut self, operations: u64) {
        for _ in 0..operations {
            self.requests += 1;
            let proposal = Proposal {
                id: self.requests,
                stream: None,
                proposed: Proposed::Operation(Operation {
                    data: vec![7; 100].into(),
                    session: None,
                }),
            };
            let now = self.leader.now;
            self.leader.node.handle(now, Input::Submit(vec![proposal]));
        }
        self.run(Duration::from_millis(100));
    }

    /// The leader takes its place in the learner's configuration, and the other way round.
    fn add_learner(&mut self) {
        let (bootstrap, cluster_id) = {
            let status = self.leader.node.status(self.leader.now);
            (status.bootstrap.unwrap(), status.cluster_id.unwrap())
        };
        let invitation = Input::Invited {
            cluster_id,
            bootstrap: bootstrap.members().to_vec(),
            level: FeatureLevel::FIRST,
        };
        self.learner.node.handle(self.learner.now, invitation);
        self.learner.run(Duration::from_millis(100));
        let member = Member {
            voter: false,
            ..own_member(&config(2, false), self.learner.node.member_id())
        };
        let change = MembershipChange {
            id: 1_000,
            expected_version: 0,
            changes: vec![Change::AddLearner(member)],
            force: true,
            dry_run: false,
        };
        self.leader.now = self.leader.now.max(self.learner.now);
        self.leader
            .node
            .handle(self.leader.now, Input::ChangeMembership(change));
    }

    /// What a node has committed, which is all that it has.
    fn committed(alone: &Alone) -> (LogPosition, Fold) {
        let log = Self::raft(alone).log();
        assert_eq!(log.last().index, log.settled());
        (log.last(), log.fold().clone())
    }

    fn manifest(alone: &Alone, position: LogPosition, fold: &Fold, whole: Whole) -> Manifest {
        let contents = Contents {
            place: Place {
                index: fold.operation_index,
                term: position.term,
                running_hash: fold.running_hash,
            },
            state_bytes: STATE_BYTES as u64,
            origin: origin(alone),
        };
        Manifest {
            index: position.index,
            term: position.term,
            metadata: contents.encode(),
            whole,
        }
    }

    /// A node takes a snapshot of everything that it has committed, whose state is that byte again and again.
    fn take_snapshot(alone: &mut Alone, byte: u8) -> LogPosition {
        let now = alone.now;
        let (position, fold) = Self::committed(alone);
        let mut data = vec![byte; STATE_BYTES];
        fold.encode(&mut data);
        let manifest = Self::manifest(alone, position, &fold, Whole::default());
        let (_, store) = Self::formed(alone);
        store.snapshots.begin(manifest, false).unwrap();
        let mut offset = 0;
        for piece in data.chunks(1 << 20) {
            let (_, store) = Self::formed(alone);
            store.snapshots.receive(offset, piece).unwrap();
            offset += piece.len() as u64;
            alone.run(Duration::ZERO);
        }
        let (_, store) = Self::formed(alone);
        store.snapshots.finish().unwrap();
        alone.now = now;
        alone.run(Duration::ZERO);
        let (_, store) = Self::formed(alone);
        assert_eq!(
            store.snapshots.newest().map(|newest| newest.index),
            Some(position.index)
        );
        position
    }

    /// A node lets go of what its oldest snapshot holds.
    fn compact(alone: &mut Alone) {
        let (formed, store) = Self::formed(alone);
        let manifest = store.snapshots.manifests().next().unwrap();
        let place = Contents::of(manifest).unwrap().place;
        let base = Base {
            position: snapshot::position(manifest),
            operation_index: place.index,
            running_hash: place.running_hash,
        };
        store.wal.compact(base.position.index);
        formed.raft().compact_to(base);
        alone.run(Duration::ZERO);
    }

    /// Carries out what a node wants; whether there was anything.
    fn carry_out(&mut self, to_learner: bool) -> bool {
        let alone = if to_learner {
            &mut self.leader
        } else {
            &mut self.learner
        };
        let outputs = alone.node.outputs(alone.now);
        let any = !outputs.is_empty();
        for output in outputs {
            let input = match output {
                Output::Disk(id, op) => {
                    let result = alone.disk.execute(&op);
                    alone.node.handle(alone.now, Input::Disk(id, result));
                    continue;
                }
                Output::Send(message) => Input::Message(message),
                Output::InstallSnapshot(message) => {
                    if let SnapshotPart::Data { data, .. } = &message.part {
                        self.sent += data.len() as u64;
                    }
                    Input::InstallSnapshot(message)
                }
                Output::InstallSnapshotResponse(response) => Input::InstallSnapshotResponse(response),
                Output::Stop(why) => panic!("{why}"),
                Output::Notice(notice) => {
                    alone.notices.push(notice.to_string());
                    continue;
                }
                _ => continue,
            };
            self.network.push_back((to_learner, input));
        }
        any
    }

    /// The next message arrives, if nothing befalls it.
    fn deliver(&mut self) -> bool {
        let Some((to_learner, input)) = self.network.pop_front() else {
            return false;
        };
        if self.faults_of > 0 && self.random.random_range(0..self.faults_of) == 0 {
            match (self.random.random_range(0..3), input) {
                (0, Input::InstallSnapshot(message)) => {
                    self.network
                        .push_front((to_learner, Input::InstallSnapshot(message.clone())));
                    self.network
                        .push_back((to_learner, Input::InstallSnapshot(message)));
                }
                (1, input) => self.network.push_back((to_learner, input)),
                _ => {}
            }
            return true;
        }
        let alone = if to_learner {
            &mut self.learner
        } else {
            &mut self.leader
        };
        let for_it = match &input {
            Input::Message(message) => message.to,
            Input::InstallSnapshot(message) => message.to,
            Input::InstallSnapshotResponse(response) => response.to,
            _ => unreachable!("nothing else is sent"),
        };
        if alone.node.member_id() == for_it && alone.node.cluster_id().is_some() {
            alone.node.handle(alone.now, input);
        }
        true
    }

    /// One step: outputs, or a message, or else time, up to `end`. False: nothing more happens until then.
    fn step(&mut self, end: Time) -> bool {
        let now = self.leader.now.max(self.learner.now);
        (self.leader.now, self.learner.now) = (now, now);
        let carried = self.carry_out(true) | self.carry_out(false);
        if carried || self.deliver() {
            return true;
        }
        let due = self.leader.node.deadline().min(self.learner.node.deadline());
        if due > end {
            return false;
        }
        let now = now.max(due);
        for alone in [&mut self.leader, &mut self.learner] {
            alone.now = now;
            if alone.node.deadline() <= now {
                alone.node.handle(now, Input::Tick);
            }
        }
        true
    }

    fn run(&mut self, span: Duration) {
        let end = self.leader.now + span;
        while self.step(end) {}
        (self.leader.now, self.learner.now) = (end, end);
    }

    /// The learner's process ends, and begins again.
    fn restart_learner(&mut self) {
        let disk = std::mem::replace(&mut self.learner.disk, MemoryDisk::new(1));
        self.learner = open(2, disk, self.learner.now);
        let (learner, now) = (self.learner.node.member_id(), self.leader.now);
        self.network.clear();
        self.leader.node.handle(now, Input::PeerStreamBroken(learner));
    }

    fn is_caught_up(&self) -> bool {
        let (leaders, learners) = (Self::raft(&self.leader), Self::raft(&self.learner));
        learners.commit() == leaders.commit() && learners.log().fold() == leaders.log().fold()
    }

    fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.leader.now + limit;
        while !done(self) {
            assert!(self.step(end), "not within {limit:?}");
        }
    }
}

#[test]
fn a_new_learner_starts_from_the_leaders_snapshot() {
    let mut pair = Pair::new(1);
    let position = Pair::take_snapshot(&mut pair.leader, 1);
    Pair::compact(&mut pair.leader);
    pair.submit(3);
    pair.add_learner();
    pair.run_until(Duration::from_secs(5), Pair::is_caught_up);
    assert_eq!(Pair::raft(&pair.learner).log().base().position, position);
    assert!(pair.sent < STATE_BYTES as u64 + (1 << 20), "{} bytes", pair.sent);
    pair.restart_learner();
    assert_eq!(Pair::raft(&pair.learner).log().base().position, position);
    pair.submit(3);
    pair.run_until(Duration::from_secs(5), Pair::is_caught_up);
    assert!(pair.learner.node.status(pair.learner.now).is_member);
}

#[test]
fn a_transfer_survives_a_bad_network_and_restarts_of_the_receiver() {
    let seeds = match std::env::var("RAFT_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("RAFT_TEST_SEED is a number")],
        Err(_) => (0..20).collect(),
    };
    for seed in seeds {
        println!(
            "replay with: RAFT_TEST_SEED={seed} cargo test -p raftlog-server --lib -- a_transfer_survives"
        );
        let mut pair = Pair::new(seed);
        Pair::take_snapshot(&mut pair.leader, 1);
        Pair::compact(&mut pair.leader);
        pair.submit(3);
        pair.add_learner();
        pair.faults_of = if seed % 4 == 0 {
            0
        } else {
            pair.random.random_range(3..30)
        };
        for _ in 0..pair.random.random_range(0..6) {
            let end = pair.leader.now + Duration::from_mins(10);
            for _ in 0..pair.random.random_range(0..80) {
                pair.step(end);
            }
            pair.restart_learner();
        }
        pair.run_until(Duration::from_mins(10), Pair::is_caught_up);
    }
}

/// A restart finds the snapshot beside an older one of its own and a log that ends before it.
#[test]
fn a_snapshot_counts_as_soon_as_it_is_saved() {
    let mut pair = Pair::new(1);
    pair.add_learner();
    pair.run_until(Duration::from_secs(5), Pair::is_caught_up);
    let own = Pair::take_snapshot(&mut pair.learner, 9);
    let disk = std::mem::replace(&mut pair.learner.disk, MemoryDisk::new(1));
    // Nobody hears it meanwhile.
    pair.learner = open(3, MemoryDisk::new(1 << 30), pair.learner.now);
    pair.submit(3);
    let position = Pair::take_snapshot(&mut pair.leader, 1);
    Pair::compact(&mut pair.leader);
    pair.learner = open(2, disk, pair.learner.now);
    assert_eq!(Pair::raft(&pair.learner).log().last(), own);
    let saved = |pair: &Pair| {
        let newest = pair.learner.node.store.snapshots.newest();
        newest.map(|newest| newest.index) == Some(position.index)
    };
    pair.run_until(Duration::from_secs(5), saved);
    assert_eq!(
        Pair::raft(&pair.learner).log().last(),
        own,
        "it has not started from it"
    );
    pair.restart_learner();
    assert_eq!(Pair::raft(&pair.learner).commit(), position.index);
    pair.submit(3);
    pair.run_until(Duration::from_secs(5), Pair::is_caught_up);
}

/// The leader has taken a newer one, and the one under way is gone.
#[test]
fn a_transfer_of_a_snapshot_that_is_gone_begins_again_with_the_newest() {
    let mut pair = Pair::new(1);
    Pair::take_snapshot(&mut pair.leader, 1);
    Pair::compact(&mut pair.leader);
    pair.submit(3);
    pair.add_learner();
    pair.run_until(Duration::from_secs(5), |pair| pair.sent > 1 << 20);
    let mut newest = LogPosition::default();
    for byte in 2..4 {
        pair.leader.run(Duration::ZERO);
        newest = Pair::take_snapshot(&mut pair.leader, byte);
        let term = newest.term;
        let operations: Vec<Proposal> = (0..3)
            .map(|id| Proposal {
                id: 5_000 + u64::from(byte) * 10 + id,
                stream: None,
                proposed: Proposed::Operation(Operation {
                    data: "x".into(),
                    session: None,
                }),
            })
            .collect();
        let now = pair.leader.now;
        pair.leader.node.handle(now, Input::Submit(operations));
        pair.leader.run(Duration::ZERO);
        assert_eq!(Pair::raft(&pair.leader).term(), term);
    }
    Pair::compact(&mut pair.leader);
    pair.run_until(Duration::from_secs(30), Pair::is_caught_up);
    assert_eq!(Pair::raft(&pair.learner).log().base().position, newest);
}

#[test]
fn what_no_leader_of_this_term_sends_is_refused() {
    let mut pair = Pair::new(1);
    pair.add_learner();
    pair.run_until(Duration::from_secs(5), Pair::is_caught_up);
    let term = Pair::raft(&pair.learner).term();
    let (from, to) = (pair.leader.node.member_id(), pair.learner.node.member_id());
    let contents = Contents {
        place: Place {
            index: 50,
            term: 1,
            running_hash: 0,
        },
        state_bytes: 4,
        origin: origin(&pair.leader),
    };
    let offer = |index, metadata| Manifest {
        index,
        term: 1,
        metadata,
        whole: Whole { bytes: 9, crc: 1 },
    };
    let (good, bad) = (contents.encode(), b"of another version".as_slice().into());
    for (name, term, manifest, refused) in [
        ("an earlier term", term - 1, offer(100, good.clone()), true),
        ("a term that cannot be", u64::MAX, offer(100, good.clone()), true),
        ("metadata that cannot be read", term, offer(100, bad), true),
        (
            "an entry that no log comes to",
            term,
            offer(u64::MAX, good.clone()),
            true,
        ),
        ("what is there already", term, offer(1, good.clone()), false),
    ] {
        let part = SnapshotPart::Offer(manifest);
        let message = InstallSnapshot { from, to, term, part };
        pair.learner
            .node
            .handle(pair.learner.now, Input::InstallSnapshot(message));
        let outputs = pair.learner.node.outputs(pair.learner.now);
        let answers: Vec<&SnapshotAnswer> = outputs
            .iter()
            .filter_map(|output| match output {
                Output::InstallSnapshotResponse(response) => Some(&response.answer),
                _ => None,
            })
            .collect();
        assert!(
            matches!(
                (answers.as_slice(), refused),
                ([SnapshotAnswer::Refused(_)], true) | ([SnapshotAnswer::Installed], false)
            ),
            "{name}: {answers:?}"
        );
        assert_eq!(pair.learner.node.store.snapshots.incoming(), None, "{name}");
    }
    // Data of what was never offered are passed over.
    let id = SnapshotId { index: 100, crc: 1 };
    let part = SnapshotPart::Data {
        id,
        offset: 0,
        data: vec![0; 9].into(),
    };
    let message = InstallSnapshot { from, to, term, part };
    pair.learner
        .node
        .handle(pair.learner.now, Input::InstallSnapshot(message));
    assert_eq!(pair.learner.node.store.snapshots.incoming(), None);
}

/// Between two snapshots of the learner.
const EVERY_BYTES: u64 = 6_000;

/// The learner's log is about to be full, its replicator does not execute, and what is committed leaves its memory.
fn short_of_room() -> Pair {
    let mut pair = Pair::new(1);
    let settings = NodeConfig {
        snapshots: SnapshotPolicy {
            every_operations: 1_000_000,
            every_bytes: Some(EVERY_BYTES),
        },
        bounds: Bounds {
            recent_bytes_max: 0,
            ..Bounds::default()
        },
        ..config(2, false)
    };
    pair.learner = open_with(settings, MemoryDisk::new(1 << 30), pair.leader.now);
    pair.add_learner();
    // Not quite: a full one would be sent no more.
    while pair.learner.node.status(pair.learner.now).kept.log_bytes < EVERY_BYTES * 5 / 2 {
        pair.submit(1);
        pair.run_until(Duration::from_secs(5), Pair::is_caught_up);
    }
    pair
}

#[test]
fn a_snapshot_takes_the_place_of_log_that_nobody_executes() {
    let mut pair = short_of_room();
    let position = Pair::take_snapshot(&mut pair.leader, 1);
    Pair::compact(&mut pair.leader);
    pair.submit(3);
    pair.run_until(Duration::from_secs(5), |pair| {
        Pair::raft(&pair.learner).log().base().position == position
    });
    let told = pair
        .learner
        .notices
        .iter()
        .filter(|said| said.contains("in the place of its log"));
    assert_eq!(told.count(), 1, "{:?}", pair.learner.notices);
}

/// Its last entry has left the memory of the receiver, which cannot tell at once.
#[test]
fn no_log_begins_behind_a_snapshot_of_something_else() {
    let mut pair = short_of_room();
    let (position, mut fold) = Pair::committed(&pair.leader);
    pair.submit(3);
    fold.running_hash ^= 1;
    let mut data = vec![1; STATE_BYTES];
    fold.encode(&mut data);
    let whole = Whole {
        bytes: data.len() as u64,
        crc: crc32fast::hash(&data),
    };
    let manifest = Pair::manifest(&pair.leader, position, &fold, whole);
    let (from, to) = (pair.leader.node.member_id(), pair.learner.node.member_id());
    let (id, term) = (SnapshotId::of(&manifest), Pair::raft(&pair.learner).term());
    let mut parts = vec![SnapshotPart::Offer(manifest)];
    let mut offset = 0;
    for piece in data.chunks(1 << 20) {
        let data = piece.to_vec().into();
        parts.push(SnapshotPart::Data { id, offset, data });
        offset += piece.len() as u64;
    }
    for part in parts {
        let message = InstallSnapshot { from, to, term, part };
        let now = pair.learner.now;
        pair.learner.node.handle(now, Input::InstallSnapshot(message));
        pair.learner.run(Duration::ZERO);
    }
    let why = pair.learner.stopped.expect("one of the two is damaged");
    assert!(why.contains("contradicts the log"), "{why}");
}

/// A snapshot began to come, and who sent it went away for good. It was waited for until the process ended: this member took none of
/// its own though its replicator executed again, and its log stayed full.
#[test]
fn a_snapshot_whose_sender_went_away_is_not_waited_for() {
    let mut pair = short_of_room();
    Pair::take_snapshot(&mut pair.leader, 1);
    Pair::compact(&mut pair.leader);
    pair.run_until(Duration::from_secs(5), |pair| {
        let incoming = pair.learner.node.store.snapshots.incoming();
        incoming.is_some_and(|(_, bytes)| bytes > 0)
    });
    pair.network.clear();
    let learner = &mut pair.learner;
    learner.run(Duration::from_mins(1));
    let hears = |learner: &mut Alone, said| {
        learner.node.handle(learner.now, Input::Replicator(said));
        learner.run(Duration::from_millis(100));
    };
    let nothing = Place {
        index: 0,
        term: 0,
        running_hash: 0,
    };
    let all = learner
        .node
        .raft()
        .expect("it is in its cluster")
        .log()
        .fold()
        .operation_index;
    hears(learner, FromReplicator::Opened);
    let empty = Position {
        cluster_id: None,
        member_id: None,
        first_index: 0,
        last: nothing,
        commit: nothing,
        executed: nothing,
        needs_state: false,
        on_leader: false,
    };
    hears(learner, FromReplicator::Position(empty));
    let executed = Progress {
        last_index: all,
        commit_index: all,
        executed_index: all,
        durable_executed_index: all,
        leading_term: None,
    };
    hears(learner, FromReplicator::Progress(executed));
    let orders = |said: &ToReplicator| matches!(said, ToReplicator::TakeSnapshot { .. });
    assert!(learner.said.iter().any(orders));
}
