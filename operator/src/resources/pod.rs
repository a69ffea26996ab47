//! The template of a pod: one node and its replicator, and what the user has operations applied by, with a volume for all.

use kube::ResourceExt as _;
use serde_json::{Map, Value, json};

use super::meta::{Component, REVISION, digest, selector};
use super::names::{
    self, CLIENT_PORT, NODE_HTTP_PORT, PEER_PORT, REPLICATOR_HTTP_PORT, REPLICATOR_PORT, VOLUME,
};
use super::placement::placement;
use super::stopping::{grace_seconds, machine_grace_seconds, replicator_lingers_seconds};
use super::{executor, state_machine};
use crate::crd::RaftCluster;
use crate::crd::spec::RaftSpec;
use crate::crd::status::Images;

/// The images' user.
const USER: u32 = 65_532;
/// Where each container has its folder of the volume.
const DATA: &str = "/var/lib/raftlog";
/// Where the containers meet.
pub(super) const RUN: &str = "/run/raftlog";
/// Where the replicator serves its node.
const SOCKET: &str = "unix:///run/raftlog/replicator.sock";

/// What all pods of the cluster are made from. It does not depend on how many there are.
pub fn template(cluster: &RaftCluster, images: &Images) -> Value {
    let mut labels = selector(cluster, Component::Node);
    for (key, value) in &cluster.spec.pod_labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let mut template = json!({
        "metadata": {"labels": labels, "annotations": cluster.spec.pod_annotations},
        "spec": pod(cluster, images),
    });
    let revision = digest(&template);
    template["metadata"]["annotations"][REVISION] = json!(revision);
    template
}

/// What a template adds up to, as its pods carry it.
pub fn revision(template: &Value) -> Option<&str> {
    template
        .get("metadata")?
        .get("annotations")?
        .get(REVISION)?
        .as_str()
}

fn pod(cluster: &RaftCluster, images: &Images) -> Value {
    let spec = &cluster.spec;
    let mut pod = Map::new();
    let mut put = |key: &str, value: Value| pod.insert(key.to_owned(), value);
    put("serviceAccountName", json!(cluster.name_any()));
    put("automountServiceAccountToken", json!(false));
    put("enableServiceLinks", json!(false));
    put("securityContext", pod_security());
    put("topologySpreadConstraints", spread(cluster));
    let mut containers = vec![node(cluster, images), replicator(cluster, images)];
    let mut volumes = vec![json!({"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})];
    let mut grace = grace_seconds(&spec.raft);
    if let Some(machine) = &spec.replicator.executor().state_machine {
        containers.push(state_machine::container(cluster, machine));
        volumes.push(state_machine::volume());
        grace = machine_grace_seconds(&spec.raft);
    }
    put("terminationGracePeriodSeconds", json!(grace));
    put("containers", json!(containers));
    put("volumes", json!(volumes));
    if let Some(affinity) = &spec.affinity {
        put("affinity", json!(affinity));
    }
    if let Some(secrets) = pull_secrets(cluster) {
        put("imagePullSecrets", secrets);
    }
    pod.extend(placement(cluster));
    Value::Object(pod)
}

/// Secrets to pull images with, if there are any.
pub fn pull_secrets(cluster: &RaftCluster) -> Option<Value> {
    let secrets = &cluster.spec.image.pull_secrets;
    (!secrets.is_empty()).then(|| json!(secrets))
}

/// What restricted Pod Security asks of a pod.
pub fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// What restricted Pod Security asks of a container, and a root file system that nobody writes.
pub fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
    })
}

/// Over zones and over hosts, but never rather not at all; machines that pods would not tolerate do not count.
fn spread(cluster: &RaftCluster) -> Value {
    if let Some(given) = &cluster.spec.topology_spread_constraints {
        return json!(given);
    }
    let over = |key: &str| {
        json!({
            "topologyKey": key,
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "nodeTaintsPolicy": "Honor",
            "labelSelector": {"matchLabels": selector(cluster, Component::Node)},
        })
    };
    json!([
        over("topology.kubernetes.io/zone"),
        over("kubernetes.io/hostname")
    ])
}

