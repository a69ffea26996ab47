//! Logs on a simulated disk that crashes, tears and fills up at any moment, by seed.
//!
//! Each run appends, truncates, reads, kills, cuts the power and fills the disk at random. Whatever happens, a log that is
//! opened again holds a prefix of what was appended, in order, with all that was reported as persisted.
//!
//! `STORAGE_SEED=<seed> cargo test -p raftlog-storage --test crash` replays one run; `STORAGE_RUNS=<n>` makes it that many.

mod dying;
mod numbered;
mod seeded;

use std::collections::BTreeMap;

use bytes::Bytes;
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{
    Append, BATCH_BYTES_MAX, Disk, DiskErrorKind, Op, OpId, Recovery, Ticket, Visit, Wal, WalEvent,
    WalOptions,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use dying::Dying;
use numbered::Numbered;
use seeded::{Replay, seeds};

const OWNER: u64 = 0xabcd;
const ROOMY: u64 = 1 << 30;

/// One step of history, and the append it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    visit: Visit<Numbered>,
    /// The last of its append.
    last: bool,
    /// Its append is too long for one batch.
    long: bool,
}

/// What the log must hold.
#[derive(Debug, Default)]
struct Model {
    history: Vec<Step>,
    /// Steps of history up to each ticket that was not reported yet.
    tickets: BTreeMap<Ticket, usize>,
    /// Steps of history that must survive.
    persisted: usize,
}

impl Model {
    fn records(&self) -> BTreeMap<u64, &Numbered> {
        let mut records = BTreeMap::new();
        for step in &self.history {
            match &step.visit {
                Visit::State(_) => {}
                Visit::Truncate(from) => {
                    records.split_off(from);
                }
                Visit::Record(record) => {
                    records.insert(record.index, record);
                }
            }
        }
        records
    }

    fn append(&mut self, append: &Append<Numbered>) {
        let state = append.state.clone().map(Visit::State);
        let truncate = append.truncate_from.map(Visit::Truncate);
        let records = append.records.iter().cloned().map(Visit::Record);
        let bytes: usize = append.records.iter().map(|record| record.data.len() + 32).sum();
        let long = bytes > BATCH_BYTES_MAX / 4;
        let visits = truncate.into_iter().chain(records).chain(state);
        self.history.extend(visits.map(|visit| Step {
            visit,
            last: false,
            long,
        }));
        if let Some(step) = self.history.last_mut() {
            step.last = true;
        }
    }
}

struct Run {
    random: ChaCha8Rng,
    disk: MemoryDisk,
    wal: Wal<Numbered>,
    model: Model,
    under_way: Vec<(OpId, Op)>,
    /// First and last index of reads under way, and the lowest truncation since.
    reads: BTreeMap<u64, (u64, u64, u64)>,
    read_ids: u64,
    full: bool,
}

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: Some(0),
        fill_ahead_bytes: 64 << 10,
        index_stride_bytes: 8 << 10,
        ..WalOptions::new(OWNER)
    }
}

/// Tries to open, but dies at some change; whether it got to one.
fn die_opening(disk: &mut MemoryDisk, changes: usize, power: bool, random: &mut ChaCha8Rng) -> bool {
    let mut dying = Dying {
        disk,
        changes_left: changes,
        died_at: None,
    };
    let opened = Wal::<Numbered>::open(&mut dying, options(), &mut |_| Ok(()));
    let Some(op) = dying.died_at else {
        opened.unwrap_or_else(|error| panic!("it opens: {error}"));
        return false;
    };
    if power {
        disk.power_failure(&[op], random);
    } else {
        disk.kill(&[op], random);
    }
    true
}

