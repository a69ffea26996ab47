//! raft-replicator: holds the committed operations of its node and executes them in order.
//!
//! [`core`] decides: a pure state machine over the log of [`raftlog_storage`].

pub mod core;
