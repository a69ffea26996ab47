//! Snapshots in files: saved from a live cluster, and a way back where all nodes are lost.

use processes::api;
use processes::binaries;
use processes::cluster::{Cluster, Options};
use processes::history::Logged;
use processes::process::{self, Finished};
use processes::volume::Volume;
use processes::wait::eventually;
use raftlog_raft::fold::running_hash;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What a node is told by its neighbours, where it waits to be added.
const NOT_LISTED: &[&str] = &["does not list member"];

async fn snapshot(cluster: &Cluster, command: &str, file: &Path, more: &[&str]) -> Finished {
    let file = file.display().to_string();
    let arguments = [&["snapshot", command, &file], more].concat();
    cluster.raftctl(&arguments).await
}

/// Saves a snapshot, and gives what raftctl says of it.
async fn save(cluster: &Cluster, file: &Path) -> Value {
    let saved = snapshot(cluster, "save", file, &["-o", "json"]).await;
    serde_json::from_str(&saved.expect(0, &[]).text()).expect("it is JSON")
}

fn number(of: &Value, field: &str) -> u64 {
    of[field].as_u64().unwrap_or_else(|| panic!("{field} of {of}"))
}

/// Makes a data folder of a file for a node of the cluster, and gives what raftctl says of that.
async fn restore(cluster: &mut Cluster, file: &Path, node: u32, more: &[&str]) -> Finished {
    let (folder, id) = (
        cluster.node(node).folder().display().to_string(),
        node.to_string(),
    );
    let flags = ["--data-dir", &folder, "--id", &id];
    snapshot(cluster, "restore", file, &[&flags[..], more].concat()).await
}

/// Starts a node with an empty folder, and makes it a voter.
async fn add(cluster: &mut Cluster, node: u32) {
    cluster.node(node).start();
    cluster.wait_until_unready(node, NOT_LISTED).await;
    let address = format!("127.0.0.1:{}", cluster.port(node));
    cluster.raftctl(&["member", "add", &address]).await.expect(0, &[]);
}

fn hash_of(log: &[Logged]) -> String {
    let hash = log.iter().fold(0, |before, logged| {
        running_hash(before, logged.index, logged.term, &logged.data)
    });
    format!("{hash:016x}")
}

/// Five nodes are lost with their disks. What was saved under load goes on: first as one voter, then as five. Replicators that lost
/// their folders, too, start with the saved state; those that have executed more give that up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lost_all_its_nodes_goes_on_from_what_was_saved_under_load() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let in_session = |port| api::submit_in_session(port, "a session", 1, "in a session");
    let first = in_session(cluster.port(1)).await.expect("a leader").index;
    let load = cluster.load("before", 8, 6);
    load.progresses_by(200).await;
    let file = cluster.folder().join("backup");
    let saved = save(&cluster, &file).await;
    let index = number(&saved, "index");
    load.progresses_by(200).await;
    load.stop().await;
    let before = cluster
        .settled_logs(&cluster.numbers())
        .await
        .remove(&1)
        .expect("its log");
    let kept = usize::try_from(index).expect("an index");
    assert_eq!(saved["running_hash"], hash_of(&before[..kept]));
    assert_eq!(saved["members"].as_array().map(Vec::len), Some(5));
    assert!(number(&saved, "sessions") >= 8 && saved["crc_valid"] == true);

    cluster.kill_all().await;
    for node in cluster.numbers() {
        cluster.node(node).delete_folder();
    }
    for node in [1, 2, 3] {
        cluster.replicator(node).delete_folder();
    }
    let undone = restore(&mut cluster, &file, 1, &[]).await;
    undone.expect(2, &["was not made", "--yes"]);
    assert!(undone.text().contains("Lost: every operation behind index"));
    assert!(
        !cluster.node(1).folder().exists(),
        "nothing is done before it is said"
    );
    let done = restore(&mut cluster, &file, 1, &["--yes"]).await;
    let told = done.expect(0, &[]).text();
    for words in ["Lost", "Forgotten", "Left behind", "To be done"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let again = restore(&mut cluster, &file, 1, &["--yes"]).await;
    again.expect(1, &["is not empty"]);

    cluster.node(1).start();
    cluster.replicator(1).start();
    cluster.wait_until_these_are_ready(&[1]).await;
    let status = cluster.status(1).await.expect("it runs");
    assert_eq!(status.commit_index, index);
    assert_eq!(format!("{:016x}", status.running_hash), saved["running_hash"]);
    let next = cluster.submit(1, "after the disaster").await;
    assert_eq!(next.expect("a majority of one").index, index + 1);
    let again = in_session(cluster.port(1)).await.expect("a majority of one");
    assert!(
        first <= index && again.index == index + 2,
        "sessions are forgotten"
    );

    for node in 2..=5 {
        cluster.replicator(node).start();
        add(&mut cluster, node).await;
        if node > 3 {
            let replicator = cluster.replicator(node).process();
            let ended = replicator.wait().await;
            let why = replicator.stderr().join(" ");
            assert!(
                !ended.success() && why.contains("is lost to the cluster"),
                "{why}"
            );
            cluster.replicator(node).start();
        }
        cluster.wait_until_these_are_ready(&[node]).await;
        cluster.promote(node).await;
    }
    cluster.wait_until_ready().await;
    let load = cluster.load("after", 8, 7);
    load.progresses_by(200).await;
    let after = load.stop().await;
    let leader = cluster.leader().await;
    let end = cluster.status(leader).await.expect("it runs").commit_index;
    for node in cluster.numbers() {
        let at = cluster.replicator_address(node);
        eventually("a replicator to hold what came after", async || {
            let held = api::read_from(&mut api::operation_log(at), index + 1).await;
            let held = held.map_err(|status| status.to_string())?;
            if held.last().map(|last| last.index) != Some(end) {
                return Err(format!("{} operations", held.len()));
            }
            assert!(held.iter().map(|logged| logged.index).eq(index + 1..=end));
            assert_eq!(held[0].data, "after the disaster".as_bytes());
            for told in &after {
                let at = usize::try_from(told.index - index - 1).expect("an index");
                assert_eq!(held[at].data, told.data, "index {}", told.index);
            }
            Ok(())
        })
        .await;
    }
    cluster.raftctl(&["verify"]).await.expect(0, &[]);
}

