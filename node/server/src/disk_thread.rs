//! The I/O thread: owns the disk, does one operation after the other.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use raftlog_storage::{Disk, DiskError, Op, OpId, Outcome};
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// Operations that wait for the disk at most; the node hands out a few at a time.
const QUEUED_OPS_MAX: usize = 256;
/// Completions that wait for the core at most; more than operations, so that the thread never waits for the core.
const COMPLETIONS_MAX: usize = 1_024;

/// What came of an operation.
pub(crate) type Completion = (OpId, Result<Outcome, DiskError>);

/// The core's end.
pub(crate) struct DiskThread {
    pub(crate) operations: SyncSender<(OpId, Op)>,
    pub(crate) completions: mpsc::Receiver<Completion>,
    pub(crate) thread: JoinHandle<()>,
}

/// Starts the thread. It ends when `operations` is dropped and everything before is done.
pub(crate) fn start(disk: impl Disk + Send + 'static, metrics: Metrics) -> io::Result<DiskThread> {
    let (operations, queue) = sync_channel(QUEUED_OPS_MAX);
    let (done, completions) = mpsc::channel(COMPLETIONS_MAX);
    let thread = thread::Builder::new()
        .name("disk".into())
        .spawn(move || run(disk, &queue, &done, &metrics))?;
    Ok(DiskThread {
        operations,
        completions,
        thread,
    })
}

fn run(
    mut disk: impl Disk,
    queue: &Receiver<(OpId, Op)>,
    done: &mpsc::Sender<Completion>,
    metrics: &Metrics,
) {
    while let Ok((id, op)) = queue.recv() {
        let start = Instant::now();
        let result = disk.execute(&op);
        metrics.observe_disk(name(&op), start.elapsed());
        metrics.queued_disk_ops.dec();
        // At the end the core no longer listens; what is queued is still written.
        let _ = done.blocking_send((id, result));
    }
}

fn name(op: &Op) -> &'static str {
    match op {
        Op::Write { .. } => "write",
        Op::Create { .. } => "create",
        Op::Fill { .. } => "fill",
        Op::Read { .. } => "read",
        Op::Replace { .. } => "replace",
        Op::Rename { .. } => "rename",
        Op::Remove { .. } => "remove",
        Op::List => "list",
        Op::Volume => "volume",
    }
}
