//! Records of any length for tests.

use std::fmt;

use bytes::Bytes;
use raftlog_storage::Record;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) index: u64,
    pub(crate) data: Bytes,
}

impl fmt::Debug for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "record {} of {} bytes beginning {:?}",
            self.index,
            self.data.len(),
            self.data.slice(..self.data.len().min(4))
        )
    }
}

impl Record for Numbered {
    fn index(&self) -> u64 {
        self.index
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.data);
    }

    fn decode(mut from: Bytes) -> Result<Self, String> {
        if from.len() < 8 {
            return Err("cut short".to_owned());
        }
        let index = u64::from_le_bytes(from.split_to(8).as_ref().try_into().map_err(|_| "cut short")?);
        Ok(Self { index, data: from })
    }
}
