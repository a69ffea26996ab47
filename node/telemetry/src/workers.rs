//! The threads on which a program's tasks run.

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// A runtime of half of the machine's cores, as node and replicator share them, and of at most `workers_max`.
///
/// A single worker runs tasks in the order in which they were woken: all requests that have come are taken before the task that collects
/// them runs, and all answers before their connection writes. A runtime of many workers runs whoever was woken last at once, so that a
/// batch is one request; there it is made up for by more cores.
///
/// # Errors
/// Where the system gives no threads.
pub fn runtime(name: &str, workers_max: usize) -> io::Result<Runtime> {
    let workers = available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, workers_max));
    let mut builder = if workers == 1 {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder
        .worker_threads(workers)
        .thread_name(name)
        .enable_all()
        .build()
}
