//! A snapshot that comes in: what was received and goes to disk in whole chunks.

use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;

use super::format::{self, CHUNK_BYTES};
use super::{DATA_BYTES_MAX, INCOMING, Manifest, PENDING_BYTES_MAX, Refused, Whole, place};
use crate::disk::{FileName, Op};

/// What is written next, or is being written.
#[derive(Debug)]
pub(super) enum Step {
    /// The file, with head and metadata.
    Create,
    /// A chunk with these data.
    Chunk(Bytes),
    /// Its name: it is whole.
    Rename(Box<Manifest>),
}

/// The snapshot.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Its `whole` is what was announced, or nothing.
    manifest: Manifest,
    announced: bool,
    created: bool,
    finished: bool,
    /// Received, and not handed to the disk.
    buffer: BytesMut,
    /// Being written, or held because the disk was full.
    chunk: Option<Bytes>,
    /// CRC and length of all that was received.
    received: Hasher,
    received_bytes: u64,
    /// CRC and length of what is on disk.
    synced: Hasher,
    synced_bytes: u64,
}

impl Incoming {
    /// One of which nothing was received.
    pub(super) fn new(manifest: Manifest, announced: bool) -> Self {
        let whole = if announced {
            manifest.whole
        } else {
            Whole::default()
        };
        Self {
            manifest: Manifest { whole, ..manifest },
            announced,
            created: false,
            finished: false,
            buffer: BytesMut::new(),
            chunk: None,
            received: Hasher::new(),
            received_bytes: 0,
            synced: Hasher::new(),
            synced_bytes: 0,
        }
    }

    /// One that was announced, and of which so much is on disk.
    pub(super) fn resumed(manifest: Manifest, bytes: u64, crc: u32) -> Self {
        let hasher = Hasher::new_with_initial_len(crc, bytes);
        Self {
            created: true,
            received: hasher.clone(),
            received_bytes: bytes,
            synced: hasher,
            synced_bytes: bytes,
            ..Self::new(manifest, true)
        }
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes of data received.
    pub(super) fn received(&self) -> u64 {
        self.received_bytes
    }

    /// Whether it can go on as that snapshot: only what is announced can be known to be the same.
    pub(super) fn is(&self, manifest: &Manifest, announced: bool) -> bool {
        announced && self.announced && self.manifest == *manifest
    }

    pub(super) fn receive(&mut self, offset: u64, data: &[u8]) -> Result<(), Refused> {
        let expected = self.received_bytes;
        if offset != expected || self.finished {
            return Err(Refused::OutOfOrder { expected });
        }
        let most = if self.announced {
            self.manifest.whole.bytes
        } else {
            DATA_BYTES_MAX
        };
        let bytes = expected.saturating_add(data.len() as u64);
        if bytes > most {
            return Err(Refused::Long);
        }
        let pending = self.buffer.len() + self.chunk.as_ref().map_or(0, Bytes::len);
        if pending > 0 && pending + data.len() > PENDING_BYTES_MAX {
            return Err(Refused::Busy);
        }
        self.received.update(data);
        self.received_bytes = bytes;
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), Refused> {
        let whole = Whole {
            bytes: self.received_bytes,
            crc: self.received.clone().finalize(),
        };
        if self.announced && whole.bytes < self.manifest.whole.bytes {
            return Err(Refused::OutOfOrder {
                expected: whole.bytes,
            });
        }
        if self.announced && whole != self.manifest.whole {
            return Err(Refused::Mismatch);
        }
        self.manifest.whole = whole;
        self.finished = true;
        Ok(())
    }

    /// What to write now. Nothing may be in flight.
    pub(super) fn next_step(&mut self) -> Option<(Step, Op)> {
        let announced = self.announced.then_some(self.manifest.whole);
        if !self.created {
            let head = format::encode_start(&self.manifest, announced);
            let length = head.len() as u64;
            let file = INCOMING;
            return Some((Step::Create, Op::Create { file, head, length }));
        }
        if let Some(chunk) = self.next_chunk() {
            let op = self.write(&chunk);
            return Some((Step::Chunk(chunk), op));
        }
        if !self.finished {
            return None;
        }
        let op = Op::Rename {
            file: INCOMING,
            head: format::encode_head(&self.manifest, Some(self.manifest.whole)),
            to: FileName::snapshot(self.manifest.index),
        };
        Some((Step::Rename(Box::new(self.manifest.clone())), op))
    }

    fn next_chunk(&mut self) -> Option<Bytes> {
        if self.chunk.is_none() {
            let last = self.finished || self.announced && self.received_bytes == self.manifest.whole.bytes;
            let due = self.buffer.len() >= CHUNK_BYTES || (last && !self.buffer.is_empty());
            self.chunk = due.then(|| self.buffer.split_to(self.buffer.len().min(CHUNK_BYTES)).freeze());
        }
        self.chunk.clone()
    }

    fn write(&self, chunk: &Bytes) -> Op {
        let number = self.synced_bytes / CHUNK_BYTES as u64;
        let mut running = self.synced.clone();
        running.update(chunk);
        let frame = format::encode_frame(place(&self.manifest, number), running.finalize(), chunk);
        Op::Write {
            file: INCOMING,
            offset: format::frame_offset(self.manifest.metadata.len(), number),
            data: vec![frame],
        }
    }

    /// That step is on disk. Returns how much data are, where that has changed.
    pub(super) fn stepped(&mut self, step: Step) -> Option<u64> {
        match step {
            Step::Create => {
                self.created = true;
                None
            }
            Step::Chunk(chunk) => {
                self.chunk = None;
                self.synced.update(&chunk);
                self.synced_bytes += chunk.len() as u64;
                Some(self.synced_bytes)
            }
            Step::Rename(_) => unreachable!("a snapshot that has its name does not come in any more"),
        }
    }
}
