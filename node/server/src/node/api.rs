//! What goes into a [`super::Node`] and what comes out of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftlog_proto::v1::ExecutorStatus;
use raftlog_raft::feature::{FeatureLevel, Supports};
use raftlog_raft::ids::{ClusterId, LogIndex, MemberId, NodeNumber, OperationIndex, Term};
use raftlog_raft::membership::{Configuration, Member};
use raftlog_raft::message::Message;
use raftlog_raft::planted::Planted;
use raftlog_raft::session::{SESSIONS_MAX, opened_id};
use raftlog_raft::time::Time;
use raftlog_storage::snapshots::Manifest;
use raftlog_storage::{DiskError, Op, OpId, Outcome};

use super::install_snapshot::{InstallSnapshot, InstallSnapshotResponse, SnapshotId};
use super::notice::Notice;

pub use raftlog_raft::membership::change::{Change, MembershipChange};

pub use raftlog_raft::ReadCounts;
pub use raftlog_raft::effect::{ElectedBy, Proposal, Proposed, RequestId, StreamId};
pub use raftlog_raft::fold::Parent;

/// What a node is told once, at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its own number, 1-based.
    pub node: NodeNumber,
    /// `HOST:PORT` at which peers reach this node.
    pub peer_address: String,
    /// `HOST:PORT` at which clients reach this node.
    pub client_address: String,
    /// Peer addresses of the initial voters, itself included; empty where the node waits to be bootstrapped or added.
    pub initial_peers: BTreeMap<NodeNumber, String>,
    /// A member that had this data folder was removed from its cluster: this node forms no other one, whatever its peers say.
    pub was_removed: bool,
    /// MIN of the election timeout: stickiness and leases.
    pub election_timeout_min: Duration,
    /// MAX of the election timeout: check-quorum, readiness, "the leader is gone".
    pub election_timeout_max: Duration,
    /// Between two heartbeats to one follower.
    pub heartbeat_interval: Duration,
    /// Whether it answers reads by its lease while it leads.
    pub lease_reads: bool,
    /// The feature levels that it supports: those of this version, in programs.
    pub supports: Supports,
    /// What it keeps and sends at most.
    pub bounds: Bounds,
    /// A bug, in tests of the simulator.
    pub planted: Planted,
    /// When to take snapshots.
    pub snapshots: SnapshotPolicy,
}

/// When a node takes a snapshot: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// So many committed entries after the last one; 0: never.
    pub every_operations: u64,
    /// So many bytes that they take on disk, about; `None`: a 16th of the volume, at most 1 GiB.
    pub every_bytes: Option<u64>,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self {
            every_operations: 100_000,
            every_bytes: None,
        }
    }
}

/// What a node keeps and sends at most; bytes are those of [`raftlog_raft::entry::Entry::weight`]. The default is what programs
/// use; with less the same happens sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Settled entries that stay in memory; older ones are read back from disk.
    pub recent_bytes_max: usize,
    /// Entries in one message to a follower; a larger one goes alone.
    pub append_bytes_max: usize,
    /// Entries under way to one follower.
    pub in_flight_bytes_max: usize,
    /// Entries that a leader takes in before the first of them is committed.
    pub uncommitted_bytes_max: usize,
    /// Sessions that are kept. All members of a cluster have to decide alike, and so to keep as many.
    pub sessions_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            recent_bytes_max: 8 << 20,
            append_bytes_max: 1 << 20,
            in_flight_bytes_max: 4 << 20,
            uncommitted_bytes_max: 16 << 20,
            sessions_max: SESSIONS_MAX,
        }
    }
}

