//! An operation as the replicator holds it, and its form on disk.

use bytes::{Buf, BufMut, Bytes};
use raftlog_raft::entry::OPERATION_BYTES_MAX;
use raftlog_raft::fold::running_hash;
use raftlog_raft::ids::{OperationIndex, Term};
use raftlog_storage::Record;

/// One operation of the log, committed or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// 1, 2, 3, ...
    pub index: OperationIndex,
    /// Term of the leader that appended it.
    pub term: Term,
    /// [`running_hash`] over all operations up to and with this one.
    pub running_hash: u64,
    /// What the client submitted: 1 byte to 1 MiB.
    pub data: Bytes,
}

/// Where a log stands, and all that it says up to there: two logs with equal places are equal up to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// 0 is the place before the first operation.
    pub index: OperationIndex,
    /// Term of the operation there.
    pub term: Term,
    /// [`running_hash`] there.
    pub running_hash: u64,
}

impl Operation {
    /// Where it stands.
    pub fn place(&self) -> Place {
        Place {
            index: self.index,
            term: self.term,
            running_hash: self.running_hash,
        }
    }

    /// Bytes that it holds in memory, about; what bounds of bytes count.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 64;
        FIXED + self.data.len()
    }

    /// What it must hash to behind `previous`.
    pub(super) fn expected_hash(&self, previous: Place) -> u64 {
        running_hash(previous.running_hash, self.index, self.term, &self.data)
    }
}

impl Record for Operation {
    fn index(&self) -> u64 {
        self.index
    }

    /// Little-endian `index u64, term u64, running_hash u64`, then the data.
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.index);
        out.put_u64_le(self.term);
        out.put_u64_le(self.running_hash);
        out.put_slice(&self.data);
    }

    fn decode(mut from: Bytes) -> Result<Self, String> {
        let mut next = || {
            from.try_get_u64_le()
                .map_err(|_| "an operation is cut short".to_owned())
        };
        let (index, term, running_hash) = (next()?, next()?, next()?);
        if from.is_empty() || from.len() > OPERATION_BYTES_MAX {
            return Err(format!("operation {index} has {} bytes", from.len()));
        }
        Ok(Self {
            index,
            term,
            running_hash,
            data: from,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_survives_the_disk() {
        let operation = Operation {
            index: 7,
            term: 3,
            running_hash: 99,
            data: Bytes::from_static(b"\0x\xff"),
        };
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        assert_eq!(Operation::decode(bytes.into()), Ok(operation));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        for length in 0..=24 {
            assert!(
                Operation::decode(Bytes::from(vec![1; length])).is_err(),
                "{length} bytes"
            );
        }
    }
}
