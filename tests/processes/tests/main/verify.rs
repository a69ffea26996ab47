//! `raftctl verify`: replicas that no checksum can tell apart.

use bytes::{Buf, Bytes};
use processes::cluster::{Cluster, Options};
use processes::wait::eventually;
use raftlog_raft::fold::running_hash;
use raftlog_replicator::core::Operation;
use std::path::Path;

use crate::forged;

const OPERATIONS: u64 = 40;
const FORGED: u64 = 17;
/// Where a replicator's state tells its places, the commit place first.
const PLACES: usize = 17;

/// Has one operation in the log of a stopped replicator say something else. Everything after it goes on from that, and all
/// checksums are right: the replicator itself cannot see that anything is wrong.
fn forge(folder: &Path, index: u64) {
    forged::rewrite(folder, |operations: &mut Vec<Operation>, state| {
        let mut hash = 0;
        for operation in operations.iter_mut() {
            if operation.index == index {
                operation.data = "forged".into();
            }
            hash = running_hash(hash, operation.index, operation.term, &operation.data);
            operation.running_hash = hash;
        }
        let committed = state.slice(PLACES..).get_u64_le();
        assert!(committed >= index, "it is committed there");
        *state = with_hashes_of(operations, state);
    });
}

/// The replicator's state ends with places, each an index, a term and a running hash.
fn with_hashes_of(operations: &[Operation], state: &Bytes) -> Bytes {
    let (head, mut places) = (state.slice(..PLACES), state.slice(PLACES..));
    let mut forged = head.to_vec();
    while places.has_remaining() {
        let (index, term, _) = (places.get_u64_le(), places.get_u64_le(), places.get_u64_le());
        let hash = operations
            .iter()
            .find(|operation| operation.index == index)
            .map_or(0, |operation| operation.running_hash);
        for number in [index, term, hash] {
            forged.extend(number.to_le_bytes());
        }
    }
    forged.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_operation_that_differs_is_named() {
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    let lines: Vec<String> = (1..=OPERATIONS)
        .map(|number| format!("number {number}"))
        .collect();
    let lines = lines.join("\n");
    let submitted = cluster
        .raftctl_with(&["submit", "--stdin"], lines.as_bytes())
        .await;
    submitted.expect(0, &[]);
    cluster.settled_logs(&cluster.numbers()).await;
    let equal = cluster.raftctl(&["verify"]).await;
    equal.expect(0, &[]);
    assert_eq!(
        equal.text().trim(),
        "equal up to index 40 on 3 of 3 replicators; 3 of 3 nodes agree"
    );

    cluster.replicator(2).kill().await;
    let address = cluster.replicator_address(2).to_string();
    let incomplete = cluster.raftctl(&["verify"]).await;
    incomplete.expect(1, &["not everything", &address]);
    assert!(
        incomplete.text().contains("on 2 of 3 replicators"),
        "{incomplete:?}"
    );
    cluster.replicator(2).start();

    // Gracefully: what it does not know to be committed its node would replace.
    cluster.replicator(3).terminate().await;
    forge(cluster.replicator(3).folder(), FORGED);
    cluster.replicator(3).start();
    cluster.wait_until_unready(3, &["q4node3 is not connected"]).await;
    cluster.wait_until_these_are_ready(&[1, 2]).await;
    eventually("node 3 to say what is wrong", async || {
        let said = cluster.node(3).stories().concat();
        let told = said
            .iter()
            .any(|line| line.contains("other operations up to index 40") && line.contains("raftctl verify"));
        told.then_some(()).ok_or_else(|| format!("{said:#?}"))
    })
    .await;
    let different = eventually("the replicator to serve what it holds", async || {
        let verified = cluster.raftctl(&["verify"]).await;
        if verified.text().contains("forged") {
            Ok(verified)
        } else {
            Err(format!("{verified:?}"))
        }
    })
    .await;
    different.expect(
        1,
        &["from index 17 on", "minority: 3", "replicator of node 3, delete"],
    );
    for part in ["on 2 of 3 replicators", "3 of 3 nodes agree", "number 17"] {
        assert!(different.text().contains(part), "{part}: {different:?}");
    }
    let told = cluster.raftctl(&["verify", "-o", "json"]).await;
    told.expect(1, &["index 17"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(told["differences"][0]["index"], FORGED, "{told}");
    assert_eq!(told["differences"][0]["sides"][1]["nodes"][0], 3, "{told}");

    cluster.replicator(3).kill().await;
    cluster.replicator(3).delete_folder();
    cluster.replicator(3).start();
    cluster.wait_until_ready().await;
    cluster.settled_logs(&cluster.numbers()).await;
    cluster.raftctl(&["verify"]).await.expect(0, &[]);
}
