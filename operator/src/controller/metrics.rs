//! What the operator counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::api::Calls;

/// Label `step`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StepLabel {
    /// What was done.
    pub step: &'static str,
}

/// Labels `step` and `reason`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ErrorLabel {
    /// What was tried.
    pub step: &'static str,
    /// Why it did not work.
    pub reason: &'static str,
}

/// Label `kind` of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchLabel {
    /// What is watched.
    pub kind: String,
}

/// Labels `kind` and `verb` of a watch that failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchFailureLabel {
    /// What is watched.
    pub kind: String,
    /// list or watch.
    pub verb: &'static str,
}

/// Counters and gauges. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Calls to the API server.
    pub calls: Calls,
    /// Steps that worked.
    pub steps: Family<StepLabel, Counter>,
    /// Steps that did not.
    pub errors: Family<ErrorLabel, Counter>,
    /// Looks at a cluster.
    pub reconciliations: Counter,
    /// `RaftClusters` that are looked after.
    pub clusters: Gauge,
    /// 1 while this process acts.
    pub leads: Gauge,
    /// Watches that fail at the moment.
    pub watches_failing: Family<WatchLabel, Gauge>,
    /// Attempts to list or watch that did not work.
    pub watch_failures: Family<WatchFailureLabel, Counter>,
}

impl Metrics {
    /// Adds all of them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("raftlog_operator");
        registry.register("api_calls", "Calls to the API server by verb", self.calls.clone());
        registry.register("steps", "Steps that were carried out", self.steps.clone());
        registry.register(
            "step_errors",
            "Steps that did not work, and why",
            self.errors.clone(),
        );
        registry.register(
            "reconciliations",
            "Times that a cluster was looked at",
            self.reconciliations.clone(),
        );
        registry.register(
            "clusters",
            "RaftClusters that are looked after",
            self.clusters.clone(),
        );
        registry.register(
            "leads",
            "1 while this process is the one that acts",
            self.leads.clone(),
        );
        registry.register(
            "watches_failing",
            "Watches that fail at the moment, by kind: nothing is changed where one does for 30 s",
            self.watches_failing.clone(),
        );
        registry.register(
            "watch_failures",
            "Attempts to list or watch that did not work",
            self.watch_failures.clone(),
        );
    }
}
