//! A replicated key-value store, to be copied: a state machine behind the Raft Log Replicator, with its values in a `redb` file.
//!
//! Listens where `STATE_MACHINE_LISTEN` says, and keeps its data in the folder `STATE_MACHINE_DATA_DIR`. What can be submitted and asked
//! is in [`command`].

mod command;
mod encoding;
mod store;

use std::env;
use std::process::ExitCode;

use state_machine::{Listen, serve};
use store::Store;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("key-value: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let variable = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let listen: Listen = variable("STATE_MACHINE_LISTEN", "127.0.0.1:7001").parse()?;
    let folder = variable("STATE_MACHINE_DATA_DIR", "./data/key-value");
    let store = Store::open(folder.as_ref()).map_err(|why| format!("cannot open {folder}: {why}"))?;
    serve(&listen, store).map_err(|why| why.to_string())
}
