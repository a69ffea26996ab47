//! Which machines a pod may run on, and what has to give way to it.

use serde_json::{Map, Value, json};

use crate::crd::RaftCluster;

/// Fields of a pod's spec. Affinity is not among them: it may keep pods of nodes apart, which is nothing to the test client.
pub fn placement(cluster: &RaftCluster) -> Map<String, Value> {
    let spec = &cluster.spec;
    let mut placement = Map::new();
    let mut put = |key: &str, value: Value| placement.insert(key.to_owned(), value);
    if !spec.tolerations.is_empty() {
        put("tolerations", json!(spec.tolerations));
    }
    if !spec.node_selector.is_empty() {
        put("nodeSelector", json!(spec.node_selector));
    }
    if let Some(class) = &spec.priority_class_name {
        put("priorityClassName", json!(class));
    }
    placement
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster;
    use super::*;

    #[test]
    fn what_is_not_asked_for_is_left_out() {
        for (spec, expected) in [
            ("replicas: 3", json!({})),
            (
                "tolerations: [{key: x, operator: Exists}]\nnodeSelector: {disk: ssd}\npriorityClassName: high",
                json!({
                    "tolerations": [{"key": "x", "operator": "Exists"}],
                    "nodeSelector": {"disk": "ssd"},
                    "priorityClassName": "high",
                }),
            ),
        ] {
            assert_eq!(Value::Object(placement(&cluster(spec))), expected, "{spec}");
        }
    }
}
