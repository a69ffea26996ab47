//! What comes out of the core.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, OperationIndex, Term};
use raftlog_storage::{Op, OpId};
use thiserror::Error;

use super::event::{FetchId, ReadIndexId, StreamId};
use super::execution::Run;
use super::executor_state::STATE_HEADER_BYTES;
use super::operation::{Operation, Place};

/// Something to do. The order of effects matters: they are carried out one after the other.
#[derive(Debug)]
pub enum Effect {
    /// Answer with [`Event::Disk`](super::Event::Disk). Operations reach the disk in this order.
    Disk(OpId, Op),
    /// Tell the node what is here, before anything else on the stream.
    Position(StreamId, Position),
    /// Tell the node how far things are. Only the latest matters.
    Progress(StreamId, Progress),
    /// Give the node the snapshot that it ordered. Only the latest matters.
    Snapshot(StreamId, Snapshot),
    /// Ask the node for a read index.
    AskReadIndex(StreamId, ReadIndexId),
    /// End the stream.
    Close(StreamId, Refusal),
    /// Execute these, in order, one at a time; answer with [`Event::Executed`](super::Event::Executed).
    Execute(Run),
    /// Whatever was given by [`Effect::Execute`] and is not executed is not to be: what can be cancelled is, nothing of it is begun any
    /// more. Answer with [`Event::TakenBack`](super::Event::TakenBack) once the executor has let go of all.
    TakeBack,
    /// The executor is to go and come again: [`Event::ExecutorDetached`](super::Event::ExecutorDetached), and then
    /// [`Event::ExecutorAttached`](super::Event::ExecutorAttached).
    Reattach,
    /// What the executor says of its state does not fit: it is to go, and may come again.
    RefuseExecutor(String),
    /// The executor is to copy its state, before it is given more: [`Event::CopyBegun`](super::Event::CopyBegun), then
    /// [`Event::Copied`](super::Event::Copied).
    CopyState,
    /// The executor is to take a snapshot's state in the place of its own. It counts as gone until it attaches again, which it does not
    /// before it has answered.
    RestoreBegin {
        /// Names it in what follows; never used twice.
        restore: u64,
        /// The last operation that is in it.
        place: Place,
        /// The cluster.
        cluster: Option<ClusterId>,
        /// Of all pieces together.
        bytes: u64,
    },
    /// The next piece of it, never empty; answered by [`Event::RestoreTaken`](super::Event::RestoreTaken), and after the last one by
    /// [`Event::Restored`](super::Event::Restored).
    RestorePiece(Bytes),
    /// No more of it will come.
    RestoreAbort(u64),
    /// Ask the executor, and give its answer to the node, with the place.
    Query {
        /// The stream it came on.
        stream: StreamId,
        /// The node's number for it.
        id: u64,
        /// The last operation that is executed now: the answer is of this state, or of a later one.
        executed: Place,
        /// What the executor is asked.
        query: Bytes,
    },
    /// A line of the story. Comes before the [`Effect::Execute`] that it leads to.
    Story(Story),
    /// The answer to [`Event::Fetch`](super::Event::Fetch).
    Fetched {
        /// Of the request.
        id: FetchId,
        /// Consecutive from the index asked for; empty if that is not committed yet.
        result: Result<Vec<Operation>, FetchError>,
        /// The commit index.
        commit: OperationIndex,
    },
    /// The answer to [`Event::ReadIndex`](super::Event::ReadIndex): everything that was acknowledged anywhere when it was
    /// asked for is committed here, up to the index or further.
    ReadIndexReady(ReadIndexId, Result<OperationIndex, ReadIndexError>),
    /// Send [`Event::Wake`](super::Event::Wake) after this long. There is never more than one under way.
    WakeIn(Duration),
    /// A happening worth a line.
    Notice(Notice),
    /// This replicator must not go on: say why and exit. Nothing comes after it.
    Fatal(String),
    /// All that is here is of no use any more, as its cluster went on without: have the next start move it aside, say why and exit.
    /// Nothing comes after it.
    GivenUp {
        /// The cluster that it is of.
        cluster: ClusterId,
        /// For people.
        why: String,
    },
    /// Everything that [`Event::Stop`](super::Event::Stop) asked for is done.
    Stopped,
}

