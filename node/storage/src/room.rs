//! Where the next batch goes, and what has to be filled with zeros before.

use std::collections::BTreeMap;

use crate::format::{Durable, SECTOR_BYTES};

/// Dropped segments that are kept to become new ones; more are removed.
pub(crate) const SPARES_MAX: usize = 2;
/// Room is filled ahead in this many steps.
const FILL_STEPS: u64 = 4;

/// A segment's file. All in bytes and whole sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Segment {
    /// Head and batches.
    pub(crate) used: u64,
    /// Zeros are on disk up to here.
    pub(crate) filled: u64,
    /// It may be filled up to here.
    pub(crate) capacity: u64,
}

/// Room for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Filled from `offset` on.
    pub(crate) bytes: u64,
}

/// A piece to fill with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filling {
    pub(crate) segment: u64,
    pub(crate) making: Making,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// How a piece comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Making {
    /// The segment is there.
    Fill,
    /// The segment has to be made.
    Create,
    /// A dropped segment becomes this one as it is: what it held before serves as well as zeros.
    Recycle(u64),
}

/// All segments, of which the current one is written to and the one after it is prepared.
#[derive(Debug)]
pub(crate) struct Room {
    segments: BTreeMap<u64, Segment>,
    /// 0 before the first.
    current: u64,
    segment_bytes: u64,
    fill_ahead_bytes: u64,
    /// The segment that a piece is being filled of.
    filling: Option<u64>,
    /// Dropped segments and their bytes.
    spares: BTreeMap<u64, u64>,
}

impl Room {
    /// `segments` are on disk for good; `current` is the one that is written to, and at most one comes after it. `spares`
    /// are dropped ones, with their bytes.
    pub(crate) fn new(
        segments: BTreeMap<u64, Segment>,
        spares: BTreeMap<u64, u64>,
        current: u64,
        segment_bytes: u64,
        fill_ahead_bytes: u64,
    ) -> Self {
        Self {
            segments,
            current,
            segment_bytes,
            fill_ahead_bytes,
            filling: None,
            spares,
        }
    }

    /// Room for a batch of at least that many bytes, if it is filled already.
    pub(crate) fn slot(&self, bytes: u64) -> Option<Slot> {
        let current = self.segment(self.current);
        if current.used + bytes <= current.filled {
            let bytes = current.filled - current.used;
            return Some(Slot {
                segment: self.current,
                offset: current.used,
                bytes,
            });
        }
        if current.used + bytes <= current.capacity {
            return None;
        }
        let next = self.segments.get(&(self.current + 1))?;
        let slot = Slot {
            segment: self.current + 1,
            offset: next.used,
            bytes: next.filled - next.used,
        };
        (slot.bytes >= bytes).then_some(slot)
    }

    /// What is on disk for good, for a batch that goes to that segment.
    pub(crate) fn durable(&self, segment: u64) -> Durable {
        let (&last, newest) = self
            .segments
            .last_key_value()
            .expect("a batch goes to a segment that is there");
        Durable {
            bytes: self.segment(segment).filled,
            last,
            last_bytes: newest.filled,
        }
    }

    /// A batch goes there.
    pub(crate) fn take(&mut self, slot: Slot, bytes: u64) {
        assert!(bytes <= slot.bytes, "a batch of {bytes} bytes overruns {slot:?}");
        self.current = slot.segment;
        let segment = self
            .segments
            .get_mut(&slot.segment)
            .expect("a slot is in a segment");
        assert_eq!(segment.used, slot.offset, "a slot is the end of its segment");
        segment.used += bytes;
    }

    /// The next piece to fill, where a batch of at least `bytes` waits (0: none does). One at a time.
    pub(crate) fn next_filling(&mut self, bytes: u64) -> Option<Filling> {
        if self.filling.is_some() {
            return None;
        }
        let filling = self.due(bytes);
        self.filling = filling.map(|filling| filling.segment);
        if let Some(Making::Recycle(spare)) = filling.map(|filling| filling.making) {
            self.spares.remove(&spare);
        }
        filling
    }

    /// Whether a piece is being filled, or has to be.
    pub(crate) fn lacks(&self, bytes: u64) -> bool {
        self.filling.is_some() || self.due(bytes).is_some()
    }

    fn due(&self, bytes: u64) -> Option<Filling> {
        self.filling_of_current(bytes)
            .or_else(|| self.filling_of_next(bytes))
    }

    /// Bytes to fill at a time: a flush that comes meanwhile waits that long.
    fn step_bytes(&self) -> u64 {
        (self.fill_ahead_bytes / FILL_STEPS / SECTOR_BYTES).max(1) * SECTOR_BYTES
    }

