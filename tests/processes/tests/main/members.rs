//! Members come and go.

use processes::cluster::{Cluster, Options};
use processes::wait::eventually;
use serde_json::Value;

/// A sixth node is added and promoted, the leader is removed, and a node that lost its disk is replaced, all of it under load:
/// nothing that was acknowledged is lost, and all who stay hold the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_under_load() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("members", 8, 11);
    load.progresses_by(100).await;

    let sixth = cluster.start_another();
    cluster
        .wait_until_unready(sixth, &["waits to be bootstrapped or added"])
        .await;
    let address = format!("127.0.0.1:{}", cluster.port(sixth));
    let add = ["member", "add", &address];
    let planned = cluster.raftctl(&[&add[..], &["--dry-run"]].concat()).await;
    let planned = planned.expect(0, &[]).text();
    assert!(
        planned.contains("dry run") && planned.contains("learners 6"),
        "{planned}"
    );
    assert_eq!(members(&cluster).await.len(), 5, "a dry run changes nothing");
    cluster.raftctl(&add).await.expect(0, &[]);
    cluster.raftctl(&add).await.expect(0, &[]);
    cluster.wait_until_these_are_ready(&[sixth]).await;
    cluster.promote(sixth).await;
    let voters = |members: &[(u32, bool)]| members.iter().filter(|(_, voter)| *voter).count();
    assert_eq!(voters(&members(&cluster).await), 6);
    load.progresses_by(100).await;

    let first = cluster.leader().await;
    let removed = cluster.raftctl(&["member", "remove", &first.to_string()]).await;
    let told = removed.expect(0, &[]).text();
    assert!(
        told.contains("quorum 4 of 6") && told.contains("quorum 3 of 5"),
        "{told}"
    );
    cluster
        .wait_until_unready(first, &["was removed from the cluster"])
        .await;
    let staying = cluster.others(&[first]);
    let second = cluster.leader_among(&staying).await.node;
    load.progresses_by(100).await;

    let lost = cluster.others(&[first, second])[0];
    cluster.node(lost).kill().await;
    cluster.node(lost).delete_folder();
    cluster.node(lost).start();
    cluster.wait_until_unready(lost, &["does not list member"]).await;
    let lost_number = lost.to_string();
    let judged = ["member", "replace", &lost_number, "--dry-run"];
    cluster.raftctl(&judged).await.expect(0, &[]);
    let replaced = cluster.raftctl(&["member", "replace", &lost_number]).await;
    replaced.expect(0, &[]);
    cluster.wait_until_these_are_ready(&[lost]).await;
    let all = members(&cluster).await;
    assert_eq!((all.len(), voters(&all)), (5, 5), "{all:?}");
    load.progresses_by(100).await;

    let history = load.stop().await;
    let logs = cluster.settled_logs(&staying).await;
    assert_eq!(processes::history::check(&history, &logs), Ok(()));
    // The new voters count: without two of the old ones there still is a majority.
    let old = cluster.others(&[first, lost, sixth]);
    cluster.node(old[0]).kill().await;
    cluster.node(old[1]).kill().await;
    cluster.leader_among(&[old[2], lost, sixth]).await;
    cluster.submit(sixth, "three of five").await.expect("a majority");

    // The removed one moves its data aside when it is started again, and waits as a new member.
    let before = cluster.status(first).await.expect("it runs").member_id;
    cluster.node(first).terminate().await;
    cluster.node(first).start();
    cluster.wait_until_unready(first, &["does not list member"]).await;
    assert_ne!(cluster.status(first).await.expect("it runs").member_id, before);
    let aside = cluster
        .node(first)
        .folder()
        .join(format!("removed-{before:016x}"));
    assert!(aside.join("identity").is_file(), "nothing is deleted");
    let again = format!("127.0.0.1:{}", cluster.port(first));
    cluster.raftctl(&["member", "add", &again]).await.expect(0, &[]);
    cluster.wait_until_these_are_ready(&[first]).await;
}

