//! Snapshots on a simulated disk that crashes, tears and fills up at any moment, by seed.
//!
//! Whatever happens, a store that is opened again has every snapshot that was reported as saved and not replaced by newer
//! ones, with all its data, no half one, and goes on with the one that was coming in at most a chunk before what was synced.
//!
//! `STORAGE_SEED=<seed> cargo test -p raftlog-storage --test snapshots` replays one run; `STORAGE_RUNS=<n>` makes it that many.

mod dying;
mod seeded;

use std::collections::BTreeMap;

use bytes::Bytes;
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::snapshots::{
    CHUNK_BYTES, DATA_BYTES_MAX, Damage, METADATA_BYTES_MAX, Manifest, PENDING_BYTES_MAX, READS_MAX, Refused,
    SNAPSHOTS_MAX, SnapshotEvent, Snapshots, Whole,
};
use raftlog_storage::{Disk, DiskErrorKind, FileDisk, FileName, Op, OpId};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use dying::Dying;
use seeded::{Replay, seeds};

const ROOMY: u64 = 1 << 30;
const INCOMING: FileName = FileName::named("snapshot-incoming");

fn open(disk: &mut dyn Disk) -> Result<(Snapshots, Vec<Damage>), String> {
    Snapshots::open(disk).map_err(|error| error.to_string())
}

fn die_opening(disk: &mut MemoryDisk, random: &mut ChaCha8Rng) {
    let mut dying = Dying {
        disk,
        changes_left: random.random_range(0..4),
        died_at: None,
    };
    let opened = open(&mut dying);
    match dying.died_at {
        None => drop(opened.expect("it opens")),
        Some(op) => match random.random_range(0..3) {
            0 => drop(disk.power_failure(&[op], random)),
            1 => disk.fail(&op, random),
            _ => disk.kill(&[op], random),
        },
    }
}

/// A snapshot that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    manifest: Manifest,
    data: Bytes,
    announced: bool,
}

fn made(index: u64, bytes: usize, announced: bool, random: &mut ChaCha8Rng) -> Made {
    let mut data = vec![0; bytes];
    random.fill_bytes(&mut data);
    let mut metadata = vec![0; random.random_range(0..2_000)];
    random.fill_bytes(&mut metadata);
    let whole = Whole {
        bytes: bytes as u64,
        crc: crc32fast::hash(&data),
    };
    let manifest = Manifest {
        index,
        term: index / 3,
        metadata: metadata.into(),
        whole,
    };
    Made {
        manifest,
        data: data.into(),
        announced,
    }
}

/// All data of a snapshot.
fn data_of(snapshots: &Snapshots, disk: &mut MemoryDisk, index: u64) -> Bytes {
    let mut data = Vec::new();
    loop {
        let more = snapshots
            .read_now(disk, index, data.len() as u64)
            .expect("it is whole");
        if more.is_empty() {
            return data.into();
        }
        assert!(more.len() <= CHUNK_BYTES);
        data.extend_from_slice(&more);
    }
}

/// How a process ends.
#[derive(Clone, Copy)]
enum End {
    Kill,
    Power,
    /// It stops because the device reported an error.
    Failure,
}

