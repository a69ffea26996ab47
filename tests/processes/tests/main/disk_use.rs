//! Disks that are smaller than all that is ever written.

use processes::cluster::{Cluster, Options};
use processes::volume::{self, Volume};
use processes::wait::eventually;
use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use rustix::process::Signal;
use std::collections::BTreeMap;
use tonic::Code;

const MEBIBYTE: u64 = 1 << 20;
const VOLUME_MEBIBYTES: u32 = 64;
/// A snapshot is due after a 16th of the volume, the log weighs at most three times as much when it is full, and a half more by
/// when everybody has heard of that; it is in segments of a 16th of the volume: the first and the last of which are not full, one that is prepared and
/// two to be used again come on top. And a quarter of the others may be empty: what is appended at once is up to 1 MiB, and is not
/// spread over two.
const FOLDER_BYTES_MAX: u64 = (6 + 5) * 4 * MEBIBYTE;
const OPERATION_BYTES: usize = 40 << 10;
/// A piece of what is written, in operations: 8 MiB.
const PIECE: usize = 200;
/// All that is written: half as much again as a volume holds.
const PIECES: usize = 12;

fn assert_bounded(cluster: &mut Cluster) {
    for number in cluster.numbers() {
        let node = cluster.node(number).folder().to_owned();
        for folder in [node, cluster.replicator(number).folder().to_owned()] {
            let bytes = volume::used(&folder);
            assert!(
                bytes <= FOLDER_BYTES_MAX,
                "{} takes {bytes} bytes of at most {FOLDER_BYTES_MAX}: {:#?}",
                folder.display(),
                volume::files(&folder)
            );
        }
    }
}

/// Operations of printable bytes, a line each, that differ from all others.
fn lines(piece: usize) -> Vec<u8> {
    let mut lines = Vec::with_capacity(PIECE * (OPERATION_BYTES + 1));
    for number in 0..PIECE {
        let line = format!("{piece}-{number} ");
        lines.extend_from_slice(line.as_bytes());
        lines.resize(lines.len() + OPERATION_BYTES - line.len(), b'.');
        lines.push(b'\n');
    }
    lines
}

/// More is written than any disk holds; then all processes are killed. Each disk stays within its bound, and all logs
/// are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_is_written_than_a_disk_holds() {
    let test = "disk_use::more_is_written_than_a_disk_holds";
    let mut volumes = BTreeMap::new();
    for node in 1..=5 {
        let Some(volume) = Volume::mount(test, VOLUME_MEBIBYTES) else {
            return;
        };
        volumes.insert(node, volume);
    }
    let mut options = Options::quick();
    let places = volumes
        .iter()
        .map(|(&node, volume)| (node, volume.path().to_owned()));
    options.volumes = places.collect();
    let often = ["--snapshot-every-operations", "1000000"];
    options.node_flags.extend(often.map(str::to_owned));
    let mut cluster = Cluster::start(options).await;
    for piece in 0..PIECES {
        let submitted = cluster.raftctl_with(&["submit", "--stdin"], &lines(piece)).await;
        submitted.expect(0, &[]);
        assert_bounded(&mut cluster);
    }
    let all = (PIECES * PIECE) as u64;
    let settled = async |cluster: &Cluster| {
        eventually(
            "all nodes and replicators to hold and execute the same",
            async || {
                let mut hashes = BTreeMap::new();
                for node in 1..=5 {
                    let status = cluster.status(node).await.map_err(|error| error.to_string())?;
                    let executed = status
                        .replicator
                        .map_or(0, |replicator| replicator.executed_index);
                    if (status.last_index, status.commit_index, executed) != (all, all, all) {
                        return Err(format!(
                            "node {node} is at {}, executed {executed}",
                            status.last_index
                        ));
                    }
                    if status.first_index < all / 2 {
                        return Err(format!("node {node} still holds {}", status.first_index));
                    }
                    hashes.insert(node, status.running_hash);
                }
                let first = hashes.values().next().copied();
                assert!(hashes.values().all(|hash| Some(*hash) == first), "{hashes:?}");
                Ok(first)
            },
        )
        .await
    };
    let before = settled(&cluster).await;
    cluster.kill_all().await;
    cluster.start_all();
    cluster.wait_until_ready().await;
    assert_eq!(settled(&cluster).await, before);
    assert_bounded(&mut cluster);
}

