//! With and without a majority.

use processes::cluster::{Cluster, Options};
use processes::wait::{eventually, holds_for};
use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use raftlog_proto::v1::Role;
use std::time::Duration;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_five_down_works_and_three_do_not() {
    let mut cluster = Cluster::start(Options::with_default_timings()).await;
    let leader = cluster.leader().await;
    let down = &cluster.others(&[leader])[..3];
    let up = cluster.others(down);

    for &node in &down[..2] {
        cluster.node(node).kill().await;
    }
    cluster.raftctl(&["submit", "with two down"]).await.expect(0, &[]);

    // The leader does not know yet that it lost its quorum: it appends, and can never commit.
    cluster.node(down[2]).kill().await;
    let mut in_flight = cluster.start_raftctl("in flight", &["submit", "in flight"]);
    let status = in_flight.wait().await;
    assert_eq!(
        status.code(),
        Some(4),
        "stdout: {:?}\nstderr: {:?}",
        in_flight.stdout(),
        in_flight.stderr()
    );

    for &node in &up {
        cluster.wait_until_unready(node, &["eader"]).await;
    }
    cluster
        .raftctl(&["submit", "without a leader"])
        .await
        .expect(3, &["leader"]);
    let refused = cluster
        .submit(up[0], "without a leader")
        .await
        .expect_err("there is no leader");
    assert_eq!(
        (refused.code(), reason_of(&refused).as_deref()),
        (Code::Unavailable, Some(reason::NO_LEADER))
    );
    holds_for(
        Duration::from_secs(4),
        "no leader without a majority",
        async || {
            for &node in &up {
                let status = cluster.status(node).await.map_err(|error| error.to_string())?;
                if status.role() == Role::Leader {
                    return Err(format!("node {node} leads term {}", status.term));
                }
            }
            Ok(())
        },
    )
    .await;

    cluster.start_all();
    cluster.wait_until_ready().await;
    cluster.raftctl(&["submit", "back"]).await.expect(0, &[]);
    let log = cluster.check_history(&[]).await;
    let held: Vec<&[u8]> = log.iter().map(|logged| logged.data.as_ref()).collect();
    let expected: &[&[u8]] = match held.len() {
        2 => &[b"with two down", b"back"],
        _ => &[b"with two down", b"in flight", b"back"],
    };
    assert_eq!(
        held, expected,
        "refused operations are nowhere, one of unknown outcome is there once or not at all"
    );
}

/// Sessions hold across leaders and restarts of everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_is_appended_once() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let submit = async |cluster: &Cluster, node: u32| {
        eventually("a repeated submission to be answered", async || {
            let answer =
                processes::api::submit_in_session(cluster.port(node), "repeater", 7, "only once").await;
            answer.map_err(|error| error.to_string())
        })
        .await
    };
    let first = submit(&cluster, 1).await;
    assert_eq!(first.index, 1);
    for node in cluster.numbers() {
        assert_eq!(submit(&cluster, node).await.index, 1, "through node {node}");
    }
    let leader = cluster.leader().await;
    cluster.node(leader).kill().await;
    let survivors = cluster.others(&[leader]);
    cluster.leader_among(&survivors).await;
    assert_eq!(
        submit(&cluster, survivors[0]).await.index,
        1,
        "under a new leader"
    );
    cluster.node(leader).start();
    cluster.kill_all().await;
    cluster.start_all();
    cluster.wait_until_ready().await;
    assert_eq!(
        submit(&cluster, leader).await.index,
        1,
        "after a restart of everything"
    );
    let next = cluster
        .submit(leader, "another")
        .await
        .expect("all is well again");
    assert_eq!(next.index, 2, "repeats take no index");
    cluster.check_history(&[]).await;
}
