//! Entries, hard states, the replicator's operations and the fold of a snapshot from arbitrary bytes: what is taken survives
//! being written.
//!
//! The whole input is one of each.

use bytes::Bytes;
use raftlog_raft::entry::{Entry, HardState};
use raftlog_raft::fold::Fold;
use raftlog_replicator::core::Operation;
use raftlog_storage::Record;

/// The log index that a fold is said to be of.
pub const FOLD_AT: u64 = 6;

/// The target.
pub fn entry(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(entry) = Entry::decode(bytes.clone()) {
        let mut written = Vec::new();
        entry.encode(&mut written);
        assert_eq!(Entry::decode(written.into()), Ok(entry));
    }
    if let Ok(state) = HardState::decode(bytes.clone()) {
        let mut written = Vec::new();
        state.encode(&mut written);
        assert_eq!(HardState::decode(written.into()), Ok(state));
    }
    if let Ok(fold) = Fold::decode(bytes.clone(), FOLD_AT) {
        let mut written = Vec::new();
        fold.encode(&mut written);
        let again = Fold::decode(written.clone().into(), FOLD_AT).expect("what was written can be read");
        let mut rewritten = Vec::new();
        again.encode(&mut rewritten);
        assert_eq!(rewritten, written);
    }
    if let Ok(operation) = <Operation as Record>::decode(bytes) {
        let mut written = Vec::new();
        Record::encode(&operation, &mut written);
        assert_eq!(<Operation as Record>::decode(written.into()), Ok(operation));
    }
}
