//! The log itself: takes appends and reads, hands out disk operations, and says what came of them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::beginning::Beginning;
use crate::compaction::{Compaction, Synced};
use crate::disk::{Disk, DiskError, DiskErrorKind, FileName, Op, Outcome};
use crate::error::{Fatal, OpenError};
use crate::format::{self, Link, STATE_HEAD, SegmentHead, framed_bytes, payload_room};
use crate::options::{Sizes, WalOptions};
use crate::places::{Places, Position};
use crate::queue::{Change, Encoded, Queue};
use crate::reads::{Progress, Reads, View};
use crate::record::Record;
use crate::recovery::{self, Recovered};
use crate::room::{Filling, Making, Room};

/// Number of an append: 1, 2, 3, ... since the log was opened.
pub type Ticket = u64;

/// The file whose presence says that a written final batch was dropped; see [`Recovery::suspect_tail`].
pub(crate) const SUSPECT: FileName = FileName::named("suspect-tail");

/// Number of an operation handed to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// What becomes durable together, in this order: the truncation, the records, the state, which so may speak of the records
/// (a commit index) and never of what is not there. Longer than [`crate::BATCH_BYTES_MAX`] it may become durable piece by
/// piece, still in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append<R> {
    /// Records from this index on are no more.
    pub truncate_from: Option<u64>,
    /// Consecutive; the first is one after the last record that is left.
    pub records: Vec<R>,
    /// Replaces the state before: for Raft the term and the vote.
    pub state: Option<Bytes>,
}

impl<R> Default for Append<R> {
    fn default() -> Self {
        Self {
            truncate_from: None,
            records: Vec::new(),
            state: None,
        }
    }
}

/// What a log holds, told in log order while it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visit<R> {
    /// Records from this index on are no more.
    Truncate(u64),
    /// A record.
    Record(R),
    /// A state, replacing the one before.
    State(Bytes),
}

/// What opening a log found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Index of the first record; 0 if there is none.
    pub first_index: u64,
    /// Index of the last record, dropped or not; 0 if there never was one.
    pub last_index: u64,
    /// Records up to this index were dropped by [`Wal::compact`]; 0 if none were.
    pub compacted_through: u64,
    /// The last state.
    pub state: Option<Bytes>,
    /// Batches in the log. 0: nothing was ever made durable.
    pub batches: u64,
    /// Segments in the log.
    pub segments: usize,
    /// Bytes of batches and heads.
    pub bytes: u64,
    /// The final batch had not been written whole, and so never synced: it was dropped, with nothing lost.
    pub dropped_tail: bool,
    /// Now or at an earlier start a final batch was dropped that was damaged and may have been written whole: it may have been
    /// acknowledged. A file in the folder remembers this until [`Wal::repaired`].
    pub suspect_tail: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalEvent<R> {
    /// This append and all before it survive a power failure.
    Persisted(Ticket),
    /// Answers [`Wal::read`]. Fewer records than asked for where `max_bytes` ended it, or where the rest was truncated or
    /// not on disk meanwhile, or compacted; none only where all were truncated, or the first was compacted.
    Read {
        /// The caller's number.
        id: u64,
        /// Consecutive, from the first that was asked for.
        records: Vec<R>,
    },
    /// The disk is full: what is filled ahead still serves, then appends wait, until [`Wal::retry`] brings `Full(false)`.
    Full(bool),
    /// [`Wal::repaired`] is on disk.
    Repaired,
}

/// What an operation in flight was for.
#[derive(Debug)]
enum Purpose {
    Write,
    Fill(Filling),
    Read(u64),
    Repair,
    Begin,
    Remove,
}

/// Whether the disk had room when it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DiskRoom {
    Enough,
    Full,
    /// It was full and is to be asked again.
    Trying,
}

/// How far a batch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// To be handed to the disk.
    Ready,
    /// Handed to the disk.
    Handed,
    /// The disk had no room for it, though it was filled: to be handed out again when asked to try.
    Held,
}

