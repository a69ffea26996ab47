//! What the operator must remember of a cluster, in a ConfigMap that the cluster owns: how it was formed, and which template
//! worked.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::meta::{Component, metadata};
use super::{Kind, Resource, names};
use crate::crd::RaftCluster;
use crate::crd::status::Images;

/// The only key.
const KEY: &str = "record.json";

/// How a cluster is formed: written before the first Bootstrap, so that an operator that was killed goes on with the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Formation {
    /// 16 hex digits.
    pub cluster_id: String,
    /// Member ID by node number, 16 hex digits each.
    pub members: BTreeMap<u32, String>,
}

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The images that the operator chose where the spec names none. Another operator's default is no reason to move.
    #[serde(default)]
    pub default_images: Images,
    /// Before the first Bootstrap there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formation: Option<Formation>,
    /// The last template with which all pods became ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good_template: Option<Value>,
    /// The rollout that stopped: not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedRollout>,
}

/// A rollout that stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRollout {
    /// What its template adds up to.
    pub revision: String,
    /// One line.
    pub why: String,
}

impl Record {
    /// What the ConfigMap holds. What cannot be read is an error: forgetting it could form a second cluster.
    pub fn parse(config_map: &Value) -> Result<Self, String> {
        let text = config_map.get("data").and_then(|data| data.get(KEY));
        let text = text
            .and_then(Value::as_str)
            .ok_or_else(|| format!("it has no data.{KEY}"))?;
        serde_json::from_str(text).map_err(|error| format!("data.{KEY} cannot be read: {error}"))
    }

    /// ConfigMap `demo-record`.
    pub fn resource(&self, cluster: &RaftCluster) -> Resource {
        let name = names::record(&cluster.name_any());
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(cluster, Component::Node, &name),
            "data": {KEY: json!(self).to_string()},
        });
        Resource::new(Kind::ConfigMap, name, Some(body))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::cluster;
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let record = Record {
            default_images: Images::default(),
            formation: Some(Formation {
                cluster_id: "00000000000000ab".into(),
                members: BTreeMap::from([(1, "0000000000000001".into())]),
            }),
            good_template: Some(json!({"spec": {}})),
            failed: None,
        };
        let body = record.resource(&cluster("replicas: 1")).body.unwrap();
        assert_eq!(Record::parse(&body).unwrap(), record);
        for (body, says) in [
            (json!({}), "no data.record.json"),
            (json!({"data": {"record.json": "{"}}), "cannot be read"),
        ] {
            assert!(Record::parse(&body).unwrap_err().contains(says));
        }
    }
}
