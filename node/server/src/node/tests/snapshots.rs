//! Snapshots, from the order to the replicator to the log that begins behind them, with a replicator that is played.

use raftlog_raft::entry::{Operation, SessionStamp};
use raftlog_raft::fold::running_hash;
use raftlog_storage::snapshots::{CHUNK_BYTES, PENDING_BYTES_MAX};

use super::*;

/// A replicator as it should be, unless it is told to be another.
#[derive(Debug, Default)]
pub(super) struct Replicator {
    last: Place,
    pub(super) executed: Place,
    /// Operations that are committed and not executed.
    waiting: Vec<Place>,
    is_stuck: bool,
    /// Bytes of its state.
    state_bytes: usize,
    /// Does not answer orders.
    pub(super) is_deaf: bool,
    order: Option<u64>,
    /// A state that comes.
    restoring: Option<(StateSnapshot, Vec<u8>)>,
    pub(super) restored: u32,
    kept: u64,
    pub(super) closed: Vec<String>,
}

impl Replicator {
    pub(super) fn with_state_of(state_bytes: usize) -> Self {
        Self {
            state_bytes,
            ..Self::default()
        }
    }

    fn position(&self) -> Position {
        Position {
            cluster_id: None,
            member_id: None,
            first_index: 0,
            last: self.last,
            commit: self.executed,
            executed: self.executed,
            needs_state: false,
            on_leader: false,
        }
    }

    fn progress(&self) -> FromReplicator {
        FromReplicator::Progress(Progress {
            last_index: self.last.index,
            commit_index: self.executed.index,
            executed_index: self.executed.index,
            durable_executed_index: self.executed.index,
            leading_term: None,
        })
    }

    /// The state that executing so many operations leaves.
    fn state(&self, at: u64) -> Vec<u8> {
        let seed = at.to_le_bytes();
        let bytes = seed.into_iter().cycle().zip((0..=250).cycle());
        bytes
            .map(|(seed, byte): (u8, u8)| seed ^ byte)
            .take(self.state_bytes)
            .collect()
    }

    fn hears(&mut self, said: ToReplicator) -> Vec<FromReplicator> {
        match said {
            ToReplicator::Start { action, .. } => {
                if let StartAction::Restore(of) = action {
                    self.restoring = Some((of, Vec::new()));
                }
                Vec::new()
            }
            ToReplicator::Feed { operations, .. } => {
                for fed in operations {
                    assert_eq!(
                        fed.index,
                        self.last.index + 1,
                        "operations come one after the other"
                    );
                    let hash = running_hash(self.last.running_hash, fed.index, fed.term, &fed.data);
                    assert_eq!(hash, fed.running_hash);
                    let (index, term) = (fed.index, fed.term);
                    self.last = Place {
                        index,
                        term,
                        running_hash: hash,
                    };
                    self.waiting.push(self.last);
                }
                self.execute()
            }
            ToReplicator::TakeSnapshot { id } => {
                self.order = Some(id);
                self.execute()
            }
            ToReplicator::Restore { offset, data } => self.restore(offset, &data),
            ToReplicator::SnapshotKept { index } => {
                assert!(index >= self.kept);
                self.kept = index;
                Vec::new()
            }
            ToReplicator::StartOver { why } | ToReplicator::Close { why } => {
                self.closed.push(why);
                Vec::new()
            }
            ToReplicator::ReadAnswer { .. } | ToReplicator::Query { .. } | ToReplicator::Leading(_) => {
                Vec::new()
            }
        }
    }

    fn execute(&mut self) -> Vec<FromReplicator> {
        if self.is_stuck {
            return vec![self.progress()];
        }
        self.executed = self.waiting.drain(..).next_back().unwrap_or(self.executed);
        let mut says = vec![self.progress()];
        if let Some(id) = self.order.take_if(|_| !self.is_deaf) {
            says.extend(self.snapshot(id));
        }
        says
    }