fn open(disk: &mut MemoryDisk) -> (Wal<Numbered>, Recovery, Vec<Visit<Numbered>>) {
    let mut visits = Vec::new();
    let (wal, recovery) = Wal::open(disk, options(), &mut |visit| {
        visits.push(visit);
        Ok(())
    })
    .unwrap_or_else(|error| panic!("it opens: {error}"));
    (wal, recovery, visits)
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut disk = MemoryDisk::new(ROOMY);
        let (wal, recovery, _) = open(&mut disk);
        assert_eq!(recovery, Recovery::default());
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            disk,
            wal,
            model: Model::default(),
            under_way: Vec::new(),
            reads: BTreeMap::new(),
            read_ids: 0,
            full: false,
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..1000) {
            0..300 => self.append(),
            300..400 => self.read(),
            400..980 => self.work(),
            980..985 => self.fill_up(),
            985..992 => self.restart(false),
            _ => self.restart(true),
        }
    }

    fn append(&mut self) {
        if self.wal.pending_bytes() > 8 << 20 {
            return;
        }
        let last = self.wal.last_index();
        let state = self.random.random_bool(0.3).then(|| self.bytes(40));
        let truncate_from = (last > 0 && self.random.random_bool(0.1))
            .then(|| self.random.random_range(1.max(last.saturating_sub(20))..=last));
        let next = truncate_from.unwrap_or(last + 1);
        let count = if self.random.random_bool(0.02) {
            40
        } else {
            self.random.random_range(0..4)
        };
        let records: Vec<Numbered> = (next..next + count)
            .map(|index| Numbered {
                index,
                data: self.data(),
            })
            .collect();
        let append = Append {
            state,
            truncate_from,
            records,
        };
        if let Some(from) = truncate_from {
            for read in self.reads.values_mut() {
                read.2 = read.2.min(from);
            }
        }
        self.model.append(&append);
        let ticket = self.wal.append(append);
        self.model.tickets.insert(ticket, self.model.history.len());
    }

    fn data(&mut self) -> Bytes {
        let longest = match self.random.random_range(0..100) {
            0..60 => 100,
            60..90 => 3000,
            90..99 => 40_000,
            _ => 1 << 20,
        };
        self.bytes(longest)
    }

    fn bytes(&mut self, longest: usize) -> Bytes {
        let mut bytes = vec![0; self.random.random_range(0..=longest)];
        // Payload that looks like what the format itself uses must not matter.
        if self.random.random_bool(0.5) {
            self.random.fill_bytes(&mut bytes);
        }
        bytes.into()
    }

    fn read(&mut self) {
        let records = self.model.records();
        let (Some((&low, _)), Some((&high, _))) = (records.first_key_value(), records.last_key_value())
        else {
            return;
        };
        let first = self.random.random_range(low..=high);
        let last = first + self.random.random_range(0..30);
        let max_bytes = self.random.random_range(0..200_000);
        self.read_ids += 1;
        match self.wal.read(self.read_ids, first, last, max_bytes) {
            Some(read) => self.check_read(&read, first, last, u64::MAX),
            None => {
                self.reads.insert(self.read_ids, (first, last, u64::MAX));
            }
        }
    }

    fn check_read(&self, read: &[Numbered], first: u64, last: u64, truncated: u64) {
        let records = self.model.records();
        assert!(
            !read.is_empty() || truncated <= first,
            "at least one of {first}..={last}"
        );
        for (index, record) in (first..=last).zip(read) {
            assert_eq!(Some(&record), records.get(&index), "record {index}");
        }
        assert!(read.len() as u64 <= last - first + 1);
    }

    /// Hands out operations, and completes one of those under way.
    fn work(&mut self) {
        while let Some(op) = self.wal.next_op() {
            self.under_way.push(op);
        }
        let writes = self
            .under_way
            .iter()
            .filter(|(_, op)| matches!(op, Op::Write { .. }))
            .count();
        assert!(writes <= 1, "one flush at a time");
        if self.under_way.is_empty() {
            return;
        }
        let (id, op) = self
            .under_way
            .swap_remove(self.random.random_range(0..self.under_way.len()));
        let result = self.disk.execute(&op);
        for event in self.wal.complete(id, result).expect("nothing failed") {
            self.take(event);
        }
    }

    fn take(&mut self, event: WalEvent<Numbered>) {
        match event {
            WalEvent::Persisted(ticket) => {
                let steps = self
                    .model
                    .tickets
                    .remove(&ticket)
                    .expect("every ticket is reported once, in order");
                self.model.persisted = steps;
                self.model.tickets = self.model.tickets.split_off(&ticket);
            }
            WalEvent::Read { id, records } => {
                let (first, last, truncated) = self.reads.remove(&id).expect("it was asked for");
                self.check_read(&records, first, last, truncated);
            }
            WalEvent::Full(full) => {
                assert_ne!(self.full, full, "only changes are told");
                self.full = full;
            }
            WalEvent::Repaired => panic!("nothing was to be repaired"),
        }
    }

    /// The disk has no more room for a while; then everything goes through after all.
    fn fill_up(&mut self) {
        self.disk
            .limit_to(self.disk.used_bytes() + self.random.random_range(0..200_000));
        for _ in 0..self.random.random_range(0..100) {
            match self.random.random_range(0..3) {
                0 => self.append(),
                1 => self.work(),
                _ => self.retry(),
            }
        }
        self.disk.limit_to(ROOMY);
        self.settle();
    }

    fn retry(&mut self) {
        let event = self.wal.retry();
        if let Some(event) = event {
            self.take(event);
        }
    }

    /// Everything that was appended gets persisted.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.retry();
            self.work();
            if !self.wal.is_pending() && self.under_way.is_empty() && self.reads.is_empty() {
                break;
            }
        }
        assert_eq!(
            self.model.persisted,
            self.model.history.len(),
            "nothing waits for ever"
        );
        assert!(!self.full);
        assert_eq!(self.wal.pending_bytes(), 0);
    }

    fn restart(&mut self, power: bool) {
        let mut under_way: Vec<Op> = self.under_way.drain(..).map(|(_, op)| op).collect();
        if !under_way.is_empty() {
            let first = self.random.random_range(0..under_way.len());
            under_way.swap(0, first);
        }
        if power {
            self.disk.power_failure(&under_way, &mut self.random);
        } else {
            self.disk.kill(&under_way, &mut self.random);
        }
        while self.random.random_bool(0.4) {
            let (changes, power) = (self.random.random_range(0..4), self.random.random_bool(0.5));
            die_opening(&mut self.disk, changes, power, &mut self.random);
        }
        let (wal, recovery, visits) = open(&mut self.disk);
        self.check_recovered(&recovery, &visits);
        self.wal = wal;
        self.reads.clear();
        self.model.tickets.clear();
        self.full = false;
        // What one start showed, the next must show as well, even if nothing was written in between.
        if self.random.random_bool(0.3) {
            self.restart(true);
        }
    }

    fn check_recovered(&mut self, recovery: &Recovery, visits: &[Visit<Numbered>]) {
        let kept = visits.len();
        assert!(
            kept >= self.model.persisted,
            "{kept} of {} persisted steps",
            self.model.persisted
        );
        let history = self.model.history.iter().map(|step| &step.visit);
        assert!(
            visits.iter().eq(history.take(kept)),
            "it is a prefix of what was appended"
        );
        if let Some(step) = kept.checked_sub(1).and_then(|at| self.model.history.get(at)) {
            assert!(step.last || step.long, "an append is all there or not at all");
        }
        assert!(!recovery.suspect_tail, "a crash is not damage");
        self.model.history.truncate(kept);
        // What was recovered counts as persisted from now on.
        self.model.persisted = kept;
        let records = self.model.records();
        let last = self.model.history.iter().fold(0, |last, step| match &step.visit {
            Visit::State(_) => last,
            Visit::Truncate(from) => from - 1,
            Visit::Record(record) => record.index,
        });
        let first = records.first_key_value().map_or(0, |(index, _)| *index);
        assert_eq!((recovery.first_index, recovery.last_index), (first, last));
    }
}