/// The batch in flight.
#[derive(Debug)]
struct Flight {
    op: Op,
    progress: Written,
    /// It found no room before.
    was_held: bool,
    /// Where it is.
    at: Position,
    done: Option<Ticket>,
    through: u64,
}

/// A write-ahead log of records of one kind. See the documentation of the crate.
#[derive(Debug)]
pub struct Wal<R> {
    owner: u64,
    folder: String,
    sizes: Sizes,
    link: Link,
    room: Room,
    places: Places,
    queue: Queue,
    flight: Option<Flight>,
    synced: Synced,
    compaction: Compaction,
    reads: Reads<R>,
    in_flight: BTreeMap<OpId, Purpose>,
    disk_room: DiskRoom,
    suspect: bool,
    /// [`Wal::repaired`] was called and has not been handed to the disk.
    repairing: bool,
    first_index: u64,
    last_index: u64,
    last_op: u64,
    last_ticket: Ticket,
    bytes_besides: u64,
}

impl<R: Record> Wal<R> {
    /// Reads the whole log, telling `visit` what it holds, and makes all of it durable once more. Nothing is written to an
    /// empty folder.
    ///
    /// `visit` may refuse what it is told: that, like records that cannot be decoded, is corruption.
    pub fn open(
        disk: &mut dyn Disk,
        options: WalOptions,
        visit: &mut dyn FnMut(Visit<R>) -> Result<(), String>,
    ) -> Result<(Self, Recovery), OpenError> {
        let volume_bytes = match disk.execute(&Op::Volume)? {
            Outcome::Volume(bytes) => bytes,
            other => unreachable!("the size of the volume was asked for, not {other:?}"),
        };
        let sizes = Sizes::new(&options, volume_bytes);
        let Recovered {
            link,
            segments,
            spares,
            current,
            places,
            compaction,
            recovery,
        } = recovery::recover(disk, options, sizes.segment, visit)?;
        let wal = Self {
            owner: options.owner,
            folder: disk.folder(),
            sizes,
            link,
            room: Room::new(segments, spares, current, sizes.segment, sizes.fill_ahead),
            places,
            queue: Queue::default(),
            flight: None,
            synced: Synced {
                segment: current,
                sequence: link.sequence,
            },
            compaction,
            reads: Reads::default(),
            in_flight: BTreeMap::new(),
            disk_room: DiskRoom::Enough,
            suspect: recovery.suspect_tail,
            repairing: false,
            first_index: recovery.first_index,
            last_index: recovery.last_index,
            last_op: 0,
            last_ticket: 0,
            bytes_besides: 0,
        };
        Ok((wal, recovery))
    }

    /// Through which index records of the log on that disk were dropped, without opening it: what is to hold them instead can be
    /// looked for before. 0 if none were.
    pub fn compacted_through_of(disk: &mut dyn Disk, owner: u64) -> Result<u64, OpenError> {
        Ok(Beginning::load(disk, owner)?.through)
    }

    /// Queues it for the next batch. [`WalEvent::Persisted`] with this ticket or a later one says when it is durable.
    /// The caller bounds what is queued by [`Wal::pending_bytes`].
    ///
    /// Panics where records are not consecutive, or longer than [`crate::RECORD_BYTES_MAX`].
    pub fn append(&mut self, mut append: Append<R>) -> Ticket {
        append.truncate_from = append.truncate_from.filter(|&from| from <= self.last_index);
        if let Some(from) = append.truncate_from {
            self.truncate(from);
        }
        for record in &append.records {
            let index = record.index();
            let anywhere = self.is_empty() && self.compaction.through() == 0;
            assert!(
                index == self.last_index + 1 || (anywhere && index > 0),
                "record {index} does not follow {}",
                self.last_index
            );
            if self.is_empty() {
                self.first_index = index;
            }
            self.last_index = index;
        }
        self.last_ticket += 1;
        self.queue.push(self.last_ticket, &append);
        self.last_ticket
    }

