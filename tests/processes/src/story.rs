//! The `executes` lines of a replicator, over all its runs, against the log.

use crate::history::Logged;

/// What must never be seen on a replicator's stdout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Within one run, a line does not follow the one before.
    NotDense {
        /// Which run, from 0.
        run: usize,
        /// The index that should have come.
        expected: u64,
        /// The line that came.
        line: String,
    },
    /// A run does not begin between the first line of the run before and the line after its last one.
    BadStart {
        /// Which run, from 0.
        run: usize,
        /// Where it began.
        found: u64,
        /// The lowest index it may begin with.
        lowest: u64,
        /// The highest.
        highest: u64,
    },
    /// A line tells of another operation than the log holds, or of none that it holds.
    WrongOperation(String),
    /// The last lines are missing.
    Unfinished {
        /// The last index that was executed.
        last: u64,
        /// Operations in the log.
        expected: u64,
    },
}

/// Checks the lines of one node's replicator: within a run one line an operation, in order, with the log's own content; a
/// run begins right after what the run before had executed durably, so it repeats at most a contiguous part of that run's
/// lines, and never goes back further than that run itself began; and in the end everything was executed.
///
/// The log's operations must print as they are (no control characters, backslashes or invalid UTF-8; at most 256 bytes).
///
/// # Errors
/// The first violation.
pub fn check_executes(node: u32, runs: &[Vec<String>], log: &[Logged]) -> Result<(), Violation> {
    let (mut lowest, mut highest) = (1, 1);
    for (run, lines) in runs.iter().enumerate() {
        let mut expected = None;
        for line in lines {
            let Some(index) = executed_index(node, line) else {
                continue;
            };
            if expected.is_none() {
                if !(lowest..=highest).contains(&index) {
                    return Err(Violation::BadStart {
                        run,
                        found: index,
                        lowest,
                        highest,
                    });
                }
                lowest = index;
            }
            let due = *expected.get_or_insert(index);
            if index != due {
                return Err(Violation::NotDense {
                    run,
                    expected: due,
                    line: line.clone(),
                });
            }
            check_operation(node, index, line, log)?;
            expected = Some(index + 1);
        }
        highest = expected.unwrap_or(highest);
    }
    let (last, expected) = (highest - 1, log.len() as u64);
    if last == expected {
        Ok(())
    } else {
        Err(Violation::Unfinished { last, expected })
    }
}

/// The index of `Node 2 executes op=operation-1 at index=1`; `None` for other lines.
fn executed_index(node: u32, line: &str) -> Option<u64> {
    let rest = line.strip_prefix(&format!("Node {node} executes op="))?;
    rest.rsplit_once(" at index=")?.1.parse().ok()
}

fn check_operation(node: u32, index: u64, line: &str, log: &[Logged]) -> Result<(), Violation> {
    let place = usize::try_from(index).ok().and_then(|index| index.checked_sub(1));
    let logged = place.and_then(|place| log.get(place));
    let told = logged.map(|logged| {
        format!(
            "Node {node} executes op={} at index={index}",
            String::from_utf8_lossy(&logged.data)
        )
    });
    if told.as_deref() == Some(line) {
        Ok(())
    } else {
        Err(Violation::WrongOperation(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn log(length: u64) -> Vec<Logged> {
        (1..=length)
            .map(|index| Logged {
                index,
                term: 1,
                data: Bytes::from(format!("op-{index}")),
            })
            .collect()
    }

    fn run(indexes: &[u64]) -> Vec<String> {
        let executes = |index| format!("Node 2 executes op=op-{index} at index={index}");
        let mut lines = vec!["Node 2: commitIndex=9, total entries=9".to_owned()];
        lines.extend(indexes.iter().map(executes));
        lines
    }

    fn check_runs(runs: &[&[u64]], length: u64) -> Result<(), Violation> {
        let runs: Vec<Vec<String>> = runs.iter().map(|indexes| run(indexes)).collect();
        check_executes(2, &runs, &log(length))
    }

    #[test]
    fn good_stories_pass() {
        let stories: [(&[&[u64]], u64); 7] = [
            (&[&[1, 2, 3]], 3),
            (&[&[]], 0),
            (&[&[1, 2], &[3]], 3),
            (&[&[1, 2, 3], &[2, 3, 4]], 4),
            (&[&[1, 2, 3], &[1, 2], &[2, 3]], 3),
            (&[&[1, 2], &[], &[3]], 3),
            (&[&[1, 2, 3], &[]], 3),
        ];
        for (runs, length) in stories {
            assert_eq!(check_runs(runs, length), Ok(()), "{runs:?}");
        }
    }

    #[test]
    fn holes_and_repeats_within_a_run_are_found() {
        for bad in [[1, 3], [1, 1]] {
            let found = check_runs(&[&bad], 3);
            let line = format!("Node 2 executes op=op-{0} at index={0}", bad[1]);
            assert_eq!(
                found,
                Err(Violation::NotDense {
                    run: 0,
                    expected: 2,
                    line
                })
            );
        }
    }

    #[test]
    fn a_run_that_begins_too_late_or_too_early_is_found() {
        let bad = |run, found, lowest, highest| {
            Err(Violation::BadStart {
                run,
                found,
                lowest,
                highest,
            })
        };
        assert_eq!(check_runs(&[&[2, 3]], 3), bad(0, 2, 1, 1));
        assert_eq!(check_runs(&[&[1, 2], &[4]], 4), bad(1, 4, 1, 3));
        assert_eq!(check_runs(&[&[1, 2, 3], &[3, 4], &[2, 3, 4]], 4), bad(2, 2, 3, 5));
        // The second run had only got to 2 again: what comes next may not skip 3.
        assert_eq!(check_runs(&[&[1, 2, 3], &[2], &[4]], 4), bad(2, 4, 2, 3));
    }

    #[test]
    fn an_operation_that_is_not_the_logs_is_found() {
        let line = "Node 2 executes op=other at index=1".to_owned();
        let found = check_executes(2, &[vec![line.clone()]], &log(1));
        assert_eq!(found, Err(Violation::WrongOperation(line)));
        let beyond = check_runs(&[&[1, 2]], 1);
        assert_eq!(
            beyond,
            Err(Violation::WrongOperation(
                "Node 2 executes op=op-2 at index=2".into()
            ))
        );
    }

    #[test]
    fn missing_last_lines_are_found() {
        assert_eq!(
            check_runs(&[&[1, 2]], 3),
            Err(Violation::Unfinished { last: 2, expected: 3 })
        );
    }

    #[test]
    fn lines_of_another_node_do_not_count() {
        let lines = vec!["Node 1 executes op=op-1 at index=1".to_owned()];
        assert_eq!(
            check_executes(2, &[lines], &log(1)),
            Err(Violation::Unfinished { last: 0, expected: 1 })
        );
    }
}