#[test]
fn what_was_persisted_survives_whatever_happens() {
    for seed in seeds(90) {
        let _replay = Replay(seed);
        let mut run = Run::new(seed);
        for _ in 0..600 {
            run.step();
        }
        run.settle();
        run.restart(true);
    }
}

/// A log of small records on several segments, all of it synced.
fn long_log(random: &mut ChaCha8Rng) -> (MemoryDisk, Vec<Visit<Numbered>>) {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    let mut visits = Vec::new();
    while wal.segments() < 3 {
        let index = wal.last_index() + 1;
        let mut data = vec![7; random.random_range(1..100_000)];
        random.fill_bytes(data.get_mut(..1).expect("there is one"));
        let record = Numbered {
            index,
            data: data.into(),
        };
        visits.push(Visit::Record(record.clone()));
        wal.append(Append {
            records: vec![record],
            ..Append::default()
        });
        drive(&mut wal, &mut disk);
    }
    (disk, visits)
}

fn drive(wal: &mut Wal<Numbered>, disk: &mut MemoryDisk) -> Vec<WalEvent<Numbered>> {
    let mut events = Vec::new();
    while let Some((id, op)) = wal.next_op() {
        let result = disk.execute(&op);
        events.extend(wal.complete(id, result).expect("nothing failed"));
    }
    events
}

