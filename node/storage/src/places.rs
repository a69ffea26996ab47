//! Where records are: an index of the log that knows a place for every so many bytes.

/// A batch in the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Of the batch.
    pub(crate) sequence: u64,
}

/// Records from `first` on are found by reading on from `at`, up to the next place's `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    first: u64,
    at: Position,
    /// A truncation lies between this place and the one before, or the beginning of a segment: they must not be joined.
    fixed: bool,
}

/// The sparse index. Its places ascend both in the log and in the files.
#[derive(Debug)]
pub(crate) struct Places {
    ascending: Vec<Place>,
    stride_bytes: u64,
    count_max: usize,
    /// Bytes of batches since the last place.
    since: u64,
    /// The next record needs a place of its own, for it comes after a truncation.
    due: bool,
}

/// 40 bytes each: 2.5 MiB.
const PLACES_MAX: usize = 1 << 16;

impl Places {
    pub(crate) fn new(stride_bytes: u64) -> Self {
        Self::bounded(stride_bytes, PLACES_MAX)
    }

    fn bounded(stride_bytes: u64, count_max: usize) -> Self {
        Self {
            ascending: Vec::new(),
            stride_bytes,
            count_max,
            since: 0,
            due: true,
        }
    }

    /// A batch of that many bytes in its file begins: what follows is about its items.
    pub(crate) fn batch(&mut self, bytes: usize) {
        self.since = self.since.saturating_add(bytes as u64);
    }

    /// A record of the batch at `at`. The first of a segment gets a place of its own, for the segments before may go.
    pub(crate) fn record(&mut self, index: u64, at: Position) {
        self.due |= self
            .ascending
            .last()
            .is_none_or(|last| last.at.segment < at.segment);
        if !self.due && self.since < self.stride_bytes {
            return;
        }
        // A batch is read as a whole, so that one place is enough for it.
        if self
            .ascending
            .last()
            .is_none_or(|last| last.at.sequence < at.sequence)
        {
            self.ascending.push(Place {
                first: index,
                at,
                fixed: self.due,
            });
        }
        self.since = 0;
        self.due = false;
        if self.ascending.len() > self.count_max {
            self.thin();
        }
    }

    /// Records from `from` on are no more.
    pub(crate) fn truncate(&mut self, from: u64) {
        let keep = self.ascending.partition_point(|place| place.first < from);
        self.ascending.truncate(keep);
        self.due = true;
    }

    /// All segments before that one are no more.
    pub(crate) fn drop_before(&mut self, segment: u64) {
        let gone = self.ascending.partition_point(|place| place.at.segment < segment);
        self.ascending.drain(..gone);
    }

    /// From where to read on to find that record.
    pub(crate) fn find(&self, index: u64) -> Option<Position> {
        self.find_first(index).map(|(_, at)| at)
    }

    /// The same, and the first record there.
    pub(crate) fn find_first(&self, index: u64) -> Option<(u64, Position)> {
        let after = self.ascending.partition_point(|place| place.first <= index);
        let place = self.ascending.get(after.checked_sub(1)?)?;
        Some((place.first, place.at))
    }

    /// The first index that the place of `index` does not answer for.
    pub(crate) fn bound(&self, index: u64) -> u64 {
        let after = self.ascending.partition_point(|place| place.first <= index);
        self.ascending.get(after).map_or(u64::MAX, |place| place.first)
    }

    /// Doubles the stride, and joins every second place with the one before where that is allowed.
    fn thin(&mut self) {
        self.stride_bytes = self.stride_bytes.saturating_mul(2);
        let mut number = 0_usize;
        self.ascending.retain(|place| {
            number += 1;
            place.fixed || number % 2 == 1
        });
        // Where all are fixed the bound moves: truncations come with elections, batches by the million do not.
        self.count_max = self.count_max.max(self.ascending.len().saturating_mul(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> Position {
        Position {
            segment: 1,
            offset: sequence * 512,
            sequence,
        }
    }

    fn with_batches(places: &mut Places, batches: impl IntoIterator<Item = (u64, u64)>) {
        for (sequence, index) in batches {
            places.batch(512);
            places.record(index, at(sequence));
        }
    }

    #[test]
    fn a_record_is_found_at_or_before_its_batch() {
        let mut places = Places::new(1024);
        with_batches(&mut places, (1..=10).map(|n| (n, n)));
        for index in 1..=10 {
            let found = places.find(index).unwrap().sequence;
            assert!(found <= index && index - found < 2, "{index} at {found}");
        }
        assert_eq!(places.find(0), None);
    }

    #[test]
    fn what_was_truncated_bounds_the_place_before() {
        let mut places = Places::new(1 << 20);
        with_batches(&mut places, [(1, 1), (2, 2), (3, 3)]);
        places.truncate(2);
        with_batches(&mut places, [(4, 2), (5, 3)]);
        assert_eq!((places.find(1).unwrap().sequence, places.bound(1)), (1, 2));
        assert_eq!((places.find(3).unwrap().sequence, places.bound(3)), (4, u64::MAX));
    }

    #[test]
    fn what_is_left_is_found_without_the_segments_before() {
        let mut places = Places::bounded(1 << 20, 2);
        for (segment, index) in [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5)] {
            places.batch(512);
            let at = Position { segment, ..at(index) };
            places.record(index, at);
        }
        for (first, index, sequence) in [(2, 3, Some(3)), (2, 4, Some(3)), (3, 4, None), (3, 5, Some(5))] {
            places.drop_before(first);
            assert_eq!(
                places.find(index).map(|at| at.sequence),
                sequence,
                "record {index}"
            );
        }
    }

    #[test]
    fn it_stays_bounded_and_never_forgets_a_truncation() {
        let mut places = Places::bounded(512, 8);
        with_batches(&mut places, (1..=500).map(|n| (n, n)));
        places.truncate(301);
        with_batches(&mut places, (501..=1000).map(|n| (n, n - 200)));
        assert!(places.ascending.len() <= 16, "{}", places.ascending.len());
        for index in 1..=800 {
            let (found, batch) = (
                places.find(index).unwrap().sequence,
                if index <= 300 { index } else { index + 200 },
            );
            assert!(
                found <= batch,
                "{index} is in batch {batch}, not at or after {found}"
            );
            assert!(index > 300 || places.bound(index) <= 301);
        }
    }
}
