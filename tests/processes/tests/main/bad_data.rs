//! Data folders that are locked, corrupt, or another's.

use processes::binaries;
use processes::cluster::{Cluster, Options};
use processes::process::{self, Finished};
use processes::seed;
use rand::RngExt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Starts a stopped program's binary with its own flags, which is expected to end by itself.
async fn restart(cluster: &mut Cluster, program: &str, node: u32) -> Finished {
    let arguments = match program {
        "raft-node" => cluster.node(node).arguments().to_vec(),
        _ => cluster.replicator(node).arguments().to_vec(),
    };
    process::run(binaries::path(program), &arguments, b"").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_folder_names_its_holder() {
    let mut cluster = Cluster::start(Options::quick().of(1)).await;
    for program in ["raft-node", "raft-replicator"] {
        let running = if program == "raft-node" {
            cluster.node(1)
        } else {
            cluster.replicator(1)
        };
        let holder = running.process().id().to_string();
        let folder = running.folder().display().to_string();
        // On ports of its own, the folder is all they share.
        let mut arguments = running.arguments().to_vec();
        let free = [0, 1].map(|number| format!("127.0.0.1:{}", cluster.spare_port(number)));
        for (flag, address) in ["--listen", "--http-listen"].into_iter().zip(free) {
            let place = arguments
                .iter()
                .position(|argument| argument == flag)
                .expect("the flag is given");
            arguments[place + 1] = address;
        }
        let second = process::run(binaries::path(program), &arguments, b"").await;
        second.expect(1, &[&folder, &holder]);
    }
    cluster
        .submit(1, "still here")
        .await
        .expect("the holder is not disturbed");
}

/// One byte in the middle of what was synced, at a random place: never taken for data, never silently cut off, however often the
/// node is started. It comes back when the byte is as it was or, as another member, with an empty folder by `member replace`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_folder_is_refused_with_file_and_offset() {
    let (seed, mut random) = seed::announce("bad_data::a_corrupt_folder_is_refused_with_file_and_offset");
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("corrupt", 8, seed);
    load.progresses_by(300).await;
    let history = load.stop().await;
    cluster.settled_logs(&cluster.numbers()).await;
    let victim = random.random_range(1..=5);
    cluster.node(victim).kill().await;
    let needle = format!(
        "corrupt-{}/{}",
        random.random_range(1..=8),
        random.random_range(1..=3)
    );
    let (file, offset) = find(cluster.node(victim).folder(), needle.as_bytes());
    flip(&file, offset);

    let name = file.file_name().expect("a file").to_string_lossy().into_owned();
    let refused = restart(&mut cluster, "raft-node", victim).await;
    refused.expect(1, &[&name, "offset"]);

    // The disk gave back what was written after all: nothing is wrong with the node.
    flip(&file, offset);
    cluster.node(victim).start();
    cluster.wait_until_ready().await;
    cluster.check_history(&history).await;

    cluster.node(victim).kill().await;
    flip(&file, offset);
    let damaged = contents(cluster.node(victim).folder());
    for _ in 0..2 {
        let refused = restart(&mut cluster, "raft-node", victim).await;
        refused.expect(1, &[&name, "offset", "move its data folder away"]);
    }
    assert_eq!(
        contents(cluster.node(victim).folder()),
        damaged,
        "it is left as it is"
    );
    let aside = cluster.folder().join("aside");
    fs::rename(cluster.node(victim).folder(), aside).expect("folders can be renamed");
    cluster.node(victim).start();
    cluster
        .wait_until_unready(victim, &["does not list member"])
        .await;
    let replaced = cluster.raftctl(&["member", "replace", &victim.to_string()]).await;
    replaced.expect(0, &[]);
    cluster.wait_until_ready().await;
    cluster.check_history(&history).await;
}

/// Of all files, but for the lock's, which names the last process.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let data = files(folder).into_iter().filter(|path| !path.ends_with("LOCK"));
    let read = |path: PathBuf| {
        let content = fs::read(&path).expect("data can be read");
        (path, content)
    };
    data.map(read).collect()
}

