//! What it takes to drop the log's first segments: how each segment's past ended, and how far dropping has come.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::beginning::Beginning;
use crate::format::Link;

/// What has to be known of each segment to let the log begin with it.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    by_segment: BTreeMap<u64, Origin>,
    /// The last state so far.
    state: Option<Bytes>,
}

#[derive(Debug)]
struct Origin {
    /// The last batch before the segment.
    link: Link,
    /// The last state before it.
    state: Option<Bytes>,
    /// The highest index of its records, truncated ones included.
    highest: u64,
}

impl Origins {
    /// Of a log that begins there.
    pub(crate) fn new(beginning: &Beginning) -> Self {
        Self {
            by_segment: BTreeMap::new(),
            state: beginning.state.clone(),
        }
    }

    /// A batch goes to that segment, after `previous`: what follows is about its items.
    pub(crate) fn batch(&mut self, segment: u64, previous: Link) {
        let state = &self.state;
        self.by_segment.entry(segment).or_insert_with(|| Origin {
            link: previous,
            state: state.clone(),
            highest: 0,
        });
    }

    /// A record of the latest batch.
    pub(crate) fn record(&mut self, index: u64) {
        if let Some(mut last) = self.by_segment.last_entry() {
            let origin = last.get_mut();
            origin.highest = origin.highest.max(index);
        }
    }

    /// A state of the latest batch. It is copied, for it outlives the buffer that it is part of.
    pub(crate) fn state(&mut self, state: &[u8]) {
        self.state = Some(Bytes::copy_from_slice(state));
    }

    /// The first segment, up to `last`, with a record beyond `through`, or else `last`.
    fn first_beyond(&self, through: u64, last: u64) -> u64 {
        let mut before = self.by_segment.range(..last);
        before
            .find(|(_, origin)| origin.highest > through)
            .map_or(last, |(segment, _)| *segment)
    }

    /// The highest index in the segments, all before `segment`, that hold no record beyond `through`; `None` if there are none.
    fn droppable(&self, through: u64, segment: u64) -> Option<u64> {
        let highest = self.by_segment.range(..segment).map(|(_, origin)| origin.highest);
        highest.take_while(|highest| *highest <= through).reduce(u64::max)
    }

    /// The segments from the last one back to the one with the first record beyond `index`.
    pub(crate) fn beyond(&self, index: u64) -> impl Iterator<Item = u64> {
        let segments = self.by_segment.iter().rev();
        segments
            .take_while(move |(_, origin)| origin.highest > index)
            .map(|(segment, _)| *segment)
    }

    fn drop_before(&mut self, segment: u64) {
        self.by_segment = self.by_segment.split_off(&segment);
    }
}

/// The newest batch that is on disk for good, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Synced {
    /// 0 before the first.
    pub(crate) segment: u64,
    pub(crate) sequence: u64,
}

/// What the caller asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// All is written, or being written.
    None,
    /// To be written.
    Asked,
    /// To be written when the disk has room.
    Held,
}

/// How far dropping has come: wished for, being written to `log-start`, durable, removed.
#[derive(Debug)]
pub(crate) struct Compaction {
    pub(crate) origins: Origins,
    beginning: Beginning,
    /// Records up to this index are no more, on disk or not.
    through: u64,
    wish: Wish,
    writing: Option<Beginning>,
    /// What is appended continues at `through`, where no record on disk ends: it waits until that is on disk.
    gap: bool,
    removals: VecDeque<u64>,
    removing: bool,
}

impl Compaction {
    /// Of a log that begins there on disk.
    pub(crate) fn new(beginning: Beginning, origins: Origins) -> Self {
        Self {
            through: beginning.through,
            origins,
            beginning,
            wish: Wish::None,
            writing: None,
            gap: false,
            removals: VecDeque::new(),
            removing: false,
        }
    }

    /// Records up to this index are no more.
    pub(crate) fn through(&self) -> u64 {
        self.through
    }

    /// What to ask for so that segments go that hold no record beyond `through`, all before `segment`; `None` if none would,
    /// or while what was asked for is not done.
    pub(crate) fn droppable(&self, through: u64, segment: u64) -> Option<u64> {
        if self.writing.is_some() || self.wish != Wish::None {
            return None;
        }
        let highest = self.origins.droppable(through, segment)?;
        Some(highest.max(self.through))
    }

    /// The caller asks, with a log that ends at `last`.
    pub(crate) fn wish(&mut self, through: u64, last: u64) {
        self.gap |= through > last;
        self.through = self.through.max(through);
        self.wish = Wish::Asked;
    }

    /// Whether appends must not reach the disk yet.
    pub(crate) fn holds_appends(&self) -> bool {
        self.gap
    }

    /// What to write to `log-start` now. Segments from `busy` on must stay.
    pub(crate) fn next_beginning(&mut self, synced: Synced, busy: u64) -> Option<Beginning> {
        if self.writing.is_some() || self.wish != Wish::Asked {
            return None;
        }
        self.wish = Wish::None;
        let last = synced.segment.min(busy).max(self.beginning.segment);
        let segment = self.origins.first_beyond(self.through, last);
        let (link, state) = match self.origins.by_segment.get(&segment) {
            Some(origin) if segment > self.beginning.segment => (origin.link, origin.state.clone()),
            _ => (self.beginning.link, self.beginning.state.clone()),
        };
        let beginning = Beginning {
            through: self.through,
            segment: segment.max(self.beginning.segment),
            link,
            synced: synced.sequence,
            state,
        };
        if beginning.through == self.beginning.through && beginning.segment == self.beginning.segment {
            return None;
        }
        self.writing = Some(beginning.clone());
        Some(beginning)
    }