    fn filling_of_current(&self, bytes: u64) -> Option<Filling> {
        let segment = self.segment(self.current);
        let fits = segment.used + bytes <= segment.capacity;
        let needed = segment.used + if fits { bytes } else { 0 };
        let goal = needed
            .max(segment.used + self.fill_ahead_bytes)
            .min(segment.capacity);
        let to = self.step(segment.filled, needed, goal, segment.capacity)?;
        Some(Filling {
            segment: self.current,
            making: Making::Fill,
            from: segment.filled,
            to,
        })
    }

    fn filling_of_next(&self, bytes: u64) -> Option<Filling> {
        let current = self.segment(self.current);
        let left = current.capacity - current.used;
        if left >= bytes && left >= self.fill_ahead_bytes {
            return None;
        }
        let sequence = self.current + 1;
        let next = self.segments.get(&sequence);
        let filled = next.map_or(SECTOR_BYTES, |next| next.filled);
        let capacity = next.map_or(self.segment_bytes, |next| next.capacity);
        let needed = SECTOR_BYTES + if left < bytes { bytes } else { 0 };
        let ahead = self.fill_ahead_bytes.saturating_sub(left);
        let goal = needed.max(SECTOR_BYTES + ahead).min(capacity);
        let step = self.step(filled, needed, goal, capacity);
        let spare = self.spares.last_key_value().filter(|_| next.is_none());
        if let Some((&spare, &bytes)) = spare {
            return Some(Filling {
                segment: sequence,
                making: Making::Recycle(spare),
                from: 0,
                to: bytes,
            });
        }
        match next {
            None => {
                let to = step.unwrap_or((filled + self.step_bytes()).min(capacity));
                Some(Filling {
                    segment: sequence,
                    making: Making::Create,
                    from: 0,
                    to,
                })
            }
            Some(_) => Some(Filling {
                segment: sequence,
                making: Making::Fill,
                from: filled,
                to: step?,
            }),
        }
    }

    /// How far to fill what is filled so far on the way to `goal`, if it is a step or more away, or `needed` now.
    fn step(&self, filled: u64, needed: u64, goal: u64, capacity: u64) -> Option<u64> {
        let away = goal.saturating_sub(filled);
        let last = goal == capacity && away > 0;
        let due = filled < needed || away >= self.step_bytes() || last;
        due.then(|| (filled + self.step_bytes()).max(needed).min(capacity))
    }

    /// That piece is on disk, or could not be filled.
    pub(crate) fn filled(&mut self, filling: Filling, done: bool) {
        self.filling = None;
        if !done {
            if let Making::Recycle(spare) = filling.making {
                self.spares.insert(spare, filling.to);
            }
            return;
        }
        let fresh = Segment {
            used: SECTOR_BYTES,
            filled: 0,
            capacity: self.capacity(filling),
        };
        self.segments.entry(filling.segment).or_insert(fresh).filled = filling.to;
    }

    /// What a new segment may grow to: a recycled one may be larger than they are today.
    pub(crate) fn capacity(&self, filling: Filling) -> u64 {
        self.segment_bytes.max(filling.to)
    }

    /// All before that segment are dropped: kept as spares, but for those returned, which are to be removed.
    pub(crate) fn drop_before(&mut self, first: u64) -> Vec<u64> {
        let kept = self.segments.split_off(&first);
        let dropped = std::mem::replace(&mut self.segments, kept);
        self.spares.extend(
            dropped
                .into_iter()
                .map(|(sequence, segment)| (sequence, segment.filled)),
        );
        let surplus = self.spares.len().saturating_sub(SPARES_MAX);
        std::iter::from_fn(|| self.spares.pop_first())
            .take(surplus)
            .map(|(sequence, _)| sequence)
            .collect()
    }

    /// The first segment that something is or may be written to.
    pub(crate) fn busy(&self) -> u64 {
        self.filling
            .map_or(self.current, |filling| filling.min(self.current))
    }

    /// The segment that is written to; 0 before the first.
    pub(crate) fn current(&self) -> u64 {
        self.current
    }

    /// That segment; empty if it is not there.
    pub(crate) fn segment(&self, sequence: u64) -> Segment {
        self.segments.get(&sequence).copied().unwrap_or_default()
    }

    /// The last segment with that many bytes of the log in it and those after it; 0 if there is less.
    pub(crate) fn kept_from(&self, bytes: u64) -> u64 {
        let mut behind = 0;
        let mut last = self.segments.iter().rev();
        let found = last.find(|(_, segment)| {
            behind += segment.used;
            behind >= bytes
        });
        found.map_or(0, |(sequence, _)| *sequence)
    }