#[test]
fn damage_is_never_taken_for_data() {
    for seed in seeds(30) {
        let _replay = Replay(seed);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (mut disk, visits) = long_log(&mut random);
        let (_, whole, _) = open(&mut disk);
        let names = disk.names();
        let name = names[random.random_range(0..names.len())];
        let length = disk.content(name).unwrap().len();
        let offset = random.random_range(0..length);
        assert!(disk.rot(name, offset));
        let mut found = Vec::new();
        let opened = Wal::<Numbered>::open(&mut disk, options(), &mut |visit| {
            found.push(visit);
            Ok(())
        });
        assert!(visits.starts_with(&found), "only what was appended");
        match opened {
            // The last batch alone can pass for one that was never synced, or is told to be suspect.
            Ok((_, recovery)) => {
                let lost = whole.batches - recovery.batches;
                assert!(lost <= 1 && (lost == 0 || recovery.suspect_tail || recovery.dropped_tail));
                assert_eq!(found.len() as u64, recovery.last_index);
            }
            Err(error) => {
                let line = error.to_string();
                assert!(line.contains(&name.to_string()) && !line.contains('\n'), "{line}");
            }
        }
    }
}

#[test]
fn damage_that_is_read_back_is_fatal() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut disk, _) = long_log(&mut random);
    let (mut wal, ..) = open(&mut disk);
    let name = disk.names()[0];
    assert!(disk.rot(name, 600));
    assert_eq!(wal.read(1, 1, 1, 1), None);
    let mut ops = std::iter::from_fn(|| wal.next_op());
    let (id, op) = ops.find(|(_, op)| matches!(op, Op::Read { .. })).unwrap();
    let fatal = wal.complete(id, disk.execute(&op)).unwrap_err().to_string();
    assert!(
        fatal.contains(&format!("{name} is corrupt at offset 512")),
        "{fatal}"
    );
}

/// Regression: a place of the index may be in the middle of a batch, where a truncation is. Reading went past it.
#[test]
fn a_truncation_in_the_middle_of_a_batch_does_not_hide_what_follows() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    append_all(&mut wal, None, 1..=3);
    drive(&mut wal, &mut disk);
    append_all(&mut wal, None, 4..=6);
    append_all(&mut wal, Some(5), 5..=8);
    drive(&mut wal, &mut disk);
    assert_eq!(wal.read(1, 2, 8, usize::MAX), None);
    let read: Vec<Numbered> = (2..=8).map(small).collect();
    assert_eq!(
        drive(&mut wal, &mut disk),
        vec![WalEvent::Read { id: 1, records: read }]
    );
}

/// Regression: the index does not know of records that are queued behind a truncation. Reading went on into what they replace.
#[test]
fn what_a_queued_truncation_replaces_is_not_read() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    append_all(&mut wal, None, 1..=6);
    drive(&mut wal, &mut disk);
    let replaced = Numbered {
        index: 4,
        data: Bytes::from_static(b"new"),
    };
    wal.append(Append {
        truncate_from: Some(4),
        records: vec![replaced.clone()],
        ..Append::default()
    });
    assert_eq!(wal.read(1, 2, 6, usize::MAX), None);
    let events = drive(&mut wal, &mut disk);
    let Some(WalEvent::Read { records, .. }) =
        events.iter().find(|event| matches!(event, WalEvent::Read { .. }))
    else {
        panic!("no answer in {events:?}");
    };
    assert!(
        records.starts_with(&[small(2), small(3)]) && !records.contains(&small(4)),
        "{records:?}"
    );
    assert_eq!(wal.read(2, 4, 4, usize::MAX), None);
    assert_eq!(
        drive(&mut wal, &mut disk),
        vec![WalEvent::Read {
            id: 2,
            records: vec![replaced]
        }]
    );
}

fn small(index: u64) -> Numbered {
    Numbered {
        index,
        data: Bytes::from(index.to_string()),
    }
}

fn append_all(wal: &mut Wal<Numbered>, truncate_from: Option<u64>, indexes: std::ops::RangeInclusive<u64>) {
    wal.append(Append {
        truncate_from,
        records: indexes.map(small).collect(),
        ..Append::default()
    });
}

/// Regression: the state came first, and a commit index in it met the records that the same append was to replace.
#[test]
fn a_state_comes_behind_the_records_that_it_may_speak_of() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    append_all(&mut wal, None, 1..=2);
    let state = Bytes::from_static(b"record 2 is committed");
    wal.append(Append {
        truncate_from: Some(2),
        records: vec![small(2)],
        state: Some(state.clone()),
    });
    drive(&mut wal, &mut disk);
    let again = [Visit::Truncate(2), Visit::Record(small(2)), Visit::State(state)];
    assert!(open(&mut disk).2.ends_with(&again));
}

