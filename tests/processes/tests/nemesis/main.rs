//! Everything goes wrong at once, and clients must not notice more than delay and refusals: real programs in network
//! namespaces of their own, real packets that are lost, and everything that anybody was told checked for linearizability.
//!
//! A test binary of its own, since its threads live in another network namespace.

mod fault;
mod replacement;
mod run;

use processes::network::Network;
use processes::{binaries, seed};
use run::{Executor, Run};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const NODES: u32 = 5;

/// How soon all is well again is part of what is tested, so one at a time.
static TURNS: Mutex<()> = Mutex::new(());

/// How many seconds things go wrong for.
const SECONDS: &str = "RAFT_TEST_NEMESIS_SECONDS";
const SECONDS_DEFAULT: u64 = 45;

#[test]
fn clients_cannot_tell_what_happens_to_the_cluster() {
    run("clients_cannot_tell_what_happens_to_the_cluster", Executor::Log);
}

/// A store beside each replicator, whose clients wait for results and ask any node.
#[test]
fn a_key_value_store_is_one_register_a_key() {
    run("a_key_value_store_is_one_register_a_key", Executor::KeyValue);
}

fn run(test: &str, executor: Executor) {
    let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let (seed, random) = seed::announce_in("nemesis", test);
    // Before there is no network any more.
    binaries::path("raft-node");
    let length = length();
    let Some(network) = Network::make(test, NODES, disk_mebibytes(length)) else {
        return;
    };
    let all: BTreeSet<u32> = (1..=NODES).collect();
    // Its threads are where this one is now.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be started");
    runtime.block_on(async {
        let run = Run::start(network, all, executor, seed, pause_max(length)).await;
        run.finish(random, length).await;
    });
}

fn length() -> Duration {
    let seconds = match std::env::var(SECONDS) {
        Ok(given) => given
            .parse()
            .unwrap_or_else(|_| panic!("{SECONDS} is not a number: {given}")),
        Err(_) => SECONDS_DEFAULT,
    };
    Duration::from_secs(seconds)
}

/// Room for what is submitted, and little more: a log that fills only a small part of its segment ahead needs more of the
/// disk soon after that is full.
fn disk_mebibytes(length: Duration) -> u32 {
    let seconds = u32::try_from(length.as_secs()).expect("a run takes less than an age");
    40 + seconds / 8
}

/// How long a client waits between two operations, at most: in a long run longer, as logs only grow.
fn pause_max(length: Duration) -> Duration {
    Duration::from_millis(40).max(length / 5_000)
}
