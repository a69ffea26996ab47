//! Records that are no longer in memory, read back from the files.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::disk::{FileName, Op};
use crate::format::{self, BatchHead, Item, ReadBatch, ReadHead, SECTOR, SECTOR_BYTES};
use crate::places::{Places, Position};
use crate::record::Record;
use crate::room::Room;

/// Read from a file at a time, in bytes, unless a batch is longer.
const READ_BYTES: usize = 256 << 10;
/// Reads with an operation in flight; more wait.
const READS_IN_FLIGHT_MAX: usize = 4;

/// What reading looks things up in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) places: &'a Places,
    pub(crate) room: &'a Room,
}

/// How far a read has come.
#[derive(Debug)]
pub(crate) enum Progress<R> {
    /// It needs another operation.
    More,
    /// Its records.
    Done(Vec<R>),
}

/// What was read is not what was written.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) file: FileName,
    pub(crate) offset: u64,
    pub(crate) problem: String,
}

#[derive(Debug)]
struct Reading<R> {
    /// Index of the record to be found next.
    next: u64,
    last: u64,
    max_bytes: usize,
    bytes: usize,
    records: Vec<R>,
    /// The batch to be read next.
    at: Option<Position>,
    /// CRC of the batch before that, where it was read.
    previous_crc: Option<u32>,
    /// Bytes that the batch to be read next is known to take.
    needed: usize,
    /// Bytes asked for by the operation in flight.
    asked: Option<usize>,
    /// The file of the operation in flight is no more: what comes of it says nothing.
    void: bool,
}

impl<R> Reading<R> {
    fn is_done(&self, first_live: Option<u64>) -> bool {
        let full = !self.records.is_empty() && self.bytes >= self.max_bytes;
        full || self.next > self.last || first_live.is_some_and(|live| live <= self.next)
    }
}

/// All reads, by the caller's number.
#[derive(Debug)]
pub(crate) struct Reads<R> {
    readings: BTreeMap<u64, Reading<R>>,
}

impl<R> Default for Reads<R> {
    fn default() -> Self {
        Self {
            readings: BTreeMap::new(),
        }
    }
}

impl<R: Record> Reads<R> {
    /// The records are there, and the first is on disk.
    pub(crate) fn start(&mut self, id: u64, first: u64, last: u64, max_bytes: usize) {
        let reading = Reading {
            next: first,
            last,
            max_bytes,
            bytes: 0,
            records: Vec::new(),
            at: None,
            previous_crc: None,
            needed: SECTOR,
            asked: None,
            void: false,
        };
        let before = self.readings.insert(id, reading);
        assert!(before.is_none(), "read {id} is under way already");
    }

    /// Records from `from` on are no more, nor is it wanted what comes in their place.
    pub(crate) fn truncate(&mut self, from: u64) {
        for reading in self.readings.values_mut() {
            if reading.last >= from {
                reading.last = from - 1;
                reading.records.retain(|record| record.index() < from);
            }
        }
    }

    /// Records up to `through` are no more: reads that still want one end with what they have.
    pub(crate) fn compact(&mut self, through: u64) {
        for reading in self
            .readings
            .values_mut()
            .filter(|reading| reading.next <= through)
        {
            reading.last = reading.next - 1;
        }
    }

    /// All before that segment are no more: what is to be read next is looked up again.
    pub(crate) fn drop_before(&mut self, segment: u64) {
        for reading in self.readings.values_mut() {
            if reading.at.is_some_and(|at| at.segment < segment) {
                reading.at = None;
                reading.previous_crc = None;
                reading.needed = SECTOR;
                reading.void = reading.asked.is_some();
            }
        }
    }

    /// Whether what comes of that read's operation in flight says nothing.
    pub(crate) fn is_void(&self, id: u64) -> bool {
        self.readings.get(&id).is_some_and(|reading| reading.void)
    }

    pub(crate) fn next_op(&mut self, view: &View<'_>) -> Option<(u64, Op)> {
        let in_flight = self
            .readings
            .values()
            .filter(|reading| reading.asked.is_some())
            .count();
        if in_flight >= READS_IN_FLIGHT_MAX {
            return None;
        }
        let (id, reading) = self
            .readings
            .iter_mut()
            .find(|(_, reading)| reading.asked.is_none())?;
        // All may be gone by now: then any place does, as the answer needs an operation to come with.
        let at = reading.at.or_else(|| view.places.find(reading.next));
        let at = at.unwrap_or(Position {
            segment: view.room.current(),
            offset: 0,
            sequence: 0,
        });
        reading.at = Some(at);
        let used = view.room.segment(at.segment).used;
        let left = usize::try_from(used.saturating_sub(at.offset)).unwrap_or(usize::MAX);
        let length = READ_BYTES.max(reading.needed).min(left);
        reading.asked = Some(length);
        Some((
            *id,
            Op::Read {
                file: FileName::segment(at.segment),
                offset: at.offset,
                length,
            },
        ))
    }