#[test]
fn a_suspect_tail_is_remembered_until_it_is_repaired() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    for index in 1..=3 {
        let data = Bytes::from(vec![1; 2000]);
        wal.append(Append {
            records: vec![Numbered { index, data }],
            ..Append::default()
        });
        drive(&mut wal, &mut disk);
    }
    let name = disk.names()[0];
    // Each batch takes 5 sectors, behind the segment's head.
    assert!(disk.rot(name, 512 + 10 * 512 + 100));
    let damaged = disk.clone();
    for start in 1..=2 {
        let (_, recovery, _) = open(&mut disk);
        assert!(recovery.suspect_tail, "start {start}");
        assert_eq!((recovery.last_index, recovery.dropped_tail), (2, false));
    }
    // Dying while it is remembered, or while what is left of the batch is removed, does not make it forgotten.
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for seed in 0..100 {
        let mut again = damaged.clone();
        for changes in [seed % 4, seed / 4 % 4] {
            die_opening(&mut again, changes, seed % 2 == 0, &mut random);
        }
        assert!(open(&mut again).1.suspect_tail, "seed {seed}");
    }
    let (mut wal, ..) = open(&mut disk);
    wal.repaired();
    assert_eq!(drive(&mut wal, &mut disk).last(), Some(&WalEvent::Repaired));
    assert!(!open(&mut disk).1.suspect_tail);
}

/// Regression: a sector whose stamp had changed passed for one that was never written, and so a batch that was acknowledged for
/// one that never was.
#[test]
fn a_damaged_stamp_in_the_last_batch_makes_it_suspect() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    for _ in 1..=3 {
        append_large(&mut wal, 2000, 1);
        drive(&mut wal, &mut disk);
    }
    let name = disk.names()[0];
    // Each batch takes 5 sectors, behind the segment's head.
    for (sector, bit) in (11..16).flat_map(|sector| (0..64).map(move |bit| (sector, bit))) {
        let mut damaged = disk.clone();
        flip_stamp(&mut damaged, name, sector, bit);
        let (mut wal, recovery, _) = open(&mut damaged);
        assert_eq!(
            (recovery.last_index, recovery.suspect_tail, recovery.dropped_tail),
            (2, true, false),
            "sector {sector}, bit {bit}"
        );
        wal.repaired();
        drive(&mut wal, &mut damaged);
        assert!(!open(&mut damaged).1.suspect_tail, "nothing of it is left");
    }
}

fn flip_stamp(disk: &mut MemoryDisk, file: raftlog_storage::FileName, sector: usize, bit: usize) {
    let offset = sector * 512 + bit / 8;
    let flipped = disk.content(file).expect("it is there")[offset] ^ 1 << (bit % 8);
    disk.overwrite(file, offset, &[flipped]);
}

#[test]
fn a_suspect_tail_in_a_segment_of_its_own_is_repaired_for_good() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    // Until a batch is the first of the second segment.
    let second = loop {
        let record = Numbered {
            index: wal.last_index() + 1,
            data: Bytes::from(vec![1; 100_000]),
        };
        wal.append(Append {
            records: vec![record],
            ..Append::default()
        });
        let mut written = None;
        while let Some((id, op)) = wal.next_op() {
            if let Op::Write {
                file, offset: 512, ..
            } = &op
            {
                written = Some(*file);
            }
            wal.complete(id, disk.execute(&op)).unwrap();
        }
        if let Some(file) = written.filter(|_| wal.last_index() > 1) {
            break file;
        }
    };
    assert!(disk.rot(second, 1000));
    let (mut wal, recovery, _) = open(&mut disk);
    assert!(recovery.suspect_tail && recovery.segments == 1);
    wal.repaired();
    while let Some((id, op)) = wal.next_op() {
        // Only the mark is removed; no new segment has come in the place of the damaged one yet.
        if matches!(op, Op::Remove { .. }) {
            assert_eq!(
                wal.complete(id, disk.execute(&op)).unwrap(),
                vec![WalEvent::Repaired]
            );
        }
    }
    assert!(!open(&mut disk).1.suspect_tail);
}

