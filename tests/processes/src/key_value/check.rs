//! Whether what clients were told of a key-value store fits one order of everything that agrees with the clock.
//!
//! Writes have their order from the log. It has to explain each result, and there has to be a place between two writes for each answer to
//! a query: one at which the key had that value, that is behind all that had ended before the query began, other queries included, and before all
//! that began after it had ended.

use crate::history::{Acknowledged, Logged, Unanswered};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Bound;

/// What clients submitted.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// What they were told to be executed.
    pub acknowledged: Vec<Acknowledged>,
    /// What they gave up.
    pub unanswered: Vec<Unanswered>,
}

/// A query for the value of a key, and its answer. Times are in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The node.
    pub node: u32,
    /// Which key.
    pub key: String,
    /// What was answered; `None` where it has no value.
    pub value: Option<String>,
    /// The operation that the answer is of, or of a later one, as the node said.
    pub index: u64,
    /// When it was asked.
    pub began_micros: u64,
    /// When it had been answered.
    pub ended_micros: u64,
}

/// What must never be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A result is not what the log makes of its operation.
    Result {
        /// What the client was told.
        told: Box<Acknowledged>,
        /// What it should have been told.
        expected: String,
    },
    /// There is no place for an answer.
    Answer {
        /// The answer.
        asked: Box<Asked>,
        /// Behind which operation it has to have its place.
        behind: u64,
        /// Before which one.
        before: Option<u64>,
    },
}

/// From which operation on a key has which value.
type Values = BTreeMap<u64, Option<String>>;

/// Checks all results and answers against the log, which holds all operations from the first one on, each at its index.
///
/// # Errors
/// The first violation.
pub fn check(log: &[Logged], written: &Written, asked: &[Asked]) -> Result<(), Violation> {
    let (results, histories) = replay(log);
    for told in &written.acknowledged {
        let expected = results.get(&told.index).map(String::as_str).unwrap_or_default();
        if told.result.as_ref().is_some_and(|result| result != expected) {
            return Err(Violation::Result {
                told: Box::new(told.clone()),
                expected: expected.to_owned(),
            });
        }
    }
    check_answers(log, written, asked, &histories)
}

/// What every key has in the end.
pub fn values(log: &[Logged]) -> BTreeMap<String, Option<String>> {
    let (_, histories) = replay(log);
    let last = |values: Values| values.into_values().next_back().flatten();
    histories
        .into_iter()
        .map(|(key, values)| (key, last(values)))
        .collect()
}

fn replay(log: &[Logged]) -> (BTreeMap<u64, String>, BTreeMap<String, Values>) {
    let (mut results, mut histories) = (BTreeMap::new(), BTreeMap::<String, Values>::new());
    for logged in log {
        let text = String::from_utf8_lossy(&logged.data);
        let words: Vec<&str> = text.split(' ').collect();
        let mut now = |key: &str| {
            let values = histories.entry(key.to_owned()).or_default();
            values.values().next_back().cloned().flatten()
        };
        let (result, change) = match words.as_slice() {
            ["put", key, value] => ("ok".to_owned(), Some((key, value))),
            ["cas", key, expected, value] => match now(key) {
                Some(found) if found == *expected => ("ok".to_owned(), Some((key, value))),
                Some(found) => (format!("value {found}"), None),
                None => ("none".to_owned(), None),
            },
            // What clients here never submit.
            _ => ("invalid".to_owned(), None),
        };
        if let Some((key, value)) = change {
            let values = histories.entry((*key).to_owned()).or_default();
            values.insert(logged.index, Some((*value).to_owned()));
        }
        results.insert(logged.index, result);
    }
    (results, histories)
}

/// Gives each answer, in the order in which they were asked, the first place that is possible: it leaves the most room to all that follow.
fn check_answers(
    log: &[Logged],
    written: &Written,
    asked: &[Asked],
    histories: &BTreeMap<String, Values>,
) -> Result<(), Violation> {
    let mut asked: Vec<&Asked> = asked.iter().collect();
    asked.sort_by_key(|asked| asked.began_micros);
    let mut ended: BinaryHeap<Reverse<(u64, u64)>> = written
        .acknowledged
        .iter()
        .map(|told| Reverse((told.acknowledged_micros, told.index)))
        .collect();
    let begun = beginnings(log, written);
    let mut behind = 0;
    for asked in asked {
        while let Some(Reverse((at, place))) = ended.peek().copied()
            && at < asked.began_micros
        {
            behind = place.max(behind);
            ended.pop();
        }
        let from = behind.max(asked.index);
        let before = begun
            .range((Bound::Excluded(asked.ended_micros), Bound::Unbounded))
            .next()
            .map(|(_, first)| *first);
        let place = place_of(asked, from, histories.get(&asked.key));
        let Some(place) = place.filter(|place| before.is_none_or(|before| *place < before)) else {
            return Err(Violation::Answer {
                asked: Box::new(asked.clone()),
                behind: from,
                before,
            });
        };
        ended.push(Reverse((asked.ended_micros, place)));
    }
    Ok(())
}

/// The first operation at or behind `from` after which the key has the value that was answered.
fn place_of(asked: &Asked, from: u64, values: Option<&Values>) -> Option<u64> {
    let empty = Values::new();
    let values = values.unwrap_or(&empty);
    let at_first = values
        .range(..=from)
        .next_back()
        .and_then(|(_, value)| value.as_ref());
    if at_first == asked.value.as_ref() {
        return Some(from);
    }
    let mut later = values.range((Bound::Excluded(from), Bound::Unbounded));
    later
        .find(|(_, value)| **value == asked.value)
        .map(|(index, _)| *index)
}

