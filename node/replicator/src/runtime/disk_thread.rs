//! The one thread that touches the data folder once it is open.

use std::io;
use std::sync::mpsc;
use std::thread;

use raftlog_storage::{Disk, DiskError, FileDisk, Op, OpId, Outcome};
use tokio::sync::mpsc as tokio_mpsc;

/// Operations under way at most: the core hands out one write, one fill, one repair and a bounded number of reads.
pub(super) const OPERATIONS_MAX: usize = 256;

/// What came of an operation.
pub(super) type Completion = (OpId, Result<Outcome, DiskError>);

/// Hands operations to the thread.
#[derive(Debug)]
pub(super) struct DiskThread {
    operations: mpsc::SyncSender<(OpId, Op)>,
}

impl DiskThread {
    /// Starts the thread; it ends when this is dropped.
    pub(super) fn start(mut disk: FileDisk) -> io::Result<(Self, tokio_mpsc::Receiver<Completion>)> {
        let (operations, queue) = mpsc::sync_channel::<(OpId, Op)>(OPERATIONS_MAX);
        let (completed, completions) = tokio_mpsc::channel(OPERATIONS_MAX);
        thread::Builder::new().name("disk".into()).spawn(move || {
            while let Ok((id, op)) = queue.recv() {
                let outcome = disk.execute(&op);
                if completed.blocking_send((id, outcome)).is_err() {
                    return;
                }
            }
        })?;
        Ok((Self { operations }, completions))
    }

    /// Queues an operation. Does not wait: there is room for all that the core hands out.
    pub(super) fn submit(&self, id: OpId, op: Op) -> Result<(), String> {
        self.operations
            .try_send((id, op))
            .map_err(|error| format!("the disk's thread takes no operations: {error}"))
    }
}
