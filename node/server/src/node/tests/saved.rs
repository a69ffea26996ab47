//! Snapshots that somebody asks for, downloads into a file, and makes a data folder of.

use std::path::Path;

use raftlog_storage::snapshots::{CHUNK_BYTES, Saving};

use super::snapshots::{Pod, Replicator};
use super::survivors::Dying;
use super::*;

const ASKED: RequestId = 1 << 40;

impl Pod {
    fn ask(&mut self, within: Duration) -> Option<Result<TakenSnapshot, SnapshotRefusal>> {
        self.alone
            .node
            .handle(self.alone.now, Input::TakeSnapshot { id: ASKED, within });
        self.alone.run(Duration::ZERO);
        self.settle();
        self.alone.taken.remove(&ASKED)
    }

    fn take(&mut self) -> TakenSnapshot {
        self.ask(Duration::from_secs(10)).unwrap().unwrap()
    }

    fn read(&mut self, snapshot: SnapshotId, offset: u64) -> Option<Bytes> {
        let id = ASKED;
        self.alone
            .node
            .handle(self.alone.now, Input::ReadSnapshot { id, snapshot, offset });
        self.alone.run(Duration::ZERO);
        self.alone.read.remove(&id).expect("it is answered")
    }

    fn save(&mut self, path: &Path) -> TakenSnapshot {
        let taken = self.take();
        let (mut saving, mut offset) = Saving::begin(path, &taken.manifest).unwrap();
        loop {
            let data = self.read(SnapshotId::of(&taken.manifest), offset).unwrap();
            if data.is_empty() {
                break;
            }
            saving.receive(offset, &data).unwrap();
            offset += data.len() as u64;
        }
        saving.finish().unwrap();
        taken
    }
}

#[test]
fn a_snapshot_is_taken_when_it_is_asked_for_and_only_if_there_is_news() {
    let mut pod = Pod::new(0, 10);
    assert_eq!(
        pod.ask(Duration::from_secs(1)),
        Some(Err(SnapshotRefusal::NothingExecuted))
    );
    pod.submit_many(5);
    let first = pod.take();
    assert_eq!(first.place.index, 5);
    assert_eq!(pod.status().kept.snapshot_index, 5);
    assert_eq!(pod.take(), first, "nothing was executed since");
    for count in 6..=8 {
        pod.submit_many(1);
        assert_eq!(pod.take().place.index, count);
    }
    assert_eq!(
        pod.status().kept.first_index,
        1,
        "a node that keeps all of its log keeps it"
    );
    assert_eq!(
        pod.read(SnapshotId::of(&first.manifest), 0),
        None,
        "newer ones came"
    );
}

/// It is not enough that a snapshot holds what the replicator would still know after a crash.
#[test]
fn a_snapshot_holds_what_is_executed_though_not_durably_yet() {
    let mut pod = Pod::new(0, 10);
    pod.submit_many(5);
    let executed = Progress {
        last_index: 5,
        commit_index: 5,
        executed_index: 5,
        durable_executed_index: 2,
        leading_term: None,
    };
    pod.say(FromReplicator::Progress(executed));
    assert_eq!(pod.ask(Duration::from_secs(10)), None, "it waits");
    pod.say(FromReplicator::Progress(Progress {
        durable_executed_index: 5,
        ..executed
    }));
    pod.settle();
    let taken = pod.alone.taken.remove(&ASKED).unwrap().unwrap();
    assert_eq!(taken.place.index, 5);
}

#[test]
fn whoever_asks_in_vain_is_told_why() {
    let mut pod = Pod::new(0, 10);
    pod.submit_many(1);
    pod.replicator.is_deaf = true;
    assert_eq!(pod.ask(Duration::from_secs(1)), None);
    pod.alone.run(Duration::from_secs(2));
    assert_eq!(
        pod.alone.taken.remove(&ASKED),
        Some(Err(SnapshotRefusal::TimedOut))
    );
    assert_eq!(pod.ask(Duration::from_secs(1)), None);
    pod.say(FromReplicator::Closed);
    assert!(matches!(
        pod.alone.taken.remove(&ASKED),
        Some(Err(SnapshotRefusal::Failed(_)))
    ));
    assert_eq!(
        pod.ask(Duration::from_secs(1)),
        Some(Err(SnapshotRefusal::NoReplicator))
    );
    pod.replicator.is_deaf = false;
    pod.connect();
    assert_eq!(pod.take().place.index, 1);
    for _ in 0..100 {
        pod.replicator.is_deaf = true;
        pod.submit_many(1);
        pod.ask(Duration::from_hours(1));
    }
    assert_eq!(
        pod.alone
            .taken
            .remove(&ASKED)
            .or(pod.ask(Duration::from_hours(1))),
        Some(Err(SnapshotRefusal::Busy)),
        "not everybody can wait"
    );
}

fn node(number: u32) -> Member {
    Member {
        id: MemberId::new(1).unwrap(),
        node: number,
        peer_address: "elsewhere:5001".into(),
        client_address: "elsewhere:5002".into(),
        voter: true,
    }
}

fn random() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

