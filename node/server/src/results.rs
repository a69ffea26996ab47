//! Results of operations, which this node's replicator has, for the clients that wait for them (design 6.4).
//!
//! Whoever waits names an operation that is committed; the replicator is asked at once and answers when the operation is executed, so
//! that nothing is asked again and again. Where the stream to it breaks, all that is without an answer is asked for on the next one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use raftlog_raft::ids::OperationIndex;
use tokio::sync::{Notify, oneshot};

use crate::metrics::Level;

/// Clients that may wait at once.
pub(crate) const WAITING_MAX: usize = 1 << 15;
/// Operations that the replicator may owe an answer; it takes no more on a stream.
const OWED_MAX: usize = 1 << 16;
/// Operations that the replicator is asked for in one message.
const ASKED_MAX: usize = 4_096;

type Answer = oneshot::Sender<Option<Bytes>>;

/// Clones share the same clients.
#[derive(Debug, Clone)]
pub(crate) struct Results {
    waiting: Arc<Mutex<Waiting>>,
    /// There is something to ask for.
    asks: Arc<Notify>,
    count: Level,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Of clients. None is left of an operation that the replicator was asked for, and they waited no longer.
    answers: BTreeMap<OperationIndex, Vec<Answer>>,
    count: usize,
    /// What the replicator was not asked for on its stream.
    unasked: BTreeSet<OperationIndex>,
    /// The replicator on the open stream knows results.
    has_results: bool,
    /// What that one has executed, as it said on this stream.
    executed: OperationIndex,
}

impl Waiting {
    fn add(&mut self, index: OperationIndex, answer: Answer) -> bool {
        if self.count >= WAITING_MAX {
            self.forget_clients_that_left();
        }
        if self.count >= WAITING_MAX {
            return false;
        }
        let owed = self.answers.len();
        match self.answers.entry(index) {
            Entry::Occupied(mut answers) => answers.get_mut().push(answer),
            Entry::Vacant(_) if owed >= OWED_MAX => return false,
            Entry::Vacant(vacant) => {
                vacant.insert(vec![answer]);
                self.unasked.insert(index);
            }
        }
        self.count += 1;
        true
    }

    fn forget_clients_that_left(&mut self) {
        let unasked = &self.unasked;
        self.answers.retain(|index, answers| {
            answers.retain(|answer| !answer.is_closed());
            !answers.is_empty() || !unasked.contains(index)
        });
        self.count = self.answers.values().map(Vec::len).sum();
        let answers = &self.answers;
        self.unasked.retain(|index| answers.contains_key(index));
    }

    fn take(&mut self, index: OperationIndex) -> Vec<Answer> {
        self.unasked.remove(&index);
        let answers = self.answers.remove(&index).unwrap_or_default();
        self.count -= answers.len();
        answers
    }
}

impl Results {
    pub(crate) fn new(count: Level) -> Self {
        Self {
            waiting: Arc::default(),
            asks: Arc::default(),
            count,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, waiting: &Waiting) {
        self.count.set(waiting.count as u64);
    }

    /// What comes of a committed operation, once it is executed; `None` inside where nothing is known of it. Absent where too many wait.
    pub(crate) fn of(&self, index: OperationIndex) -> Option<oneshot::Receiver<Option<Bytes>>> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting();
        let taken = waiting.add(index, answer);
        self.publish(&waiting);
        let (asks, executed) = (waiting.has_results, waiting.executed);
        drop(waiting);
        if asks {
            self.asks.notify_one();
        } else if index <= executed {
            // It has said so already, and will not say it again.
            self.answer(index, None);
        }
        taken.then_some(answered)
    }

    /// A stream to the replicator has begun, and nothing is known of it yet.
    pub(crate) fn begin(&self) {
        let mut waiting = self.waiting();
        (waiting.has_results, waiting.executed) = (false, 0);
        waiting.unasked = waiting.answers.keys().copied().collect();
        waiting.forget_clients_that_left();
        self.publish(&waiting);
    }

    /// The replicator on this stream knows results.
    pub(crate) fn has_results(&self) {
        self.waiting().has_results = true;
        self.asks.notify_one();
    }

    /// Waits until there may be something to ask for.
    pub(crate) async fn asks(&self) {
        self.asks.notified().await;
    }

    /// What to ask for now; what does not fit into a message comes next.
    pub(crate) fn take_unasked(&self) -> Vec<OperationIndex> {
        let mut waiting = self.waiting();
        if !waiting.has_results {
            return Vec::new();
        }
        let mut asked = std::mem::take(&mut waiting.unasked);
        if let Some(&rest) = asked.iter().nth(ASKED_MAX) {
            waiting.unasked = asked.split_off(&rest);
            self.asks.notify_one();
        }
        asked.into_iter().collect()
    }

