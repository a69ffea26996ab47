//! What came of operations, for clients that wait for it: kept in memory by operation index, within bounds, the oldest out first
//! (design 6.4). A replicator that is started again has none, as what is executed is not executed again for its result.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use raftlog_proto::RESULT_BYTES_MAX;
use raftlog_proto::v1::OperationResult;
use raftlog_raft::ids::OperationIndex;

/// Bytes of results that are kept.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Results in one message, in bytes.
const MESSAGE_BYTES: usize = 1 << 20;
/// What a result takes besides its bytes, about.
const FIXED_BYTES: usize = 64;

/// Clones share the same results.
#[derive(Debug, Clone, Default)]
pub(in crate::runtime) struct Results {
    kept: Arc<Mutex<Kept>>,
    metrics: Metrics,
}

#[derive(Debug, Clone, Default)]
struct Metrics {
    bytes: Gauge,
    dropped: Counter,
    too_long: Counter,
}

/// In order, with gaps where nothing came of an operation.
#[derive(Debug, Default)]
struct Kept {
    results: VecDeque<(OperationIndex, Bytes)>,
    bytes: usize,
}

impl Kept {
    fn drop_first(&mut self) -> bool {
        let Some((_, result)) = self.results.pop_front() else {
            return false;
        };
        self.bytes -= result.len() + FIXED_BYTES;
        true
    }

    fn get(&self, index: OperationIndex) -> Option<Bytes> {
        let at = self
            .results
            .binary_search_by_key(&index, |(index, _)| *index)
            .ok()?;
        self.results.get(at).map(|(_, result)| result.clone())
    }

    /// An executor that has gone back does it again.
    fn put(&mut self, index: OperationIndex, result: Bytes) {
        while let Some((_, again)) = self.results.pop_back_if(|(last, _)| *last >= index) {
            self.bytes -= again.len() + FIXED_BYTES;
        }
        self.bytes += result.len() + FIXED_BYTES;
        self.results.push_back((index, result));
    }
}

impl Results {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what came of operations, whose indexes ascend. A result that is too long is not kept.
    pub(super) fn put(&self, results: impl IntoIterator<Item = (OperationIndex, Bytes)>) {
        let mut kept = self.kept();
        for (index, result) in results {
            if result.len() > RESULT_BYTES_MAX {
                self.metrics.too_long.inc();
                continue;
            }
            kept.put(index, result);
            while kept.bytes > KEPT_BYTES_MAX && kept.drop_first() {
                self.metrics.dropped.inc();
            }
        }
        let bytes = i64::try_from(kept.bytes).unwrap_or(i64::MAX);
        self.metrics.bytes.set(bytes);
    }

    /// What can be answered of what is wanted now that everything up to there is executed, in messages of a bounded size.
    pub(in crate::runtime) fn answers(
        &self,
        wanted: &mut Wanted,
        executed: OperationIndex,
    ) -> Vec<Vec<OperationResult>> {
        let now = wanted.take(executed);
        if now.is_empty() {
            return Vec::new();
        }
        let kept = self.kept();
        let (mut messages, mut message, mut bytes) = (Vec::new(), Vec::new(), 0);
        for index in now {
            let result = kept.get(index);
            let available = result.is_some();
            let result = result.unwrap_or_default();
            bytes += result.len() + FIXED_BYTES;
            if bytes > MESSAGE_BYTES && !message.is_empty() {
                messages.push(std::mem::take(&mut message));
                bytes = result.len() + FIXED_BYTES;
            }
            message.push(OperationResult {
                index,
                available,
                result,
            });
        }
        messages.push(message);
        messages
    }

    pub(in crate::runtime) fn register(&self, registry: &mut Registry) {
        let help = "Results of operations that are kept";
        let bytes = self.metrics.bytes.clone();
        registry.register("raft_replicator_results_bytes", help, bytes);
        let help = "Results that made room for newer ones";
        let dropped = self.metrics.dropped.clone();
        registry.register("raft_replicator_results_dropped", help, dropped);
        let help = "Results that were longer than what is kept of one";
        let too_long = self.metrics.too_long.clone();
        registry.register("raft_replicator_results_too_long", help, too_long);
    }
}

/// Results that a node waits for on its stream.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Wanted {
    indexes: BTreeSet<OperationIndex>,
}

impl Wanted {
    /// What a stream may wait for; a node that asks for more has lost count.
    pub(super) const MAX: usize = 1 << 16;

    /// Whether there was room.
    pub(in crate::runtime) fn add(&mut self, indexes: impl IntoIterator<Item = OperationIndex>) -> bool {
        self.indexes.extend(indexes);
        self.indexes.len() <= Self::MAX
    }

    pub(in crate::runtime) fn len(&self) -> usize {
        self.indexes.len()
    }

    /// What can be answered now, as everything up to there is executed.
    pub(super) fn take(&mut self, executed: OperationIndex) -> BTreeSet<OperationIndex> {
        if self.indexes.first().is_none_or(|first| *first > executed) {
            return BTreeSet::new();
        }
        let later = self.indexes.split_off(&(executed + 1));
        std::mem::replace(&mut self.indexes, later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(bytes: usize) -> Bytes {
        vec![b'r'; bytes].into()
    }

    #[test]
    fn results_are_found_by_index_and_the_last_one_counts() {
        let results = Results::default();
        results.put([(1, result(1)), (3, result(3)), (4, result(4))]);
        results.put([(3, result(30))]);
        for (index, expected) in [(0, None), (1, Some(1)), (2, None), (3, Some(30)), (4, None)] {
            assert_eq!(
                results.kept().get(index).map(|found| found.len()),
                expected,
                "{index}"
            );
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_makes_room() {
        let results = Results::default();
        results.put([(1, result(RESULT_BYTES_MAX + 1))]);
        assert_eq!(results.kept().get(1), None);
        let fit = KEPT_BYTES_MAX / (RESULT_BYTES_MAX + FIXED_BYTES);
        let last = u64::try_from(fit).unwrap() + 10;
        results.put((1..=last).map(|index| (index, result(RESULT_BYTES_MAX))));
        assert_eq!(results.kept().get(10), None);
        assert!(results.kept().get(11).is_some() && results.kept().get(last).is_some());
        assert!(results.kept().bytes <= KEPT_BYTES_MAX);
    }

    #[test]
    fn a_result_is_told_once_its_operation_is_executed() {
        let mut wanted = Wanted::default();
        assert!(wanted.add([5, 2, 9]));
        for (executed, expected) in [(1, &[][..]), (4, &[2]), (5, &[5]), (8, &[]), (20, &[9])] {
            let now: Vec<_> = wanted.take(executed).into_iter().collect();
            assert_eq!(now, expected, "{executed}");
        }
        assert!(!wanted.add(0..=u64::try_from(Wanted::MAX).unwrap()));
    }
}
