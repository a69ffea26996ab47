//! Logs whose first segments are dropped, on a simulated disk that crashes, tears and fills up at any moment, by seed.
//!
//! Whatever happens, a log that is opened again begins where some call of `compact` said, and not before one that is known to be
//! on disk; from there on it holds what a prefix of the appends adds up to, with all that was reported as persisted.
//!
//! `STORAGE_SEED=<seed> cargo test -p raftlog-storage --test compaction` replays one run; `STORAGE_RUNS=<n>` makes it that many.

mod dying;
mod numbered;
mod seeded;

use std::collections::BTreeMap;

use bytes::Bytes;
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{
    Append, Disk, DiskErrorKind, FileName, Op, OpId, Recovery, Ticket, Visit, Wal, WalEvent, WalOptions,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use dying::Dying;
use numbered::Numbered;
use seeded::{Replay, seeds};

const ROOMY: u64 = 1 << 30;
const START: FileName = FileName::named("log-start");

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: Some(0),
        fill_ahead_bytes: 64 << 10,
        index_stride_bytes: 8 << 10,
        ..WalOptions::new(0xabcd)
    }
}

/// What visits add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sum {
    records: BTreeMap<u64, Numbered>,
    state: Option<Bytes>,
}

impl Sum {
    fn add(&mut self, visit: Visit<Numbered>) {
        match visit {
            Visit::State(state) => self.state = Some(state),
            Visit::Truncate(from) => {
                self.records.split_off(&from);
            }
            Visit::Record(record) => {
                self.records.insert(record.index, record);
            }
        }
    }

    fn beyond(mut self, through: u64) -> Self {
        self.records = self.records.split_off(&(through + 1));
        self
    }
}

struct Opened {
    wal: Wal<Numbered>,
    recovery: Recovery,
    sum: Sum,
}

