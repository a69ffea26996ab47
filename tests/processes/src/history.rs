//! What clients were told against what the replicators hold.

use crate::real_time::{self, Span};
use bytes::Bytes;
use std::collections::BTreeMap;

/// One operation that a client was told to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Session.
    pub client: String,
    /// Sequence within the session.
    pub sequence: u64,
    /// What was submitted.
    pub data: Bytes,
    /// The operation index that the client was given.
    pub index: u64,
    /// When it was submitted for the first time, in microseconds since the load began.
    pub submitted_micros: u64,
    /// When the answer came, likewise.
    pub acknowledged_micros: u64,
    /// What came of it, where that was waited for and is known.
    pub result: Option<Bytes>,
}

/// One operation whose client gave up before it was told anything: it may be in the log or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// What was submitted.
    pub data: Bytes,
    /// When it was submitted for the first time, in microseconds since the load began.
    pub submitted_micros: u64,
}

/// One operation as a replicator's `OperationLog` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Operation index.
    pub index: u64,
    /// Term of the entry.
    pub term: u64,
    /// What was submitted.
    pub data: Bytes,
}

/// What must never be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A log skips or repeats an index.
    NotDense {
        /// Node number of the replicator.
        replicator: u32,
        /// The index that should have been there.
        expected: u64,
        /// The one that was.
        found: u64,
    },
    /// Terms go down along the log.
    TermWentBack {
        /// Node number of the replicator.
        replicator: u32,
        /// Where.
        index: u64,
    },
    /// Two replicators differ, or one is shorter.
    Diverged {
        /// Node number of the first replicator.
        one: u32,
        /// Node number of the other.
        other: u32,
        /// The first index at which they differ.
        index: u64,
    },
    /// The same operation stands at two indexes.
    AppendedTwice {
        /// The first index.
        first: u64,
        /// The second.
        second: u64,
    },
    /// An acknowledged operation does not stand where its client was told.
    Lost(Box<Acknowledged>),
    /// A client was told two indexes for one sequence.
    AnsweredTwice(Box<[Acknowledged; 2]>),
    /// An operation that was submitted after another one had been acknowledged stands before it.
    OutOfRealTimeOrder {
        /// Acknowledged before the other one was submitted.
        earlier: Box<Acknowledged>,
        /// The other one.
        later: Box<Acknowledged>,
    },
}

/// Checks a whole run: each log dense from 1 with terms that never go down; all logs equal; no operation twice (every
/// operation of the run must have been submitted with data of its own); every acknowledged one at its index; and indexes
/// in real-time order.
///
/// # Errors
/// The first violation.
///
/// # Panics
/// Without a log to check.
pub fn check(acknowledged: &[Acknowledged], logs: &BTreeMap<u32, Vec<Logged>>) -> Result<(), Violation> {
    logs.iter()
        .try_for_each(|(&replicator, log)| check_dense(replicator, log))?;
    check_equal(logs)?;
    let log = logs
        .values()
        .next()
        .expect("a history is checked against at least one replicator");
    check_no_operation_twice(log)?;
    check_acknowledged(acknowledged, log)?;
    check_answered_once(acknowledged)?;
    check_real_time_order(acknowledged)
}

fn check_dense(replicator: u32, log: &[Logged]) -> Result<(), Violation> {
    let mut term = 0;
    for (expected, logged) in (1..).zip(log) {
        if logged.index != expected {
            return Err(Violation::NotDense {
                replicator,
                expected,
                found: logged.index,
            });
        }
        if logged.term < term {
            return Err(Violation::TermWentBack {
                replicator,
                index: logged.index,
            });
        }
        term = logged.term;
    }
    Ok(())
}

