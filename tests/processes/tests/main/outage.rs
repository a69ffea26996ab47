//! Everything dies at once.

use processes::cluster::{Cluster, Options};
use processes::seed;
use rand::RngExt;

/// kill -9 of all ten processes under load, over and over. What was acknowledged is on disk, or it was a lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_ten_processes_are_killed_under_load() {
    let (seed, mut random) = seed::announce("outage::all_ten_processes_are_killed_under_load");
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("outage", 64, seed);
    for _ in 0..4 {
        load.progresses_by(random.random_range(1..1_500)).await;
        cluster.kill_all().await;
        cluster.start_all();
        cluster.wait_until_ready().await;
    }
    load.progresses_by(100).await;
    let history = load.stop().await;
    cluster.check_history(&history).await;
}

/// A clean stop of everything leaves nothing to repeat: each operation is executed on stdout exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_restart_repeats_nothing() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("clean", 16, 4);
    load.progresses_by(500).await;
    let mut history = load.stop().await;
    cluster.settled_logs(&cluster.numbers()).await;
    for node in cluster.numbers() {
        assert!(cluster.node(node).terminate().await.success());
        assert!(cluster.replicator(node).terminate().await.success());
    }
    cluster.start_all();
    cluster.wait_until_ready().await;
    let load = cluster.load("again", 16, 5);
    load.progresses_by(500).await;
    history.extend(load.stop().await.into_iter().map(|mut answer| {
        // The second load has a clock of its own; real-time order is checked within each.
        answer.submitted_micros += 1 << 40;
        answer.acknowledged_micros += 1 << 40;
        answer
    }));
    let log = cluster.check_history(&history).await;
    for node in cluster.numbers() {
        let stories = cluster.replicator(node).stories();
        let executes = stories
            .iter()
            .flatten()
            .filter(|line| line.contains(" executes op="))
            .count();
        assert_eq!(executes, log.len(), "replicator {node}");
    }
}