fn open(disk: &mut dyn Disk) -> Result<Opened, String> {
    let mut sum = Sum::default();
    let (wal, recovery) = Wal::open(disk, options(), &mut |visit| {
        sum.add(visit);
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    assert_eq!(recovery.state, sum.state);
    let first = sum.records.first_key_value().map_or(0, |(index, _)| *index);
    assert_eq!(recovery.first_index, first);
    assert!(first == 0 || recovery.compacted_through == 0 || first == recovery.compacted_through + 1);
    let next = (first..)
        .zip(sum.records.keys())
        .all(|(expected, found)| expected == *found);
    assert!(next, "indexes are dense");
    assert_eq!(
        (wal.first_index(), wal.last_index(), wal.compacted_through()),
        (first, recovery.last_index, recovery.compacted_through)
    );
    Ok(Opened { wal, recovery, sum })
}

fn die_opening(disk: &mut MemoryDisk, random: &mut ChaCha8Rng) {
    let mut dying = Dying {
        disk,
        changes_left: random.random_range(0..5),
        died_at: None,
    };
    let opened = open(&mut dying);
    match dying.died_at {
        None => drop(opened.expect("it opens")),
        Some(op) if random.random_bool(0.5) => {
            disk.power_failure(&[op], random);
        }
        Some(op) => disk.kill(&[op], random),
    }
}

/// A call of `compact`.
#[derive(Debug, Clone, Copy)]
struct Call {
    through: u64,
    /// Visits that were appended before.
    visits: usize,
    /// It went beyond the last record: nothing appended later may be there without it.
    gap: bool,
}

struct Run {
    random: ChaCha8Rng,
    disk: MemoryDisk,
    wal: Wal<Numbered>,
    /// All that was appended, and whether it was the last of its append.
    history: Vec<(Visit<Numbered>, bool)>,
    tickets: BTreeMap<Ticket, usize>,
    /// Visits that must survive.
    persisted: usize,
    calls: Vec<Call>,
    /// The log begins at least here on disk.
    durable_through: u64,
    under_way: Vec<(OpId, Op)>,
    reads: BTreeMap<u64, (u64, u64)>,
    read_ids: u64,
    full: bool,
    recycled: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut disk = MemoryDisk::new(ROOMY);
        let wal = open(&mut disk).expect("it opens").wal;
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            disk,
            wal,
            history: Vec::new(),
            tickets: BTreeMap::new(),
            persisted: 0,
            calls: Vec::new(),
            durable_through: 0,
            under_way: Vec::new(),
            reads: BTreeMap::new(),
            read_ids: 0,
            full: false,
            recycled: 0,
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..1000) {
            0..250 => self.append(),
            250..320 => self.read(),
            320..360 => self.compact(),
            360..980 => {
                self.work();
            }
            980..985 => self.fill_up(),
            985..992 => self.restart(false),
            _ => self.restart(true),
        }
    }

    fn sum_of(&self, visits: usize) -> Sum {
        let mut sum = Sum::default();
        for (visit, _) in self.history.iter().take(visits) {
            sum.add(visit.clone());
        }
        sum
    }

    fn append(&mut self) {
        if self.wal.pending_bytes() > 4 << 20 {
            return;
        }
        let (last, compacted) = (self.wal.last_index(), self.wal.compacted_through());
        let truncate_from = (last > compacted && self.random.random_bool(0.1)).then(|| {
            let lowest = (compacted + 1).max(last.saturating_sub(20));
            self.random.random_range(lowest..=last)
        });
        let next = truncate_from.unwrap_or(last + 1);
        let count = self.random.random_range(0..4);
        let append = Append {
            truncate_from,
            records: (next..next + count).map(|index| self.record(index)).collect(),
            state: self
                .random
                .random_bool(0.2)
                .then(|| Bytes::from(self.random.next_u64().to_string())),
        };
        let visits = append.truncate_from.map(Visit::Truncate).into_iter();
        let visits = visits.chain(append.records.iter().cloned().map(Visit::Record));
        let visits = visits.chain(append.state.clone().map(Visit::State));
        self.history.extend(visits.map(|visit| (visit, false)));
        if let Some((_, last)) = self.history.last_mut() {
            *last = true;
        }
        let ticket = self.wal.append(append);
        self.tickets.insert(ticket, self.history.len());
    }

    fn record(&mut self, index: u64) -> Numbered {
        let longest = if self.random.random_bool(0.3) {
            200_000
        } else {
            5_000
        };
        let mut data = vec![0; self.random.random_range(0..longest)];
        let random = data.len().min(16);
        self.random.fill_bytes(&mut data[..random]);
        Numbered {
            index,
            data: data.into(),
        }
    }

    fn compact(&mut self) {
        let last = self.wal.last_index();
        let through = match self.random.random_range(0..20) {
            0 => last + self.random.random_range(1..100),
            1 => last,
            _ => self.random.random_range(0..=last),
        };
        if through > 0 && through >= self.wal.compacted_through() {
            self.calls.push(Call {
                through,
                visits: self.history.len(),
                gap: through > last,
            });
        }
        self.wal.compact(through);
    }

    fn read(&mut self) {
        let (low, high) = (self.wal.first_index(), self.wal.last_index());
        if self.random.random_bool(0.1) {
            let below = self.wal.compacted_through();
            assert_eq!(
                self.wal.read(u64::MAX, below, high, 1),
                Some(Vec::new()),
                "compacted"
            );
        }
        if low == 0 {
            return;
        }
        let first = self.random.random_range(low..=high);
        let last = first + self.random.random_range(0..30);
        self.read_ids += 1;
        match self
            .wal
            .read(self.read_ids, first, last, self.random.random_range(0..200_000))
        {
            Some(read) => {
                assert!(!read.is_empty());
                self.check_read(&read, first);
            }
            None => {
                self.reads.insert(self.read_ids, (first, last));
            }
        }
    }

    fn check_read(&self, read: &[Numbered], first: u64) {
        let records = self.sum_of(self.history.len()).records;
        for (index, record) in (first..).zip(read) {
            assert_eq!(Some(record), records.get(&index), "record {index}");
        }
    }

    /// Hands out operations and completes one; whether there was one.
    fn work(&mut self) -> bool {
        while let Some((id, op)) = self.wal.next_op() {
            self.recycled += usize::from(matches!(op, Op::Rename { .. }));
            self.under_way.push((id, op));
        }
        if self.under_way.is_empty() {
            return false;
        }
        let (id, op) = self
            .under_way
            .swap_remove(self.random.random_range(0..self.under_way.len()));
        let result = self.disk.execute(&op);
        for event in self.wal.complete(id, result).expect("nothing failed") {
            self.take(event);
        }
        true
    }

    fn take(&mut self, event: WalEvent<Numbered>) {
        match event {
            WalEvent::Persisted(ticket) => {
                self.persisted = self
                    .tickets
                    .remove(&ticket)
                    .expect("every ticket is reported once");
                self.tickets = self.tickets.split_off(&ticket);
            }
            WalEvent::Read { id, records } => {
                let (first, last) = self.reads.remove(&id).expect("it was asked for");
                assert!(records.len() as u64 <= last - first + 1);
                self.check_read(&records, first);
            }
            WalEvent::Full(full) => {
                assert_ne!(self.full, full, "only changes are told");
                self.full = full;
            }
            WalEvent::Repaired => panic!("nothing was to be repaired"),
        }
    }

    fn fill_up(&mut self) {
        let room = self.random.random_range(0..200_000);
        self.disk.limit_to(self.disk.used_bytes() + room);
        for _ in 0..self.random.random_range(0..100) {
            match self.random.random_range(0..10) {
                0..3 => self.append(),
                3 => self.compact(),
                4..7 => {
                    self.work();
                }
                _ => drop(self.wal.retry()),
            }
        }
        self.disk.limit_to(ROOMY);
        self.settle();
    }

    /// Everything goes through.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let _ = self.wal.retry();
            if !self.work() {
                break;
            }
        }
        assert_eq!(self.persisted, self.history.len(), "nothing waits for ever");
        assert!(!self.full && self.reads.is_empty());
        self.durable_through = self.wal.compacted_through();
        assert_eq!(self.wal.disk_bytes(), self.disk.used_bytes() - self.start_bytes());
    }

    fn start_bytes(&self) -> u64 {
        self.disk.content(START).map_or(0, |content| content.len() as u64)
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
            die_opening(&mut self.disk, &mut self.random);
        }
        let opened = open(&mut self.disk).unwrap_or_else(|error| panic!("it opens: {error}"));
        self.check(&opened);
        self.wal = opened.wal;
        self.reads.clear();
        self.tickets.clear();
        self.full = false;
    }

    fn check(&mut self, opened: &Opened) {
        let through = opened.recovery.compacted_through;
        assert!(!opened.recovery.suspect_tail, "a crash is not damage");
        let called = through == self.durable_through || self.calls.iter().any(|call| call.through == through);
        assert!(
            called && through >= self.durable_through,
            "it begins at {through}, which was {} before",
            self.durable_through
        );
        let whole =
            |visits: usize| visits == 0 || self.history.get(visits - 1).is_some_and(|(_, last)| *last);
        let kept = (self.persisted..=self.history.len())
            .rev()
            .filter(|&visits| whole(visits))
            .find(|&visits| self.sum_of(visits).beyond(through) == opened.sum)
            .expect("it is what a prefix of the appends adds up to");
        for call in self.calls.iter().filter(|call| call.gap && call.visits < kept) {
            let empty = self.history[call.visits..kept]
                .iter()
                .all(|(visit, _)| matches!(visit, Visit::State(_)));
            assert!(empty || through >= call.through, "{call:?} was overtaken");
        }
        self.history.truncate(kept);
        self.persisted = kept;
        self.durable_through = through;
        self.calls.retain(|call| call.through <= through);
    }
}

