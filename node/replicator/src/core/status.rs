//! How the replicator is doing, for readiness, `/status` and metrics.

use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, OperationIndex, Term};

use super::event::Parent;
use super::operation::Place;
use super::replicator::Replicator;
use super::retention::room_bytes;

/// A view of the replicator. All indexes are operation indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The number of its node.
    pub node: NodeNumber,
    /// Absent until a node was met.
    pub cluster: Option<ClusterId>,
    /// What it was recovered from, if it was, as its node said since this process started.
    pub parent: Option<Parent>,
    /// Member ID of the node it was last paired with.
    pub member: Option<MemberId>,
    /// The node whose stream is open.
    pub connected: Option<NodeNumber>,
    /// Everything up to here was dropped from the log; 0 if nothing was.
    pub compacted_through: OperationIndex,
    /// The last operation that was dropped.
    pub before_first: Place,
    /// The log is to take no more of the disk for the sake of history, in bytes.
    pub history_room_bytes: u64,
    /// Less history is held than the limits leave, as the disk has no room for more.
    pub history_cut_short: bool,
    /// First index held; 0 if none is.
    pub first_index: OperationIndex,
    /// Last operation held.
    pub last: Place,
    /// Last operation known to be committed.
    pub commit: Place,
    /// Last operation executed.
    pub executed: Place,
    /// Executed index that would survive a crash.
    pub durable_executed: OperationIndex,
    /// Where only the leader's replicator executes: what leaders' replicators are known to have executed.
    pub mark: Option<OperationIndex>,
    /// The term that its node leads, while it executes for all.
    pub executes_in: Option<Term>,
    /// The node holds snapshots durably, so that it needs nothing at or below this index; 0 until it said so.
    pub snapshot_kept: OperationIndex,
    /// Last operation on this replicator's disk.
    pub persisted: OperationIndex,
    /// Operations at the executor.
    pub executing_operations: usize,
    /// Nothing is taken from the node, as too much waits for the executor.
    pub waits_for_executor: bool,
    /// Bytes held that are not on disk yet.
    pub unpersisted_bytes: usize,
    /// Bytes of operations in memory.
    pub cached_bytes: usize,
    /// Bytes of the log on disk.
    pub wal_bytes: u64,
    /// Segments of the log on disk.
    pub wal_segments: usize,
    /// The disk is full: the log stays in memory, up to a limit.
    pub disk_full: bool,
    /// Whether to send clients here.
    pub readiness: Readiness,
}

/// Whether it is ready, and why or why not, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// It holds what was committed when it started.
    pub ready: bool,
    /// One line.
    pub reason: String,
}

impl Replicator {
    /// How it is doing.
    pub fn status(&self) -> Status {
        let position = self.position();
        Status {
            node: self.config.node,
            cluster: position.cluster,
            parent: self.parent,
            member: position.member,
            connected: self.stream.as_ref().map(|stream| stream.node),
            compacted_through: self.wal.compacted_through(),
            before_first: self.writing.durable_base,
            history_room_bytes: room_bytes(self.compaction.volume_bytes),
            history_cut_short: self.compaction.cut_short,
            first_index: position.first_index,
            last: position.last,
            commit: position.commit,
            executed: position.executed,
            durable_executed: self.durable_executed().index,
            mark: self.mark().map(|mark| mark.index),
            executes_in: self.leadership.term(),
            snapshot_kept: self.compaction.kept,
            persisted: self.writing.persisted,
            executing_operations: self.execution.operations(),
            waits_for_executor: self.waits_for_executor(),
            unpersisted_bytes: self.writing.unpersisted_bytes,
            cached_bytes: self.held.recent_bytes(),
            wal_bytes: self.wal.disk_bytes(),
            wal_segments: self.wal.segments(),
            disk_full: self.writing.full,
            readiness: self.readiness(),
        }
    }

    /// Ready once it holds what was committed when it started, or as much of it as its executor lets it take (design 4.2). It stays so
    /// while its node is away; a node of another cluster in its place ends it. Execution never counts.
    pub fn readiness(&self) -> Readiness {
        let node = self.config.node;
        let commit = self.commit.index;
        let not = |reason: String| Readiness { ready: false, reason };
        if let (None, Some(refusal)) = (&self.stream, &self.refused) {
            return not(refusal.to_string());
        }
        match (self.ready_at, &self.stream) {
            (None, None) => not(format!("waiting for node {node} to connect")),
            (None, Some(_)) => not(format!("waiting for node {node} to say where to start")),
            (Some(target), _) if target > commit && !self.snapshot_waits_for_executor() => not(format!(
                "catching up: holds {commit} of {target} committed operations"
            )),
            (Some(_), stream) => {
                let away = if stream.is_none() {
                    "; node is not connected"
                } else {
                    ""
                };
                let full = if self.writing.full { "; disk is full" } else { "" };
                let behind = if self.snapshot_waits_for_executor() {
                    "; a snapshot waits for the executor"
                } else if self.waits_for_executor() {
                    "; takes no more until the executor catches up"
                } else {
                    ""
                };
                let executed = self.execution.executed().index;
                let reason = format!("commit index {commit}, executed index {executed}{away}{full}{behind}");
                Readiness { ready: true, reason }
            }
        }
    }
}
