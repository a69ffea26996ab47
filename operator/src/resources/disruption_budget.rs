//! At most one pod is evicted at a time.

use kube::ResourceExt as _;
use serde_json::json;

use super::meta::{Component, metadata, selector};
use super::{Kind, Resource};
use crate::crd::RaftCluster;

/// PodDisruptionBudget `demo`. A single replica has none, as its machine could never be drained.
pub fn build(cluster: &RaftCluster) -> Resource {
    let name = cluster.name_any();
    let wanted = cluster.spec.pod_disruption_budget.enabled && cluster.spec.replicas > 1;
    let body = wanted.then(|| {
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(cluster, Component::Node, &name),
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": selector(cluster, Component::Node)},
                // Pods that serve nobody may always go.
                "unhealthyPodEvictionPolicy": "IfHealthyBudget",
            },
        })
    });
    Resource::new(Kind::PodDisruptionBudget, name, body)
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster;
    use super::*;

    #[test]
    fn one_replica_and_who_wants_none_has_none() {
        for (spec, there) in [
            ("replicas: 3", true),
            ("replicas: 1", false),
            ("replicas: 5\npodDisruptionBudget: {enabled: false}", false),
        ] {
            assert_eq!(build(&cluster(spec)).body.is_some(), there, "{spec}");
        }
    }
}
