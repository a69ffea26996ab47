//! The fold: what a prefix of the log adds up to.

use xxhash_rust::xxh3::Xxh3;

use crate::ids::{OperationIndex, Term};

/// The running hash after one more operation: XXH3-64 over `index u64, term u64` (little-endian) and the data, seeded by
/// the hash before it; 0 before the first.
pub fn running_hash(previous: u64, index: OperationIndex, term: Term, data: &[u8]) -> u64 {
    let mut hash = Xxh3::with_seed(previous);
    hash.update(&index.to_le_bytes());
    hash.update(&term.to_le_bytes());
    hash.update(data);
    hash.digest()
}
