//! What a node counts, under the prefix `raftlog_node_`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use raftlog_raft::ids::NodeNumber;

use crate::node::{Role, Status};

/// An unsigned gauge.
pub(crate) type Level = Gauge<u64, AtomicU64>;

/// Label `reason`: one of the contract's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    pub(crate) reason: String,
}

/// Label `node`: a peer's number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Peer {
    pub(crate) node: NodeNumber,
}

/// Label `op`: write, create, fill, read, replace, remove.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DiskOp {
    pub(crate) op: &'static str,
}

/// Label `by`: lease or round.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AnsweredBy {
    pub(crate) by: &'static str,
}

/// Label `outcome`: answered, or the reason of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct QueryOutcome {
    pub(crate) outcome: String,
}

/// All metrics of a node. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    term: Level,
    feature_level: Level,
    feature_level_supported: Level,
    is_leader: Level,
    has_live_leader: Level,
    replicator_connected: Level,
    commit_index: Level,
    progress_mark_index: Level,
    last_index: Level,
    persisted_index: Level,
    replicator_executed_index: Level,
    memory_bytes: Level,
    disk_bytes: Level,
    disk_segments: Level,
    pending_bytes: Level,
    disk_full: Level,
    log_bytes: Level,
    log_full: Level,
    log_first_index: Level,
    snapshot_index: Level,
    snapshot_bytes: Level,
    snapshots_taken: Counter,
    snapshot_seconds: Histogram,
    disk_stalled: Level,
    lacks_room: Level,
    follower_in_flight_bytes: Family<Peer, Level>,
    elections: Counter,
    leader_changes: Counter,
    reads: Family<AnsweredBy, Counter>,
    pub(crate) proposals: Counter,
    pub(crate) refusals: Family<Reason, Counter>,
    queries: Family<QueryOutcome, Counter>,
    query_seconds: Histogram,
    pub(crate) queries_in_flight: Level,
    pub(crate) forwards: Counter,
    pub(crate) requests_in_flight_bytes: Level,
    pub(crate) messages_refused: Family<Reason, Counter>,
    pub(crate) messages_dropped: Family<Peer, Counter>,
    pub(crate) responses_dropped: Counter,
    pub(crate) snapshot_bytes_sent: Family<Peer, Counter>,
    pub(crate) snapshot_bytes_received: Counter,
    pub(crate) snapshot_bytes_downloaded: Counter,
    pub(crate) peer_connects: Family<Peer, Counter>,
    pub(crate) peer_breaks: Family<Peer, Counter>,
    pub(crate) replicator_connects: Counter,
    /// Clients that wait for what comes of their operations.
    pub(crate) results_waiting: Level,
    pub(crate) batch_inputs: Histogram,
    pub(crate) queued_inputs: Level,
    pub(crate) queued_disk_ops: Level,
    disk_seconds: Family<DiskOp, Histogram>,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("raftlog_node");
        let metrics = Self {
            term: Level::default(),
            feature_level: Level::default(),
            feature_level_supported: Level::default(),
            is_leader: Level::default(),
            has_live_leader: Level::default(),
            replicator_connected: Level::default(),
            commit_index: Level::default(),
            progress_mark_index: Level::default(),
            last_index: Level::default(),
            persisted_index: Level::default(),
            replicator_executed_index: Level::default(),
            memory_bytes: Level::default(),
            disk_bytes: Level::default(),
            disk_segments: Level::default(),
            pending_bytes: Level::default(),
            disk_full: Level::default(),
            log_bytes: Level::default(),
            log_full: Level::default(),
            log_first_index: Level::default(),
            snapshot_index: Level::default(),
            snapshot_bytes: Level::default(),
            snapshots_taken: Counter::default(),
            snapshot_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 10)),
            disk_stalled: Level::default(),
            lacks_room: Level::default(),
            follower_in_flight_bytes: Family::default(),
            elections: Counter::default(),
            leader_changes: Counter::default(),
            reads: Family::default(),
            proposals: Counter::default(),
            refusals: Family::default(),
            queries: Family::default(),
            query_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 18)),
            queries_in_flight: Level::default(),
            forwards: Counter::default(),
            requests_in_flight_bytes: Level::default(),
            messages_refused: Family::default(),
            messages_dropped: Family::default(),
            responses_dropped: Counter::default(),
            snapshot_bytes_sent: Family::default(),
            snapshot_bytes_received: Counter::default(),
            snapshot_bytes_downloaded: Counter::default(),
            peer_connects: Family::default(),
            peer_breaks: Family::default(),
            replicator_connects: Counter::default(),
            results_waiting: Gauge::default(),
            batch_inputs: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            queued_inputs: Level::default(),
            queued_disk_ops: Level::default(),
            disk_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_05, 2.0, 18))
            }),
        };
        metrics.register_state(registry);
        metrics.register_traffic(registry);
        metrics
    }

    fn register_state(&self, registry: &mut Registry) {
        for (name, help, level) in [
            ("term", "Current term", &self.term),
            (
                "feature_level",
                "The cluster's feature level, as far as this node knows it; 0 while unformed",
                &self.feature_level,
            ),
            (
                "feature_level_supported",
                "The highest feature level that this node supports",
                &self.feature_level_supported,
            ),
            ("is_leader", "1 while this node leads", &self.is_leader),
            (
                "has_live_leader",
                "1 while an elected leader is live",
                &self.has_live_leader,
            ),
            (
                "replicator_connected",
                "1 while the replicator is connected",
                &self.replicator_connected,
            ),
            ("commit_index", "Operation index committed", &self.commit_index),
            (
                "progress_mark_index",
                "Operation index that leaders' replicators have executed, as the log says; 0 where every replicator executes",
                &self.progress_mark_index,
            ),
            ("last_index", "Last operation index in the log", &self.last_index),
            (
                "persisted_index",
                "Last operation index on the own disk",
                &self.persisted_index,
            ),
            (
                "replicator_executed_index",
                "Operation index executed by the replicator",
                &self.replicator_executed_index,
            ),
            (
                "log_memory_bytes",
                "Bytes of the log's entries kept in memory",
                &self.memory_bytes,
            ),
            ("log_disk_bytes", "Bytes of the log on disk", &self.disk_bytes),
            (
                "log_disk_segments",
                "Segments of the log on disk",
                &self.disk_segments,
            ),
            (
                "log_pending_bytes",
                "Bytes given to the log and not yet on disk",
                &self.pending_bytes,
            ),
            ("disk_full", "1 while the own disk is full", &self.disk_full),
            (
                "disk_stalled",
                "1 while the own disk has completed nothing for longer than the minimum election timeout",
                &self.disk_stalled,
            ),
            (
                "lacks_room",
                "1 while this node leads and refuses submissions for lack of room on its disk or a majority's",
                &self.lacks_room,
            ),
            (
                "log_bytes",
                "Bytes of disk that the log takes, about: what decides on snapshots, and when it is full",
                &self.log_bytes,
            ),
            (
                "log_full",
                "1 while submissions are refused because the replicator has to execute more before the log can be compacted",
                &self.log_full,
            ),
            (
                "log_first_index",
                "First operation index in the log; those before are in a snapshot",
                &self.log_first_index,
            ),
            (
                "snapshot_index",
                "Last operation index in the newest snapshot",
                &self.snapshot_index,
            ),
            (
                "snapshot_bytes",
                "Bytes of snapshots on disk",
                &self.snapshot_bytes,
            ),
        ] {
            registry.register(name, help, level.clone());
        }
        registry.register(
            "follower_in_flight_bytes",
            "Bytes of entries sent to a follower and not answered",
            self.follower_in_flight_bytes.clone(),
        );
        registry.register(
            "snapshots_taken",
            "Snapshots that were taken",
            self.snapshots_taken.clone(),
        );
        registry.register(
            "snapshot_seconds",
            "Time from the replicator's answer until a snapshot is on disk",
            self.snapshot_seconds.clone(),
        );
        registry.register(
            "elections",
            "Elections this node stood in",
            self.elections.clone(),
        );
        registry.register(
            "leader_changes",
            "Times another leader became known",
            self.leader_changes.clone(),
        );
        registry.register(
            "reads",
            "Linearizable reads answered as leader, by lease or after a round to a majority",
            self.reads.clone(),
        );
    }

    fn register_traffic(&self, registry: &mut Registry) {
        registry.register("proposals", "Proposals given to the core", self.proposals.clone());
        registry.register(
            "refusals",
            "Client requests that failed, by reason",
            self.refusals.clone(),
        );
        registry.register(
            "queries",
            "Queries answered by the replicator's executor, or refused, by reason",
            self.queries.clone(),
        );
        registry.register(
            "query_seconds",
            "Time of queries, refused ones included",
            self.query_seconds.clone(),
        );
        registry.register(
            "queries_in_flight",
            "Clients that wait for the answer to a query",
            self.queries_in_flight.clone(),
        );
        registry.register(
            "forwards",
            "Client requests forwarded to the leader",
            self.forwards.clone(),
        );
        registry.register(
            "requests_in_flight_bytes",
            "Bytes of client requests under way",
            self.requests_in_flight_bytes.clone(),
        );
        registry.register(
            "messages_refused",
            "Raft messages refused, by reason",
            self.messages_refused.clone(),
        );
        registry.register(
            "messages_dropped",
            "Raft messages dropped for a full queue, by peer",
            self.messages_dropped.clone(),
        );
        registry.register(
            "responses_dropped",
            "Raft responses dropped because nobody reads them",
            self.responses_dropped.clone(),
        );
        registry.register(
            "snapshot_bytes_sent",
            "Bytes of snapshots sent, by peer",
            self.snapshot_bytes_sent.clone(),
        );
        registry.register(
            "snapshot_bytes_received",
            "Bytes of snapshots received",
            self.snapshot_bytes_received.clone(),
        );
        registry.register(
            "snapshot_bytes_downloaded",
            "Bytes of snapshots that clients downloaded",
            self.snapshot_bytes_downloaded.clone(),
        );
        registry.register(
            "peer_connects",
            "Connections made to a peer",
            self.peer_connects.clone(),
        );
        registry.register(
            "peer_breaks",
            "Connections to a peer that broke or failed",
            self.peer_breaks.clone(),
        );
        registry.register(
            "replicator_connects",
            "Streams opened to the replicator",
            self.replicator_connects.clone(),
        );
        registry.register(
            "results_waiting",
            "Clients that wait for what comes of their operations",
            self.results_waiting.clone(),
        );
        registry.register(
            "batch_inputs",
            "Inputs the core took at once",
            self.batch_inputs.clone(),
        );
        registry.register(
            "queued_inputs",
            "Inputs waiting for the core",
            self.queued_inputs.clone(),
        );
        registry.register(
            "queued_disk_ops",
            "Disk operations not done yet",
            self.queued_disk_ops.clone(),
        );
        registry.register(
            "disk_seconds",
            "Time of disk operations, syncs included",
            self.disk_seconds.clone(),
        );
    }

    /// Sets the levels that a status tells, and counts what changed since the one before.
    pub(crate) fn observe_status(&self, before: &Status, now: &Status) {
        self.term.set(now.term);
        let level = now.feature_level.map_or(0, |level| level.get().into());
        self.feature_level.set(level);
        self.feature_level_supported.set(now.supports.max().get().into());
        self.is_leader.set(u64::from(now.role == Role::Leader));
        self.has_live_leader.set(u64::from(now.leader_is_live));
        self.replicator_connected.set(u64::from(now.replicator.connected));
        self.commit_index.set(now.commit_index);
        self.progress_mark_index.set(now.execution_mark);
        self.last_index.set(now.last_index);
        self.persisted_index.set(now.persisted_index);
        self.replicator_executed_index
            .set(now.replicator.progress.executed_index);
        self.memory_bytes.set(now.memory_bytes);
        self.disk_bytes.set(now.disk_bytes);
        self.disk_segments.set(now.disk_segments);
        self.pending_bytes.set(now.pending_bytes);
        self.log_bytes.set(now.kept.log_bytes);
        self.log_full.set(u64::from(now.kept.log_full));
        self.log_first_index.set(now.kept.first_index);
        self.snapshot_index.set(now.kept.snapshot_index);
        self.snapshot_bytes.set(now.kept.snapshot_bytes);
        self.disk_full.set(u64::from(now.disks.full));
        self.disk_stalled.set(u64::from(now.disks.stalled));
        self.lacks_room.set(u64::from(now.disks.lack_room));
        if now.progress.is_empty() && !before.progress.is_empty() {
            self.follower_in_flight_bytes.clear();
        }
        for member in &now.progress {
            self.follower_in_flight_bytes
                .get_or_create(&Peer { node: member.node })
                .set(member.in_flight_bytes);
        }
        for (by, count) in [("lease", now.reads.by_lease), ("round", now.reads.by_round)] {
            let counter = self.reads.get_or_create(&AnsweredBy { by });
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        let stood = |status: &Status| status.role == Role::Candidate;
        if stood(now) && (!stood(before) || before.term != now.term) {
            self.elections.inc();
        }
        let leader = |status: &Status| {
            status
                .leader
                .as_ref()
                .map(|leader| (leader.member_id, status.term))
        };
        if leader(now).is_some() && leader(now) != leader(before) {
            self.leader_changes.inc();
        }
    }

    /// Counts a snapshot, and how long it took.
    pub(crate) fn observe_snapshot(&self, took: Duration) {
        self.snapshots_taken.inc();
        self.snapshot_seconds.observe(took.as_secs_f64());
    }

    /// Records how long a disk operation took.
    pub(crate) fn observe_disk(&self, op: &'static str, time: Duration) {
        self.disk_seconds
            .get_or_create(&DiskOp { op })
            .observe(time.as_secs_f64());
    }

    /// Counts a refused client request.
    pub(crate) fn refused(&self, status: &tonic::Status) {
        let reason = reason_of(status);
        self.refusals.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a query, and how long it took.
    pub(crate) fn observe_query<T>(&self, result: &Result<T, tonic::Status>, time: Duration) {
        let outcome = result.as_ref().map_or_else(reason_of, |_| "answered".to_owned());
        self.queries.get_or_create(&QueryOutcome { outcome }).inc();
        self.query_seconds.observe(time.as_secs_f64());
    }
}

fn reason_of(status: &tonic::Status) -> String {
    raftlog_proto::error::reason_of(status).unwrap_or_else(|| format!("{:?}", status.code()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::tests::follower;

    #[test]
    fn elections_leader_changes_and_reads_are_counted_once() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let follows = follower();
        let mut stands = follower();
        (stands.role, stands.term, stands.leader) = (Role::Candidate, 4, None);
        let mut leads = follower();
        (leads.role, leads.term) = (Role::Leader, 4);
        leads.reads.by_lease = 3;
        for pair in [&follows, &stands, &stands, &leads, &leads].windows(2) {
            let [before, now] = pair else { continue };
            metrics.observe_status(before, now);
        }
        assert_eq!((metrics.elections.get(), metrics.leader_changes.get()), (1, 1));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("\nraftlog_node_is_leader 1\n"), "{text}");
        for line in ["reads_total{by=\"lease\"} 3", "reads_total{by=\"round\"} 0"] {
            assert!(text.contains(&format!("\nraftlog_node_{line}\n")), "{text}");
        }
    }
}
