//! raft-replicator: holds the committed operations of its node and executes them in order.
//!
//! [`core`] decides: a pure state machine over the log of [`raftlog_storage`]. `runtime` carries out: gRPC towards the
//! node and towards clients, one I/O thread, the executor, health and metrics.

pub mod core;
mod runtime;

#[cfg(feature = "fuzzing")]
pub use runtime::fuzzing;

use std::ffi::OsString;
use std::process::ExitCode;

/// The program: parses `args` (the first is the program's name), runs until a signal, and answers the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    runtime::main(args)
}
