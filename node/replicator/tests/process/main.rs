//! The real program, and a node that is played by the test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod bad_input;
mod clients;
mod feeding;
mod played_node;
mod program;
mod queries;
mod snapshots;