/// One replicator stands still while more is written than its disk holds. Its node keeps its leader's snapshots in the place of
/// its log, and the replicator is restored from one when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_replicator_does_not_fill_its_nodes_disk() {
    let test = "disk_use::a_stuck_replicator_does_not_fill_its_nodes_disk";
    let mut volumes = BTreeMap::new();
    for node in 1..=3 {
        let Some(volume) = Volume::mount(test, VOLUME_MEBIBYTES) else {
            return;
        };
        volumes.insert(node, volume);
    }
    let mut options = Options::quick().of(3);
    let places = volumes
        .iter()
        .map(|(&node, volume)| (node, volume.path().to_owned()));
    options.volumes = places.collect();
    let often = ["--snapshot-every-operations", "1000000"];
    options.node_flags.extend(often.map(str::to_owned));
    let mut cluster = Cluster::start(options).await;
    let leader = cluster.leader().await;
    let stuck = cluster.others(&[leader])[0];
    let first = cluster.raftctl_with(&["submit", "--stdin"], &lines(0)).await;
    first.expect(0, &[]);
    cluster.replicator(stuck).process().signal(Signal::STOP);
    for piece in 1..PIECES {
        let submitted = cluster.raftctl_with(&["submit", "--stdin"], &lines(piece)).await;
        submitted.expect(0, &[]);
        assert_bounded(&mut cluster);
    }
    let all = (PIECES * PIECE) as u64;
    eventually("its node to hold all, and no more log than others", async || {
        let status = cluster.status(stuck).await.map_err(|error| error.to_string())?;
        if status.commit_index == all && status.first_index > all / 2 && !status.log_full {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;

    cluster.replicator(stuck).process().signal(Signal::CONT);
    eventually("its replicator to be restored and to go on", async || {
        let status = cluster.status(stuck).await.map_err(|error| error.to_string())?;
        let executed = status
            .replicator
            .map_or(0, |replicator| replicator.executed_index);
        if executed == all {
            Ok(())
        } else {
            Err(format!("{executed} of {all}"))
        }
    })
    .await;
    let one_more = cluster.raftctl(&["submit", "one more"]).await;
    one_more.expect(0, &[]);
    cluster.wait_until_ready().await;
    cluster.raftctl(&["verify"]).await.expect(0, &[]);
    assert_bounded(&mut cluster);
}

/// Replicators that stand still keep logs from being compacted: the leader refuses rather than to fill its disk, and goes on by
/// itself when they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_compacted_is_refused_more() {
    let mut options = Options::quick().of(3);
    let often = [
        "--snapshot-every-operations",
        "1000000",
        "--snapshot-every-bytes",
        "4MiB",
    ];
    options.node_flags.extend(often.map(str::to_owned));
    let mut cluster = Cluster::start(options).await;
    for node in cluster.numbers() {
        cluster.replicator(node).process().signal(Signal::STOP);
    }
    let mut accepted = 0_usize;
    let refused = eventually("a full log to be told", async || {
        let leader = cluster.leader().await;
        match cluster.submit(leader, vec![b'.'; 100 << 10]).await {
            Ok(_) => {
                accepted += 1;
                Err(format!("{accepted} accepted"))
            }
            Err(status) => Ok(status),
        }
    })
    .await;
    let told = (refused.code(), reason_of(&refused));
    let expected = (Code::ResourceExhausted, Some(reason::BACKPRESSURE.into()));
    assert_eq!(told, expected, "{refused:?}");
    assert!(
        (100..150).contains(&accepted),
        "12 MiB are {accepted} operations of 100 KiB"
    );
    for node in cluster.numbers() {
        cluster.replicator(node).process().signal(Signal::CONT);
    }
    eventually("submissions to be taken again", async || {
        let leader = cluster.leader().await;
        let answer = cluster.submit(leader, "more").await;
        answer.map(|_| ()).map_err(|status| status.to_string())
    })
    .await;
}
