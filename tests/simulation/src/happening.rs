//! What can happen, in the order of virtual time.

use std::collections::BTreeMap;

use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, OperationIndex};
use raftlog_raft::membership::Member;
use raftlog_raft::message::Message;
use raftlog_raft::time::Time;
use raftlog_replicator::core::Event;
use raftlog_server::node::{FromReplicator, PeerReport};
use raftlog_storage::{Op, OpId};

/// One thing that happens to one pod, or to the client. Those of a process that died meanwhile are dropped: `life` counts a
/// pod's starts.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The node's deadline may have come.
    Tick,
    /// A message arrives.
    Message(ClusterId, Message),
    /// The node's disk is done with an operation.
    NodeDisk(OpId, Op),
    /// The replicator's disk is done with an operation.
    ReplicatorDisk(OpId, Op),
    /// A peer wants to know what this node is.
    Asked { by: NodeNumber },
    /// A peer says what it is.
    Report(NodeNumber, PeerReport),
    /// A peer bootstraps this node.
    Bootstrap(ClusterId, MemberId, Vec<Member>),
    /// The replicator says something to its node.
    ToNode(FromReplicator),
    /// Something happens to the replicator.
    ToReplicator(Event),
    /// The executor is done up to there.
    Executed(OperationIndex),
    /// The node opens a stream to its replicator.
    Connect,
    /// The client tries its current operation here.
    Submit { attempt: u64 },
    /// The power goes off.
    PowerFailure,
    /// The pod starts.
    Start,
}

/// What is going to happen, by time and then by the order in which it was decided.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    entries: BTreeMap<(Time, u64), (NodeNumber, u64, Happening)>,
    decided: u64,
}

impl Agenda {
    pub(crate) fn add(&mut self, at: Time, pod: NodeNumber, life: u64, happening: Happening) {
        self.decided += 1;
        self.entries.insert((at, self.decided), (pod, life, happening));
    }

    pub(crate) fn next(&mut self) -> Option<(Time, NodeNumber, u64, Happening)> {
        let ((at, _), (pod, life, happening)) = self.entries.pop_first()?;
        Some((at, pod, life, happening))
    }
}
