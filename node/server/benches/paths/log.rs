//! What the write-ahead log does for one entry, and what it takes to read a log.

use std::hint::black_box;

use raftlog_raft::entry::Entry;
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{Append, Disk, Outcome, Wal, WalEvent, WalOptions};

use super::Path;
use super::entries::Entries;

const VOLUME_BYTES: u64 = 1 << 30;
const RECOVERED: usize = 1_000;

fn open(disk: &mut MemoryDisk) -> (Wal<Entry>, u64) {
    let mut visited = 0;
    let (wal, _) = Wal::open(disk, WalOptions::new(1), &mut |visit| {
        visited += 1;
        black_box(visit);
        Ok(())
    })
    .expect("the log is whole");
    (wal, visited)
}

fn append(wal: &mut Wal<Entry>, entry: Entry) {
    wal.append(Append {
        records: vec![entry],
        ..Append::default()
    });
}

/// From an append to the batch that a disk is given, whose end is told at once.
pub(super) struct Appends {
    wal: Wal<Entry>,
    entries: Entries,
    prepared: Vec<Entry>,
}

impl Appends {
    pub(super) fn new() -> Self {
        let (wal, _) = open(&mut MemoryDisk::new(VOLUME_BYTES));
        Self {
            wal,
            entries: Entries::new(),
            prepared: Vec::new(),
        }
    }

    fn take(&mut self, entry: Entry) -> bool {
        append(&mut self.wal, entry);
        let mut is_persisted = false;
        while let Some((id, op)) = self.wal.next_op() {
            black_box(op);
            let events = self.wal.complete(id, Ok(Outcome::Done));
            let events = events.expect("nothing failed");
            is_persisted |= events.iter().any(|event| matches!(event, WalEvent::Persisted(_)));
        }
        is_persisted
    }
}

impl Path for Appends {
    fn prepare(&mut self, times: usize) {
        self.prepared = self.entries.some(times);
    }

    fn run(&mut self) {
        for entry in std::mem::take(&mut self.prepared) {
            assert!(self.take(entry), "every entry is written");
        }
    }
}

/// Opening a log that holds some entries, each in a batch of its own.
pub(super) struct Recoveries {
    disk: MemoryDisk,
    prepared: usize,
}

impl Recoveries {
    pub(super) fn new() -> Self {
        let mut disk = MemoryDisk::new(VOLUME_BYTES);
        let (mut wal, _) = open(&mut disk);
        for entry in Entries::new().some(RECOVERED) {
            append(&mut wal, entry);
            while let Some((id, op)) = wal.next_op() {
                let result = disk.execute(&op);
                wal.complete(id, result).expect("the disk has room");
            }
        }
        Self { disk, prepared: 0 }
    }
}

impl Path for Recoveries {
    fn prepare(&mut self, times: usize) {
        self.prepared = times;
    }

    fn run(&mut self) {
        for _ in 0..self.prepared {
            let (wal, visited) = open(&mut self.disk);
            assert_eq!(visited, RECOVERED as u64, "all entries are found");
            black_box(wal);
        }
    }
}