#[test]
fn what_was_persisted_beyond_the_beginning_survives_whatever_happens() {
    let mut recycled = 0;
    for seed in seeds(60) {
        let _replay = Replay(seed);
        let mut run = Run::new(seed);
        for _ in 0..600 {
            run.step();
        }
        run.settle();
        run.restart(true);
        recycled += run.recycled;
    }
    assert!(recycled > 0 || seeds(60).count() < 60, "segments are recycled");
}

fn drive(wal: &mut Wal<Numbered>, disk: &mut MemoryDisk) -> Vec<WalEvent<Numbered>> {
    let mut events = Vec::new();
    while let Some((id, op)) = wal.next_op() {
        let result = disk.execute(&op);
        events.extend(wal.complete(id, result).expect("nothing failed"));
    }
    events
}

fn numbered(index: u64, bytes: usize) -> Numbered {
    let mut data = vec![0; bytes];
    data[..8].copy_from_slice(&index.to_le_bytes());
    Numbered {
        index,
        data: data.into(),
    }
}

fn append(wal: &mut Wal<Numbered>, bytes: usize) {
    wal.append(Append {
        records: vec![numbered(wal.last_index() + 1, bytes)],
        ..Append::default()
    });
}

/// Four segments of records of 50 kB; the only state is in the first.
fn four_segments() -> (MemoryDisk, Wal<Numbered>) {
    let mut disk = MemoryDisk::new(ROOMY);
    let mut wal = open(&mut disk).expect("it opens").wal;
    wal.append(Append {
        state: Some(Bytes::from_static(b"term 7")),
        ..Append::default()
    });
    while wal.segments() < 4 {
        append(&mut wal, 50_000);
        drive(&mut wal, &mut disk);
    }
    append(&mut wal, 50_000);
    drive(&mut wal, &mut disk);
    (disk, wal)
}