/// A member that is removed while it is away learns of it from the others, and its next start makes a new member of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_while_it_was_away_comes_back_as_a_new_member() {
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    let leader = cluster.leader().await;
    let away = cluster.others(&[leader])[0];
    let before = cluster.status(away).await.expect("it runs").member_id;
    cluster.node(away).kill().await;
    cluster
        .raftctl(&["member", "remove", &away.to_string()])
        .await
        .expect(0, &[]);
    cluster.node(away).start();
    cluster
        .wait_until_unready(away, &["was removed from the cluster", "start it again"])
        .await;
    cluster.node(away).kill().await;
    cluster.node(away).start();
    cluster.wait_until_unready(away, &["does not list member"]).await;
    assert_ne!(cluster.status(away).await.expect("it runs").member_id, before);
    let aside = cluster.node(away).folder().join(format!("removed-{before:016x}"));
    assert!(aside.join("identity").is_file(), "nothing is deleted");
    let address = format!("127.0.0.1:{}", cluster.port(away));
    cluster.raftctl(&["member", "add", &address]).await.expect(0, &[]);
    cluster.wait_until_these_are_ready(&[away]).await;
}

/// A node that was removed and starts again finds none of its first peers in a cluster: it is the only one of them. It must not
/// become a second cluster beside the one that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_forms_no_second_cluster() {
    let mut cluster = Cluster::start(Options::quick().of(1)).await;
    let second = cluster.start_another();
    let address = |node, cluster: &Cluster| format!("127.0.0.1:{}", cluster.port(node));
    let add = ["member", "add", &address(second, &cluster)].map(str::to_owned);
    let add: Vec<&str> = add.iter().map(String::as_str).collect();
    cluster.raftctl(&add).await.expect(0, &[]);
    cluster.wait_until_these_are_ready(&[second]).await;
    cluster.promote(second).await;
    cluster.raftctl(&["member", "remove", "1"]).await.expect(0, &[]);
    cluster
        .wait_until_unready(1, &["was removed from the cluster"])
        .await;
    for _ in 0..2 {
        cluster.node(1).terminate().await;
        cluster.node(1).start();
        cluster
            .wait_until_unready(1, &["it was removed from one", "waits to be added"])
            .await;
    }
    let before = cluster.status(second).await.expect("it runs").cluster_id;
    let again = address(1, &cluster);
    cluster.raftctl(&["member", "add", &again]).await.expect(0, &[]);
    cluster.wait_until_these_are_ready(&[1]).await;
    assert_eq!(cluster.status(1).await.expect("it runs").cluster_id, before);
}

/// What could not work is refused, in one line and with a code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_lose_quorum_is_refused() {
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    let leader = cluster.leader().await;
    let others = cluster.others(&[leader]);
    let (dead, alive) = (others[0].to_string(), others[1].to_string());
    cluster
        .raftctl(&["member", "remove", "9"])
        .await
        .expect(1, &["node 9"]);
    cluster
        .raftctl(&["member", "replace", &dead])
        .await
        .expect(1, &["still is member"]);
    // A mistaken address must not make one voter fewer of it.
    let of_a_voter = cluster.address(others[1]).to_string();
    cluster
        .raftctl(&["member", "replace", &dead, &of_a_voter])
        .await
        .expect(1, &["is a voter already"]);
    cluster.node(others[0]).kill().await;
    eventually("the leader to miss it", async || {
        let refused = cluster.raftctl(&["member", "remove", &alive, "--dry-run"]).await;
        if refused.code == 3 {
            Ok(())
        } else {
            Err(refused.text())
        }
    })
    .await;
    cluster
        .raftctl(&["member", "remove", &alive])
        .await
        .expect(3, &["1 of the 2 voters", "nothing was changed"]);
    cluster.raftctl(&["member", "remove", &dead]).await.expect(0, &[]);
    // Whoever was down when it was removed learns it when it comes back.
    cluster.node(others[0]).start();
    cluster
        .wait_until_unready(others[0], &["was removed from the cluster"])
        .await;
    cluster
        .submit(leader, "two of two")
        .await
        .expect("both are there");
}

/// Node numbers of all members, and whether they vote.
async fn members(cluster: &Cluster) -> Vec<(u32, bool)> {
    let listed = cluster.raftctl(&["member", "list", "-o", "json"]).await;
    let listed: Value = serde_json::from_str(&listed.expect(0, &[]).text()).expect("-o json is JSON");
    let members = listed["members"].as_array().expect("a list of members");
    members
        .iter()
        .map(|member| {
            let node = member["node"].as_u64().and_then(|node| u32::try_from(node).ok());
            let role = member["role"].as_str().expect("a role");
            (node.expect("a node number"), role != "learner")
        })
        .collect()
}
