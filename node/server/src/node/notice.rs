//! What a node says about itself when something happens: plain lines in the voice of the story.

use std::fmt;
use std::time::Duration;

use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, OperationIndex};

/// One happening. Its `Display` is the whole line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A data folder was used for the first time.
    NewMember {
        /// Who says it.
        node: NodeNumber,
        /// The identity that was made.
        member: MemberId,
    },
    /// The node belongs to a cluster from now on.
    Formed {
        /// Who says it.
        node: NodeNumber,
        /// Which cluster.
        cluster: ClusterId,
    },
    /// A snapshot is on disk.
    SnapshotTaken {
        /// Who says it.
        node: NodeNumber,
        /// The last operation in it.
        index: OperationIndex,
        /// Its length.
        bytes: u64,
        /// Since the replicator's answer.
        took: Duration,
    },
    /// What the consensus core tells.
    Consensus(raftlog_raft::effect::Notice),
    /// Anything else worth a line.
    Plain {
        /// Who says it.
        node: NodeNumber,
        /// What happened, without "Node N".
        what: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewMember { node, member } => write!(f, "Node {node} starts as new member {member}"),
            Self::Formed { node, cluster } => write!(f, "Node {node} belongs to cluster {cluster}"),
            Self::SnapshotTaken {
                node, index, bytes, ..
            } => write!(f, "Node {node} took a snapshot at index {index} ({bytes} bytes)"),
            Self::Consensus(notice) => notice.fmt(f),
            Self::Plain { node, what } => write!(f, "Node {node} {what}"),
        }
    }
}