struct Run {
    random: ChaCha8Rng,
    disk: MemoryDisk,
    snapshots: Snapshots,
    /// All that were begun, by index: of several with one index the last.
    made: BTreeMap<u64, Made>,
    incoming: Option<Made>,
    /// Data of it that are on disk.
    synced: u64,
    finished: bool,
    newest_saved: u64,
    under_way: Vec<(OpId, Op)>,
    reads: BTreeMap<u64, (u64, u64)>,
    read_ids: u64,
    full: bool,
    resumed: usize,
    saved: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut disk = MemoryDisk::new(ROOMY);
        let (snapshots, damages) = open(&mut disk).expect("it opens");
        assert!(damages.is_empty() && snapshots.newest().is_none());
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            disk,
            snapshots,
            made: BTreeMap::new(),
            incoming: None,
            synced: 0,
            finished: false,
            newest_saved: 0,
            under_way: Vec::new(),
            reads: BTreeMap::new(),
            read_ids: 0,
            full: false,
            resumed: 0,
            saved: 0,
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..3 => self.begin(),
            3..33 => self.receive(),
            33..40 => self.read(),
            40..92 => self.work(),
            92 => self.abandon(),
            93..95 => self.fill_up(),
            95 => self.restart(End::Kill),
            96 => self.restart(End::Failure),
            _ => self.restart(End::Power),
        }
    }

    fn begin(&mut self) {
        let last = self.made.keys().next_back().copied().unwrap_or(0);
        let bytes = match self.random.random_range(0..10) {
            0 => 0,
            1 => CHUNK_BYTES,
            2 => 2 * CHUNK_BYTES,
            _ => self.random.random_range(1..4 * CHUNK_BYTES),
        };
        let announced = self.random.random_bool(0.7);
        let made = made(
            last + self.random.random_range(1..5),
            bytes,
            announced,
            &mut self.random,
        );
        assert_eq!(self.snapshots.begin(made.manifest.clone(), announced), Ok(0));
        self.made.insert(made.manifest.index, made.clone());
        self.incoming = Some(made);
        self.synced = 0;
        self.finished = false;
    }

    fn abandon(&mut self) {
        self.snapshots.abandon();
        self.incoming = None;
    }

    fn receive(&mut self) {
        let Some(made) = self.incoming.clone().filter(|_| !self.finished) else {
            return;
        };
        let (index, received) = self.snapshots.incoming().expect("it was begun");
        assert_eq!(index, made.manifest.index);
        let at = usize::try_from(received).expect("it is small");
        if at == made.data.len() {
            assert_eq!(self.snapshots.finish(), Ok(()));
            self.finished = true;
            return;
        }
        let other = self.random.random_range(0..made.manifest.whole.bytes);
        if other != received {
            let refused = self.snapshots.receive(other, b"x");
            assert_eq!(refused, Err(Refused::OutOfOrder { expected: received }));
        }
        let length = self.random.random_range(1..=made.data.len() - at);
        assert_eq!(
            self.snapshots.receive(received, &made.data[at..at + length]),
            Ok(())
        );
    }

    fn read(&mut self) {
        let indexes: Vec<(u64, u64)> = self
            .snapshots
            .manifests()
            .map(|manifest| (manifest.index, manifest.whole.bytes))
            .collect();
        let Some(&(index, bytes)) = indexes.get(self.random.random_range(0..SNAPSHOTS_MAX)) else {
            return;
        };
        let offset = self.random.random_range(0..=bytes);
        self.read_ids += 1;
        match self.snapshots.read(self.read_ids, index, offset) {
            Ok(()) => {
                self.reads.insert(self.read_ids, (index, offset));
            }
            refused => assert!(refused == Err(Refused::Busy) && self.reads.len() == READS_MAX),
        }
    }

    fn work(&mut self) {
        self.step_disk();
    }

    /// Hands out operations and completes one; whether there was one.
    fn step_disk(&mut self) -> bool {
        while let Some(op) = self.snapshots.next_op() {
            self.under_way.push(op);
        }
        let changes = self.under_way.iter();
        let changes = changes.filter(|(_, op)| !matches!(op, Op::Read { .. } | Op::List));
        assert!(changes.count() <= 1, "one change at a time");
        if self.under_way.is_empty() {
            return false;
        }
        let (id, op) = self
            .under_way
            .swap_remove(self.random.random_range(0..self.under_way.len()));
        let result = self.disk.execute(&op);
        for event in self.snapshots.complete(id, result).expect("nothing failed") {
            self.take(event);
        }
        true
    }

    fn take(&mut self, event: SnapshotEvent) {
        match event {
            SnapshotEvent::Synced(bytes) => {
                assert!(bytes > self.synced);
                self.synced = bytes;
            }
            SnapshotEvent::Saved(index) => {
                assert!(index > self.newest_saved);
                self.newest_saved = index;
                self.saved += 1;
                self.incoming.take_if(|made| made.manifest.index == index);
            }
            SnapshotEvent::Read { id, data } => {
                let (index, offset) = self.reads.remove(&id).expect("it was asked for");
                let rest = &self.made[&index].data[usize::try_from(offset).expect("it is small")..];
                assert!(rest.starts_with(&data) && data.is_empty() == rest.is_empty());
            }
            SnapshotEvent::Gone { id } => {
                let (index, _) = self.reads.remove(&id).expect("it was asked for");
                assert!(self.snapshots.manifests().all(|manifest| manifest.index != index));
            }
            SnapshotEvent::Damaged { damage, .. } => panic!("nothing was damaged: {damage}"),
            SnapshotEvent::Full(full) => {
                assert_ne!(self.full, full, "only changes are told");
                self.full = full;
            }
        }
    }

    fn fill_up(&mut self) {
        let room = self.random.random_range(0..500_000);
        self.disk.limit_to(self.disk.used_bytes() + room);
        for _ in 0..self.random.random_range(0..40) {
            match self.random.random_range(0..4) {
                0 => self.receive(),
                1 | 2 => self.work(),
                _ => self.snapshots.retry(),
            }
        }
        self.disk.limit_to(ROOMY);
        self.settle();
    }

    /// Everything goes through that was begun and received.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.snapshots.retry();
            if !self.step_disk() {
                break;
            }
        }
        assert!(self.reads.is_empty() && (!self.full || self.incoming.is_none()));
        assert!(
            self.incoming.is_none() || !self.finished,
            "nothing waits for ever"
        );
        let names = self.disk.names().len();
        assert!(names <= SNAPSHOTS_MAX + 1, "{:?}", self.disk.names());
    }

    fn restart(&mut self, end: End) {
        let mut under_way: Vec<Op> = self.under_way.drain(..).map(|(_, op)| op).collect();
        if !under_way.is_empty() {
            let first = self.random.random_range(0..under_way.len());
            under_way.swap(0, first);
        }
        match (end, under_way.first()) {
            (End::Power, _) => drop(self.disk.power_failure(&under_way, &mut self.random)),
            (End::Failure, Some(op)) => self.disk.fail(op, &mut self.random),
            (End::Failure | End::Kill, _) => self.disk.kill(&under_way, &mut self.random),
        }
        while self.random.random_bool(0.4) {
            die_opening(&mut self.disk, &mut self.random);
        }
        let (snapshots, damages) = open(&mut self.disk).unwrap_or_else(|error| panic!("it opens: {error}"));
        assert_eq!(damages, Vec::new(), "a crash is not damage");
        self.snapshots = snapshots;
        self.reads.clear();
        self.full = false;
        self.check();
        self.resume();
    }

    fn check(&mut self) {
        let manifests: Vec<Manifest> = self.snapshots.manifests().cloned().collect();
        assert!(manifests.len() <= SNAPSHOTS_MAX);
        for manifest in &manifests {
            let made = &self.made[&manifest.index];
            assert_eq!(manifest, &made.manifest);
            let data = data_of(&self.snapshots, &mut self.disk, manifest.index);
            assert_eq!(data, made.data, "snapshot {}", manifest.index);
        }
        let newest = manifests.last().map_or(0, |manifest| manifest.index);
        assert!(
            newest >= self.newest_saved,
            "{newest} is not {}",
            self.newest_saved
        );
        if newest > self.newest_saved {
            // It was being given its name.
            let incoming = self.incoming.take().expect("it came in");
            assert!(incoming.manifest.index == newest && self.finished);
        }
        self.newest_saved = newest;
    }

    fn resume(&mut self) {
        let incoming = self.snapshots.incoming();
        let Some(made) = self.incoming.clone() else {
            return;
        };
        match incoming.filter(|(index, _)| *index == made.manifest.index) {
            Some((_, received)) => {
                let chunk = CHUNK_BYTES as u64;
                assert!(received > 0 && received % chunk == 0 && received + chunk >= self.synced);
                assert!(made.announced || self.finished, "only what is announced goes on");
                self.resumed += 1;
            }
            None => assert!(
                !made.announced || self.synced <= CHUNK_BYTES as u64,
                "{} of {made:?}",
                self.synced
            ),
        }
        // A sender offers it again.
        let announced = true;
        let at = self.snapshots.begin(made.manifest.clone(), announced);
        let received = incoming.filter(|(index, _)| *index == made.manifest.index);
        assert_eq!(at, Ok(received.map_or(0, |(_, received)| received)));
        self.synced = at.unwrap_or(0);
        self.finished = false;
        self.incoming = Some(Made { announced, ..made });
    }
}

