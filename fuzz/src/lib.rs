//! What the fuzz targets do: each is a function of bytes that must neither panic, nor hang, nor take memory without bound.
//! `fuzz/run` builds and runs them; what a target does with its input is said in its file.
//!
//! Most inputs are a list of [`chunks`], so that a fuzzer can repeat, drop and reorder what happens.

pub mod entry;
pub mod identity;
pub mod node;
pub mod replicator;
pub mod seeds;
pub mod snapshots;
pub mod stream;
pub mod wal;

use bytes::Bytes;

/// One thing that happens: a number that says what, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What it is, as the target takes it.
    pub kind: u8,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Chunk {
    /// A chunk.
    pub fn new(kind: u8, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { kind, bytes }
    }
}

/// The chunks of an input: kind, length as two bytes little-endian, bytes; the last one may be cut short.
pub fn chunks(data: &[u8]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut rest = data;
    while let [kind, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (bytes, behind) = after.split_at(length);
        chunks.push(Chunk::new(*kind, Bytes::copy_from_slice(bytes)));
        rest = behind;
    }
    chunks
}

/// The input that has these chunks. Longer ones than a length can say are cut.
pub fn input(chunks: &[Chunk]) -> Vec<u8> {
    let mut data = Vec::new();
    for chunk in chunks {
        let length = u16::try_from(chunk.bytes.len()).unwrap_or(u16::MAX);
        data.push(chunk.kind);
        data.extend_from_slice(&length.to_le_bytes());
        data.extend(chunk.bytes.iter().take(usize::from(length)));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_its_chunks() {
        let list = [(7, "one"), (0, ""), (255, "three")].map(|(kind, text)| Chunk::new(kind, text));
        let data = input(&list);
        assert_eq!(chunks(&data), list);
        for length in 0..data.len() {
            assert!(chunks(&data[..length]).len() <= list.len());
        }
    }
}