/// What the replicator holds when a node opens a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Absent until a node was met.
    pub cluster: Option<ClusterId>,
    /// Member ID of the node it was last paired with.
    pub member: Option<MemberId>,
    /// First index held; 0 with an empty log.
    pub first_index: OperationIndex,
    /// Last operation held.
    pub last: Place,
    /// Last operation known to be committed.
    pub commit: Place,
    /// Last operation executed.
    pub executed: Place,
    /// The log here begins after what the executor needs: only a snapshot helps.
    pub needs_state: bool,
    /// Executes only while its node leads.
    pub on_leader: bool,
}

/// How far things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Last operation held.
    pub last: OperationIndex,
    /// Commit index.
    pub commit: OperationIndex,
    /// Last operation executed.
    pub executed: OperationIndex,
    /// Executed index that would survive a crash.
    pub durable_executed: OperationIndex,
    /// The term that its node leads and in which it executes, where it does so on the leader only.
    pub leading_term: Option<Term>,
}

/// Lines that tell each operation's way (design 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// The node sent a batch of operations.
    Replicated {
        /// The node that sent it.
        from: NodeNumber,
    },
    /// The commit index moved.
    Committed {
        /// Operation index.
        commit: OperationIndex,
        /// Highest operation index held.
        total: OperationIndex,
    },
}

/// Why a stream from a node was ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The node belongs to another cluster than what is in the data folder.
    #[error(
        "node {node} belongs to cluster {theirs}, this replicator's data folder to cluster {ours}: give the node its own \
         replicator, or this replicator an empty data folder"
    )]
    WrongCluster {
        /// The node's number.
        node: NodeNumber,
        /// Its cluster.
        theirs: ClusterId,
        /// The data folder's cluster.
        ours: ClusterId,
    },
    /// The node's cluster was recovered from this one, and had other operations than are committed here.
    #[error(
        "cluster {theirs} of node {node} was recovered from cluster {ours}, and this replicator holds another past than it had, \
         committed up to index {commit}; move its data folder away, and it receives and executes what the cluster has"
    )]
    OtherPast {
        /// The node's number.
        node: NodeNumber,
        /// Its cluster.
        theirs: ClusterId,
        /// The data folder's cluster.
        ours: ClusterId,
        /// What is committed here.
        commit: OperationIndex,
    },
    /// The node is not the one that this replicator is for.
    #[error(
        "node {node} called the replicator of node {ours}: check --replicator of the node and --id of the replicator"
    )]
    WrongNode {
        /// The node's number.
        node: NodeNumber,
        /// The replicator's own.
        ours: NodeNumber,
    },
    /// The node said something that does not follow.
    #[error("node {node} broke the ReplicateLog protocol: {what}")]
    Protocol {
        /// The node's number.
        node: NodeNumber,
        /// What it said.
        what: String,
    },
    /// The node opened another stream.
    #[error("replaced by a newer stream from node {node}")]
    Replaced {
        /// The node's number.
        node: NodeNumber,
    },
    /// The executor has lost its state.
    #[error(
        "the executor has operations up to {applied} in its state, and the log here begins with {first}: it needs a snapshot"
    )]
    NeedsState {
        /// The last operation that is in its state.
        applied: OperationIndex,
        /// The first one that is held, or will be.
        first: OperationIndex,
    },
    /// The executor did not take a snapshot.
    #[error("the executor did not take the snapshot: {why}")]
    NotRestored {
        /// Why not.
        why: String,
    },
    /// The replicator stops.
    #[error("the replicator is stopping")]
    Stopping,
}

/// What a node ordered by [`Event::TakeSnapshot`](super::Event::TakeSnapshot).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The node's number for the order.
    pub id: u64,
    /// The last operation that is in it.
    pub place: Place,
    /// The executor's state there.
    pub state: SnapshotState,
}

/// The state in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotState {
    /// All of it.
    Whole(Bytes),
    /// What the executor copied last, which the driver has, behind this header.
    Copied {
        /// Comes first.
        header: [u8; STATE_HEADER_BYTES],
        /// Of header and copy.
        bytes: u64,
    },
}

/// Why there are no operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FetchError {
    /// Too many requests are under way.
    #[error(transparent)]
    Busy(Busy),
    /// They were dropped.
    #[error("earlier operations are in snapshots only: the first one held is {first}")]
    Compacted {
        /// First index that is held, or will be.
        first: OperationIndex,
    },
}

/// A request was refused because too many are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} requests are under way already: try again later")]
pub struct Busy(pub usize);

