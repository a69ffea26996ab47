//! The views of all nodes that were asked, at one moment.

use std::time::Duration;

use raftlog_client::{Client, Endpoint, Error};
use raftlog_proto::v1::{NodeStatus, Role};
use serde::Serialize;

use crate::executor_status::ExecutorView;
use crate::text;

/// What one endpoint answered.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct NodeView {
    pub(crate) endpoint: String,
    /// Why there is no status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unreachable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub(crate) status: Option<View>,
}

/// A node's own view, in the words of the wire contract.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of its own in JSON")]
pub(crate) struct View {
    pub(crate) node: u32,
    pub(crate) cluster_id: String,
    pub(crate) member_id: String,
    pub(crate) role: &'static str,
    pub(crate) term: u64,
    /// Node number; none known without.
    pub(crate) leader: Option<u32>,
    pub(crate) commit_index: u64,
    pub(crate) last_index: u64,
    pub(crate) persisted_index: u64,
    /// Its replicator's, as the node knows it; none while that is not connected.
    pub(crate) executed_index: Option<u64>,
    /// Likewise: how that executes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) executor: Option<ExecutorView>,
    /// Voters in its configuration.
    pub(crate) voters: usize,
    pub(crate) ready: bool,
    pub(crate) reason: String,
    pub(crate) disk_full: bool,
    /// First operation index in the log; those before are in a snapshot.
    pub(crate) first_index: u64,
    /// Last operation index in the newest snapshot; 0 without one.
    pub(crate) snapshot_index: u64,
    pub(crate) log_full: bool,
    pub(crate) disk_stalled: bool,
    /// The cluster's; 0 while it belongs to none.
    pub(crate) feature_level: u32,
    /// What the node supports.
    pub(crate) feature_level_min: u32,
    pub(crate) feature_level_max: u32,
    pub(crate) client_address: String,
    pub(crate) peer_address: String,
    pub(crate) version: String,
}

/// Asks all endpoints at once.
pub(crate) async fn fetch(client: &Client, timeout: Duration) -> Vec<NodeView> {
    let mut asked = Vec::new();
    for endpoint in client.endpoints() {
        let client = client.clone();
        asked.push(tokio::spawn(async move {
            let status = client.status_of(&endpoint, timeout).await;
            node_view(&endpoint, status)
        }));
    }
    let mut views = Vec::new();
    for task in asked {
        match task.await {
            Ok(view) => views.push(view),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    views
}

fn node_view(endpoint: &Endpoint, status: Result<NodeStatus, Error>) -> NodeView {
    let (unreachable, status) = match status {
        Ok(status) => (None, Some(view(status))),
        Err(error) => {
            let message = error.to_string();
            let without_endpoint = message
                .strip_prefix(&format!("{endpoint}: "))
                .unwrap_or(&message)
                .to_owned();
            (Some(without_endpoint), None)
        }
    };
    NodeView {
        endpoint: endpoint.to_string(),
        unreachable,
        status,
    }
}

fn view(status: NodeStatus) -> View {
    let role = role_name(status.role());
    let voters = status.configuration.map_or(0, |configuration| {
        configuration.members.iter().filter(|m| m.voter).count()
    });
    let replicator = status.replicator.filter(|replicator| replicator.connected);
    let executed_index = replicator.as_ref().map(|replicator| replicator.executed_index);
    let executor = replicator.and_then(|replicator| replicator.executor);
    View {
        node: status.node,
        cluster_id: text::id(status.cluster_id),
        member_id: text::id(status.member_id),
        role,
        term: status.term,
        leader: status.leader.map(|leader| leader.node),
        commit_index: status.commit_index,
        last_index: status.last_index,
        persisted_index: status.persisted_index,
        executed_index,
        executor: executor.map(ExecutorView::from),
        voters,
        ready: status.ready,
        reason: status.reason,
        disk_full: status.disk_full,
        first_index: status.first_index,
        snapshot_index: status.snapshot_index,
        log_full: status.log_full,
        disk_stalled: status.disk_stalled,
        feature_level: status.feature_level,
        feature_level_min: status.feature_level_min,
        feature_level_max: status.feature_level_max,
        client_address: status.client_address,
        peer_address: status.peer_address,
        version: status.version,
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "unknown",
        Role::Unformed => "unformed",
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Learner => "learner",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A node as in a healthy cluster of five that node 1 leads.
    pub(crate) fn healthy(node: u32) -> NodeView {
        let status = View {
            node,
            cluster_id: "00000000000000c1".to_owned(),
            member_id: format!("{node:016x}"),
            role: if node == 1 { "leader" } else { "follower" },
            term: 3,
            leader: Some(1),
            commit_index: 10,
            last_index: 10,
            persisted_index: 10,
            executed_index: Some(9),
            executor: None,
            voters: 5,
            ready: true,
            reason: "follows node 1".to_owned(),
            disk_full: false,
            first_index: 1,
            snapshot_index: 0,
            log_full: false,
            disk_stalled: false,
            feature_level: 1,
            feature_level_min: 1,
            feature_level_max: 2,
            client_address: format!("127.0.0.1:500{node}"),
            peer_address: format!("127.0.0.1:500{node}"),
            version: "0.1.0".to_owned(),
        };
        NodeView {
            endpoint: format!("127.0.0.1:500{node}"),
            unreachable: None,
            status: Some(status),
        }
    }

    pub(crate) fn unreachable(node: u32) -> NodeView {
        NodeView {
            endpoint: format!("127.0.0.1:500{node}"),
            unreachable: Some("cannot connect: Connection refused (os error 111)".to_owned()),
            status: None,
        }
    }

    #[test]
    fn what_an_endpoint_answers_becomes_its_view() {
        let endpoint = Endpoint::parse("127.0.0.1:5001").unwrap();
        let refused = Err(Error::Failed("127.0.0.1:5001: cannot connect: no".to_owned()));
        assert_eq!(
            node_view(&endpoint, refused).unreachable.unwrap(),
            "cannot connect: no"
        );

        let status = NodeStatus {
            node: 1,
            cluster_id: 0xc1,
            role: Role::Leader.into(),
            ..NodeStatus::default()
        };
        let view = node_view(&endpoint, Ok(status)).status.unwrap();
        assert_eq!(
            (view.role, view.cluster_id.as_str(), view.executed_index),
            ("leader", "00000000000000c1", None)
        );
    }

    #[test]
    fn a_view_in_json_is_flat() {
        let json = serde_json::to_value(healthy(1)).unwrap();
        assert_eq!(json["node"], 1);
        assert_eq!(json["leader"], 1);
        assert!(json.get("unreachable").is_none());
        let json = serde_json::to_value(unreachable(1)).unwrap();
        assert!(json.get("node").is_none());
        assert!(json["unreachable"].is_string());
    }
}
