//! Health, status and metrics over HTTP.

use prometheus_client::registry::Registry;
use raftlog_proto::v1::ExecutorStatus;
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber};
use raftlog_telemetry::http::{Answer, Probe};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::executor_status::{self, ExecutorBody};
use super::handle::Handle;
use super::metrics::Metrics;
use super::watchers::{WatchStatus, Watchers};
use crate::core::{Place, Status};

/// What `/status` answers, as JSON. Identities are 16 hex digits, `null` until a node was met; indexes are operation
/// indexes, 0 before the first operation.
#[derive(Debug, Serialize)]
struct StatusBody {
    /// The number of its node.
    node: NodeNumber,
    /// `--name`.
    name: String,
    /// Of this program.
    version: &'static str,
    cluster_id: Option<String>,
    /// Of the node it was last paired with.
    member_id: Option<String>,
    /// Whether its node's stream is open.
    node_connected: bool,
    ready: bool,
    /// One line: why ready, or why not.
    reason: String,
    /// First operation held; 0 if there is none. Earlier ones were dropped, and are in snapshots.
    first_index: u64,
    /// Last operation held.
    last_index: u64,
    /// Running hash there, 16 hex digits.
    last_hash: String,
    /// Last operation known to be committed.
    commit_index: u64,
    /// Running hash there, 16 hex digits.
    commit_hash: String,
    /// Last operation executed.
    executed_index: u64,
    /// Executed index that would survive a crash.
    durable_executed_index: u64,
    /// With --execute-on leader: what the log says is executed by leaders' replicators; otherwise `null`.
    progress_mark_index: Option<u64>,
    /// The term that its node leads and in which it so executes on behalf of all; otherwise `null`.
    executes_in_term: Option<u64>,
    /// Last operation on this replicator's disk.
    persisted_index: u64,
    /// The node holds snapshots, so that it needs nothing up to here; 0 until it said so.
    snapshot_kept_index: u64,
    /// Operations handed to the executor and not done.
    executing_operations: usize,
    /// Bytes of operations held that are not on disk yet.
    feed_buffered_bytes: usize,
    /// Bytes of the log on disk.
    wal_bytes: u64,
    disk_full: bool,
    executor: ExecutorBody,
    /// What is kept for the sake of those who watch.
    history: HistoryBody,
    /// Watches under way.
    watches: usize,
    /// Some of them: those that are farthest behind.
    slowest_watches: Vec<WatchStatus>,
}

#[derive(Debug, Serialize)]
struct HistoryBody {
    /// The log is kept no longer than this for it.
    room_bytes: u64,
    /// Less is held than the limits leave, as the disk has no room for more.
    cut_short: bool,
}

/// See [`Probe`].
pub(super) struct ReplicatorProbe {
    pub(super) node: NodeNumber,
    pub(super) name: String,
    pub(super) handle: Handle,
    pub(super) executor: watch::Receiver<ExecutorStatus>,
    pub(super) metrics: Metrics,
    pub(super) watchers: Watchers,
    pub(super) registry: Registry,
}

impl Probe for ReplicatorProbe {
    fn ready(&self) -> Answer {
        let readiness = self.handle.status().readiness;
        Answer {
            yes: readiness.ready,
            why: readiness.reason + &executor_status::remark(&self.executor.borrow()),
        }
    }

    fn status(&self) -> Value {
        let status = self.handle.status();
        let watches = self.watchers.told(status.commit.index);
        let executor = self.executor.borrow().clone();
        let body = body(self.node, &self.name, status, executor, watches);
        serde_json::to_value(body).unwrap_or(Value::Null)
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn refresh_metrics(&self) {
        let status = self.handle.status();
        self.watchers.refresh(status.commit.index);
        self.metrics.refresh(&status);
    }
}

fn body(
    node: NodeNumber,
    name: &str,
    status: Status,
    executor: ExecutorStatus,
    (watches, slowest_watches): (usize, Vec<WatchStatus>),
) -> StatusBody {
    let hash = |place: Place| format!("{:016x}", place.running_hash);
    StatusBody {
        node,
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        cluster_id: status.cluster.as_ref().map(ClusterId::to_string),
        member_id: status.member.as_ref().map(MemberId::to_string),
        node_connected: status.connected.is_some(),
        ready: status.readiness.ready,
        reason: status.readiness.reason,
        first_index: status.first_index,
        last_index: status.last.index,
        last_hash: hash(status.last),
        commit_index: status.commit.index,
        commit_hash: hash(status.commit),
        executed_index: status.executed.index,
        durable_executed_index: status.durable_executed,
        progress_mark_index: status.mark,
        executes_in_term: status.executes_in,
        persisted_index: status.persisted,
        snapshot_kept_index: status.snapshot_kept,
        executing_operations: status.executing_operations,
        feed_buffered_bytes: status.unpersisted_bytes,
        wal_bytes: status.wal_bytes,
        disk_full: status.disk_full,
        history: HistoryBody {
            room_bytes: status.history_room_bytes,
            cut_short: status.history_cut_short,
        },
        watches,
        slowest_watches,
        executor: executor.into(),
    }
}
