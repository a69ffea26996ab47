//! Who reaches which port.

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::meta::{Component, MANAGER, metadata, selector};
use super::names::{CLIENT_PORT, NODE_HTTP_PORT, PEER_PORT, REPLICATOR_HTTP_PORT, REPLICATOR_PORT};
use super::{Kind, Resource};
use crate::crd::RaftCluster;

/// The label that every namespace has, and nobody can set to another one's name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// NetworkPolicy `demo`: the port for nodes is for the cluster's own pods and the operator; the others are open. An operator
/// whose namespace is not known runs in no pod, and a policy cannot tell it from anybody else.
pub fn build(cluster: &RaftCluster, operator_namespace: Option<&str>) -> Resource {
    let name = cluster.name_any();
    let pods = selector(cluster, Component::Node);
    let open: Vec<_> = [CLIENT_PORT, REPLICATOR_PORT, NODE_HTTP_PORT, REPLICATOR_HTTP_PORT]
        .into_iter()
        .map(|port| json!({"port": port, "protocol": "TCP"}))
        .collect();
    let mut peers = vec![json!({"podSelector": {"matchLabels": pods}})];
    peers.extend(operator_namespace.map(operator));
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
                        "from": peers,
                    },
                ],
            },
        })
    });
    Resource::new(Kind::NetworkPolicy, name, body)
}

/// Whoever makes a pod in another namespace can give it the operator's label.
fn operator(namespace: &str) -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": MANAGER}},
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster;
    use super::*;

    #[test]
    fn nodes_are_reached_by_each_other_and_from_the_operators_namespace() {
        let cluster = cluster("networkPolicy: {enabled: true}");
        for (namespace, operators) in [(Some("raft-system"), 1), (None, 0)] {
            let body = build(&cluster, namespace).body.unwrap();
            let rule = &body["spec"]["ingress"][1];
            assert_eq!(rule["ports"], json!([{"port": 5002, "protocol": "TCP"}]));
            let from = rule["from"].as_array().unwrap();
            assert_eq!(
                from[0]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"],
                "demo"
            );
            let others = &from[1..];
            assert_eq!(others.len(), operators);
            for operator in others {
                let labels = &operator["namespaceSelector"]["matchLabels"];
                assert_eq!(labels["kubernetes.io/metadata.name"], "raft-system");
                let labels = &operator["podSelector"]["matchLabels"];
                assert_eq!(labels["app.kubernetes.io/name"], "raft-operator");
            }
        }
    }
}
