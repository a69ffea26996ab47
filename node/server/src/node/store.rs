//! What a node has on its disk: the log, and the snapshots beside it. Both hand out operations for the one disk; numbers of
//! operations tell them apart.

use raftlog_raft::entry::Entry;
use raftlog_storage::snapshots::{SnapshotEvent, Snapshots};
use raftlog_storage::{DiskError, Fatal, Op, OpId, Outcome, Wal, WalEvent};

/// The log and the snapshots.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) wal: Wal<Entry>,
    pub(super) snapshots: Snapshots,
}

/// What came of an operation of either.
#[derive(Debug)]
pub(super) enum StoreEvent {
    Wal(WalEvent<Entry>),
    Snapshot(SnapshotEvent),
}

impl Store {
    /// What to hand to the disk now. The log comes first: whoever waits for a commit waits for it.
    pub(super) fn next_op(&mut self) -> Option<(OpId, Op)> {
        self.wal.next_op().or_else(|| self.snapshots.next_op())
    }

    /// What came of an operation.
    pub(super) fn complete(
        &mut self,
        id: OpId,
        result: Result<Outcome, DiskError>,
    ) -> Result<Vec<StoreEvent>, Fatal> {
        if Snapshots::is_own(id) {
            let events = self.snapshots.complete(id, result)?;
            Ok(events.into_iter().map(StoreEvent::Snapshot).collect())
        } else {
            let events = self.wal.complete(id, result)?;
            Ok(events.into_iter().map(StoreEvent::Wal).collect())
        }
    }

    /// Whether either found no room when it last asked for it.
    pub(super) fn is_full_disk(&self) -> bool {
        self.wal.is_full_disk() || self.snapshots.is_full_disk()
    }

    /// Asks a full disk for room again.
    pub(super) fn retry(&mut self) -> Option<WalEvent<Entry>> {
        self.snapshots.retry();
        self.wal.retry()
    }
}
