//! raft-node: one Raft server.