    fn snapshot(&self, id: u64) -> Vec<FromReplicator> {
        let state = self.state(self.executed.index);
        let of = StateSnapshot {
            place: self.executed,
            size: state.len() as u64,
        };
        let pieces: Vec<&[u8]> = if state.is_empty() {
            vec![&[]]
        } else {
            state.chunks(100_000).collect()
        };
        let mut offset = 0;
        let mut chunks = Vec::new();
        for piece in pieces {
            chunks.push(FromReplicator::Snapshot(SnapshotChunk {
                id,
                snapshot: (offset == 0).then_some(of),
                offset,
                data: piece.to_vec().into(),
            }));
            offset += piece.len() as u64;
        }
        chunks
    }

    fn restore(&mut self, offset: u64, data: &[u8]) -> Vec<FromReplicator> {
        let (of, state) = self.restoring.as_mut().expect("a state was announced");
        assert_eq!(offset, state.len() as u64, "pieces come in order");
        state.extend_from_slice(data);
        let mut says = vec![FromReplicator::RestoreTaken];
        if state.len() as u64 == of.size {
            let (place, state) = (of.place, std::mem::take(state));
            assert!(
                state == self.state(place.index),
                "it is the state at {}",
                place.index
            );
            (self.last, self.executed) = (place, place);
            self.restoring = None;
            self.restored += 1;
            says.push(self.progress());
        }
        says
    }
}

/// A cluster of one, with its replicator.
pub(super) struct Pod {
    pub(super) alone: Alone,
    pub(super) replicator: Replicator,
    last_request: u64,
    policy: SnapshotPolicy,
    supports: Supports,
}

impl Pod {
    pub(super) fn new(every_operations: u64, state_bytes: usize) -> Self {
        let policy = SnapshotPolicy {
            every_operations,
            every_bytes: None,
        };
        Self::with(policy, state_bytes)
    }

    fn with(policy: SnapshotPolicy, state_bytes: usize) -> Self {
        let replicator = Replicator::with_state_of(state_bytes);
        Self::start(MemoryDisk::new(1 << 30), policy, replicator, Supports::default()).unwrap()
    }

    pub(super) fn start(
        disk: MemoryDisk,
        policy: SnapshotPolicy,
        replicator: Replicator,
        supports: Supports,
    ) -> Result<Self, OpenError> {
        let peers = BTreeMap::from([(1, "node1:5001".to_owned())]);
        let mut pod = Self {
            alone: Alone::open_version(disk, peers, policy, supports)?,
            replicator,
            last_request: 0,
            policy,
            supports,
        };
        pod.alone.run(Duration::from_secs(10));
        pod.connect();
        Ok(pod)
    }

    /// Both processes die, and the node's disk loses what was not synced.
    pub(super) fn restart(self) -> Result<Self, OpenError> {
        Self::start(self.alone.disk, self.policy, self.replicator, self.supports)
    }

    pub(super) fn say(&mut self, said: FromReplicator) {
        self.alone.node.handle(self.alone.now, Input::Replicator(said));
        self.alone.run(Duration::ZERO);
    }

    pub(super) fn connect(&mut self) {
        self.say(FromReplicator::Closed);
        self.alone.said.clear();
        self.replicator.order = None;
        self.replicator.restoring = None;
        self.say(FromReplicator::Opened);
        self.say(FromReplicator::Position(self.replicator.position()));
        self.settle();
    }

    /// Until node and replicator have nothing more to say to each other.
    pub(super) fn settle(&mut self) {
        while !self.alone.said.is_empty() {
            for said in std::mem::take(&mut self.alone.said) {
                for answer in self.replicator.hears(said) {
                    self.say(answer);
                }
            }
        }
    }

    pub(super) fn submit(
        &mut self,
        data: Vec<u8>,
        session: Option<SessionStamp>,
    ) -> Result<Committed, Refusal> {
        let data = data.into();
        self.propose(Proposed::Operation(Operation { data, session }))
    }

    fn open_session(&mut self) -> Result<Committed, Refusal> {
        self.propose(Proposed::OpenSession)
    }