    fn truncate(&mut self, from: u64) {
        let compacted = self.compaction.through();
        assert!(
            from > compacted || compacted == 0,
            "records up to {compacted} were compacted: the log cannot be cut at {from}"
        );
        self.last_index = from.max(1) - 1;
        self.places.truncate(from);
        self.reads.truncate(from);
        if from <= self.first_index {
            self.first_index = 0;
        }
    }

    /// Records up to `through` are needed no more: from now on they are not read, and [`Wal::first_index`] is beyond them.
    /// When that is on disk, segments that hold no others are dropped: a few become new segments, the others are removed.
    /// The last state stays, whatever segment it was in.
    ///
    /// With `through` beyond the last record all of them are dropped and the next one has the index `through + 1`, as
    /// after a snapshot from elsewhere. What is appended after this call is never on disk without it.
    ///
    /// Ask again from time to time: only segments that nothing is written to are dropped. What is below an earlier
    /// `through` has no effect.
    pub fn compact(&mut self, through: u64) {
        if through == 0 || through < self.compaction.through() {
            return;
        }
        self.compaction.wish(through, self.last_index);
        if through >= self.last_index {
            self.first_index = 0;
            self.last_index = through;
        } else if !self.is_empty() {
            self.first_index = self.first_index.max(through + 1);
        }
        self.reads.compact(through);
    }

    /// The index to [`Wal::compact`] through so that segments are dropped, whole ones with no record beyond `through`, and at
    /// least `keep_bytes` of the log stay; `None` where none could be, or while others are being dropped. As long as an
    /// index would only hide records that stay on disk, there is no need to compact through it.
    pub fn droppable(&self, through: u64, keep_bytes: u64) -> Option<u64> {
        let in_use = self.synced.segment.min(self.room.busy());
        self.compaction
            .droppable(through, self.room.kept_from(keep_bytes).min(in_use))
    }

    /// Bytes of the segments with records beyond `index`, whole segments each: what cannot be dropped as long as these are
    /// needed.
    pub fn bytes_beyond(&self, index: u64) -> u64 {
        let segments = self.compaction.origins.beyond(index);
        segments.map(|segment| self.room.segment(segment).used).sum()
    }

    /// Bytes that each record from that one on takes on disk on average, with its part of batches; 0 if there are none. Some before
    /// it may be counted in, as many as the index has a place for.
    pub fn bytes_per_record_from(&self, index: u64) -> u64 {
        let Some((first, at)) = self.places.find_first(index).filter(|_| !self.is_empty()) else {
            return 0;
        };
        let records = (self.last_index + 1).saturating_sub(first);
        let bytes = self.room.bytes_from(at.segment, at.offset);
        bytes.checked_div(records).unwrap_or(0)
    }

    /// Bytes of the batches written since it was opened besides their records: heads and states, and what rounds them up to whole
    /// sectors, which is the most where a batch holds one short record.
    pub fn bytes_besides(&self) -> u64 {
        self.bytes_besides
    }

    /// Asks for the records from `first` to `last`, at least one, and no more once they have `max_bytes`. Records that are
    /// not on disk yet are answered at once, and so, with none, are requests whose first record is not there (compacted, or
    /// beyond the last); otherwise [`WalEvent::Read`] follows.
    pub fn read(&mut self, id: u64, first: u64, last: u64, max_bytes: usize) -> Option<Vec<R>> {
        let last = last.min(self.last_index);
        if self.is_empty() || first < self.first_index || first > last {
            return Some(Vec::new());
        }
        if self.queue.first_live().is_some_and(|live| live <= first) {
            let bodies = self.queue.bodies(first, last, max_bytes).into_iter();
            return Some(
                bodies
                    .map(|body| R::decode(body).expect("what was encoded decodes"))
                    .collect(),
            );
        }
        self.reads.start(id, first, last, max_bytes);
        None
    }

