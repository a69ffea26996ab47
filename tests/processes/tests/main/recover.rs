//! The way back from disaster: a majority is lost for good.

use processes::binaries;
use processes::cluster::{Cluster, Options};
use processes::process::{self, Finished, Process};
use processes::seed;
use processes::wait::eventually;
use raftlog_proto::v1::Role;
use rand::RngExt as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

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
        cluster.promote(node).await;
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

/// Makes `to` a copy of `from`, files only.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder can be read") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
}

/// Killed at any moment, `recover` leaves the old member's folder or the new one's, and the next one ends what was begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recover_is_killed_at_random_moments() {
    let (_, mut random) = seed::announce("recover::recover_is_killed_at_random_moments");
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    for number in 1..=20 {
        cluster.submit(1, format!("{number}")).await.expect("a leader");
    }
    let before = cluster.status(1).await.expect("it runs").cluster_id;
    cluster.settled_logs(&[1, 2, 3]).await;
    cluster.kill_all().await;
    let folder = cluster.node(1).folder().to_owned();
    let pristine = cluster.folder().join("pristine");
    copy(&folder, &pristine);
    let place = folder.display().to_string();
    let arguments = ["recover", "--data-dir", &place, "--as-single-voter", "--yes"];
    let mut seen = [0, 0];
    for round in 0..12 {
        copy(&pristine, &folder);
        let mut killed = Process::spawn("recover", binaries::path("raft-node"), &arguments);
        tokio::time::sleep(Duration::from_micros(random.random_range(0..60_000))).await;
        killed.kill().await;
        let identity = fs::read_to_string(folder.join("identity")).expect("it has an identity");
        let is_recovered = identity.contains("recovered = ");
        seen[usize::from(is_recovered)] += 1;
        // Every other one starts as it is; the others are recovered once more, which completes it.
        if round % 2 == 0 {
            let again = recover(&folder, &["--as-single-voter", "--yes"]).await;
            let text = again.expect(0, &[]).text();
            assert_eq!(text.contains("was recovered already"), is_recovered, "{text}");
        }
        let alone = is_recovered || round % 2 == 0;
        cluster.node(1).start();
        let status = eventually("the node to say what it is", async || {
            let status = cluster.status(1).await.map_err(|error| error.to_string())?;
            if alone && status.role() != Role::Leader {
                return Err(format!("{:?}", status.role()));
            }
            Ok(status)
        })
        .await;
        assert_eq!(status.last_index, 20, "round {round}");
        assert_eq!(status.cluster_id == before, !alone, "round {round}");
        cluster.node(1).kill().await;
    }
    println!(
        "killed before it was recovered: {}, and after: {}",
        seen[0], seen[1]
    );
}