fn check_equal(logs: &BTreeMap<u32, Vec<Logged>>) -> Result<(), Violation> {
    let mut logs = logs.iter();
    let Some((&one, reference)) = logs.next() else {
        return Ok(());
    };
    for (&other, log) in logs {
        let longer = reference.len().max(log.len());
        if let Some(place) = (0..longer).find(|&place| reference.get(place) != log.get(place)) {
            return Err(Violation::Diverged {
                one,
                other,
                index: place as u64 + 1,
            });
        }
    }
    Ok(())
}

fn check_no_operation_twice(log: &[Logged]) -> Result<(), Violation> {
    let mut seen = BTreeMap::new();
    for logged in log {
        if let Some(first) = seen.insert(&logged.data, logged.index) {
            return Err(Violation::AppendedTwice {
                first,
                second: logged.index,
            });
        }
    }
    Ok(())
}

fn check_acknowledged(acknowledged: &[Acknowledged], log: &[Logged]) -> Result<(), Violation> {
    let by_index: BTreeMap<u64, &Bytes> = log.iter().map(|logged| (logged.index, &logged.data)).collect();
    let lost = acknowledged
        .iter()
        .find(|answer| by_index.get(&answer.index) != Some(&&answer.data));
    lost.map_or(Ok(()), |answer| Err(Violation::Lost(Box::new(answer.clone()))))
}

