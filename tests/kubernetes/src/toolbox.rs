//! A pod in which raftctl runs, as it would in a user's own pods: by addresses that only the cluster's DNS knows.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::command::root;
use crate::installation::Installation;
use crate::raft_cluster::RaftCluster;
use crate::wait::eventually;

/// The pod, and its container.
const NAME: &str = "toolbox";

/// The pod. It goes with its namespace.
#[derive(Debug)]
pub struct Toolbox<'a> {
    installed: &'a Installation,
}

impl<'a> Toolbox<'a> {
    /// Starts it, on the machine of that name if one is given, and waits until it runs.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn new(installed: &'a Installation, machine: Option<&str>) -> Self {
        installed
            .apply(&pod(NAME, &installed.images().node, machine, &["--id", "9"]))
            .unwrap_or_else(|why| panic!("{why}"));
        installed.kubectl(&["wait", "pod/toolbox", "--for=condition=Ready", "--timeout=2m"]);
        Self { installed }
    }

    /// Where it is.
    pub fn installation(&self) -> &'a Installation {
        self.installed
    }

    /// A command that runs raftctl there, and shows what it says as it says it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        let namespace = self.installed.namespace();
        command.args(["--namespace", namespace, "exec", NAME, "--", "/raftctl"]);
        command.args(arguments).current_dir(root()).stdin(Stdio::null());
        command
    }

    /// What raftctl says.
    pub fn raftctl(&self, arguments: &[&str]) -> Result<String, String> {
        let run = ["exec", NAME, "--", "/raftctl"];
        self.installed.try_kubectl(&[&run, arguments].concat())
    }

    /// The pod that leads, as the first so many nodes say themselves.
    pub fn leader(&self, cluster: &RaftCluster<'_>, nodes: u32) -> Result<String, String> {
        let endpoints = cluster.endpoints(nodes);
        let text = self.raftctl(&["--endpoints", &endpoints, "--output", "json", "status"])?;
        let status: Value = serde_json::from_str(&text).map_err(|error| format!("{text}: {error}"))?;
        let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        let leaders = nodes.iter().filter(|node| node["role"] == "leader");
        let latest = leaders.max_by_key(|node| node["term"].as_u64());
        let node = latest
            .and_then(|node| node["node"].as_u64())
            .and_then(|node| u32::try_from(node).ok());
        node.map(|node| cluster.pod(node))
            .ok_or_else(|| "nobody leads".to_owned())
    }

    /// The operations that the replicator of a node holds, by index.
    pub fn held(&self, cluster: &RaftCluster<'_>, node: u32) -> Vec<(u64, String)> {
        let (pod, name) = (cluster.pod(node), cluster.name());
        let address = format!("{pod}.{name}-peers:6001");
        let watch = ["--replicators", &address, "--output", "json", "watch"];
        let lines = eventually(&format!("the operations of {pod}"), || self.raftctl(&watch));
        lines.lines().map(operation).collect()
    }

    /// Waits until the first so many replicas hold the same operations.
    pub fn until_verified(&self, cluster: &RaftCluster<'_>, nodes: u32) {
        let (endpoints, replicators) = (cluster.endpoints(nodes), cluster.replicators(nodes));
        let flags = ["--endpoints", &endpoints, "--replicators", &replicators];
        eventually("raftctl verify", || {
            self.raftctl(&[&flags[..], &["verify"]].concat())
        });
    }
}

fn operation(line: &str) -> (u64, String) {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("'{line}': {error}"));
    let (index, operation) = (value["index"].as_u64(), value["operation"].as_str());
    (
        index.unwrap_or_else(|| panic!("no index in '{line}'")),
        operation.unwrap_or_default().to_owned(),
    )
}

/// A pod that runs a node and nothing else. For want of a `sleep` in the image, that is what the toolbox does: a node that belongs to
/// no cluster does nothing until it is told to.
pub fn pod(name: &str, image: &str, machine: Option<&str>, arguments: &[&str]) -> Value {
    let arguments = [&["--data-dir", "/tmp/node"], arguments].concat();
    let mut spec = json!({
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65_532, "runAsGroup": 65_532, "fsGroup": 65_532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": name,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "args": arguments,
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            },
        }],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    });
    if let Some(machine) = machine {
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": machine});
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_understood() {
        let line = r#"{"index":7,"term":2,"operation":"a"}"#;
        assert_eq!(operation(line), (7, "a".to_owned()));
    }
}
