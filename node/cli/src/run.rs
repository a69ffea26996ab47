//! From the command line to the command.

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

use crate::{
    args::{Arguments, Command, LeaderCommand, one_line},
    bench, completions, demo,
    failure::Failure,
    health, leader, member, query, snapshot, status, submit, test_client, verify, watch,
};

/// Runs raftctl to its end.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => return Failure::usage(one_line(&error)).report(),
        Err(help) => {
            // Help and version; a reader that has gone away has seen enough of them.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::failed(format!("cannot start threads: {error}; see ulimit -u")).report();
        }
    };
    // On this very thread: it starts a demo's children, which end when the thread does.
    let ended = runtime.block_on(run(arguments));
    // A thread that waits for a line of standard input is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { common, command } = arguments;
    match command {
        Command::Demo(demo) => demo::run(&demo).await,
        Command::Client(client) => test_client::run(&common, &client).await,
        Command::Submit(submit) => submit::run(&common, &submit).await,
        Command::Query(query) => query::run(&common, &query).await,
        Command::Status(status) => status::run(&common, &status).await,
        Command::Health(health) => health::run(&common, &health).await,
        Command::Watch(watch) => watch::run(&common, &watch).await,
        Command::Verify(verify) => verify::run(&common, &verify).await,
        Command::Leader(LeaderCommand::Transfer { node, timeout }) => {
            leader::transfer(&common, node, timeout).await
        }
        Command::Member(command) => member::run(&common, command).await,
        Command::Snapshot(command) => snapshot::run(&common, command).await,
        Command::Bench(bench) => bench::run(&common, &bench).await,
        Command::Completions { shell } => completions::print(shell),
    }
}
