//! What nodes say of themselves, the leader first of all.

use std::time::{Duration, Instant};

use raftlog_client::{Client, Endpoint};
use raftlog_proto::v1::{NodeStatus, Role};
use tokio::task::JoinSet;

use crate::failure::{Failure, REFUSED};

/// How long one node may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before all are asked again.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The leader's own view, within that time.
pub(super) async fn leader_status(client: &Client, timeout: Duration) -> Result<NodeStatus, Failure> {
    let deadline = Instant::now() + timeout;
    loop {
        let statuses = ask_all(client).await;
        if let Some(leader) = find_leader(client, &statuses).await {
            return Ok(leader);
        }
        if Instant::now() + ASK_EVERY >= deadline {
            let asked: Vec<String> = client.endpoints().iter().map(ToString::to_string).collect();
            return Err(Failure::Exit {
                code: REFUSED,
                message: no_leader(&asked.join(", "), &statuses),
            });
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// One node's own view.
pub(super) async fn status_of(client: &Client, node: &Endpoint) -> Result<NodeStatus, Failure> {
    Ok(client.status_of(node, PATIENCE).await?)
}

async fn ask_all(client: &Client) -> Vec<NodeStatus> {
    let mut asked = JoinSet::new();
    for endpoint in client.endpoints() {
        let client = client.clone();
        asked.spawn(async move { client.status_of(&endpoint, PATIENCE).await });
    }
    asked
        .join_all()
        .await
        .into_iter()
        .filter_map(Result::ok)
        .collect()
}

/// Why nobody's view is the leader's.
fn no_leader(asked: &str, statuses: &[NodeStatus]) -> String {
    match named_by(statuses).and_then(|status| status.leader.as_ref()) {
        Some(leader) => format!(
            "Node {} leads, says {asked}, and does not answer at {}: name it in --endpoints, or run raftctl where it is reached, as in a pod",
            leader.node, leader.client_address
        ),
        None => format!("no leader was found through {asked}: check --endpoints and `raftctl status`"),
    }
}

/// The view of the highest term that names a leader.
fn named_by(statuses: &[NodeStatus]) -> Option<&NodeStatus> {
    statuses
        .iter()
        .filter(|status| status.leader.is_some())
        .max_by_key(|status| status.term)
}

/// The view of whoever leads the highest term among them, or of whom they name as their leader.
async fn find_leader(client: &Client, statuses: &[NodeStatus]) -> Option<NodeStatus> {
    let leads = |status: &&NodeStatus| status.role() == Role::Leader;
    if let Some(leader) = statuses.iter().filter(leads).max_by_key(|status| status.term) {
        return Some(leader.clone());
    }
    let named = named_by(statuses)?;
    let address = &named.leader.as_ref()?.client_address;
    let endpoint = Endpoint::parse(address).ok()?;
    let status = client.status_of(&endpoint, PATIENCE).await.ok()?;
    let same = status.cluster_id == named.cluster_id && status.role() == Role::Leader;
    same.then_some(status)
}

#[cfg(test)]
mod tests {
    use raftlog_proto::v1::Leader;

    use super::*;

    #[test]
    fn a_leader_that_is_known_and_not_reached_is_named() {
        let follower = NodeStatus {
            term: 2,
            leader: Some(Leader {
                node: 2,
                client_address: "demo-1.demo-peers.shop.svc:5001".to_owned(),
                ..Leader::default()
            }),
            ..NodeStatus::default()
        };
        let candidate = NodeStatus {
            term: 3,
            ..NodeStatus::default()
        };
        let message = no_leader("127.0.0.1:5001", &[follower, candidate.clone()]);
        assert!(
            message.starts_with(
                "Node 2 leads, says 127.0.0.1:5001, and does not answer at demo-1.demo-peers.shop.svc:5001:"
            ),
            "{message}"
        );
        let message = no_leader("127.0.0.1:5001", &[candidate]);
        assert!(
            message.starts_with("no leader was found through 127.0.0.1:5001:"),
            "{message}"
        );
    }
}
