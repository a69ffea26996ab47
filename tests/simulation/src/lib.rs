//! Whole clusters, replicators included, in one thread under virtual time.
//!
//! The nodes, logs and replicators are the ones that run in production; only the disk, the network, the clock and the
//! client are simulated. Everything that is left to chance comes from one seed, so that a run can be repeated exactly:
//! [`Cluster::trace`] is the same for the same seed.

mod client;
mod cluster;
mod happening;
mod pod;

pub use client::Client;
pub use cluster::{Cluster, Options};
pub use pod::Executed;
