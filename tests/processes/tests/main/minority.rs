//! A node that holds something else than the others stops by itself, and comes back by `raftctl member replace`.

use processes::cluster::{Cluster, Options};
use raftlog_raft::entry::{Entry, Payload};
use raftlog_raft::fold::Fold;
use std::path::Path;

use crate::forged;

/// Has one operation in the log of a stopped node say something else. Everything after it goes on from that, and all
/// checksums are right: the node itself cannot see that anything is wrong. Its last running hash.
fn forge(folder: &Path, index: u64) -> u64 {
    let mut last = 0;
    forged::rewrite(folder, |entries: &mut Vec<Entry>, _| {
        let mut fold = Fold::default();
        for entry in entries.iter_mut() {
            let mut payload = entry.payload.clone();
            if let (true, Payload::Operation(operation)) = (entry.operation_index == index, &mut payload) {
                operation.data = "forged".into();
            }
            *entry = fold.next_entry(entry.log_index, entry.term, payload);
            fold.apply(entry);
        }
        last = fold.running_hash;
    });
    last
}

async fn submit(cluster: &Cluster, operations: std::ops::RangeInclusive<u32>) {
    let lines: Vec<String> = operations.map(|number| format!("number {number}")).collect();
    let lines = lines.join("\n");
    let submitted = cluster
        .raftctl_with(&["submit", "--stdin"], lines.as_bytes())
        .await;
    submitted.expect(0, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_in_the_minority_stops_says_so_and_comes_back_by_replacement() {
    let mut cluster = Cluster::start(Options::quick()).await;
    submit(&cluster, 1..=40).await;
    cluster.settled_logs(&cluster.numbers()).await;
    let leader = cluster.leader().await;
    let damaged = cluster.others(&[leader])[0];
    let healthy = cluster.others(&[damaged]);
    for more in [false, true] {
        // The second time, more was written while it was away.
        cluster.node(damaged).terminate().await;
        let forged = forge(cluster.node(damaged).folder(), 17);
        if more {
            submit(&cluster, 41..=80).await;
        }
        let right = cluster.status(leader).await.expect("it runs");
        cluster.node(damaged).start();
        let ended = cluster.node(damaged).process().wait().await;
        assert_eq!(ended.code(), Some(1));
        let said = cluster.node(damaged).process().stderr();
        let line = said.last().expect("it says why");
        let replace = format!("raftctl member replace {damaged}");
        for part in [
            "up to index 40",
            "running hash",
            &format!("{forged:016x}"),
            &replace,
        ] {
            assert!(line.contains(part), "{line} should say {part}");
        }
        if !more {
            let hash = right.commit_hash.expect("all is committed");
            assert!(line.contains(&format!("{hash:016x}")), "{line}");
        }
        cluster.wait_until_these_are_ready(&healthy).await;
    }

    cluster.node(damaged).delete_folder();
    cluster.node(damaged).start();
    cluster
        .wait_until_unready(damaged, &["does not list member"])
        .await;
    let replaced = cluster
        .raftctl(&["member", "replace", &damaged.to_string()])
        .await;
    replaced.expect(0, &[]);
    cluster.wait_until_ready().await;
    submit(&cluster, 81..=100).await;
    let logs = cluster.settled_logs(&cluster.numbers()).await;
    assert!(logs.values().all(|log| log.len() == 100));
    cluster.raftctl(&["verify"]).await.expect(0, &[]);
}
