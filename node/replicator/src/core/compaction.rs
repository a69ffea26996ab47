//! The beginning of the log is dropped once neither the node nor a start of this process needs it (design 6.5).
//!
//! In this order, so that dying at any point leaves a log whose beginning is known: the place that the log is to begin after is
//! read back; it is written as part of the state; when that is on disk, the log drops its segments. A start that finds the
//! state and not the drop does the latter again.

use raftlog_raft::ids::OperationIndex;

use super::effect::Notice;
use super::operation::Operation;
use super::replicator::Replicator;

/// The id under which the log is read back for the place that it is to begin after.
pub(super) const COMPACTION_READ: u64 = u64::MAX;

/// What decides how much of the log stays.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// The node needs nothing at or below this index.
    pub(super) kept: OperationIndex,
    /// The log is being read back.
    reading: bool,
}

impl Replicator {
    /// First index that is held, or would be if it were committed.
    pub(super) fn first_index(&self) -> OperationIndex {
        self.wal.compacted_through().saturating_add(1)
    }

    /// Drops whole segments that hold nothing above what the node and this process need. Some of the log stays beyond that,
    /// for whoever watches it and is a little behind; where the disk is full it goes too.
    pub(super) fn compact_when_due(&mut self) {
        let dropped = self.wal.compacted_through();
        if self.compaction.reading || self.base.index > dropped || self.is_restoring() {
            return;
        }
        let needless = self.compaction.kept.min(self.writing.durable_executed.index);
        let trailing_bytes = match (self.writing.full, self.config.trailing_bytes) {
            (true, _) => 0,
            (false, Some(bytes)) => bytes,
            (false, None) => self.wal.segment_bytes(),
        };
        match self.wal.droppable(needless, trailing_bytes) {
            None => {}
            Some(through) if through <= dropped => self.wal.compact(through),
            Some(through) => {
                self.compaction.reading = true;
                if let Some(records) = self.wal.read(COMPACTION_READ, through, through, 1) {
                    self.base_read_back(&records);
                }
            }
        }
    }

    /// The log is to begin after this operation; there is none where a snapshot was restored meanwhile.
    pub(super) fn base_read_back(&mut self, records: &[Operation]) {
        self.compaction.reading = false;
        if let Some(operation) = records.first().filter(|first| first.index > self.base.index) {
            assert!(
                operation.index <= self.writing.durable_executed.index,
                "operation {} is dropped only after it was executed durably",
                operation.index
            );
            self.base = operation.place();
        }
    }

    /// The state that is on disk may say that the log begins later than it does.
    pub(super) fn compact_to_durable_base(&mut self) {
        let base = self.writing.durable_base;
        if base.index > self.wal.compacted_through() {
            self.wal.compact(base.index);
            self.notice(Notice::Compacted {
                node: self.config.node,
                first: base.index.saturating_add(1),
            });
        }
    }
}
