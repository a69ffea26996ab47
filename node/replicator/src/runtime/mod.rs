//! What runs the core: one task that owns it, a thread for the disk, the executor, gRPC and HTTP.

mod config;
mod disk_thread;
mod driver;
mod escape;
mod executor;
mod executor_config;
mod executor_flags;
mod executor_status;
mod flags;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handle;
mod listen;
mod metrics;
mod operation_log;
mod probe;
mod query;
mod replicate_log;
mod resume;
mod run;
mod serve;
mod snapshot_pieces;
mod story;
mod watchers;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use raftlog_telemetry::{exit, hostname, logging, workers};

use config::Config;
use executor::guard;
use flags::Flags;

const PROGRAM: &str = "raft-replicator";
/// Threads for everything but the disk and stdout: half the processors, as for the node beside it, and no more than this.
const WORKERS_MAX: usize = 2;
/// How long the end waits for connections.
const SHUTDOWN_MAX: Duration = Duration::from_millis(500);

pub(super) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|word| word == guard::WORD) {
        return guard::main(args.into_iter().skip(2));
    }
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => return exit::refused_flags(PROGRAM, &error),
    };
    let config = match Config::from_flags(flags, &hostname::hostname()) {
        Ok(config) => config,
        Err(wrong) => return exit::usage(PROGRAM, &wrong),
    };
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => exit::failed(PROGRAM, &why),
    }
}

fn start(config: Config) -> Result<(), String> {
    let logging = logging::init(config.log_format).map_err(|error| error.to_string())?;
    let runtime = workers::runtime("replicator", WORKERS_MAX)
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let result = runtime.block_on(run::run(config, &logging));
    runtime.shutdown_timeout(SHUTDOWN_MAX);
    result
}
