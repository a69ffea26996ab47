//! Replicators that begin again in the middle of the log, with their node's snapshot.

use processes::binaries;
use processes::cluster::{Cluster, Options};
use processes::process::{self, Finished};
use processes::wait::eventually;

/// Nodes that take snapshots of a few operations, so that their logs soon begin later than at the first.
async fn start() -> Cluster {
    let mut options = Options::quick().of(3);
    let often = ["--snapshot-every-operations", "200"];
    options.node_flags.extend(often.map(str::to_owned));
    Cluster::start(options).await
}

async fn submit(cluster: &Cluster, numbers: std::ops::RangeInclusive<u64>) {
    let lines: Vec<String> = numbers.map(|number| format!("operation-{number}")).collect();
    let input = lines.join("\n");
    let submitted = cluster
        .raftctl_with(&["submit", "--stdin"], input.as_bytes())
        .await;
    submitted.expect(0, &[]);
}

/// The first operation that a node's own log holds, once it is beyond that index.
async fn first_index_beyond(cluster: &Cluster, node: u32, index: u64) -> u64 {
    let what = format!("node {node} to drop operations up to {index}");
    eventually(&what, async || {
        let status = cluster.status(node).await.map_err(|error| error.to_string())?;
        let first = status.first_index;
        (first > index)
            .then_some(first)
            .ok_or(format!("it holds {first}"))
    })
    .await
}

/// `raftctl watch` of that one replicator.
async fn watch(cluster: &Cluster, node: u32, more: &[&str]) -> Finished {
    let address = cluster.replicator_address(node).to_string();
    let arguments = [
        &["--replicators", &address, "-o", "raw", "watch", "--stale"],
        more,
    ]
    .concat();
    process::run(binaries::path("raftctl"), &arguments, b"").await
}

/// Operation numbers of the lines that a replicator executed in its last life.
fn executed(cluster: &mut Cluster, node: u32) -> Vec<u64> {
    let lines = cluster.replicator(node).process().stdout();
    let number = |line: &String| line.rsplit_once("at index=")?.1.parse().ok();
    let executes = lines.iter().filter(|line| line.contains(" executes "));
    executes.filter_map(number).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_folder_begins_again_with_a_snapshot_of_the_node() {
    let mut cluster = start().await;
    // Whoever falls behind by two snapshots starts from its leader's, and so does its replicator: on a machine that is busy enough
    // nobody would hold all of it in the end.
    for batch in 0..15 {
        submit(&cluster, batch * 200 + 1..=(batch + 1) * 200).await;
        cluster.wait_until_executed((batch + 1) * 200).await;
    }
    first_index_beyond(&cluster, 1, 1).await;
    cluster.replicator(1).kill().await;
    cluster.replicator(1).delete_folder();
    cluster.replicator(1).start();
    let restored = |line: &str| line.starts_with("Node 1 restored its replicator from a snapshot at index ");
    let line = cluster
        .replicator(1)
        .process()
        .says_after(0, "the restore", restored)
        .await;
    let index: u64 = line
        .rsplit(' ')
        .next()
        .and_then(|index| index.parse().ok())
        .expect("an index");
    cluster.wait_until_ready().await;
    submit(&cluster, 3_001..=3_100).await;
    let last = "Node 1 executes op=operation-3100 at index=3100";
    cluster.replicator(1).process().says(last).await;
    assert_eq!(executed(&mut cluster, 1), (index + 1..=3_100).collect::<Vec<_>>());

    // Whoever asks for all of it gets what there is, and hears what is not; whoever names an index does not get another.
    let first = index + 1;
    let all = watch(&cluster, 1, &[]).await;
    let begins = format!("this begins with {first}");
    assert!(
        all.expect(0, &[])
            .text()
            .starts_with(&format!("operation-{first}\n"))
    );
    assert!(
        all.stderr.iter().any(|line| line.ends_with(&begins)),
        "{:?}",
        all.stderr
    );
    let advice = format!("--from {first}");
    watch(&cluster, 1, &["--from", "1"]).await.expect(1, &[&advice]);
    // The others hold it yet, as it fits a segment: raftctl asks them, whomever it asks first.
    let from = ["-o", "raw", "watch", "--from", "1"];
    let complete = cluster.raftctl(&from).await;
    assert_eq!(complete.expect(0, &[]).text().lines().count(), 3_100);
}