/// The last batch was never acknowledged on the strength of this disk if it is torn; the rest of the cluster has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_end_is_repaired_from_the_others() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("torn", 8, 9);
    load.progresses_by(100).await;
    let mut history = load.stop().await;
    let leader = cluster.leader().await;
    let victim = cluster.others(&[leader])[0];
    cluster.settled_logs(&cluster.numbers()).await;
    let last = cluster
        .submit(leader, "the very last")
        .await
        .expect("all is well");
    cluster.settled_logs(&cluster.numbers()).await;
    cluster.node(victim).kill().await;
    let (file, offset) = find(cluster.node(victim).folder(), b"the very last");
    flip(&file, offset);
    cluster.node(victim).start();
    cluster.wait_until_ready().await;
    let log = cluster.check_history(&history).await;
    assert_eq!(log.last().map(|logged| logged.index), Some(last.index));
    history.clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_members_folder_is_refused() {
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    cluster.submit(1, "something to hold").await.expect("all is well");
    cluster.settled_logs(&cluster.numbers()).await;
    cluster.kill_all().await;
    let (one, two) = (
        cluster.node(1).folder().to_owned(),
        cluster.node(2).folder().to_owned(),
    );
    let aside = cluster.folder().join("aside");
    swap(&one, &two, &aside);
    let refused = restart(&mut cluster, "raft-node", 1).await;
    refused.expect(1, &[&one.display().to_string(), "2"]);
    swap(&one, &two, &aside);
    cluster.start_all();
    cluster.wait_until_ready().await;
}

/// The data folders of a cluster that holds one operation, `theirs`, and is gone.
async fn another_clusters_folders(nodes: u32) -> TempDir {
    let mut foreign = Cluster::start(Options::quick().of(nodes)).await;
    foreign.submit(1, "theirs").await.expect("all is well");
    foreign.settled_logs(&foreign.numbers()).await;
    foreign.kill_all().await;
    let kept = tempfile::tempdir().expect("cannot make a temporary folder");
    let folders = [
        foreign.node(1).folder().to_owned(),
        foreign.replicator(1).folder().to_owned(),
    ];
    for folder in folders {
        let name = folder.file_name().expect("a folder has a name");
        fs::rename(&folder, kept.path().join(name)).expect("folders can be renamed");
    }
    kept
}

/// The replicator keeps what it has and takes nothing from a node of another cluster, and both say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_replicator_folder_is_refused() {
    let foreign = another_clusters_folders(1).await;
    let mut cluster = Cluster::start(Options::quick().of(1)).await;
    cluster.submit(1, "ours").await.expect("all is well");
    cluster.settled_logs(&[1]).await;
    cluster.kill_all().await;
    let (ours, theirs) = (
        cluster.replicator(1).folder().to_owned(),
        foreign.path().join("q4node1"),
    );
    let aside = cluster.folder().join("aside");
    swap(&ours, &theirs, &aside);
    cluster.start_all();
    cluster.wait_until_unready(1, &["q4node1"]).await;
    let told = |line: &str| line.contains("this replicator's data folder to cluster");
    cluster
        .node(1)
        .process()
        .says_after(0, "whose replicator it is", told)
        .await;
    cluster
        .replicator(1)
        .process()
        .says_after(0, "whose replicator it is", told)
        .await;
    cluster.kill_all().await;
    swap(&ours, &theirs, &aside);
    cluster.start_all();
    cluster.wait_until_ready().await;
    let log = cluster.check_history(&[]).await;
    assert_eq!(log.len(), 1);
}

/// A node with the folder of another cluster: its peers are not there, and here nobody takes it in or is harmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_node_folder_is_kept_out() {
    let foreign = another_clusters_folders(3).await;
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    cluster.submit(1, "ours").await.expect("all is well");
    cluster.node(1).kill().await;
    let (ours, theirs) = (cluster.node(1).folder().to_owned(), foreign.path().join("node1"));
    let aside = cluster.folder().join("aside");
    swap(&ours, &theirs, &aside);
    cluster.node(1).start();
    cluster.wait_until_unready(1, &["q4node1"]).await;
    let told = |line: &str| line.contains("this replicator's data folder to cluster");
    cluster
        .node(1)
        .process()
        .says_after(0, "that its replicator is of another cluster", told)
        .await;
    let leader = cluster.leader_among(&[2, 3]).await.node;
    let refused = format!("Node {leader} is refused by Node 1");
    cluster
        .node(leader)
        .process()
        .says_after(0, &refused, |line| line.contains("cluster"))
        .await;
    cluster
        .submit(2, "still ours")
        .await
        .expect("two of three are a majority");
    cluster.wait_until_unready(1, &["q4node1"]).await;
    cluster.node(1).kill().await;
    swap(&ours, &theirs, &aside);
    cluster.start_all();
    cluster.wait_until_ready().await;
    let log = cluster.check_history(&[]).await;
    let held: Vec<&[u8]> = log.iter().map(|logged| logged.data.as_ref()).collect();
    assert_eq!(held, [&b"ours"[..], b"still ours"]);
}

