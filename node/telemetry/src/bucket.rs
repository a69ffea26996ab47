//! A token bucket that never loses the latest: what it holds back is replaced by what comes after it, and the last one
//! comes out as soon as there is a token.

use std::time::Duration;

use raftlog_raft::time::Time;

/// Microseconds in a second.
const SECOND: u64 = 1_000_000;

/// Tokens that come back with time. Counts in millionths of a token, so that nothing is lost to rounding.
#[derive(Debug, Clone)]
pub struct Bucket {
    capacity: u64,
    per_second: u64,
    millionths: u64,
    filled_at: Option<Time>,
}

impl Bucket {
    /// Full at first: `burst` tokens, then `per_second` a second.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let capacity = u64::from(burst) * SECOND;
        Self {
            capacity,
            per_second: u64::from(per_second),
            millionths: capacity,
            filled_at: None,
        }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Time) -> bool {
        self.fill(now);
        let enough = self.millionths >= SECOND;
        if enough {
            self.millionths -= SECOND;
        }
        enough
    }

    /// When the next token is there; `now` if one is.
    pub fn next(&mut self, now: Time) -> Time {
        self.fill(now);
        let missing = SECOND.saturating_sub(self.millionths);
        if self.per_second == 0 && missing > 0 {
            return Time::NEVER;
        }
        now + Duration::from_micros(missing.div_ceil(self.per_second.max(1)))
    }

    fn fill(&mut self, now: Time) {
        let passed = self.filled_at.map_or(Duration::ZERO, |at| now - at);
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        self.millionths = self
            .millionths
            .saturating_add(micros.saturating_mul(self.per_second))
            .min(self.capacity);
        self.filled_at = Some(self.filled_at.map_or(now, |at| at.max(now)));
    }
}

/// A [`Bucket`] with a memory for the latest thing that it held back.
#[derive(Debug, Clone)]
pub struct Gate<T> {
    bucket: Bucket,
    held: Option<T>,
    suppressed: u64,
}

impl<T> Gate<T> {
    /// `burst` at once, then `per_second` a second.
    pub fn new(burst: u32, per_second: u32) -> Self {
        Self {
            bucket: Bucket::new(burst, per_second),
            held: None,
            suppressed: 0,
        }
    }

    /// Gives `latest` back if it may pass. Otherwise it is held until [`Gate::release`], or until something newer comes.
    pub fn offer(&mut self, now: Time, latest: T) -> Option<T> {
        if self.held.take().is_some() {
            self.suppressed += 1;
        }
        if self.bucket.take(now) {
            return Some(latest);
        }
        self.held = Some(latest);
        None
    }

    /// When to call [`Gate::release`]; nothing is held if `None`.
    pub fn due(&mut self, now: Time) -> Option<Time> {
        self.held.is_some().then(|| self.bucket.next(now))
    }

    /// What is held, if it may pass now.
    pub fn release(&mut self, now: Time) -> Option<T> {
        if self.held.is_some() && self.bucket.take(now) {
            self.held.take()
        } else {
            None
        }
    }

    /// What is held, whether it may pass or not: for the end.
    pub fn flush(&mut self) -> Option<T> {
        self.held.take()
    }

    /// How many were replaced by newer ones before they could pass.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000;

    #[test]
    fn a_burst_passes_and_then_a_steady_rate() {
        let mut bucket = Bucket::new(20, 10);
        let passed = (0..100).filter(|_| bucket.take(Time(5))).count();
        assert_eq!(passed, 20);
        // One second, asked every 7 ms: ten tokens, no matter how the asking falls.
        let passed = (1..=143)
            .filter(|i| bucket.take(Time(5 + i * 7 * MILLISECOND)))
            .count();
        assert_eq!(passed, 10);
        // It fills up to the burst and no further.
        assert_eq!((0..100).filter(|_| bucket.take(Time(3_600 * SECOND))).count(), 20);
    }

    #[test]
    fn next_says_when_a_token_is_there() {
        for (taken, per_second, expected) in [
            (0, 10, 0),
            (1, 10, 100 * MILLISECOND),
            (1, 3, 333_334),
            (1, 0, u64::MAX),
        ] {
            let mut bucket = Bucket::new(1, per_second);
            for _ in 0..taken {
                assert!(bucket.take(Time(0)));
            }
            let next = bucket.next(Time(0));
            assert_eq!(next, Time(expected), "{taken} taken, {per_second} a second");
            assert_eq!(bucket.take(next), next != Time::NEVER);
        }
    }

    #[test]
    fn time_that_stands_still_or_goes_back_gives_nothing() {
        let mut bucket = Bucket::new(1, 10);
        assert!(bucket.take(Time(SECOND)));
        assert!(!bucket.take(Time(0)));
        assert!(!bucket.take(Time(SECOND + 50 * MILLISECOND)));
        assert!(bucket.take(Time(SECOND + 100 * MILLISECOND)));
    }

    #[test]
    fn the_latest_always_comes_out_in_the_end() {
        let mut gate = Gate::new(2, 10);
        let passed: Vec<_> = (1..=50).filter_map(|i| gate.offer(Time(0), i)).collect();
        assert_eq!(passed, [1, 2]);
        assert_eq!(gate.suppressed(), 47);
        assert_eq!(gate.release(Time(0)), None);
        let due = gate.due(Time(0)).unwrap();
        assert_eq!(gate.release(due), Some(50));
        assert_eq!(gate.due(due), None);
        assert_eq!(gate.release(Time::NEVER), None);
    }

    #[test]
    fn what_passes_replaces_what_is_held() {
        let mut gate = Gate::new(1, 10);
        assert_eq!(gate.offer(Time(0), 'a'), Some('a'));
        assert_eq!(gate.offer(Time(0), 'b'), None);
        assert_eq!(gate.offer(Time(SECOND), 'c'), Some('c'));
        assert_eq!((gate.flush(), gate.suppressed()), (None, 1));
    }
}
