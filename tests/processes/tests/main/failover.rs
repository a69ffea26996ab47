//! Leaders that die, freeze and leave.

use processes::api;
use processes::cluster::{Cluster, Options};
use processes::seed;
use processes::wait::eventually;
use raftlog_proto::error::reason_of;
use raftlog_proto::v1::Role;
use rustix::process::Signal;
use std::time::{Duration, Instant};

const CLIENTS: u64 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_killed_under_load() {
    let (seed, _) = seed::announce("failover::leaders_are_killed_under_load");
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("killed", CLIENTS, seed);
    for _ in 0..3 {
        load.progresses_by(500).await;
        let before = cluster.leader_among(&cluster.numbers()).await;
        cluster.node(before.node).kill().await;
        let survivors = cluster.others(&[before.node]);
        let after = cluster.leader_among(&survivors).await;
        assert!(after.term > before.term, "{} after {}", after.term, before.term);
        load.progresses_by(500).await;
        cluster.node(before.node).start();
        cluster.wait_until_ready().await;
    }
    let history = load.stop().await;
    cluster.check_history(&history).await;
}

/// A frozen leader does not know that it was replaced; what it says after waking must not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_leader_steps_down_when_it_wakes() {
    let (seed, _) = seed::announce("failover::a_frozen_leader_steps_down_when_it_wakes");
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("frozen", CLIENTS, seed);
    load.progresses_by(500).await;
    let before = cluster.leader_among(&cluster.numbers()).await;
    let others = cluster.others(&[before.node]);

    let frozen = Instant::now();
    cluster.node(before.node).process().signal(Signal::STOP);
    let after = cluster.leader_among(&others).await;
    assert!(after.term > before.term);
    load.progresses_by(500).await;
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(frozen.elapsed())).await;
    cluster.node(before.node).process().signal(Signal::CONT);

    eventually("the woken leader to step down", async || {
        let status = cluster
            .status(before.node)
            .await
            .map_err(|error| error.to_string())?;
        let stepped_down = status.role() != Role::Leader && status.term > before.term;
        if stepped_down {
            Ok(())
        } else {
            Err(format!("{:?} of term {}", status.role(), status.term))
        }
    })
    .await;
    load.progresses_by(500).await;
    cluster.wait_until_ready().await;
    let history = load.stop().await;
    cluster.check_history(&history).await;
}

/// With an election timeout this long, a successor that leads sooner was told to by TimeoutNow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_stop_hands_over_first() {
    let (seed, _) = seed::announce("failover::a_leader_that_is_asked_to_stop_hands_over_first");
    let election_timeout = Duration::from_secs(6);
    let mut cluster = Cluster::start(Options::with_timings("6s..8s", "500ms")).await;
    let load = cluster.load("leaving", 8, seed);
    load.progresses_by(100).await;
    let before = cluster.leader_among(&cluster.numbers()).await;
    let others = cluster.others(&[before.node]);
    let leaving_port = cluster.port(before.node);

    let asked = Instant::now();
    cluster.node(before.node).process().signal(Signal::TERM);
    let forwarded = tokio::spawn(submit_until_refused(leaving_port));
    let after = cluster.leader_among(&others).await;
    let took = asked.elapsed();
    assert!(took < election_timeout, "the successor took {took:?}");
    assert_eq!(after.elected_by, "transfer");
    assert_eq!(after.term, before.term + 1);

    let status = cluster.node(before.node).process().wait().await;
    assert!(status.success(), "a graceful stop ends with 0, not with {status}");
    let leaders = forwarded.await.expect("the client of the leaving node failed");
    assert!(
        leaders.contains(&after.node),
        "it forwards while it leaves, but its clients saw leaders {leaders:?}"
    );

    load.progresses_by(100).await;
    cluster.node(before.node).start();
    cluster.wait_until_ready().await;
    let history = load.stop().await;
    cluster.check_history(&history).await;
}

/// Submits to a node that is leaving until it is gone; gives the leaders that it was told about.
async fn submit_until_refused(port: u16) -> Vec<u32> {
    let mut leaders = Vec::new();
    for count in 0_u64.. {
        match api::submit(port, format!("while leaving {count}")).await {
            Ok(answer) => leaders.push(answer.leader_node),
            // Between two leaders, a refusal with a reason is an answer.
            Err(status) if reason_of(&status).is_some() => {}
            Err(_) => break,
        }
        leaders.dedup();
    }
    leaders
}

/// As a script does that does not wait; a stopping node keeps its ports for seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_started_again_before_it_has_ended_waits_for_that() {
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    let load = cluster.load("haste", 4, 3);
    load.progresses_by(50).await;
    let leader = cluster.leader().await;
    assert!(cluster.node(leader).restart_in_haste().await.success());
    assert!(cluster.replicator(leader).restart_in_haste().await.success());
    cluster.wait_until_ready().await;
    load.progresses_by(50).await;
    let history = load.stop().await;
    cluster.check_history(&history).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_transferred_on_request() {
    let mut cluster = Cluster::start(Options::with_timings("6s..8s", "500ms")).await;
    let load = cluster.load("transfer", 8, 3);
    for _ in 0..3 {
        load.progresses_by(50).await;
        let before = cluster.leader().await;
        let target = cluster.others(&[before])[1];
        let asked = Instant::now();
        cluster
            .raftctl(&["leader", "transfer", &target.to_string()])
            .await
            .expect(0, &[]);
        let after = cluster.leader_among(&cluster.numbers()).await;
        assert!(
            asked.elapsed() < Duration::from_secs(6),
            "an election timeout elapsed: {:?}",
            asked.elapsed()
        );
        assert_eq!((after.node, after.elected_by.as_str()), (target, "transfer"));
    }
    load.progresses_by(50).await;
    let history = load.stop().await;
    cluster.check_history(&history).await;
}
