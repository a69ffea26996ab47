//! The third container of a pod, where operations are applied by one of the user's own.
//!
//! It is a plain container beside the two others. As a sidecar of Kubernetes' kind it would be started before them and keep them from
//! starting while its image cannot be pulled; but a node needs no executor to vote.

use serde_json::{Map, Value, json};

use super::names::VOLUME;
use super::pod::{RUN, container_security, variable};
use super::stopping::machine_lingers_seconds;
use crate::crd::RaftCluster;
use crate::crd::state_machine::StateMachine;

/// Its name.
pub const NAME: &str = "state-machine";
/// Where it has its folder of the volume.
const DATA: &str = "/var/lib/state-machine";
/// What languages other than Rust often want.
const TEMPORARY: &str = "/tmp";
const TEMPORARY_VOLUME: &str = "tmp";
/// What it writes there may be lost at any time.
const TEMPORARY_SIZE: &str = "64Mi";

/// Where the replicator finds it.
pub(super) fn url(machine: &StateMachine) -> String {
    match machine.port {
        Some(port) => format!("http://127.0.0.1:{port}"),
        None => socket(),
    }
}

/// Where it listens.
fn listen(machine: &StateMachine) -> String {
    match machine.port {
        // Nobody but the pod's own containers reaches it there.
        Some(port) => format!("127.0.0.1:{port}"),
        None => socket(),
    }
}

fn socket() -> String {
    format!("unix://{RUN}/state-machine.sock")
}

/// What the pod has for it.
pub(super) fn volume() -> Value {
    json!({"name": TEMPORARY_VOLUME, "emptyDir": {"sizeLimit": TEMPORARY_SIZE}})
}

/// The container.
pub(super) fn container(cluster: &RaftCluster, machine: &StateMachine) -> Value {
    let spec = &cluster.spec;
    let mut environment = vec![
        variable("STATE_MACHINE_DATA_DIR", DATA),
        variable("STATE_MACHINE_LISTEN", &listen(machine)),
    ];
    environment.extend(machine.env.iter().map(|variable| json!(variable)));
    let mut container = Map::new();
    let mut put = |key: &str, value: Value| container.insert(key.to_owned(), value);
    put("name", json!(NAME));
    put("image", json!(machine.image));
    put("imagePullPolicy", json!(spec.image.pull_policy.name()));
    put("env", json!(environment));
    put("resources", json!(machine.resources));
    put(
        "volumeMounts",
        json!([
            {"name": VOLUME, "mountPath": DATA, "subPath": NAME},
            {"name": "run", "mountPath": RUN},
            {"name": TEMPORARY_VOLUME, "mountPath": TEMPORARY},
        ]),
    );
    put("securityContext", container_security());
    put(
        "lifecycle",
        json!({"preStop": {"sleep": {"seconds": machine_lingers_seconds(&spec.raft)}}}),
    );
    // The last lines that it printed say why it ended: the operator tells them.
    put("terminationMessagePolicy", json!("FallbackToLogsOnError"));
    for (key, list) in [("command", &machine.command), ("args", &machine.args)] {
        if !list.is_empty() {
            put(key, json!(list));
        }
    }
    if !machine.env_from.is_empty() {
        put("envFrom", json!(machine.env_from));
    }
    for (key, probe) in [
        ("livenessProbe", &machine.liveness_probe),
        ("startupProbe", &machine.startup_probe),
    ] {
        if let Some(probe) = probe {
            put(key, json!(probe));
        }
    }
    Value::Object(container)
}

#[cfg(test)]
mod tests {
    use super::super::pod::template;
    use super::super::tests::{cluster, images};
    use super::*;

    fn containers(spec: &str) -> Vec<Value> {
        let template = template(&cluster(spec), &images());
        template["spec"]["containers"].as_array().unwrap().clone()
    }

