//! A disk without room.

use processes::cluster::{Cluster, Options};
use processes::volume::Volume;
use processes::wait::eventually;
use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use std::collections::BTreeMap;
use tonic::Code;

const VOLUME_MEBIBYTES: u32 = 64;
const OPERATION_BYTES: usize = 256 << 10;

/// Operations that nobody else submits.
fn operation(number: usize) -> Vec<u8> {
    let mut operation = format!("{number} ").into_bytes();
    operation.resize(OPERATION_BYTES, b'.');
    operation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_room_refuses_and_recovers() {
    let test = "disk_full::a_leader_without_room_refuses_and_recovers";
    let Some(volume) = Volume::mount(test, VOLUME_MEBIBYTES) else {
        return;
    };
    let volumes = BTreeMap::from([(1, volume.path().to_owned())]);
    let mut cluster = Cluster::start(Options {
        volumes,
        ..Options::quick()
    })
    .await;
    if cluster.leader().await != 1 {
        cluster.raftctl(&["leader", "transfer", "1"]).await.expect(0, &[]);
    }
    volume.fill(0);
    let mut accepted = Vec::new();
    let refused = eventually("the full disk to be told", async || {
        assert_eq!(
            cluster.leader().await,
            1,
            "a full disk is no reason to lose the lead"
        );
        let next = operation(accepted.len());
        match cluster.submit(1, next.clone()).await {
            Ok(answer) => {
                assert_eq!(answer.index, accepted.len() as u64 + 1);
                accepted.push(next);
                Err(format!("{} accepted", accepted.len()))
            }
            Err(status) => Ok(status),
        }
    })
    .await;
    let told = (refused.code(), reason_of(&refused));
    assert_eq!(
        told,
        (Code::ResourceExhausted, Some(reason::DISK_FULL.into())),
        "{refused:?}"
    );
    let through_a_follower = cluster
        .submit(2, "through a follower")
        .await
        .expect_err("the leader has no room");
    assert_eq!(
        reason_of(&through_a_follower).as_deref(),
        Some(reason::DISK_FULL),
        "{through_a_follower:?}"
    );
    cluster.raftctl(&["submit", "by hand"]).await.expect(3, &["full"]);
    assert!(cluster.status(1).await.expect("it runs").disk_full);

    volume.make_room();
    let last = operation(accepted.len());
    eventually("submissions to work again by themselves", async || {
        cluster
            .submit(1, last.clone())
            .await
            .map_err(|status| status.to_string())
    })
    .await;
    accepted.push(last);
    cluster.wait_until_ready().await;
    for (node, log) in cluster.settled_logs(&cluster.numbers()).await {
        let held: Vec<&[u8]> = log.iter().map(|logged| logged.data.as_ref()).collect();
        assert!(
            held == accepted,
            "replicator {node} holds {} operations of {}",
            held.len(),
            accepted.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_holds_nobody_up() {
    let test = "disk_full::a_follower_without_room_holds_nobody_up";
    let Some(volume) = Volume::mount(test, VOLUME_MEBIBYTES) else {
        return;
    };
    let volumes = BTreeMap::from([(1, volume.path().to_owned())]);
    let mut cluster = Cluster::start(Options {
        volumes,
        ..Options::quick()
    })
    .await;
    if cluster.leader().await == 1 {
        cluster.raftctl(&["leader", "transfer", "2"]).await.expect(0, &[]);
    }
    volume.fill(0);
    // More than the segment that the follower has room for.
    let count = 80;
    for number in 0..count {
        cluster
            .submit(2, operation(number))
            .await
            .expect("four of five have room");
    }
    volume.make_room();
    cluster.wait_until_ready().await;
    for (node, log) in cluster.settled_logs(&cluster.numbers()).await {
        assert_eq!(log.len(), count, "replicator {node}");
    }
}
