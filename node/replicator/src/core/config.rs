//! Limits and pacing of a replicator.

use std::time::Duration;

use raftlog_raft::ids::NodeNumber;
use raftlog_raft::planted::Planted;

use super::executor_state::ExecutorKind;
use super::leadership::ExecuteOn;
use super::retention::Retention;

/// What a [`Replicator`](super::Replicator) is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node that it belongs to; another one is refused.
    pub node: NodeNumber,
    /// What executes operations.
    pub executor: ExecutorKind,
    /// Beside which nodes. An executor with a state of its own executes beside every node.
    pub execute_on: ExecuteOn,
    /// Operations at or below the persisted index stay in memory up to here, in bytes; older ones are read back.
    pub cache_bytes: usize,
    /// With this much not on disk yet, in bytes, nothing more is taken from the node.
    pub unpersisted_bytes_max: usize,
    /// With this much to write, in bytes, writing does not wait for [`Config::write_delay`].
    pub write_bytes: usize,
    /// How long the log and the executed index may stay unwritten, so that the disk is left to the node.
    pub write_delay: Duration,
    /// How long until a full disk is tried again.
    pub full_disk_delay: Duration,
    /// The executor gets no more while it has this much, in bytes.
    pub executing_bytes_max: usize,
    /// The executor gets no more while it has this many operations.
    pub executing_operations_max: usize,
    /// Operations that are not executed take at most about so much of the log on disk, in bytes, beyond the segment that the
    /// first of them is in; with more, nothing is taken from the node while the executor has something to do. `None`: three
    /// segments. Where only the leader's replicator executes, what the nodes keep is the bound.
    pub unexecuted_bytes_max: Option<u64>,
    /// Requests for operations that may be under way to the disk at once; more are refused.
    pub fetches_max: usize,
    /// Reads that may wait for their read index at once; more are refused.
    pub read_indexes_max: usize,
    /// Of the log that neither node nor replicator needs any more, so much stays for clients that watch it. On a full disk nothing
    /// does.
    pub retention: Retention,
    /// So much stays where that has no limit, in bytes, rounded up to whole segments; `None`: as much as a segment.
    pub trailing_bytes: Option<u64>,
    /// Size of a segment of the log, in bytes; `None`: what fits the volume.
    pub segment_bytes: Option<u64>,
    /// A bug, in tests of the simulator.
    pub planted: Planted,
}

impl Config {
    /// The defaults for the replicator of `node`.
    pub fn new(node: NodeNumber) -> Self {
        Self {
            node,
            executor: ExecutorKind::Log,
            execute_on: ExecuteOn::EveryNode,
            cache_bytes: 8 << 20,
            unpersisted_bytes_max: 16 << 20,
            write_bytes: 1 << 20,
            write_delay: Duration::from_millis(100),
            full_disk_delay: Duration::from_secs(1),
            executing_bytes_max: 2 << 20,
            executing_operations_max: 8192,
            unexecuted_bytes_max: None,
            fetches_max: 192,
            read_indexes_max: 1024,
            retention: Retention::default(),
            trailing_bytes: None,
            segment_bytes: None,
            planted: Planted::default(),
        }
    }
}