#[test]
fn the_process_dies_at_each_operation_of_a_compaction() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let mut begins = [0, 0];
    for at in 0..12 {
        for round in 0..6 {
            let (mut disk, mut wal) = four_segments();
            let last = wal.last_index();
            wal.compact(last - 1);
            append(&mut wal, 50_000);
            for _ in 0..at {
                let Some((id, op)) = wal.next_op() else { break };
                wal.complete(id, disk.execute(&op)).unwrap();
            }
            let under_way: Vec<Op> = wal.next_op().map(|(_, op)| op).into_iter().collect();
            if round % 2 == 0 {
                disk.power_failure(&under_way, &mut random);
            } else {
                disk.kill(&under_way, &mut random);
            }
            let mut opened = open(&mut disk).unwrap();
            let through = opened.recovery.compacted_through;
            assert!(through == 0 || through == last - 1, "{through}");
            assert_eq!(opened.sum.state, Some(Bytes::from_static(b"term 7")));
            assert!(opened.recovery.last_index >= last);
            begins[usize::from(through > 0)] += 1;
            for index in through + 1..=last {
                assert_eq!(opened.sum.records.get(&index), Some(&numbered(index, 50_000)));
            }
            // It goes on, into what was recycled too.
            opened.wal.compact(last);
            for _ in 0..100 {
                append(&mut opened.wal, 50_000);
                drive(&mut opened.wal, &mut disk);
            }
            let again = open(&mut disk).unwrap();
            assert_eq!(again.recovery.last_index, opened.wal.last_index());
            assert_eq!(again.recovery.first_index, last + 1);
        }
    }
    assert!(begins[0] > 5 && begins[1] > 5, "{begins:?}");
}

#[test]
fn disk_use_is_bounded_while_it_is_written_for_ever() {
    let mut disk = MemoryDisk::new(ROOMY);
    let mut wal = open(&mut disk).unwrap().wal;
    let (mut highest, mut renamed, mut created) = (0, 0, 0);
    for round in 0..4_000_u64 {
        append(&mut wal, 10_000);
        // Every 200 records, which are a segment, all but the last 100 are needed no more.
        if round % 200 == 0 {
            wal.compact(round.saturating_sub(100));
        }
        while let Some((id, op)) = wal.next_op() {
            renamed += usize::from(matches!(op, Op::Rename { .. }));
            created += usize::from(matches!(op, Op::Create { .. }));
            wal.complete(id, disk.execute(&op)).unwrap();
        }
        highest = highest.max(disk.used_bytes());
    }
    assert!(highest <= 6 * (2 << 20), "{highest} bytes");
    assert!(renamed > 10 && created < 6, "{renamed} recycled, {created} made");
    let opened = open(&mut disk).unwrap();
    assert_eq!(opened.recovery.last_index, 4_000);
    assert!(opened.recovery.first_index > 3_500);
}

