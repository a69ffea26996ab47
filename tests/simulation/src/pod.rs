//! One pod: a node and its replicator with a disk each, and what the outside has seen of it.

use raftlog_raft::ids::OperationIndex;
use raftlog_raft::time::Time;
use raftlog_replicator::core::{Replicator, StreamId};
use raftlog_server::node::Node;
use raftlog_storage::Op;
use raftlog_storage::simulated::MemoryDisk;

/// An execution as the outside saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// How often the pod had been started by then.
    pub life: u64,
    /// Operation index.
    pub index: OperationIndex,
    /// The operation.
    pub data: String,
}

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    /// How often it was started.
    pub(crate) life: u64,
    /// Both processes, while they run.
    pub(crate) running: Option<Running>,
    pub(crate) node_disk: MemoryDisk,
    pub(crate) replicator_disk: MemoryDisk,
    pub(crate) executed: Vec<Executed>,
}

/// Both processes of a pod.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) replicator: Replicator,
    /// Until when a tick is on the agenda.
    pub(crate) tick_at: Time,
    /// The open stream between the two.
    pub(crate) stream: Option<StreamId>,
    pub(crate) connecting: bool,
    /// Operations that each disk works on, in their order, and when the last of them is done.
    pub(crate) node_under_way: Vec<Op>,
    pub(crate) replicator_under_way: Vec<Op>,
    pub(crate) node_disk_free: Time,
    pub(crate) replicator_disk_free: Time,
}

impl Pod {
    pub(crate) fn new() -> Self {
        const VOLUME_BYTES: u64 = 1 << 30;
        Self {
            life: 0,
            running: None,
            node_disk: MemoryDisk::new(VOLUME_BYTES),
            replicator_disk: MemoryDisk::new(VOLUME_BYTES),
            executed: Vec::new(),
        }
    }
}