    fn propose(&mut self, proposed: Proposed) -> Result<Committed, Refusal> {
        self.last_request += 1;
        let proposal = Proposal {
            id: self.last_request,
            stream: None,
            proposed,
        };
        self.alone
            .node
            .handle(self.alone.now, Input::Submit(vec![proposal]));
        self.alone.run(Duration::from_millis(1));
        self.settle();
        self.alone
            .answers
            .remove(&self.last_request)
            .expect("it is decided")
    }

    pub(super) fn submit_many(&mut self, operations: u64) {
        for _ in 0..operations {
            self.submit(b"operation".to_vec(), None).unwrap();
        }
    }

    pub(super) fn status(&self) -> Status {
        self.alone.node.status(self.alone.now)
    }

    fn snapshot_files(&self) -> Vec<raftlog_storage::FileName> {
        let names = self.alone.disk.names().into_iter();
        names
            .filter(|name| name.to_string().starts_with("snapshot-"))
            .collect()
    }
}

#[test]
fn snapshots_are_taken_and_the_log_begins_behind_the_older_one() {
    for state_bytes in [0, 10, 3 * CHUNK_BYTES + 5] {
        let mut pod = Pod::new(10, state_bytes);
        let stamp = SessionStamp {
            client_id: "c".into(),
            sequence: 1,
            acknowledged_through: 0,
        };
        let first = pod.submit(b"first".to_vec(), Some(stamp.clone())).unwrap();
        pod.submit_many(50);
        let status = pod.status();
        assert_eq!(status.last_index, 51);
        assert!(
            (40..=51).contains(&status.kept.snapshot_index),
            "{}",
            status.kept.snapshot_index
        );
        assert!(
            (30..=41).contains(&status.kept.first_index),
            "{}",
            status.kept.first_index
        );
        assert_eq!(pod.replicator.kept + 1, status.kept.first_index);
        assert_eq!(pod.snapshot_files().len(), 2);
        let again = pod.submit(b"first".to_vec(), Some(stamp.clone())).unwrap();
        assert_eq!(
            again.operation_index, first.operation_index,
            "the session is in the fold"
        );
        let mut pod = pod.restart().unwrap();
        let after = pod.status();
        assert_eq!(
            (
                after.last_index,
                after.running_hash,
                after.kept.first_index,
                after.kept.snapshot_index
            ),
            (
                51,
                status.running_hash,
                status.kept.first_index,
                status.kept.snapshot_index
            )
        );
        let again = pod.submit(b"first".to_vec(), Some(stamp)).unwrap();
        assert_eq!(again.operation_index, first.operation_index);
        pod.submit_many(30);
        assert!(
            pod.status().kept.first_index > status.kept.first_index,
            "it goes on"
        );
        assert_eq!(pod.replicator.restored, 0);
        assert_eq!(pod.replicator.closed, Vec::<String>::new());
    }
}

#[test]
fn a_disk_that_fills_up_ends_a_copy_and_leaves_room_and_ears_for_the_rest() {
    for room in [8 << 20, (24 << 20) - (1 << 19)] {
        fills_up(room);
    }
}

/// With so much room for a state of 24 MiB.
fn fills_up(room: u64) {
    let mut pod = Pod::new(10, 24 << 20);
    pod.replicator.is_deaf = true;
    pod.submit_many(20);
    let order = pod.replicator.order.expect("it was ordered");
    let used = pod.alone.disk.used_bytes();
    pod.alone.disk.limit_to(used + room);
    for piece in pod.replicator.snapshot(order) {
        let now = pod.alone.now;
        pod.alone.node.handle(now, Input::Replicator(piece));
        if !pod.alone.node.takes_snapshot() {
            pod.alone.run(Duration::from_secs(1));
            assert!(
                pod.alone.node.takes_snapshot(),
                "what is held is on disk, or given up"
            );
        }
    }
    pod.alone.run(Duration::from_secs(1));
    assert!(pod.alone.disk.used_bytes() <= used, "the room is given back");
    pod.alone.disk.limit_to(1 << 30);
    pod.replicator.is_deaf = false;
    pod.alone.run(Duration::from_mins(1));
    pod.settle();
    assert_eq!(pod.replicator.closed, [""; 0]);
    assert_eq!(pod.status().kept.snapshot_index, pod.replicator.executed.index);
}

