//! The test client.

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::meta::{Component, metadata, selector};
use super::names::{self, CLIENT_PORT, PODS_MAX, REPLICATOR_PORT};
use super::placement::placement;
use super::pod::{container_security, pod_security, pull_secrets};
use super::{Kind, Resource};
use crate::crd::RaftCluster;
use crate::crd::status::Images;

/// Deployment `demo-client`: one `raftctl client`, which is given every pod's address.
pub fn build(cluster: &RaftCluster, images: &Images) -> Resource {
    let name = names::client(&cluster.name_any());
    let body = cluster
        .spec
        .test_client
        .enabled
        .then(|| deployment(cluster, images, &name));
    Resource::new(Kind::Deployment, name, body)
}

fn deployment(cluster: &RaftCluster, images: &Images, name: &str) -> Value {
    let labels = selector(cluster, Component::Client);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(cluster, Component::Client, name),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            // Two at once would count twice.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": pod(cluster, images),
            },
        },
    })
}

fn pod(cluster: &RaftCluster, images: &Images) -> Value {
    let mut pod = placement(cluster);
    let mut put = |key: &str, value: Value| pod.insert(key.to_owned(), value);
    put("serviceAccountName", json!(cluster.name_any()));
    put("automountServiceAccountToken", json!(false));
    put("enableServiceLinks", json!(false));
    put("securityContext", pod_security());
    put("terminationGracePeriodSeconds", json!(5));
    put("containers", json!([container(cluster, images)]));
    if let Some(secrets) = pull_secrets(cluster) {
        put("imagePullSecrets", secrets);
    }
    Value::Object(pod)
}

fn container(cluster: &RaftCluster, images: &Images) -> Value {
    json!({
        "name": "client",
        "image": images.node,
        "imagePullPolicy": cluster.spec.image.pull_policy.name(),
        "command": ["/raftctl"],
        "args": ["client"],
        "env": [
            {"name": "LOG_FORMAT", "value": cluster.spec.log.format.name()},
            {"name": "RAFTCTL_ENDPOINTS", "value": addresses(cluster, CLIENT_PORT)},
            {"name": "RAFTCTL_INTERVAL", "value": cluster.spec.test_client.interval},
            {"name": "RAFTCTL_REPLICATORS", "value": addresses(cluster, REPLICATOR_PORT)},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": container_security(),
    })
}

fn addresses(cluster: &RaftCluster, port: u16) -> String {
    let replicas = u32::try_from(cluster.spec.replicas).unwrap_or(1).min(PODS_MAX);
    let all: Vec<String> = (1..=replicas)
        .map(|node| {
            let pod = names::pod(&cluster.name_any(), node);
            format!("{}:{port}", names::host(cluster, &pod))
        })
        .collect();
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, images};
    use super::*;

    #[test]
    fn it_knows_every_pod() {
        let cluster = cluster("replicas: 3\ntestClient: {enabled: true, interval: 1s}");
        let body = build(&cluster, &images()).body.unwrap();
        assert_eq!(body["spec"]["strategy"]["type"], "Recreate");
        let container = &body["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["name"], "client");
        assert_eq!(
            container["env"][1]["value"],
            "demo-0.demo-peers.shop.svc:5001,demo-1.demo-peers.shop.svc:5001,demo-2.demo-peers.shop.svc:5001"
        );
        assert_eq!(container["env"][2]["value"], "1s");
    }

    #[test]
    fn it_runs_where_pods_may_run() {
        let cluster = cluster(
            "testClient: {enabled: true}\nnodeSelector: {disk: ssd}\npriorityClassName: high\n\
             tolerations: [{key: x, operator: Exists}]",
        );
        let body = build(&cluster, &images()).body.unwrap();
        let spec = &body["spec"]["template"]["spec"];
        assert_eq!(spec["nodeSelector"]["disk"], "ssd");
        assert_eq!(spec["priorityClassName"], "high");
        assert_eq!(spec["tolerations"][0]["key"], "x");
    }
}
