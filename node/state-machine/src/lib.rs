//! A state machine of your own behind the Raft Log Replicator: implement [`StateMachine`], and [`serve`] it to a `raft-replicator`, which
//! hands it every committed operation, in order, exactly once.
//!
//! ```no_run
//! use std::io::{Read, Write as _};
//!
//! use state_machine::{Batch, Failed, Position, QueryError, Snapshot, StateMachine, serve};
//!
//! /// Adds up the numbers that are submitted.
//! #[derive(Default)]
//! struct Sum {
//!     position: Position,
//!     sum: u64,
//! }
//!
//! impl StateMachine for Sum {
//!     fn position(&mut self) -> Result<Position, Failed> {
//!         Ok(self.position)
//!     }
//!
//!     fn apply(&mut self, batch: &Batch) -> Result<Vec<Vec<u8>>, Failed> {
//!         let mut results = Vec::new();
//!         for operation in batch {
//!             let number = str::from_utf8(&operation.data).ok().and_then(|text| text.parse().ok());
//!             // What is no number is turned down, and that is no failure: every replica does the same.
//!             self.sum = self.sum.wrapping_add(number.unwrap_or(0));
//!             results.push(self.sum.to_string().into_bytes());
//!         }
//!         self.position = batch.position();
//!         Ok(results)
//!     }
//!
//!     fn query(&mut self, _: &[u8]) -> Result<Vec<u8>, QueryError> {
//!         Ok(self.sum.to_string().into_bytes())
//!     }
//!
//!     fn snapshot(&mut self) -> Result<Snapshot, Failed> {
//!         let copy = self.sum;
//!         Ok(Box::new(move |out| Ok(out.write_all(&copy.to_le_bytes())?)))
//!     }
//!
//!     fn restore(&mut self, position: Position, snapshot: &mut dyn Read) -> Result<(), Failed> {
//!         let mut sum = [0; 8];
//!         snapshot.read_exact(&mut sum)?;
//!         *self = Self { position, sum: u64::from_le_bytes(sum) };
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let listen = std::env::var("STATE_MACHINE_LISTEN")?.parse()?;
//!     Ok(serve(&listen, Sum::default())?)
//! }
//! ```
//!
//! This one keeps its state in memory: after a start it says that it has applied nothing, and the replicator rebuilds it, from its log or
//! from a snapshot. One that stores its state stores [`Batch::position`] in the same transaction, gives it in
//! [`StateMachine::position`], and goes on where it was: then each operation is applied exactly once, whatever is killed and when.
//!
//! # Why the methods are not async
//! A replicated state machine does one thing at a time, or replicas would differ. So it is given a thread of its own, on which all its
//! methods are called, one after the other: they may block, on a database for example, and need neither locks nor an async runtime.
//! Sockets are served by other threads meanwhile: while one batch is applied the next ones are received, and what has come by the time
//! it is done makes one batch, so that a sync of a disk is shared by many operations. Only the bytes of a snapshot are written elsewhere,
//! by the function that [`StateMachine::snapshot`] gives, since that takes long and more is applied meanwhile.
//!
//! Other languages, and what the protocol asks for: `README.md` beside this crate.

mod apply;
mod failure;
mod listen;
mod machine;
mod operation;
mod restore;
mod serve;
mod service;
mod snapshot;
mod worker;

pub use bytes::Bytes;
pub use failure::{Failed, QueryError};
pub use listen::Listen;
pub use machine::{Snapshot, StateMachine};
pub use operation::{Batch, Operation, Position};
pub use serve::{ServeError, serve, serve_until};