fn check_answered_once(acknowledged: &[Acknowledged]) -> Result<(), Violation> {
    let mut seen: BTreeMap<(&str, u64), &Acknowledged> = BTreeMap::new();
    for answer in acknowledged {
        match seen.insert((&answer.client, answer.sequence), answer) {
            Some(first) if first.index != answer.index => {
                return Err(Violation::AnsweredTwice(Box::new([
                    first.clone(),
                    answer.clone(),
                ])));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_real_time_order(acknowledged: &[Acknowledged]) -> Result<(), Violation> {
    let spans: Vec<Span<&Acknowledged>> = acknowledged.iter().map(appended).collect();
    real_time::check(&spans).map_err(|(earlier, later)| Violation::OutOfRealTimeOrder {
        earlier: Box::new((*earlier).clone()),
        later: Box::new((*later).clone()),
    })
}

fn appended(answer: &Acknowledged) -> Span<&Acknowledged> {
    Span {
        what: answer,
        began: Some(answer.submitted_micros),
        ended: Some(answer.acknowledged_micros),
        place: real_time::append_place(answer.index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(index: u64, term: u64, data: &'static str) -> Logged {
        Logged {
            index,
            term,
            data: Bytes::from_static(data.as_bytes()),
        }
    }

    /// Submitted and acknowledged at these times.
    fn told(sequence: u64, data: &'static str, index: u64, times: (u64, u64)) -> Acknowledged {
        Acknowledged {
            client: "c".into(),
            sequence,
            data: Bytes::from_static(data.as_bytes()),
            index,
            submitted_micros: times.0,
            acknowledged_micros: times.1,
            result: None,
        }
    }

    fn good_log() -> Vec<Logged> {
        vec![logged(1, 1, "a"), logged(2, 1, "b"), logged(3, 4, "c")]
    }

    fn on_two(one: Vec<Logged>, other: Vec<Logged>) -> BTreeMap<u32, Vec<Logged>> {
        BTreeMap::from([(1, one), (2, other)])
    }

    fn violation(acknowledged: &[Acknowledged], log: &[Logged]) -> Violation {
        check(acknowledged, &on_two(log.to_vec(), log.to_vec())).expect_err("a bad history passed")
    }

    #[test]
    fn a_good_history_passes() {
        // "b" was never acknowledged: its client died, which is no violation.
        let answers = [told(1, "a", 1, (0, 10)), told(3, "c", 3, (11, 20))];
        assert_eq!(check(&answers, &on_two(good_log(), good_log())), Ok(()));
        assert_eq!(check(&[], &on_two(vec![], vec![])), Ok(()));
    }

    #[test]
    fn concurrent_operations_may_stand_in_any_order() {
        let answers = [
            told(1, "b", 2, (0, 30)),
            told(2, "a", 1, (10, 20)),
            told(3, "c", 3, (20, 30)),
        ];
        assert_eq!(check(&answers, &on_two(good_log(), good_log())), Ok(()));
    }

    #[test]
    fn the_same_answer_again_is_no_violation() {
        let answers = [told(1, "a", 1, (0, 10)), told(1, "a", 1, (0, 50))];
        assert_eq!(check(&answers, &on_two(good_log(), good_log())), Ok(()));
    }

    #[test]
    fn gaps_repeats_and_a_wrong_start_are_found() {
        let gap = [logged(1, 1, "a"), logged(3, 1, "b")];
        assert_eq!(
            violation(&[], &gap),
            Violation::NotDense {
                replicator: 1,
                expected: 2,
                found: 3
            }
        );
        let repeat = [logged(1, 1, "a"), logged(1, 1, "a")];
        assert_eq!(
            violation(&[], &repeat),
            Violation::NotDense {
                replicator: 1,
                expected: 2,
                found: 1
            }
        );
        let late = [logged(2, 1, "b")];
        assert_eq!(
            violation(&[], &late),
            Violation::NotDense {
                replicator: 1,
                expected: 1,
                found: 2
            }
        );
    }

    #[test]
    fn a_term_that_goes_back_is_found() {
        let log = [logged(1, 3, "a"), logged(2, 2, "b")];
        assert_eq!(
            violation(&[], &log),
            Violation::TermWentBack {
                replicator: 1,
                index: 2
            }
        );
    }

    #[test]
    fn diverged_and_short_logs_are_found() {
        let mut other = good_log();
        other[1] = logged(2, 1, "x");
        let found = check(&[], &on_two(good_log(), other));
        assert_eq!(
            found,
            Err(Violation::Diverged {
                one: 1,
                other: 2,
                index: 2
            })
        );
        let short = good_log()[..2].to_vec();
        let expected = Err(Violation::Diverged {
            one: 1,
            other: 2,
            index: 3,
        });
        assert_eq!(check(&[], &on_two(good_log(), short.clone())), expected);
        assert_eq!(check(&[], &on_two(short, good_log())), expected);
        let mut another_term = good_log();
        another_term[2].term = 5;
        assert_eq!(check(&[], &on_two(good_log(), another_term)), expected);
    }

    #[test]
    fn an_operation_at_two_indexes_is_found() {
        let log = [logged(1, 1, "a"), logged(2, 1, "b"), logged(3, 1, "a")];
        assert_eq!(
            violation(&[], &log),
            Violation::AppendedTwice { first: 1, second: 3 }
        );
    }

    #[test]
    fn lost_operations_are_found() {
        for lost in [
            told(1, "a", 2, (0, 1)),
            told(1, "a", 4, (0, 1)),
            told(1, "z", 3, (0, 1)),
            told(1, "a", 0, (0, 1)),
        ] {
            assert_eq!(
                violation(std::slice::from_ref(&lost), &good_log()),
                Violation::Lost(Box::new(lost))
            );
        }
    }

    #[test]
    fn two_answers_to_one_sequence_are_found() {
        let (one, other) = (told(1, "a", 1, (0, 1)), told(1, "b", 2, (0, 1)));
        let found = violation(&[one.clone(), other.clone()], &good_log());
        assert_eq!(found, Violation::AnsweredTwice(Box::new([one, other])));
    }

    #[test]
    fn an_operation_before_one_that_was_acknowledged_earlier_is_found() {
        let (earlier, later) = (told(1, "b", 2, (0, 10)), told(2, "a", 1, (11, 20)));
        let found = violation(&[later.clone(), earlier.clone()], &good_log());
        let (earlier, later) = (Box::new(earlier), Box::new(later));
        assert_eq!(found, Violation::OutOfRealTimeOrder { earlier, later });
    }
}