/// What happens to a node.
#[derive(Debug)]
pub enum Input {
    /// The deadline has come.
    Tick,
    /// From another member; cluster ID and both member IDs have been checked.
    Message(Message),
    /// What was under way to that member may be lost: its stream broke or a message was dropped.
    PeerStreamBroken(MemberId),
    /// A piece of a leader's snapshot; checked likewise.
    InstallSnapshot(InstallSnapshot),
    /// What a follower says to a piece of this leader's.
    InstallSnapshotResponse(InstallSnapshotResponse),
    /// What was under way of a snapshot to that member may be lost.
    SnapshotStreamBroken(MemberId),
    /// From clients, in order.
    Submit(Vec<Proposal>),
    /// No more proposals of that stream will come; forget it.
    StreamClosed(StreamId),
    /// Hand leadership over; answered by [`Output::Transferred`].
    TransferLeadership {
        /// Who asks.
        id: RequestId,
        /// Absent: the most up-to-date voter.
        target: Option<NodeNumber>,
    },
    /// Change who belongs to the cluster; answered by [`Output::MembershipChanged`].
    ChangeMembership(MembershipChange),
    /// A leader says to this node that it is a member of its cluster, and with whom that was formed.
    Invited {
        /// The cluster's identity.
        cluster_id: ClusterId,
        /// Its first members.
        bootstrap: Vec<Member>,
        /// Its feature level.
        level: FeatureLevel,
    },
    /// A voter says that its committed configuration of that version does not list this member.
    Removed {
        /// Log index of the configuration's entry.
        version: LogIndex,
    },
    /// A snapshot of what is executed by now is wanted; answered by [`Output::SnapshotTaken`].
    TakeSnapshot {
        /// Who asks.
        id: RequestId,
        /// How long it may take.
        within: Duration,
    },
    /// Data of a snapshot are wanted; answered by [`Output::SnapshotRead`].
    ReadSnapshot {
        /// Who asks.
        id: RequestId,
        /// Of which.
        snapshot: SnapshotId,
        /// From there on.
        offset: u64,
    },
    /// Ask the executor of the own replicator; answered by [`Output::QueryAnswered`].
    Query(Query),
    /// An [`Output::Disk`] is done. They complete in the order in which they came out.
    Disk(OpId, Result<Outcome, DiskError>),
    /// Form a cluster; answered by [`Output::Bootstrapped`].
    Bootstrap {
        /// Who asks.
        id: RequestId,
        /// The new cluster's identity.
        cluster_id: ClusterId,
        /// The member it is meant for.
        to_member: MemberId,
        /// The initial members.
        members: Vec<Member>,
    },
    /// The answer to [`Output::AskPeer`].
    PeerReport {
        /// Who was asked.
        node: NodeNumber,
        /// What it said.
        report: PeerReport,
    },
    /// From this node's own replicator.
    Replicator(FromReplicator),
}

/// What a peer is, as far as formation cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerReport {
    /// It belongs to no cluster.
    Unformed {
        /// Its identity.
        member_id: MemberId,
        /// The address it advertises to peers.
        peer_address: String,
        /// The address it advertises to clients.
        client_address: String,
    },
    /// It belongs to none, as it was removed from one: nobody forms another one with it.
    WasRemoved,
    /// It belongs to one.
    Formed {
        /// Which.
        cluster_id: ClusterId,
        /// The identities in its current configuration.
        member_ids: Vec<MemberId>,
        /// The configuration that formed the cluster, for a listed member that missed it; empty where it is not told.
        bootstrap: Vec<Member>,
    },
    /// It did not answer.
    Unreachable,
}

/// What this node's replicator says. One stream is open at a time: `Opened`, `Position`, then the others, then `Closed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromReplicator {
    /// A stream is open and the node's hello is sent.
    Opened,
    /// What the replicator has; the node answers with [`ToReplicator::Start`] or [`ToReplicator::Close`].
    Position(Position),
    /// How far it is.
    Progress(Progress),
    /// How its executor is doing.
    Executor(Arc<ExecutorStatus>),
    /// A client reads there: answered by [`ToReplicator::ReadAnswer`].
    ReadIndex {
        /// The replicator's number for it.
        id: u64,
    },
    /// The answer to [`ToReplicator::Query`].
    QueryAnswer {
        /// Which.
        id: u64,
        /// The last operation that was executed then.
        index: OperationIndex,
        /// Its term.
        term: Term,
        /// What the executor says.
        result: Result<Bytes, QueryRefused>,
    },
    /// A piece of what it was asked for by [`ToReplicator::TakeSnapshot`]; the next, when `Node::takes_snapshot` says so.
    Snapshot(SnapshotChunk),
    /// The stream has taken a [`ToReplicator::Restore`]: the next may come. Said by whoever carries the messages.
    RestoreTaken,
    /// The stream has ended, by whichever side.
    Closed,
}

/// The state of an executor: what is in it, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSnapshot {
    /// The last operation in it.
    pub place: Place,
    /// In bytes.
    pub size: u64,
}

/// A piece of an executor's state, in order and without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The order that it answers.
    pub id: u64,
    /// What the state is, with the first piece.
    pub snapshot: Option<StateSnapshot>,
    /// Of the first byte.
    pub offset: u64,
    /// Empty only where the whole state is.
    pub data: Bytes,
}

