//! `RaftCluster`: the object that users write, and what the operator tells them in it.

mod bounds;
pub mod duration;
#[allow(unreachable_pub)]
pub mod executor;
pub mod manifest;
#[allow(unreachable_pub)]
pub mod replicator;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod samples;
// The derive macro repeats the types where nobody reaches them.
#[allow(unreachable_pub)]
pub mod spec;
#[allow(unreachable_pub)]
pub mod state_machine;
pub mod status;

pub use spec::{RaftCluster, RaftClusterSpec};
pub use status::RaftClusterStatus;

/// The API group.
pub const GROUP: &str = "raftlog.io";
