//! What is held of the log in memory: the most recent operations, and the places from the commit index on.

use std::collections::VecDeque;

use raftlog_raft::ids::OperationIndex;

use super::operation::{Operation, Place};

/// The end of the log. Older operations are read back from disk.
#[derive(Debug)]
pub(super) struct Held {
    /// Consecutive, never empty; the first is the commit place (or the place that the log begins after), the last is the
    /// last of the log.
    places: VecDeque<Place>,
    /// Consecutive, ending with the last of the log.
    recent: VecDeque<Operation>,
    recent_bytes: usize,
}

impl Held {
    /// Of a log with nothing behind that place.
    pub(super) fn at(place: Place) -> Self {
        Self::recovered(VecDeque::from([place]))
    }

    /// Of a log on disk: its places from the commit place to the last, at least one, without their operations.
    pub(super) fn recovered(places: VecDeque<Place>) -> Self {
        assert!(!places.is_empty(), "there is always the commit place");
        Self {
            places,
            recent: VecDeque::new(),
            recent_bytes: 0,
        }
    }

    /// The last operation's place.
    pub(super) fn last(&self) -> Place {
        *self.places.back().expect("there is always the commit place")
    }

    /// Where `index` stands: known from the commit index on.
    pub(super) fn place(&self, index: OperationIndex) -> Option<Place> {
        let first = self.places.front()?.index;
        self.places.get(position(first, index)?).copied()
    }

    /// First index whose operation is in memory; one beyond the last if none is.
    pub(super) fn recent_from(&self) -> OperationIndex {
        self.recent
            .front()
            .map_or(self.last().index + 1, |operation| operation.index)
    }

    /// Bytes of the operations in memory.
    pub(super) fn recent_bytes(&self) -> usize {
        self.recent_bytes
    }

    /// Takes the next operation.
    pub(super) fn push(&mut self, operation: Operation) {
        assert_eq!(operation.index, self.last().index + 1, "the log is dense");
        self.places.push_back(operation.place());
        self.recent_bytes += operation.weight();
        self.recent.push_back(operation);
    }

    /// Drops `from` and all after it, which must lie above the commit index; answers the operations that were in memory.
    pub(super) fn truncate(&mut self, from: OperationIndex) -> Vec<Operation> {
        while self.last().index >= from {
            assert!(self.places.len() > 1, "what is committed is never dropped");
            self.places.pop_back();
        }
        let mut dropped = Vec::new();
        while self
            .recent
            .back()
            .is_some_and(|operation| operation.index >= from)
        {
            let operation = self.recent.pop_back().expect("it is there");
            self.recent_bytes -= operation.weight();
            dropped.push(operation);
        }
        dropped
    }

    /// Makes `index` the first place that is known.
    pub(super) fn forget_places_below(&mut self, index: OperationIndex) {
        while self.places.len() > 1 && self.places.front().is_some_and(|place| place.index < index) {
            self.places.pop_front();
        }
    }

    /// Lets go of the oldest operations beyond `bytes`, but of none above `persisted`.
    pub(super) fn evict(&mut self, bytes: usize, persisted: OperationIndex) {
        while self.recent_bytes > bytes && self.recent.front().is_some_and(|first| first.index <= persisted) {
            let operation = self.recent.pop_front().expect("it is there");
            self.recent_bytes -= operation.weight();
        }
    }

    /// Operations from `first` to `last`; `None` unless all of them are in memory.
    pub(super) fn range(
        &self,
        first: OperationIndex,
        last: OperationIndex,
    ) -> Option<impl Iterator<Item = &Operation>> {
        let from = position(self.recent.front()?.index, first)?;
        let to = position(self.recent.front()?.index, last)?;
        (from <= to && to < self.recent.len()).then(|| self.recent.range(from..=to))
    }
}

fn position(first: OperationIndex, index: OperationIndex) -> Option<usize> {
    usize::try_from(index.checked_sub(first)?).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn held(last: u64) -> Held {
        let mut held = Held::at(Place::default());
        for index in 1..=last {
            held.push(Operation {
                index,
                term: 1,
                running_hash: index,
                data: Bytes::from_static(b"x"),
            });
        }
        held
    }

    fn indexes(held: &Held, first: u64, last: u64) -> Option<Vec<u64>> {
        held.range(first, last)
            .map(|range| range.map(|operation| operation.index).collect())
    }

    #[test]
    fn a_range_is_all_there_or_none() {
        let mut held = held(5);
        assert_eq!(indexes(&held, 2, 4), Some(vec![2, 3, 4]));
        assert_eq!(indexes(&held, 2, 6), None);
        held.evict(0, 2);
        assert_eq!(indexes(&held, 2, 4), None);
        assert_eq!(indexes(&held, 3, 5), Some(vec![3, 4, 5]));
        assert_eq!(held.recent_from(), 3);
    }

    #[test]
    fn nothing_above_the_persisted_index_is_let_go() {
        let mut held = held(5);
        held.evict(0, 3);
        assert_eq!(held.recent_from(), 4);
        held.evict(0, 5);
        assert_eq!((held.recent_from(), held.recent_bytes()), (6, 0));
        assert_eq!(held.last().index, 5);
    }

    #[test]
    fn truncation_drops_places_and_operations() {
        let mut held = held(5);
        held.forget_places_below(2);
        assert_eq!(held.truncate(4).len(), 2);
        assert_eq!(held.last().index, 3);
        assert_eq!((held.place(1), held.place(4)), (None, None));
        assert_eq!(held.place(2).map(|place| place.running_hash), Some(2));
    }

    #[test]
    #[should_panic(expected = "what is committed is never dropped")]
    fn truncation_of_what_is_committed_is_a_bug() {
        let mut held = held(5);
        held.forget_places_below(3);
        held.truncate(3);
    }
}