/// A state that came faster than the disk took it was once given up, again and again, whatever its size was beyond what may wait
/// for the disk.
#[test]
fn a_state_of_any_size_comes_no_faster_than_the_disk_takes_it() {
    const STATE_BYTES: usize = 24 << 20;
    let mut pod = Pod::new(10, STATE_BYTES);
    pod.replicator.is_deaf = true;
    pod.submit_many(20);
    let order = pod.replicator.order.expect("it was ordered");
    let (mut waits, mut in_a_row, mut most) = (0, 0, 0);
    for piece in pod.replicator.snapshot(order) {
        let FromReplicator::Snapshot(SnapshotChunk { data, .. }) = &piece else {
            panic!("{piece:?}")
        };
        in_a_row += data.len();
        most = most.max(in_a_row);
        // The disk does nothing meanwhile.
        let now = pod.alone.now;
        pod.alone.node.handle(now, Input::Replicator(piece));
        if !pod.alone.node.takes_snapshot() {
            pod.alone.run(Duration::from_mins(5));
            assert!(pod.alone.node.takes_snapshot(), "the disk has taken it");
            (waits, in_a_row) = (waits + 1, 0);
        }
    }
    pod.alone.run(Duration::from_secs(1));
    assert!(waits >= 3, "{waits}");
    assert!(most <= PENDING_BYTES_MAX + (1 << 20), "{most} bytes in memory");
    pod.settle();
    assert_eq!(pod.replicator.closed, [""; 0]);
    let kept = pod.status().kept;
    assert_eq!(kept.snapshot_index, pod.replicator.executed.index);
    assert!(kept.snapshot_bytes >= STATE_BYTES as u64);
    let said = "does not keep up";
    assert!(!pod.alone.notices.iter().any(|notice| notice.contains(said)));
}

/// Whoever does not wait costs no more memory for it.
#[test]
fn a_state_that_does_not_wait_for_the_disk_is_given_up() {
    let mut pod = Pod::new(10, 24 << 20);
    pod.replicator.is_deaf = true;
    pod.submit_many(20);
    let order = pod.replicator.order.expect("it was ordered");
    for piece in pod.replicator.snapshot(order) {
        let now = pod.alone.now;
        pod.alone.node.handle(now, Input::Replicator(piece));
    }
    assert!(pod.alone.node.takes_snapshot(), "nothing is held");
    pod.alone.run(Duration::from_secs(1));
    assert_eq!(pod.status().kept.snapshot_index, 0);
}

#[test]
fn a_replicator_that_lacks_what_is_in_a_snapshot_gets_that_first() {
    for state_bytes in [0, 10, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 5] {
        let mut pod = Pod::new(10, state_bytes);
        pod.submit_many(50);
        let before = pod.replicator.executed;
        pod.replicator = Replicator {
            state_bytes,
            ..Replicator::default()
        };
        pod.connect();
        assert_eq!((pod.replicator.restored, pod.replicator.executed), (1, before));
        assert!(pod.status().replicator.connected);
        pod.submit_many(1);
        assert_eq!(pod.replicator.executed.index, 51);
    }
}

/// What it has is compared at the very place where the log begins, too.
#[test]
fn a_replicator_that_is_at_the_beginning_of_the_log_goes_on_there() {
    let mut pod = Pod::new(10, 0);
    let mut places = vec![Place::default()];
    for _ in 0..50 {
        pod.submit_many(1);
        places.push(pod.replicator.executed);
    }
    let base = pod.status().kept.first_index - 1;
    let at = |index: u64| places[usize::try_from(index).unwrap()];
    for (index, restored) in [(base, 0), (base + 1, 0), (base - 1, 1)] {
        pod.replicator = Replicator {
            last: at(index),
            executed: at(index),
            ..Replicator::default()
        };
        pod.connect();
        assert_eq!(
            (pod.replicator.restored, pod.replicator.executed),
            (restored, at(50)),
            "{index}"
        );
    }
    let other = Place {
        running_hash: 1,
        ..at(base)
    };
    pod.replicator = Replicator {
        last: other,
        executed: other,
        ..Replicator::default()
    };
    pod.connect();
    assert_eq!(pod.replicator.closed.len(), 1, "it has executed something else");
}

