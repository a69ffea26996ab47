//! The key-value store of `node/state-machine/examples`: clients that write and ask, and whether it was one register a key.

mod check;
mod clients;

pub use check::{Asked, Violation, Written, check, values};
pub use clients::{Askers, Writes, key};
