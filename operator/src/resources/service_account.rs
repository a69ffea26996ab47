//! The pods' identity, which may do nothing.

use kube::ResourceExt as _;
use serde_json::json;

use super::meta::{Component, metadata};
use super::{Kind, Resource};
use crate::crd::RaftCluster;

/// ServiceAccount `demo`, without a token in the pods.
pub fn build(cluster: &RaftCluster) -> Resource {
    let name = cluster.name_any();
    let body = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(cluster, Component::Node, &name),
        "automountServiceAccountToken": false,
    });
    Resource::new(Kind::ServiceAccount, name, Some(body))
}
