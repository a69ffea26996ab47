//! `RaftCluster`: the object that users write, and what the operator tells them in it.

mod bounds;
pub mod duration;
pub mod manifest;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod samples;
// The derive macro repeats the types where nobody reaches them.
#[allow(unreachable_pub)]
pub mod spec;
pub mod status;

pub use spec::{RaftCluster, RaftClusterSpec};
pub use status::RaftClusterStatus;

/// The API group.
pub const GROUP: &str = "raftlog.io";
