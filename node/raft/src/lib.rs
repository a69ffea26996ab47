//! Consensus as a pure, deterministic state machine: no I/O, no clock, no threads.

pub mod entry;
pub mod fold;
pub mod ids;
pub mod membership;
pub mod message;
pub mod time;