/// What a replicator has when a stream opens. All indexes are operation indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Absent for a replicator that has never met a node.
    pub cluster_id: Option<ClusterId>,
    /// The member it last belonged to.
    pub member_id: Option<MemberId>,
    /// First index it holds; 0 with an empty log.
    pub first_index: OperationIndex,
    /// The last operation it holds.
    pub last: Place,
    /// How far it knows the log to be committed.
    pub commit: Place,
    /// How far it has executed.
    pub executed: Place,
    /// Its log begins after what its executor needs: only a snapshot helps.
    pub needs_state: bool,
    /// It executes only while its node leads, and so is told whether it does.
    pub on_leader: bool,
}

impl Position {
    /// The operation before the first that its log can have.
    pub fn log_begins_after(&self) -> OperationIndex {
        self.first_index.checked_sub(1).unwrap_or(self.last.index)
    }
}

/// A place in the log of operations; all 0 before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Operation index.
    pub index: OperationIndex,
    /// Term of the operation there.
    pub term: Term,
    /// Running hash up to and with it.
    pub running_hash: u64,
}

/// How far a replicator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Highest index it holds.
    pub last_index: OperationIndex,
    /// Its commit index.
    pub commit_index: OperationIndex,
    /// What it has executed.
    pub executed_index: OperationIndex,
    /// What it has executed and would still know after a crash.
    pub durable_executed_index: OperationIndex,
    /// The term that its node leads and in which it executes, where it does so on the leader only.
    pub leading_term: Option<Term>,
}

/// What a node tells its replicator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToReplicator {
    /// The answer to its position.
    Start {
        /// Where to go on.
        action: StartAction,
        /// min(the node's commit index, what is on its disk).
        commit: OperationIndex,
    },
    /// Operations, consecutive, and how far they are committed. What is fed and not yet reported as held by
    /// [`Progress`] is bounded by the node.
    Feed {
        /// Possibly none.
        operations: Vec<ReplicatedOperation>,
        /// min(the node's commit index, what is on its disk).
        commit: OperationIndex,
    },
    /// Whether it is the one that executes, where only the leader's replicator does.
    Leading(Leading),
    /// The answer to [`FromReplicator::ReadIndex`].
    ReadAnswer {
        /// The replicator's number for it.
        id: u64,
        /// What has to be committed there before the read; absent without a leader.
        index: Option<OperationIndex>,
    },
    /// Ask the executor, now; answered by [`FromReplicator::QueryAnswer`]. At most [`raftlog_proto::QUERIES_MAX`] are without
    /// an answer.
    Query {
        /// Echoed in the answer.
        id: u64,
        /// What it is asked.
        query: Bytes,
    },
    /// Answer with a snapshot at whatever executed index, in [`FromReplicator::Snapshot`]; instead of any earlier order.
    TakeSnapshot {
        /// Echoed in the answer.
        id: u64,
    },
    /// A piece of the state that [`StartAction::Restore`] spoke of, in order.
    Restore {
        /// Of the first byte.
        offset: u64,
        /// Empty only where the whole state is.
        data: Bytes,
    },
    /// The node holds snapshots durably: it will not need operations up to this one from the replicator.
    SnapshotKept {
        /// Operation index.
        index: OperationIndex,
    },
    /// What was begun on this stream cannot go on: end it, and open another at once.
    StartOver {
        /// For people.
        why: String,
    },
    /// The two do not belong together: end the stream; the runtime says why and tries again later.
    Close {
        /// For people.
        why: String,
    },
}

/// Who executes, and behind what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leading {
    /// The term that the node leads, with all marks of earlier leaders committed.
    pub leads: Option<Term>,
    /// The execution progress mark, as far as the replicator was told that operations are committed.
    pub execute_after: OperationIndex,
}

/// Where a replicator goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAction {
    /// The next operation that the node will send.
    ResumeFrom(OperationIndex),
    /// Drop what lies above, then resume from the next.
    CutTo(OperationIndex),
    /// The node is behind: nothing is fed until it holds this much.
    WaitUntil(OperationIndex),
    /// The node's log begins later: drop everything, take this state, which follows in pieces, and go on behind it.
    Restore(StateSnapshot),
}