#[test]
fn a_log_may_begin_anywhere_after_a_snapshot_from_elsewhere() {
    // Of an empty log, and of one with records.
    for records in [0, 60] {
        let mut disk = MemoryDisk::new(ROOMY);
        let mut wal = open(&mut disk).unwrap().wal;
        for _ in 0..records {
            append(&mut wal, 50_000);
        }
        drive(&mut wal, &mut disk);
        wal.compact(1000);
        assert_eq!((wal.first_index(), wal.last_index()), (0, 1000));
        append(&mut wal, 100);
        let before = disk.clone();
        drive(&mut wal, &mut disk);
        let recovery = open(&mut disk).unwrap().recovery;
        assert_eq!(
            (
                recovery.compacted_through,
                recovery.first_index,
                recovery.last_index
            ),
            (1000, 1001, 1001)
        );
        let recovery = open(&mut before.clone()).unwrap().recovery;
        assert_eq!((recovery.compacted_through, recovery.last_index), (0, records));
    }
}

#[test]
fn a_beginning_that_does_not_fit_the_log_is_refused() {
    let (mut disk, mut wal) = four_segments();
    let last = wal.last_index();
    let before = disk.clone();
    wal.compact(last - 1);
    drive(&mut wal, &mut disk);
    let refuses = |disk: &MemoryDisk, because: &str| {
        let refused = open(&mut disk.clone()).err().expect("it is refused");
        assert!(refused.contains(because) && !refused.contains('\n'), "{refused}");
    };
    // Its file is damaged, or gone.
    let mut damaged = disk.clone();
    assert!(damaged.rot(START, 20));
    refuses(
        &damaged,
        "log-start is corrupt at offset 0: it does not match its CRC",
    );
    let mut gone = disk.clone();
    gone.execute(&Op::Remove { file: START }).unwrap();
    refuses(&gone, "it is missing");
    // The last batch that it knows of is damaged, or all segments are gone.
    let newest = disk.names().into_iter().rfind(|name| {
        let content = disk.content(*name).unwrap();
        *name != START && content[512..].iter().any(|&byte| byte != 0)
    });
    let mut damaged = disk.clone();
    assert!(damaged.rot(newest.unwrap(), 1000));
    refuses(&damaged, "was on disk when the segments before");
    let mut gone = disk.clone();
    for name in disk.names().into_iter().filter(|name| *name != START) {
        gone.execute(&Op::Remove { file: name }).unwrap();
    }
    refuses(&gone, "was on disk when the segments before");
    // It was set back to before the log begins.
    let mut old = disk.clone();
    for name in disk.names().into_iter().filter(|name| *name != START) {
        old.execute(&Op::Remove { file: name }).unwrap();
    }
    for name in before.names().into_iter().take(1) {
        old.overwrite(name, 0, before.content(name).unwrap());
    }
    refuses(&old, "was on disk when the segments before");
}

#[test]
fn a_read_under_way_ends_where_what_it_wants_is_dropped() {
    let (mut disk, mut wal) = four_segments();
    let last = wal.last_index();
    assert_eq!(wal.read(1, 1, last, usize::MAX), None);
    assert_eq!(wal.read(2, last, last, usize::MAX), None);
    let mut reads = Vec::new();
    let mut events = Vec::new();
    while let Some((id, op)) = wal.next_op() {
        if matches!(op, Op::Read { .. }) {
            reads.push((id, op));
        } else {
            events.extend(wal.complete(id, disk.execute(&op)).unwrap());
        }
    }
    wal.compact(last - 1);
    events.extend(drive(&mut wal, &mut disk));
    for (id, op) in reads {
        events.extend(wal.complete(id, disk.execute(&op)).unwrap());
    }
    events.extend(drive(&mut wal, &mut disk));
    assert!(events.contains(&WalEvent::Read {
        id: 1,
        records: Vec::new()
    }));
    assert!(events.contains(&WalEvent::Read {
        id: 2,
        records: vec![numbered(last, 50_000)]
    }));
    assert_eq!(wal.read(3, last - 1, last, 1), Some(Vec::new()));
}

