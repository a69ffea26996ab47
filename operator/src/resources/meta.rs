//! Labels, annotations and owners.

use std::collections::BTreeMap;

use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::crd::RaftCluster;

/// The one field manager, and who manages.
pub const MANAGER: &str = "raft-operator";
/// Selects all that the operator makes.
pub const SELECTOR: &str =
    "app.kubernetes.io/name=raft-log-replicator,app.kubernetes.io/managed-by=raft-operator";
/// Whose an object is: the RaftCluster's name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// What an object is for.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Label of a pod: leader or follower, a hint.
pub const ROLE: &str = "raftlog.io/role";
/// The role that the Service of the leader selects.
pub const LEADER: &str = "leader";
/// The role of all others.
pub const FOLLOWER: &str = "follower";
/// Annotation of a pod: what its template adds up to.
pub const REVISION: &str = "raftlog.io/revision";
/// Annotation of an object: what was applied last adds up to this.
pub const APPLIED: &str = "raftlog.io/applied";
/// Annotation of a claim that was left behind while such claims were to be kept: it stays.
pub const KEPT: &str = "raftlog.io/kept";
/// Annotation of a claim: the cluster whose data it holds.
pub const CLUSTER_ID: &str = "raftlog.io/cluster-id";

/// What an object is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Pods of nodes, and what is there for them.
    Node,
    /// The test client.
    Client,
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client => "client",
        }
    }
}

/// Labels that select pods: never changed, as selectors cannot be.
pub fn selector(cluster: &RaftCluster, component: Component) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "raft-log-replicator"),
        (INSTANCE, &cluster.name_any()),
        (COMPONENT, component.name()),
        ("app.kubernetes.io/managed-by", MANAGER),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// The same, as status and `kubectl` write it.
pub fn selector_text(cluster: &RaftCluster) -> String {
    let pairs: Vec<String> = selector(cluster, Component::Node)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

/// Metadata of an object of that name.
pub fn metadata(cluster: &RaftCluster, component: Component, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": cluster.namespace().unwrap_or_default(),
        "labels": selector(cluster, component),
        "ownerReferences": [owner(cluster)],
    })
}

/// Whose an object is. Deleting the RaftCluster deletes it, whether the operator runs or not.
fn owner(cluster: &RaftCluster) -> Value {
    json!({
        "apiVersion": RaftCluster::api_version(&()),
        "kind": RaftCluster::kind(&()),
        "name": cluster.name_any(),
        "uid": cluster.uid().unwrap_or_default(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// The owner of what is deleted with the RaftCluster and may have other owners.
pub fn goes_with(cluster: &RaftCluster) -> Value {
    json!({
        "apiVersion": RaftCluster::api_version(&()),
        "kind": RaftCluster::kind(&()),
        "name": cluster.name_any(),
        "uid": cluster.uid().unwrap_or_default(),
    })
}

/// What a manifest adds up to: 16 hex digits. Maps are ordered, so equal ones add up to the same.
pub fn digest(body: &Value) -> String {
    format!("{:016x}", xxh3_64(body.to_string().as_bytes()))
}
