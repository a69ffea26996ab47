//! The way back from disaster: a majority is lost for good.

use processes::binaries;
use processes::cluster::{Cluster, Options};
use processes::process::{self, Finished};
use processes::wait::eventually;
use std::path::Path;

async fn recover(folder: &Path, more: &[&str]) -> Finished {
    let folder = folder.display().to_string();
    let arguments = [&["recover", "--data-dir", &folder][..], more].concat();
    process::run(binaries::path("raft-node"), &arguments, b"").await
}

/// The index of a folder's last entry, as `recover` tells it.
async fn last_entry(folder: &Path) -> (u64, u64) {
    let told = recover(folder, &["--as-single-voter"]).await;
    let text = told.expect(2, &["left as it is", "--yes"]).text();
    let place = text
        .split("the last entry is ")
        .nth(1)
        .expect("it tells its last entry");
    let numbers: Vec<u64> = place
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    (numbers[1], numbers[0])
}

/// Three of five nodes are gone with their disks. The better one of the two that are left goes on alone, in service at once; the
/// other four start empty and are added. Operations go on without a gap, and all replicators, the old ones too, hold the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_that_are_left_of_five_goes_on() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("before", 8, 3);
    load.progresses_by(200).await;
    let before = load.stop().await;
    let leader = cluster.leader().await;
    let left = [leader, cluster.others(&[leader])[0]];
    let lost = cluster.others(&left);
    for &node in &lost {
        cluster.node(node).kill().await;
    }
    let running = recover(cluster.node(left[0]).folder(), &["--as-single-voter", "--yes"]).await;
    running.expect(1, &["is in use by process"]);
    for node in left {
        cluster.node(node).kill().await;
    }
    let places = [
        last_entry(cluster.node(left[0]).folder()).await,
        last_entry(cluster.node(left[1]).folder()).await,
    ];
    let survivor = if places[0] >= places[1] { left[0] } else { left[1] };
    let folder = cluster.node(survivor).folder().to_owned();
    recover(&folder, &[]).await.expect(2, &["--as-single-voter"]);
    let done = recover(&folder, &["--as-single-voter", "--yes"]).await;
    let text = done.expect(0, &[]).text();
    for words in [
        "May be lost",
        "Forgotten",
        "Left behind",
        "is the only voter of cluster",
        "member add",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    cluster.node(survivor).start();
    cluster.wait_until_these_are_ready(&[survivor]).await;
    let status = cluster.status(survivor).await.expect("it runs");
    let first = cluster
        .submit(survivor, "after the disaster")
        .await
        .expect("a majority of one");
    assert_eq!(first.index, status.commit_index + 1, "operations go on");

    for node in cluster.others(&[survivor]) {
        cluster.node(node).delete_folder();
        cluster.node(node).start();
        cluster.wait_until_unready(node, &["does not list member"]).await;
        let address = format!("127.0.0.1:{}", cluster.port(node));
        cluster.raftctl(&["member", "add", &address]).await.expect(0, &[]);
        cluster.wait_until_these_are_ready(&[node]).await;
        let number = node.to_string();
        eventually("the new member to be promoted", async || {
            let promoted = cluster.raftctl(&["member", "promote", &number]).await;
            if promoted.code == 0 {
                Ok(())
            } else {
                Err(promoted.stderr.join(" "))
            }
        })
        .await;
    }
    cluster.wait_until_ready().await;
    for node in cluster.numbers() {
        let stories = cluster.replicator(node).stories().concat();
        let adopted = |line: &String| line.contains("which was recovered from cluster");
        assert_eq!(
            stories.iter().filter(|line| adopted(line)).count(),
            1,
            "replicator {node}"
        );
    }
    let load = cluster.load("after", 8, 4);
    load.progresses_by(200).await;
    let after = load.stop().await;
    let logs = cluster.settled_logs(&cluster.numbers()).await;
    assert_eq!(processes::history::check(&after, &logs), Ok(()));
    // The leader of the last majority was among those that were left: whatever was acknowledged is there.
    assert_eq!(processes::history::check(&before, &logs), Ok(()));
    // And the new voters count.
    cluster.node(survivor).kill().await;
    let rest = cluster.others(&[survivor]);
    cluster.leader_among(&rest).await;
    cluster
        .submit(rest[0], "without the survivor")
        .await
        .expect("four of five");
}
