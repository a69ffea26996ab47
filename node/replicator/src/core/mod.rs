//! The replicator as a pure state machine: events in, effects out. No I/O, no clock, no threads.
//!
//! A driver opens it on a [`Disk`](raftlog_storage::Disk), hands in what happens, and carries out what comes back:
//!
//! ```
//! # use raftlog_replicator::core::{Config, Effect, Event, Replicator};
//! # use raftlog_storage::Disk;
//! fn step(replicator: &mut Replicator, disk: &mut dyn Disk, event: Event) -> Vec<Effect> {
//!     let mut others = Vec::new();
//!     replicator.handle(event);
//!     loop {
//!         let effects = replicator.effects();
//!         if effects.is_empty() {
//!             return others;
//!         }
//!         for effect in effects {
//!             match effect {
//!                 Effect::Disk(id, op) => replicator.handle(Event::Disk(id, disk.execute(&op))),
//!                 other => others.push(other),
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! What it keeps: its log is dense and continues by the running hash; its commit index never goes back, and nothing at or
//! below it is ever replaced; operations are executed in order, only when committed; the executed index on disk never
//! outruns what the executor has really done, nor the operations on disk. Writing is lazy: neither execution nor progress
//! waits for it, since the node can send again what a crash took. Where the log begins later than at the first operation,
//! the place before its first one is on disk, and at or below a durable executed index: what lies before is in the node's
//! snapshots, or came as one.

mod ages;
mod attachment;
mod belonging;
mod compaction;
mod config;
mod copying;
mod durable;
mod effect;
mod event;
mod execution;
mod executor_state;
mod held;
mod incoming;
mod leadership;
mod node_stream;
mod open;
mod operation;
mod replicator;
mod requests;
mod restoring;
mod retention;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod writing;

pub use config::Config;
pub use effect::{
    Busy, Effect, FetchError, Notice, Position, Progress, ReadIndexError, Refusal, Snapshot, SnapshotState,
    Story,
};
pub use event::{Event, FetchId, Parent, ReadIndexId, StartAction, StreamId};
pub use execution::Run;
pub use executor_state::{ExecutorKind, STATE_HEADER_BYTES};
pub use leadership::ExecuteOn;
pub use operation::{Operation, Place};
pub use replicator::Replicator;
pub use retention::Retention;
pub use status::{Readiness, Status};
