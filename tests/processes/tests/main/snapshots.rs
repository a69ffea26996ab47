//! Snapshots: logs that begin behind one, and members that start from one.

use processes::api;
use processes::cluster::{Cluster, Options};
use processes::http;
use processes::wait::eventually;

/// A node that lost its disk comes back as a new member, under load: what the others' logs no longer hold it gets in a snapshot,
/// and so does its replicator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_member_starts_from_a_snapshot() {
    let mut options = Options::quick().of(3);
    let often = ["--snapshot-every-operations", "100"];
    options.node_flags.extend(often.map(str::to_owned));
    let mut cluster = Cluster::start(options).await;
    let load = cluster.load("snapshots", 4, 5);
    eventually("all logs to begin behind a snapshot", async || {
        for node in 1..=3 {
            let status = cluster.status(node).await.map_err(|error| error.to_string())?;
            if status.first_index <= 1 {
                let (first, last) = (status.first_index, status.commit_index);
                return Err(format!("node {node} holds {first} to {last}"));
            }
        }
        Ok(())
    })
    .await;

    let leader = cluster.leader().await;
    let (lost, other) = (cluster.others(&[leader])[0], cluster.others(&[leader])[1]);
    cluster.node(lost).kill().await;
    cluster.replicator(lost).kill().await;
    cluster.node(lost).delete_folder();
    cluster.replicator(lost).delete_folder();
    cluster.start_all();
    cluster.wait_until_unready(lost, &["does not list member"]).await;
    let replaced = cluster.raftctl(&["member", "replace", &lost.to_string()]).await;
    replaced.expect(0, &[]);
    cluster.wait_until_these_are_ready(&[lost]).await;
    let node = cluster.node(lost).process();
    node.says_after(0, "that it starts from a snapshot", |line| {
        line.contains("starts from a snapshot up to index")
    })
    .await;
    let metrics = http::get(cluster.http_port(lost), "/metrics")
        .await
        .expect("it runs")
        .body;
    let received = metrics
        .lines()
        .find_map(|line| line.strip_prefix("raftlog_node_snapshot_bytes_received_total "));
    assert!(received.is_some_and(|bytes| bytes != "0"), "{received:?}");
    load.progresses_by(100).await;
    // What it got is on its disk.
    cluster.node(lost).kill().await;
    cluster.node(lost).start();
    cluster.wait_until_these_are_ready(&[lost]).await;

    let history = load.stop().await;
    let logs = cluster.settled_logs(&[leader, other]).await;
    assert_eq!(processes::history::check(&history, &logs), Ok(()));
    let (whole, at) = (&logs[&other], cluster.replicator_address(lost));
    eventually(
        "the new member's replicator to hold the end of the same log",
        async || {
            let first = cluster.status(lost).await.map_err(|error| error.to_string())?;
            let held = api::read_from(&mut api::operation_log(at), first.first_index).await;
            let held = held.map_err(|error| error.to_string())?;
            if !held.is_empty() && whole.ends_with(&held) {
                Ok(())
            } else {
                Err(format!(
                    "it holds {} operations from {}",
                    held.len(),
                    first.first_index
                ))
            }
        },
    )
    .await;
    // The new voter counts.
    cluster.node(other).kill().await;
    cluster.leader_among(&[leader, lost]).await;
    cluster.submit(lost, "two of three").await.expect("a majority");
}