/// An operation on its way to the replicator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicatedOperation {
    /// Operation index.
    pub index: OperationIndex,
    /// Term of the entry.
    pub term: Term,
    /// Running hash up to and with it.
    pub running_hash: u64,
    /// What the client submitted.
    pub data: Bytes,
}

/// What a node wants done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Execute on the disk; answered by [`Input::Disk`]. At most a few at a time.
    Disk(OpId, Op),
    /// To another member of the configuration.
    Send(Message),
    /// A piece of this leader's snapshot, to a follower.
    InstallSnapshot(InstallSnapshot),
    /// The answer to such a piece, to its leader.
    InstallSnapshotResponse(InstallSnapshotResponse),
    /// A proposal is decided.
    Answer {
        /// Which.
        id: RequestId,
        /// How.
        result: Result<Committed, Refusal>,
    },
    /// A transfer is decided.
    Transferred {
        /// Which.
        id: RequestId,
        /// How.
        result: Result<Transferred, TransferRefusal>,
    },
    /// A membership change is decided.
    MembershipChanged {
        /// Which.
        id: RequestId,
        /// The configuration in which it ended, or would.
        result: Result<Configuration, MembershipRefusal>,
    },
    /// A snapshot that was asked for is on disk, or will not be.
    SnapshotTaken {
        /// Who asked.
        id: RequestId,
        /// It holds all that was executed when it was asked for.
        result: Result<TakenSnapshot, SnapshotRefusal>,
    },
    /// Data of a snapshot.
    SnapshotRead {
        /// Who asked.
        id: RequestId,
        /// From the offset that was asked for to the end of the chunk that it is in; `None` where the snapshot is no more.
        data: Option<Bytes>,
    },
    /// A query is answered, or is not going to be.
    QueryAnswered {
        /// Which.
        id: RequestId,
        /// How.
        result: Result<QueryResult, QueryRefusal>,
    },
    /// A bootstrap is decided, and on disk where it was taken.
    Bootstrapped {
        /// Which.
        id: RequestId,
        /// How.
        result: Result<(), BootstrapRefusal>,
    },
    /// Ask that peer what it is; answered by [`Input::PeerReport`], within a second or so.
    AskPeer {
        /// Its number.
        node: NodeNumber,
        /// Where to ask.
        address: String,
    },
    /// Bootstrap that peer; not answered (the node asks again).
    SendBootstrap {
        /// Its number.
        node: NodeNumber,
        /// Where it is.
        address: String,
        /// The new cluster's identity.
        cluster_id: ClusterId,
        /// The member it is meant for.
        to_member: MemberId,
        /// The initial members.
        members: Vec<Member>,
    },
    /// To this node's own replicator.
    Replicator(ToReplicator),
    /// Something worth a line.
    Notice(Notice),
    /// The node must not go on: say it on stderr and exit with 1.
    Stop(String),
}

/// What a client asks the executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Who asks.
    pub id: RequestId,
    /// At most [`raftlog_proto::QUERY_BYTES_MAX`]; its meaning is up to the executor.
    pub query: Bytes,
    /// Answer from what is executed at the own replicator, whatever is committed elsewhere.
    pub allow_stale: bool,
    /// Nobody waits for longer.
    pub until: Time,
}

/// What the executor answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryResult {
    /// At most [`raftlog_proto::RESULT_BYTES_MAX`].
    pub result: Bytes,
    /// The last operation that was executed then.
    pub index: OperationIndex,
    /// Its term.
    pub term: Term,
}

/// Why a query has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryRefusal {
    /// Nobody can say up to where it has to see.
    NoLeader {
        /// Who leads, where it is known.
        leader: Option<Leader>,
    },
    /// Too many are under way.
    Backpressure,
    /// The own replicator is not connected, or went away.
    NoReplicator,
    /// The leader did not say up to where it has to see.
    NotReadInTime,
    /// The replicator has not executed enough.
    NotExecutedInTime {
        /// What it had to execute.
        index: OperationIndex,
        /// What it has executed; absent while it is not connected.
        executed: Option<OperationIndex>,
    },
    /// The replicator was asked and did not answer.
    NotAnsweredInTime,
    /// The executor said no.
    Executor(QueryRefused),
}

/// Why an executor has no result for a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryRefused {
    /// The kind of it.
    pub why: WhyRefused,
    /// For people.
    pub message: String,
}

/// Kinds of [`QueryRefused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyRefused {
    /// It has no time.
    Busy,
    /// It knows no such query.
    Invalid,
    /// What is asked for is not there yet, or not any more.
    OutOfRange,
    /// The result would be.
    TooLong,
}

