//! A disk that completes nothing for a while.

use processes::cluster::{Cluster, Options};
use processes::http;
use processes::volume::Volume;
use processes::wait::{eventually, holds_for};
use raftlog_proto::v1::Role;
use std::collections::BTreeMap;
use std::time::Duration;

/// Of ext4, which has room for a node's and a replicator's log.
const VOLUME_MEBIBYTES: u32 = 256;

/// A cluster with one node whose disk can be frozen.
async fn cluster_with(volume: &Volume) -> Cluster {
    let volumes = BTreeMap::from([(1, volume.path().to_owned())]);
    Cluster::start(Options {
        volumes,
        ..Options::quick()
    })
    .await
}

/// Waits until the metric says so.
async fn wait_until_stalled(cluster: &Cluster, node: u32, stalled: bool) {
    let line = format!("raftlog_node_disk_stalled {}", u8::from(stalled));
    eventually(&format!("node {node} to tell {line}"), async || {
        let metrics = http::get(cluster.http_port(node), "/metrics").await?;
        let told = metrics.body.lines().any(|told| told == line);
        told.then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_stalls_makes_way_and_comes_back() {
    let test = "disk_stalled::a_leader_whose_disk_stalls_makes_way_and_comes_back";
    let Some(volume) = Volume::mount_disk(test, VOLUME_MEBIBYTES) else {
        return;
    };
    let mut cluster = cluster_with(&volume).await;
    if cluster.leader().await != 1 {
        cluster.raftctl(&["leader", "transfer", "1"]).await.expect(0, &[]);
    }
    let frozen = volume.freeze();
    cluster
        .submit(1, "operation-1")
        .await
        .expect("the others' disks make a majority");
    let others = cluster.others(&[1]);
    let leader = cluster.leader_among(&others).await;
    assert_eq!(leader.elected_by, "transfer", "{leader:?}");
    wait_until_stalled(&cluster, 1, true).await;
    let told = cluster.readiness(1).await.expect("it runs");
    assert!(told.body.contains("its disk completes nothing"), "{told:?}");
    cluster.raftctl(&["health"]).await.expect(1, &["disk"]);
    for number in 2..=20 {
        let operation = format!("operation-{number}");
        cluster.submit(1, operation).await.expect("a follower forwards");
    }
    drop(frozen);
    wait_until_stalled(&cluster, 1, false).await;
    cluster.wait_until_ready().await;
    for (node, log) in cluster.settled_logs(&cluster.numbers()).await {
        assert_eq!(log.len(), 20, "replicator {node}");
    }
    let said = cluster.node(1).stories().concat();
    for line in [
        "hands leadership over to Node",
        "waits for its disk",
        "its disk completed a write",
    ] {
        assert!(said.iter().any(|said| said.contains(line)), "{line}: {said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_stalls_wins_no_election() {
    let test = "disk_stalled::a_node_whose_disk_stalls_wins_no_election";
    let Some(volume) = Volume::mount_disk(test, VOLUME_MEBIBYTES) else {
        return;
    };
    let mut cluster = cluster_with(&volume).await;
    if cluster.leader().await == 1 {
        cluster.raftctl(&["leader", "transfer", "2"]).await.expect(0, &[]);
    }
    let frozen = volume.freeze();
    cluster
        .submit(2, "operation-1")
        .await
        .expect("four of five go on");
    wait_until_stalled(&cluster, 1, true).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        cluster.node(leader).kill().await;
        let others = cluster.others(&[leader]);
        let next = cluster.leader_among(&others).await.node;
        assert_ne!(next, 1, "its disk does not work");
        cluster.start_all();
        cluster.wait_until_ready().await;
    }
    // It says so if it is asked to.
    let asked = cluster
        .raftctl(&["leader", "transfer", "1", "--timeout", "3s"])
        .await;
    assert_ne!(asked.code, 0, "{asked:?}");
    holds_for(Duration::from_secs(1), "node 1 not to lead", async || {
        let status = cluster.status(1).await.map_err(|error| error.to_string())?;
        (status.role() != Role::Leader)
            .then_some(())
            .ok_or_else(|| "it leads".to_owned())
    })
    .await;
    drop(frozen);
    wait_until_stalled(&cluster, 1, false).await;
    eventually("node 1 to take over when asked", async || {
        let asked = cluster.raftctl(&["leader", "transfer", "1"]).await;
        (asked.code == 0)
            .then_some(())
            .ok_or_else(|| format!("{asked:?}"))
    })
    .await;
    assert_eq!(cluster.leader().await, 1);
}