/// Why there is no read index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadIndexError {
    /// The node is not connected, or knows no leader.
    #[error("no leader to ask how far the cluster is: try again later, or read with allow_stale")]
    NoLeader,
    /// Too many wait already.
    #[error(transparent)]
    Busy(Busy),
}

/// Happenings worth a line, in the voice of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A node's stream was accepted and started.
    Paired {
        /// Its number.
        node: NodeNumber,
        /// Its identity.
        member: MemberId,
        /// The cluster.
        cluster: ClusterId,
        /// The identity of the node before, if it was another one.
        before: Option<MemberId>,
    },
    /// The node's cluster was recovered from the one that this replicator was of, and has all that is committed here.
    Adopted {
        /// Its number.
        node: NodeNumber,
        /// The cluster until now.
        before: ClusterId,
        /// The cluster from now on.
        cluster: ClusterId,
        /// What is committed here.
        index: OperationIndex,
    },
    /// The tail was dropped because the node's log is another one there.
    Cut {
        /// The replicator's node.
        node: NodeNumber,
        /// Everything from here was dropped; none of it was committed.
        from: OperationIndex,
    },
    /// The node holds less than is committed here.
    Waiting {
        /// Its number.
        node: NodeNumber,
        /// What it has to hold first.
        until: OperationIndex,
    },
    /// A snapshot has taken the place of everything that was here.
    Restored {
        /// The replicator's node.
        node: NodeNumber,
        /// The last operation that is in it.
        index: OperationIndex,
    },
    /// The beginning of the log is dropped.
    Compacted {
        /// The replicator's node.
        node: NodeNumber,
        /// The first operation that is held, or will be.
        first: OperationIndex,
    },
    /// The executor has another operation as the last in its state than was written here.
    ExecutorGoesOn {
        /// The replicator's node.
        node: NodeNumber,
        /// What it has.
        after: OperationIndex,
        /// What was written here.
        before: OperationIndex,
    },
    /// Its node leads, and so it executes on behalf of all.
    ExecutesForAll {
        /// The replicator's node.
        node: NodeNumber,
        /// The term that it leads.
        term: Term,
        /// Up to here everything is executed.
        after: OperationIndex,
    },
    /// A node's stream was refused.
    Refused(Refusal),
    /// The disk is full, or has room again.
    DiskFull {
        /// The replicator's node.
        node: NodeNumber,
        /// Whether it is full now.
        full: bool,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paired {
                node,
                member,
                cluster,
                before: None,
            } => {
                write!(
                    f,
                    "Node {node} is paired with its replicator: member {member} of cluster {cluster}"
                )
            }
            Self::Paired {
                node,
                member,
                cluster,
                before: Some(before),
            } => write!(
                f,
                "Node {node} is paired with its replicator: member {member} of cluster {cluster}, which was member {before}"
            ),
            Self::Adopted {
                node,
                before,
                cluster,
                index,
            } => write!(
                f,
                "Node {node} is of cluster {cluster}, which was recovered from cluster {before}: its replicator goes on after \
                 index {index}"
            ),
            Self::Cut { node, from } => {
                write!(f, "Node {node}: uncommitted entries from {from} on are replaced")
            }
            Self::Waiting { node, until } => write!(
                f,
                "Node {node} holds less than its replicator has committed: waiting until it holds index {until}"
            ),
            Self::Restored { node, index } => {
                write!(
                    f,
                    "Node {node} restored its replicator from a snapshot at index {index}"
                )
            }
            Self::Compacted { node, first } => write!(
                f,
                "Node {node}: its replicator holds operations from index {first} on, earlier ones are in snapshots"
            ),
            Self::ExecutorGoesOn { node, after, before } => write!(
                f,
                "Node {node}: its executor goes on after index {after}, which was at {before} as far as its replicator knew"
            ),
            Self::ExecutesForAll { node, term, after } => write!(
                f,
                "Node {node} leads term {term}: its replicator executes for all, after index {after}"
            ),
            Self::Refused(refusal) => write!(f, "Refused a ReplicateLog stream: {refusal}"),
            Self::DiskFull { node, full: true } => {
                write!(
                    f,
                    "Node {node}: the replicator's disk is full, its log stays in memory up to a limit: make room"
                )
            }
            Self::DiskFull { node, full: false } => {
                write!(f, "Node {node}: the replicator's disk has room again")
            }
        }
    }
}
