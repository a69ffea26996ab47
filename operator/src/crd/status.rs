//! What the operator tells of a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RaftClusterStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that there are.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Ready pods of those asked for, such as 5/5.
    #[serde(default)]
    pub ready: String,
    /// Selects the cluster's pods.
    #[serde(default)]
    pub selector: String,
    /// Identity of the cluster, made at its formation: 16 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The leader's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The highest term that a node told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<i64>,
    /// The last committed operation's index; told at most every ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_index: Option<i64>,
    /// The images in use.
    #[serde(default)]
    pub images: Images,
    /// Who belongs to the cluster, as the leader sees it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["memberId"]))]
    pub members: Vec<MemberStatus>,
    /// Ready, Available, Progressing, Degraded, QuorumAtRisk, ExecutionLagging, ExecutorFailing, StorageResizeUnsupported, ReconciliationPaused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Images that the spec or, where it said nothing, the operator chose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Images {
    /// With raft-node and raftctl.
    #[serde(default)]
    pub node: String,
    /// With raft-replicator.
    #[serde(default)]
    pub replicator: String,
}

/// One member of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Node number: the pod's ordinal plus 1.
    // The API server knows no unsigned numbers.
    #[schemars(with = "i64", range(min = 0))]
    pub node: u32,
    /// Its identity: 16 hex digits.
    pub member_id: String,
    /// Its pod, where that holds this very member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// leader, follower, candidate, learner, or unknown.
    pub role: String,
    /// Whether its vote counts.
    pub voter: bool,
    /// Highest log index known to be on its disk; told at most every ten seconds.
    pub match_index: i64,
    /// Whether its pod is ready.
    pub ready: bool,
    /// The last operation that its replicator executed; told at most every ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_index: Option<i64>,
    /// How its executor does; told at most every ten seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<ExecutorState>,
}

/// How a replicator's executor does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutorState {
    /// log, http, exec or state-machine; empty where its replicator does not tell.
    #[serde(default)]
    pub kind: String,
    /// It has given up at failure.index, and executes nothing until its replicator is started anew.
    #[serde(default)]
    pub stopped: bool,
    /// Operations that it could not execute and recorded instead, since its replicator began.
    #[serde(default)]
    pub skipped_operations: i64,
    /// What it fails at; absent while it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ExecutorFailureStatus>,
}

/// What an executor fails at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutorFailureStatus {
    /// The operation; 0 where it is not one operation.
    pub index: i64,
    /// Why, in one line.
    pub message: String,
    /// Attempts that failed in a row.
    pub attempts: i64,
    /// Since when it fails at this operation.
    pub since: String,
}
