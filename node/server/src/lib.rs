//! `raft-node`: one Raft server.
//!
//! The pure [`node`] decides; everything else here runs it: one task owns it (`core`), one thread owns the disk, and the
//! gRPC services, the links to peers and the link to the replicator talk to it through one bounded queue.

mod backoff;
mod cluster_service;
mod config;
pub mod confirm;
mod connect;
mod core;
mod deadline;
mod disk_thread;
mod download;
mod flags;
mod formation;
mod forward;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handle;
mod header;
mod lifecycle;
mod limits;
mod lines;
mod metrics;
pub mod node;
mod operation;
mod operations_service;
mod peers;
mod probe;
mod query;
mod raft_service;
mod readiness;
mod recover;
mod refusal;
mod replicator_link;
mod responses;
mod results;
mod runs;
mod runtime;
mod serve;
mod snapshot_stream;
mod status_watch;
mod submit_stream;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use raftlog_raft::feature::Supports;
use raftlog_telemetry::{exit, hostname, logging, workers};

use crate::config::Config;
use crate::flags::{Command, Flags};
use crate::recover::Unrecovered;

/// What messages on stderr start with.
const PROGRAM: &str = "raft-node";
/// Threads for the network and the core at most; the disk has its own. They are half of the cores: what a node does is
/// mostly handing small messages on, which a thread does faster than two that wake each other, and the replicator and
/// the kernel need their share.
const WORKERS_MAX: usize = 4;

/// The whole program: reads the flags, runs until a signal. Exit codes: 0 stopped, 1 failed, 2 wrong usage.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    main_of_version(Supports::default(), arguments)
}

/// The same of a version that supports those feature levels, for tests of two versions in one cluster.
pub fn main_of_version(supports: Supports, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(arguments) {
        Ok(flags) => flags,
        Err(error) => return exit::refused_flags(PROGRAM, &error),
    };
    if let Some(Command::Recover(flags)) = &flags.command {
        return match recover::recover(flags) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Unrecovered::Usage(why)) => exit::usage(PROGRAM, &why),
            Err(Unrecovered::Failed(why)) => exit::failed(PROGRAM, &why),
        };
    }
    let config = match Config::from_flags(flags, &hostname::hostname()) {
        Ok(config) => config,
        Err(why) => return exit::usage(PROGRAM, &why),
    };
    match run(Config { supports, ..config }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => exit::failed(PROGRAM, &why),
    }
}

fn run(config: Config) -> Result<(), String> {
    let logging = logging::init(config.log_format).map_err(|error| error.to_string())?;
    let runtime =
        workers::runtime("node", WORKERS_MAX).map_err(|error| format!("cannot start threads: {error}"))?;
    let result = runtime.block_on(runtime::run(config, &logging));
    runtime.shutdown_background();
    drop(logging);
    result
}
