//! The real programs, made to live through what happens to real programs: one file a topic.
//!
//! One test binary, so that all tests share one limit on how many clusters run at a time.

mod backups;
mod bad_data;
mod bad_flags;
mod bad_operations;
mod compose;
mod demo;
mod disk_full;
mod disk_stalled;
mod disk_use;
mod execution_on_leader;
mod failover;
mod folders;
mod foreign_messages;
mod forged;
mod garbage;
mod images;
mod ledger;
mod members;
mod minority;
mod original_story;
mod outage;
mod queries;
mod quorum;
mod raftctl;
mod real_input;
mod recover;
mod replicators;
mod restored_replicators;
mod services;
mod snapshots;
mod state_machines;
mod streams;
mod upgrades;
mod verify;