/// A proposal that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The operation's index; for a session the last operation's before it.
    pub operation_index: OperationIndex,
    /// Of the entry.
    pub log_index: LogIndex,
    /// Of the entry.
    pub term: Term,
}

impl Committed {
    /// The name of the session that the entry opened, where that was proposed.
    pub fn session_id(&self) -> String {
        opened_id(self.term, self.log_index)
    }
}

/// Who leads, and where clients reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its identity.
    pub member_id: MemberId,
    /// Its number.
    pub node: NodeNumber,
    /// `HOST:PORT`.
    pub client_address: String,
}

/// Why a proposal failed. Nothing was appended, except where it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another node leads, or nobody.
    NotLeader {
        /// Who, where it is known.
        leader: Option<Leader>,
    },
    /// The leader can't take it now; why, for people.
    NotAppended(&'static str),
    /// Too much is under way.
    Backpressure,
    /// The disk is full.
    DiskFull,
    /// The leader's log is as long as it may be until its replicator has executed more.
    LogFull,
    /// The operation itself is bad; why, for people.
    InvalidOperation(String),
    /// The session was evicted, or was never opened.
    SessionExpired,
    /// The answer to this sequence is no longer remembered: it may have been appended long ago.
    SequenceForgotten,
    /// It was appended, and then leadership was lost: the outcome is unknown.
    LeadershipLost,
}

/// Leadership was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// Who leads now.
    pub leader: Leader,
    /// The new leader's term.
    pub term: Term,
}

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferRefusal {
    /// This node does not lead.
    NotLeader {
        /// Who does, where it is known.
        leader: Option<Leader>,
    },
    /// That target cannot lead; why, for people.
    BadTarget(String),
    /// It did not happen in time, or somebody else was elected; why, for people.
    Failed(String),
}

/// Why a membership change was not made. Nothing was changed, except where it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipRefusal {
    /// This node does not lead.
    NotLeader {
        /// Who does, where it is known.
        leader: Option<Leader>,
    },
    /// It cannot be made now; why, for people.
    NotNow(&'static str),
    /// Another configuration is in force than the caller expects: its version.
    OtherVersion(LogIndex),
    /// It makes no sense; why, for people.
    Invalid(String),
    /// That member does not hold enough of the log to be promoted.
    NotCaughtUp(MemberId),
    /// No majority of the new voters answers.
    WouldLoseQuorum {
        /// New voters that answer.
        responsive: usize,
        /// New voters.
        voters: usize,
    },
    /// It was begun, and then leadership was lost: the outcome is unknown.
    LeadershipLost,
}

/// A snapshot on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenSnapshot {
    /// What is known of it without its data.
    pub manifest: Manifest,
    /// The last operation in it.
    pub place: Place,
}

/// Why there is no snapshot of what is executed by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotRefusal {
    /// The node belongs to no cluster.
    Unformed,
    /// Too many wait already.
    Busy,
    /// No replicator is fed, so nobody knows the state.
    NoReplicator,
    /// No operation is executed, so there is nothing that it could hold.
    NothingExecuted,
    /// It came to nothing; why, for people.
    Failed(&'static str),
    /// It was not on disk in time. It may be later.
    TimedOut,
}

/// Why a bootstrap was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootstrapRefusal {
    /// It belongs to a cluster already, of another identity or with other initial members.
    AlreadyFormed(ClusterId),
    /// It is another member than the one meant: its own identity.
    WrongMember(MemberId),
    /// The members are not a configuration, or this one is not listed; why, for people.
    Invalid(String),
}

/// What a node is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Belongs to no cluster yet.
    Unformed,
    /// Raft 5.2.
    Follower,
    /// Asks whether it would be elected (thesis 9.6).
    PreCandidate,
    /// Raft 5.2.
    Candidate,
    /// Raft 5.2.
    Leader,
    /// Not a voter of the configuration, or not in it at all.
    Learner,
}