#[test]
#[should_panic(expected = "were compacted: the log cannot be cut")]
fn what_was_compacted_is_not_truncated() {
    let (_, mut wal) = four_segments();
    wal.compact(10);
    wal.append(Append {
        truncate_from: Some(10),
        ..Append::default()
    });
}

/// What lacked room was done at another call's wish, before the disk was asked again: there was nothing to try any more, the disk
/// counted as full for ever, and a leader that refuses submissions for that writes nothing that would tell (seed 3010 of
/// the simulator).
#[test]
fn a_disk_is_not_full_for_what_is_done_by_now() {
    let (mut disk, mut wal) = four_segments();
    let last = wal.last_index();
    drive(&mut wal, &mut disk);
    disk.fail_next(DiskErrorKind::Full);
    wal.compact(last - 1);
    assert_eq!(drive(&mut wal, &mut disk), vec![WalEvent::Full(true)]);
    wal.compact(last);
    let mut events = drive(&mut wal, &mut disk);
    events.extend(wal.retry());
    events.extend(drive(&mut wal, &mut disk));
    assert_eq!(events, vec![WalEvent::Full(false)]);
    assert_eq!(wal.retry(), None);
}

#[test]
fn a_full_disk_is_compacted_all_the_same() {
    let (mut disk, mut wal) = four_segments();
    let last = wal.last_index();
    disk.limit_to(disk.used_bytes() + 500);
    for _ in 0..3 {
        append(&mut wal, 1 << 20);
    }
    assert!(drive(&mut wal, &mut disk).contains(&WalEvent::Full(true)));
    wal.compact(last);
    drive(&mut wal, &mut disk);
    assert_eq!(wal.retry(), None);
    let events = drive(&mut wal, &mut disk);
    assert!(events.contains(&WalEvent::Full(false)), "{events:?}");
    assert!(!wal.is_pending());
    assert_eq!(open(&mut disk).unwrap().recovery.first_index, last + 1);
}

/// Whatever byte of a log in used segments is damaged: what they held before never passes for the present.
#[test]
fn damage_in_used_segments_is_never_taken_for_data() {
    let mut disk = MemoryDisk::new(ROOMY);
    let mut wal = open(&mut disk).unwrap().wal;
    let mut renamed = 0;
    for index in 1..=700 {
        append(&mut wal, 20_000);
        wal.compact(index - index % 200);
        while let Some((id, op)) = wal.next_op() {
            renamed += usize::from(matches!(op, Op::Rename { .. }));
            wal.complete(id, disk.execute(&op)).unwrap();
        }
    }
    assert!(renamed > 2);
    let whole = open(&mut disk.clone()).unwrap();
    assert!(whole.recovery.dropped_tail || whole.recovery.last_index == 700);
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let mut refused = 0;
    for _ in 0..40 {
        let mut damaged = disk.clone();
        let names: Vec<FileName> = damaged
            .names()
            .into_iter()
            .filter(|name| *name != START)
            .collect();
        let name = names[random.random_range(0..names.len())];
        let offset = random.random_range(0..damaged.content(name).unwrap().len());
        if random.random_bool(0.5) {
            assert!(damaged.rot(name, offset));
        } else {
            damaged.overwrite(name, offset / 4096 * 4096, &[0; 4096]);
        }
        match open(&mut damaged) {
            Ok(opened) => {
                let lost = whole.recovery.batches - opened.recovery.batches;
                let told = opened.recovery.suspect_tail || opened.recovery.dropped_tail;
                assert!(
                    lost == 0 || (lost == 1 && told),
                    "{lost} batches lost by {name} at {offset}"
                );
                let kept = opened.recovery.last_index;
                assert!(opened.sum.records.iter().eq(whole.sum.records.range(..=kept)));
            }
            Err(line) => {
                refused += 1;
                assert!(
                    line.contains("is corrupt at offset") && !line.contains('\n'),
                    "{line}"
                );
            }
        }
    }
    assert!(refused > 5, "{refused}");
}

