//! Tests of the whole core on a simulated disk.

mod belonging;
mod crashes;
mod execution;
mod executor;
mod leadership;
mod node_stream;
mod requests;
mod retention;
mod rig;
mod snapshots;
mod writing;
