//! A client's `SubmitStream`: what it sends becomes operations with dense places and sequences, and whatever order these are
//! committed in, the client is told of each once, in the stream's order.
//!
//! The kind of a chunk: even, a `SubmitStreamRequest` (the first one begins the stream); odd, the operation with this number among
//! those that are not committed yet is committed, at the next index or, where there is a second byte, at an earlier one.

use raftlog_server::fuzzing::Stream;

use crate::{Chunk, chunks};

/// What a stream is told.
struct Rig {
    stream: Stream,
    /// Places of operations that are not committed yet.
    waiting: Vec<u64>,
    taken: u64,
    told: u64,
    next_index: u64,
}

/// The target.
pub fn stream(data: &[u8]) {
    let mut rig: Option<Rig> = None;
    for chunk in chunks(data) {
        match &mut rig {
            None => rig = Rig::begin(&chunk),
            Some(rig) => rig.take(&chunk),
        }
    }
    if let Some(mut rig) = rig {
        while !rig.waiting.is_empty() {
            rig.commit(0, None);
        }
        assert_eq!(rig.told, rig.taken, "all that was committed is told");
    }
}

impl Rig {
    fn begin(chunk: &Chunk) -> Option<Self> {
        let (stream, taken) = Stream::begin(chunk.bytes.clone())?;
        let mut rig = Self {
            stream,
            waiting: Vec::new(),
            taken: 0,
            told: 0,
            next_index: 1 << 32,
        };
        rig.took(taken.into_iter().map(|(position, _)| position));
        Some(rig)
    }

    fn take(&mut self, chunk: &Chunk) {
        if chunk.kind.is_multiple_of(2) {
            let taken = self.stream.request(chunk.bytes.clone()).unwrap_or_default();
            self.took(taken.into_iter().map(|(position, _)| position));
        } else {
            let number = chunk.bytes.first().copied().unwrap_or_default();
            let earlier = chunk.bytes.get(1).map(|&index| u64::from(index));
            self.commit(usize::from(number), earlier);
        }
    }

    fn took(&mut self, positions: impl Iterator<Item = u64>) {
        for position in positions {
            assert_eq!(position, self.taken, "places have no gaps");
            self.taken += 1;
            self.waiting.push(position);
        }
    }

    fn commit(&mut self, number: usize, earlier: Option<u64>) {
        if self.waiting.is_empty() {
            return;
        }
        let position = self.waiting.remove(number % self.waiting.len());
        let index = earlier.unwrap_or(self.next_index);
        self.next_index += 1;
        let runs = self.stream.committed(position, index);
        self.told += runs.iter().map(|(_, count)| count).sum::<u64>();
        let first_waiting = self.waiting.iter().min().copied().unwrap_or(self.taken);
        assert_eq!(self.told, first_waiting, "told is what has no gap before it");
    }
}
