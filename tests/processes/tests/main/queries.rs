//! Queries: what executors are asked through nodes, whatever happens to leaders and replicators.

use processes::api;
use processes::cluster::{Cluster, Options};
use processes::linearizability::History;
use processes::readers::Readers;
use processes::seed;
use processes::wait::eventually;
use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use rustix::process::Signal;
use std::collections::BTreeSet;
use tonic::Code;

/// A leader that wakes up does not know for a while that it was replaced, nor does its replicator.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_through_every_node_are_linearizable_while_leaders_die_and_freeze() {
    let test = "queries::queries_through_every_node_are_linearizable_while_leaders_die_and_freeze";
    let (seed, _) = seed::announce(test);
    let mut cluster = Cluster::start(Options::quick()).await;
    let load = cluster.load("queried", 8, seed);
    let numbers = cluster.numbers();
    let pods: Vec<_> = numbers
        .iter()
        .map(|&node| (node, cluster.address(node), cluster.replicator_address(node)))
        .collect();
    let readers = Readers::start(&pods, 8, load.began(), seed);
    for signal in [Signal::KILL, Signal::STOP, Signal::KILL, Signal::STOP] {
        load.progresses_by(100).await;
        let before = cluster.leader_among(&numbers).await;
        cluster.node(before.node).process().signal(signal);
        let others = cluster.others(&[before.node]);
        cluster.leader_among(&others).await;
        load.progresses_by(100).await;
        if signal == Signal::STOP {
            cluster.node(before.node).process().signal(Signal::CONT);
        } else {
            cluster.node(before.node).kill().await;
            cluster.node(before.node).start();
            cluster.replicator(before.node).kill().await;
            cluster.replicator(before.node).start();
        }
        load.progresses_by(100).await;
        cluster.wait_until_ready().await;
    }
    load.progresses_by(100).await;
    let (told, read) = (load.finish().await, readers.finish().await);
    let asked: BTreeSet<u32> = read.queries.iter().map(|query| query.replicator).collect();
    println!(
        "{} queries were answered, {} reads",
        read.queries.len(),
        read.reads.len()
    );
    assert_eq!(asked, numbers.iter().copied().collect(), "every node answers");
    let history = History {
        acknowledged: told.acknowledged,
        unanswered: told.unanswered,
        reads: [read.reads, read.queries].concat(),
        views: read.views,
    };
    cluster.check_linearizability(&history).await;
}

/// Whoever is told that an operation is committed sees it in the next query, through whichever node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_sees_what_was_acknowledged_just_before() {
    for lease_reads in ["true", "false"] {
        let mut options = Options::quick().of(3);
        options
            .node_flags
            .extend(["--lease-reads", lease_reads].map(str::to_owned));
        let mut cluster = Cluster::start(options).await;
        let mut nodes: Vec<_> = cluster.addresses().into_iter().map(api::operations).collect();
        for round in 0..50_usize {
            let submitted = cluster.submit(1, format!("operation {round}")).await;
            let index = submitted.expect("all is well").index;
            let node = &mut nodes[round % 3];
            let last = api::query(node, "last", false).await.expect("all is well");
            assert!(
                last.index >= index,
                "{} of {index}, leases: {lease_reads}",
                last.index
            );
            let same = api::query(node, &index.to_string(), false).await;
            assert_eq!(same.expect("it is executed").result, format!("operation {round}"));
        }
        cluster.check_history(&[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_answers_stale_queries_only() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let leader = cluster.leader().await;
    let submitted = cluster.submit(leader, "before").await.expect("all is well");
    cluster.settled_logs(&cluster.numbers()).await;
    let down = &cluster.others(&[leader])[..3];
    for &node in down {
        cluster.node(node).process().signal(Signal::STOP);
    }
    for node in cluster.others(down) {
        let mut client = api::operations(cluster.address(node));
        let stale = api::query(&mut client, "last", true)
            .await
            .expect("it asks nobody");
        assert_eq!((stale.index, &*stale.result), (submitted.index, &b"before"[..]));
        eventually(
            "the lease to be over and the leader to be gone",
            async || match api::query(&mut client, "last", false).await {
                Ok(_) => Err("it answers".to_owned()),
                Err(refused) => {
                    assert_eq!(
                        reason_of(&refused).as_deref(),
                        Some(reason::NO_LEADER),
                        "{refused}"
                    );
                    Ok(())
                }
            },
        )
        .await;
        let stale = api::query(&mut client, "last", true)
            .await
            .expect("it asks nobody");
        assert_eq!(stale.index, submitted.index);
    }
    for &node in down {
        cluster.node(node).process().signal(Signal::CONT);
    }
    cluster.wait_until_ready().await;
    cluster.raftctl(&["query", "last"]).await.expect(0, &["before"]);
    cluster.check_history(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_replicator_costs_a_query_its_deadline_and_another_node_answers() {
    let mut cluster = Cluster::start(Options::quick().of(3)).await;
    let submitted = cluster.submit(1, "before").await.expect("all is well");
    cluster.settled_logs(&cluster.numbers()).await;
    cluster.replicator(2).process().signal(Signal::STOP);
    let mut frozen = api::operations(cluster.address(2));
    let stuck = api::query(&mut frozen, "last", true)
        .await
        .expect_err("it is frozen");
    assert_eq!(stuck.code(), Code::DeadlineExceeded, "{stuck}");
    assert_eq!(
        reason_of(&stuck).as_deref(),
        Some(reason::NOT_EXECUTED),
        "{stuck}"
    );
    // By and by the node finds out that nobody is there.
    let refused = eventually("the frozen replicator to be noticed", async || match api::query(
        &mut frozen,
        "last",
        false,
    )
    .await
    {
        Ok(answer) => panic!("a frozen replicator answers {answer:?}"),
        Err(refused) if reason_of(&refused).as_deref() == Some(reason::NO_REPLICATOR) => Ok(refused),
        Err(other) => Err(other.to_string()),
    })
    .await;
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let last = cluster.raftctl(&["-o", "raw", "query", "last"]).await;
    assert_eq!(last.expect(0, &[]).text(), "before\n");
    cluster.replicator(2).process().signal(Signal::CONT);
    eventually("it to answer again", async || {
        let last = api::query(&mut frozen, "last", false).await;
        let last = last.map_err(|refused| refused.to_string())?;
        assert_eq!(last.index, submitted.index);
        Ok(())
    })
    .await;
    cluster.check_history(&[]).await;
}
