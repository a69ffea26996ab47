//! `verify`: whether all replicators hold the same operations, and all nodes the same as they.

mod compare;
mod report;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use raftlog_client::{Client, Endpoint, OperationLog, Options};
use raftlog_proto::v1::{GetLogStatusResponse, NodeStatus};

use crate::{
    args::{Common, VerifyArgs},
    failure::Failure,
    output::Output,
};
use compare::{Difference, Hashes, Held, Outcome, Replica, compare, knows};
use report::{At, DifferenceView, NodeView, ReplicatorView, Report, Side};

/// What nodes have committed reaches their replicators within so long.
const LAG_MAX: Duration = Duration::from_secs(2);
/// Between two looks at them meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Compares all replicas, prints what came of it, and fails unless they were all there and equal.
pub(crate) async fn run(common: &Common, arguments: &VerifyArgs) -> Result<(), Failure> {
    let bar = progress_bar();
    let report = verify(common, arguments.timeout, &bar).await;
    bar.finish_and_clear();
    let report = report?;
    Output::stdout().whole(
        common.output,
        &report,
        || report.render(),
        || report.equal_up_to.to_string(),
    )?;
    match report.problem() {
        None => Ok(()),
        Some(problem) => Err(Failure::failed(problem)),
    }
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    match ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn verify(common: &Common, timeout: Duration, bar: &ProgressBar) -> Result<Report, Failure> {
    bar.set_message("asking nodes and replicators");
    let options = Options {
        timeout,
        ..Options::default()
    };
    let client = Client::new(common.endpoints.to_vec(), options)?;
    let nodes = ask_nodes(&client, timeout).await;
    let reached = nodes.values().flatten().map(|status| status.commit_index).max();
    let mut lookup = Lookup {
        replicators: &common.replicators,
        log: OperationLog::new(common.replicators.to_vec(), options)?,
        timeout,
        bar,
    };
    let statuses = lookup.statuses(reached.unwrap_or(0)).await;
    let mut held = BTreeMap::new();
    for (&replica, status) in &statuses {
        if let Ok(status) = status {
            held.insert(
                replica,
                Held {
                    first: status.first_index,
                    commit: status.commit_index,
                    hash: status.commit_hash,
                },
            );
        }
    }
    let outcome = compare(&held, common.replicators.len(), &mut lookup).await;
    let nodes = compare_nodes(&client.endpoints(), &nodes, &held, &outcome, &mut lookup).await;
    let mut differences = Vec::new();
    for difference in &outcome.differences {
        differences.push(view(difference, &held, &statuses, &mut lookup).await);
    }
    let replicators = common.replicators.iter().zip(0..).map(|(endpoint, replica)| {
        let status = statuses.get(&replica);
        let answered = status.and_then(|status| status.as_ref().ok());
        let unreachable = status.and_then(|status| status.as_ref().err());
        ReplicatorView {
            endpoint: endpoint.to_string(),
            node: answered.map_or(0, |status| status.node),
            first_index: answered.map_or(0, |status| status.first_index),
            commit_index: answered.map_or(0, |status| status.commit_index),
            agrees: outcome.agree.contains(&replica),
            problem: unreachable.or(outcome.lost.get(&replica)).cloned(),
        }
    });
    Ok(Report::new(replicators.collect(), nodes, differences))
}

type Statuses<T> = BTreeMap<usize, Result<T, String>>;

async fn ask_nodes(client: &Client, timeout: Duration) -> Statuses<NodeStatus> {
    let asked = client.endpoints().into_iter().map(|endpoint| {
        let client = client.clone();
        tokio::spawn(async move { client.status_of(&endpoint, timeout).await })
    });
    all(asked.collect()).await
}

/// The answers by the order in which they were asked for.
async fn all<T>(asked: Vec<tokio::task::JoinHandle<Result<T, raftlog_client::Error>>>) -> Statuses<T> {
    let mut answers = BTreeMap::new();
    for (number, task) in asked.into_iter().enumerate() {
        let answer = match task.await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        answers.insert(number, answer);
    }
    answers
}

/// Asks replicators.
struct Lookup<'a> {
    replicators: &'a [Endpoint],
    log: OperationLog,
    timeout: Duration,
    bar: &'a ProgressBar,
}