/// One node's view of itself and its cluster. Cheap to make: it is made after every batch of inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Absent while unformed.
    pub cluster_id: Option<ClusterId>,
    /// Own identity.
    pub member_id: MemberId,
    /// Own number.
    pub node: NodeNumber,
    /// What it is.
    pub role: Role,
    /// Current term.
    pub term: Term,
    /// Who leads the current term, itself included.
    pub leader: Option<Leader>,
    /// A leader whose quorum answered within MAX, or a node that heard from its leader within MAX.
    pub leader_is_live: bool,
    /// Committed operations.
    pub commit_index: OperationIndex,
    /// What leaders' replicators have executed, as the log says; 0 where every replicator executes.
    pub execution_mark: OperationIndex,
    /// Operations in the log.
    pub last_index: OperationIndex,
    /// Operations on the own disk.
    pub persisted_index: OperationIndex,
    /// Committed entries.
    pub commit_log_index: LogIndex,
    /// Entries in the log.
    pub last_log_index: LogIndex,
    /// At `last_index`.
    pub running_hash: u64,
    /// At `commit_index`, where that is in memory.
    pub commit_hash: Option<u64>,
    /// The cluster's feature level, as far as it is known to be committed; absent while unformed.
    pub feature_level: Option<FeatureLevel>,
    /// What this version supports.
    pub supports: Supports,
    /// The configuration in force; empty while unformed.
    pub configuration: Arc<Configuration>,
    /// The cluster that this one was recovered from, if it was.
    pub parent: Option<Parent>,
    /// The configuration that formed the cluster.
    pub bootstrap: Option<Arc<Configuration>>,
    /// Whether the committed configuration lists this member.
    pub is_member: bool,
    /// What a leader knows of the others; empty elsewhere.
    pub progress: Vec<MemberProgress>,
    /// The own replicator.
    pub replicator: ReplicatorView,
    /// How this leader came to lead; absent elsewhere.
    pub elected_by: Option<ElectedBy>,
    /// What is wrong with disks.
    pub disks: Disks,
    /// The log's beginning, and the snapshots.
    pub kept: Kept,
    /// Why the node can't take part in full, for people: who is missing at formation, what a repair waits for.
    pub waiting_for: Option<String>,
    /// It was removed from its cluster, and begins anew at its next start; or has begun anew, and forms no other one.
    pub was_removed: bool,
    /// Reads that it has answered while it led.
    pub reads: ReadCounts,
    /// Bytes of the log's entries kept in memory.
    pub memory_bytes: u64,
    /// Bytes of the log on disk.
    pub disk_bytes: u64,
    /// Segments of the log on disk.
    pub disk_segments: u64,
    /// Bytes handed to the log that are not on disk yet.
    pub pending_bytes: u64,
}

/// What a node keeps of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The first operation in the log; those before are in a snapshot.
    pub first_index: OperationIndex,
    /// The last operation in the newest snapshot; 0 without one.
    pub snapshot_index: OperationIndex,
    /// Bytes of snapshots on disk.
    pub snapshot_bytes: u64,
    /// Bytes of disk that the log takes, about, without what is dropped and what is prepared.
    pub log_bytes: u64,
    /// Submissions are refused because the log is as long as it may be until the replicator has executed more.
    pub log_full: bool,
}

impl Default for Kept {
    /// All of it.
    fn default() -> Self {
        Self {
            first_index: 1,
            snapshot_index: 0,
            snapshot_bytes: 0,
            log_bytes: 0,
            log_full: false,
        }
    }
}

/// What is wrong with disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disks {
    /// The own one is full.
    pub full: bool,
    /// The own one has completed nothing for longer than the minimum election timeout.
    pub stalled: bool,
    /// This node leads and refuses submissions until there is room: on the own disk, or on those of a majority.
    pub lack_room: bool,
}

/// What a leader knows of a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberProgress {
    /// Who.
    pub member_id: MemberId,
    /// Its number.
    pub node: NodeNumber,
    /// Highest log index known to be on its disk and equal to the leader's.
    pub match_log_index: LogIndex,
    /// Since the send time of the last message that it answered.
    pub last_contact: Duration,
    /// Bytes of entries sent and not answered.
    pub in_flight_bytes: u64,
    /// It answers, and holds all but what has just come: fit to be promoted.
    pub caught_up: bool,
    /// The feature levels that it supports, once it has told this leader.
    pub supports: Option<Supports>,
}

/// What a node knows of its replicator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicatorView {
    /// A stream is open and both agreed where to start.
    pub connected: bool,
    /// How far it is.
    pub progress: Progress,
    /// How its executor is doing, as it was told last; absent until it was.
    pub executor: Option<Arc<ExecutorStatus>>,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unformed => "unformed",
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Learner => "learner",
        })
    }
}
