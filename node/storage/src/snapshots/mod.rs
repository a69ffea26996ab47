//! Snapshots of a member: a pure core, like [`crate::Wal`], behind the same [`crate::Disk`].
//!
//! One snapshot at a time comes in, taken here or received from another member: [`Snapshots::begin`], [`Snapshots::receive`] in
//! order, [`Snapshots::finish`]. It is written aside, chunk by chunk, each synced; when it is whole its head is written and
//! synced, the file renamed, and the folder synced. Only then does it count ([`SnapshotEvent::Saved`]), and the one before the
//! one before is removed: at most [`SNAPSHOTS_MAX`] are kept.
//!
//! A snapshot whose length and CRC were announced at its beginning (one that is received) survives a restart but for
//! the last chunk that is shown: whether that was synced is not known. Any other that was not finished is removed by the next
//! start.
//!
//! A copy outside of a data folder is a file of the same format: [`Saving`] makes one, [`SnapshotFile`] reads it, and any other.
//!
//! # Format
//!
//! The file `snapshot-` and its index in 16 hex digits, or `snapshot-incoming` until it is whole; all numbers are little-endian.
//!
//! | part | bytes | |
//! | --- | --- | --- |
//! | head | 8 | `raftsnap` |
//! | | 4 | format version |
//! | | 8 + 8 | index and term of the last entry that it holds |
//! | | 4 + 4 | length of the metadata, and their CRC-32 |
//! | | 1 | 1: length and CRC are known |
//! | | 8 + 4 | length of the data, and their CRC-32 |
//! | | 4 | CRC-32 of the above; zeros follow to the end of the sector of 512 bytes |
//! | metadata | whole sectors | of the caller; zeros behind their end |
//! | each chunk | 8 | number: 0, 1, 2, ... |
//! | | 4 | length of its data: 262,120 but for the last |
//! | | 4 | CRC-32 of all data up to its end |
//! | | 4 | CRC-32 of index, term, and this chunk's number, length, CRC and data |
//! | | 4 | zero |
//! | | up to 262,120 | data |

mod file;
mod format;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod incoming;
mod opening;
mod saving;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::disk::{Disk, DiskError, DiskErrorKind, FileName, Op, Outcome};
use crate::error::{Fatal, OpenError};
use crate::wal::OpId;
pub use file::SnapshotFile;
pub use format::CHUNK_BYTES;
use format::Place;
use incoming::{Incoming, Step};
pub use saving::Saving;

/// Snapshots that are kept: the newest and, until it has proved itself, the one before.
pub const SNAPSHOTS_MAX: usize = 2;
/// The longest metadata, in bytes.
pub const METADATA_BYTES_MAX: usize = 64 << 10;
/// The most data that a snapshot may have.
pub const DATA_BYTES_MAX: u64 = 1 << 50;
/// Data that were received and are not on disk yet; beyond it [`Refused::Busy`]. A longer piece is taken if nothing else waits.
pub const PENDING_BYTES_MAX: usize = 4 << 20;
/// Reads that are not answered yet; beyond it [`Refused::Busy`].
pub const READS_MAX: usize = 64;

/// The file of a snapshot that is not whole yet.
pub(crate) const INCOMING: FileName = FileName::named("snapshot-incoming");
/// Operations of a store bear this, so that they differ from those of a log on the same disk.
const OP_BIT: u64 = 1 << 63;

/// Length and CRC-32 of a snapshot's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Whole {
    /// Its length in bytes.
    pub bytes: u64,
    /// CRC-32 of all of it.
    pub crc: u32,
}

/// What is known of a snapshot without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Index of the last entry that it holds.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// The caller's own, at most [`METADATA_BYTES_MAX`].
    pub metadata: Bytes,
    /// Its data.
    pub whole: Whole,
}

/// A request that does not fit the state of things. Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A snapshot at that index or later is here.
    #[error("a snapshot at index {newest} is here already")]
    Old {
        /// The newest.
        newest: u64,
    },
    /// Metadata or data are longer than they may be.
    #[error("the snapshot is longer than it may be")]
    Long,
    /// Nothing was begun.
    #[error("no snapshot was begun")]
    NotBegun,
    /// Data come in order, without gaps, and as many as were announced.
    #[error("data at offset {expected} come next")]
    OutOfOrder {
        /// Where to go on.
        expected: u64,
    },
    /// The data are not those that were announced. What was received is removed.
    #[error("the data do not match the length and CRC that were announced")]
    Mismatch,
    /// Too much waits for the disk.
    #[error("too much waits for the disk")]
    Busy,
    /// There is no such snapshot, or no such part of it.
    #[error("there is no such snapshot, or it is shorter")]
    Missing,
}