#[test]
fn a_dropped_batch_does_not_complete_a_later_one_of_its_sequence() {
    let record = |data: u8| {
        vec![Numbered {
            index: 2,
            data: Bytes::from(vec![data; 2000]),
        }]
    };
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    append_all(&mut wal, None, 1..=1);
    drive(&mut wal, &mut disk);
    let name = disk.names()[0];
    wal.append(Append {
        records: record(1),
        ..Append::default()
    });
    drive(&mut wal, &mut disk);
    // Of the first attempt at batch 2 all but its first sector was written, of the second all but its last.
    disk.overwrite(name, 1024, &[0; 512]);
    let (mut wal, recovery, _) = open(&mut disk);
    assert!(recovery.dropped_tail);
    let before = disk.content(name).unwrap().to_vec();
    wal.append(Append {
        records: record(2),
        ..Append::default()
    });
    drive(&mut wal, &mut disk);
    let last = 1024 + 4 * 512;
    disk.overwrite(name, last, &before[last..last + 512]);
    let (_, recovery, _) = open(&mut disk);
    assert_eq!(
        (recovery.last_index, recovery.dropped_tail, recovery.suspect_tail),
        (1, true, false)
    );
}

#[test]
fn a_batch_of_another_past_is_no_data() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    append_all(&mut wal, None, 1..=1);
    drive(&mut wal, &mut disk);
    let mut other = disk.clone();
    let (mut other_wal, ..) = open(&mut other);
    append_all(&mut wal, None, 2..=2);
    drive(&mut wal, &mut disk);
    let different = Numbered {
        index: 2,
        data: Bytes::from_static(b"?"),
    };
    other_wal.append(Append {
        records: vec![different],
        ..Append::default()
    });
    drive(&mut other_wal, &mut other);
    append_all(&mut other_wal, None, 3..=3);
    drive(&mut other_wal, &mut other);
    let name = disk.names()[0];
    let third = other.content(name).unwrap()[3 * 512..4 * 512].to_vec();
    disk.overwrite(name, 3 * 512, &third);
    let (_, recovery, visits) = open(&mut disk);
    assert_eq!(visits, [Visit::Record(small(1)), Visit::Record(small(2))]);
    assert!(recovery.suspect_tail);
}

#[test]
fn a_tail_that_was_not_written_whole_is_dropped_without_suspicion() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    for index in 1..=2 {
        let data = Bytes::from(vec![1; 2000]);
        wal.append(Append {
            records: vec![Numbered { index, data }],
            ..Append::default()
        });
        drive(&mut wal, &mut disk);
    }
    let name = disk.names()[0];
    for sector in 6..11 {
        let mut torn = disk.clone();
        torn.overwrite(name, sector * 512, &[0; 512]);
        let (_, recovery, _) = open(&mut torn);
        assert_eq!(
            (recovery.last_index, recovery.suspect_tail),
            (1, false),
            "sector {sector}"
        );
        assert!(recovery.dropped_tail);
    }
}

/// Regression: without the head of the last batch, the one before it passed for one that was never synced, and both were
/// dropped though they may have been acknowledged.
#[test]
fn a_page_lost_over_the_last_two_batches_is_refused() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    for _ in 1..=3 {
        append_large(&mut wal, 2000, 1);
        drive(&mut wal, &mut disk);
    }
    // Each batch takes 5 sectors, behind the segment's head: the last of the second and the first of the third.
    disk.overwrite(disk.names()[0], 10 * 512, &[0; 1024]);
    refuses(
        &mut disk,
        "offset 3072: batch 2 is damaged or missing, but batch 3 follows at offset 6144",
    );
}

#[test]
fn the_past_of_another_segment_is_no_data() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let (mut disk, visits) = long_log(&mut random);
    open(&mut disk);
    let names = disk.names();
    let old = disk.content(names[0]).unwrap().to_vec();
    let last = *names.last().unwrap();
    let used = usize::try_from(
        Wal::<Numbered>::open(&mut disk, options(), &mut |_| Ok(()))
            .unwrap()
            .1
            .bytes,
    )
    .unwrap()
        - names[..names.len() - 1]
            .iter()
            .map(|&name| content_used(&disk, name))
            .sum::<usize>();
    for shift in [0, 512, 5 * 512] {
        let mut recycled = disk.clone();
        recycled.overwrite(last, used, old.get(512 + shift..).unwrap());
        let (_, recovery, found) = open(&mut recycled);
        assert_eq!(found, visits);
        // Nothing was ever dropped here: no file can have been used before, so that something else has put this there.
        assert!(recovery.suspect_tail);
    }
}

/// Bytes of a segment up to its last sector that is not zero.
fn content_used(disk: &MemoryDisk, name: raftlog_storage::FileName) -> usize {
    let content = disk.content(name).expect("it is there");
    content
        .iter()
        .rposition(|&byte| byte != 0)
        .expect("a head")
        .next_multiple_of(512)
}

