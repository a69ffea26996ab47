//! What a node tells over HTTP.
//!
//! `/status` is one object: `node`, `member_id` and `cluster_id` (16 hex digits, `null` while unformed), `role`, `term`,
//! `leader` (`{node, member_id, client_address}` or `null`), `elected_by`, `commit_index`, `last_index`, `persisted_index`
//! (operation indexes), `commit_log_index`, `last_log_index`, `running_hash` (16 hex digits), `members` (a list of
//! `{node, member_id, peer_address, client_address, voter}`), `old_voters` (while a joint configuration is in force, a list of
//! `{member_id, leaves}`; else empty), `configuration_version`, `progress` (on the leader, a list of `{node, member_id,
//! match_log_index, last_contact_milliseconds, in_flight_bytes, caught_up, feature_level_min, feature_level_max}`, of which
//! the last two are `null` while it has not told), `replicator` (`{name, connected, last_index,
//! commit_index, executed_index}`), `first_index` (in the log; earlier ones are in a snapshot), `snapshot_index`,
//! `snapshot_bytes`, `log_bytes` (of disk, about), `ready`, `reason`, `disk_full`, `disk_stalled`, `log_full`, `feature_level` (the cluster's, `null` while unformed),
//! `feature_level_min` and `feature_level_max` (what this node supports), `version`.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use raftlog_raft::feature::FeatureLevel;
use raftlog_telemetry::http::{Answer, Probe};
use serde_json::{Value, json};

use crate::config::Config;
use crate::handle::Handle;
use crate::lifecycle::Lifecycle;
use crate::node::Status;
use crate::readiness::readiness;

/// A node, probed.
pub(crate) struct NodeProbe {
    pub(crate) config: Arc<Config>,
    pub(crate) core: Handle,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) registry: Registry,
}

impl Probe for NodeProbe {
    fn ready(&self) -> Answer {
        readiness(
            &self.core.published(),
            &self.config.replicator_name,
            self.lifecycle.is_stopping(),
        )
    }

    fn status(&self) -> Value {
        to_json(
            &self.core.published(),
            &self.config.replicator_name,
            &self.ready(),
        )
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}

fn to_json(status: &Status, replicator: &str, ready: &Answer) -> Value {
    let members = status.configuration.members().iter().map(|member| {
        json!({
            "node": member.node,
            "member_id": member.id.to_string(),
            "peer_address": member.peer_address,
            "client_address": member.client_address,
            "voter": member.voter,
        })
    });
    let progress = status.progress.iter().map(|member| {
        json!({
            "node": member.node,
            "member_id": member.member_id.to_string(),
            "match_log_index": member.match_log_index,
            "last_contact_milliseconds": u64::try_from(member.last_contact.as_millis()).unwrap_or(u64::MAX),
            "in_flight_bytes": member.in_flight_bytes,
            "caught_up": member.caught_up,
            "feature_level_min": member.supports.map(|supports| supports.min().get()),
            "feature_level_max": member.supports.map(|supports| supports.max().get()),
        })
    });
    let old_voters = status.configuration.old_voters().iter().map(|voter| {
        json!({
            "member_id": voter.id.to_string(),
            "leaves": voter.leaves,
        })
    });
    let leader = status.leader.as_ref().map(|leader| {
        json!({
            "node": leader.node,
            "member_id": leader.member_id.to_string(),
            "client_address": leader.client_address,
        })
    });
    json!({
        "node": status.node,
        "member_id": status.member_id.to_string(),
        "cluster_id": status.cluster_id.map(|id| id.to_string()),
        "role": status.role.to_string(),
        "term": status.term,
        "leader": leader,
        "elected_by": status.elected_by.map(|by| by.to_string()),
        "commit_index": status.commit_index,
        "last_index": status.last_index,
        "persisted_index": status.persisted_index,
        "commit_log_index": status.commit_log_index,
        "last_log_index": status.last_log_index,
        "running_hash": format!("{:016x}", status.running_hash),
        "members": members.collect::<Vec<_>>(),
        "old_voters": old_voters.collect::<Vec<_>>(),
        "configuration_version": status.configuration.version,
        "progress": progress.collect::<Vec<_>>(),
        "replicator": {
            "name": replicator,
            "connected": status.replicator.connected,
            "last_index": status.replicator.progress.last_index,
            "commit_index": status.replicator.progress.commit_index,
            "executed_index": status.replicator.progress.executed_index,
        },
        "ready": ready.yes,
        "reason": ready.why,
        "first_index": status.kept.first_index,
        "snapshot_index": status.kept.snapshot_index,
        "snapshot_bytes": status.kept.snapshot_bytes,
        "log_bytes": status.kept.log_bytes,
        "log_full": status.kept.log_full,
        "disk_full": status.disks.full,
        "disk_stalled": status.disks.stalled,
        "feature_level": status.feature_level.map(FeatureLevel::get),
        "feature_level_min": status.supports.min().get(),
        "feature_level_max": status.supports.max().get(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::tests::follower;

    #[test]
    fn status_is_what_is_documented() {
        let status = follower();
        let value = to_json(&status, "q4node1", &readiness(&status, "q4node1", false));
        assert_eq!(value["role"], "follower");
        assert_eq!(value["cluster_id"], "0000000000000001");
        assert_eq!(value["leader"]["node"], 2);
        assert_eq!(value["replicator"]["executed_index"], 5);
        assert_eq!(value["ready"], true);
    }
}
