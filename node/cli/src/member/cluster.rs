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
                message: format!(
                    "no leader was found through {}: check --endpoints and `raftctl status`",
                    asked.join(", ")
                ),
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

/// The view of whoever leads the highest term among them, or of whom they name as their leader.
async fn find_leader(client: &Client, statuses: &[NodeStatus]) -> Option<NodeStatus> {
    let leads = |status: &&NodeStatus| status.role() == Role::Leader;
    if let Some(leader) = statuses.iter().filter(leads).max_by_key(|status| status.term) {
        return Some(leader.clone());
    }
    let named = statuses
        .iter()
        .filter(|status| status.leader.is_some())
        .max_by_key(|status| status.term)?;
    let address = &named.leader.as_ref()?.client_address;
    let endpoint = Endpoint::parse(address).ok()?;
    let status = client.status_of(&endpoint, PATIENCE).await.ok()?;
    let same = status.cluster_id == named.cluster_id && status.role() == Role::Leader;
    same.then_some(status)
}
