//! When a load runs.

use std::time::{Duration, Instant};

/// When a load begins, and which part of it is measured. It ends with that part.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// From here on there is load.
    pub begin: Instant,
    /// What is answered from here on counts.
    pub from: Instant,
    /// And before this.
    pub until: Instant,
}

impl Span {
    /// Begins now, with so much that does not count.
    pub fn from_now(warm_up: Duration, duration: Duration) -> Self {
        let begin = Instant::now();
        let from = begin + warm_up;
        Self {
            begin,
            from,
            until: from + duration,
        }
    }

    /// Whether what happens at that time counts.
    pub fn measures(&self, at: Instant) -> bool {
        at >= self.from && at < self.until
    }

    /// How long is measured.
    pub fn measured(&self) -> Duration {
        self.until.duration_since(self.from)
    }

    /// How long it takes, from beginning to end.
    pub fn whole(&self) -> Duration {
        self.until.duration_since(self.begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_counts() {
        let span = Span::from_now(Duration::from_secs(1), Duration::from_secs(2));
        for (milliseconds, expected) in [
            (0, false),
            (999, false),
            (1000, true),
            (2999, true),
            (3000, false),
        ] {
            let at = span.begin + Duration::from_millis(milliseconds);
            assert_eq!(span.measures(at), expected, "{milliseconds}");
        }
        assert_eq!(span.measured(), Duration::from_secs(2));
        assert_eq!(span.whole(), Duration::from_secs(3));
    }
}
