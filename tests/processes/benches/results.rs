//! What does it cost to wait for a result? One client submits operations of 256 bytes to two clusters of three nodes, by turns: until an
//! operation is committed; until a replicator has executed it itself (executor `log`), which is the way from the leader to its
//! replicator and back; and until a state machine that does nothing has executed it, which adds the hop to the container beside them.
//!
//! `cargo bench -p processes --bench results`

use std::io::Read;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use hdrhistogram::Histogram;
use processes::cluster::{Cluster, Options};
use raftlog_client::{Client, Endpoint, Options as ClientOptions, Session, WaitFor};
use state_machine::{Batch, Failed, Listen, Position, QueryError, Snapshot, StateMachine, serve_until};

const NODES: u32 = 3;
const BYTES: usize = 256;
/// At p50.
const HOP_MICROS_MAX: u64 = 300;

/// Waits for results, and for commits.
#[derive(Debug, Parser)]
struct Arguments {
    /// Operations of each kind
    #[arg(long, default_value_t = 5_000)]
    operations: u64,
    /// Of each kind, before anything counts
    #[arg(long, default_value_t = 500)]
    warm_up: u64,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

/// Knows where it is, and nothing else.
#[derive(Default)]
struct Nothing(Position);

impl StateMachine for Nothing {
    fn position(&mut self) -> Result<Position, Failed> {
        Ok(self.0)
    }

    fn apply(&mut self, batch: &Batch) -> Result<Vec<Vec<u8>>, Failed> {
        self.0 = batch.position();
        Ok(batch.iter().map(|_| b"done".to_vec()).collect())
    }

    fn query(&mut self, _: &[u8]) -> Result<Vec<u8>, QueryError> {
        Ok(Vec::new())
    }

    fn snapshot(&mut self) -> Result<Snapshot, Failed> {
        Ok(Box::new(|_| Ok(())))
    }

    fn restore(&mut self, position: Position, _: &mut dyn Read) -> Result<(), Failed> {
        self.0 = position;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let sockets = tempfile::tempdir().expect("a folder");
    for node in 1..=NODES {
        let listen = Listen::Unix(sockets.path().join(node.to_string()));
        tokio::spawn(async move { serve_until(&listen, Nothing::default(), std::future::pending()).await });
    }
    let url = format!("unix://{}/{{node}}", sockets.path().display());
    let (_log, by_itself) = start(&["--executor", "log"]).await;
    let (_machine, by_machine) = start(&["--executor", "state-machine", "--state-machine", &url]).await;
    let ways = [
        Way {
            until: "it is committed",
            session: &by_machine,
            wait_for: WaitFor::Committed,
            has_result: false,
        },
        Way {
            until: "its replicator executed it",
            session: &by_itself,
            wait_for: WaitFor::Executed,
            has_result: false,
        },
        Way {
            until: "a state machine executed it",
            session: &by_machine,
            wait_for: WaitFor::Executed,
            has_result: true,
        },
    ];
    measure(&ways, arguments.warm_up).await;
    let taken = measure(&ways, arguments.operations).await;
    println!(
        "{:28} {:>10} {:>10} {:>10}",
        "microseconds until", "p50", "p90", "p99"
    );
    for (Way { until, .. }, taken) in ways.iter().zip(&taken) {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|quantile| taken.value_at_quantile(quantile));
        println!("{until:28} {p50:>10} {p90:>10} {p99:>10}");
    }
    let [committed, executed, by_machine] = taken.map(|taken| taken.value_at_quantile(0.5));
    println!(
        "At p50 a result costs {} us more than a commit, the hop to the state machine {} us of it.",
        by_machine.saturating_sub(committed),
        by_machine.saturating_sub(executed)
    );
    if by_machine.saturating_sub(executed) >= HOP_MICROS_MAX {
        eprintln!("The hop does not take less than {HOP_MICROS_MAX} us.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What is waited for.
struct Way<'a> {
    until: &'static str,
    session: &'a Session,
    wait_for: WaitFor,
    has_result: bool,
}

async fn start(executor: &[&str]) -> (Cluster, Session) {
    let mut options = Options::with_default_timings().of(NODES);
    options
        .replicator_flags
        .extend(executor.iter().map(ToString::to_string));
    let cluster = Cluster::start(options).await;
    let endpoints = cluster.addresses();
    let endpoints = endpoints
        .iter()
        .map(|at| Endpoint::parse(&at.to_string()).expect("an endpoint"));
    let client = Client::new(endpoints.collect(), ClientOptions::default()).expect("a client");
    (cluster, client.session("results", 1).expect("a session"))
}

/// By turns, so that whatever else the machine does hits all alike.
async fn measure<const N: usize>(ways: &[Way<'_>; N], operations: u64) -> [Histogram<u64>; N] {
    let mut taken = std::array::from_fn(|_| histogram());
    for _ in 0..operations {
        for (way, histogram) in ways.iter().zip(&mut taken) {
            let began = Instant::now();
            let done = way.session.submit_and_wait(vec![7; BYTES], way.wait_for).await;
            let done = done.expect("it is committed");
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            histogram.saturating_record(micros);
            assert_eq!(
                done.result.is_some(),
                way.has_result,
                "only a state machine answers"
            );
        }
    }
    taken
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are right")
}