#[test]
fn a_batch_that_later_ones_follow_is_never_dropped() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let (mut disk, _) = long_log(&mut random);
    let names = disk.names();
    // A page lost in the middle, a segment cut short, a segment gone, a head lost.
    let first = names[0];
    let middle = disk.content(first).unwrap().len() / 2 / 4096 * 4096;
    let mut lost = disk.clone();
    lost.overwrite(first, middle, &[0; 4096]);
    refuses(&mut lost, "is damaged or missing, but batch");
    let mut headless = disk.clone();
    headless.overwrite(names[1], 0, &[0; 512]);
    refuses(&mut headless, "the segment's head is damaged");
    disk.execute(&Op::Remove { file: first }).unwrap();
    refuses(&mut disk, "it is missing");
}

/// A log in two segments whose last batches were written when a third was prepared.
fn log_with_a_segment_prepared() -> MemoryDisk {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    while wal.segments() < 3 {
        append_large(&mut wal, 20_000, 1);
        drive(&mut wal, &mut disk);
    }
    append_large(&mut wal, 5000, 1);
    drive(&mut wal, &mut disk);
    disk
}

fn append_large(wal: &mut Wal<Numbered>, bytes: usize, count: u64) -> Ticket {
    let first = wal.last_index() + 1;
    let record = |index| Numbered {
        index,
        data: Bytes::from(vec![1; bytes]),
    };
    wal.append(Append {
        records: (first..first + count).map(record).collect(),
        ..Append::default()
    })
}

/// Wherever the file of the last batch is cut, or whatever is removed behind the first segment, it is no clean end.
#[test]
fn a_log_that_was_cut_is_refused() {
    let disk = log_with_a_segment_prepared();
    // As it was left, as a start leaves it, and written to after that.
    let mut restarted = disk.clone();
    let (mut wal, ..) = open(&mut restarted);
    let mut written = restarted.clone();
    append_large(&mut wal, 5000, 1);
    drive(&mut wal, &mut written);
    for disk in [disk, restarted, written] {
        let names = disk.names();
        // The segment that is written to, and the one prepared behind it.
        let (current, next) = (names[names.len() - 2], names[names.len() - 1]);
        let end = content_used(&disk, current);
        assert_eq!(content_used(&disk, next), 512, "it is empty");
        for length in [0, 511, 512, 1024, end - 5000, end - 512, end - 1, end, end + 512] {
            let mut cut = disk.clone();
            cut.cut(current, length);
            refuses(
                &mut cut,
                &format!("{current} is corrupt at offset {length}: it ends here"),
            );
        }
        for removed in 1..names.len() {
            let mut less = disk.clone();
            for &file in &names[removed..] {
                less.execute(&Op::Remove { file }).unwrap();
            }
            refuses(
                &mut less,
                &format!("{} is corrupt at offset 0: it is missing", names[removed]),
            );
        }
        let mut emptied = disk.clone();
        emptied.cut(next, 0);
        refuses(
            &mut emptied,
            &format!("{next} is corrupt at offset 0: it ends here"),
        );
    }
}

/// The segment prepared for later is kept by a start, and takes on the size that segments have by then.
#[test]
fn a_start_keeps_the_segment_that_was_prepared() {
    let mut disk = log_with_a_segment_prepared();
    let names = disk.names();
    let larger = WalOptions {
        segment_bytes: Some(16 << 20),
        ..options()
    };
    let (mut wal, recovery) = Wal::<Numbered>::open(&mut disk, larger, &mut |_| Ok(())).unwrap();
    assert_eq!(
        (disk.names(), recovery.segments),
        (names.clone(), names.len() - 1)
    );
    // One batch that only a larger segment fits.
    let ticket = append_large(&mut wal, 1 << 20, 3);
    assert!(drive(&mut wal, &mut disk).contains(&WalEvent::Persisted(ticket)));
    assert!(disk.content(*names.last().unwrap()).unwrap().len() > 3 << 20);
    assert_eq!(open(&mut disk).1.last_index, wal.last_index());
}

/// The torn batch was the first to speak of the segment prepared behind it: a start that dies between dropping the one and
/// removing the other leaves nothing that speaks of what is gone.
#[test]
fn a_start_that_dies_while_it_drops_a_torn_batch_is_done_again() {
    let mut torn = log_with_a_segment_prepared();
    let names = torn.names();
    let current = names[names.len() - 2];
    let end = content_used(&torn, current);
    torn.overwrite(current, end.next_multiple_of(512) - 512, &[0; 512]);
    let expected = open(&mut torn.clone()).2;
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut deaths = 0;
    for power in [false, true] {
        for changes in 0..8 {
            let mut disk = torn.clone();
            deaths += u32::from(die_opening(&mut disk, changes, power, &mut random));
            assert_eq!(
                open(&mut disk).2,
                expected,
                "{changes} changes, power failure: {power}"
            );
        }
    }
    assert!(deaths > 4, "only {deaths} starts died");
}