    /// What to hand to the disk now; call it until there is no more, whenever something was appended, read or completed.
    /// Operations may be carried out in any order, but the order they came in is best.
    pub fn next_op(&mut self) -> Option<(OpId, Op)> {
        self.next_write()
            .or_else(|| self.next_fill())
            .or_else(|| self.next_read())
            .or_else(|| self.next_repair())
            .or_else(|| self.next_compaction())
    }

    fn hand_out(&mut self, purpose: Purpose, op: Op) -> (OpId, Op) {
        self.last_op += 1;
        let id = OpId(self.last_op);
        self.in_flight.insert(id, purpose);
        (id, op)
    }

    fn next_write(&mut self) -> Option<(OpId, Op)> {
        if self.flight.is_none() {
            self.flight = self.build_batch();
        }
        let trying = self.disk_room != DiskRoom::Full;
        let flight = self.flight.as_mut().filter(|flight| match flight.progress {
            Written::Ready => true,
            Written::Handed => false,
            Written::Held => trying,
        })?;
        flight.progress = Written::Handed;
        let op = flight.op.clone();
        Some(self.hand_out(Purpose::Write, op))
    }

    /// Puts what is queued, as far as it fits, into a batch.
    fn build_batch(&mut self) -> Option<Flight> {
        if self.compaction.holds_appends() {
            return None;
        }
        let slot = self.room.slot(self.waiting_bytes()?)?;
        let room = payload_room(slot.bytes).expect("a slot has room for a sector");
        let taken = self.queue.take(room, self.sizes.batch);
        let place = format::Place {
            owner: self.owner,
            segment: slot.segment,
        };
        let payload: Vec<Bytes> = taken.items.iter().map(|item| item.bytes.clone()).collect();
        self.compaction.origins.batch(slot.segment, self.link);
        let framed = format::frame(place, self.link, self.room.durable(slot.segment), &payload);
        self.link = framed.link;
        self.room.take(slot, framed.bytes.len() as u64);
        let at = Position {
            segment: slot.segment,
            offset: slot.offset,
            sequence: framed.link.sequence,
        };
        self.note_batch(at, framed.bytes.len(), &taken.items);
        let records = taken
            .items
            .iter()
            .filter(|item| matches!(item.change, Change::Record(_)));
        let in_records: usize = records.map(|item| item.bytes.len()).sum();
        self.bytes_besides += (framed.bytes.len() - in_records) as u64;
        let file = FileName::segment(slot.segment);
        Some(Flight {
            op: Op::Write {
                file,
                offset: slot.offset,
                data: vec![framed.bytes],
            },
            progress: Written::Ready,
            was_held: false,
            at,
            done: taken.done,
            through: taken.through,
        })
    }

    fn note_batch(&mut self, at: Position, bytes: usize, items: &[Encoded]) {
        self.places.batch(bytes);
        for item in items {
            match item.change {
                Change::State => {
                    let state = item
                        .bytes
                        .get(STATE_HEAD..)
                        .expect("a state comes behind its head");
                    self.compaction.origins.state(state);
                }
                Change::Truncate(from) => self.places.truncate(from),
                Change::Record(index) => {
                    self.places.record(index, at);
                    self.compaction.origins.record(index);
                }
            }
        }
    }

    /// Bytes that the next batch takes at least; `None` if nothing waits.
    fn waiting_bytes(&self) -> Option<u64> {
        Some(framed_bytes(self.queue.first_bytes(self.sizes.batch)?) as u64)
    }

    fn next_fill(&mut self) -> Option<(OpId, Op)> {
        if self.disk_room == DiskRoom::Full {
            return None;
        }
        let filling = self.room.next_filling(self.waiting_bytes().unwrap_or(0))?;
        let file = FileName::segment(filling.segment);
        let head = SegmentHead {
            owner: self.owner,
            sequence: filling.segment,
            capacity: self.room.capacity(filling),
        };
        let op = match filling.making {
            Making::Create => Op::Create {
                file,
                head: head.encode(),
                length: filling.to,
            },
            Making::Recycle(spare) => Op::Rename {
                file: FileName::segment(spare),
                head: head.encode(),
                to: file,
            },
            Making::Fill => Op::Fill {
                file,
                from: filling.from,
                to: filling.to,
            },
        };
        Some(self.hand_out(Purpose::Fill(filling), op))
    }