/// Replicators that hold just what was saved keep it, and go on behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicators_that_hold_what_was_saved_keep_it() {
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    for number in 1..=20 {
        cluster.submit(1, format!("{number}")).await.expect("a leader");
    }
    let before = cluster
        .settled_logs(&[1, 2, 3])
        .await
        .remove(&1)
        .expect("its log");
    let file = cluster.folder().join("backup");
    let saved = save(&cluster, &file).await;
    assert_eq!(number(&saved, "index"), 20);
    let again = save(&cluster, &file).await;
    assert_eq!(again["crc"], saved["crc"], "nothing was executed since");
    cluster.kill_all().await;
    for node in [1, 2, 3] {
        cluster.node(node).delete_folder();
    }
    restore(&mut cluster, &file, 2, &["--yes"]).await.expect(0, &[]);
    cluster.node(2).start();
    cluster.replicator(2).start();
    cluster.wait_until_these_are_ready(&[2]).await;
    for node in [1, 3] {
        cluster.replicator(node).start();
        add(&mut cluster, node).await;
        cluster.wait_until_these_are_ready(&[node]).await;
        cluster.promote(node).await;
    }
    cluster.submit(3, "the next").await.expect("a leader");
    for (node, log) in cluster.settled_logs(&[1, 2, 3]).await {
        assert_eq!(log[..20], before[..], "replicator {node}");
        assert_eq!((log.len(), log[20].index), (21, 21));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_is_refused_with_one_line() {
    let mut cluster = Cluster::start(Options::quick().of(1)).await;
    let file = cluster.folder().join("backup");
    snapshot(&cluster, "save", &file, &["--timeout", "1s"])
        .await
        .expect(1, &["executed no operation"]);
    cluster.submit(1, "one").await.expect("a leader");
    cluster.settled_logs(&[1]).await;
    save(&cluster, &file).await;
    // A file of a data folder is as good.
    let own = fs::read_dir(cluster.node(1).folder()).expect("a folder");
    let own = own
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.display().to_string().contains("snapshot-"))
        .expect("it took a snapshot");
    let inspected = snapshot(&cluster, "inspect", &own, &["-o", "json"]).await;
    assert!(inspected.expect(0, &[]).text().contains("\"index\":1,"));

    let whole = fs::read(&file).expect("it was saved");
    let bad = cluster.folder().join("bad");
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (content, words) in [
        (whole[..whole.len() - 1].to_vec(), "cut short"),
        (whole[..300].to_vec(), "corrupt at offset"),
        (flipped(20), "corrupt at offset"),
        (flipped(whole.len() - 1), "corrupt at offset"),
        (b"a list of things to do".to_vec(), "is no snapshot"),
        (Vec::new(), "is no snapshot"),
    ] {
        fs::write(&bad, &content).expect("it can be written");
        let inspected = snapshot(&cluster, "inspect", &bad, &[]).await;
        assert_eq!(inspected.expect(1, &[words, "bad"]).stderr.len(), 1);
        let folder = cluster.folder().join("restored").display().to_string();
        let flags = ["--data-dir", &folder, "--id", "1", "--yes"];
        let restored = snapshot(&cluster, "restore", &bad, &flags).await;
        assert_eq!(restored.expect(1, &[words, "bad"]).stderr.len(), 1);
        assert!(!Path::new(&folder).exists());
    }
    let folder = cluster.folder().join("restored").display().to_string();
    let flags = ["--data-dir", &folder, "--id", "7", "--yes"];
    let unknown = snapshot(&cluster, "restore", &file, &flags).await;
    unknown.expect(2, &["does not say where node 7 is reached", "--peer-address"]);
    cluster.kill_all().await;
    snapshot(&cluster, "save", &file, &["--timeout", "1s"])
        .await
        .expect(3, &["no node answered"]);
    assert_eq!(fs::read(&file).expect("it stands"), whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_room_for_a_snapshot_leaves_what_was_there() {
    let test = "backups::no_room_for_a_snapshot_leaves_what_was_there";
    let Some(volume) = Volume::mount(test, 4) else {
        return;
    };
    let cluster = Cluster::start(Options::quick().of(1)).await;
    // A hundred sessions make it too large for what is left.
    for session in 0..100 {
        let client = format!("session-{session}-{}", "x".repeat(200));
        let submitted = api::submit_in_session(cluster.port(1), &client, 1, "op").await;
        submitted.expect("a leader");
    }
    cluster.settled_logs(&[1]).await;
    let file = volume.path().join("backup");
    fs::write(&file, "the one before").expect("there is room");
    for spare in [16 << 10, 0] {
        volume.fill(spare);
        snapshot(&cluster, "save", &file, &[])
            .await
            .expect(1, &["cannot save", "No space left", "nothing was saved"]);
        let names: Vec<_> = fs::read_dir(volume.path())
            .expect("it is a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names.len(), 2, "the one before, and the ballast: {names:?}");
        assert_eq!(fs::read(&file).expect("it stands"), b"the one before");
    }
    volume.make_room();
    assert_eq!(number(&save(&cluster, &file).await, "index"), 100);
}

/// A device of that name was gone, and a file in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_a_file_is_replaced_by_a_backup() {
    let cluster = Cluster::start(Options::quick().of(1)).await;
    cluster.submit(1, "one").await.expect("a leader");
    cluster.settled_logs(&[1]).await;
    let link = cluster.folder().join("link");
    std::os::unix::fs::symlink("elsewhere", &link).expect("nothing has the name");
    for there in [link.as_path(), cluster.folder()] {
        let saved = snapshot(&cluster, "save", there, &[]).await;
        saved.expect(1, &["something else than a regular file"]);
    }
    assert!(link.is_symlink());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_inspected_is_printed_in_every_format() {
    let cluster = Cluster::start(Options::quick().of(1)).await;
    cluster.submit(1, "one").await.expect("a leader");
    cluster.settled_logs(&[1]).await;
    let file = cluster.folder().join("backup").display().to_string();
    for (format, words) in [
        ("table", "operations      1 to 1, the last of term"),
        ("yaml", "crc_valid: true"),
        ("raw", "1"),
    ] {
        let saved = cluster.raftctl(&["-o", format, "snapshot", "save", &file]).await;
        assert!(saved.expect(0, &[]).text().contains(words), "{}", saved.text());
        let inspect = ["-o", format, "snapshot", "inspect", &file];
        let inspected = process::run(binaries::path("raftctl"), &inspect, b"").await;
        assert_eq!(inspected.expect(0, &[]).text(), saved.text());
    }
}
