//! What a user writes.

use std::io::{Read, Write};

use crate::{Batch, Failed, Position, QueryError};

/// Writes the copy of a state that [`StateMachine::snapshot`] made, on another thread. Writing waits where the reader is slow, and fails
/// once nobody reads any more. Where it fails, or panics, there is no snapshot, and it is tried again later.
pub type Snapshot = Box<dyn FnOnce(&mut dyn Write) -> Result<(), Failed> + Send>;

/// A state that is made of operations, the same on every replica. All methods are called on one thread, one after the other.
///
/// What [`apply`](Self::apply) does must depend on the state and the operations alone: on no clock, no random number, no order of a hash
/// map, and nothing outside. Where an operation needs the time, who submits it writes it into it.
pub trait StateMachine: Send + 'static {
    /// Where the state stands, as it would after a crash. Asked at the start and after everything that changes it, so it should not take
    /// long.
    fn position(&mut self) -> Result<Position, Failed>;

    /// Applies operations in order, and stores [`Batch::position`] with what they did, in one transaction. Answers each one's result, of at
    /// most 64 KiB (a longer one is not kept), or none at all.
    ///
    /// Where it fails, nothing of the batch is applied. One that cannot take back what it did panics, which ends the program: it is started
    /// again with what is stored.
    fn apply(&mut self, batch: &Batch) -> Result<Vec<Vec<u8>>, Failed>;

    /// Reads the state. The answer may have 64 KiB.
    fn query(&mut self, query: &[u8]) -> Result<Vec<u8>, QueryError>;

    /// Takes a copy of the state as it is, or something that reads like one, such as a read transaction; operations are applied again as
    /// soon as this returns. What it gives writes the copy out.
    fn snapshot(&mut self) -> Result<Snapshot, Failed>;

    /// Replaces the whole state by a snapshot's, and the position by its position, for good where the state is stored. The end of `snapshot`
    /// is reached only where it came whole: until then the state stays as it was, or is empty, and so does the position.
    fn restore(&mut self, position: Position, snapshot: &mut dyn Read) -> Result<(), Failed>;
}