    fn next_read(&mut self) -> Option<(OpId, Op)> {
        let view = View {
            places: &self.places,
            room: &self.room,
        };
        let (id, op) = self.reads.next_op(&view)?;
        Some(self.hand_out(Purpose::Read(id), op))
    }

    fn next_repair(&mut self) -> Option<(OpId, Op)> {
        if !std::mem::take(&mut self.repairing) {
            return None;
        }
        Some(self.hand_out(Purpose::Repair, Op::Remove { file: SUSPECT }))
    }

    fn next_compaction(&mut self) -> Option<(OpId, Op)> {
        if let Some(segment) = self.compaction.next_removal() {
            let file = FileName::segment(segment);
            return Some(self.hand_out(Purpose::Remove, Op::Remove { file }));
        }
        // Even on a full disk: it is what makes room.
        let beginning = self.compaction.next_beginning(self.synced, self.room.busy())?;
        Some(self.hand_out(Purpose::Begin, beginning.store(self.owner)))
    }

    /// The log begins with a later segment, durably: those before are dropped.
    fn begun(&mut self) -> Vec<WalEvent<R>> {
        let first = self.compaction.written();
        let surplus = self.room.drop_before(first);
        self.compaction.remove(surplus);
        self.places.drop_before(first);
        self.reads.drop_before(first);
        self.has_room().into_iter().collect()
    }

    /// What came of an operation. An error is final: the log may no longer be used.
    pub fn complete(
        &mut self,
        id: OpId,
        result: Result<Outcome, DiskError>,
    ) -> Result<Vec<WalEvent<R>>, Fatal> {
        let purpose = self
            .in_flight
            .remove(&id)
            .unwrap_or_else(|| panic!("{id:?} is not in flight"));
        match (purpose, result) {
            (Purpose::Write, Ok(_)) => Ok(self.written()),
            (Purpose::Fill(filling), Ok(_)) => Ok(self.filled(filling)),
            (Purpose::Read(read), Ok(Outcome::Data(data))) => self.has_read(read, &data),
            (Purpose::Read(read), Err(_)) if self.reads.is_void(read) => self.has_read(read, &Bytes::new()),
            (Purpose::Begin, Ok(_)) => Ok(self.begun()),
            (Purpose::Remove, Ok(_)) => {
                self.compaction.removed();
                Ok(Vec::new())
            }
            (Purpose::Repair, Ok(_)) => {
                self.suspect = false;
                Ok(vec![WalEvent::Repaired])
            }
            (Purpose::Write, Err(error)) if error.kind == DiskErrorKind::Full => {
                // Nothing was synced and nothing comes behind it: the same bytes go to the same place later.
                let flight = self.flight.as_mut().expect("a batch was in flight");
                flight.progress = Written::Held;
                flight.was_held = true;
                Ok(self.is_full())
            }
            (Purpose::Fill(filling), Err(error)) if error.kind == DiskErrorKind::Full => {
                self.room.filled(filling, false);
                Ok(self.is_full())
            }
            (Purpose::Begin, Err(error)) if error.kind == DiskErrorKind::Full => {
                self.compaction.hold();
                Ok(self.is_full())
            }
            (Purpose::Read(_), Ok(other)) => unreachable!("data was asked for, not {other:?}"),
            (_, Err(error)) => Err(Fatal(format!(
                "{error}: what is on disk is unknown until the next start; check the disk and start again"
            ))),
        }
    }