#[test]
fn what_was_saved_survives_whatever_happens() {
    let (mut resumed, mut saved) = (0, 0);
    let seeds = seeds(40);
    let many = seeds.end - seeds.start >= 20;
    for seed in seeds {
        let _replay = Replay(seed);
        let mut run = Run::new(seed);
        for _ in 0..400 {
            run.step();
        }
        run.settle();
        run.restart(End::Power);
        resumed += run.resumed;
        saved += run.saved;
    }
    assert!(
        !many || (resumed > 10 && saved > 40),
        "{resumed} resumed, {saved} saved"
    );
}

fn drive(snapshots: &mut Snapshots, disk: &mut dyn Disk) -> Vec<SnapshotEvent> {
    let mut events = Vec::new();
    while let Some((id, op)) = snapshots.next_op() {
        let result = disk.execute(&op);
        events.extend(snapshots.complete(id, result).expect("nothing failed"));
    }
    events
}

/// Saves it, and says what the disk was asked to do.
fn save(snapshots: &mut Snapshots, disk: &mut MemoryDisk, made: &Made) {
    assert_eq!(snapshots.begin(made.manifest.clone(), made.announced), Ok(0));
    for (number, piece) in made.data.chunks(100_000).enumerate() {
        snapshots
            .receive(number as u64 * 100_000, piece)
            .expect("it is in order");
        drive(snapshots, disk);
    }
    snapshots.finish().expect("it is whole");
    let events = drive(snapshots, disk);
    assert!(
        events.contains(&SnapshotEvent::Saved(made.manifest.index)),
        "{events:?}"
    );
}

