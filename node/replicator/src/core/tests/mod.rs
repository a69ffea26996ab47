//! Tests of the whole core on a simulated disk.

mod belonging;
mod crashes;
mod execution;
mod node_stream;
mod requests;
mod rig;
mod snapshots;
mod writing;
