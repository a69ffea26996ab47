//! One pod: a node and its replicator with a disk each, the stream between the two, and a clock.

use std::collections::VecDeque;

use raftlog_raft::feature::Supports;
use raftlog_raft::ids::{LogIndex, MemberId, Term};
use raftlog_raft::time::Time;
use raftlog_replicator::core::{Operation, Replicator, StreamId};
use raftlog_server::node::{FromReplicator, Node, ReadCounts, ToReplicator};

use crate::clock::Clock;
use crate::disk::QueuedDisk;
use crate::happening::Entry;
use crate::machine::Machine;

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) clock: Clock,
    /// How often each process was started.
    pub(crate) node_life: u64,
    pub(crate) replicator_life: u64,
    pub(crate) node: Option<NodeProcess>,
    pub(crate) replicator: Option<Replicator>,
    pub(crate) node_disk: QueuedDisk,
    pub(crate) replicator_disk: QueuedDisk,
    pub(crate) stream: Stream,
    /// What the executor was given and has not done, and in which term of a leader, where only its replicator executes.
    pub(crate) executing: VecDeque<(Operation, Option<Term>)>,
    /// The program that executes them, in runs with such programs.
    pub(crate) machine: Machine,
    /// What happened while the pod was suspended, in its order; absent while it is not.
    pub(crate) suspended: Option<VecDeque<Entry>>,
    /// Until then it fails soon after each start.
    pub(crate) crash_loops_until: Time,
    pub(crate) executor_slow_until: Time,
    /// The version that its node is started as.
    pub(crate) supports: Supports,
    /// Its node's identity.
    pub(crate) member: Option<MemberId>,
    /// Its node has belonged to the cluster, under this or an earlier identity.
    pub(crate) has_formed: bool,
    /// With the next start of its node its log is another one.
    pub(crate) is_to_be_forged: bool,
    /// Its node's log was forged: up to this entry.
    pub(crate) forged: Option<LogIndex>,
    /// The member that its node was and that was removed from the cluster: its data lie beside.
    pub(crate) removed: Option<MemberId>,
    /// It is not to be started again.
    pub(crate) is_given_up: bool,
}

/// The process of a node.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    pub(crate) node: Node,
    /// When the next tick is on the agenda, in true time.
    pub(crate) tick_at: Time,
    /// Whether it was suspect when last looked at.
    pub(crate) was_suspect: bool,
    /// Reads that it had answered as leader then.
    pub(crate) reads: ReadCounts,
}

/// The stream between node and replicator; in both directions what was said first is heard first.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) id: Option<StreamId>,
    pub(crate) connecting: bool,
    pub(crate) to_replicator: VecDeque<ToReplicator>,
    pub(crate) to_node: VecDeque<FromReplicator>,
}

impl Pod {
    pub(crate) fn new(clock: Clock, volume_bytes: u64) -> Self {
        Self {
            clock,
            node_life: 0,
            replicator_life: 0,
            node: None,
            replicator: None,
            node_disk: QueuedDisk::new(volume_bytes),
            replicator_disk: QueuedDisk::new(volume_bytes),
            stream: Stream::default(),
            executing: VecDeque::new(),
            machine: Machine::default(),
            suspended: None,
            crash_loops_until: Time(0),
            executor_slow_until: Time(0),
            supports: Supports::default(),
            member: None,
            has_formed: false,
            is_to_be_forged: false,
            forged: None,
            removed: None,
            is_given_up: false,
        }
    }
}