/// A file that is no snapshot any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its index.
    pub index: u64,
    /// The file, with its folder.
    pub file: String,
    /// Where, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub problem: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            file,
            offset,
            problem,
            ..
        } = self;
        write!(
            f,
            "{file} is corrupt at offset {offset}: {problem}: check the disk"
        )
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotEvent {
    /// Of the snapshot that comes in, so many bytes of data survive a power failure.
    Synced(u64),
    /// The snapshot at that index is whole and survives a power failure.
    Saved(u64),
    /// Answers [`Snapshots::read`]: data from the offset asked for, to the end of the chunk that it is in.
    Read {
        /// The caller's number.
        id: u64,
        /// None only at the end of the data.
        data: Bytes,
    },
    /// The snapshot of that read was removed, as newer ones came.
    Gone {
        /// The caller's number.
        id: u64,
    },
    /// The snapshot of that read is damaged, and counts no more.
    Damaged {
        /// The caller's number.
        id: u64,
        /// Where and how.
        damage: Damage,
    },
    /// The disk is full: what comes in waits, until [`Snapshots::retry`] brings `Full(false)`.
    Full(bool),
}

/// A read that is not answered yet.
#[derive(Debug)]
struct Reading {
    id: u64,
    index: u64,
    offset: u64,
}

/// What an operation in flight was for.
#[derive(Debug)]
enum Purpose {
    /// A step of that number of incoming snapshot.
    Incoming(u64, Step),
    Remove,
    Read(Reading),
}

/// The snapshots of a member. See the documentation of the module.
#[derive(Debug)]
pub struct Snapshots {
    folder: String,
    kept: BTreeMap<u64, Manifest>,
    damaged: BTreeSet<u64>,
    incoming: Option<Incoming>,
    /// Snapshots that were begun since the start, to tell what comes of an older one's operation.
    begun: u64,
    removals: VecDeque<FileName>,
    reads: VecDeque<Reading>,
    in_flight: BTreeMap<OpId, Purpose>,
    /// An operation that changes something is in flight: one at a time.
    changing: bool,
    full: bool,
    trying: bool,
    last_op: u64,
}

impl Snapshots {
    /// Finds what is there, removes what is left over, and makes the newest durable once more. Snapshots whose head, metadata
    /// or last chunk are damaged are told, and left where they are unless a newer one is whole: whether one can do
    /// without is for the caller to say. Other damage is found when it is read.
    pub fn open(disk: &mut dyn Disk) -> Result<(Self, Vec<Damage>), OpenError> {
        let opened = opening::open(disk)?;
        let snapshots = Self {
            folder: disk.folder(),
            kept: opened.kept,
            damaged: opened.damages.iter().map(|damage| damage.index).collect(),
            incoming: opened.incoming,
            begun: 0,
            removals: VecDeque::new(),
            reads: VecDeque::new(),
            in_flight: BTreeMap::new(),
            changing: false,
            full: false,
            trying: false,
            last_op: 0,
        };
        Ok((snapshots, opened.damages))
    }

    /// Whether an operation is of snapshots, and not of a log on the same disk.
    pub fn is_own(id: OpId) -> bool {
        id.0 & OP_BIT != 0
    }

    /// The file of the snapshot at that index, with its folder.
    pub fn file(&self, index: u64) -> String {
        format!("{}/{}", self.folder, FileName::snapshot(index))
    }

    /// The newest that is whole.
    pub fn newest(&self) -> Option<&Manifest> {
        self.kept.values().next_back()
    }

    /// All that are whole, the oldest first.
    pub fn manifests(&self) -> impl DoubleEndedIterator<Item = &Manifest> {
        self.kept.values()
    }

    /// Index of the snapshot that comes in, and how much data of it was received.
    pub fn incoming(&self) -> Option<(u64, u64)> {
        let incoming = self.incoming.as_ref()?;
        Some((incoming.manifest().index, incoming.received()))
    }

    /// A snapshot comes in, in the place of any that was not finished, and goes on at the offset returned: beyond 0 only where
    /// the very same one was begun before. `manifest.whole` counts where it is `announced`.
    pub fn begin(&mut self, manifest: Manifest, announced: bool) -> Result<u64, Refused> {
        if let Some(newest) = self.newest().filter(|newest| newest.index >= manifest.index) {
            return Err(Refused::Old { newest: newest.index });
        }
        if manifest.metadata.len() > METADATA_BYTES_MAX || manifest.whole.bytes > DATA_BYTES_MAX {
            return Err(Refused::Long);
        }
        let same = self.incoming.as_ref();
        if let Some(same) = same.filter(|incoming| incoming.is(&manifest, announced)) {
            return Ok(same.received());
        }
        self.begun += 1;
        self.incoming = Some(Incoming::new(manifest, announced));
        Ok(0)
    }

