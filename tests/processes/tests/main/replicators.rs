//! Replicators that die.

use processes::api;
use processes::cluster::{Cluster, Options};
use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use raftlog_proto::v1::Role;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replicator_catches_up_by_itself() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("replicator", 16, 7);
    load.progresses_by(300).await;
    let leader = cluster.leader().await;
    let one = cluster.others(&[leader])[0];

    cluster.replicator(one).kill().await;
    cluster.wait_until_unready(one, &["replicator"]).await;
    load.progresses_by(300).await;
    let status = cluster.status(one).await.expect("the node itself runs");
    assert_eq!(
        status.role(),
        Role::Follower,
        "a node without its replicator still votes and acknowledges"
    );
    cluster.wait_until_these_are_ready(&cluster.others(&[one])).await;

    cluster.replicator(one).start();
    cluster.wait_until_ready().await;
    load.progresses_by(300).await;
    let history = load.stop().await;
    cluster.check_history(&history).await;
}

/// The leader's too: execution is not consensus.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leaders_replicator_is_killed_and_loses_its_folder() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("amnesia", 16, 8);
    load.progresses_by(300).await;
    let before = cluster.leader_among(&cluster.numbers()).await;
    cluster.replicator(before.node).kill().await;
    cluster.wait_until_unready(before.node, &["replicator"]).await;
    load.progresses_by(300).await;
    let after = cluster.leader_among(&cluster.numbers()).await;
    assert_eq!(
        (after.node, after.term),
        (before.node, before.term),
        "nobody was elected for that"
    );
    cluster.replicator(before.node).delete_folder();
    cluster.replicator(before.node).start();
    cluster.wait_until_ready().await;
    let history = load.stop().await;

    // Its stdout begins again at 1, as its executed index was lost.
    let logs = cluster.settled_logs(&cluster.numbers()).await;
    assert_eq!(processes::history::check(&history, &logs), Ok(()));
    let log = api::read_log(cluster.replicator_port(before.node))
        .await
        .expect("it runs");
    let stories = cluster.replicator(before.node).stories();
    assert_eq!(
        processes::story::check_executes(before.node, &stories, &log),
        Ok(())
    );
}

/// Watchers get everything from where they ask, in order, across a restart of the replicator that they watch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_follows_live() {
    let cluster = Cluster::start(Options::quick()).await;
    for number in 1..=3 {
        cluster
            .submit(1, format!("operation {number}"))
            .await
            .expect("all is well");
    }
    let mut watcher = cluster.start_raftctl("watcher", &["-o", "raw", "watch", "--from", "2", "--follow"]);
    watcher.says("operation 2").await;
    watcher.says("operation 3").await;
    cluster.submit(2, "operation 4").await.expect("all is well");
    watcher.says("operation 4").await;
    assert_eq!(watcher.stdout(), ["operation 2", "operation 3", "operation 4"]);
}

/// Whoever reads a replicator's stdout may stop reading: its lines wait, and nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_stops_nothing() {
    const LINES: usize = 30_000;
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    cluster.replicator(1).kill().await;
    cluster.replicator(1).start_unread();
    cluster.wait_until_ready().await;
    let input: Vec<String> = (1..=LINES)
        .map(|line| format!("a line that nobody reads, number {line}"))
        .collect();
    cluster
        .raftctl_with(&["submit", "--stdin"], input.join("\n").as_bytes())
        .await
        .expect(0, &[]);
    // Consensus, the log and readiness go on without execution.
    let log = api::read_log(cluster.replicator_port(1))
        .await
        .expect("it serves what it holds");
    assert_eq!(log.len(), LINES);
    cluster.wait_until_ready().await;
    let status = cluster
        .status(1)
        .await
        .expect("it runs")
        .replicator
        .expect("it is connected");
    assert_eq!(status.commit_index, LINES as u64);
    assert!(
        status.executed_index < LINES as u64,
        "{} lines went nowhere",
        status.executed_index
    );
    // A query that has to see all of it is told how far execution is; one that may be stale gets that.
    let mut node = api::operations(cluster.address(1));
    let late = api::query(&mut node, "last", false).await;
    let late = late.expect_err("execution is held up");
    assert_eq!(reason_of(&late).as_deref(), Some(reason::NOT_EXECUTED), "{late}");
    assert!(late.message().contains(&LINES.to_string()), "{late}");
    let stale = api::query(&mut node, "last", true)
        .await
        .expect("it waits for nothing");
    assert!(
        (status.executed_index..LINES as u64).contains(&stale.index),
        "{}",
        stale.index
    );
    // A reader again: it goes on after what was executed durably, and nothing is missing.
    cluster.replicator(1).kill().await;
    cluster.replicator(1).start();
    cluster.wait_until_ready().await;
    let last = format!("Node 1 executes op=a line that nobody reads, number {LINES} at index={LINES}");
    cluster.replicator(1).process().says(&last).await;
}
