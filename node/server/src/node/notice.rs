//! What a node says about itself when something happens: plain lines in the voice of the story.

use std::fmt;

use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, Term};

use super::api::ElectedBy;

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
    /// This node leads.
    BecameLeader {
        /// Who says it.
        node: NodeNumber,
        /// Its term.
        term: Term,
        /// How it came about.
        by: ElectedBy,
    },
    /// This node led and does not any more.
    SteppedDown {
        /// Who says it.
        node: NodeNumber,
        /// The term it led.
        term: Term,
        /// Why, for people.
        why: String,
    },
    /// This node follows another leader than before.
    Follows {
        /// Who says it.
        node: NodeNumber,
        /// The leader.
        leader: NodeNumber,
        /// The leader's term.
        term: Term,
    },
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
            Self::BecameLeader { node, term, by } => {
                write!(f, "Node {node} became leader of term {term} ({by})")
            }
            Self::SteppedDown { node, term, why } => {
                write!(f, "Node {node} stepped down as leader of term {term}: {why}")
            }
            Self::Follows { node, leader, term } => {
                write!(f, "Node {node} follows Leader {leader} in term {term}")
            }
            Self::Plain { node, what } => write!(f, "Node {node} {what}"),
        }
    }
}