    fn written(&mut self) -> Vec<WalEvent<R>> {
        let flight = self.flight.take().expect("a batch was in flight");
        self.queue.persisted(flight.through);
        self.synced = Synced {
            segment: flight.at.segment,
            sequence: flight.at.sequence,
        };
        let mut events: Vec<_> = flight.done.map(WalEvent::Persisted).into_iter().collect();
        // Writing into what is filled says nothing of the room beyond, unless it was this batch that found none.
        if flight.was_held {
            events.extend(self.has_room());
        }
        events
    }

    fn filled(&mut self, filling: Filling) -> Vec<WalEvent<R>> {
        self.room.filled(filling, true);
        self.has_room().into_iter().collect()
    }

    fn has_read(&mut self, id: u64, data: &Bytes) -> Result<Vec<WalEvent<R>>, Fatal> {
        let view = View {
            places: &self.places,
            room: &self.room,
        };
        match self
            .reads
            .complete(id, data, self.owner, &view, self.queue.first_live())
        {
            Ok(Progress::More) => Ok(Vec::new()),
            Ok(Progress::Done(records)) => Ok(vec![WalEvent::Read { id, records }]),
            Err(bad) => Err(Fatal(format!(
                "{}/{} is corrupt at offset {}: {}: check the disk and start again",
                self.folder, bad.file, bad.offset, bad.problem
            ))),
        }
    }

    fn is_full(&mut self) -> Vec<WalEvent<R>> {
        match std::mem::replace(&mut self.disk_room, DiskRoom::Full) {
            DiskRoom::Enough => vec![WalEvent::Full(true)],
            DiskRoom::Full | DiskRoom::Trying => Vec::new(),
        }
    }

    fn has_room(&mut self) -> Option<WalEvent<R>> {
        // What was handed out before the disk was full says nothing.
        if self.disk_room != DiskRoom::Trying {
            return None;
        }
        self.disk_room = DiskRoom::Enough;
        Some(WalEvent::Full(false))
    }

    /// After [`WalEvent::Full`]: ask the disk for room again, at the next [`Wal::next_op`]. Where nothing lacks room any
    /// more, as what did was truncated or compacted, this is `Full(false)` itself.
    pub fn retry(&mut self) -> Option<WalEvent<R>> {
        self.compaction.retry();
        if self.disk_room == DiskRoom::Enough {
            return None;
        }
        self.disk_room = DiskRoom::Trying;
        if self.lacks_room() { None } else { self.has_room() }
    }

    /// Whether something waits for room, or is on its way to find out.
    fn lacks_room(&self) -> bool {
        let is_held = |flight: &Flight| flight.progress == Written::Held || flight.was_held;
        self.flight.as_ref().is_some_and(is_held)
            || self.compaction.is_waiting()
            || self.room.lacks(self.waiting_bytes().unwrap_or(0))
    }

    /// The caller has what a suspect tail lost, from others: forget about it. [`WalEvent::Repaired`] follows.
    pub fn repaired(&mut self) {
        self.repairing = self.suspect;
    }

    /// Records up to this index were dropped by [`Wal::compact`]; 0 if none were.
    pub fn compacted_through(&self) -> u64 {
        self.compaction.through()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.first_index == 0
    }

    /// Index of the first record, on disk or not; 0 if there is none.
    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    /// Index of the last record, on disk or not, dropped or not; 0 if there never was one.
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Bytes that were appended and are not on disk yet.
    pub fn pending_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Whether anything is not on disk yet.
    pub fn is_pending(&self) -> bool {
        self.flight.is_some() || !self.queue.is_empty()
    }

    /// Whether the disk was full when last asked for room.
    pub fn is_full_disk(&self) -> bool {
        self.disk_room != DiskRoom::Enough
    }

    /// Bytes that the segments take on disk, with the dropped ones that are to become new ones.
    pub fn disk_bytes(&self) -> u64 {
        self.room.disk_bytes()
    }

    /// Bytes that a new segment may grow to.
    pub fn segment_bytes(&self) -> u64 {
        self.room.segment_bytes()
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.room.count()
    }
}
