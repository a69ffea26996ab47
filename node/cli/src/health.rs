//! `health`: whether the cluster is well, as a pure judgement of all nodes' views.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use raftlog_client::{Client, Options};
use serde::Serialize;

use crate::{
    args::{Common, HealthArgs},
    cluster_status::{self, NodeView, View},
    failure::Failure,
    output::Output,
};

/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long `--wait` waits.
const WAIT_TIMEOUT: Duration = Duration::from_mins(1);

/// Between two looks of `--wait`.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
struct Health {
    /// Every node that was asked is ready, and all agree.
    healthy: bool,
    /// A leader, and a majority of voters ready.
    available: bool,
    leader: Option<u32>,
    term: u64,
    ready: usize,
    asked: usize,
    /// What is wrong, one line each.
    problems: Vec<String>,
}

/// Fails unless the cluster is well.
pub(crate) async fn run(common: &Common, arguments: &HealthArgs) -> Result<(), Failure> {
    let client = Client::new(common.endpoints.to_vec(), Options::default())?;
    let wait = if arguments.wait {
        arguments.timeout.unwrap_or(WAIT_TIMEOUT)
    } else {
        Duration::ZERO
    };
    let answer = if arguments.wait {
        ANSWER_TIMEOUT
    } else {
        arguments.timeout.unwrap_or(ANSWER_TIMEOUT)
    };
    let deadline = Instant::now() + wait;
    let health = loop {
        let health = judge(&cluster_status::fetch(&client, answer).await);
        if is_enough(&health, arguments) || Instant::now() + LOOK_AGAIN > deadline {
            break health;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    let word = word(&health);
    Output::stdout().whole(common.output, &health, || render(&health), || word.to_owned())?;
    if is_enough(&health, arguments) {
        return Ok(());
    }
    let first = health
        .problems
        .first()
        .map_or("no node was asked", String::as_str);
    let others = match health.problems.len() {
        0 | 1 => String::new(),
        problems => format!(" (and {} more)", problems - 1),
    };
    Err(Failure::failed(format!(
        "the cluster is {word}: {first}{others}; see raftctl status"
    )))
}

fn is_enough(health: &Health, arguments: &HealthArgs) -> bool {
    health.healthy || (arguments.available && health.available)
}

fn word(health: &Health) -> &'static str {
    match (health.healthy, health.available) {
        (true, _) => "healthy",
        (false, true) => "degraded",
        (false, false) => "unavailable",
    }
}

fn render(health: &Health) -> String {
    let leader = health.leader.map_or_else(
        || "no leader".to_owned(),
        |node| format!("node {node} leads term {}", health.term),
    );
    let mut lines = vec![format!(
        "{}: {leader}, {} of {} nodes ready",
        word(health),
        health.ready,
        health.asked
    )];
    lines.extend(health.problems.iter().map(|problem| format!("  {problem}")));
    lines.join("\n")
}

/// Judges the views of all nodes that were asked.
fn judge(nodes: &[NodeView]) -> Health {
    let views: Vec<&View> = nodes.iter().filter_map(|node| node.status.as_ref()).collect();
    // An old leader that has not noticed yet is in an older term.
    let leader = views
        .iter()
        .filter(|view| view.role == "leader")
        .max_by_key(|view| view.term);
    // Seen from outside only one node may be reachable; its word on who leads then has to do.
    let told = views
        .iter()
        .filter(|view| view.leader.is_some())
        .max_by_key(|view| view.term);
    let (leader_node, term, voters) = match leader.or(told) {
        Some(view) => (view.leader, view.term, view.voters),
        None => (None, 0, 0),
    };
    let ready = views.iter().filter(|view| view.ready).count();
    let problems = problems(nodes, &views, leader_node, term);
    // A learner is ready, too, and counts for nothing.
    let counted = views.iter().filter(|view| view.ready && view.role != "learner");
    let available = leader_node.is_some() && counted.count() > voters / 2;
    Health {
        healthy: problems.is_empty(),
        available,
        leader: leader_node,
        term,
        ready,
        asked: nodes.len(),
        problems,
    }
}

fn problems(nodes: &[NodeView], views: &[&View], leader: Option<u32>, term: u64) -> Vec<String> {
    let mut problems = Vec::new();
    if leader.is_none() {
        problems.push("no node knows a leader".to_owned());
    }
    let clusters: BTreeSet<&str> = views
        .iter()
        .map(|view| view.cluster_id.as_str())
        .filter(|id| !id.is_empty())
        .collect();
    if clusters.len() > 1 {
        let clusters: Vec<&str> = clusters.into_iter().collect();
        problems.push(format!(
            "the endpoints belong to different clusters: {}",
            clusters.join(", ")
        ));
    }
    for node in nodes {
        match &node.status {
            None => {
                let why = node.unreachable.as_deref().unwrap_or("no answer");
                problems.push(format!("{}: unreachable: {why}", node.endpoint));
            }
            Some(view) if !view.ready => {
                // The reason starts with "not ready".
                problems.push(format!(
                    "node {} at {}: {}",
                    view.node, node.endpoint, view.reason
                ));
            }
            Some(view) if view.disk_full => problems.push(format!(
                "node {} at {}: its disk is full",
                view.node, node.endpoint
            )),
            Some(view) if view.disk_stalled => problems.push(format!(
                "node {} at {}: its disk completes nothing",
                view.node, node.endpoint
            )),
            Some(view) if (view.leader, view.term) != (leader, term) => {
                problems.push(format!(
                    "node {} at {}: does not follow the leader of term {term} yet",
                    view.node, node.endpoint
                ));
            }
            Some(_) => {}
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_status::tests::{healthy, unreachable};

    fn changed(node: u32, change: impl FnOnce(&mut View)) -> NodeView {
        let mut view = healthy(node);
        change(view.status.as_mut().unwrap());
        view
    }

    fn with(changed: Vec<NodeView>) -> Vec<NodeView> {
        let mut nodes: Vec<NodeView> = (1..=5).map(healthy).collect();
        for view in changed {
            let place = nodes
                .iter()
                .position(|node| node.endpoint == view.endpoint)
                .unwrap();
            nodes[place] = view;
        }
        nodes
    }

    #[test]
    fn judgements() {
        let not_ready = |node| changed(node, |view| view.ready = false);
        let leaderless = |node| {
            changed(node, |view| {
                view.leader = None;
                view.role = "follower";
                view.ready = false;
            })
        };
        for (what, nodes, word_expected, leader, problems) in [
            ("all well", with(vec![]), "healthy", Some(1), 0),
            ("one down", with(vec![unreachable(5)]), "degraded", Some(1), 1),
            (
                "two down",
                with(vec![unreachable(4), unreachable(5)]),
                "degraded",
                Some(1),
                2,
            ),
            (
                "two not ready",
                with(vec![not_ready(4), not_ready(5)]),
                "degraded",
                Some(1),
                2,
            ),
            (
                "three not ready",
                with(vec![not_ready(3), not_ready(4), not_ready(5)]),
                "unavailable",
                Some(1),
                3,
            ),
            (
                "no leader",
                with((1..=5).map(leaderless).collect()),
                "unavailable",
                None,
                6,
            ),
            (
                "all down",
                (1..=5).map(unreachable).collect(),
                "unavailable",
                None,
                6,
            ),
            ("nobody asked", vec![], "unavailable", None, 1),
            (
                "an old leader",
                with(vec![changed(2, |view| {
                    (view.role, view.leader, view.term) = ("leader", Some(2), 2);
                })]),
                "degraded",
                Some(1),
                1,
            ),
            (
                "another cluster",
                with(vec![changed(5, |view| view.cluster_id = "0d".to_owned())]),
                "degraded",
                Some(1),
                1,
            ),
            (
                "a disk that stalls",
                with(vec![changed(5, |view| view.disk_stalled = true)]),
                "degraded",
                Some(1),
                1,
            ),
            (
                "a full disk",
                with(vec![changed(5, |view| view.disk_full = true)]),
                "degraded",
                Some(1),
                1,
            ),
        ] {
            let health = judge(&nodes);
            assert_eq!(
                (word(&health), health.leader, health.problems.len()),
                (word_expected, leader, problems),
                "{what}: {health:?}"
            );
        }
    }

    #[test]
    fn one_reachable_endpoint_tells_who_leads_but_not_that_a_majority_is_ready() {
        let health = judge(&[healthy(2)]);
        assert_eq!(
            (health.healthy, health.available, health.leader),
            (true, false, Some(1))
        );
    }

    #[test]
    fn learners_make_no_majority() {
        let learner = |node| changed(node, |view| view.role = "learner");
        let nodes = [healthy(1), healthy(2), unreachable(3), learner(4), learner(5)];
        assert!(!judge(&nodes).available, "two of five voters");
    }

    #[test]
    fn a_node_s_reason_is_given_as_it_is() {
        let reason = "not ready: has no leader";
        let health = judge(&with(vec![changed(5, |view| {
            (view.ready, view.reason) = (false, reason.to_owned());
        })]));
        assert_eq!(health.problems, [format!("node 5 at 127.0.0.1:5005: {reason}")]);
    }

    #[test]
    fn in_words() {
        assert_eq!(
            render(&judge(&with(vec![]))),
            "healthy: node 1 leads term 3, 5 of 5 nodes ready"
        );
        let text = render(&judge(&with(vec![unreachable(5)])));
        assert_eq!(
            text,
            "degraded: node 1 leads term 3, 4 of 5 nodes ready\n  127.0.0.1:5005: unreachable: cannot connect: Connection refused (os error 111)"
        );
    }
}
