//! Data folders that are lost.

use processes::cluster::{Cluster, Options};
use processes::wait::holds_for;
use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use raftlog_proto::v1::Role;
use std::collections::BTreeSet;
use std::time::Duration;

/// Many election timeouts of [`Options::quick`].
const A_WHILE: Duration = Duration::from_secs(5);

/// The first start needs everybody, and says who is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_forms_once_everybody_is_there() {
    let mut cluster = Cluster::prepare(Options::quick()).await;
    for node in 1..=4 {
        cluster.replicator(node).start();
        cluster.node(node).start();
    }
    for node in 1..=4 {
        cluster.wait_until_unready(node, &["Node 5"]).await;
    }
    let refused = cluster
        .submit(1, "too early")
        .await
        .expect_err("there is no cluster yet");
    let reason = reason_of(&refused);
    assert!(
        matches!(reason.as_deref(), Some(reason::NO_LEADER)),
        "{refused:?}"
    );
    holds_for(Duration::from_secs(2), "no cluster without node 5", async || {
        nobody_is_formed(&cluster, &[1, 2, 3, 4]).await
    })
    .await;
    cluster.replicator(5).start();
    cluster.node(5).start();
    cluster.wait_until_ready().await;
    cluster.submit(5, "now").await.expect("the cluster has formed");
    let identities: BTreeSet<u64> = identities(&cluster).await.into_iter().collect();
    assert_eq!(identities.len(), 5, "every member has an ID of its own");
}

/// A node whose disk is lost is a new member: counted as the old one, it could vote twice in a term or forget what it
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_folder_is_not_the_voter_it_was() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("folder", 16, 6);
    load.progresses_by(200).await;
    let leader = cluster.leader().await;
    let lost = cluster.others(&[leader])[0];
    let member = cluster.status(lost).await.expect("it runs").member_id;
    cluster.node(lost).kill().await;
    cluster.node(lost).delete_folder();
    load.progresses_by(200).await;
    cluster.node(lost).start();
    let why = cluster.wait_until_unready(lost, &["does not list member"]).await;
    println!("node {lost} says: {why}");
    let status = cluster.status(lost).await.expect("it runs");
    assert_ne!(status.member_id, member, "a lost identity is never made up again");
    load.progresses_by(200).await;
    let history = load.stop().await;

    // Of the four real voters two are killed: with the vote of the fifth, the others could elect a leader.
    let killed = [leader, cluster.others(&[leader, lost])[0]];
    for node in killed {
        cluster.node(node).kill().await;
    }
    let left = cluster.others(&killed);
    for &node in &left {
        cluster.wait_until_unready(node, &[]).await;
    }
    holds_for(
        A_WHILE,
        "no leader with a majority of old voters missing",
        async || {
            for &node in &left {
                let status = cluster.status(node).await.map_err(|error| error.to_string())?;
                let leads = status.role() == Role::Leader;
                let campaigns = node == lost && matches!(status.role(), Role::Candidate | Role::PreCandidate);
                if leads || campaigns {
                    return Err(format!(
                        "node {node} is {:?} of term {}",
                        status.role(),
                        status.term
                    ));
                }
            }
            Ok(())
        },
    )
    .await;

    for node in killed {
        cluster.node(node).start();
    }
    let voters = cluster.others(&[lost]);
    cluster.wait_until_these_are_ready(&voters).await;
    cluster
        .submit(voters[0], "four voters work")
        .await
        .expect("four of five voters are a majority");
    let logs = cluster.settled_logs(&voters).await;
    assert_eq!(processes::history::check(&history, &logs), Ok(()));
    cluster.wait_until_unready(lost, &["does not list member"]).await;
}

/// Three empty nodes are a majority of the flags, not of the cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_lost_folders_make_no_second_cluster() {
    let mut cluster = Cluster::start(Options::quick()).await;
    cluster.submit(1, "before").await.expect("all is well");
    cluster.settled_logs(&cluster.numbers()).await;
    let lost = [1, 2, 3];
    cluster.kill_all().await;
    for node in lost {
        cluster.node(node).delete_folder();
        cluster.replicator(node).delete_folder();
    }
    // Alone, they wait for the others, of which they know nothing.
    for node in lost {
        cluster.replicator(node).start();
        cluster.node(node).start();
    }
    for node in lost {
        cluster.wait_until_unready(node, &["Node 4", "Node 5"]).await;
    }
    holds_for(
        A_WHILE,
        "no second cluster while the others are down",
        async || nobody_is_formed(&cluster, &lost).await,
    )
    .await;
    // With the others, they learn that there is a cluster and that they do not belong to it.
    cluster.start_all();
    for node in lost {
        cluster.wait_until_unready(node, &["does not list member"]).await;
    }
    for node in [4, 5] {
        cluster.wait_until_unready(node, &["eader"]).await;
    }
    holds_for(A_WHILE, "no second cluster beside the others", async || {
        nobody_is_formed(&cluster, &lost).await?;
        for node in [4, 5] {
            let status = cluster.status(node).await.map_err(|error| error.to_string())?;
            if status.role() == Role::Leader {
                return Err(format!("node {node} leads with two of five voters"));
            }
        }
        Ok(())
    })
    .await;
    cluster
        .raftctl(&["submit", "nobody takes this"])
        .await
        .expect(3, &["leader"]);
}

async fn nobody_is_formed(cluster: &Cluster, nodes: &[u32]) -> Result<(), String> {
    for &node in nodes {
        let status = cluster.status(node).await.map_err(|error| error.to_string())?;
        if status.role() != Role::Unformed || status.cluster_id != 0 {
            return Err(format!(
                "node {node} is {:?} in cluster {:016x}",
                status.role(),
                status.cluster_id
            ));
        }
    }
    Ok(())
}

async fn identities(cluster: &Cluster) -> Vec<u64> {
    let mut identities = Vec::new();
    for node in cluster.numbers() {
        identities.push(cluster.status(node).await.expect("it runs").member_id);
    }
    identities
}
