//! Where a session ended: the highest sequence that it ever submitted, found by asking without submitting. Pure.
//!
//! The test client submits `operation-N` with sequence N, each only after the one before is committed, and never says that
//! it needs no more answers. So the cluster remembers the answers to its highest 1,024 sequences, and these have no gaps. A
//! question is a submission that acknowledges its own sequence: answered where that is remembered, refused as forgotten
//! where it is not, and never appended.

use raftlog_client::SEQUENCES_MAX;

/// A search for the highest sequence of a session.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// No sequence is above: as many operations as the cluster holds.
    upper: u64,
    /// The next one to try while none is known.
    candidate: Option<u64>,
    /// The highest one known to be remembered, and the lowest one above it known not to be.
    between: Option<(u64, u64)>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for this sequence.
    Ask(u64),
    /// This is the highest one; 0 if there is none.
    Highest(u64),
}

impl Search {
    /// `upper`: how many operations the cluster holds.
    pub(super) fn new(upper: u64) -> Self {
        Self {
            upper,
            candidate: (upper > 0).then_some(upper),
            between: None,
        }
    }

    pub(super) fn next(&self) -> Next {
        match (self.between, self.candidate) {
            (Some((known, unknown)), _) if unknown - known <= 1 => Next::Highest(known),
            (Some((known, unknown)), _) => Next::Ask(known + (unknown - known) / 2),
            (None, Some(candidate)) => Next::Ask(candidate),
            (None, None) => Next::Highest(0),
        }
    }

    /// The answer to the last question.
    pub(super) fn answered(&mut self, sequence: u64, remembered: bool) {
        self.between = match (self.between, remembered) {
            // At most so many are remembered, of which this is one.
            (None, true) => Some((sequence, sequence.saturating_add(SEQUENCES_MAX))),
            (Some((_, unknown)), true) => Some((sequence, unknown)),
            (Some((known, _)), false) => Some((known, sequence)),
            (None, false) => {
                self.candidate = self.candidate_after(sequence);
                None
            }
        };
    }

    /// The upper bound comes first, as it is right where nobody else submits; then the first sequence, and one in each
    /// 1,024 after it.
    fn candidate_after(&self, sequence: u64) -> Option<u64> {
        let next = if sequence == self.upper {
            1
        } else if sequence == 1 {
            SEQUENCES_MAX
        } else {
            sequence.checked_add(SEQUENCES_MAX)?
        };
        (next < self.upper).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a session that submitted 1..=highest, in a cluster of `upper` operations; gives the result and the questions.
    fn search(highest: u64, upper: u64) -> (u64, u64) {
        let mut search = Search::new(upper);
        let mut asked = 0;
        loop {
            match search.next() {
                Next::Highest(found) => return (found, asked),
                Next::Ask(sequence) => {
                    asked += 1;
                    let lowest = highest.saturating_sub(SEQUENCES_MAX - 1).max(1);
                    search.answered(sequence, (lowest..=highest).contains(&sequence));
                }
            }
        }
    }

    #[test]
    fn the_highest_sequence_is_found_whatever_else_the_cluster_holds() {
        let around = [
            0, 1, 2, 3, 1022, 1023, 1024, 1025, 1026, 2047, 2048, 2049, 5000, 10_240,
        ];
        for highest in around {
            for others in around {
                assert_eq!(
                    search(highest, highest + others).0,
                    highest,
                    "{highest} of {}",
                    highest + others
                );
            }
        }
    }

    #[test]
    fn one_that_was_appended_since_the_bound_was_taken_is_found_too() {
        assert_eq!(search(11, 10).0, 11);
        assert_eq!(search(1025, 1024).0, 1025);
    }

    #[test]
    fn few_questions_are_asked() {
        for (highest, upper, at_most) in [
            (0, 0, 0),
            (1_000_000, 1_000_000, 11),
            (3, 1_000_000, 13),
            (250_000, 1_000_000, 260),
            (0, 100_000, 100),
        ] {
            let (found, asked) = search(highest, upper);
            assert_eq!(found, highest);
            assert!(asked <= at_most, "{highest} of {upper}: {asked} questions");
        }
    }

    #[test]
    fn the_end_of_numbers() {
        let mut search = Search::new(u64::MAX);
        search.answered(u64::MAX, true);
        assert_eq!(search.next(), Next::Highest(u64::MAX));
    }
}