#[test]
fn the_process_dies_at_each_operation_of_a_snapshot() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let old = made(5, 1_000, false, &mut random);
    let new = made(9, 3 * CHUNK_BYTES + 7, true, &mut random);
    let older = made(2, 10, false, &mut random);
    let mut outcomes = [0, 0];
    for at in 0..8 {
        for round in 0..20 {
            let mut disk = MemoryDisk::new(ROOMY);
            let (mut snapshots, _) = open(&mut disk).unwrap();
            save(&mut snapshots, &mut disk, &older);
            save(&mut snapshots, &mut disk, &old);
            snapshots.begin(new.manifest.clone(), true).unwrap();
            snapshots.receive(0, &new.data).unwrap();
            snapshots.finish().unwrap();
            for _ in 0..at {
                let Some((id, op)) = snapshots.next_op() else {
                    break;
                };
                snapshots.complete(id, disk.execute(&op)).unwrap();
            }
            let under_way: Vec<Op> = snapshots.next_op().map(|(_, op)| op).into_iter().collect();
            if round % 2 == 0 {
                disk.power_failure(&under_way, &mut random);
            } else {
                disk.kill(&under_way, &mut random);
            }
            let (mut snapshots, damages) = open(&mut disk).unwrap();
            assert_eq!(damages, Vec::new());
            let is_new = snapshots.newest() == Some(&new.manifest);
            assert!(is_new || snapshots.newest() == Some(&old.manifest));
            assert!(at < 6 || is_new, "it was saved");
            outcomes[usize::from(is_new)] += 1;
            if !is_new {
                let start = snapshots.begin(new.manifest.clone(), true).unwrap();
                // Whether the last chunk, at 5 a short one, was synced is not known.
                assert!(start >= (at.clamp(2, 5) - 2) * CHUNK_BYTES as u64);
                let rest = usize::try_from(start).unwrap();
                snapshots.receive(start, &new.data[rest..]).unwrap();
                snapshots.finish().unwrap();
                drive(&mut snapshots, &mut disk);
            }
            assert_eq!(data_of(&snapshots, &mut disk, 9), new.data);
            assert_eq!(data_of(&snapshots, &mut disk, 5), old.data);
            assert_eq!(disk.names().len(), SNAPSHOTS_MAX);
        }
    }
    assert!(outcomes[0] > 20 && outcomes[1] > 20, "{outcomes:?}");
}

