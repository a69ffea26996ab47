//! Who reaches which port.

use kube::ResourceExt as _;
use serde_json::json;

use super::meta::{Component, MANAGER, metadata, selector};
use super::names::{CLIENT_PORT, NODE_HTTP_PORT, PEER_PORT, REPLICATOR_HTTP_PORT, REPLICATOR_PORT};
use super::{Kind, Resource};
use crate::crd::RaftCluster;

/// NetworkPolicy `demo`: the port for nodes is for the cluster's own pods and the operator; the others are open.
pub fn build(cluster: &RaftCluster) -> Resource {
    let name = cluster.name_any();
    let pods = selector(cluster, Component::Node);
    let open: Vec<_> = [CLIENT_PORT, REPLICATOR_PORT, NODE_HTTP_PORT, REPLICATOR_HTTP_PORT]
        .into_iter()
        .map(|port| json!({"port": port, "protocol": "TCP"}))
        .collect();
    let body = cluster.spec.network_policy.enabled.then(|| {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(cluster, Component::Node, &name),
            "spec": {
                "podSelector": {"matchLabels": pods},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {"ports": open},
                    {
                        "ports": [{"port": PEER_PORT, "protocol": "TCP"}],
                        "from": [
                            {"podSelector": {"matchLabels": pods}},
                            {
                                "namespaceSelector": {},
                                "podSelector": {"matchLabels": {"app.kubernetes.io/name": MANAGER}},
                            },
                        ],
                    },
                ],
            },
        })
    });
    Resource::new(Kind::NetworkPolicy, name, body)
}