impl Lookup<'_> {
    /// What all replicators hold, once one of them has what was committed just before.
    async fn statuses(&self, reached: u64) -> Statuses<GetLogStatusResponse> {
        let until = Instant::now() + LAG_MAX;
        loop {
            let asked = self.replicators.iter().cloned().map(|endpoint| {
                let (log, timeout) = (self.log.clone(), self.timeout);
                tokio::spawn(async move { log.status_of(&endpoint, timeout).await })
            });
            let statuses = all(asked.collect()).await;
            let held = statuses
                .values()
                .flatten()
                .map(|status| status.commit_index)
                .max();
            if held.is_none_or(|held| held >= reached) || Instant::now() > until {
                return statuses;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn operation(&self, replica: Replica, index: u64) -> Result<At, String> {
        let endpoint = self.replicators.get(replica).ok_or("no such replicator")?;
        self.bar.set_message(format!("comparing index {index}"));
        let operation = self.log.operation_of(endpoint, index, self.timeout).await;
        operation
            .map(|operation| At::new(&operation))
            .map_err(|error| error.to_string())
    }
}

impl Hashes for Lookup<'_> {
    async fn hash(&mut self, replica: Replica, index: u64) -> Result<u64, String> {
        self.operation(replica, index).await.map(|at| at.hash)
    }
}

/// What each side of a difference holds there.
async fn view(
    difference: &Difference,
    held: &BTreeMap<Replica, Held>,
    statuses: &Statuses<GetLogStatusResponse>,
    lookup: &mut Lookup<'_>,
) -> DifferenceView {
    let mut sides = Vec::new();
    for side in &difference.sides {
        let mut at = None;
        for &replica in side {
            let there = held
                .get(&replica)
                .is_some_and(|held| knows(*held, difference.index));
            if at.is_none() && there {
                at = lookup.operation(replica, difference.index).await.ok();
            }
        }
        let numbers = side
            .iter()
            .filter_map(|replica| statuses.get(replica)?.as_ref().ok());
        let endpoints = side.iter().filter_map(|&replica| lookup.replicators.get(replica));
        sides.push(Side {
            nodes: numbers.map(|status| status.node).collect(),
            replicators: endpoints.map(Endpoint::to_string).collect(),
            at,
        });
    }
    DifferenceView {
        index: difference.index,
        at_the_latest: difference.at_the_latest,
        majority: difference.has_majority,
        sides,
    }
}

/// A node tells one running hash: it is compared with what the replicators agree on.
async fn compare_nodes(
    endpoints: &[Endpoint],
    nodes: &Statuses<NodeStatus>,
    held: &BTreeMap<Replica, Held>,
    outcome: &Outcome,
    lookup: &mut Lookup<'_>,
) -> Vec<NodeView> {
    let mut views = Vec::new();
    for (endpoint, status) in endpoints.iter().zip(nodes.values()) {
        let view = NodeView {
            endpoint: endpoint.to_string(),
            ..NodeView::default()
        };
        views.push(match status {
            Err(why) => NodeView {
                problem: Some(why.clone()),
                ..view
            },
            Ok(status) => {
                let agrees = compare_node(status, held, outcome, lookup).await;
                NodeView {
                    node: status.node,
                    commit_index: status.commit_index,
                    agrees: agrees.as_ref().ok().copied(),
                    problem: agrees.err(),
                    ..view
                }
            }
        });
    }
    views
}

/// Whether a node agrees; the error says why that cannot be said.
async fn compare_node(
    status: &NodeStatus,
    held: &BTreeMap<Replica, Held>,
    outcome: &Outcome,
    lookup: &mut Lookup<'_>,
) -> Result<bool, String> {
    let index = status.commit_index;
    if index == 0 {
        return Ok(true);
    }
    let hash = status
        .commit_hash
        .ok_or("it does not tell the running hash of what it committed")?;
    let mut agree = outcome
        .agree
        .iter()
        .filter_map(|replica| Some((*replica, *held.get(replica)?)));
    let Some((replica, held)) = agree.find(|(_, held)| knows(*held, index)) else {
        return Err(format!(
            "no replicator that agrees with the others holds index {index}, up to which it committed"
        ));
    };
    let there = if index == held.commit {
        held.hash
    } else {
        lookup.hash(replica, index).await?
    };
    Ok(there == hash)
}
