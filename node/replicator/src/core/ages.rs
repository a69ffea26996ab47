//! How old operations are. They carry no time, so that is noted beside them from time to time, as rungs of a ladder: "up to here all was
//! committed by then". Rungs are few, whatever the log holds, and go to disk with the state.
//!
//! What is between two rungs counts as young as the later one: it stays a little too long rather than not long enough. So does what was
//! committed before there was a ladder, or while the process was away.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use raftlog_raft::ids::OperationIndex;

/// Rungs at most.
pub(super) const RUNGS_MAX: usize = 64;
/// Rungs within the age that operations may have.
const RUNGS_PER_AGE: u32 = 32;

/// Up to here all was committed by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rung {
    pub(super) index: OperationIndex,
    /// Milliseconds since 1970, as far as clocks can be trusted.
    pub(super) millis: u64,
}

/// In order of both index and time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ladder(Vec<Rung>);

impl Ladder {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `count u8`, then each as `index u64, milliseconds u64`; little-endian.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::try_from(self.0.len()).expect("there are few rungs"));
        for rung in &self.0 {
            out.put_u64_le(rung.index);
            out.put_u64_le(rung.millis);
        }
    }

    /// Of a log that is committed up to there.
    pub(super) fn decode(from: &mut Bytes, commit: OperationIndex) -> Result<Self, String> {
        let short = |_| "the replicator's state is cut short in its ladder of ages".to_owned();
        let count = usize::from(from.try_get_u8().map_err(short)?);
        let mut rungs = Vec::with_capacity(count.min(RUNGS_MAX));
        for _ in 0..count {
            rungs.push(Rung {
                index: from.try_get_u64_le().map_err(short)?,
                millis: from.try_get_u64_le().map_err(short)?,
            });
        }
        let in_order = rungs.is_sorted_by(|a, b| a.index < b.index && a.millis <= b.millis);
        let last = rungs.last().map_or(0, |last| last.index);
        if !in_order || count > RUNGS_MAX || last > commit {
            return Err(format!(
                "the replicator's state has a ladder of {count} ages up to index {last}, with commit index {commit}, that do not \
                 ascend or are too many"
            ));
        }
        Ok(Self(rungs))
    }

    /// Makes room for another rung, where the least is lost by it: between the two that are nearest to each other.
    fn make_room(&mut self) {
        if self.0.len() < RUNGS_MAX {
            return;
        }
        let distances = self.0.iter().zip(self.0.iter().skip(1));
        let distances = distances.map(|(rung, next)| next.millis - rung.millis);
        if let Some((at, _)) = distances.enumerate().min_by_key(|(_, distance)| *distance) {
            self.0.remove(at);
        }
    }
}

/// The ladder, and the clock that it is climbed by.
#[derive(Debug, Default)]
pub(super) struct Ages {
    ladder: Arc<Ladder>,
    /// The latest time so far. It never goes back.
    latest: u64,
    /// What the clock was set back by, and has not made up for.
    set_back: u64,
    /// Everything up to here is older than it may be.
    aged: OperationIndex,
}

impl Ages {
    pub(super) fn new(ladder: Arc<Ladder>) -> Self {
        Self {
            latest: ladder.0.last().map_or(0, |last| last.millis),
            ladder,
            ..Self::default()
        }
    }

    /// To be written with the state.
    pub(super) fn ladder(&self) -> Arc<Ladder> {
        Arc::clone(&self.ladder)
    }

    /// Everything up to here is older than it may be.
    pub(super) fn aged(&self) -> OperationIndex {
        self.aged
    }

    /// The log is another one, or begins after all that is known of it.
    pub(super) fn begin_anew(&mut self) {
        self.ladder = Arc::default();
        self.aged = 0;
    }

    /// It is that time by the clock. Of the log, what lies after `dropped` is here, and committed up to `commit`.
    pub(super) fn tick(
        &mut self,
        clock: u64,
        max_age: Duration,
        (dropped, commit): (OperationIndex, OperationIndex),
    ) {
        let now = self.time(clock);
        let age = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        let is_aged = |rung: &Rung| now - rung.millis.min(now) >= age;
        let rungs = &self.ladder.0;
        // Of rungs that are aged the last one says it all.
        let aged = rungs.iter().take_while(|rung| is_aged(rung)).count();
        let gone = rungs.iter().take_while(|rung| rung.index <= dropped).count();
        let needless = gone.max(aged.saturating_sub(1));
        let is_due = commit > dropped.max(rungs.last().map_or(0, |last| last.index))
            && rungs
                .last()
                .is_none_or(|last| now - last.millis.min(now) >= age / u64::from(RUNGS_PER_AGE));
        if needless > 0 || is_due {
            let ladder = Arc::make_mut(&mut self.ladder);
            ladder.0.drain(..needless);
            if is_due {
                ladder.make_room();
                ladder.0.push(Rung {
                    index: commit,
                    millis: now,
                });
            }
        }
        let aged = self.ladder.0.iter().take_while(|rung| is_aged(rung)).last();
        self.aged = aged.map_or(0, |rung| rung.index);
    }

