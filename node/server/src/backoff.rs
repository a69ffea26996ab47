//! How long to wait before the next attempt: exponential, with jitter, bounded, and short again after a success.

use std::time::Duration;

/// The first wait is about this long.
const FIRST: Duration = Duration::from_millis(50);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(1);

/// Waits of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether the last attempt worked.
    pub(crate) fn is_reset(&self) -> bool {
        self.failures == 0
    }

    /// It failed: the time to wait, half of it at random. `random` is uniform in 0..=1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let longest = FIRST
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_second_and_starts_over() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..40).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits[..6], [50, 100, 200, 400, 800, 1_000]);
        assert!(waits[6..].iter().all(|&wait| wait == 1_000));
        backoff.reset();
        assert!(backoff.is_reset());
        assert_eq!(backoff.next(0.0).as_millis(), 25);
        assert_eq!(backoff.next(0.5).as_millis(), 75);
    }
}
