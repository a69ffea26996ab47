//! The pods, and their volumes.

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::meta::{Component, metadata, selector};
use super::names::{self, VOLUME};
use super::{Kind, Resource};
use crate::crd::RaftCluster;
use crate::crd::spec::Retention;

/// StatefulSet `demo` with so many pods made from that template. `size` is what the claims of new pods ask for: it is fixed
/// once the StatefulSet is there, and claims grow one by one.
pub fn build(cluster: &RaftCluster, template: &Value, replicas: u32, size: &str) -> Resource {
    let name = cluster.name_any();
    let labels = selector(cluster, Component::Node);
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(cluster, Component::Node, &name),
        "spec": {
            "replicas": replicas,
            "serviceName": names::peers(&name),
            "selector": {"matchLabels": labels},
            // Nodes need each other to become ready.
            "podManagementPolicy": "Parallel",
            // The operator knows whose turn it is.
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 3,
            // The controller of StatefulSets knows no RaftCluster and no members: somebody's `kubectl delete statefulset` or `kubectl
            // scale statefulset --replicas=0` would cost every volume. Claims that are to go with the RaftCluster are owned by it, and
            // the operator deletes those of members that have left.
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": Retention::Retain.name(),
                "whenScaled": Retention::Retain.name(),
            },
            "template": template,
            "volumeClaimTemplates": [claim(cluster, size)],
        },
    });
    Resource::new(Kind::StatefulSet, name, Some(body))
}

fn claim(cluster: &RaftCluster, size: &str) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
        "volumeMode": "Filesystem",
    });
    if let Some(class) = &cluster.spec.storage.storage_class_name {
        spec["storageClassName"] = json!(class);
    }
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": VOLUME, "labels": selector(cluster, Component::Node)},
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::super::pod;
    use super::super::tests::{cluster, images};
    use super::*;

    #[test]
    fn restarts_are_the_operators_and_volumes_the_users() {
        let cluster = cluster(
            "replicas: 5\nstorage: {size: 2Gi, retention: {whenDeleted: Delete, whenScaled: Delete}}",
        );
        let template = pod::template(&cluster, &images());
        let body = build(&cluster, &template, 5, "1Gi").body.unwrap();
        let spec = &body["spec"];
        assert_eq!(spec["replicas"], 5);
        assert_eq!(spec["updateStrategy"]["type"], "OnDelete");
        assert_eq!(spec["podManagementPolicy"], "Parallel");
        assert_eq!(spec["serviceName"], "demo-peers");
        let policy = &spec["persistentVolumeClaimRetentionPolicy"];
        assert_eq!(
            (&policy["whenDeleted"], &policy["whenScaled"]),
            (&json!("Retain"), &json!("Retain")),
            "neither deleting nor scaling the StatefulSet deletes a volume"
        );
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "1Gi");
        assert_eq!(claim["spec"].get("storageClassName"), None);
    }
}