#[test]
fn two_are_kept_and_an_older_one_goes_only_when_a_newer_is_durable() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut snapshots, _) = open(&mut disk).unwrap();
    for index in [3, 6, 9] {
        save(&mut snapshots, &mut disk, &made(index, 5_000, false, &mut random));
    }
    let kept: Vec<u64> = snapshots.manifests().map(|manifest| manifest.index).collect();
    assert_eq!((kept, disk.names().len()), (vec![6, 9], 2));
    for index in [6, 9] {
        let refused = snapshots.begin(made(index, 10, true, &mut random).manifest, true);
        assert_eq!(refused, Err(Refused::Old { newest: 9 }));
    }
    let twelve = made(12, 5_000, false, &mut random);
    snapshots.begin(twelve.manifest, false).unwrap();
    snapshots.receive(0, &twelve.data).unwrap();
    snapshots.finish().unwrap();
    let mut ops = Vec::new();
    while let Some((id, op)) = snapshots.next_op() {
        let result = disk.execute(&op);
        snapshots.complete(id, result).unwrap();
        ops.push(op);
    }
    let kinds: Vec<&str> = ops
        .iter()
        .map(|op| match op {
            Op::Create { .. } => "create",
            Op::Write { .. } => "write",
            Op::Rename { .. } => "rename",
            Op::Remove { .. } => "remove",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["create", "write", "rename", "remove"]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut snapshots, _) = open(&mut disk).unwrap();
    assert_eq!(snapshots.receive(0, b"x"), Err(Refused::NotBegun));
    assert_eq!(snapshots.finish(), Err(Refused::NotBegun));
    assert_eq!(snapshots.read(1, 7, 0), Err(Refused::Missing));
    let made = made(7, 3_000, true, &mut random);
    let long = Manifest {
        metadata: vec![0; METADATA_BYTES_MAX + 1].into(),
        ..made.manifest.clone()
    };
    assert_eq!(snapshots.begin(long, false), Err(Refused::Long));
    snapshots.begin(made.manifest.clone(), true).unwrap();
    assert_eq!(
        snapshots.receive(1, b"x"),
        Err(Refused::OutOfOrder { expected: 0 })
    );
    assert_eq!(
        snapshots.finish(),
        Err(Refused::OutOfOrder { expected: 0 }),
        "data are missing"
    );
    assert_eq!(snapshots.receive(0, &[0; 3_001]), Err(Refused::Long));
    snapshots.receive(0, &[0; 3_000]).unwrap();
    drive(&mut snapshots, &mut disk);
    assert_eq!(snapshots.finish(), Err(Refused::Mismatch));
    drive(&mut snapshots, &mut disk);
    assert_eq!(
        (snapshots.incoming(), disk.names().len()),
        (None, 0),
        "it is removed"
    );
    // Without a word of its length, data may not outrun the disk.
    snapshots.begin(made.manifest, false).unwrap();
    let (mut offset, piece) = (0, vec![1; 100_000]);
    while snapshots.receive(offset, &piece) == Ok(()) {
        offset += 100_000;
    }
    assert_eq!(snapshots.receive(offset, &piece), Err(Refused::Busy));
    assert!(offset <= PENDING_BYTES_MAX as u64);
    drive(&mut snapshots, &mut disk);
    assert_eq!(snapshots.receive(offset, &piece), Ok(()));
}

