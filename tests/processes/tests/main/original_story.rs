//! The story that the log lines tell: each line of the contract, whole, on the process that it belongs to.

use processes::binaries;
use processes::cluster::{Cluster, Options};
use processes::process::Process;
use std::time::{Duration, Instant};

/// The test case this system began with: start, wait for a leader, submit one operation through a follower, and follow it
/// through all eleven processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_operation_through_a_follower() {
    let mut cluster = Cluster::start(Options::with_default_timings()).await;
    let leader = cluster.leader().await;
    let followers = cluster.others(&[leader]);
    let via = followers[0];

    let endpoint = format!("127.0.0.1:{}", cluster.port(via));
    let arguments = ["--endpoints", &endpoint, "client", "--interval", "1h"];
    let mut client = Process::spawn("client", binaries::path("raftctl"), &arguments);
    client
        .says("Client sends RPC SubmitClientRequest to Node Cluster Leader.")
        .await;
    let port = cluster.port(leader);
    let accepted = format!(
        "[CLIENT] Leader node{leader}:{port} accepted → Operation 'operation-1' committed at index 1"
    );
    client.says(&accepted).await;

    let node = cluster.node(via).process();
    node.says(&format!(
        "Node {via} runs RPC SubmitClientRequest called by a client."
    ))
    .await;
    node.says(&format!("Node {via} forwards client req to Leader {leader}"))
        .await;
    for follower in followers {
        let line = format!("Leader Node {leader} sends AppendEntries (Heartbeat) to Node {follower}");
        cluster.node(leader).process().says(&line).await;
        let line = format!("Node {follower} runs RPC AppendEntries called by Node {leader}");
        cluster.node(follower).process().says(&line).await;
    }
    for node in cluster.numbers() {
        let line = format!("Node {node} sends RPC ReplicateLog to Node q4node{node}");
        cluster.node(node).process().says(&line).await;
        let replicator = cluster.replicator(node).process();
        replicator
            .says(&format!(
                "Node {node} runs RPC ReplicateLog called by Node {node}"
            ))
            .await;
        replicator
            .says(&format!("Node {node} executes op=operation-1 at index=1"))
            .await;
        let story = replicator.stdout();
        let position = |line: String| story.iter().position(|said| *said == line);
        let committed = position(format!("Node {node}: commitIndex=1, total entries=1"));
        let executed = position(format!("Node {node} executes op=operation-1 at index=1"));
        assert!(
            committed.is_some() && committed < executed,
            "commitIndex comes before executes: {story:#?}"
        );
    }
    let only = |lines: Vec<String>, what: &str| lines.iter().filter(|line| line.contains(what)).count();
    for node in cluster.others(&[via]) {
        let story = cluster.node(node).process().stdout();
        assert_eq!(
            only(story, "forwards client req"),
            0,
            "node {node} was not asked by the client"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_election_is_told_by_both_sides() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let leader = cluster.leader().await;
    let others = cluster.others(&[leader]);
    for &other in &others {
        let line = format!("Node {leader} sends RPC RequestVote to Node {other}");
        cluster.node(leader).process().says(&line).await;
    }
    let mut asked = 0;
    for &other in &others {
        let line = format!("Node {other} runs RPC RequestVote called by Node {leader}");
        asked += usize::from(cluster.node(other).process().stdout().contains(&line));
    }
    assert!(
        asked >= 2,
        "a leader needs two more votes of five, and {asked} nodes were asked"
    );
}

/// Heartbeat lines come at the interval, for every follower, and batches under load print none of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeat_lines_keep_their_pace_under_load() {
    let mut cluster = Cluster::start(Options::with_default_timings()).await;
    let leader = cluster.leader().await;
    let followers = cluster.others(&[leader]);
    let load = cluster.load("pace", 8, 1);
    load.progresses_by(1).await;
    let mark = cluster.node(leader).process().mark();
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let story = cluster.node(leader).process().stdout();
    let intervals = began.elapsed().as_secs();
    let history = load.stop().await;
    for follower in followers {
        let line = format!("Leader Node {leader} sends AppendEntries (Heartbeat) to Node {follower}");
        let count = story[mark..].iter().filter(|said| **said == line).count() as u64;
        assert!(
            (intervals - 2..=intervals + 2).contains(&count),
            "{count} heartbeats to node {follower} in {intervals} s and {} operations",
            history.len()
        );
    }
    assert_eq!(
        cluster.leader().await,
        leader,
        "nothing happened that would excuse another pace"
    );
    cluster.check_history(&history).await;
}

/// SubmitClientRequest, forward and ReplicateLog lines pass a token bucket of 20 and then 10 a second; executes lines
/// are never dropped, and the last commitIndex line tells the last state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_told_in_part_and_executed_in_full() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let began = Instant::now();
    let load = cluster.load("flood", 32, 2);
    load.progresses_by(2_000).await;
    let history = load.stop().await;
    let log = cluster.check_history(&history).await;
    let total = log.len();
    for node in cluster.numbers() {
        let last = format!("Node {node}: commitIndex={total}, total entries={total}");
        cluster.replicator(node).process().says(&last).await;
        let allowed = 20 + 10 * usize::try_from(began.elapsed().as_secs() + 2).expect("a short test");
        for (line, story) in [
            (
                format!("Node {node} runs RPC SubmitClientRequest called by a client."),
                cluster.node(node).stories(),
            ),
            (
                format!("Node {node} sends RPC ReplicateLog to Node q4node{node}"),
                cluster.node(node).stories(),
            ),
            (
                format!("Node {node} runs RPC ReplicateLog called by Node {node}"),
                cluster.replicator(node).stories(),
            ),
        ] {
            let count = story.iter().flatten().filter(|said| **said == line).count();
            assert!(
                (1..=allowed).contains(&count),
                "'{line}' {count} times with {allowed} allowed"
            );
        }
    }
}
