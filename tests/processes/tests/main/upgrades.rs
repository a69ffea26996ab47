//! Two versions in one cluster: `raft-node`, and `raft-node-later`, which supports one feature level more.

use processes::cluster::{Cluster, Options};
use processes::wait::eventually;

const EARLIER: &str = "raft-node";
const LATER: &str = "raft-node-later";

/// A cluster is upgraded node by node under load, one of them there and back. The level is raised with the last one, nothing
/// that was acknowledged is lost, and from then on the earlier version is refused wherever it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_upgraded_node_by_node_under_load() {
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    let load = cluster.load("upgrades", 8, 5);
    load.progresses_by(100).await;
    let last = cluster.leader().await;
    let first = cluster.others(&[last])[0];
    install(&mut cluster, first, LATER).await;
    install(&mut cluster, first, EARLIER).await;
    for node in cluster.others(&[last]) {
        install(&mut cluster, node, LATER).await;
        load.progresses_by(100).await;
        assert_eq!(
            levels(&cluster).await,
            [1, 1, 1],
            "node {last} does not support more"
        );
    }
    install(&mut cluster, last, LATER).await;
    wait_for_level(&cluster, 2).await;
    load.progresses_by(100).await;
    let line = "raises the cluster's feature level from 1 to 2, as every member supports it";
    let mut told = 0;
    for node in cluster.numbers() {
        let stories = cluster.node(node).stories().concat();
        told += stories.iter().filter(|told| told.ends_with(line)).count();
    }
    assert_eq!(told, 1, "raised once");
    let status = cluster.raftctl(&["status"]).await.expect(0, &[]).text();
    assert!(
        status.contains("SUPPORTS") && status.contains(" 1-2 "),
        "{status}"
    );
    let listed = cluster.raftctl(&["member", "list"]).await.expect(0, &[]).text();
    assert_eq!(
        listed.lines().filter(|line| line.ends_with("1-2")).count(),
        3,
        "{listed}"
    );

    refuses_to_go_back(&mut cluster, first).await;
    refuses_to_be_added(&mut cluster).await;
    let history = load.stop().await;
    cluster.kill_all().await;
    cluster.start_all();
    cluster.wait_until_these_are_ready(&[1, 2, 3]).await;
    wait_for_level(&cluster, 2).await;
    let logs = cluster.settled_logs(&[1, 2, 3]).await;
    assert_eq!(processes::history::check(&history, &logs), Ok(()));
}

/// The earlier version ends at once, says why, and leaves the folder as it is.
async fn refuses_to_go_back(cluster: &mut Cluster, node: u32) {
    cluster.node(node).terminate().await;
    cluster.node(node).install(EARLIER);
    cluster.node(node).start();
    let ended = cluster.node(node).process().wait().await;
    assert_eq!(ended.code(), Some(1));
    let said = cluster.node(node).process().stderr().join("\n");
    let folder = cluster.node(node).folder().display().to_string();
    assert_eq!(
        said,
        format!(
            "raft-node: cannot use data folder {folder}: the cluster is at feature level 2, which never goes back, and this \
             version supports level 1: run one that supports level 2"
        )
    );
    cluster.node(node).install(LATER);
    cluster.node(node).start();
    cluster.wait_until_these_are_ready(&[node]).await;
}

async fn refuses_to_be_added(cluster: &mut Cluster) {
    let fourth = cluster.start_another();
    cluster
        .wait_until_unready(fourth, &["waits to be bootstrapped or added"])
        .await;
    let address = format!("127.0.0.1:{}", cluster.port(fourth));
    let refused = cluster.raftctl(&["member", "add", &address]).await;
    refused.expect(
        3,
        &["node 4 at", "supports feature level 1, and the cluster is at 2"],
    );
    cluster.node(fourth).kill().await;
    cluster.replicator(fourth).kill().await;
    cluster.node(fourth).install(LATER);
    cluster.start_all();
    cluster
        .wait_until_unready(fourth, &["waits to be bootstrapped or added"])
        .await;
    cluster.raftctl(&["member", "add", &address]).await.expect(0, &[]);
    cluster.wait_until_these_are_ready(&[fourth]).await;
    cluster.raftctl(&["member", "remove", "4"]).await.expect(0, &[]);
}

/// Stops a node as an operator does, and starts it as another version.
async fn install(cluster: &mut Cluster, node: u32, version: &'static str) {
    cluster.node(node).terminate().await;
    cluster.node(node).install(version);
    cluster.node(node).start();
    cluster.wait_until_these_are_ready(&[node]).await;
}

/// As each of the first three nodes knows it.
async fn levels(cluster: &Cluster) -> Vec<u32> {
    let mut levels = Vec::new();
    for node in 1..=3 {
        levels.push(
            cluster
                .status(node)
                .await
                .map_or(0, |status| status.feature_level),
        );
    }
    levels
}

async fn wait_for_level(cluster: &Cluster, level: u32) {
    eventually("the level to be raised everywhere", async || {
        let levels = levels(cluster).await;
        if levels == [level; 3] {
            Ok(())
        } else {
            Err(format!("{levels:?}"))
        }
    })
    .await;
}