#[test]
fn damage_is_told_by_file_and_offset() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut snapshots, _) = open(&mut disk).unwrap();
    let (old, new) = (
        made(5, 1_000, false, &mut random),
        made(9, 3 * CHUNK_BYTES, false, &mut random),
    );
    save(&mut snapshots, &mut disk, &old);
    save(&mut snapshots, &mut disk, &new);
    let file = *disk.names().last().unwrap();
    let start = 512 + new.manifest.metadata.len().next_multiple_of(512);
    let second = start + (256 << 10);
    // What is in the middle is found when it is read.
    let mut rotten = disk.clone();
    assert!(rotten.rot(file, second + 1_000));
    let (mut snapshots, damages) = open(&mut rotten).unwrap();
    assert_eq!(damages, Vec::new());
    snapshots.read(1, 9, 0).unwrap();
    snapshots.read(2, 9, CHUNK_BYTES as u64 + 5).unwrap();
    snapshots.read(3, 9, 0).unwrap();
    let events = drive(&mut snapshots, &mut rotten);
    assert_eq!(events.len(), 3);
    assert!(
        events.contains(&SnapshotEvent::Gone { id: 3 }),
        "it counts no more: {events:?}"
    );
    let Some(SnapshotEvent::Damaged { id: 2, damage }) = events.get(1) else {
        panic!("{events:?}");
    };
    let line = damage.to_string();
    assert!(
        line.contains(&format!(
            "snapshot-0000000000000009 is corrupt at offset {second}: chunk 1"
        )),
        "{line}"
    );
    assert_eq!(snapshots.newest(), Some(&old.manifest));
    // What is at the beginning or at the end, by a start: it goes back to the one before.
    for (offset, problem) in [
        (20, "offset 0: its head does not match its CRC"),
        (512, "offset 512: its metadata do not match their CRC"),
        (second + (256 << 10) + 50, "the last chunk does not match its CRC"),
    ] {
        let mut rotten = disk.clone();
        assert!(rotten.rot(file, offset));
        for _ in 0..2 {
            let (snapshots, damages) = open(&mut rotten).unwrap();
            assert!(
                damages.len() == 1 && damages[0].to_string().contains(problem),
                "{damages:?}"
            );
            assert_eq!(snapshots.newest(), Some(&old.manifest));
        }
        // A newer one ends it.
        let (mut snapshots, _) = open(&mut rotten).unwrap();
        save(&mut snapshots, &mut rotten, &made(11, 10, false, &mut random));
        let (snapshots, damages) = open(&mut rotten).unwrap();
        assert_eq!((damages, snapshots.manifests().count()), (Vec::new(), 2));
        assert_eq!(rotten.names().len(), 2);
    }
    let mut cut = disk.clone();
    cut.cut(file, second);
    let (_, damages) = open(&mut cut).unwrap();
    assert!(
        damages[0]
            .to_string()
            .contains(&format!("offset {second}: the file is cut short"))
    );
    let mut version = disk.clone();
    version.overwrite(file, 8, &9_u32.to_le_bytes());
    let refused = open(&mut version).expect_err("it is refused");
    assert!(refused.contains("has format version 9"), "{refused}");
}

#[test]
fn a_length_beyond_the_file_is_not_believed() {
    let mut random = ChaCha8Rng::seed_from_u64(10);
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut snapshots, _) = open(&mut disk).unwrap();
    let mut huge = made(9, 1_000, true, &mut random);
    huge.manifest.whole.bytes = DATA_BYTES_MAX;
    assert_eq!(snapshots.begin(huge.manifest.clone(), true), Ok(0));
    drive(&mut snapshots, &mut disk);
    let head = disk.content(INCOMING).unwrap().to_vec();
    // It is begun again, as nothing of it is there yet; under a name it is damaged.
    let (mut snapshots, _) = open(&mut disk).unwrap();
    assert_eq!(snapshots.begin(huge.manifest.clone(), true), Ok(0));
    let over = Manifest {
        whole: Whole {
            bytes: DATA_BYTES_MAX + 1,
            crc: 0,
        },
        ..huge.manifest.clone()
    };
    assert_eq!(snapshots.begin(over, true), Err(Refused::Long));
    snapshots.abandon();
    save(&mut snapshots, &mut disk, &made(9, 10, false, &mut random));
    disk.overwrite(disk.names()[0], 0, &head);
    let (snapshots, damages) = open(&mut disk).unwrap();
    assert!(
        damages[0].problem.contains("the file is cut short"),
        "{damages:?}"
    );
    assert_eq!(snapshots.newest(), None);
}

#[test]
fn a_damaged_one_is_received_again() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut snapshots, _) = open(&mut disk).unwrap();
    let made = made(9, 1_000, true, &mut random);
    save(&mut snapshots, &mut disk, &made);
    assert!(disk.rot(disk.names()[0], 30));
    let (mut snapshots, damages) = open(&mut disk).unwrap();
    assert_eq!((damages.len(), snapshots.newest()), (1, None));
    save(&mut snapshots, &mut disk, &made);
    let (snapshots, damages) = open(&mut disk).unwrap();
    assert_eq!((damages.len(), data_of(&snapshots, &mut disk, 9)), (0, made.data));
}

