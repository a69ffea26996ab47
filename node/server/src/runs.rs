//! Answers to a stream's operations, put back into the stream's order and joined into runs.

use std::collections::BTreeMap;

use raftlog_proto::v1::IndexRun;

use crate::handle::Answered;
use crate::node::{Committed, Refusal};

/// Answers that came before those in front of them.
#[derive(Debug, Default)]
pub(crate) struct Reorder {
    /// Place in the stream of the next answer to give.
    next: u64,
    early: BTreeMap<u64, Result<Committed, Refusal>>,
}

/// What can be told now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) runs: Vec<IndexRun>,
    /// Highest index in `runs`, and the term of the last answer.
    pub(crate) highest: u64,
    pub(crate) term: u64,
    /// The first operation that failed: nothing is told after it.
    pub(crate) failed: Option<Refusal>,
}

impl Reorder {
    /// Takes an answer.
    pub(crate) fn take(&mut self, answered: Answered) {
        self.early.insert(answered.position, answered.result);
    }

    /// All that is next in the stream's order.
    pub(crate) fn tell(&mut self) -> Told {
        let mut told = Told::default();
        while let Some(result) = self.early.remove(&self.next) {
            self.next += 1;
            match result {
                Ok(committed) => told.add(&committed),
                Err(refusal) => {
                    told.failed = Some(refusal);
                    break;
                }
            }
        }
        told
    }
}

impl Told {
    fn add(&mut self, committed: &Committed) {
        let index = committed.operation_index;
        self.highest = self.highest.max(index);
        self.term = committed.term;
        match self.runs.last_mut() {
            Some(run) if run.first_index + run.count == index => run.count += 1,
            _ => self.runs.push(IndexRun {
                first_index: index,
                count: 1,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(position: u64, index: u64) -> Answered {
        let result = Ok(Committed {
            operation_index: index,
            log_index: index,
            term: 2,
        });
        Answered { position, result }
    }

    fn run(first_index: u64, count: u64) -> IndexRun {
        IndexRun { first_index, count }
    }

    #[test]
    fn consecutive_indexes_are_one_run_whatever_order_they_come_in() {
        let mut reorder = Reorder::default();
        for at in [2, 1, 0, 3] {
            reorder.take(answer(at, 10 + at));
        }
        let told = reorder.tell();
        assert_eq!((told.runs, told.highest, told.term), (vec![run(10, 4)], 13, 2));
        // A duplicate that was appended long ago breaks the run.
        reorder.take(answer(4, 3));
        reorder.take(answer(5, 14));
        reorder.take(answer(7, 16));
        assert_eq!(reorder.tell().runs, [run(3, 1), run(14, 1)]);
        assert_eq!(reorder.tell(), Told::default());
        reorder.take(answer(6, 15));
        assert_eq!(reorder.tell().runs, [run(15, 2)]);
    }

    #[test]
    fn nothing_is_told_after_the_first_failure() {
        let mut reorder = Reorder::default();
        reorder.take(answer(0, 1));
        reorder.take(Answered {
            position: 1,
            result: Err(Refusal::DiskFull),
        });
        reorder.take(answer(2, 2));
        let told = reorder.tell();
        assert_eq!(
            (told.runs, told.failed),
            (vec![run(1, 1)], Some(Refusal::DiskFull))
        );
    }
}
