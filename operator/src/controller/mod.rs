//! Observe, plan, act.

pub mod plan;
mod quantity;
pub mod raft;
pub mod step;
pub mod view;