#[test]
fn a_saved_snapshot_becomes_the_only_voter_of_a_new_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    for state_bytes in [0, 10, 2 * CHUNK_BYTES + 5] {
        let mut pod = Pod::new(0, state_bytes);
        let stamp = raftlog_raft::entry::SessionStamp {
            client_id: "c".into(),
            sequence: 1,
            acknowledged_through: 0,
        };
        pod.submit(b"first".to_vec(), Some(stamp.clone())).unwrap();
        pod.submit_many(6);
        let taken = pod.save(&path);
        let (before, hash) = (pod.status(), taken.place.running_hash);
        pod.submit_many(3);
        let mut seen = 0;
        let saved = SavedSnapshot::open(&path, &mut |bytes| seen = bytes).unwrap();
        assert_eq!((seen, saved.bytes), (taken.manifest.whole.bytes, seen));
        assert_eq!(
            (Some(saved.cluster), saved.member, saved.parent),
            (before.cluster_id, before.member_id, None)
        );
        assert_eq!((saved.place, saved.sessions), (taken.place, 1));
        assert_eq!(saved.configuration, *before.configuration);
        assert_eq!(saved.state_bytes, state_bytes as u64);

        let mut disk = MemoryDisk::new(1 << 30);
        let alone = saved.restore(&mut disk, node(1), &mut random()).unwrap();
        let empty = Replicator::with_state_of(state_bytes);
        let policy = SnapshotPolicy::default();
        let mut restored = Pod::start(disk, policy, empty, Supports::default()).unwrap();
        let status = restored.status();
        assert_eq!(
            (status.cluster_id, status.member_id, status.role),
            (Some(alone.cluster), alone.member, Role::Leader)
        );
        assert_eq!((status.last_index, status.running_hash), (7, hash));
        let parent = status.parent.unwrap();
        assert_eq!(
            (parent.cluster, parent.operation_index, parent.running_hash),
            (saved.cluster, 7, hash)
        );
        assert_eq!(
            &*status.configuration.members()[0].client_address,
            "elsewhere:5002"
        );
        assert_eq!(
            (restored.replicator.restored, restored.replicator.executed.index),
            (1, 7)
        );
        let again = restored.submit(b"first".to_vec(), Some(stamp)).unwrap();
        assert_eq!(again.operation_index, 8, "its session is not known any more");
        // What it was made of is of the cluster before: one of its own is taken, also where nothing was executed since.
        let own = restored.save(&path);
        let saved = SavedSnapshot::open(&path, &mut |_| {}).unwrap();
        assert_eq!((saved.cluster, saved.place), (alone.cluster, own.place));
        assert_eq!(saved.parent, Some(parent));
        assert!(restored.restart().is_ok());
    }
}

#[test]
fn what_is_saved_before_anything_else_is_executed_is_of_the_new_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    let mut pod = Pod::new(0, 10);
    pod.submit_many(3);
    pod.save(&path);
    let mut disk = MemoryDisk::new(1 << 30);
    let saved = SavedSnapshot::open(&path, &mut |_| {}).unwrap();
    let alone = saved.restore(&mut disk, node(1), &mut random()).unwrap();
    let empty = Replicator::with_state_of(10);
    let mut restored = Pod::start(disk, SnapshotPolicy::default(), empty, Supports::default()).unwrap();
    restored.save(&path);
    let saved = SavedSnapshot::open(&path, &mut |_| {}).unwrap();
    assert_eq!((saved.cluster, saved.place.index), (alone.cluster, 3));
    assert_eq!(saved.configuration.members()[0].id, alone.member);
}

/// A folder is of no node until a single step, and the new one's from then on.
#[test]
fn a_folder_is_restored_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    let mut pod = Pod::new(0, CHUNK_BYTES);
    pod.submit_many(3);
    pod.save(&path);
    let saved = SavedSnapshot::open(&path, &mut |_| {}).unwrap();
    let mut seen = [0, 0];
    for left in 0.. {
        let mut disk = Dying {
            disk: MemoryDisk::new(1 << 30),
            left,
        };
        let whole = saved.restore(&mut disk, node(1), &mut random()).is_ok();
        let mut disk = disk.disk;
        let is_restored = Identity::load(&mut disk).unwrap().is_some();
        seen[usize::from(is_restored)] += 1;
        assert!(is_restored || !whole);
        let has_snapshot = disk
            .names()
            .iter()
            .any(|name| name.to_string().starts_with("snapshot"));
        match Alone::open(disk, BTreeMap::new(), SnapshotPolicy::default()) {
            Ok(mut alone) if is_restored => {
                alone.run(Duration::from_secs(10));
                let status = alone.node.status(alone.now);
                assert_eq!(
                    (status.role, status.last_index),
                    (Role::Leader, 3),
                    "after {left} steps"
                );
            }
            Ok(alone) => {
                assert!(!has_snapshot, "after {left} steps");
                assert_eq!(alone.node.cluster_id(), None);
            }
            Err(error) => assert!(!is_restored, "after {left} steps: {error}"),
        }
        if whole {
            break;
        }
    }
    assert!(seen.iter().all(|count| *count > 1), "both: {seen:?}");
}