#[test]
fn a_replicator_that_does_not_execute_fills_the_log_and_no_more() {
    let policy = SnapshotPolicy {
        every_operations: u64::MAX,
        every_bytes: Some(1 << 20),
    };
    let mut pod = Pod::with(policy, 10);
    pod.replicator.is_stuck = true;
    let refused = (0..100)
        .map(|_| pod.submit(vec![0; 100 << 10], None))
        .find_map(Result::err);
    assert_eq!(refused, Some(Refusal::LogFull));
    assert!(pod.status().kept.log_full);
    assert_eq!(
        pod.status().kept.first_index,
        1,
        "nothing is compacted that no snapshot holds"
    );
    let mut pod = pod.restart().unwrap();
    assert!(pod.status().kept.log_full, "also after a restart");
    pod.replicator.is_stuck = false;
    for said in pod.replicator.execute() {
        pod.say(said);
    }
    pod.settle();
    assert!(!pod.status().kept.log_full, "{:?}", pod.status());
    for _ in 0..200 {
        pod.submit(vec![0; 100 << 10], None).unwrap();
    }
    assert!(pod.status().kept.first_index > 150);
}

/// Each of them is a few bytes and takes a sector of its own: the bounds were on the bytes, the sectors filled a small volume, and
/// the log let go of nothing.
#[test]
fn operations_of_a_byte_count_for_what_they_take_on_disk() {
    let every_bytes = 1 << 20;
    let policy = SnapshotPolicy {
        every_operations: u64::MAX,
        every_bytes: Some(every_bytes),
    };
    let mut pod = Pod::with(policy, 10);
    let sector = 512;
    let one_by_one = |pod: &mut Pod, bytes: u64| {
        for _ in 0..bytes / sector {
            pod.submit(vec![0], None).unwrap();
        }
    };
    one_by_one(&mut pod, every_bytes);
    let first = pod.status().kept.snapshot_index;
    assert!(first > 0, "{:?}", pod.status().kept);
    // Neither is it forgotten by a restart.
    one_by_one(&mut pod, every_bytes / 2);
    let mut pod = pod.restart().unwrap();
    one_by_one(&mut pod, every_bytes / 2);
    let second = pod.status().kept.snapshot_index;
    assert!(second > first, "{:?}", pod.status().kept);
    one_by_one(&mut pod, every_bytes);
    assert!(
        pod.status().kept.first_index > first / 2,
        "{:?}",
        pod.status().kept
    );
}

#[test]
fn the_older_snapshot_serves_where_the_newer_one_is_damaged() {
    let mut pod = Pod::new(10, 10);
    pod.submit_many(50);
    let newest = pod.snapshot_files().pop().unwrap();
    let (first, hash) = (pod.status().kept.first_index, pod.status().running_hash);
    // The last sector that holds something: the chunk with state and fold.
    let content = pod.alone.disk.content(newest).unwrap();
    let at = content.iter().rposition(|&byte| byte != 0).unwrap();
    assert!(pod.alone.disk.rot(newest, at));
    let mut pod = pod.restart().unwrap();
    assert_eq!(
        (pod.status().kept.first_index, pod.status().running_hash),
        (first, hash)
    );
    assert!(
        pod.alone
            .notices
            .iter()
            .any(|line| line.contains(&newest.to_string())),
        "{:?}",
        pod.alone.notices
    );
    pod.submit_many(30);
    assert!(pod.status().kept.first_index > first);
}

