//! A pod's own clock: it runs too fast or too slow, jumps ahead, and shows what nobody else's shows.

use std::time::Duration;

use raftlog_raft::time::Time;

/// The rate of a clock that runs true.
pub(crate) const TRUE_RATE: u64 = 1_000_000;

/// A clock. It never goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    since: Time,
    shown_then: Time,
    /// Microseconds that it shows for each true second.
    rate: u64,
}

impl Clock {
    /// Shows `shown` now.
    pub(crate) fn new(now: Time, shown: Time, rate: u64) -> Self {
        Self {
            since: now,
            shown_then: shown,
            rate: rate.max(1),
        }
    }

    /// What it shows at that true time.
    pub(crate) fn shown(&self, now: Time) -> Time {
        let passed = u128::from(now.0.saturating_sub(self.since.0)) * u128::from(self.rate);
        let passed = u64::try_from(passed / u128::from(TRUE_RATE)).unwrap_or(u64::MAX);
        Time(self.shown_then.0.saturating_add(passed))
    }

    /// The first true time at which it shows that much; what it has shown already is past.
    pub(crate) fn when(&self, shown: Time) -> Time {
        if shown == Time::NEVER {
            return Time::NEVER;
        }
        let wanted = u128::from(shown.0.saturating_sub(self.shown_then.0)) * u128::from(TRUE_RATE);
        let passed = u64::try_from(wanted.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX);
        Time(self.since.0.saturating_add(passed))
    }

    /// Shows that much more from now on.
    pub(crate) fn jump(&mut self, now: Time, ahead: Duration) {
        *self = Self::new(now, self.shown(now) + ahead, self.rate);
    }

    /// Runs at another rate from now on.
    pub(crate) fn drift(&mut self, now: Time, rate: u64) {
        *self = Self::new(now, self.shown(now), rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_when_the_clock_shows_it() {
        for rate in [900_000, 999_999, TRUE_RATE, 1_000_001, 1_100_000] {
            let mut clock = Clock::new(Time(1_000), Time(77), rate);
            clock.jump(Time(5_000), Duration::from_secs(1));
            clock.drift(Time(9_000), rate + 1);
            for deadline in [1_100_000, 1_234_567, 98_765_432] {
                let at = clock.when(Time(deadline));
                assert!(clock.shown(at) >= Time(deadline), "{rate}: not too early");
                assert!(
                    clock.shown(Time(at.0 - 1)) < Time(deadline),
                    "{rate}: not later than needed"
                );
            }
        }
        assert_eq!(Clock::new(Time(0), Time(0), 1).when(Time::NEVER), Time::NEVER);
    }
}
