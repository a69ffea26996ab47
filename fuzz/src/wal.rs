//! Recovery of a log from arbitrary bytes, by both kinds of records. What was recovered must be a log: it takes one more
//! record, and says the same when it is opened again.
//!
//! Chunks: 0 to 3 is the whole of that segment (from 1); 4 and above are payloads of a first segment with good CRCs, which
//! takes the place of chunk 0.

use bytes::Bytes;
use raftlog_raft::entry::{Entry, Payload};
use raftlog_replicator::core::Operation;
use raftlog_storage::fuzzing::{segment, segment_name};
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{Append, Disk, Record, Visit, Wal, WalEvent, WalOptions};

use crate::chunks;

/// Whose log it is.
pub const OWNER: u64 = 7;
const VOLUME_BYTES: u64 = 16 << 20;

/// The target.
pub fn wal(data: &[u8]) {
    let mut disk = MemoryDisk::new(VOLUME_BYTES);
    let mut payloads = Vec::new();
    for chunk in chunks(data) {
        if chunk.kind < 4 {
            disk.overwrite(segment_name(u64::from(chunk.kind) + 1), 0, &chunk.bytes);
        } else {
            payloads.push(chunk.bytes);
        }
    }
    if !payloads.is_empty() {
        disk.overwrite(segment_name(1), 0, &segment(OWNER, &payloads));
    }
    recovers(disk.clone(), |log_index| Entry {
        log_index,
        term: 1,
        operation_index: 0,
        running_hash: 0,
        payload: Payload::Noop,
    });
    recovers(disk, |index| Operation {
        index,
        term: 1,
        running_hash: 0,
        data: Bytes::from_static(b"one more"),
    });
}

fn recovers<R: Record + PartialEq + std::fmt::Debug>(mut disk: MemoryDisk, record: impl Fn(u64) -> R) {
    let Some((mut wal, before)) = open::<R>(&mut disk) else {
        return;
    };
    let Some(index) = wal.last_index().checked_add(1) else {
        return;
    };
    let more = record(index);
    let ticket = wal.append(Append {
        records: vec![more.clone()],
        ..Append::default()
    });
    let mut persisted = false;
    while let Some((id, op)) = wal.next_op() {
        let result = disk.execute(&op);
        let Ok(events) = wal.complete(id, result) else {
            return;
        };
        persisted |= events.contains(&WalEvent::Persisted(ticket));
        if wal.is_full_disk() {
            return;
        }
    }
    assert!(persisted, "there was room, and no write failed");
    let (_, after) = open::<R>(&mut disk).expect("a log that was opened can be opened again");
    let mut expected = before;
    expected.push(Visit::Record(more));
    assert_eq!(after, expected);
}

fn open<R: Record>(disk: &mut MemoryDisk) -> Option<(Wal<R>, Vec<Visit<R>>)> {
    let mut visits = Vec::new();
    let opened = Wal::open(disk, WalOptions::new(OWNER), &mut |visit| {
        visits.push(visit);
        Ok(())
    });
    let (wal, _) = opened.ok()?;
    Some((wal, visits))
}