#[test]
fn a_log_whose_beginning_no_snapshot_holds_is_refused() {
    let mut pod = Pod::new(10, 10);
    pod.submit_many(50);
    for file in pod.snapshot_files() {
        let content = pod.alone.disk.content(file).unwrap();
        let at = content.iter().rposition(|&byte| byte != 0).unwrap();
        assert!(pod.alone.disk.rot(file, at));
    }
    let files = pod.snapshot_files();
    let damaged = pod.restart().err().unwrap().to_string();
    assert!(
        files.iter().any(|file| damaged.contains(&file.to_string())),
        "{damaged}"
    );
    assert!(
        damaged.contains("at offset") && damaged.contains("raftctl member replace"),
        "{damaged}"
    );

    let mut pod = Pod::new(10, 10);
    pod.submit_many(50);
    for file in pod.snapshot_files() {
        pod.alone.disk.execute(&Op::Remove { file }).unwrap();
    }
    let missing = pod.restart().err().unwrap().to_string();
    assert!(
        missing.contains("is missing") && missing.contains("raftctl member replace"),
        "{missing}"
    );
}

/// The entry that raised the level is in no log any more, and the snapshots say that it was there.
#[test]
fn snapshots_of_a_feature_level_that_is_not_supported_are_no_damage() {
    let mut pod = Pod::new(10, 10);
    pod.submit_many(5);
    pod.supports = Supports::REHEARSAL;
    let mut pod = pod.restart().unwrap();
    pod.submit_many(50);
    assert!(pod.status().kept.first_index > 30);
    let mut pod = pod.restart().unwrap();
    assert_eq!(pod.status().feature_level, Some(FeatureLevel::REHEARSED));
    pod.supports = Supports::default();
    let refused = pod.restart().err().unwrap().to_string();
    assert!(
        refused.contains("the cluster is at feature level 2") && !refused.contains("corrupt"),
        "{refused}"
    );
}

type Bend = fn(&mut SnapshotChunk, u64);

/// Nothing that a replicator says ends the node, or is stored.
#[test]
fn answers_that_cannot_be_close_the_stream() {
    let place = |pod: &Pod| pod.replicator.executed;
    let bends: [(&str, Bend, bool); 9] = [
        ("good", |_, _| {}, false),
        ("another order", |chunk, _| chunk.id += 7, false),
        ("not said of what", |chunk, _| chunk.snapshot = None, true),
        (
            "later than all",
            |chunk, _| chunk.snapshot.as_mut().unwrap().place.index += 1,
            true,
        ),
        (
            "another term",
            |chunk, _| chunk.snapshot.as_mut().unwrap().place.term += 1,
            true,
        ),
        (
            "another hash",
            |chunk, _| chunk.snapshot.as_mut().unwrap().place.running_hash += 1,
            true,
        ),
        (
            "longer than it says",
            |chunk, _| chunk.snapshot.as_mut().unwrap().size -= 1,
            true,
        ),
        ("not from its beginning", |chunk, _| chunk.offset = 1, true),
        ("empty", |chunk, _| chunk.data = Bytes::new(), true),
    ];
    for (name, bend, closes) in bends {
        let mut pod = Pod::new(10, 10);
        pod.replicator.is_deaf = true;
        pod.submit_many(20);
        let order = pod.replicator.order.expect("it was ordered");
        let Some(FromReplicator::Snapshot(mut chunk)) = pod.replicator.snapshot(order).pop() else {
            panic!("a state of 10 bytes is one piece")
        };
        bend(&mut chunk, place(&pod).index);
        pod.say(FromReplicator::Snapshot(chunk));
        pod.settle();
        let status = pod.status();
        assert_eq!(
            pod.replicator.closed.len(),
            usize::from(closes),
            "{name}: {:?}",
            pod.replicator.closed
        );
        assert_eq!(status.kept.snapshot_index > 0, name == "good", "{name}");
        // And once it behaves, it is asked again.
        pod.replicator.is_deaf = false;
        pod.connect();
        pod.alone.run(Duration::from_secs(20));
        pod.settle();
        assert!(pod.status().kept.snapshot_index > 0, "{name}");
    }
}