    /// Takes what was read. Records from `first_live` on were not on disk when it was asked for.
    pub(crate) fn complete(
        &mut self,
        id: u64,
        data: &Bytes,
        owner: u64,
        view: &View<'_>,
        first_live: Option<u64>,
    ) -> Result<Progress<R>, Damage> {
        let reading = self.readings.get_mut(&id).expect("a read in flight is known");
        let asked = reading.asked.take().expect("an operation was in flight");
        if std::mem::take(&mut reading.void) && !reading.is_done(first_live) {
            return Ok(Progress::More);
        }
        let mut data = data.as_ref();
        let mut begins = true;
        while !reading.is_done(first_live) {
            let at = reading.at.expect("a read in flight has a place");
            let place = format::Place {
                owner,
                segment: at.segment,
            };
            let damage = |problem: String| Damage {
                file: FileName::segment(at.segment),
                offset: at.offset,
                problem,
            };
            if data.is_empty() && asked > 0 {
                return Ok(Progress::More);
            }
            let head = read_head(place, at, reading.previous_crc, data).map_err(damage)?;
            let bytes = head.framed_bytes();
            if data.len() < bytes && (asked < bytes || !begins) {
                reading.needed = bytes;
                return Ok(Progress::More);
            }
            let payload = match format::read_batch(place, &head, data) {
                ReadBatch::Good(payload) => payload,
                ReadBatch::Unstamped => return Err(damage("a sector of a batch is missing".to_owned())),
                ReadBatch::Bad => return Err(damage("a batch does not match its CRC".to_owned())),
            };
            // What is to replace truncated records may not be in a batch, and so not in the index, yet.
            let bound = view
                .places
                .bound(reading.next)
                .min(first_live.unwrap_or(u64::MAX));
            take_records(reading, payload, bound).map_err(damage)?;
            data = data.get(bytes..).unwrap_or_default();
            begins = false;
            reading.needed = SECTOR;
            if reading.advance(at, &head, bound, view) {
                data = &[];
            }
        }
        let reading = self.readings.remove(&id).expect("it was there above");
        Ok(Progress::Done(reading.records))
    }
}

impl<R> Reading<R> {
    /// Goes on to the batch after the one at `at`, or where the next place says. Whether that lies elsewhere in the files.
    fn advance(&mut self, at: Position, head: &BatchHead, bound: u64, view: &View<'_>) -> bool {
        // The place may be in this very batch, behind a truncation, or beyond batches that hold only what was truncated.
        if let Some(place) = view.places.find(self.next).filter(|_| self.next == bound) {
            self.at = Some(place);
            self.previous_crc = None;
            return true;
        }
        let offset = at.offset + head.framed_bytes() as u64;
        let sequence = at.sequence + 1;
        let elsewhere = offset >= view.room.segment(at.segment).used;
        self.previous_crc = Some(head.link.crc);
        self.at = Some(if elsewhere {
            Position {
                segment: at.segment + 1,
                offset: SECTOR_BYTES,
                sequence,
            }
        } else {
            Position {
                segment: at.segment,
                offset,
                sequence,
            }
        });
        elsewhere
    }
}

fn read_head(
    place: format::Place,
    at: Position,
    previous_crc: Option<u32>,
    data: &[u8],
) -> Result<BatchHead, String> {
    match format::read_head(place, data) {
        ReadHead::Good(head)
            if head.link.sequence == at.sequence
                && previous_crc.is_none_or(|crc| crc == head.previous_crc) =>
        {
            Ok(head)
        }
        ReadHead::Good(head) => Err(format!(
            "batch {} is here in the place of batch {}",
            head.link.sequence, at.sequence
        )),
        ReadHead::Bad { .. } | ReadHead::None => Err(format!("batch {} does not begin here", at.sequence)),
    }
}

/// Takes the records that are wanted, below `bound`, out of a batch.
fn take_records<R: Record>(reading: &mut Reading<R>, payload: Bytes, bound: u64) -> Result<(), String> {
    let mut here: Vec<(u64, Bytes)> = Vec::new();
    for item in format::items(payload) {
        match item? {
            Item::State(_) => {}
            Item::Truncate(from) => while here.pop_if(|(index, _)| *index >= from).is_some() {},
            Item::Record { index, body } => here.push((index, body)),
        }
    }
    for (index, body) in here {
        let wanted = index == reading.next && index <= reading.last && index < bound;
        if !wanted {
            continue;
        }
        if !reading.records.is_empty() && reading.bytes + body.len() > reading.max_bytes {
            reading.bytes = reading.max_bytes;
            break;
        }
        reading.bytes += body.len();
        reading
            .records
            .push(R::decode(body).map_err(|problem| format!("record {index}: {problem}"))?);
        reading.next += 1;
    }
    Ok(())
}
