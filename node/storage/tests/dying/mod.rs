//! A process that dies while it works on its disk.

use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{Disk, DiskError, DiskErrorKind, Op, Outcome};

/// A disk whose process dies at a given operation that changes something.
pub(crate) struct Dying<'a> {
    pub(crate) disk: &'a mut MemoryDisk,
    pub(crate) changes_left: usize,
    pub(crate) died_at: Option<Op>,
}

impl Disk for Dying<'_> {
    fn execute(&mut self, op: &Op) -> Result<Outcome, DiskError> {
        if !matches!(op, Op::Read { .. } | Op::List | Op::Volume) {
            if self.changes_left == 0 {
                self.died_at = Some(op.clone());
                return Err(DiskError {
                    kind: DiskErrorKind::Failed,
                    message: "the process died".to_owned(),
                });
            }
            self.changes_left -= 1;
        }
        self.disk.execute(op)
    }
}
