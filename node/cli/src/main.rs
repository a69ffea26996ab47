//! raftctl.
fn main() {}