    /// A clock that is set back goes on from where it was, until it has caught up: nothing is older for it.
    fn time(&mut self, clock: u64) -> u64 {
        if clock >= self.latest {
            self.set_back = 0;
        }
        let now = clock.saturating_add(self.set_back);
        if now < self.latest {
            self.set_back = self.latest - clock;
        }
        self.latest = self.latest.max(now);
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(32);

    fn rungs(ages: &Ages) -> Vec<(u64, u64)> {
        ages.ladder
            .0
            .iter()
            .map(|rung| (rung.index, rung.millis))
            .collect()
    }

    fn ladder(rungs: &[(u64, u64)]) -> Ladder {
        Ladder(
            rungs
                .iter()
                .map(|&(index, millis)| Rung { index, millis })
                .collect(),
        )
    }

    /// Ticks of clock and commit index, with nothing dropped, and what is aged after each.
    fn climb(ages: &mut Ages, ticks: &[(u64, u64)]) -> Vec<u64> {
        let tick = |&(clock, commit): &(u64, u64)| {
            ages.tick(clock, AGE, (0, commit));
            ages.aged()
        };
        ticks.iter().map(tick).collect()
    }

    #[test]
    fn what_is_aged() {
        for (name, ticks, expected) in [
            ("nothing is there", &[(0, 0), (99_000, 0)][..], &[0, 0][..]),
            (
                "at its age, not before",
                &[(5_000, 7), (36_999, 7), (37_000, 7)],
                &[0, 0, 7],
            ),
            (
                "what came between two rungs is as young as the later one",
                &[(0, 7), (500, 8), (1_000, 9), (32_999, 9), (33_000, 9)],
                &[0, 0, 0, 7, 9],
            ),
            (
                "all of what is old",
                &[(0, 1), (1_000, 2), (2_000, 3), (99_000, 3)],
                &[0, 0, 0, 3],
            ),
            (
                "a clock that is set back makes nothing older",
                &[(50_000, 7), (10_000, 8), (41_999, 8), (42_000, 8)],
                &[0, 0, 0, 7],
            ),
            (
                "nor does one that is set right again",
                &[
                    (50_000, 7),
                    (10_000, 7),
                    (20_000, 7),
                    (60_000, 7),
                    (81_999, 7),
                    (82_000, 7),
                ],
                &[0, 0, 0, 0, 0, 7],
            ),
            (
                "times without end",
                &[(u64::MAX, 7), (0, 8), (u64::MAX, 8)],
                &[0, 0, 0],
            ),
        ] {
            assert_eq!(climb(&mut Ages::default(), ticks), expected, "{name}");
        }
    }

    #[test]
    fn ages_survive_a_start_also_with_a_clock_that_was_set_back() {
        for (clock, expected) in [(36_999, 0), (37_000, 7), (1_000, 0), (0, 0), (u64::MAX, 7)] {
            let mut ages = Ages::new(Arc::new(ladder(&[(7, 5_000)])));
            ages.tick(clock, AGE, (0, 7));
            assert_eq!(ages.aged(), expected, "{clock}");
            assert_eq!(rungs(&ages), [(7, 5_000)], "nothing is written for nothing");
        }
    }

    #[test]
    fn rungs_are_few_and_those_that_say_nothing_go() {
        let mut ages = Ages::default();
        for second in 0..1_000 {
            ages.tick(second * 1_000, AGE, (0, second + 1));
            assert!(ages.ladder.0.len() <= 34, "{}", ages.ladder.0.len());
        }
        assert_eq!(ages.aged(), 968);
        ages.tick(999_500, AGE, (990, 1_000));
        assert_eq!(ages.aged(), 0);
        assert_eq!(rungs(&ages).first(), Some(&(991, 990_000)));
        // Where the age that is asked for is another one than before.
        let mut ages = Ages::default();
        for step in 0..10_000 {
            let age = if step < 5_000 {
                AGE
            } else {
                Duration::from_secs(1 << 40)
            };
            ages.tick(step * 1_000, age, (0, step + 1));
        }
        let long = Duration::from_secs(64_000);
        for step in 10_000..200_000 {
            ages.tick(step * 1_000, long, (0, step + 1));
            assert!(ages.ladder.0.len() <= RUNGS_MAX);
        }
        assert!(
            ages.ladder
                .0
                .is_sorted_by(|a, b| a.index < b.index && a.millis <= b.millis)
        );
    }

    #[test]
    fn a_ladder_survives_the_disk_and_nothing_else_passes_for_one() {
        let full: Vec<_> = (1..=RUNGS_MAX as u64).map(|at| (at, at)).collect();
        let long: Vec<_> = (1..=RUNGS_MAX as u64 + 1).map(|at| (at, at)).collect();
        for (rungs, is_taken) in [
            (&[][..], true),
            (&[(1, 0), (2, 0), (100, u64::MAX)], true),
            (&full, true),
            (&long, false),
            (&[(2, 0), (2, 1)], false),
            (&[(1, 2), (2, 1)], false),
            (&[(101, 1)], false),
        ] {
            let mut bytes = Vec::new();
            ladder(rungs).encode(&mut bytes);
            let mut bytes = Bytes::from(bytes);
            let whole = bytes.clone();
            let decoded = Ladder::decode(&mut bytes, 100);
            assert_eq!(decoded.is_ok(), is_taken, "{rungs:?}");
            if let Ok(decoded) = decoded {
                assert_eq!(decoded, ladder(rungs));
                for length in 0..whole.len() {
                    assert!(
                        Ladder::decode(&mut whole.slice(..length), 100).is_err(),
                        "{length} bytes"
                    );
                }
            }
        }
    }
}
