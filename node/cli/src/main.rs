//! `raftctl`: the command line of the Raft Log Replicator.
//!
//! Called as `raft-node` or `raft-replicator` it is that program: so `raftctl demo` starts a whole cluster of real
//! processes from one binary.

use std::process::ExitCode;

mod args;
mod bench;
mod cluster_status;
mod completions;
mod demo;
mod executor_status;
mod failure;
mod health;
mod leader;
mod member;
mod output;
mod program;
mod query;
mod run;
mod snapshot;
mod status;
mod submit;
mod test_client;
mod text;
mod verify;
mod watch;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called_as = arguments.next().unwrap_or_default();
    program::Program::called_as(&called_as).main(called_as, arguments)
}
