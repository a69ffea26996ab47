//! The real program, and a node that is played by the test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod bad_input;
mod clients;
mod exec_executor;
mod feeding;
mod history;
mod http_executor;
mod on_leader;
mod played_endpoint;
mod played_machine;
mod played_node;
mod program;
mod queries;
mod runs;
mod snapshots;
mod state_machines;
