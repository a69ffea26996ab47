//! An entry's form on disk.

use std::hint::black_box;

use bytes::Bytes;
use raftlog_raft::entry::Entry;

use super::Path;
use super::entries::Entries;

fn operation() -> Entry {
    let mut entries = Entries::new();
    entries.next();
    entries.next()
}

/// Into a buffer that has room.
pub(super) struct Encoding {
    entry: Entry,
    buffer: Vec<u8>,
    prepared: usize,
}

impl Encoding {
    pub(super) fn new() -> Self {
        Self {
            entry: operation(),
            buffer: Vec::with_capacity(1 << 10),
            prepared: 0,
        }
    }
}

impl Path for Encoding {
    fn prepare(&mut self, times: usize) {
        self.prepared = times;
    }

    fn run(&mut self) {
        for _ in 0..self.prepared {
            self.buffer.clear();
            black_box(&self.entry).encode(&mut self.buffer);
            black_box(&self.buffer);
        }
    }
}

/// From a buffer that it shares.
pub(super) struct Decoding {
    bytes: Bytes,
    prepared: usize,
}

impl Decoding {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::new();
        operation().encode(&mut bytes);
        Self {
            bytes: bytes.into(),
            prepared: 0,
        }
    }
}

impl Path for Decoding {
    fn prepare(&mut self, times: usize) {
        self.prepared = times;
    }

    fn run(&mut self) {
        for _ in 0..self.prepared {
            let entry = Entry::decode(black_box(self.bytes.clone()));
            black_box(entry).expect("what was encoded decodes");
        }
    }
}