    /// It is on disk: the log begins with this segment.
    pub(crate) fn written(&mut self) -> u64 {
        self.beginning = self.writing.take().expect("a beginning was being written");
        self.gap &= self.beginning.through < self.through;
        self.origins.drop_before(self.beginning.segment);
        self.beginning.segment
    }

    /// The disk had no room for it: it is written again once [`Compaction::retry`] says so.
    pub(crate) fn hold(&mut self) {
        self.writing = None;
        self.wish = Wish::Held;
    }

    /// The disk may have room by now.
    pub(crate) fn retry(&mut self) {
        if self.wish == Wish::Held {
            self.wish = Wish::Asked;
        }
    }

    /// Whether a new beginning is to be written, or being written.
    pub(crate) fn is_waiting(&self) -> bool {
        self.wish != Wish::None || self.writing.is_some()
    }

    /// These segments are of no use any more.
    pub(crate) fn remove(&mut self, segments: impl IntoIterator<Item = u64>) {
        self.removals.extend(segments);
    }

    /// The segment to remove now.
    pub(crate) fn next_removal(&mut self) -> Option<u64> {
        if self.removing {
            return None;
        }
        let segment = self.removals.pop_front()?;
        self.removing = true;
        Some(segment)
    }

    /// It is removed.
    pub(crate) fn removed(&mut self) {
        self.removing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(sequence: u64) -> Link {
        Link {
            sequence,
            crc: u32::try_from(sequence).unwrap(),
        }
    }

    /// Segments 1 to 4 with batches of ten records each, of which those of segment 2 were truncated and written again.
    fn compaction() -> Compaction {
        let mut origins = Origins::new(&Beginning::default());
        for (segment, records) in [(1, 1..=10), (2, 11..=30), (3, 15..=20), (4, 21..=40)] {
            origins.batch(segment, link(segment - 1));
            origins.state(format!("state {segment}").as_bytes());
            for index in records {
                origins.record(index);
            }
        }
        Compaction::new(Beginning::default(), origins)
    }

    #[test]
    fn whole_segments_at_or_below_are_dropped() {
        let synced = Synced {
            segment: 4,
            sequence: 4,
        };
        for (through, synced, busy, first) in [
            (9, synced, u64::MAX, 1),
            (10, synced, u64::MAX, 2),
            (20, synced, u64::MAX, 2),
            (30, synced, u64::MAX, 4),
            (99, synced, u64::MAX, 4),
            (99, synced, 3, 3),
            (99, Synced { segment: 2, ..synced }, u64::MAX, 2),
            (99, Synced::default(), u64::MAX, 1),
        ] {
            let mut compaction = compaction();
            compaction.wish(through, 40);
            let beginning = compaction.next_beginning(synced, busy).unwrap();
            let state = (first > 1).then(|| Bytes::from(format!("state {}", first - 1)));
            assert_eq!(
                (beginning.segment, beginning.link, beginning.state),
                (first, link(first - 1), state),
                "through {through}"
            );
            assert_eq!(compaction.next_beginning(synced, busy), None, "one at a time");
            assert_eq!(compaction.written(), first);
            compaction.wish(through, 40);
            assert_eq!(
                compaction.next_beginning(synced, busy),
                None,
                "nothing has changed"
            );
        }
    }

    #[test]
    fn what_may_be_asked_for_ends_with_a_segment() {
        for (through, before, expected) in [
            (9, 4, None),
            (10, 4, Some(10)),
            (29, 4, Some(10)),
            (30, 4, Some(30)),
            (99, 4, Some(30)),
            (99, 2, Some(10)),
            (99, 1, None),
        ] {
            let compaction = compaction();
            assert_eq!(
                compaction.droppable(through, before),
                expected,
                "through {through}"
            );
        }
        let mut compaction = compaction();
        compaction.wish(30, 40);
        assert_eq!(compaction.droppable(99, 4), None, "one after the other");
    }

    #[test]
    fn records_beyond_an_index_are_in_the_last_segments() {
        for (index, expected) in [
            (0, &[4, 3, 2, 1][..]),
            (9, &[4, 3, 2, 1]),
            (10, &[4, 3, 2]),
            (30, &[4]),
            (40, &[]),
        ] {
            let compaction = compaction();
            assert!(
                compaction.origins.beyond(index).eq(expected.iter().copied()),
                "{index}"
            );
        }
    }

    #[test]
    fn appends_behind_a_gap_wait_until_it_is_on_disk() {
        let mut compaction = compaction();
        compaction.wish(40, 40);
        assert!(!compaction.holds_appends());
        compaction.next_beginning(Synced::default(), u64::MAX).unwrap();
        compaction.wish(50, 40);
        compaction.written();
        assert!(compaction.holds_appends(), "40 was written, not 50");
        compaction.next_beginning(Synced::default(), u64::MAX).unwrap();
        compaction.hold();
        assert!(compaction.holds_appends());
        assert_eq!(compaction.next_beginning(Synced::default(), u64::MAX), None);
        compaction.retry();
        compaction.next_beginning(Synced::default(), u64::MAX).unwrap();
        compaction.written();
        assert!(!compaction.holds_appends());
    }
}
