//! Only the leader's replicator executes, on behalf of all, while leaders are killed.

use processes::api;
use processes::cluster::{Cluster, Options};
use processes::history::Logged;
use processes::seed;
use processes::wait::eventually;
use raftlog_proto::v1::{SubmitClientRequestRequest, WaitFor};

const NODES: u32 = 3;

fn on_leader() -> Options {
    let mut options = Options::quick().of(NODES);
    let flags = ["--execute-on", "leader"];
    options.replicator_flags.extend(flags.map(str::to_owned));
    options
}

/// What one replicator executed while its node led, in one go.
#[derive(Debug)]
struct Stint {
    term: u64,
    /// What was executed before, as it said itself.
    after: u64,
    lines: Vec<String>,
}

/// All of them, by term.
fn stints(cluster: &mut Cluster) -> Vec<Stint> {
    let mut stints: Vec<Stint> = Vec::new();
    for node in cluster.numbers() {
        for run in cluster.replicator(node).stories() {
            let mut current: Option<Stint> = None;
            for line in run {
                if let Some(begun) = begins(node, &line) {
                    stints.extend(current.replace(begun));
                } else if line.starts_with(&format!("Node {node} executes op=")) {
                    let stint = current.as_mut();
                    let stint = stint.unwrap_or_else(|| panic!("nobody told replicator {node} to: {line}"));
                    stint.lines.push(line);
                }
            }
            stints.extend(current);
        }
    }
    // Of the same term they are of the same replicator, and in their order.
    stints.sort_by_key(|stint| stint.term);
    stints
}

/// `Node 2 leads term 3: its replicator executes for all, after index 7`.
fn begins(node: u32, line: &str) -> Option<Stint> {
    let rest = line.strip_prefix(&format!("Node {node} leads term "))?;
    let (term, after) = rest.split_once(": its replicator executes for all, after index ")?;
    Some(Stint {
        term: term.parse().ok()?,
        after: after.parse().ok()?,
        lines: Vec::new(),
    })
}

/// Everything in order and nothing skipped; what is repeated follows the mark behind which a leader begins.
fn check(stints: &[Stint], log: &[Logged]) {
    let (mut executed, mut after) = (0, 0);
    for stint in stints {
        assert!(
            (after..=executed).contains(&stint.after),
            "term {} begins after {}, where {executed} were executed and {after} marked",
            stint.term,
            stint.after
        );
        after = stint.after;
        let mut last = stint.after;
        for line in &stint.lines {
            last += 1;
            let place = usize::try_from(last - 1).expect("it is short");
            let logged = &log[place];
            let said = format!(
                " executes op={} at index={last}",
                String::from_utf8_lossy(&logged.data)
            );
            assert!(
                line.ends_with(&said),
                "term {}: {line}, and not{said}",
                stint.term
            );
        }
        executed = executed.max(last);
    }
    assert_eq!(executed, log.len() as u64, "all is executed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_executed_in_order_while_leaders_are_killed() {
    const KILLS: u32 = 6;
    let (seed, _) =
        seed::announce("execution_on_leader::everything_is_executed_in_order_while_leaders_are_killed");
    let mut cluster = Cluster::start(on_leader()).await;
    let load = cluster.load("leaders", 32, seed);
    for kill in 0..KILLS {
        load.progresses_by(400).await;
        let before = cluster.leader_among(&cluster.numbers()).await;
        // With its replicator or without, which goes on under the next leader where the mark is.
        cluster.node(before.node).kill().await;
        if kill % 2 == 0 {
            cluster.replicator(before.node).kill().await;
        }
        let survivors = cluster.others(&[before.node]);
        let after = cluster.leader_among(&survivors).await;
        assert!(after.term > before.term);
        load.progresses_by(400).await;
        cluster.node(before.node).start();
        if kill % 2 == 0 {
            cluster.replicator(before.node).start();
        }
        cluster.wait_until_ready().await;
    }
    // The leader's replicator alone, too, which leads on in the same term.
    let leader = cluster.leader().await;
    cluster.replicator(leader).kill().await;
    load.progresses_by(200).await;
    cluster.replicator(leader).start();
    cluster.wait_until_ready().await;
    let history = load.stop().await;
    let logs = cluster.settled_logs(&cluster.numbers()).await;
    assert_eq!(processes::history::check(&history, &logs), Ok(()));
    let log = &logs[&leader];
    // The mark reaches everybody.
    cluster.wait_until_executed(log.len() as u64).await;
    let stints = stints(&mut cluster);
    check(&stints, log);
    assert!(stints.len() > KILLS as usize, "{} stints", stints.len());
    assert!(
        stints.iter().any(|stint| stint.after > 0),
        "nobody went on behind a mark"
    );
    let again = stints.iter().map(|stint| stint.lines.len()).sum::<usize>() - log.len();
    assert!(again < log.len(), "{again} of {} again", log.len());
}

/// A graceful change of leaders, and what clients hear that wait for execution.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_execution_is_answered_and_below_the_mark_at_once() {
    let mut cluster = Cluster::start(on_leader()).await;
    let submit = async |cluster: &Cluster, sequence: u64| {
        let request = SubmitClientRequestRequest {
            operation: format!("operation-{sequence}").into(),
            client_id: "patient".to_owned(),
            sequence,
            wait_for: WaitFor::Executed.into(),
            ..SubmitClientRequestRequest::default()
        };
        let mut client = api::operations(cluster.address(1));
        let answer = api::call(client.submit_client_request(request)).await;
        answer.unwrap_or_else(|status| panic!("operation {sequence}: {status}"))
    };
    for sequence in 1..=5 {
        let answer = submit(&cluster, sequence).await;
        assert_eq!((answer.index, answer.result_available), (sequence, false));
    }
    // The executor has no results to give, and what is marked is not executed again for one.
    cluster.wait_until_executed(5).await;
    let before = cluster.leader_among(&cluster.numbers()).await;
    cluster.raftctl(&["leader", "transfer"]).await.expect(0, &[]);
    eventually("another leader", async || {
        let now = cluster.leader_among(&cluster.numbers()).await;
        (now.term > before.term)
            .then_some(())
            .ok_or(format!("term {}", now.term))
    })
    .await;
    let again = submit(&cluster, 3).await;
    assert_eq!((again.index, again.result_available), (3, false));
    assert_eq!(submit(&cluster, 6).await.index, 6);
    cluster.wait_until_executed(6).await;
    let log = api::read_log(cluster.replicator_port(1)).await.expect("it runs");
    let stints = stints(&mut cluster);
    check(&stints, &log);
    assert_eq!(
        stints.iter().map(|stint| stint.lines.len()).sum::<usize>(),
        6,
        "{stints:?}"
    );
    let status = cluster.raftctl(&["status"]).await;
    status.expect(0, &["executes on the leader"]);
}
