//! Names of a cluster's objects, ports, and where its nodes are reached.

use kube::ResourceExt as _;

use crate::crd::RaftCluster;

/// Clients of nodes.
pub const CLIENT_PORT: u16 = 5001;
/// Nodes and the operator: the services Raft and Cluster.
pub const PEER_PORT: u16 = 5002;
/// Clients of replicators.
pub const REPLICATOR_PORT: u16 = 6001;
/// Health and metrics of a node.
pub const NODE_HTTP_PORT: u16 = 8001;
/// Health and metrics of a replicator.
pub const REPLICATOR_HTTP_PORT: u16 = 9001;
/// The volume of a pod, in its template.
pub const VOLUME: &str = "data";
/// More pods than this a cluster never has.
pub const PODS_MAX: u32 = 9;

/// The headless Service.
pub fn peers(cluster: &str) -> String {
    format!("{cluster}-peers")
}

/// The Service of the leader.
pub fn leader(cluster: &str) -> String {
    format!("{cluster}-leader")
}

/// The Deployment of the test client.
pub fn client(cluster: &str) -> String {
    format!("{cluster}-client")
}

/// The ConfigMap that remembers how the cluster was formed and which template worked.
pub fn record(cluster: &str) -> String {
    format!("{cluster}-record")
}

/// The pod of a node number.
pub fn pod(cluster: &str, node: u32) -> String {
    format!("{cluster}-{}", node.saturating_sub(1))
}

/// The claim of a node number.
pub fn claim(cluster: &str, node: u32) -> String {
    format!("{VOLUME}-{}", pod(cluster, node))
}

/// The node number of a pod or claim of that name.
pub fn node_of(name: &str) -> Option<u32> {
    let (_, ordinal) = name.rsplit_once('-')?;
    ordinal.parse::<u32>().ok()?.checked_add(1)
}

/// Where a pod is found, whether it is ready or not.
pub fn host(cluster: &RaftCluster, pod: &str) -> String {
    let namespace = cluster.namespace().unwrap_or_default();
    format!("{pod}.{}.{namespace}.svc", peers(&cluster.name_any()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_numbers_begin_with_one() {
        assert_eq!(pod("demo", 1), "demo-0");
        assert_eq!(claim("demo", 3), "data-demo-2");
        for (name, node) in [
            ("demo-0", Some(1)),
            ("data-my-raft-4", Some(5)),
            ("demo", None),
            ("demo-x", None),
        ] {
            assert_eq!(node_of(name), node, "{name}");
        }
    }
}