fn node(cluster: &RaftCluster, images: &Images) -> Value {
    let spec = &cluster.spec;
    json!({
        "name": "node",
        "image": images.node,
        "imagePullPolicy": spec.image.pull_policy.name(),
        "args": ["--id-from-hostname"],
        "env": node_environment(cluster),
        "ports": [port("client", CLIENT_PORT), port("peer", PEER_PORT), port("node-http", NODE_HTTP_PORT)],
        "resources": spec.resources.node,
        "volumeMounts": mounts("node"),
        "securityContext": container_security(),
        "startupProbe": probe("/livez", NODE_HTTP_PORT, 2, 300),
        "livenessProbe": probe("/livez", NODE_HTTP_PORT, 10, 6),
        "readinessProbe": probe("/readyz", NODE_HTTP_PORT, 2, 1),
    })
}

fn replicator(cluster: &RaftCluster, images: &Images) -> Value {
    let spec = &cluster.spec;
    let mut environment = vec![
        variable("LOG_FORMAT", spec.log.format.name()),
        variable("REPLICATE_LISTEN", SOCKET),
        variable("REPLICATOR_DATA_DIR", DATA),
    ];
    environment.extend(executor::environment(&spec.replicator));
    environment.extend([
        variable(
            "REPLICATOR_HTTP_LISTEN",
            &format!("0.0.0.0:{REPLICATOR_HTTP_PORT}"),
        ),
        variable("REPLICATOR_LISTEN", &format!("0.0.0.0:{REPLICATOR_PORT}")),
        variable("RUST_LOG", &spec.log.level),
    ]);
    json!({
        "name": "replicator",
        "image": images.replicator,
        "imagePullPolicy": spec.image.pull_policy.name(),
        "args": ["--id-from-hostname"],
        "env": environment,
        "ports": [port("replicator", REPLICATOR_PORT), port("replicator-http", REPLICATOR_HTTP_PORT)],
        "resources": spec.resources.replicator,
        "volumeMounts": mounts("replicator"),
        "securityContext": container_security(),
        "lifecycle": {"preStop": {"sleep": {"seconds": replicator_lingers_seconds(&spec.raft)}}},
        "startupProbe": probe("/livez", REPLICATOR_HTTP_PORT, 2, 300),
        "livenessProbe": probe("/livez", REPLICATOR_HTTP_PORT, 10, 6),
        "readinessProbe": probe("/readyz", REPLICATOR_HTTP_PORT, 2, 2),
    })
}

fn node_environment(cluster: &RaftCluster) -> Vec<Value> {
    let RaftSpec {
        election_timeout,
        heartbeat_interval,
        snapshot,
    } = &cluster.spec.raft;
    let advertise = format!("{}:{CLIENT_PORT}", names::host(cluster, "$(POD_NAME)"));
    let mut environment = vec![
        json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        variable("LOG_FORMAT", cluster.spec.log.format.name()),
        variable("RAFT_ADVERTISE", &advertise),
        variable("RAFT_DATA_DIR", DATA),
        variable(
            "RAFT_ELECTION_TIMEOUT",
            &format!("{}..{}", election_timeout.min, election_timeout.max),
        ),
        variable("RAFT_HEARTBEAT_INTERVAL", heartbeat_interval.as_str()),
        variable("RAFT_HTTP_LISTEN", &format!("0.0.0.0:{NODE_HTTP_PORT}")),
        variable("RAFT_LISTEN", &format!("0.0.0.0:{CLIENT_PORT}")),
        variable("RAFT_PEER_LISTEN", &format!("0.0.0.0:{PEER_PORT}")),
        variable("RAFT_REPLICATOR", SOCKET),
        variable(
            "RAFT_SNAPSHOT_EVERY_OPERATIONS",
            &snapshot.every_operations.to_string(),
        ),
        variable("RUST_LOG", &cluster.spec.log.level),
    ];
    if let Some(bytes) = &snapshot.every_bytes {
        environment.push(variable("RAFT_SNAPSHOT_EVERY_BYTES", &flag_bytes(bytes)));
    }
    environment
}

/// Kubernetes writes 64Mi where flags take 64MiB.
pub(super) fn flag_bytes(quantity: &str) -> String {
    if quantity.ends_with('i') {
        format!("{quantity}B")
    } else {
        quantity.to_owned()
    }
}

pub(super) fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn port(name: &str, number: u16) -> Value {
    json!({"name": name, "containerPort": number, "protocol": "TCP"})
}

