//! What the tests in `tests/` stand on: they start the real programs on loopback with real data folders, kill, stop and
//! starve them, and check what clients were told against what every replicator holds.
//!
//! - [`binaries`] builds the programs once per test run; [`process`] runs one and captures what it says;
//!   [`reaper`] kills what is left when a test was killed itself;
//!   [`cluster`] runs nodes and replicators together.
//! - [`network`] gives every pod a machine of its own on a network that can be cut ([`links`]) and slowed down ([`relay`]).
//! - [`containers`] builds the images and runs them; [`volume`] mounts disks that can fill up.
//! - [`streams`] submits as fast as it can, for the measurements in `benches/`.
//! - [`machines`] are programs beside replicators that are handed every operation: [`key_value`] stores and [`ledger`]s, each with
//!   clients and a checker of its own.
//! - [`load`] submits with sessions and records every acknowledgement, [`readers`] read; [`history`], [`linearizability`] and
//!   [`story`] are the checkers: pure functions with their own tests, since a checker that cannot fail proves nothing.
//! - Nothing sleeps and hopes: [`wait`] polls a condition until a deadline, or sees to it that one holds for a while.

pub mod address;
pub mod api;
pub mod binaries;
pub mod cluster;
pub mod containers;
pub mod history;
pub mod http;
pub mod key_value;
pub mod ledger;
pub mod linearizability;
pub mod links;
pub mod load;
pub mod machines;
pub mod namespace;
pub mod network;
pub mod ports;
pub mod process;
pub mod readers;
mod real_time;
pub mod reaper;
pub mod relay;
pub mod requirements;
pub mod seed;
pub mod story;
pub mod streams;
pub mod volume;
pub mod wait;
