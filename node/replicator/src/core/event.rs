//! What goes into the core.

use bytes::Bytes;
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, OperationIndex, Term};
use raftlog_storage::{DiskError, OpId, Outcome};

use super::operation::{Operation, Place};

/// Names one `ReplicateLog` stream from a node; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Names one request for operations ([`Event::Fetch`]); chosen by the driver, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(pub u64);

/// Names one request for a read index ([`Event::ReadIndex`]); chosen by the driver, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadIndexId(pub u64);

/// The cluster that another one was recovered from, and the last operation that both have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its identity.
    pub cluster: ClusterId,
    /// Operation index.
    pub index: OperationIndex,
    /// Running hash up to and with it.
    pub running_hash: u64,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A node opened a stream and said who it is. It replaces the stream before it.
    NodeOpened {
        /// The new stream.
        stream: StreamId,
        /// The cluster of the node.
        cluster: ClusterId,
        /// The node's identity.
        member: MemberId,
        /// The node's number.
        node: NodeNumber,
        /// What the node's cluster was recovered from, if it was.
        parent: Option<Parent>,
    },
    /// The node's answer to the position.
    Start {
        /// The stream it came on.
        stream: StreamId,
        /// How to go on.
        action: StartAction,
        /// The node's commit index, as far as it is on the node's disk.
        commit: OperationIndex,
    },
    /// The next operations, and how far they are committed.
    Feed {
        /// The stream it came on.
        stream: StreamId,
        /// Consecutive; may be empty.
        operations: Vec<Operation>,
        /// The node's commit index, as far as it is on the node's disk.
        commit: OperationIndex,
    },
    /// A piece of the snapshot that [`StartAction::Restore`] announced.
    RestorePiece {
        /// The stream it came on.
        stream: StreamId,
        /// Of its first byte in the snapshot's state.
        offset: u64,
        /// In order and without gaps; empty only where the whole state is.
        data: Bytes,
    },
    /// The node wants a snapshot: [`Effect::Snapshot`](super::Effect::Snapshot).
    TakeSnapshot {
        /// The stream it came on.
        stream: StreamId,
        /// The node's number for it. A later order replaces an earlier one.
        id: u64,
    },
    /// The node holds snapshots durably.
    SnapshotKept {
        /// The stream it came on.
        stream: StreamId,
        /// The node needs nothing at or below this index from here.
        index: OperationIndex,
    },
    /// Whether the node leads, to a replicator that executes on the leader only.
    Leading {
        /// The stream it came on.
        stream: StreamId,
        /// The term that it leads.
        leads: Option<Term>,
        /// Leaders' replicators have executed up to here.
        execute_after: OperationIndex,
    },
    /// Somebody asks the executor: [`Effect::Query`](super::Effect::Query).
    Query {
        /// The stream it came on.
        stream: StreamId,
        /// The node's number for it.
        id: u64,
        /// What the executor is asked.
        query: Bytes,
    },
    /// The node's answer to [`Effect::AskReadIndex`](super::Effect::AskReadIndex).
    ReadIndexAnswer {
        /// The stream it came on.
        stream: StreamId,
        /// Which request.
        id: ReadIndexId,
        /// What has to be committed here first; `None` if there is no leader to ask.
        index: Option<OperationIndex>,
    },
    /// The stream ended or broke.
    NodeClosed {
        /// Which.
        stream: StreamId,
    },
    /// The disk has done what [`Effect::Disk`](super::Effect::Disk) asked for.
    Disk(OpId, Result<Outcome, DiskError>),
    /// The executor has executed everything up to here, with effects that outlive a kill of this process.
    Executed {
        /// Operation index.
        through: OperationIndex,
    },
    /// The executor has nothing any more of what [`Effect::TakeBack`](super::Effect::TakeBack) took back. Whatever it has done of that was
    /// reported before.
    TakenBack,
    /// An executor with a state of its own is there.
    ExecutorAttached {
        /// The last operation that is in its state.
        applied: OperationIndex,
        /// The cluster that its state is of; absent with an empty one.
        cluster: Option<ClusterId>,
    },
    /// It is gone, and with it what it was given and has not reported as executed.
    ExecutorDetached,
    /// The executor copies its state, as of the last operation that it has reported as executed.
    CopyBegun,
    /// The driver has the copy, or there will be none: then not before some time has passed.
    Copied {
        /// Of the copy.
        bytes: Option<u64>,
    },
    /// The executor has taken some of a snapshot's state.
    RestoreTaken {
        /// Of [`Effect::RestoreBegin`](super::Effect::RestoreBegin).
        restore: u64,
        /// How much more.
        bytes: usize,
    },
    /// It holds all of the snapshot's state for good, or why it does not.
    Restored {
        /// Of [`Effect::RestoreBegin`](super::Effect::RestoreBegin).
        restore: u64,
        /// One line, for people.
        result: Result<(), String>,
    },
    /// Somebody wants committed operations.
    Fetch {
        /// Comes back with the answer.
        id: FetchId,
        /// First index wanted, at least 1.
        from: OperationIndex,
        /// Last index wanted.
        to: OperationIndex,
        /// As many operations as fit into this, and at least one.
        bytes_max: usize,
    },
    /// Somebody wants to read what is committed in the whole cluster.
    ReadIndex {
        /// Comes back with the answer.
        id: ReadIndexId,
    },
    /// Nobody waits for the answer any more.
    ReadIndexAbandoned {
        /// Which.
        id: ReadIndexId,
    },
    /// It is that time: [`Retention::tick_interval`](super::Retention::tick_interval) says how often that is to be told. A clock that
    /// is set back or forth does no harm but to ages.
    Tick {
        /// Milliseconds since 1970.
        unix_millis: u64,
    },
    /// The time that [`Effect::WakeIn`](super::Effect::WakeIn) asked for has passed.
    Wake,
    /// Stop in good order: nothing more is executed, what is known is written, then [`Effect::Stopped`](super::Effect::Stopped).
    Stop,
}

/// What the node makes of the replicator's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAction {
    /// The logs agree up to the one before; the node goes on from here.
    ResumeFrom(OperationIndex),
    /// Drop what lies above; the node goes on from the next one.
    CutTo(OperationIndex),
    /// The node holds less than the replicator has committed: it says again how to start once it holds this.
    WaitUntil(OperationIndex),
    /// Drop everything for a snapshot, which follows as [`Event::RestorePiece`]; the node goes on behind it.
    Restore {
        /// The last operation that is in it.
        place: Place,
        /// Bytes of its state.
        size: u64,
    },
}
