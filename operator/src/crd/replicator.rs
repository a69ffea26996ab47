//! How committed operations are executed, and how long replicators keep them for those who watch.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::DurationText;
use super::executor::{Executor, LogExecutor};

/// How committed operations are executed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(
    "!has(self.executor) || !has(self.executor.stateMachine) || !has(self.executeOn) || self.executeOn != 'leader'"
).message(
    "replicator.executeOn: leader goes with log, http and exec, but not with stateMachine, whose state lives with each replica: \
     write everyNode, or leave it out"
))]
#[serde(rename_all = "camelCase")]
pub struct ReplicatorSpec {
    /// What executes them: exactly one of log, http, exec and stateMachine; log, if it is left out.
    // Without a default: one that the API server wrote down would stay beside what `kubectl apply` names later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Executor", extend("x-kubernetes-map-type" = "atomic"))]
    pub executor: Option<Executor>,
    /// Where they are executed: by every node's replicator, or by the leader's alone, which then calls an endpoint once for all.
    #[serde(default)]
    pub execute_on: ExecuteOn,
    /// How much of what is executed replicators keep for those who watch; whichever bound is met first.
    #[serde(default, skip_serializing_if = "HistorySpec::is_empty")]
    pub retention: HistorySpec,
}

impl ReplicatorSpec {
    /// The one that is named, or the one that is there without a name.
    pub fn executor(&self) -> Executor {
        self.executor.clone().unwrap_or_else(|| Executor {
            log: Some(LogExecutor {}),
            ..Executor::default()
        })
    }
}

/// Where operations are executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum ExecuteOn {
    #[default]
    EveryNode,
    Leader,
}

impl ExecuteOn {
    /// As flags take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EveryNode => "every-node",
            Self::Leader => "leader",
        }
    }
}

/// How much of what is executed replicators keep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistorySpec {
    /// The last so many operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub operations: Option<i64>,
    /// Those of this time, such as 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message(
        "replicator.retention.age must be at least 1s"
    ))]
    pub age: Option<DurationText>,
    /// So many bytes of them, such as 256Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,14}(Ki|Mi|Gi)?$')").message(
        "replicator.retention.bytes must be a whole number of bytes, or of Ki, Mi or Gi: write 1536Mi instead of 1.5Gi"
    ))]
    pub bytes: Option<String>,
}

impl HistorySpec {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