    /// More data of the snapshot that comes in.
    pub fn receive(&mut self, offset: u64, data: &[u8]) -> Result<(), Refused> {
        self.incoming
            .as_mut()
            .ok_or(Refused::NotBegun)?
            .receive(offset, data)
    }

    /// All data were received. [`SnapshotEvent::Saved`] follows.
    pub fn finish(&mut self) -> Result<(), Refused> {
        let finished = self.incoming.as_mut().ok_or(Refused::NotBegun)?.finish();
        if finished == Err(Refused::Mismatch) {
            self.abandon();
        }
        finished
    }

    /// The snapshot that comes in is not wanted any more, unless it is there already.
    pub fn abandon(&mut self) {
        if self.incoming.take().is_some() {
            self.begun += 1;
            self.removals.push_back(INCOMING);
        }
    }

    /// Asks for data of a snapshot, from that offset to the end of the chunk that it is in. An event with that number follows.
    pub fn read(&mut self, id: u64, index: u64, offset: u64) -> Result<(), Refused> {
        let manifest = self.kept.get(&index).ok_or(Refused::Missing)?;
        if offset > manifest.whole.bytes {
            return Err(Refused::Missing);
        }
        let in_flight = self
            .in_flight
            .values()
            .filter(|purpose| matches!(purpose, Purpose::Read(_)));
        if self.reads.len() + in_flight.count() >= READS_MAX {
            return Err(Refused::Busy);
        }
        self.reads.push_back(Reading { id, index, offset });
        Ok(())
    }

    /// The same at once, while opening: nothing may be in flight.
    pub fn read_now(&self, disk: &mut dyn Disk, index: u64, offset: u64) -> Result<Bytes, OpenError> {
        let Some(manifest) = self
            .kept
            .get(&index)
            .filter(|manifest| offset <= manifest.whole.bytes)
        else {
            return Ok(Bytes::new());
        };
        let data = match disk.execute(&read_op(manifest, offset))? {
            Outcome::Data(data) => data,
            other => unreachable!("data were asked for, not {other:?}"),
        };
        self.data_of(manifest, offset, &data)
            .map_err(|damage| OpenError::Corrupt {
                file: damage.file,
                offset: damage.offset,
                problem: damage.problem,
            })
    }

    /// Has the disk do at once what there is to do, where nobody waits for it: nothing may be in flight. A full disk is an error.
    pub fn write_now(&mut self, disk: &mut dyn Disk) -> Result<(), OpenError> {
        while let Some((id, op)) = self.next_op() {
            let outcome = disk.execute(&op)?;
            self.complete(id, Ok(outcome))
                .map_err(|fatal| OpenError::Identity(fatal.0))?;
        }
        Ok(())
    }

    /// What to hand to the disk now, as of [`crate::Wal::next_op`]. Numbers of operations differ from those of any log.
    pub fn next_op(&mut self) -> Option<(OpId, Op)> {
        self.next_change().or_else(|| self.next_read())
    }

    fn hand_out(&mut self, purpose: Purpose, op: Op) -> (OpId, Op) {
        self.last_op += 1;
        let id = OpId(self.last_op | OP_BIT);
        self.in_flight.insert(id, purpose);
        (id, op)
    }

    fn next_change(&mut self) -> Option<(OpId, Op)> {
        if self.changing {
            return None;
        }
        if let Some(file) = self.removals.pop_front() {
            self.changing = true;
            return Some(self.hand_out(Purpose::Remove, Op::Remove { file }));
        }
        if self.full && !self.trying {
            return None;
        }
        let (step, op) = self.incoming.as_mut()?.next_step()?;
        self.changing = true;
        Some(self.hand_out(Purpose::Incoming(self.begun, step), op))
    }

    fn next_read(&mut self) -> Option<(OpId, Op)> {
        let reading = self.reads.pop_front()?;
        let op = match self.kept.get(&reading.index) {
            Some(manifest) => read_op(manifest, reading.offset),
            // The answer needs an operation to come with.
            None => Op::List,
        };
        Some(self.hand_out(Purpose::Read(reading), op))
    }

    /// What came of an operation. An error is final, as that of a log.
    pub fn complete(
        &mut self,
        id: OpId,
        result: Result<Outcome, DiskError>,
    ) -> Result<Vec<SnapshotEvent>, Fatal> {
        let purpose = self
            .in_flight
            .remove(&id)
            .unwrap_or_else(|| panic!("{id:?} is not in flight"));
        self.changing &= matches!(purpose, Purpose::Read(_));
        match (purpose, result) {
            (Purpose::Remove, Ok(_)) => Ok(self.has_room(self.full)),
            (Purpose::Incoming(begun, step), Ok(_)) => Ok(self.stepped(begun, step)),
            (Purpose::Incoming(..), Err(error)) if error.kind == DiskErrorKind::Full => {
                // The step is the next one again.
                Ok(self.is_full())
            }
            (Purpose::Read(reading), Ok(outcome)) => Ok(vec![self.has_read(&reading, outcome)]),
            (Purpose::Read(reading), Err(_)) if !self.kept.contains_key(&reading.index) => {
                Ok(vec![SnapshotEvent::Gone { id: reading.id }])
            }
            (_, Err(error)) => Err(Fatal(format!(
                "{error}: what is on disk is unknown until the next start; check the disk and start again"
            ))),
        }
    }