fn refuses(disk: &mut MemoryDisk, because: &str) {
    let refused = Wal::<Numbered>::open(disk, options(), &mut |_| Ok(()))
        .expect_err("damage")
        .to_string();
    assert!(refused.contains(because), "{refused}");
}

#[test]
fn another_owner_is_refused() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let (mut disk, _) = long_log(&mut random);
    let other = WalOptions {
        owner: 1,
        ..options()
    };
    let refused = Wal::<Numbered>::open(&mut disk, other, &mut |_| Ok(()))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("belongs to member 000000000000abcd, not to 0000000000000001"),
        "{refused}"
    );
}

#[test]
fn a_failed_write_is_fatal_and_says_where() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    drive(&mut wal, &mut disk);
    wal.append(Append {
        state: Some(Bytes::from_static(b"s")),
        ..Append::default()
    });
    let (id, op) = wal.next_op().unwrap();
    disk.fail_next(DiskErrorKind::Failed);
    let fatal = wal.complete(id, disk.execute(&op)).unwrap_err().to_string();
    assert!(
        fatal.contains("cannot write log-0000000000000001 at offset 512"),
        "{fatal}"
    );
}

#[test]
fn a_full_disk_is_told_before_the_room_is_used_up() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    drive(&mut wal, &mut disk);
    disk.limit_to(disk.used_bytes());
    let mut persisted_while_full = 0;
    let mut full = false;
    for index in 1..=200 {
        let record = Numbered {
            index,
            data: Bytes::from(vec![2; 400]),
        };
        let ticket = wal.append(Append {
            records: vec![record],
            ..Append::default()
        });
        let events = drive(&mut wal, &mut disk);
        full |= events.contains(&WalEvent::Full(true));
        persisted_while_full += usize::from(full && events.contains(&WalEvent::Persisted(ticket)));
    }
    assert!(full && wal.is_full_disk());
    assert!(persisted_while_full > 20, "{persisted_while_full}");
    assert!(wal.is_pending());
    assert_eq!(wal.retry(), None);
    assert_eq!(drive(&mut wal, &mut disk), Vec::new(), "it is still full");
    disk.limit_to(ROOMY);
    assert_eq!(wal.retry(), None);
    let events = drive(&mut wal, &mut disk);
    assert!(
        events.contains(&WalEvent::Full(false)) && events.contains(&WalEvent::Persisted(200)),
        "{events:?}"
    );
}

#[test]
fn a_write_that_finds_no_room_is_done_again_at_the_same_place() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    drive(&mut wal, &mut disk);
    wal.append(Append {
        state: Some(Bytes::from_static(b"s")),
        ..Append::default()
    });
    let (id, first) = wal.next_op().unwrap();
    disk.fail_next(DiskErrorKind::Full);
    assert_eq!(
        wal.complete(id, disk.execute(&first)).unwrap(),
        vec![WalEvent::Full(true)]
    );
    assert_eq!(wal.next_op(), None);
    assert_eq!(wal.retry(), None);
    let (id, again) = wal.next_op().unwrap();
    assert_eq!(first, again);
    let events = wal.complete(id, disk.execute(&again)).unwrap();
    assert_eq!(events, vec![WalEvent::Persisted(1), WalEvent::Full(false)]);
}

#[test]
fn what_queues_during_a_flush_goes_into_one_batch() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, ..) = open(&mut disk);
    drive(&mut wal, &mut disk);
    let record = |index| Numbered {
        index,
        data: Bytes::from_static(b"x"),
    };
    wal.append(Append {
        records: vec![record(1)],
        ..Append::default()
    });
    let (id, op) = wal.next_op().unwrap();
    for index in 2..=65 {
        wal.append(Append {
            records: vec![record(index)],
            ..Append::default()
        });
        assert_eq!(wal.next_op(), None);
    }
    assert_eq!(
        wal.complete(id, disk.execute(&op)).unwrap(),
        vec![WalEvent::Persisted(1)]
    );
    let syncs = disk.syncs();
    assert_eq!(drive(&mut wal, &mut disk), vec![WalEvent::Persisted(65)]);
    assert_eq!(disk.syncs(), syncs + 1);
}
