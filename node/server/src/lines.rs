//! The story's lines that a node prints, word for word.

use std::fmt;

use raftlog_raft::ids::{MemberId, NodeNumber};
use raftlog_raft::membership::Configuration;
use raftlog_telemetry::story::{Story, Suppressed};
use tokio::runtime::Handle;

/// How a member is called: its node number, or its identity where no configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Called {
    Node(NodeNumber),
    Member(MemberId),
}

/// What `configuration` calls that member.
pub(crate) fn called(configuration: &Configuration, member: MemberId) -> Called {
    configuration
        .member(member)
        .map_or(Called::Member(member), |member| Called::Node(member.node))
}

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::Member(member) => member.fmt(f),
        }
    }
}

/// The lines that pass a token bucket.
#[derive(Debug, Clone)]
pub(crate) struct Stories {
    pub(crate) submit: Story<Submit>,
    pub(crate) forward: Story<Forward>,
    pub(crate) replicate: Story<Replicate>,
}

impl Stories {
    pub(crate) fn new(suppressed: &Suppressed, runtime: &Handle) -> Self {
        Self {
            submit: Story::new(suppressed, runtime.clone()),
            forward: Story::new(suppressed, runtime.clone()),
            replicate: Story::new(suppressed, runtime.clone()),
        }
    }

    /// For the end.
    pub(crate) fn flush(&self) {
        self.submit.flush();
        self.forward.flush();
        self.replicate.flush();
    }
}

/// A client's call came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submit {
    pub(crate) node: NodeNumber,
    pub(crate) method: &'static str,
}

impl fmt::Display for Submit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Node {} runs RPC {} called by a client.",
            self.node, self.method
        )
    }
}

/// It goes on to the leader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forward {
    pub(crate) node: NodeNumber,
    pub(crate) leader: NodeNumber,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Node {} forwards client req to Leader {}",
            self.node, self.leader
        )
    }
}

/// The replicator is told something.
#[derive(Debug, Clone)]
pub(crate) struct Replicate {
    pub(crate) node: NodeNumber,
    pub(crate) replicator: std::sync::Arc<str>,
}

impl fmt::Display for Replicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Node {} sends RPC ReplicateLog to Node {}",
            self.node, self.replicator
        )
    }
}

/// A leader's heartbeat leaves.
pub(crate) fn sends_heartbeat(leader: NodeNumber, to: Called) {
    tracing::info!("Leader Node {leader} sends AppendEntries (Heartbeat) to Node {to}");
}

/// A leader's heartbeat arrives.
pub(crate) fn runs_append_entries(node: NodeNumber, by: Called) {
    tracing::info!("Node {node} runs RPC AppendEntries called by Node {by}");
}

/// A leader offers its snapshot.
pub(crate) fn runs_install_snapshot(node: NodeNumber, by: Called) {
    tracing::info!("Node {node} runs RPC InstallSnapshot called by Node {by}");
}

/// A candidate asks.
pub(crate) fn sends_request_vote(node: NodeNumber, to: Called) {
    tracing::info!("Node {node} sends RPC RequestVote to Node {to}");
}

/// A voter is asked.
pub(crate) fn runs_request_vote(node: NodeNumber, by: Called) {
    tracing::info!("Node {node} runs RPC RequestVote called by Node {by}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_of_the_contract() {
        for (line, expected) in [
            (
                Submit {
                    node: 1,
                    method: "SubmitClientRequest",
                }
                .to_string(),
                "Node 1 runs RPC SubmitClientRequest called by a client.",
            ),
            (
                Forward { node: 1, leader: 2 }.to_string(),
                "Node 1 forwards client req to Leader 2",
            ),
            (
                Replicate {
                    node: 1,
                    replicator: "q4node1".into(),
                }
                .to_string(),
                "Node 1 sends RPC ReplicateLog to Node q4node1",
            ),
            (Called::Node(3).to_string(), "3"),
            (
                Called::Member(MemberId::new(0xab).unwrap()).to_string(),
                "00000000000000ab",
            ),
        ] {
            assert_eq!(line, expected);
        }
    }
}