    fn machine(spec: &str) -> Value {
        let spec = format!("replicator: {{executor: {{stateMachine: {{{spec}}}}}}}");
        let containers = containers(&spec);
        let names: Vec<&str> = containers
            .iter()
            .map(|container| container["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["node", "replicator", "state-machine"]);
        containers[2].clone()
    }

    fn variable_of<'a>(container: &'a Value, name: &str) -> &'a Value {
        let variables = container["env"].as_array().unwrap();
        variables
            .iter()
            .find(|variable| variable["name"] == name)
            .unwrap()
    }

    #[test]
    fn it_is_what_was_asked_for_and_restricted_as_the_others() {
        let container = machine(
            "image: 'kv:1', command: [/kv], args: [-v], env: [{name: A, value: b}, {name: S, valueFrom: {secretKeyRef: {name: s, key: \
             k}}}], envFrom: [{configMapRef: {name: c}}], resources: {limits: {memory: 1Gi}}, livenessProbe: {exec: {command: [/kv, \
             health]}}, startupProbe: {exec: {command: [/kv]}, failureThreshold: 30}",
        );
        for (pointer, expected) in [
            ("/image", json!("kv:1")),
            ("/imagePullPolicy", json!("IfNotPresent")),
            ("/command", json!(["/kv"])),
            ("/args", json!(["-v"])),
            ("/envFrom/0/configMapRef/name", json!("c")),
            ("/resources/limits/memory", json!("1Gi")),
            ("/livenessProbe/exec/command/1", json!("health")),
            ("/startupProbe/failureThreshold", json!(30)),
            ("/securityContext/readOnlyRootFilesystem", json!(true)),
            ("/securityContext/allowPrivilegeEscalation", json!(false)),
            ("/terminationMessagePolicy", json!("FallbackToLogsOnError")),
            ("/volumeMounts/0/subPath", json!("state-machine")),
            ("/volumeMounts/0/mountPath", json!("/var/lib/state-machine")),
            ("/volumeMounts/1/mountPath", json!("/run/raftlog")),
        ] {
            assert_eq!(container.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert_eq!(variable_of(&container, "A")["value"], "b");
        assert_eq!(
            variable_of(&container, "S")["valueFrom"]["secretKeyRef"]["key"],
            "k"
        );
        let places = |name| variable_of(&container, name)["value"].clone();
        assert_eq!(places("STATE_MACHINE_DATA_DIR"), "/var/lib/state-machine");
        assert_eq!(
            places("STATE_MACHINE_LISTEN"),
            "unix:///run/raftlog/state-machine.sock"
        );
    }

    /// Execution never takes a pod out of its Service.
    #[test]
    fn no_probe_makes_its_pod_unready() {
        let container = machine("image: kv, readinessProbe: {exec: {command: [/never]}}");
        for field in [
            "readinessProbe",
            "livenessProbe",
            "startupProbe",
            "command",
            "args",
        ] {
            assert_eq!(container.get(field), None, "{field}");
        }
    }

    #[test]
    fn a_port_takes_the_place_of_the_socket() {
        let container = machine("image: kv, port: 7001");
        assert_eq!(
            variable_of(&container, "STATE_MACHINE_LISTEN")["value"],
            "127.0.0.1:7001"
        );
    }

    #[test]
    fn it_goes_after_the_replicator_which_goes_after_the_node() {
        let spec = "raft: {electionTimeout: {min: 20s, max: 40s}}\n\
                    replicator: {executor: {stateMachine: {image: kv}}}";
        let containers = containers(spec);
        let sleeps = |index: usize| {
            let container: &Value = &containers[index];
            container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64()
        };
        assert_eq!((sleeps(0), sleeps(1), sleeps(2)), (None, Some(21), Some(22)));
    }

    #[test]
    fn without_one_there_are_two_containers_as_there_always_were() {
        assert_eq!(containers("replicas: 3").len(), 2);
        assert_eq!(
            containers("replicator: {executor: {http: {url: 'http://a'}}}").len(),
            2
        );
    }
}