    /// Bytes of the log from that place on.
    pub(crate) fn bytes_from(&self, segment: u64, offset: u64) -> u64 {
        let from = self.segments.range(segment..);
        let used: u64 = from.map(|(_, segment)| segment.used).sum();
        used.saturating_sub(offset)
    }

    /// Bytes of a new segment.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Number of segments.
    pub(crate) fn count(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of all files.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let segments = self.segments.values().map(|segment| segment.filled);
        segments.chain(self.spares.values().copied()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: u64 = 64 * 512;
    const AHEAD: u64 = 8 * 512;

    fn room() -> Room {
        Room::new(BTreeMap::new(), BTreeMap::new(), 0, CAPACITY, AHEAD)
    }

    fn fill(room: &mut Room, bytes: u64) -> Filling {
        let filling = room.next_filling(bytes).expect("something to fill");
        assert_eq!(room.next_filling(bytes), None, "one at a time");
        room.filled(filling, true);
        filling
    }

    #[test]
    fn the_first_segment_is_made_before_anything_waits() {
        let mut room = room();
        let step = AHEAD / FILL_STEPS;
        let create = Filling {
            segment: 1,
            making: Making::Create,
            from: 0,
            to: 512 + step,
        };
        assert_eq!((room.slot(512), fill(&mut room, 0)), (None, create));
        assert_eq!(
            room.slot(512),
            Some(Slot {
                segment: 1,
                offset: 512,
                bytes: step
            })
        );
        for _ in 1..FILL_STEPS {
            fill(&mut room, 0);
        }
        assert_eq!(room.next_filling(0), None);
        assert_eq!(
            room.slot(512),
            Some(Slot {
                segment: 1,
                offset: 512,
                bytes: AHEAD
            })
        );
    }

    #[test]
    fn room_is_filled_before_it_is_needed_and_the_next_segment_too() {
        let mut room = room();
        let mut waits = 0;
        for _ in 0..1000 {
            match room.slot(512) {
                Some(slot) => room.take(slot, 512),
                None => waits += 1,
            }
            if let Some(filling) = room.next_filling(512) {
                room.filled(filling, true);
            }
        }
        assert_eq!(waits, 1, "only before the first segment was there");
        assert!(room.count() >= 1000 / 64);
    }

    #[test]
    fn what_does_not_fit_goes_to_the_next_segment() {
        let mut room = room();
        fill(&mut room, 0);
        let large = CAPACITY - 512;
        while room.slot(large).is_none() {
            fill(&mut room, large);
        }
        let slot = room.slot(large).unwrap();
        assert_eq!(
            (slot.segment, slot.offset),
            (1, 512),
            "it fits the first as a whole"
        );
        room.take(slot, 1024);
        while room.slot(large).is_none() {
            fill(&mut room, large);
        }
        assert_eq!(room.slot(large).unwrap().segment, 2);
        assert_eq!(
            room.next_filling(large),
            None,
            "the rest of the first is filled, the second as far as needed"
        );
    }

    #[test]
    fn what_could_not_be_filled_is_asked_for_again() {
        let mut room = room();
        let filling = room.next_filling(512).unwrap();
        room.filled(filling, false);
        assert_eq!((room.slot(512), room.next_filling(512)), (None, Some(filling)));
    }

    #[test]
    fn dropped_segments_become_new_ones() {
        let mut room = room();
        let mut recycled = Vec::new();
        for _ in 0..2000 {
            if let Some(slot) = room.slot(512) {
                room.take(slot, 512);
            }
            if let Some(filling) = room.next_filling(512) {
                if let Making::Recycle(spare) = filling.making {
                    recycled.push((spare, filling.segment));
                }
                room.filled(filling, true);
            }
            let removed = room.drop_before(room.busy());
            assert!(removed.is_empty(), "each is used before another is dropped");
        }
        assert!(recycled.len() > 20 && recycled.iter().all(|(spare, segment)| spare + 2 == *segment));
        assert!(room.disk_bytes() <= 3 * CAPACITY);
    }

    #[test]
    fn few_dropped_segments_are_kept() {
        let whole = Segment {
            used: CAPACITY,
            filled: CAPACITY,
            capacity: CAPACITY,
        };
        let segments = (1..=6).map(|sequence| (sequence, whole)).collect();
        let mut room = Room::new(segments, BTreeMap::new(), 6, CAPACITY, AHEAD);
        assert_eq!(room.drop_before(6), [1, 2, 3]);
        assert_eq!(room.disk_bytes(), 3 * CAPACITY);
        let filling = room.next_filling(512).unwrap();
        assert_eq!(
            (filling.segment, filling.making, filling.to),
            (7, Making::Recycle(5), CAPACITY)
        );
        room.filled(filling, false);
        assert_eq!(
            room.next_filling(512),
            Some(filling),
            "the disk had no room; it is there again"
        );
    }
}
