//! What `/metrics` tells. Names carry their units; all indexes are operation indexes.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::core::Status;

/// Clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    gauges: Arc<Gauges>,
    executed: Counter,
    queries: Counter,
    snapshots_taken: Counter,
    snapshots_restored: Counter,
    results_waiting: Gauge,
}

#[derive(Debug, Default)]
struct Gauges {
    first: Gauge,
    snapshot_kept: Gauge,
    last: Gauge,
    commit: Gauge,
    executed: Gauge,
    durable_executed: Gauge,
    progress_mark: Gauge,
    executes_for_all: Gauge,
    persisted: Gauge,
    executing: Gauge,
    waits_for_executor: Gauge,
    unpersisted_bytes: Gauge,
    cached_bytes: Gauge,
    wal_bytes: Gauge,
    wal_segments: Gauge,
    disk_full: Gauge,
    history_room_bytes: Gauge,
    history_cut_short: Gauge,
    node_connected: Gauge,
    ready: Gauge,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let gauges = &self.gauges;
        for (name, help, gauge) in [
            (
                "first_index",
                "Lowest operation index held; 0 if none is",
                &gauges.first,
            ),
            ("last_index", "Highest operation index held", &gauges.last),
            (
                "snapshot_kept_index",
                "The node holds snapshots, so that it needs nothing up to this operation index",
                &gauges.snapshot_kept,
            ),
            (
                "commit_index",
                "Highest operation index known to be committed",
                &gauges.commit,
            ),
            (
                "executed_index",
                "Highest operation index executed",
                &gauges.executed,
            ),
            (
                "durable_executed_index",
                "Executed index that would survive a crash",
                &gauges.durable_executed,
            ),
            (
                "progress_mark_index",
                "Highest operation index that the log says is executed by leaders' replicators; 0 where every replicator executes",
                &gauges.progress_mark,
            ),
            (
                "executes_for_all",
                "1 while its node leads and so it executes on behalf of all",
                &gauges.executes_for_all,
            ),
            (
                "persisted_index",
                "Highest operation index on this replicator's disk",
                &gauges.persisted,
            ),
            (
                "executing_operations",
                "Operations handed to the executor and not done",
                &gauges.executing,
            ),
            (
                "waits_for_executor",
                "1 while nothing is taken from the node, as too much waits for the executor",
                &gauges.waits_for_executor,
            ),
            (
                "feed_buffered_bytes",
                "Operations held that are not on disk yet",
                &gauges.unpersisted_bytes,
            ),
            ("cached_bytes", "Operations held in memory", &gauges.cached_bytes),
            ("wal_bytes", "Size of the log on disk", &gauges.wal_bytes),
            (
                "wal_segments",
                "Segments of the log on disk",
                &gauges.wal_segments,
            ),
            ("disk_full", "1 while the disk is full", &gauges.disk_full),
            (
                "node_connected",
                "1 while its node's stream is open",
                &gauges.node_connected,
            ),
            ("ready", "1 while /readyz says so", &gauges.ready),
            (
                "history_room_bytes",
                "The log is kept no longer than this for the sake of those who watch it, whatever the limits say",
                &gauges.history_room_bytes,
            ),
            (
                "history_cut_short",
                "1 while less is held than the limits leave, as the disk has no room for more",
                &gauges.history_cut_short,
            ),
            (
                "results_waiting",
                "Results that the node waits for, of operations that are not executed yet",
                &self.results_waiting,
            ),
        ] {
            registry.register(format!("raft_replicator_{name}"), help, gauge.clone());
        }
        let help = "Operations executed by this process";
        registry.register("raft_replicator_operations_executed", help, self.executed.clone());
        let help = "Queries that the node had for the executor";
        registry.register("raft_replicator_queries", help, self.queries.clone());
        let help = "Snapshots given to the node by this process";
        registry.register(
            "raft_replicator_snapshots_taken",
            help,
            self.snapshots_taken.clone(),
        );
        let help = "Snapshots of the node that took the place of this replicator's log";
        registry.register(
            "raft_replicator_snapshots_restored",
            help,
            self.snapshots_restored.clone(),
        );
    }

    /// Counts executed operations.
    pub(super) fn executed(&self, operations: u64) {
        self.executed.inc_by(operations);
    }

    /// Counts a query.
    pub(super) fn queried(&self) {
        self.queries.inc();
    }

    /// Counts a snapshot for the node.
    pub(super) fn snapshot_taken(&self) {
        self.snapshots_taken.inc();
    }

    /// Counts a snapshot from the node.
    pub(super) fn snapshot_restored(&self) {
        self.snapshots_restored.inc();
    }

    /// So many results are waited for.
    pub(super) fn results_waiting(&self, results: usize) {
        self.results_waiting
            .set(i64::try_from(results).unwrap_or(i64::MAX));
    }

    /// Brings the gauges up to date.
    pub(super) fn refresh(&self, status: &Status) {
        let gauges = &self.gauges;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let size = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        gauges.first.set(number(status.first_index));
        gauges.snapshot_kept.set(number(status.snapshot_kept));
        gauges.last.set(number(status.last.index));
        gauges.commit.set(number(status.commit.index));
        gauges.executed.set(number(status.executed.index));
        gauges.durable_executed.set(number(status.durable_executed));
        gauges.progress_mark.set(number(status.mark.unwrap_or(0)));
        gauges
            .executes_for_all
            .set(i64::from(status.executes_in.is_some()));
        gauges.persisted.set(number(status.persisted));
        gauges.executing.set(size(status.executing_operations));
        gauges
            .waits_for_executor
            .set(i64::from(status.waits_for_executor));
        gauges.unpersisted_bytes.set(size(status.unpersisted_bytes));
        gauges.cached_bytes.set(size(status.cached_bytes));
        gauges.wal_bytes.set(number(status.wal_bytes));
        gauges.wal_segments.set(size(status.wal_segments));
        gauges.disk_full.set(i64::from(status.disk_full));
        gauges.history_room_bytes.set(number(status.history_room_bytes));
        gauges.history_cut_short.set(i64::from(status.history_cut_short));
        gauges.node_connected.set(i64::from(status.connected.is_some()));
        gauges.ready.set(i64::from(status.readiness.ready));
    }
}
