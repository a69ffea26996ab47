//! At most one pod is evicted at a time.

use kube::ResourceExt as _;
use serde_json::json;

use super::meta::{Component, metadata, selector};
use super::{Kind, Resource};
use crate::crd::RaftCluster;

/// A pod that is not ready may go while all others are ready: one broken pod holds up no drain. While more are not ready, none may
/// go, as a pod that is not ready may vote all the same: all are unready while they elect a leader. `AlwaysAllow` would let
/// drains take the majority in that moment, or a voter that lacks nothing but its replicator while others are down. What
/// holds up a drain then is what has to be repaired first.
///
/// A template that does not start is no reason for more: the operator knows who votes, and deletes pods that are outdated and
/// not ready where there is a quorum without them.
const UNHEALTHY_POD_EVICTION_POLICY: &str = "IfHealthyBudget";

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
                "unhealthyPodEvictionPolicy": UNHEALTHY_POD_EVICTION_POLICY,
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

    #[test]
    fn unready_pods_go_only_while_all_others_are_ready() {
        let body = build(&cluster("replicas: 5")).body.unwrap();
        assert_eq!(body["spec"]["maxUnavailable"], 1);
        assert_eq!(body["spec"]["unhealthyPodEvictionPolicy"], "IfHealthyBudget");
    }
}