/// A node that has just started may know less to be committed than its replicator has executed: that is no mistake of the
/// replicator's.
#[test]
fn a_replicator_that_is_ahead_of_what_is_known_to_be_committed_is_not_refused() {
    let mut pod = Pod::new(10, 10);
    pod.replicator.is_deaf = true;
    pod.submit_many(20);
    pod.replicator.is_deaf = false;
    let peers = BTreeMap::from([(1, "node1:5001".to_owned())]);
    let alone = Alone::open(pod.alone.disk, peers, pod.policy).unwrap();
    let mut pod = Pod { alone, ..pod };
    assert!(pod.status().commit_index < pod.replicator.executed.index);
    pod.connect();
    pod.alone.run(Duration::from_secs(10));
    pod.settle();
    assert_eq!(pod.replicator.closed, Vec::<String>::new());
    assert_eq!(pod.status().kept.snapshot_index, 20);
}

/// What was announced cannot be read to its end: the older snapshot has to do.
#[test]
fn a_restore_that_cannot_go_on_starts_over() {
    let state_bytes = 4 * CHUNK_BYTES;
    let mut pod = Pod::new(10, state_bytes);
    pod.submit_many(50);
    let newest = pod.snapshot_files().pop().unwrap();
    let (index, older) = (
        pod.status().kept.snapshot_index,
        pod.status().kept.first_index - 1,
    );
    assert!(pod.alone.disk.rot(newest, 2 * CHUNK_BYTES));
    pod.replicator = Replicator {
        state_bytes,
        ..Replicator::default()
    };
    pod.connect();
    assert_eq!(pod.replicator.closed.len(), 1, "{:?}", pod.replicator.closed);
    assert_eq!(pod.replicator.restored, 0);
    assert!(
        pod.alone
            .notices
            .iter()
            .any(|line| line.contains("corrupt at offset"))
    );
    assert!(pod.status().kept.snapshot_index < index);
    pod.connect();
    assert_eq!(pod.replicator.restored, 1);
    assert!(pod.replicator.executed.index >= 50 && older < 50);
    assert_eq!(pod.alone.stopped, None);
}

/// A snapshot ends with an operation, and there is none yet.
#[test]
fn sessions_leave_room_for_the_first_operation() {
    let policy = SnapshotPolicy {
        every_operations: 1_000,
        every_bytes: Some(4_000),
    };
    let mut pod = Pod::with(policy, 10);
    let refused = (0..1_000).map(|_| pod.open_session()).find_map(Result::err);
    assert_eq!(refused, Some(Refusal::LogFull));
    assert!(!pod.status().kept.log_full);
    pod.submit_many(1);
    pod.alone.run(Duration::from_secs(1));
    pod.settle();
    assert_eq!(pod.status().kept.snapshot_index, 1);
    for _ in 0..1_000 {
        pod.open_session().unwrap();
        pod.alone.run(Duration::from_secs(11));
        pod.settle();
    }
}

/// Nothing but elections had filled the log, and a full log refused the first operation, without which no snapshot makes room
/// (seed 4909 of the simulator).
#[test]
fn a_log_full_of_elections_takes_the_first_operation() {
    let policy = SnapshotPolicy {
        every_operations: 1_000,
        every_bytes: Some(1_000),
    };
    let mut pod = Pod::with(policy, 10);
    while pod.status().kept.log_bytes < 3_000 {
        pod = pod.restart().unwrap();
        pod.settle();
    }
    assert!(pod.open_session().is_ok(), "who submits it may want a session");
    pod.submit_many(20);
    assert!(pod.status().kept.snapshot_index > 0);
}

/// A log that begins right behind its last operation, and in which none comes any more, is compacted as any other.
#[test]
fn a_log_of_sessions_alone_is_compacted_too() {
    let mut pod = Pod::new(10, 10);
    pod.submit_many(40);
    let open_sessions = |pod: &mut Pod, count: u64| {
        for _ in 0..count {
            pod.open_session().unwrap();
            pod.alone.run(Duration::from_secs(11));
            pod.settle();
        }
    };
    open_sessions(&mut pod, 40);
    let first = pod.status().kept.first_index;
    assert_eq!(first, 41, "no operation is left in it");
    let base = |pod: &Pod| pod.alone.node.raft().unwrap().log().base().position.index;
    let before = base(&pod);
    open_sessions(&mut pod, 40);
    assert!(base(&pod) > before + 20, "{before}, {}", base(&pod));
    assert_eq!(pod.replicator.closed, Vec::<String>::new());
}
