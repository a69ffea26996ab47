//! The three Services.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::meta::{Component, LEADER, ROLE, metadata, selector};
use super::names::{self, CLIENT_PORT, PEER_PORT, REPLICATOR_PORT};
use super::{Kind, Resource};
use crate::crd::RaftCluster;

/// `demo-peers`, where nodes find each other; `demo`, for clients; `demo-leader`, a hint: any pod forwards.
/// The two latter reach pods that are ready, or, while `unready_too`, all of them.
pub fn all(cluster: &RaftCluster, unready_too: bool) -> [Resource; 3] {
    let name = cluster.name_any();
    let mut services = [
        service(cluster, names::peers(&name), &peers_spec(cluster)),
        clients(cluster, name.clone()),
        service(cluster, names::leader(&name), &leader_spec(cluster)),
    ];
    for body in services.iter_mut().filter_map(|service| service.body.as_mut()) {
        if unready_too {
            body["spec"]["publishNotReadyAddresses"] = json!(true);
        }
    }
    services
}

fn service(cluster: &RaftCluster, name: String, spec: &Value) -> Resource {
    let body = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(cluster, Component::Node, &name),
        "spec": spec,
    });
    Resource::new(Kind::Service, name, Some(body))
}

fn clients(cluster: &RaftCluster, name: String) -> Resource {
    let spec = json!({
        "type": cluster.spec.service.kind.name(),
        "selector": selector(cluster, Component::Node),
        "ports": [port("client", CLIENT_PORT), port("replicator", REPLICATOR_PORT)],
    });
    let mut service = service(cluster, name, &spec);
    let annotations: &BTreeMap<String, String> = &cluster.spec.service.annotations;
    if let (Some(body), false) = (&mut service.body, annotations.is_empty()) {
        body["metadata"]["annotations"] = json!(annotations);
    }
    service
}

/// Nodes look for each other before they are ready.
fn peers_spec(cluster: &RaftCluster) -> Value {
    json!({
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": selector(cluster, Component::Node),
        "ports": [port("client", CLIENT_PORT), port("peer", PEER_PORT), port("replicator", REPLICATOR_PORT)],
    })
}

fn leader_spec(cluster: &RaftCluster) -> Value {
    let mut labels = selector(cluster, Component::Node);
    labels.insert(ROLE.into(), LEADER.into());
    json!({
        "type": "ClusterIP",
        "selector": labels,
        "ports": [port("client", CLIENT_PORT), port("replicator", REPLICATOR_PORT)],
    })
}

fn port(name: &str, number: u16) -> Value {
    json!({"name": name, "port": number, "targetPort": number, "protocol": "TCP"})
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster;
    use super::*;

    #[test]
    fn three_services_for_three_purposes() {
        let cluster = cluster("replicas: 3\nservice: {type: LoadBalancer, annotations: {lb: internal}}");
        let [peers, clients, leader] =
            all(&cluster, false).map(|service| (service.name, service.body.unwrap()));
        assert_eq!(
            (peers.0.as_str(), clients.0.as_str(), leader.0.as_str()),
            ("demo-peers", "demo", "demo-leader")
        );
        assert_eq!(peers.1["spec"]["clusterIP"], "None");
        assert_eq!(peers.1["spec"]["publishNotReadyAddresses"], true);
        assert_eq!(clients.1["spec"]["type"], "LoadBalancer");
        assert_eq!(clients.1["metadata"]["annotations"]["lb"], "internal");
        assert_eq!(clients.1["spec"]["ports"][1]["port"], 6001);
        assert_eq!(leader.1["spec"]["selector"]["raftlog.io/role"], "leader");
        for service in [&clients.1, &leader.1] {
            assert_eq!(service["spec"].get("publishNotReadyAddresses"), None);
        }
    }

    #[test]
    fn services_reach_unready_pods_while_they_have_to() {
        for service in all(&cluster("replicas: 3"), true) {
            let body = service.body.unwrap();
            assert_eq!(body["spec"]["publishNotReadyAddresses"], true, "{}", service.name);
        }
    }
}
