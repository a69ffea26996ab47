//! The log as the core sees it: terms and operation indexes of everything beyond its base, the entries of the recent part, and
//! the fold at its end. Entries that are no longer here are read back from storage; what is at or below the base is in a
//! snapshot.

use std::collections::VecDeque;

use crate::entry::Entry;
use crate::feature::FeatureLevel;
use crate::fold::{Fold, Mismatch, Undo};
use crate::ids::{LogIndex, OperationIndex, Term};
use crate::membership::Configuration;
use crate::message::LogPosition;
use crate::planted::{Bug, Planted};

/// Entries of one term of which only the first may be of another kind than an operation, so that operation indexes within
/// are counted off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: LogIndex,
    term: Term,
    /// Operation index of the first entry.
    operation_index: OperationIndex,
}

/// Where a log begins: after this entry, which was committed and is in a snapshot. The default is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Base {
    /// Index and term of the entry.
    pub position: LogPosition,
    /// Operations up to and with it.
    pub operation_index: OperationIndex,
    /// [`crate::fold::running_hash`] over them.
    pub running_hash: u64,
}

impl Base {
    /// After the entry at that position, up to which the log adds up to that fold.
    pub fn new(position: LogPosition, fold: &Fold) -> Self {
        Self {
            position,
            operation_index: fold.operation_index,
            running_hash: fold.running_hash,
        }
    }
}

/// The log.
#[derive(Debug)]
pub struct Log {
    base: Base,
    /// Those of entries after the base.
    spans: Vec<Span>,
    last: LogPosition,
    /// The entries that end at `last`; all of those that are not settled, and as many more as fit.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    recent_bytes_max: usize,
    fold: Fold,
    /// One for each entry after `settled`.
    undo: VecDeque<Undo>,
    /// Committed as far as here: never truncated.
    settled: LogIndex,
    unsettled_bytes: usize,
    planted: Planted,
}

impl Log {
    /// An empty log over the fold of a cluster's beginning, which keeps about so many bytes of settled entries in memory.
    pub fn new(fold: Fold, recent_bytes_max: usize) -> Self {
        Self::over(LogPosition::default(), fold, recent_bytes_max)
    }

    /// A log of which a snapshot holds all up to `position`, where it adds up to that fold.
    pub fn over(position: LogPosition, fold: Fold, recent_bytes_max: usize) -> Self {
        Self {
            base: Base::new(position, &fold),
            spans: Vec::new(),
            last: position,
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_bytes_max,
            fold,
            undo: VecDeque::new(),
            settled: position.index,
            unsettled_bytes: 0,
            planted: Planted::default(),
        }
    }

    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// After which entry it begins.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Index and term of the last entry.
    pub fn last(&self) -> LogPosition {
        self.last
    }

    /// The fold of the whole log, its uncommitted tail included.
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// The configuration of the committed prefix.
    pub fn settled_configuration(&self) -> &Configuration {
        let mut configuration = &self.fold.configuration;
        while configuration.version > self.settled {
            let at = usize::try_from(configuration.version - self.settled - 1).ok();
            let undo = at.and_then(|at| self.undo.get(at));
            configuration = undo
                .and_then(Undo::configuration)
                .expect("the entry of a configuration that is not settled can be undone");
        }
        configuration
    }

    /// The feature level of the committed prefix.
    pub fn settled_feature_level(&self) -> FeatureLevel {
        let first = self.undo.front();
        first.map_or(self.fold.feature_level, Undo::feature_level)
    }

    /// The execution progress mark of the committed prefix.
    pub fn settled_executed_through(&self) -> OperationIndex {
        let first = self.undo.front();
        first.map_or(self.fold.executed_through, Undo::executed_through)
    }

    /// Follows the rules of that level from here on, whatever the log says: a bug.
    pub(crate) fn adopt(&mut self, level: FeatureLevel) {
        self.fold.feature_level = self.fold.feature_level.max(level);
    }

    /// Committed as far as here.
    pub fn settled(&self) -> LogIndex {
        self.settled
    }

    /// Weight of the entries after the settled ones.
    pub fn unsettled_bytes(&self) -> usize {
        self.unsettled_bytes
    }

    /// Weight of the entries in memory.
    pub fn recent_bytes(&self) -> usize {
        self.recent_bytes
    }