/// For each moment at which an operation was submitted that is in the log: the first of those that were submitted then or later.
fn beginnings(log: &[Logged], written: &Written) -> BTreeMap<u64, u64> {
    let at: BTreeMap<_, u64> = log.iter().map(|logged| (&logged.data, logged.index)).collect();
    let acknowledged = written
        .acknowledged
        .iter()
        .map(|told| (told.submitted_micros, told.index));
    let unanswered = written
        .unanswered
        .iter()
        .filter_map(|given_up| Some((given_up.submitted_micros, *at.get(&given_up.data)?)));
    let mut all: Vec<(u64, u64)> = acknowledged.chain(unanswered).collect();
    all.sort_unstable();
    let mut first = u64::MAX;
    let mut begun = BTreeMap::new();
    for (at, index) in all.into_iter().rev() {
        first = first.min(index);
        begun.insert(at, first);
    }
    begun
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn log() -> Vec<Logged> {
        ["put a 1", "cas a 1 2", "put b 1", "cas a 1 3", "put a 4"]
            .into_iter()
            .zip(1..)
            .map(|(data, index)| Logged {
                index,
                term: 1,
                data: Bytes::from_static(data.as_bytes()),
            })
            .collect()
    }

    /// Each takes from 100 times its index to 50 later; "put b 1" was given up.
    fn written() -> Written {
        let results = [Some("ok"), Some("ok"), None, Some("value 2"), None];
        let told = |logged: &Logged, result: Option<&'static str>| Acknowledged {
            client: "c".into(),
            sequence: logged.index,
            data: logged.data.clone(),
            index: logged.index,
            submitted_micros: 100 * logged.index,
            acknowledged_micros: 100 * logged.index + 50,
            result: result.map(|result| Bytes::from_static(result.as_bytes())),
        };
        let log = log();
        let mut acknowledged: Vec<_> = log
            .iter()
            .zip(results)
            .map(|(logged, result)| told(logged, result))
            .collect();
        let given_up = acknowledged.remove(2);
        Written {
            acknowledged,
            unanswered: vec![Unanswered {
                data: given_up.data,
                submitted_micros: given_up.submitted_micros,
            }],
        }
    }

    fn asked(key: &str, value: Option<&str>, index: u64, times: (u64, u64)) -> Asked {
        Asked {
            node: 1,
            key: key.into(),
            value: value.map(str::to_owned),
            index,
            began_micros: times.0,
            ended_micros: times.1,
        }
    }

    #[test]
    fn what_can_be_explained_passes() {
        for answers in [
            vec![],
            vec![asked("a", None, 0, (0, 99)), asked("a", None, 0, (120, 140))],
            vec![
                asked("a", Some("1"), 0, (110, 120)),
                asked("a", Some("1"), 1, (151, 205)),
            ],
            // Both orders of two that overlap.
            vec![
                asked("a", Some("4"), 4, (500, 520)),
                asked("a", Some("2"), 2, (510, 530)),
            ],
            vec![
                asked("b", None, 0, (260, 310)),
                asked("b", Some("1"), 0, (260, 310)),
            ],
            // What was given up may be done late.
            vec![
                asked("b", None, 2, (310, 399)),
                asked("b", Some("1"), 2, (351, 399)),
            ],
            vec![
                asked("a", Some("4"), 5, (551, 600)),
                asked("z", None, 5, (551, 600)),
            ],
            // It is of a later state than the node says.
            vec![asked("a", Some("4"), 1, (551, 600))],
        ] {
            assert_eq!(check(&log(), &written(), &answers), Ok(()), "{answers:?}");
        }
        assert_eq!(
            values(&log()),
            BTreeMap::from([("a".into(), Some("4".into())), ("b".into(), Some("1".into()))])
        );
    }

    #[test]
    fn what_cannot_is_found() {
        for answers in [
            // Of the past, of the future, of nowhere.
            vec![asked("a", Some("1"), 0, (251, 260))],
            vec![asked("a", None, 0, (151, 160))],
            vec![asked("a", Some("4"), 4, (451, 499))],
            vec![asked("a", Some("3"), 4, (451, 499))],
            vec![asked("z", Some("1"), 0, (0, 999))],
            // Older than what the node says it is of.
            vec![asked("a", Some("1"), 2, (151, 205))],
            // What one saw, a later one has to see.
            vec![
                asked("a", Some("4"), 4, (500, 520)),
                asked("a", Some("2"), 2, (521, 530)),
            ],
            vec![
                asked("b", Some("1"), 2, (300, 310)),
                asked("b", None, 2, (311, 320)),
            ],
            vec![
                asked("a", Some("4"), 4, (500, 520)),
                asked("b", None, 4, (521, 530)),
            ],
        ] {
            let found = check(&log(), &written(), &answers);
            assert!(
                matches!(found, Err(Violation::Answer { .. })),
                "{answers:?}: {found:?}"
            );
        }
    }

    #[test]
    fn a_wrong_result_is_found() {
        for (place, wrong) in [
            (0, "none"),
            (1, "value 1"),
            (2, "ok"),
            (2, "value 3"),
            (3, "none"),
        ] {
            let mut written = written();
            written.acknowledged[place].result = Some(Bytes::from_static(wrong.as_bytes()));
            let found = check(&log(), &written, &[]);
            assert!(
                matches!(found, Err(Violation::Result { .. })),
                "{wrong}: {found:?}"
            );
        }
    }
}
