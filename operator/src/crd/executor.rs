//! What executes committed operations.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::DurationText;
use super::state_machine::StateMachine;

/// What executes committed operations: exactly one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(
    "[has(self.log), has(self.http), has(self.exec), has(self.stateMachine)].filter(given, given).size() == 1"
).message(
    "replicator.executor must name exactly one executor: keep one of log, http, exec and stateMachine, and remove the others (in a \
     merge patch by null); for log, write log: {}, or leave executor out"
))]
#[serde(rename_all = "camelCase")]
// Nothing is none: they may not be null.
pub struct Executor {
    /// Prints each operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LogExecutor")]
    pub log: Option<LogExecutor>,
    /// Sends each operation to an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HttpExecutor")]
    pub http: Option<HttpExecutor>,
    /// Runs a command of the replicator's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ExecExecutor")]
    pub exec: Option<ExecExecutor>,
    /// Has each operation applied by a container of the user's own, which keeps a state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StateMachine")]
    pub state_machine: Option<StateMachine>,
}

/// Prints each operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogExecutor {}

/// Sends each operation to an endpoint, one after the other, by POST: the operation is the body, its cluster and index the
/// Idempotency-Key. It is done when it is answered with 2xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpExecutor {
    /// The endpoint, such as `http://receiver.shop.svc:8080/operations`.
    #[schemars(length(min = 8, max = 2_048))]
    #[x_kube(validation = Rule::new(r"self.matches('^https?://[a-zA-Z0-9._:\\[\\]-]+([/?][^\\s#]*)?$')").message(
        "replicator.executor.http.url must be http://HOST[:PORT][/PATH] or https://..., without user, password and fragment: write \
         for example http://receiver.shop.svc:8080/operations"
    ))]
    pub url: String,
    /// How long one attempt may take, such as 30s.
    #[serde(default = "attempt_timeout")]
    #[x_kube(validation = Rule::new(ATTEMPT_TIMEOUT).message(
        "replicator.executor.http.timeout must lie between 10ms and 60m"
    ))]
    pub timeout: DurationText,
    /// What is done when an attempt fails.
    #[serde(default)]
    pub retry: RetrySpec,
}

/// Runs a command for each operation, or one for all. It has to be in the replicator's image: give one of your own as
/// image.replicator, with raft-replicator and the command in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecExecutor {
    /// The program and its arguments. No shell looks at them.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4_096)))]
    #[x_kube(validation = Rule::new("self.size() == 0 || self[0] != ''").message(
        "replicator.executor.exec.command begins with the program: write for example ['/usr/bin/python3', '/apply.py']"
    ))]
    pub command: Vec<String>,
    /// Whether the command is run for each operation, which it reads from stdin, or once for all, a line each.
    #[serde(default)]
    pub mode: ExecMode,
    /// How long one attempt may take, such as 30s.
    #[serde(default = "attempt_timeout")]
    #[x_kube(validation = Rule::new(ATTEMPT_TIMEOUT).message(
        "replicator.executor.exec.timeout must lie between 10ms and 60m"
    ))]
    pub timeout: DurationText,
    /// What is done when an attempt fails.
    #[serde(default)]
    pub retry: RetrySpec,
}

const ATTEMPT_TIMEOUT: &str = "duration(self) >= duration('10ms') && duration(self) <= duration('1h')";

fn attempt_timeout() -> DurationText {
    "30s".into()
}

/// How a command is fed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum ExecMode {
    #[default]
    Operation,
    Lines,
}

impl ExecMode {
    /// As flags take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Lines => "lines",
        }
    }
}

/// What is done when an attempt fails. Operations that come after it wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrySpec {
    /// No more attempts than this, and then onFailure; without it, it is tried for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_attempts: Option<i32>,
    /// How long is waited between two attempts.
    #[serde(default)]
    pub backoff: BackoffSpec,
    /// What becomes of an operation that fails after maxAttempts, or of which the endpoint says that it never will work (4xx, but for
    /// 408, 425 and 429; or exit code 65): Stop executes nothing more until the replicator is restarted; Skip records it beside the
    /// replicator's data and goes on.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// The first wait after a failure, twice as long after each one more, and the longest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(
    "duration(self.min) <= duration(self.max) && duration(self.max) <= duration('1h')"
).message(
    "retry.backoff.min may not be above max, nor max above 60m: lower min or raise max"
))]
#[serde(rename_all = "camelCase")]
pub struct BackoffSpec {
    /// The first wait, such as 100ms.
    #[serde(default = "BackoffSpec::min")]
    pub min: DurationText,
    /// The longest wait, such as 30s.
    #[serde(default = "BackoffSpec::max")]
    pub max: DurationText,
}

impl BackoffSpec {
    fn min() -> DurationText {
        "100ms".into()
    }

    fn max() -> DurationText {
        "30s".into()
    }
}

impl Default for BackoffSpec {
    fn default() -> Self {
        Self {
            min: Self::min(),
            max: Self::max(),
        }
    }
}

/// What becomes of an operation that cannot be executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum OnFailure {
    #[default]
    Stop,
    Skip,
}

impl OnFailure {
    /// As flags take it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Skip => "skip",
        }
    }
}
