//! The beginning of the log is dropped once neither the node nor a start of this process needs it (design 6.5).
//!
//! In this order, so that dying at any point leaves a log whose beginning is known: the place that the log is to begin after is
//! read back; it is written as part of the state; when that is on disk, the log drops its segments. A start that finds the
//! state and not the drop does the latter again.

use std::sync::Arc;

use raftlog_raft::ids::OperationIndex;

use super::ages::{Ages, Ladder};
use super::effect::Notice;
use super::operation::Operation;
use super::replicator::Replicator;
use super::retention::LogSize;

/// The id under which the log is read back for the place that it is to begin after.
pub(super) const COMPACTION_READ: u64 = u64::MAX;

/// What decides how much of the log stays.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// The node needs nothing at or below this index.
    pub(super) kept: OperationIndex,
    /// How old what is held is.
    pub(super) ages: Ages,
    /// Of the disk.
    pub(super) volume_bytes: u64,
    /// What was dropped last was not beyond any limit: the disk had no room for it.
    pub(super) cut_short: bool,
    /// The log is being read back.
    reading: bool,
}

impl Compaction {
    pub(super) fn new(ages: Arc<Ladder>, volume_bytes: u64) -> Self {
        Self {
            ages: Ages::new(ages),
            volume_bytes,
            ..Self::default()
        }
    }
}

impl Replicator {
    /// First index that is held, or would be if it were committed.
    pub(super) fn first_index(&self) -> OperationIndex {
        self.wal.compacted_through().saturating_add(1)
    }

    /// It is that time, by the clock.
    pub(super) fn tick(&mut self, unix_millis: u64) {
        let held = (self.wal.compacted_through(), self.commit.index);
        if let Some(age) = self.config.retention.age {
            self.compaction.ages.tick(unix_millis, age, held);
        }
    }

    /// Drops whole segments that hold nothing above what the node and this process need. Some of the log stays beyond that,
    /// for whoever watches it; where the disk is full it goes too.
    pub(super) fn compact_when_due(&mut self) {
        let dropped = self.wal.compacted_through();
        if self.compaction.reading || self.base.index > dropped || self.is_restoring() {
            return;
        }
        match self.droppable() {
            None => {}
            Some((through, _)) if through <= dropped => self.wal.compact(through),
            Some((through, cut_short)) => {
                self.compaction.cut_short = cut_short;
                self.compaction.reading = true;
                if let Some(records) = self.wal.read(COMPACTION_READ, through, through, 1) {
                    self.base_read_back(&records);
                }
            }
        }
    }

    /// The index to drop the log through, and whether only for want of room.
    fn droppable(&self) -> Option<(OperationIndex, bool)> {
        let needless = self.compaction.kept.min(self.executed_for_good().index);
        let segment_bytes = self.wal.segment_bytes();
        let allowance = self.config.retention.allowance(&LogSize {
            commit: self.commit.index,
            aged: self.compaction.ages.aged(),
            trailing_bytes: self.config.trailing_bytes.unwrap_or(segment_bytes),
            volume_bytes: self.compaction.volume_bytes,
            disk_full: self.writing.full,
        });
        let beyond_limits = self
            .wal
            .droppable(needless.min(allowance.through), 0)
            .max(self.wal.droppable(needless, allowance.keep_bytes));
        let beyond_room = self.wal.droppable(needless, allowance.room_bytes);
        let through = beyond_limits.max(beyond_room)?;
        Some((through, beyond_room > beyond_limits))
    }

    /// The log is to begin after this operation; there is none where a snapshot was restored meanwhile.
    pub(super) fn base_read_back(&mut self, records: &[Operation]) {
        self.compaction.reading = false;
        // An executor may have gone back meanwhile.
        let executed = self.executed_for_good().index;
        let is_needless = |first: &&Operation| first.index > self.base.index && first.index <= executed;
        if let Some(operation) = records.first().filter(is_needless) {
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
