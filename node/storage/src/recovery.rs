//! Opening a log: what is data, what was never synced, and what is damaged. The rules are in the documentation of the crate.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use raftlog_raft::planted::{Bug, Planted};

use crate::beginning::{self, Beginning};
use crate::compaction::{Compaction, Origins};
use crate::disk::{Disk, DiskError, DiskErrorKind, FileName, Op, Outcome};
use crate::error::OpenError;
use crate::format::{
    self, BatchHead, Durable, FORMAT_VERSION, Item, Link, ReadBatch, ReadHead, ReadSegmentHead, SECTOR,
    SECTOR_BYTES, SegmentHead,
};
use crate::options::WalOptions;
use crate::places::{Places, Position};
use crate::record::Record;
use crate::room::{SPARES_MAX, Segment};
use crate::wal::{Recovery, SUSPECT, Visit};

/// Read from a file at a time, in bytes, unless a batch is longer.
const READ_BYTES: usize = 1 << 20;

/// All that a log starts from.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) link: Link,
    pub(crate) segments: BTreeMap<u64, Segment>,
    /// Dropped segments to become new ones, with their bytes.
    pub(crate) spares: BTreeMap<u64, u64>,
    /// The segment of the last batch; 0 if there is none. At most one comes after it.
    pub(crate) current: u64,
    pub(crate) places: Places,
    pub(crate) compaction: Compaction,
    pub(crate) recovery: Recovery,
}

/// Reads the log from its first batch to its last, then makes sure of the last and removes what is behind it.
pub(crate) fn recover<R: Record>(
    disk: &mut dyn Disk,
    options: WalOptions,
    segment_bytes: u64,
    visit: &mut dyn FnMut(Visit<R>) -> Result<(), String>,
) -> Result<Recovered, OpenError> {
    let folder = disk.folder();
    let mut files = Files {
        disk,
        folder,
        owner: options.owner,
        planted: options.planted,
        buffer: Bytes::new(),
        at: None,
    };
    let beginning = Beginning::load(files.disk, options.owner)?;
    let found = files.list(beginning.segment)?;
    let mut chain = Chain::new(options.index_stride_bytes, &beginning, visit);
    chain.begin().map_err(|problem| OpenError::Corrupt {
        file: format!("{}/{}", files.folder, beginning::FILE),
        offset: 0,
        problem,
    })?;
    for (&sequence, &(_, head)) in &found.segments {
        if !chain.enters(&mut files, &found, sequence)? {
            break;
        }
        let Some(head) = head else {
            return Err(files.corrupt(sequence, 0, "the segment's head is damaged"));
        };
        chain.read_segment(&mut files, &found, sequence, head)?;
    }
    chain.check_end(&files, &beginning)?;
    let Chain {
        link,
        mut segments,
        places,
        origins,
        mut recovery,
        last,
        first,
        durable,
        ..
    } = chain;
    let end = End {
        link,
        current: segments.last_key_value().map_or(0, |(sequence, _)| *sequence),
        first,
        recycles: beginning != Beginning::default(),
    };
    let offset = segments.get(&end.current).map_or(0, |segment| segment.used);
    let tail = end.look(&mut files, offset, &found)?;
    recovery.suspect_tail =
        (found.suspect || tail.suspect.is_some()) && !options.planted.has(Bug::SuspectTailVotes);
    recovery.dropped_tail = tail.suspect.is_none() && !tail.stale.is_empty();
    if let Some(what) = &tail.suspect {
        files.execute(&Op::Replace {
            file: SUSPECT,
            data: Bytes::from(what.clone()),
        })?;
    }
    // The dropped batch first: it may speak of segments that go next, and a start that dies in between would miss them.
    for (&sequence, &(from, to)) in &tail.stale {
        if sequence <= end.current.max(durable.last) {
            files.execute(&Op::Fill {
                file: FileName::segment(sequence),
                from,
                to,
            })?;
        }
    }
    // What the last batch says is there must stay.
    for &sequence in found
        .segments
        .keys()
        .rev()
        .filter(|&&sequence| sequence > end.current.max(durable.last))
    {
        files.execute(&Op::Remove {
            file: FileName::segment(sequence),
        })?;
    }
    if let Some((at, bytes)) = last.filter(|_| !options.planted.has(Bug::NoSyncAfterRecovery)) {
        files.rewrite(at, bytes)?;
    }
    if beginning != Beginning::default() {
        // It may have been renamed into place without the folder having been synced.
        files.execute(&beginning.store(options.owner))?;
    }
    let spares = files.spares(&found)?;
    recovery.batches = link.sequence;
    recovery.segments = segments.len();
    recovery.bytes = segments.values().map(|segment| segment.used).sum();
    if durable.last > end.current {
        let (bytes, _) = found.segments.get(&durable.last).copied().unwrap_or_default();
        segments.insert(durable.last, files.keep(durable.last, bytes, segment_bytes)?);
    }
    Ok(Recovered {
        link,
        segments,
        spares,
        current: end.current,
        places,
        compaction: Compaction::new(beginning, origins),
        recovery,
    })
}