fn mounts(folder: &str) -> Value {
    json!([
        {"name": VOLUME, "mountPath": DATA, "subPath": folder},
        {"name": "run", "mountPath": RUN},
    ])
}

fn probe(path: &str, port: u16, period_seconds: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": if path == "/livez" { 5 } else { 2 },
        "failureThreshold": failures,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cluster, images};
    use super::*;

    fn container<'a>(template: &'a Value, name: &str) -> &'a Value {
        let containers = template["spec"]["containers"].as_array().unwrap();
        containers
            .iter()
            .find(|container| container["name"] == name)
            .unwrap()
    }

    fn variable_of(container: &Value, name: &str) -> Option<String> {
        let variables = container["env"].as_array().unwrap();
        let found = variables.iter().find(|variable| variable["name"] == name)?;
        found["value"].as_str().map(str::to_owned)
    }

    #[test]
    fn flags_are_what_the_spec_says() {
        let cluster = cluster(
            "raft: {electionTimeout: {min: 300ms, max: 600ms}, heartbeatInterval: 100ms, snapshot: {everyBytes: 64Mi}}\n\
             log: {format: json, level: debug}",
        );
        let template = template(&cluster, &images());
        let node = container(&template, "node");
        for (name, value) in [
            ("RAFT_ELECTION_TIMEOUT", "300ms..600ms"),
            ("RAFT_HEARTBEAT_INTERVAL", "100ms"),
            ("RAFT_SNAPSHOT_EVERY_BYTES", "64MiB"),
            ("RAFT_SNAPSHOT_EVERY_OPERATIONS", "100000"),
            ("RAFT_ADVERTISE", "$(POD_NAME).demo-peers.shop.svc:5001"),
            ("RAFT_PEER_LISTEN", "0.0.0.0:5002"),
            ("RAFT_REPLICATOR", "unix:///run/raftlog/replicator.sock"),
            ("LOG_FORMAT", "json"),
            ("RUST_LOG", "debug"),
        ] {
            assert_eq!(variable_of(node, name).as_deref(), Some(value), "{name}");
        }
        let replicator = container(&template, "replicator");
        assert_eq!(
            variable_of(replicator, "REPLICATE_LISTEN").as_deref(),
            Some("unix:///run/raftlog/replicator.sock")
        );
    }

    #[test]
    fn pods_are_restricted_and_liveness_asks_for_no_quorum() {
        let template = template(&cluster("replicas: 3"), &images());
        assert_eq!(template["spec"]["securityContext"]["runAsNonRoot"], true);
        for name in ["node", "replicator"] {
            let container = container(&template, name);
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
            assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
            assert_eq!(container["startupProbe"]["httpGet"]["path"], "/livez");
            assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
            assert_eq!(container["volumeMounts"][0]["subPath"], name);
        }
        for constraint in template["spec"]["topologySpreadConstraints"].as_array().unwrap() {
            assert_eq!(constraint["whenUnsatisfiable"], "ScheduleAnyway");
            assert_eq!(constraint["nodeTaintsPolicy"], "Honor");
        }
    }

    #[test]
    fn the_replicator_goes_after_its_node_and_is_not_killed_before() {
        let cluster = cluster("raft: {electionTimeout: {min: 20s, max: 40s}}");
        let template = template(&cluster, &images());
        let replicator = container(&template, "replicator");
        assert_eq!(replicator["lifecycle"]["preStop"]["sleep"]["seconds"], 21);
        assert_eq!(template["spec"]["terminationGracePeriodSeconds"], 36);
    }

    #[test]
    fn the_revision_moves_with_the_template_and_not_with_replicas() {
        let of = |spec: &str| {
            let template = template(&cluster(spec), &images());
            revision(&template).unwrap().to_owned()
        };
        assert_eq!(of("replicas: 3"), of("replicas: 5"));
        assert_ne!(of("replicas: 3"), of("replicas: 3\nlog: {level: debug}"));
        assert_ne!(of("replicas: 3"), of("replicas: 3\npodAnnotations: {a: b}"));
    }

    #[test]
    fn the_operators_labels_cannot_be_replaced() {
        let cluster = cluster("podLabels: {app.kubernetes.io/instance: other, team: blue}");
        let template = template(&cluster, &images());
        let labels = &template["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/instance"], "demo");
        assert_eq!(labels["team"], "blue");
    }
}