/// A mount point comes with `lost+found`, and an operator may leave a note.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_else_is_in_a_folder_does_not_matter() {
    let mut cluster = Cluster::prepare(Options::quick().of(1)).await;
    for folder in [
        cluster.node(1).folder().to_owned(),
        cluster.replicator(1).folder().to_owned(),
    ] {
        fs::create_dir_all(folder.join("lost+found")).expect("the temporary folder can be written");
        fs::write(folder.join("NOTE"), "do not delete").expect("the temporary folder can be written");
    }
    cluster.start_all();
    cluster.wait_until_ready().await;
    cluster.submit(1, "here").await.expect("all is well");
    assert!(cluster.node(1).folder().join("NOTE").exists());
}

/// A newer version's folder is told from damage, and neither is overwritten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_cannot_be_read_is_refused() {
    let mut cluster = Cluster::start(Options::quick().of(1)).await;
    cluster.submit(1, "something to hold").await.expect("all is well");
    cluster.settled_logs(&[1]).await;
    cluster.kill_all().await;
    for program in ["raft-node", "raft-replicator"] {
        let running = if program == "raft-node" {
            cluster.node(1)
        } else {
            cluster.replicator(1)
        };
        let file = running.folder().join("identity");
        let good = fs::read_to_string(&file).expect("the identity is a text");
        let newer = good.replace("format = 1", "format = 2");
        let shorter = good[..good.len() / 2].to_owned();
        for (bad, named) in [(newer, "version"), (shorter, "offset"), (String::new(), "offset")] {
            fs::write(&file, &bad).expect("data can be written");
            restart(&mut cluster, program, 1)
                .await
                .expect(1, &["identity", named]);
            assert_eq!(
                fs::read_to_string(&file).expect("it is still there"),
                bad,
                "it is left as it is"
            );
        }
        fs::write(&file, good).expect("data can be written");
    }
    cluster.start_all();
    cluster.wait_until_ready().await;
    cluster.check_history(&[]).await;
}

/// Formed without a log is corruption, never an empty node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_log_is_corruption() {
    let mut cluster = Cluster::start(Options::quick().of(1)).await;
    cluster.submit(1, "something to hold").await.expect("all is well");
    cluster.kill_all().await;
    let folder = cluster.node(1).folder().to_owned();
    let mut removed = 0;
    for file in files(&folder) {
        let formed = fs::read(&file).expect("data can be read");
        if find_in(&formed, b"something to hold").is_some() {
            fs::remove_file(&file).expect("data can be removed");
            removed += 1;
        }
    }
    assert_eq!(removed, 1, "the operation is in one file");
    restart(&mut cluster, "raft-node", 1)
        .await
        .expect(1, &[&folder.display().to_string()]);
}

fn swap(one: &Path, other: &Path, aside: &Path) {
    for (from, to) in [(one, aside), (other, one), (aside, other)] {
        fs::rename(from, to).expect("folders can be renamed");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a data folder can be listed") {
            let path = entry.expect("a data folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The file and offset at which `needle` is first found.
fn find(folder: &Path, needle: &[u8]) -> (PathBuf, u64) {
    for file in files(folder) {
        let content = fs::read(&file).expect("data can be read");
        if let Some(place) = find_in(&content, needle) {
            return (file, place as u64);
        }
    }
    panic!(
        "{} is nowhere in {}",
        String::from_utf8_lossy(needle),
        folder.display()
    );
}

fn find_in(content: &[u8], needle: &[u8]) -> Option<usize> {
    content.windows(needle.len()).position(|window| window == needle)
}

fn flip(file: &Path, offset: u64) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(file)
        .expect("data can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("data can be read");
    file.write_all_at(&[byte[0] ^ 0x01], offset)
        .expect("data can be written");
}