/// Regression: see `a_damaged_stamp_in_the_last_batch_makes_it_suspect`. Here only what looks older than the segment is excused, and
/// not even that in the sector with the batch's head, which is all that a small one has.
#[test]
fn a_damaged_stamp_in_a_used_segment_makes_the_last_batch_suspect() {
    let mut disk = MemoryDisk::new(ROOMY);
    let mut wal = open(&mut disk).unwrap().wal;
    let mut renamed = Vec::new();
    // Until a segment that was used before holds two batches of five sectors.
    let (file, last) = loop {
        append(&mut wal, 2000);
        let index = wal.last_index();
        wal.compact(index - index % 200);
        let mut written = None;
        while let Some((id, op)) = wal.next_op() {
            match &op {
                Op::Rename { to, .. } => renamed.push(*to),
                Op::Write { file, offset, data } if *offset > 512 && data.concat().len() == 5 * 512 => {
                    written = Some((*file, usize::try_from(*offset).unwrap()));
                }
                _ => {}
            }
            wal.complete(id, disk.execute(&op)).unwrap();
        }
        if let Some(written) = written.filter(|(file, _)| renamed.contains(file)) {
            break written;
        }
    };
    let stamp = |disk: &MemoryDisk, offset: usize| {
        let bytes = disk.content(file).unwrap()[offset..][..8].try_into().unwrap();
        u64::from_le_bytes(bytes) & !(1 << 63)
    };
    let (first, sequence) = (stamp(&disk, 512), stamp(&disk, last));
    let whole = open(&mut disk.clone()).unwrap().recovery;
    assert!(!whole.suspect_tail && !whole.dropped_tail);
    let mut excused = 0;
    for (sector, bit) in (0..5).flat_map(|sector| (0..64).map(move |bit| (sector, bit))) {
        let mut damaged = disk.clone();
        let offset = last + sector * 512;
        let flipped = damaged.content(file).unwrap()[offset + bit / 8] ^ 1 << (bit % 8);
        damaged.overwrite(file, offset + bit / 8, &[flipped]);
        let seems = stamp(&damaged, offset);
        let Opened {
            mut wal, recovery, ..
        } = open(&mut damaged).unwrap();
        assert_eq!(recovery.batches, sequence - 1);
        let looks_older = sector > 0 && (1..first).contains(&seems);
        assert_eq!(
            recovery.suspect_tail, !looks_older,
            "sector {sector}, bit {bit}: {seems}"
        );
        excused += usize::from(looks_older);
        wal.repaired();
        drive(&mut wal, &mut damaged);
        assert!(
            !open(&mut damaged).unwrap().recovery.suspect_tail,
            "nothing of it is left"
        );
    }
    assert!(excused > 0 && excused < 60, "{excused}");
}

/// Short records one by one take a sector each, and a long one what it is long.
#[test]
fn records_take_what_their_batches_do() {
    let mut disk = MemoryDisk::new(ROOMY);
    let (mut wal, _) = Wal::open(&mut disk, options(), &mut |_| Ok(())).unwrap();
    assert_eq!(wal.bytes_per_record_from(1), 0);
    let short = 100_u32;
    for _ in 0..short {
        append(&mut wal, 8);
        drive(&mut wal, &mut disk);
    }
    let besides = wal.bytes_besides();
    assert!((400 * 100..512 * 100).contains(&besides), "{besides}");
    append(&mut wal, 50_000);
    drive(&mut wal, &mut disk);
    assert!(
        wal.bytes_besides() - besides < 2_000,
        "the record itself is not counted"
    );
    let (wal, _) = Wal::<Numbered>::open(&mut disk, options(), &mut |_| Ok(())).unwrap();
    assert_eq!(wal.bytes_besides(), 0, "since it was opened");
    assert_eq!(wal.bytes_per_record_from(1), (100 * 512 + 51_200) / 101);
    let last = wal.bytes_per_record_from(wal.last_index());
    assert!((512..=51_200).contains(&last), "{last}");
}
