//! The wire contract of the Raft Log Replicator, generated from the `.proto` files beside it.

pub mod error;

/// Package `raftlog.v1`: messages, clients and servers.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("raftlog.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of the whole package, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The `domain` of every `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "raftlog.io";

/// The longest operation, in bytes.
pub const OPERATION_BYTES_MAX: usize = 1 << 20;

/// The longest `client_id`, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 256;

/// The longest query, in bytes.
pub const QUERY_BYTES_MAX: usize = 64 << 10;

/// The longest result of a query, in bytes.
pub const RESULT_BYTES_MAX: usize = 64 << 10;

/// Queries that a node may have at its replicator without an answer.
pub const QUERIES_MAX: usize = 128;

/// The largest message either side decodes, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Reasons in `google.rpc.ErrorInfo`.
pub mod reason {
    /// No leader is known. Nothing was appended.
    pub const NO_LEADER: &str = "NO_LEADER";
    /// Refused before the append. Nothing was appended.
    pub const NOT_APPENDED: &str = "NOT_APPENDED";
    /// Too much is under way. Nothing was appended.
    pub const BACKPRESSURE: &str = "BACKPRESSURE";
    /// The leader's disk is full. Nothing was appended.
    pub const DISK_FULL: &str = "DISK_FULL";
    /// Empty, too long, or a bad `client_id`. Nothing was appended.
    pub const INVALID_OPERATION: &str = "INVALID_OPERATION";
    /// The session was evicted, or was never opened. Nothing was appended.
    pub const SESSION_EXPIRED: &str = "SESSION_EXPIRED";
    /// The session no longer knows the answer to this sequence: it may have been appended long ago.
    pub const SEQUENCE_FORGOTTEN: &str = "SEQUENCE_FORGOTTEN";
    /// Appended, and then the leader lost its leadership: the outcome is unknown.
    pub const LEADERSHIP_LOST: &str = "LEADERSHIP_LOST";
    /// The connection to the leader broke under a forwarded request: the outcome is unknown.
    pub const FORWARD_BROKEN: &str = "FORWARD_BROKEN";
    /// Committed, but not executed in time, or not known to be.
    pub const NOT_EXECUTED: &str = "NOT_EXECUTED";
    /// The message is for another cluster.
    pub const WRONG_CLUSTER: &str = "WRONG_CLUSTER";
    /// The message is for another member.
    pub const WRONG_MEMBER: &str = "WRONG_MEMBER";
    /// The node belongs to no cluster yet.
    pub const UNFORMED: &str = "UNFORMED";
    /// Bootstrap of a node that belongs to a cluster already.
    pub const ALREADY_FORMED: &str = "ALREADY_FORMED";
    /// The leadership transfer did not happen in time.
    pub const TRANSFER_FAILED: &str = "TRANSFER_FAILED";
    /// Another configuration is in force than the call expects. Nothing was changed.
    pub const CONFIGURATION_CHANGED: &str = "CONFIGURATION_CHANGED";
    /// A membership change that makes no sense. Nothing was changed.
    pub const INVALID_CHANGE: &str = "INVALID_CHANGE";
    /// Who is to be promoted does not hold enough of the log. Nothing was changed.
    pub const NOT_CAUGHT_UP: &str = "NOT_CAUGHT_UP";
    /// No majority of the new voters answers the leader. Nothing was changed.
    pub const WOULD_LOSE_QUORUM: &str = "WOULD_LOSE_QUORUM";
    /// The operations asked for are not held any more: then `first_index` in the metadata is the first one that is. Or they
    /// are not committed, or executed, yet.
    pub const OUT_OF_RANGE: &str = "OUT_OF_RANGE";
    /// The operations here are others than those that a resume token speaks of.
    pub const OTHER_PAST: &str = "OTHER_PAST";
    /// There is no snapshot, or will not be: of a replicator that is not there, or that has executed nothing, or in the time given.
    pub const NO_SNAPSHOT: &str = "NO_SNAPSHOT";
    /// The snapshot that is read is no more, as newer ones were taken. A new one can be.
    pub const SNAPSHOT_GONE: &str = "SNAPSHOT_GONE";
    /// The executor knows no such query, or it is too long.
    pub const INVALID_QUERY: &str = "INVALID_QUERY";
    /// The result of a query is longer than what one may have.
    pub const RESULT_TOO_LONG: &str = "RESULT_TOO_LONG";
    /// The node's replicator is not connected: ask another node.
    pub const NO_REPLICATOR: &str = "NO_REPLICATOR";
    /// The message contradicts itself or the protocol. Nothing was changed.
    pub const INVALID_REQUEST: &str = "INVALID_REQUEST";
    /// The stream was replaced by a newer one of the same caller.
    pub const REPLACED: &str = "REPLACED";
    /// The process stops: call again, or call another.
    pub const STOPPING: &str = "STOPPING";

    /// The reasons after which a client may be sure that nothing was appended.
    pub const NOTHING_APPENDED: [&str; 6] = [
        NO_LEADER,
        NOT_APPENDED,
        BACKPRESSURE,
        DISK_FULL,
        INVALID_OPERATION,
        SESSION_EXPIRED,
    ];
}