    /// The replicator says what came of an operation.
    pub(crate) fn answer(&self, index: OperationIndex, result: Option<&Bytes>) {
        let mut waiting = self.waiting();
        let answers = waiting.take(index);
        self.publish(&waiting);
        drop(waiting);
        for answer in answers {
            // Whoever waited may have left.
            let _ = answer.send(result.cloned());
        }
    }

    /// Everything up to there is executed, which is all that a replicator says that knows no results.
    pub(crate) fn executed(&self, through: OperationIndex) {
        let mut waiting = self.waiting();
        waiting.executed = through;
        if waiting.has_results {
            return;
        }
        let executed: Vec<_> = waiting
            .answers
            .range(..=through)
            .map(|(index, _)| *index)
            .collect();
        drop(waiting);
        for index in executed {
            self.answer(index, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn results() -> Results {
        Results::new(Level::default())
    }

    /// The error is that there is no answer yet.
    fn result(answered: &mut oneshot::Receiver<Option<Bytes>>) -> Result<Option<Bytes>, TryRecvError> {
        answered.try_recv()
    }

    #[test]
    fn an_operation_is_asked_for_once_on_a_stream_and_answered_to_all() {
        let results = results();
        let mut first = results.of(5).unwrap();
        results.begin();
        assert!(
            results.take_unasked().is_empty(),
            "the replicator may know no results"
        );
        results.has_results();
        let mut second = results.of(5).unwrap();
        let mut third = results.of(3).unwrap();
        assert_eq!(results.take_unasked(), [3, 5]);
        assert!(results.take_unasked().is_empty());
        results.executed(9);
        assert_eq!(
            result(&mut first),
            Err(TryRecvError::Empty),
            "its result comes by itself"
        );
        results.answer(5, Some(&"done".into()));
        results.answer(4, None);
        for answered in [&mut first, &mut second] {
            assert_eq!(result(answered), Ok(Some("done".into())));
        }
        // On the next stream all that is without an answer is asked for again.
        results.begin();
        results.has_results();
        assert_eq!(results.take_unasked(), [3]);
        results.answer(3, None);
        assert_eq!(result(&mut third), Ok(None));
        assert_eq!(results.count.get(), 0);
    }

    #[test]
    fn a_replicator_that_knows_no_results_only_has_to_execute() {
        let results = results();
        results.begin();
        let (mut first, mut second) = (results.of(5).unwrap(), results.of(6).unwrap());
        results.executed(5);
        assert_eq!(result(&mut first), Ok(None));
        assert_eq!(result(&mut second), Err(TryRecvError::Empty));
        // Who comes late has nothing to wait for, but on another stream that has to be said anew.
        assert_eq!(result(&mut results.of(4).unwrap()), Ok(None));
        results.begin();
        assert_eq!(result(&mut results.of(4).unwrap()), Err(TryRecvError::Empty));
    }

    #[test]
    fn those_who_wait_are_bounded_and_those_who_left_make_room() {
        let results = results();
        results.begin();
        results.has_results();
        let last = u64::try_from(WAITING_MAX).unwrap();
        let mut answered: Vec<_> = (1..=last).map(|index| results.of(index).unwrap()).collect();
        assert!(results.of(1).is_none());
        assert_eq!(
            results.take_unasked().len(),
            ASKED_MAX,
            "in messages of a bounded size"
        );
        answered.truncate(10);
        assert!(results.of(last).is_some());
        assert_eq!(results.count.get(), 11);
    }

    /// A replicator that is owed too much of ends the stream, with all that is under way on it.
    #[test]
    fn what_the_replicator_was_asked_for_counts_also_when_nobody_waits_any_more() {
        let results = results();
        results.begin();
        results.has_results();
        let most = u64::try_from(OWED_MAX).unwrap();
        let mut asked = 0;
        for index in 1..=most {
            // Whoever waited leaves at once.
            assert!(results.of(index).is_some(), "{index}");
            asked += results.take_unasked().len();
        }
        assert_eq!(asked, OWED_MAX);
        assert!(results.of(most + 1).is_none());
        assert!(results.of(most).is_some(), "it was asked for that one");
        assert!(results.take_unasked().is_empty());
        results.answer(1, None);
        let mut answered = results.of(most + 1).unwrap();
        assert_eq!(results.take_unasked(), [most + 1]);
        // Another stream is asked only for those whose clients still wait.
        results.begin();
        results.has_results();
        assert_eq!(results.take_unasked(), [most + 1]);
        results.answer(most + 1, None);
        assert_eq!(result(&mut answered), Ok(None));
        assert_eq!(results.count.get(), 0);
    }
}
