//! `raft-operator`: makes clusters of nodes and replicators out of `RaftCluster` objects, and looks after them.
//!
//! [`crd`] is what users write, [`resources`] are the manifests that follow from it, and the [`controller`] makes it so: it
//! observes, [plans](controller::plan) the next step by pure functions, and acts.
//!
//! ```
//! use raft_operator::{crd::{RaftCluster, RaftClusterSpec}, resources};
//!
//! let spec: RaftClusterSpec = serde_saphyr::from_str("replicas: 3").unwrap();
//! let services = resources::services::all(&RaftCluster::new("demo", spec), false);
//! assert_eq!(services.map(|service| service.name), ["demo-peers", "demo", "demo-leader"]);
//! ```

pub mod controller;
pub mod crd;
mod flags;
mod lease;
mod own_namespace;
pub mod resources;
mod run;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use raftlog_telemetry::{exit, logging};

use crate::flags::{Command, Flags};

/// What messages on stderr start with.
const PROGRAM: &str = "raft-operator";
/// It waits most of the time.
const WORKERS: usize = 2;

/// The whole program. Exit codes: 0 stopped, 1 failed, 2 wrong usage.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(arguments) {
        Ok(flags) => flags,
        Err(error) => return exit::refused_flags(PROGRAM, &error),
    };
    let done = match flags.command {
        Some(Command::Crd) => print_manifest(),
        None => run(flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => exit::failed(PROGRAM, &why),
    }
}

fn run(flags: Flags) -> Result<(), String> {
    let logging = logging::init(flags.log_format).map_err(|error| error.to_string())?;
    own_namespace::learn(flags.pod_namespace.as_deref());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("operator")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start threads: {error}"))?;
    let result = runtime.block_on(run::run(flags, &logging));
    runtime.shutdown_background();
    result
}

fn print_manifest() -> Result<(), String> {
    let manifest = crd::manifest::manifest()?;
    std::io::stdout()
        .write_all(manifest.as_bytes())
        .map_err(|error| format!("cannot write the manifest: {error}"))
}