    /// Appends an entry from elsewhere: another member or the disk.
    pub fn append(&mut self, entry: Entry) -> Result<(), Mismatch> {
        self.fold.check(&entry)?;
        self.push(entry);
        Ok(())
    }

    /// Appends an entry that [`Fold::next_entry`] made.
    pub fn push(&mut self, entry: Entry) {
        assert_eq!(
            entry.log_index,
            self.last.index + 1,
            "entries are appended one after the other"
        );
        assert!(entry.term >= self.last.term, "terms never go back along a log");
        if self.spans.is_empty() || self.last.term != entry.term || !entry.is_operation() {
            self.spans.push(Span {
                first: entry.log_index,
                term: entry.term,
                operation_index: entry.operation_index,
            });
        }
        self.undo.push_back(self.fold.apply(&entry));
        self.last = LogPosition {
            index: entry.log_index,
            term: entry.term,
        };
        self.unsettled_bytes += entry.weight();
        self.recent_bytes += entry.weight();
        self.recent.push_back(entry);
    }

    /// Drops everything from that index on, and rewinds the fold.
    pub fn truncate(&mut self, from: LogIndex) {
        assert!(
            from > self.settled,
            "committed entries are never truncated: {from} is at or below {}",
            self.settled
        );
        while self.last.index >= from {
            let entry = self
                .recent
                .pop_back()
                .expect("entries that are not settled are in memory");
            let mut undo = self
                .undo
                .pop_back()
                .expect("every entry that is not settled can be undone");
            if self.planted.has(Bug::SessionsNotRewound) {
                undo.forget_session();
            }
            if self.planted.has(Bug::ConfigurationNotRewound) {
                undo.forget_configuration();
            }
            if self.planted.has(Bug::LevelNotRewound) {
                undo.keep_feature_level(&self.fold);
            }
            self.fold.revert(undo);
            self.recent_bytes -= entry.weight();
            self.unsettled_bytes -= entry.weight();
            if self
                .spans
                .last()
                .is_some_and(|span| span.first == entry.log_index)
            {
                self.spans.pop();
            }
            let index = entry.log_index - 1;
            self.last = LogPosition {
                index,
                term: self
                    .spans
                    .last()
                    .map_or(self.base.position.term, |span| span.term),
            };
        }
    }

    /// Everything up to that index is committed.
    pub fn settle(&mut self, through: LogIndex) {
        assert!(through <= self.last.index, "what is committed is in the log");
        while self.settled < through {
            self.undo.pop_front();
            let weight = self.recent_at(self.settled + 1).map_or(0, Entry::weight);
            self.unsettled_bytes -= weight;
            self.settled += 1;
        }
    }

    /// Lets go of old entries beyond the limit of memory; those after `through` are kept, whatever they weigh.
    pub fn evict(&mut self, through: LogIndex) {
        let through = through.min(self.settled);
        while self.recent_bytes > self.recent_bytes_max {
            let Some(entry) = self.recent.pop_front_if(|entry| entry.log_index <= through) else {
                break;
            };
            self.recent_bytes -= entry.weight();
        }
    }

    /// A snapshot holds everything up to there: lets go of it. Nothing happens at or below the base.
    pub fn compact_to(&mut self, base: Base) {
        let index = base.position.index;
        if index <= self.base.position.index {
            return;
        }
        assert!(
            index <= self.settled,
            "only what is committed is compacted: {index} is beyond {}",
            self.settled
        );
        let held = (self.term_at(index), self.operation_index_at(index));
        assert_eq!(
            held,
            (Some(base.position.term), base.operation_index),
            "a snapshot is of this very log"
        );
        self.drop_spans_through(index);
        while let Some(entry) = self.recent.pop_front_if(|entry| entry.log_index <= index) {
            self.recent_bytes -= entry.weight();
        }
        self.base = base;
    }

    /// Of a span that goes on behind `index` what is behind it stays.
    fn drop_spans_through(&mut self, index: LogIndex) {
        let begun = self.spans.partition_point(|span| span.first <= index);
        let ends = self
            .spans
            .get(begun)
            .map_or(self.last.index, |next| next.first - 1);
        let mut gone = begun;
        if let Some(span) = begun.checked_sub(1).and_then(|at| self.spans.get_mut(at))
            && ends > index
        {
            // All of a span but its first entry are operations.
            span.operation_index += index + 1 - span.first;
            span.first = index + 1;
            gone -= 1;
        }
        self.spans.drain(..gone);
        // Spans come and go with terms and sessions: a log that was long gives its memory back.
        self.spans.shrink_to(self.spans.len().saturating_mul(2));
    }

