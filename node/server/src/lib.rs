//! `raft-node`: one Raft server. The pure node is in [`node`]; everything else runs it.

pub mod node;