    fn stepped(&mut self, begun: u64, step: Step) -> Vec<SnapshotEvent> {
        let mut events = self.has_room(self.trying);
        if let Step::Rename(manifest) = step {
            // Even if it was abandoned meanwhile: it is there.
            events.push(SnapshotEvent::Saved(manifest.index));
            self.save(*manifest);
            if begun == self.begun {
                self.incoming = None;
            }
        } else if let Some(incoming) = self.incoming.as_mut().filter(|_| begun == self.begun) {
            events.extend(incoming.stepped(step).map(SnapshotEvent::Synced));
        }
        events
    }

    fn save(&mut self, manifest: Manifest) {
        let index = manifest.index;
        self.damaged.remove(&index);
        self.kept.insert(index, manifest);
        let damaged = self.damaged.split_off(&index);
        let old = std::mem::replace(&mut self.damaged, damaged);
        self.removals.extend(old.into_iter().map(FileName::snapshot));
        while self.kept.len() > SNAPSHOTS_MAX {
            let oldest = self.kept.pop_first();
            self.removals
                .extend(oldest.map(|(index, _)| FileName::snapshot(index)));
        }
    }

    fn has_room(&mut self, news: bool) -> Vec<SnapshotEvent> {
        if !news {
            return Vec::new();
        }
        self.trying = false;
        self.full = false;
        vec![SnapshotEvent::Full(false)]
    }

    fn is_full(&mut self) -> Vec<SnapshotEvent> {
        self.trying = false;
        if std::mem::replace(&mut self.full, true) {
            return Vec::new();
        }
        vec![SnapshotEvent::Full(true)]
    }

    /// Whether what comes in waits for room.
    pub fn is_full_disk(&self) -> bool {
        self.full
    }

    /// After [`SnapshotEvent::Full`]: ask the disk for room again.
    pub fn retry(&mut self) {
        self.trying = self.full;
    }

    fn has_read(&mut self, reading: &Reading, outcome: Outcome) -> SnapshotEvent {
        let id = reading.id;
        let (Some(manifest), Outcome::Data(data)) = (self.kept.get(&reading.index), outcome) else {
            return SnapshotEvent::Gone { id };
        };
        match self.data_of(manifest, reading.offset, &data) {
            Ok(data) => SnapshotEvent::Read { id, data },
            Err(damage) => {
                self.kept.remove(&damage.index);
                self.damaged.insert(damage.index);
                SnapshotEvent::Damaged { id, damage }
            }
        }
    }

    /// The data from that offset on that a chunk, as it was read, has.
    fn data_of(&self, manifest: &Manifest, offset: u64, chunk: &Bytes) -> Result<Bytes, Damage> {
        data_of(manifest, offset, chunk).map_err(|(at, problem)| Damage {
            index: manifest.index,
            file: self.file(manifest.index),
            offset: at,
            problem,
        })
    }
}

/// The same; the error says where in the file, and what is wrong there.
fn data_of(manifest: &Manifest, offset: u64, chunk: &Bytes) -> Result<Bytes, (u64, String)> {
    let (number, skip) = split(offset);
    let length = format::chunk_length(manifest.whole.bytes, number);
    if length == 0 {
        return Ok(Bytes::new());
    }
    match format::decode_frame(place(manifest, number), length, chunk) {
        Some((data, _)) => Ok(data.slice(skip.min(data.len())..)),
        None => Err((
            format::frame_offset(manifest.metadata.len(), number),
            format!("chunk {number} of the snapshot does not match its CRC"),
        )),
    }
}

/// The number of the chunk that an offset is in, and how far within.
fn split(offset: u64) -> (u64, usize) {
    let chunk = format::CHUNK_BYTES as u64;
    let within = usize::try_from(offset % chunk).expect("a chunk fits in memory");
    (offset / chunk, within)
}

fn place(manifest: &Manifest, number: u64) -> Place {
    Place {
        index: manifest.index,
        term: manifest.term,
        number,
    }
}

/// Reads the chunk that the offset is in.
fn read_op(manifest: &Manifest, offset: u64) -> Op {
    let (number, _) = split(offset);
    Op::Read {
        file: FileName::snapshot(manifest.index),
        offset: format::frame_offset(manifest.metadata.len(), number),
        length: format::frame_bytes(format::chunk_length(manifest.whole.bytes, number)),
    }
}
