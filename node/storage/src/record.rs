//! What a log is made of.

use bytes::Bytes;
use raftlog_raft::entry::Entry;

/// Anything with consecutive indexes and a form on disk.
pub trait Record: Clone {
    /// Its index: one more than that of the record before.
    fn index(&self) -> u64;
    /// Appends its form on disk, at most [`crate::RECORD_BYTES_MAX`] long.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads what [`Record::encode`] wrote; may share the buffer. An error is a phrase such as `unknown entry kind 9`.
    fn decode(from: Bytes) -> Result<Self, String>;
}

impl Record for Entry {
    fn index(&self) -> u64 {
        self.log_index
    }

    fn encode(&self, out: &mut Vec<u8>) {
        Entry::encode(self, out);
    }

    fn decode(from: Bytes) -> Result<Self, String> {
        Entry::decode(from).map_err(|error| error.to_string())
    }
}