    fn span_of(&self, index: LogIndex) -> Option<&Span> {
        let after = self.spans.partition_point(|span| span.first <= index);
        if index > self.last.index {
            None
        } else {
            self.spans.get(after.checked_sub(1)?)
        }
    }

    /// The term of the entry at that index, the base included (0 at index 0); `None` below the base and beyond the log.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.position.index {
            Some(self.base.position.term)
        } else {
            self.span_of(index).map(|span| span.term)
        }
    }

    /// Operations up to and with that index, which is neither below the base nor beyond the log.
    pub fn operation_index_at(&self, index: LogIndex) -> OperationIndex {
        assert!(
            (self.base.position.index..=self.last.index).contains(&index),
            "asked for {index} of a log from {} to {}",
            self.base.position.index,
            self.last.index
        );
        self.span_of(index).map_or(self.base.operation_index, |span| {
            span.operation_index + (index - span.first)
        })
    }

    /// The running hash up to and with that index, where memory tells it.
    pub fn running_hash_at(&self, index: LogIndex) -> Option<u64> {
        if index == self.base.position.index {
            return Some(self.base.running_hash);
        }
        if index == self.last.index {
            return Some(self.fold.running_hash);
        }
        self.entry(index).map(|entry| entry.running_hash)
    }

    /// The log index of that operation; `None` where the log has no such, as at and below the base.
    pub fn log_index_of(&self, operation: OperationIndex) -> Option<LogIndex> {
        if operation <= self.base.operation_index || operation > self.fold.operation_index {
            return None;
        }
        let next = self
            .spans
            .partition_point(|span| span.operation_index < operation);
        let in_previous = next
            .checked_sub(1)
            .and_then(|at| self.spans.get(at))
            .map(|span| span.first + (operation - span.operation_index));
        match (in_previous, self.spans.get(next)) {
            (Some(index), Some(following)) if index >= following.first => Some(following.first),
            (Some(index), _) => Some(index),
            (None, Some(following)) => Some(following.first),
            (None, None) => None,
        }
    }

    /// Whether a log that ends there is at least as up to date as this one (Raft 5.4.1).
    pub fn is_up_to_date(&self, other: LogPosition) -> bool {
        (other.term, other.index) >= (self.last.term, self.last.index)
    }

    /// The highest index up to `index` whose term is at most `term`: where two logs may agree at best (Raft 5.3). Where that
    /// is below the base, which nobody knows more of here, the index is too, and the term is 0.
    pub fn agreement_hint(&self, index: LogIndex, term: Term) -> LogPosition {
        let index = index.min(self.last.index);
        let base = self.base.position;
        if index < base.index || term < base.term {
            let index = index.min(base.index.saturating_sub(1));
            return LogPosition { index, term: 0 };
        }
        let spans = self
            .spans
            .partition_point(|span| span.first <= index && span.term <= term);
        let end = self
            .spans
            .get(spans)
            .map_or(index, |next| index.min(next.first - 1));
        LogPosition {
            index: end,
            term: self.term_at(end).unwrap_or(0),
        }
    }

    fn recent_at(&self, index: LogIndex) -> Option<&Entry> {
        let first = self.recent.front()?.log_index;
        self.recent.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// The entry at that index, if it is in memory.
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.recent_at(index)
    }

    /// Entries from `first` through `last`, at least one and then as many as weigh at most `bytes_max`; `None` where the
    /// first is not in memory any more.
    pub fn entries(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Option<Vec<Entry>> {
        let from = usize::try_from(first.checked_sub(self.recent.front()?.log_index)?).ok()?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.recent.range(from.min(self.recent.len())..) {
            bytes += entry.weight();
            if entry.log_index > last || (bytes > bytes_max && !entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
        }
        (!entries.is_empty()).then_some(entries)
    }
}

/// Damage, for tests.
#[cfg(test)]
impl Log {
    /// A bit flips in what the log is believed to add up to.
    pub(crate) fn flip_hash(&mut self) {
        self.fold.running_hash ^= 1 << 17;
    }

    /// A bit flips in the last entry's operation.
    pub(crate) fn flip_data(&mut self) {
        use crate::entry::Payload;
        let entry = self.recent.back_mut().expect("there is one");
        let Payload::Operation(operation) = &mut entry.payload else {
            panic!("the last entry is no operation");
        };
        let mut data = operation.data.to_vec();
        data[0] ^= 1;
        operation.data = data.into();
    }

    /// All that is settled is on disk only.
    pub(crate) fn forget_recent(&mut self) {
        self.recent_bytes_max = 0;
        self.evict(self.settled);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Operation, Payload};

    fn payload(kind: u8) -> Payload {
        match kind {
            0 => Payload::Noop,
            1 => Payload::SessionOpened,
            _ => Payload::Operation(Operation {
                data: "op".into(),
                session: None,
            }),
        }
    }

    fn log_of(kinds: &[(Term, u8)]) -> Log {
        let mut log = Log::new(Fold::default(), 1 << 20);
        for &(term, kind) in kinds {
            log.push(log.fold().next_entry(log.last().index + 1, term, payload(kind)));
        }
        log
    }

    fn kinds() -> impl Strategy<Value = Vec<(Term, u8)>> {
        proptest::collection::vec((0..2u64, 0..5u8), 0..40).prop_map(|steps| {
            let mut term = 1;
            steps
                .into_iter()
                .map(|(step, kind)| {
                    term += step;
                    (term, kind)
                })
                .collect()
        })
    }

    /// A log and one that was compacted at an index up to which it is settled.
    fn compacted(kinds: &[(Term, u8)], at: LogIndex) -> (Log, Log) {
        let (mut whole, mut log) = (log_of(kinds), log_of(kinds));
        let index = at.min(log.last().index);
        whole.settle(index);
        log.settle(index);
        let hash = whole.entry(index).map_or(0, |entry| entry.running_hash);
        let position = LogPosition {
            index,
            term: whole.term_at(index).unwrap(),
        };
        log.compact_to(Base {
            position,
            operation_index: whole.operation_index_at(index),
            running_hash: hash,
        });
        (whole, log)
    }

    proptest! {
        #[test]
        fn terms_and_operation_indexes_are_those_of_the_entries(kinds in kinds(), cut in 1..40u64) {
            let mut log = log_of(&kinds);
            if cut <= log.last().index {
                log.truncate(cut);
            }
            let kept = usize::try_from(log.last().index).unwrap();
            prop_assert_eq!(kept, kinds.len().min(usize::try_from(cut).unwrap() - 1));
            let mut operations = 0;
            for (at, &(term, kind)) in (1..).zip(&kinds[..kept]) {
                operations += u64::from(kind > 1);
                prop_assert_eq!(log.term_at(at), Some(term));
                prop_assert_eq!(log.operation_index_at(at), operations);
                if kind > 1 {
                    prop_assert_eq!(log.log_index_of(operations), Some(at));
                }
            }
            prop_assert_eq!(log.log_index_of(operations + 1), None);
            prop_assert_eq!(log.fold().operation_index, operations);
            prop_assert_eq!(log.term_at(log.last().index + 1), None);
        }

        #[test]
        fn a_compacted_log_answers_as_before_from_its_base_on(
            kinds in kinds(), at in 0..40u64, more in kinds(), cut in 1..40u64,
        ) {
            let (mut whole, mut log) = compacted(&kinds, at);
            let base = *log.base();
            if cut <= whole.last().index && cut > whole.settled() {
                whole.truncate(cut);
                log.truncate(cut);
            }
            let term = whole.last().term;
            for (step, kind) in more {
                for log in [&mut whole, &mut log] {
                    let next = log.fold().next_entry(log.last().index + 1, term + step, payload(kind));
                    log.push(next);
                }
            }
            prop_assert_eq!((log.last(), log.fold()), (whole.last(), whole.fold()));
            prop_assert_eq!(log.recent_bytes(), log.recent.iter().map(Entry::weight).sum::<usize>());
            for index in 0..whole.last().index + 2 {
                let inside = index >= base.position.index;
                prop_assert_eq!(log.term_at(index), whole.term_at(index).filter(|_| inside), "{}", index);
                prop_assert_eq!(log.entry(index), whole.entry(index).filter(|_| index > base.position.index));
                if inside && index <= whole.last().index {
                    prop_assert_eq!(log.operation_index_at(index), whole.operation_index_at(index));
                }
                for term in 0..whole.last().term + 2 {
                    let (hint, best) = (log.agreement_hint(index, term), whole.agreement_hint(index, term));
                    if best.index >= base.position.index {
                        prop_assert_eq!(hint, best);
                    } else {
                        prop_assert!(hint.index >= best.index && hint.index < base.position.index && hint.term == 0);
                    }
                }
            }
            for operation in 0..whole.fold().operation_index + 2 {
                let beyond = operation > base.operation_index;
                prop_assert_eq!(log.log_index_of(operation), whole.log_index_of(operation).filter(|_| beyond));
            }
        }

        #[test]
        fn a_log_over_a_base_is_that_of_the_entries_behind_it(kinds in kinds(), at in 0..40u64) {
            let (whole, compacted) = compacted(&kinds, at);
            let base = *compacted.base();
            let mut fold = Fold::default();
            for index in 1..=base.position.index {
                fold.apply(whole.entry(index).unwrap());
            }
            let mut log = Log::over(base.position, fold, 1 << 20);
            prop_assert_eq!(*log.base(), base);
            for index in base.position.index + 1..=whole.last().index {
                prop_assert_eq!(log.append(whole.entry(index).unwrap().clone()), Ok(()));
            }
            prop_assert_eq!((&log.spans, log.last(), log.settled()), (&compacted.spans, whole.last(), base.position.index));
            prop_assert_eq!(log.fold(), whole.fold());
            if log.last().index > base.position.index {
                log.truncate(base.position.index + 1);
                prop_assert_eq!(log.last(), base.position);
            }
        }

        #[test]
        fn the_hint_is_the_highest_place_of_a_term_not_above(kinds in kinds(), index in 0..45u64, term in 0..20u64) {
            let log = log_of(&kinds);
            let hint = log.agreement_hint(index, term);
            let best = (0..=index.min(log.last().index)).rev().find(|&at| log.term_at(at).unwrap() <= term).unwrap();
            prop_assert_eq!(hint, LogPosition { index: best, term: log.term_at(best).unwrap() });
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_not_settled_stays() {
        let mut log = Log::new(Fold::default(), 300);
        for _ in 0..10 {
            log.push(log.fold().next_entry(log.last().index + 1, 1, payload(2)));
        }
        log.evict(10);
        assert!(log.entries(1, 10, usize::MAX).is_some(), "nothing is settled");
        log.settle(9);
        log.evict(8);
        assert!(log.recent_bytes() <= 300);
        assert!(log.entries(1, 10, usize::MAX).is_none());
        assert_eq!(log.entries(9, 10, usize::MAX).unwrap().len(), 2);
        assert_eq!(log.entries(9, 10, 1).unwrap().len(), 1, "at least one");
        assert_eq!(log.unsettled_bytes(), log.entry(10).unwrap().weight());
    }

    #[test]
    #[should_panic(expected = "committed entries are never truncated")]
    fn committed_entries_are_not_truncated() {
        let mut log = log_of(&[(1, 2), (1, 2)]);
        log.settle(2);
        log.truncate(2);
    }

    #[test]
    fn the_memory_of_what_is_compacted_is_given_back() {
        let kinds: Vec<(Term, u8)> = (1..=1_000).map(|term| (term, 1)).collect();
        let (whole, log) = compacted(&kinds, 990);
        assert_eq!((whole.spans.len(), log.spans.len()), (1_000, 10));
        assert!(log.spans.capacity() < 100);
        assert_eq!(log.entries(991, 1_000, usize::MAX).unwrap().len(), 10);
        assert_eq!(log.entries(990, 1_000, usize::MAX), None);
    }

    #[test]
    #[should_panic(expected = "only what is committed is compacted")]
    fn what_is_not_settled_is_not_compacted() {
        let mut log = log_of(&[(1, 2), (1, 2)]);
        log.settle(1);
        let position = LogPosition { index: 2, term: 1 };
        log.compact_to(Base::new(position, &log.fold().clone()));
    }
}
