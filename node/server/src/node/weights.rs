//! How much of the disk the log takes between two of its entries, about: what decides on snapshots, and when the log is as long
//! as it may be. A few marks are enough for that.
//!
//! It is what entries weigh, and what batches take besides: of small operations one by one, that is the most.

use std::collections::VecDeque;

use raftlog_raft::entry::Entry;
use raftlog_raft::ids::LogIndex;

/// Sums of what entries weigh and what batches take besides, to the grain of a stride. What was truncated counts no more, though it
/// stays on disk until its segment goes: that is little, as it takes an election each time.
#[derive(Debug)]
pub(super) struct Weights {
    stride: u64,
    /// All up to and with an entry weigh so much; the first is the base.
    marks: VecDeque<(LogIndex, u64)>,
    total: u64,
    /// Bytes besides entries that are in the total.
    besides: u64,
}

impl Weights {
    /// Of a log that begins behind `base`, with a mark every so many bytes.
    pub(super) fn new(base: LogIndex, stride: u64) -> Self {
        Self {
            stride: stride.max(1),
            marks: VecDeque::from([(base, 0)]),
            total: 0,
            besides: 0,
        }
    }

    pub(super) fn push(&mut self, entry: &Entry) {
        self.total += entry.weight() as u64;
        if self.total >= self.through(LogIndex::MAX) + self.stride {
            self.marks.push_back((entry.log_index, self.total));
        }
    }

    /// Since it was opened, so many bytes were written besides entries.
    pub(super) fn has_written_besides(&mut self, bytes: u64) {
        self.total += bytes.saturating_sub(self.besides);
        self.besides = self.besides.max(bytes);
    }

    /// The entries that were pushed when the log was opened take about so many bytes of batches, one as much as the other.
    pub(super) fn stretch_to(&mut self, bytes: u64) {
        let first = self.through(0);
        let weight = self.total - first;
        if bytes <= weight || weight == 0 {
            return;
        }
        let stretched = |total: u64| {
            let part = u128::from(total - first) * u128::from(bytes) / u128::from(weight);
            first + u64::try_from(part).expect("a part of what the log takes is no more than that")
        };
        for (_, total) in &mut self.marks {
            *total = stretched(*total);
        }
        self.total = first + bytes;
    }

    /// Entries from that index on are no more.
    pub(super) fn truncate(&mut self, from: LogIndex) {
        let mut cut = false;
        while self.marks.len() > 1 && self.marks.pop_back_if(|(index, _)| *index >= from).is_some() {
            cut = true;
        }
        if cut {
            self.total = self.through(LogIndex::MAX);
        }
    }

    /// The log begins behind that index, and is empty.
    pub(super) fn start_from(&mut self, base: LogIndex) {
        self.marks = VecDeque::from([(base, self.total)]);
    }

    /// Entries up to that index are no more.
    pub(super) fn compact(&mut self, base: LogIndex) {
        while self.marks.get(1).is_some_and(|(index, _)| *index <= base) {
            self.marks.pop_front();
        }
    }

    /// What all up to that entry weigh that was ever counted, less a stride at most.
    fn through(&self, index: LogIndex) -> u64 {
        let beyond = self.marks.partition_point(|(mark, _)| *mark <= index);
        let before = beyond.checked_sub(1).and_then(|at| self.marks.get(at));
        before.or(self.marks.front()).map_or(0, |(_, total)| *total)
    }

    /// What the entries after the first, through the second, weigh.
    pub(super) fn between(&self, after: LogIndex, through: LogIndex) -> u64 {
        self.through(through).saturating_sub(self.through(after))
    }

    /// What all that are left weigh.
    pub(super) fn all(&self) -> u64 {
        self.total - self.through(0)
    }
}

#[cfg(test)]
mod tests {
    use raftlog_raft::entry::Payload;

    use super::*;

    fn entry(log_index: LogIndex) -> Entry {
        Entry {
            log_index,
            term: 1,
            operation_index: 0,
            running_hash: 0,
            payload: Payload::Noop,
        }
    }

    #[test]
    fn weights_follow_the_log() {
        let one = entry(1).weight() as u64;
        let mut weights = Weights::new(10, 2 * one);
        for index in 11..=30 {
            weights.push(&entry(index));
        }
        assert_eq!(weights.all(), 20 * one);
        assert_eq!(weights.between(10, 20), 10 * one);
        assert_eq!(weights.between(11, 19), 8 * one, "to the grain of a stride");
        weights.compact(20);
        assert_eq!(weights.all(), 10 * one);
        assert_eq!(weights.between(20, 30), 10 * one);
        weights.truncate(25);
        assert_eq!(weights.all(), 4 * one);
        weights.truncate(21);
        assert_eq!(weights.all(), 0);
        weights.push(&entry(21));
        assert_eq!(weights.all(), one);
        weights.start_from(40);
        assert_eq!(weights.all(), 0);
        weights.push(&entry(41));
        assert_eq!(weights.all(), one);
    }

    #[test]
    fn batches_weigh_too() {
        let one = entry(1).weight() as u64;
        let mut weights = Weights::new(10, one);
        for index in 11..=20 {
            weights.push(&entry(index));
            weights.has_written_besides((index - 10) * 500);
        }
        assert_eq!(weights.all(), 10 * (one + 500));
        weights.has_written_besides(5_000);
        assert_eq!(weights.all(), 10 * (one + 500), "each byte once");
        weights.compact(15);
        let left = weights.all();
        assert!((5 * (one + 500)..6 * (one + 500)).contains(&left), "{left}");
    }

    #[test]
    fn what_is_found_on_disk_is_spread_over_the_entries() {
        let one = entry(1).weight() as u64;
        let mut weights = Weights::new(10, 2 * one);
        for index in 11..=30 {
            weights.push(&entry(index));
        }
        weights.stretch_to(19 * one);
        assert_eq!(weights.all(), 20 * one, "it takes no less than they weigh");
        weights.stretch_to(200 * one);
        assert_eq!(weights.all(), 200 * one);
        assert_eq!(weights.between(10, 20), 100 * one);
        weights.compact(20);
        assert_eq!(weights.all(), 100 * one);
        let mut empty = Weights::new(10, one);
        empty.stretch_to(500);
        assert_eq!(empty.all(), 0, "nothing to compact");
    }
}