/// The segments that are there, with their lengths and heads, and whether the folder remembers a suspect tail.
#[derive(Debug)]
struct Found {
    segments: BTreeMap<u64, (u64, Option<SegmentHead>)>,
    /// Segments before the first, with their lengths: dropped ones that are not removed yet.
    dropped: BTreeMap<u64, u64>,
    suspect: bool,
}

/// The files, read through a window.
struct Files<'a> {
    disk: &'a mut dyn Disk,
    folder: String,
    owner: u64,
    planted: Planted,
    buffer: Bytes,
    /// Segment and offset of the buffer.
    at: Option<(u64, u64)>,
}

impl Files<'_> {
    fn execute(&mut self, op: &Op) -> Result<Outcome, DiskError> {
        self.disk.execute(op)
    }

    fn corrupt(&self, segment: u64, offset: u64, problem: impl Into<String>) -> OpenError {
        let file = format!("{}/{}", self.folder, FileName::segment(segment));
        OpenError::Corrupt {
            file,
            offset,
            problem: problem.into(),
        }
    }

    /// What is there of a log that begins with the segment `first`.
    fn list(&mut self, first: u64) -> Result<Found, OpenError> {
        let files = match self.execute(&Op::List)? {
            Outcome::Files(files) => files,
            other => unreachable!("files were asked for, not {other:?}"),
        };
        let suspect = files.iter().any(|file| file.name == SUSPECT.to_string());
        let mut dropped: BTreeMap<u64, u64> = files
            .iter()
            .filter_map(|file| Some((FileName::parse_segment(&file.name)?, file.bytes)))
            .collect();
        let lengths = dropped.split_off(&first);
        let mut segments = BTreeMap::new();
        for (expected, (sequence, bytes)) in (first..).zip(lengths) {
            if sequence != expected {
                let problem = format!("it is missing, but {} is there", FileName::segment(sequence));
                return Err(self.corrupt(expected, 0, problem));
            }
            segments.insert(sequence, (bytes, self.segment_head(sequence)?));
        }
        Ok(Found {
            segments,
            dropped,
            suspect,
        })
    }

    /// Keeps a few of the dropped segments, and removes the others.
    fn spares(&mut self, found: &Found) -> Result<BTreeMap<u64, u64>, OpenError> {
        let mut spares = BTreeMap::new();
        for (&sequence, &bytes) in found.dropped.iter().rev() {
            let bytes = bytes / SECTOR_BYTES * SECTOR_BYTES;
            if spares.len() < SPARES_MAX && bytes > 0 {
                spares.insert(sequence, bytes);
            } else {
                let file = FileName::segment(sequence);
                self.execute(&Op::Remove { file })?;
            }
        }
        Ok(spares)
    }

    /// The head of a segment; `None` where it was not written whole, or is damaged.
    fn segment_head(&mut self, sequence: u64) -> Result<Option<SegmentHead>, OpenError> {
        let sector = self.read(sequence, 0, SECTOR)?;
        let file = || format!("{}/{}", self.folder, FileName::segment(sequence));
        match SegmentHead::decode(&sector) {
            ReadSegmentHead::Good(head) if head.owner != self.owner => Err(OpenError::Foreign {
                file: file(),
                found: head.owner,
                expected: self.owner,
            }),
            ReadSegmentHead::Good(head) => Ok(Some(head).filter(|head| head.sequence == sequence)),
            ReadSegmentHead::Version(found) => Err(OpenError::Version {
                file: file(),
                found,
                expected: FORMAT_VERSION,
            }),
            ReadSegmentHead::Bad => Ok(None),
        }
    }

    fn read(&mut self, segment: u64, offset: u64, length: usize) -> Result<Bytes, OpenError> {
        match self.execute(&Op::Read {
            file: FileName::segment(segment),
            offset,
            length,
        }) {
            Ok(Outcome::Data(data)) => Ok(data),
            Ok(other) => unreachable!("data was asked for, not {other:?}"),
            Err(error) if error.kind == DiskErrorKind::Missing => Ok(Bytes::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// That part of a segment, shorter at its end.
    fn window(&mut self, segment: u64, offset: u64, length: usize) -> Result<Bytes, OpenError> {
        if let Some((_, start)) = self.at.filter(|&(at, start)| at == segment && start <= offset) {
            let skip = usize::try_from(offset - start).unwrap_or(usize::MAX);
            if let Some(end) = skip.checked_add(length).filter(|&end| end <= self.buffer.len()) {
                return Ok(self.buffer.slice(skip..end));
            }
        }
        self.buffer = self.read(segment, offset, length.max(READ_BYTES))?;
        self.at = Some((segment, offset));
        Ok(self.buffer.slice(..length.min(self.buffer.len())))
    }

    fn head(&mut self, segment: u64, offset: u64) -> Result<ReadHead, OpenError> {
        let sector = self.window(segment, offset, SECTOR)?;
        Ok(format::read_head(self.place(segment, &sector), &sector))
    }

    fn batch(&mut self, segment: u64, offset: u64, head: &BatchHead) -> Result<ReadBatch, OpenError> {
        let framed = self.window(segment, offset, head.framed_bytes())?;
        let read = format::read_batch(self.place(segment, &framed), head, &framed);
        if read == ReadBatch::Bad && self.planted.has(Bug::BadFinalBatchTrusted) {
            return Ok(format::payload(head, &framed).map_or(read, ReadBatch::Good));
        }
        Ok(read)
    }

    /// Where that batch has to be: what says otherwise is of the past of a segment that was used again.
    fn place(&self, segment: u64, batch: &[u8]) -> format::Place {
        let trusted = self.planted.has(Bug::RecycledPastTrusted);
        let claimed = format::segment_of(batch).filter(|_| trusted);
        format::Place {
            owner: self.owner,
            segment: claimed.unwrap_or(segment),
        }
    }

    /// Whether that batch continues the chain.
    fn follows(&self, head: &BatchHead, link: Link) -> bool {
        head.follows(link) || self.planted.has(Bug::RecycledPastTrusted)
    }

    /// Makes an empty segment, which may have been filled without a sync, durable as one of today's size, and never shorter.
    fn keep(&mut self, sequence: u64, bytes: u64, segment_bytes: u64) -> Result<Segment, OpenError> {
        let filled = bytes / SECTOR_BYTES * SECTOR_BYTES;
        let capacity = segment_bytes.max(filled);
        let head = SegmentHead {
            owner: self.owner,
            sequence,
            capacity,
        };
        self.execute(&Op::Write {
            file: FileName::segment(sequence),
            offset: 0,
            data: vec![head.encode()],
        })?;
        Ok(Segment {
            used: SECTOR_BYTES,
            filled,
            capacity,
        })
    }

    /// Refuses where less is there than was on disk for good when that batch was written.
    fn check_durable(&self, found: &Found, segment: u64, head: &BatchHead) -> Result<(), OpenError> {
        let Durable {
            bytes,
            last,
            last_bytes,
        } = head.durable;
        for (sequence, expected) in [(segment, bytes), (last, last_bytes)] {
            let there = found.segments.get(&sequence).map(|&(bytes, _)| bytes);
            if there.is_some_and(|there| there >= expected) {
                continue;
            }
            let what = if there.is_some() {
                "ends here"
            } else {
                "is missing"
            };
            let problem = format!(
                "it {what}, but had {expected} bytes on disk before batch {} was written",
                head.link.sequence
            );
            return Err(self.corrupt(sequence, there.unwrap_or(0), problem));
        }
        Ok(())
    }

    /// Writes the last batch over itself and syncs: it may never have been.
    fn rewrite(&mut self, at: Position, bytes: usize) -> Result<(), OpenError> {
        let data = self.read(at.segment, at.offset, bytes)?;
        let file = FileName::segment(at.segment);
        self.execute(&Op::Write {
            file,
            offset: at.offset,
            data: vec![data],
        })?;
        Ok(())
    }
}

/// The log as far as it has been read.
struct Chain<'a, R> {
    link: Link,
    segments: BTreeMap<u64, Segment>,
    places: Places,
    origins: Origins,
    recovery: Recovery,
    /// The last batch, and the bytes it takes.
    last: Option<(Position, usize)>,
    /// Sequence of the first batch of the last segment.
    first: u64,
    /// What was on disk for good when the last batch was written.
    durable: Durable,
    visit: &'a mut dyn FnMut(Visit<R>) -> Result<(), String>,
}

impl<'a, R: Record> Chain<'a, R> {
    fn new(
        index_stride_bytes: u64,
        beginning: &Beginning,
        visit: &'a mut dyn FnMut(Visit<R>) -> Result<(), String>,
    ) -> Self {
        let recovery = Recovery {
            compacted_through: beginning.through,
            last_index: beginning.through,
            state: beginning.state.clone(),
            ..Recovery::default()
        };
        Self {
            link: beginning.link,
            segments: BTreeMap::new(),
            places: Places::new(index_stride_bytes),
            origins: Origins::new(beginning),
            recovery,
            last: None,
            first: 0,
            durable: Durable::default(),
            visit,
        }
    }

    /// Tells the state that was left by what was dropped.
    fn begin(&mut self) -> Result<(), String> {
        let state = self.recovery.state.clone();
        state.map_or(Ok(()), |state| (self.visit)(Visit::State(state)))
    }

    /// Refuses a log that ends before a batch that the file about its beginning says was on disk.
    fn check_end(&self, files: &Files<'_>, beginning: &Beginning) -> Result<(), OpenError> {
        if self.link.sequence >= beginning.synced {
            return Ok(());
        }
        let last = self.segments.last_key_value();
        let (segment, offset) = last.map_or((beginning.segment, SECTOR_BYTES), |(&last, segment)| {
            (last, segment.used)
        });
        let problem = format!(
            "batch {} is damaged or missing, but batch {} was on disk when the segments before {} were dropped",
            self.link.sequence + 1,
            beginning.synced,
            FileName::segment(beginning.segment)
        );
        Err(files.corrupt(segment, offset, problem))
    }

    /// Whether the log goes on in that segment.
    fn enters(&self, files: &mut Files<'_>, found: &Found, segment: u64) -> Result<bool, OpenError> {
        match files.head(segment, SECTOR_BYTES)? {
            ReadHead::Good(head) if files.follows(&head, self.link) => {
                files.check_durable(found, segment, &head)?;
                // A batch that is not whole is the end of the log, and behind the end of the segment before.
                Ok(matches!(
                    files.batch(segment, SECTOR_BYTES, &head)?,
                    ReadBatch::Good(_)
                ))
            }
            _ => Ok(false),
        }
    }

    /// Reads on from a segment's first batch to its last.
    fn read_segment(
        &mut self,
        files: &mut Files<'_>,
        found: &Found,
        sequence: u64,
        head: SegmentHead,
    ) -> Result<(), OpenError> {
        let mut at = Position {
            segment: sequence,
            offset: SECTOR_BYTES,
            sequence: 0,
        };
        while let ReadHead::Good(head) = files.head(sequence, at.offset)? {
            if !files.follows(&head, self.link) {
                break;
            }
            files.check_durable(found, sequence, &head)?;
            let ReadBatch::Good(payload) = files.batch(sequence, at.offset, &head)? else {
                break;
            };
            at.sequence = head.link.sequence;
            if at.offset == SECTOR_BYTES {
                self.first = at.sequence;
            }
            self.read_batch(at, &head, payload)
                .map_err(|problem| files.corrupt(sequence, at.offset, problem))?;
            at.offset += head.framed_bytes() as u64;
        }
        let bytes = found.segments.get(&sequence).map_or(0, |&(bytes, _)| bytes);
        let filled = bytes / SECTOR_BYTES * SECTOR_BYTES;
        let capacity = head.capacity.max(at.offset);
        let filled = filled.max(at.offset).min(capacity);
        self.segments.insert(
            sequence,
            Segment {
                used: at.offset,
                filled,
                capacity,
            },
        );
        Ok(())
    }

    fn read_batch(&mut self, at: Position, head: &BatchHead, payload: Bytes) -> Result<(), String> {
        self.origins.batch(at.segment, self.link);
        self.places.batch(head.framed_bytes());
        for item in format::items(payload) {
            self.read_item(at, item?)?;
        }
        self.link = head.link;
        self.last = Some((at, head.framed_bytes()));
        self.durable = head.durable;
        Ok(())
    }

    fn read_item(&mut self, at: Position, item: Item) -> Result<(), String> {
        let recovery = &mut self.recovery;
        match item {
            Item::State(state) => {
                recovery.state = Some(state.clone());
                self.origins.state(&state);
                (self.visit)(Visit::State(state))
            }
            Item::Truncate(from) => {
                if from > recovery.last_index {
                    return Err(format!(
                        "it ends at record {}, yet is cut at {from}",
                        recovery.last_index
                    ));
                }
                // What was dropped is no more, whatever became of it before.
                let from = from.max(recovery.compacted_through + 1);
                if from > recovery.last_index {
                    return Ok(());
                }
                recovery.last_index = from - 1;
                if from <= recovery.first_index {
                    recovery.first_index = 0;
                }
                self.places.truncate(from);
                (self.visit)(Visit::Truncate(from))
            }
            Item::Record { index, body } => {
                self.origins.record(index);
                if index <= recovery.compacted_through && index > 0 {
                    return Ok(());
                }
                let first = recovery.first_index == 0;
                let begins = first && recovery.compacted_through == 0;
                if !begins && Some(index) != recovery.last_index.checked_add(1) || index == 0 {
                    return Err(format!("record {index} does not follow {}", recovery.last_index));
                }
                if first {
                    recovery.first_index = index;
                }
                recovery.last_index = index;
                self.places.record(index, at);
                let record = R::decode(body).map_err(|problem| format!("record {index}: {problem}"))?;
                (self.visit)(Visit::Record(record))
            }
        }
    }
}

/// Where the log ends.
#[derive(Debug, Clone, Copy)]
struct End {
    link: Link,
    /// The segment of the last batch; 0 if there is none.
    current: u64,
    /// Sequence of the first batch of that segment.
    first: u64,
    /// Segments were dropped, and their files may have been used again.
    recycles: bool,
}

/// What is behind the end.
#[derive(Debug, Default)]
struct Tail {
    /// A final batch may have been synced and is damaged: what and where.
    suspect: Option<String>,
    /// By segment, the range of sectors that are no data, but that something was written to.
    stale: BTreeMap<u64, (u64, u64)>,
}

impl End {
    /// Looks at everything behind the end, which is at `offset` of the current segment.
    fn look(&self, files: &mut Files<'_>, offset: u64, found: &Found) -> Result<Tail, OpenError> {
        let mut tail = Tail::default();
        for (&segment, &(bytes, _)) in found.segments.range(self.current.max(1)..) {
            let mut start = if segment == self.current {
                offset
            } else {
                SECTOR_BYTES
            };
            let stale_in_current = tail.stale.contains_key(&self.current);
            let may_be_next = segment <= self.current + 1 && tail.suspect.is_none();
            if may_be_next && let Some((problem, bytes)) = self.suspect(files, segment, start)? {
                tail.suspect = Some(problem);
                if bytes > 0 {
                    tail.stale.insert(segment, (start, start + bytes));
                    start += bytes;
                }
            }
            if let Some((from, to)) = self.scan(files, segment, start..bytes, offset, stale_in_current)? {
                tail.stale.entry(segment).or_insert((from, to)).1 = to;
            }
        }
        Ok(tail)
    }

    /// The first batch that is, or will be, in that segment: whatever bears an older stamp there is of what the file was before.
    fn first_of(&self, segment: u64) -> u64 {
        if !self.recycles {
            return 1;
        }
        if segment == self.current {
            self.first
        } else {
            self.link.sequence + 1
        }
    }

    /// Whether a batch that may have been synced, but is damaged, stands where the next one would: what is wrong, and the bytes
    /// that are certainly its own.
    fn suspect(
        &self,
        files: &mut Files<'_>,
        segment: u64,
        offset: u64,
    ) -> Result<Option<(String, u64)>, OpenError> {
        let next = self.link.sequence + 1;
        let first = self.first_of(segment);
        let sector = files.window(segment, offset, SECTOR)?;
        let place = files.place(segment, &sector);
        let (problem, bytes) = match files.head(segment, offset)? {
            ReadHead::Good(head) if head.link.sequence >= next => {
                let problem = match files.batch(segment, offset, &head)? {
                    ReadBatch::Unstamped => {
                        let framed = files.window(segment, offset, head.framed_bytes())?;
                        if !format::has_damaged_stamp(&head, first, &framed) {
                            return Ok(None);
                        }
                        "the stamp of a sector is damaged"
                    }
                    ReadBatch::Bad => "it does not match its CRC",
                    ReadBatch::Good(_) => "it does not follow the batch before",
                };
                let is_next = head.follows(self.link);
                (problem, if is_next { head.framed_bytes() as u64 } else { 0 })
            }
            _ if format::is_head_of(place, next, &sector) => {
                ("the stamp of its first sector is damaged", SECTOR_BYTES)
            }
            _ if format::is_unwritten(first, &sector) => return Ok(None),
            ReadHead::Bad { sequence } if sequence >= next => ("its head does not match its CRC", 0),
            _ => ("its first sector is damaged", 0),
        };
        let file = FileName::segment(segment);
        let what = format!("batch {next} at offset {offset} of {file} was written, but {problem}\n");
        Ok(Some((what, bytes)))
    }

    /// Looks at every sector of that range of a segment. Returns the range of those that something was written to since the
    /// segment began. One of a batch later than the next is proof that the next was synced once: a whole head, or the stamp of the
    /// batch right after the next, as others may be damage themselves.
    fn scan(
        &self,
        files: &mut Files<'_>,
        segment: u64,
        range: Range<u64>,
        end: u64,
        stale_in_current: bool,
    ) -> Result<Option<(u64, u64)>, OpenError> {
        let mut stale: Option<(u64, u64)> = None;
        let mut at = range.start;
        while at + SECTOR_BYTES <= range.end {
            let sector = files.window(segment, at, SECTOR)?;
            if !format::is_unwritten(self.first_of(segment), &sector) {
                if let Some((_, sequence)) = format::stamp(&sector) {
                    let whole = matches!(files.head(segment, at)?, ReadHead::Good(_));
                    if sequence == self.link.sequence + 2 || whole {
                        self.check_later(files, (segment, at), sequence, end, stale_in_current)?;
                    }
                }
                stale = Some((stale.map_or(at, |(from, _)| from), at + SECTOR_BYTES));
            }
            at += SECTOR_BYTES;
        }
        Ok(stale)
    }

    /// Refuses where the sector at `at` is of a later batch than the next one, which must have been synced before.
    fn check_later(
        &self,
        files: &Files<'_>,
        at: (u64, u64),
        sequence: u64,
        end: u64,
        stale_in_current: bool,
    ) -> Result<(), OpenError> {
        let next = self.link.sequence + 1;
        if sequence <= next {
            return Ok(());
        }
        // The next batch was in the current segment, or else the first of the one after.
        let after = (self.current + 1, SECTOR_BYTES);
        let in_current = at.0 == self.current || at == after || stale_in_current;
        let (segment, offset) = if in_current && self.current > 0 {
            (self.current, end)
        } else {
            after
        };
        let problem = format!(
            "batch {next} is damaged or missing, but batch {sequence} follows at offset {} of {}",
            at.1,
            FileName::segment(at.0)
        );
        Err(files.corrupt(segment, offset, problem))
    }
}