/// Of what failed to be written, a later process is shown all, and none may be on disk, whatever is synced behind it.
#[test]
fn what_failed_to_be_written_is_written_again_before_it_counts() {
    let mut random = ChaCha8Rng::seed_from_u64(13);
    let new = made(9, 2 * CHUNK_BYTES + 7, true, &mut random);
    for failing in 0..5 {
        for _ in 0..40 {
            let mut disk = MemoryDisk::new(ROOMY);
            let (mut snapshots, _) = open(&mut disk).unwrap();
            snapshots.begin(new.manifest.clone(), true).unwrap();
            snapshots.receive(0, &new.data).unwrap();
            snapshots.finish().unwrap();
            for _ in 0..failing {
                let (id, op) = snapshots.next_op().unwrap();
                snapshots.complete(id, disk.execute(&op)).unwrap();
            }
            let (_, op) = snapshots.next_op().unwrap();
            disk.fail(&op, &mut random);
            let (mut snapshots, _) = open(&mut disk).unwrap();
            if let Ok(start) = snapshots.begin(new.manifest.clone(), true) {
                let rest = usize::try_from(start).unwrap();
                snapshots.receive(start, &new.data[rest..]).unwrap();
                snapshots.finish().unwrap();
                drive(&mut snapshots, &mut disk);
            }
            disk.power_failure(&[], &mut random);
            let (snapshots, damages) = open(&mut disk).unwrap();
            assert_eq!(damages, Vec::new(), "after operation {failing} failed");
            assert_eq!(data_of(&snapshots, &mut disk, 9), new.data);
        }
    }
}

#[test]
fn a_failed_write_is_fatal_and_says_where() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut snapshots, _) = open(&mut disk).unwrap();
    snapshots
        .begin(made(1, 10, false, &mut random).manifest, false)
        .unwrap();
    let (id, op) = snapshots.next_op().unwrap();
    disk.fail_next(DiskErrorKind::Failed);
    let fatal = snapshots.complete(id, disk.execute(&op)).unwrap_err().to_string();
    assert!(fatal.contains("cannot create snapshot-incoming"), "{fatal}");
}

#[test]
fn what_cannot_go_on_is_left_over_and_removed() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut disk = MemoryDisk::new(ROOMY);
    for announced in [false, true] {
        let (mut snapshots, _) = open(&mut disk).unwrap();
        let made = made(4, CHUNK_BYTES + 9, announced, &mut random);
        snapshots.begin(made.manifest, announced).unwrap();
        snapshots.receive(0, &made.data).unwrap();
        drive(&mut snapshots, &mut disk);
        assert!(disk.content(INCOMING).is_some());
        if announced {
            assert!(disk.rot(INCOMING, 10));
        }
        let (snapshots, _) = open(&mut disk).unwrap();
        assert_eq!((snapshots.incoming(), disk.content(INCOMING)), (None, None));
    }
}

#[test]
fn real_files_hold_them_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let made = made(0xabc, 3 * CHUNK_BYTES + 5, true, &mut random);
    let part = 2 * CHUNK_BYTES + 3;
    {
        let mut disk = FileDisk::open(folder.path()).unwrap();
        let (mut snapshots, _) = open(&mut disk).unwrap();
        snapshots.begin(made.manifest.clone(), true).unwrap();
        snapshots.receive(0, &made.data[..part]).unwrap();
        let synced = [1, 2].map(|chunks| SnapshotEvent::Synced(chunks * CHUNK_BYTES as u64));
        assert_eq!(drive(&mut snapshots, &mut disk), synced);
    }
    let mut disk = FileDisk::open(folder.path()).unwrap();
    let (mut snapshots, _) = open(&mut disk).unwrap();
    assert_eq!(
        snapshots.begin(made.manifest.clone(), true),
        Ok(CHUNK_BYTES as u64)
    );
    snapshots
        .receive(CHUNK_BYTES as u64, &made.data[CHUNK_BYTES..])
        .unwrap();
    snapshots.finish().unwrap();
    assert!(drive(&mut snapshots, &mut disk).contains(&SnapshotEvent::Saved(0xabc)));
    assert!(folder.path().join("snapshot-0000000000000abc").exists());
    assert!(!folder.path().join("snapshot-incoming").exists());
    let (snapshots, damages) = open(&mut disk).unwrap();
    assert_eq!((snapshots.newest(), damages), (Some(&made.manifest), Vec::new()));
    let tail = snapshots
        .read_now(&mut disk, 0xabc, made.data.len() as u64 - 2)
        .unwrap();
    assert_eq!(tail, made.data.slice(made.data.len() - 2..));
}
