//! A disk without room.

use processes::api;
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
async fn a_majority_without_room_refuses_and_recovers() {
    let test = "disk_full::a_majority_without_room_refuses_and_recovers";
    let mut volumes = BTreeMap::new();
    for node in 1..=3 {
        let Some(volume) = Volume::mount(test, VOLUME_MEBIBYTES) else {
            return;
        };
        volumes.insert(node, volume);
    }
    let mut cluster = Cluster::start(Options {
        volumes: volumes
            .iter()
            .map(|(&node, volume)| (node, volume.path().to_owned()))
            .collect(),
        ..Options::quick()
    })
    .await;
    // One that has room: it hears from the others that they have none.
    if cluster.leader().await != 4 {
        cluster.raftctl(&["leader", "transfer", "4"]).await.expect(0, &[]);
    }
    for volume in volumes.values() {
        volume.fill(0);
    }
    let mut accepted = Vec::new();
    let refused = eventually("the full disks to be told", async || {
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
        .expect_err("no majority has room");
    assert_eq!(
        reason_of(&through_a_follower).as_deref(),
        Some(reason::DISK_FULL),
        "{through_a_follower:?}"
    );
    cluster.raftctl(&["submit", "by hand"]).await.expect(3, &["full"]);
    let told = cluster.readiness(4).await.expect("it runs");
    assert!(told.body.contains("submissions are refused"), "{told:?}");

    // A majority is enough.
    volumes[&2].make_room();
    let last = operation(accepted.len());
    eventually("submissions to work again by themselves", async || {
        cluster
            .submit(2, last.clone())
            .await
            .map_err(|status| status.to_string())
    })
    .await;
    accepted.push(last);
    for node in [1, 3] {
        volumes[&node].make_room();
    }
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
async fn a_leader_without_room_hands_over_to_a_node_that_has_some() {
    let test = "disk_full::a_leader_without_room_hands_over_to_a_node_that_has_some";
    let Some(volume) = Volume::mount(test, VOLUME_MEBIBYTES) else {
        return;
    };
    let volumes = BTreeMap::from([(1, volume.path().to_owned())]);
    let mut options = Options::quick();
    options.volumes = volumes;
    // A log that may grow beyond all that is written here: who was behind gets it, and no snapshot in its place.
    let rarely = ["--snapshot-every-bytes", "16MiB"];
    options.node_flags.extend(rarely.map(str::to_owned));
    let mut cluster = Cluster::start(options).await;
    if cluster.leader().await != 1 {
        cluster.raftctl(&["leader", "transfer", "1"]).await.expect(0, &[]);
    }
    volume.fill(0);
    let port = cluster.port(1);
    let mut load = 0;
    // More than the disk has room for, each until it is told where it is: leadership moves meanwhile.
    while load < 80 {
        let index = eventually("an operation to be appended", async || {
            let answer = api::submit_in_session(port, "load", load + 1, operation(0)).await;
            answer
                .map(|answer| answer.index)
                .map_err(|status| status.to_string())
        })
        .await;
        load += 1;
        assert_eq!(index, load, "appended once");
    }
    assert_ne!(cluster.leader().await, 1);
    assert!(cluster.status(1).await.expect("it runs").disk_full);
    volume.make_room();
    cluster.wait_until_ready().await;
    for (node, log) in cluster.settled_logs(&cluster.numbers()).await {
        assert_eq!(log.len() as u64, load, "replicator {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_holds_nobody_up() {
    let test = "disk_full::a_follower_without_room_holds_nobody_up";
    let Some(volume) = Volume::mount(test, VOLUME_MEBIBYTES) else {
        return;
    };
    let volumes = BTreeMap::from([(1, volume.path().to_owned())]);
    let mut options = Options::quick();
    options.volumes = volumes;
    // A log that may grow beyond all that is written here: who was behind gets it, and no snapshot in its place.
    let rarely = ["--snapshot-every-bytes", "16MiB"];
    options.node_flags.extend(rarely.map(str::to_owned));
    let mut cluster = Cluster::start(options).await;
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

/// What `log` executes is what it wrote, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_executor_whose_output_finds_no_room_waits_and_says_so() {
    let test = "disk_full::a_log_executor_whose_output_finds_no_room_waits_and_says_so";
    let Some(volume) = Volume::mount(test, 1) else {
        return;
    };
    let file = volume.path().join("log");
    let mut cluster = Cluster::prepare(Options::quick().of(1)).await;
    cluster.replicator(1).start_logging_to(&file);
    cluster.node(1).start();
    cluster.wait_until_ready().await;
    volume.fill(0);
    // There may be room for some, where the last line ended.
    let mut submitted = 0;
    let failure = eventually("the executor to fail", async || {
        cluster
            .submit(1, format!("{submitted} {}", "x".repeat(200)))
            .await
            .map_err(|status| status.to_string())?;
        submitted += 1;
        let status = cluster.status(1).await.map_err(|status| status.to_string())?;
        let executor = status.replicator.and_then(|replicator| replicator.executor);
        let failure = executor.and_then(|executor| executor.failure);
        failure.ok_or_else(|| format!("{submitted} submitted"))
    })
    .await;
    assert!(
        failure.message.contains("cannot write to stdout") && failure.index <= submitted,
        "{failure:?}"
    );
    let readiness = cluster.replicator_readiness(1).await.expect("it runs");
    assert!(
        readiness.status == 200 && readiness.body.contains("cannot write"),
        "{readiness:?}"
    );
    volume.make_room();
    cluster.wait_until_executed(submitted).await;
    let written = std::fs::read_to_string(&file).expect("it can be read");
    let executed: Vec<&str> = written
        .lines()
        .filter_map(|line| line.split_once(" executes op=")?.1.split(' ').next())
        .collect();
    let expected: Vec<String> = (0..submitted).map(|number| number.to_string()).collect();
    assert_eq!(executed, expected);
    let told = cluster.replicator(1).process().stderr().join(" ");
    assert!(told.contains("it is tried again"), "{told}");
}
