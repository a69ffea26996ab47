//! A real text file in at one end and out at the other.

use processes::binaries;
use processes::cluster::{Cluster, Options};
use std::fs;

/// The workspace's Cargo.lock, line by line, through `submit --stdin` and out of `watch -o raw` on each replicator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cargo_lock_comes_out_as_it_went_in() {
    let mut cluster = Cluster::start(Options::with_default_timings()).await;
    let file =
        fs::read_to_string(binaries::workspace().join("Cargo.lock")).expect("the workspace has a Cargo.lock");
    let lines: Vec<&str> = file.lines().filter(|line| !line.is_empty()).collect();
    let blank = file.lines().count() - lines.len();
    let expected = lines.join("\n") + "\n";
    assert!(
        blank > 100 && lines.len() > 1_000,
        "Cargo.lock is a real file with blank lines"
    );

    let submitted = cluster
        .raftctl_with(&["submit", "--stdin"], file.as_bytes())
        .await;
    submitted.expect(0, &[]);
    let told = submitted.text() + &submitted.stderr.join("\n");
    for number in [lines.len(), blank] {
        assert!(
            told.contains(&number.to_string()),
            "submit does not count {number}: {told}"
        );
    }
    for node in cluster.numbers() {
        let replicator = format!("127.0.0.1:{}", cluster.replicator_port(node));
        let watched = cluster
            .raftctl(&["watch", "-o", "raw", "--replicators", &replicator])
            .await;
        let watched = watched.expect(0, &[]).text();
        assert!(
            watched == expected,
            "replicator {node} gave {} bytes of {}",
            watched.len(),
            expected.len()
        );
    }
    let logs = cluster.settled_logs(&cluster.numbers()).await;
    for (node, log) in logs {
        let stories = cluster.replicator(node).stories();
        assert_eq!(processes::story::check_executes(node, &stories, &log), Ok(()));
    }
}

/// The same client through changes of leader: a line is never repeated, lost or moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_file_survives_its_leaders() {
    const LINES: u64 = 30_000;
    let mut cluster = Cluster::start(Options::quick()).await;
    let lines: Vec<String> = (1..=LINES).map(|line| format!("line {line}")).collect();
    let input = cluster.folder().join("input");
    fs::write(&input, lines.join("\n")).expect("the temporary folder can be written");
    let mut submit = cluster.start_raftctl_reading("submit", &["submit", "--stdin"], &input);
    let mut killed = 0;
    while submit.is_running() {
        let leader = cluster.leader().await;
        cluster.node(leader).kill().await;
        killed += 1;
        cluster.leader_among(&cluster.others(&[leader])).await;
        cluster.node(leader).start();
        cluster.wait_until_ready().await;
    }
    let status = submit.wait().await;
    assert!(
        status.success(),
        "{status} after {killed} leaders: {:?} {:?}",
        submit.stdout(),
        submit.stderr()
    );
    let log = cluster.check_history(&[]).await;
    let held: Vec<&[u8]> = log.iter().map(|logged| logged.data.as_ref()).collect();
    assert_eq!(held.len() as u64, LINES, "after {killed} leaders");
    assert!(
        held.iter()
            .zip(&lines)
            .all(|(held, line)| held == &line.as_bytes()),
        "the file's order"
    );
}
