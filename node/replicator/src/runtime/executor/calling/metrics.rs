//! What calling out costs, and what comes of it.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Clones count together.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct CallMetrics {
    attempts: Counter,
    failures: Counter,
    retries: Counter,
    skipped: Counter,
    dead_letters_dropped: Counter,
    stopped: Gauge,
    seconds: Histogram,
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self {
            attempts: Counter::default(),
            failures: Counter::default(),
            retries: Counter::default(),
            skipped: Counter::default(),
            dead_letters_dropped: Counter::default(),
            stopped: Gauge::default(),
            // 1 ms to a minute, about.
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
        }
    }
}

impl CallMetrics {
    pub(in crate::runtime) fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            (
                "attempts",
                "Attempts at executing an operation, by the executors http and exec",
                &self.attempts,
            ),
            ("attempts_failed", "Attempts that failed", &self.failures),
            (
                "retries",
                "Attempts that followed on one that failed",
                &self.retries,
            ),
            (
                "operations_skipped",
                "Operations that were given up and recorded as dead letters",
                &self.skipped,
            ),
            (
                "dead_letter_files_dropped",
                "Files of dead letters, the older half each, that had to go for newer ones",
                &self.dead_letters_dropped,
            ),
        ] {
            registry.register(format!("raft_replicator_{name}"), help, counter.clone());
        }
        let help = "1 while nothing is executed any more, as an operation was given up";
        registry.register("raft_replicator_execution_stopped", help, self.stopped.clone());
        let help = "How long an attempt at executing an operation takes";
        let seconds = self.seconds.clone();
        registry.register_with_unit("raft_replicator_attempt", help, Unit::Seconds, seconds);
    }

    pub(super) fn attempt_begins(&self, is_retry: bool) {
        self.attempts.inc();
        if is_retry {
            self.retries.inc();
        }
    }

    pub(super) fn attempt_took(&self, time: Duration, failed: bool) {
        self.seconds.observe(time.as_secs_f64());
        if failed {
            self.failures.inc();
        }
    }

    pub(super) fn dead_letters_dropped(&self) {
        self.dead_letters_dropped.inc();
    }

    pub(super) fn skipped(&self) {
        self.skipped.inc();
    }

    pub(super) fn goes_on(&self) {
        self.stopped.set(0);
    }

    pub(super) fn stopped(&self) {
        self.stopped.set(1);
    }
}
