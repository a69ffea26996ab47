//! A RaftCluster as it is stored. Its spec and its status are read each by itself: a status that another version wrote, or
//! that somebody damaged, is no reason not to serve the spec.

use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::status;
use crate::crd::RaftCluster;
use crate::crd::status::RaftClusterStatus;

/// Why the operator cannot serve a RaftCluster as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Reason in conditions and Events.
    pub reason: &'static str,
    /// What, and the way out.
    pub why: String,
}

impl Refusal {
    /// What is asked for makes no sense.
    fn invalid_spec(why: String) -> Self {
        Self {
            reason: "InvalidSpec",
            why,
        }
    }

    /// What the operator has to remember cannot be read.
    pub fn record_damaged(config_map: &str, why: &str) -> Self {
        Self {
            reason: "RecordDamaged",
            why: format!(
                "ConfigMap {config_map} is damaged: {why}; restore it, or delete it if all nodes are formed"
            ),
        }
    }
}

/// What was told last; nothing, where that cannot be read.
pub fn told(object: &DynamicObject) -> RaftClusterStatus {
    let status = object.data.get("status").cloned().unwrap_or_default();
    serde_json::from_value(status).unwrap_or_default()
}

/// What is asked for.
pub fn asked(object: &DynamicObject) -> Result<RaftCluster, Refusal> {
    let mut whole = json!(object);
    if let Some(object) = whole.as_object_mut() {
        object.remove("status");
    }
    let cluster = parse(whole)?;
    status::check(&cluster)
        .map_err(|why| Refusal::invalid_spec(format!("{why}; correct it, and it is served")))?;
    Ok(cluster)
}

fn parse(object: Value) -> Result<RaftCluster, Refusal> {
    serde_json::from_value(object).map_err(|error| {
        Refusal::invalid_spec(format!(
            "it cannot be understood: {error}; correct it, and it is served"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::cache::raft_clusters;
    use super::*;

    fn stored(spec: &Value, status: &Value) -> DynamicObject {
        let data = json!({"spec": spec, "status": status});
        DynamicObject::new("demo", &raft_clusters()).data(data)
    }

    #[test]
    fn a_status_that_cannot_be_read_is_none() {
        for status in [
            json!("x"),
            json!({"members": 5}),
            json!({"term": "first"}),
            json!(null),
        ] {
            let object = stored(&json!({"replicas": 3}), &status);
            assert_eq!(told(&object), RaftClusterStatus::default());
            assert_eq!(asked(&object).unwrap().spec.replicas, 3);
        }
        let object = stored(&json!({}), &json!({"leader": "demo-1"}));
        assert_eq!(told(&object).leader.as_deref(), Some("demo-1"));
    }

    #[test]
    fn a_spec_that_makes_no_sense_is_refused_with_a_way_out() {
        for (spec, says) in [
            (json!({"replicas": "three"}), "cannot be understood"),
            (json!({"replicas": 4}), "give 1, 3, 5, 7 or 9"),
        ] {
            let refusal = asked(&stored(&spec, &json!({}))).unwrap_err();
            assert_eq!(refusal.reason, "InvalidSpec");
            assert!(
                refusal.why.contains(says) && refusal.why.contains("correct it"),
                "{}",
                refusal.why
            );
        }
    }
}
