//! How fast is it, beside what people would pick instead? One program starts each system with as many members, brings the same
//! load to all of them, by turns, and writes a table, a JSON file and plots. Exit codes: 0 all is measured that could be, 1
//! something failed, 2 wrong usage.
//!
//! `cargo run --release -p benchmark`

mod arguments;
mod disturbance;
mod failure;
mod machine;
mod measure;
mod plan;
mod plot;
mod report;
mod run;
mod server;
mod statistics;
mod system;
mod table;
mod trial;
mod usage;
mod wait;

use std::{io::Write as _, net::SocketAddr, process::ExitCode};

use clap::Parser as _;
use raftlog_load::echo;
use raftlog_telemetry::signals::Signals;
use tokio::net::TcpListener;

use crate::{
    arguments::{Arguments, Trial},
    failure::Failure,
    plan::Plan,
    run::Run,
};

const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = match Plan::of(&arguments.asked) {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("benchmark: {why}");
            return ExitCode::from(USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&Failure::new(format!(
                "cannot start threads: {error}; see ulimit -u"
            )));
        }
    };
    let ended = runtime.block_on(async {
        match &arguments.trial {
            None => until_interrupted(measure(&arguments, plan)).await,
            Some(Trial::ServeEcho { address }) => serve_echo(*address).await,
            Some(Trial::Failover(asked)) => until_interrupted(trial::failover::run(asked)).await,
            Some(Trial::Watch(asked)) => until_interrupted(trial::watch::run(asked)).await,
            Some(Trial::Memory(asked)) => until_interrupted(trial::memory::run(asked)).await,
            Some(Trial::Budget(asked)) => until_interrupted(trial::budget::run(asked)).await,
            Some(Trial::Idle(asked)) => until_interrupted(trial::idle::run(asked)).await,
        }
    });
    // A thread that syncs a disk is not waited for.
    runtime.shutdown_background();
    ended.map_or_else(|failure| fail(&failure), |()| ExitCode::SUCCESS)
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("benchmark: {failure}");
    ExitCode::FAILURE
}

/// Whatever ends it, nothing that was started is left behind: processes are killed and folders removed where their owners are
/// dropped.
async fn until_interrupted(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let signals = Signals::listen();
    let mut signals = signals.map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))?;
    tokio::select! {
        done = work => done,
        signal = signals.next() => Err(Failure::new(format!("ended by {signal}"))),
    }
}

async fn measure(arguments: &Arguments, plan: Plan) -> Result<(), Failure> {
    let output = &arguments.settings.folders.output;
    let report = Run::new(arguments, plan)?.run().await?;
    let plots = plot::write_all(&report, output)?;
    let text = table::render(&report);
    report::write(&output.join(format!("{}.md", report.name)), &text)?;
    // Whoever has read enough of it is not told the rest.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let files = ["json", "md"].map(|kind| format!("{}.{kind}", report.name));
    let files: Vec<String> = files.into_iter().chain(plots).collect();
    eprintln!("written to {}: {}", output.display(), files.join(", "));
    match report.failures.as_slice() {
        [] => Ok(()),
        [first, rest @ ..] => Err(Failure::new(format!("{first}; {} more failed", rest.len()))),
    }
}

async fn serve_echo(address: SocketAddr) -> Result<(), Failure> {
    let served = async {
        let listener = TcpListener::bind(address).await?;
        echo::serve(listener, std::future::pending()).await
    };
    let served: std::io::Result<()> = served.await;
    served.map_err(|error| Failure::new(format!("cannot serve an echo at {address}: {error}")))
}
