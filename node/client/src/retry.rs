//! When to try again, and what it comes to when there is no more trying: pure.

use std::time::Duration;

use crate::error::Class;

/// Delays between attempts: exponential with jitter, bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay.
    pub base: Duration,
    /// No delay is longer.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(20),
            cap: Duration::from_millis(400),
        }
    }
}

impl Backoff {
    /// The delay before attempt `attempt` + 1 (the first attempt is 1), between half and all of its exponential value;
    /// `random` is in 0..1.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(20);
        let full = self.base.saturating_mul(1 << doublings).min(self.cap);
        full.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

/// How one attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection: the request never left.
    NotConnected,
    /// It was answered, or the connection broke under it.
    Answered(Class),
    /// The time for the whole call went by under it.
    Unanswered,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Try the next endpoint after this long.
    Again(Duration),
    /// Give up.
    Stop(Verdict),
}

/// What a call that was given up came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing was appended, nor ever will be.
    Invalid,
    /// Nothing was appended.
    Refused,
    /// Nothing was appended, in the time given.
    TimedOut,
    /// Nothing was appended: no endpoint is a node's.
    NoNode,
    /// It may have been appended.
    Unknown,
}

/// The attempts of one call.
#[derive(Clone, Debug)]
pub(crate) struct Attempts {
    backoff: Backoff,
    endpoints: u32,
    appends: bool,
    repeatable: bool,
    maybe_appended: bool,
    unreached: u32,
    /// Answers in a row that no node gave.
    strangers: u32,
    delays: u32,
}

impl Attempts {
    /// A call that may go to any of `endpoints`. `appends`: it matters whether an attempt appended something. `repeatable`: an
    /// attempt whose outcome is unknown may be repeated, as it has a session, or appends nothing that matters.
    pub(crate) fn new(backoff: Backoff, endpoints: usize, appends: bool, repeatable: bool) -> Self {
        let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX).max(1);
        Self {
            backoff,
            endpoints,
            appends,
            repeatable,
            maybe_appended: false,
            unreached: 0,
            strangers: 0,
            delays: 0,
        }
    }

    /// After a failed attempt, with the time that is left and a random number in 0..1.
    pub(crate) fn failed(&mut self, failure: Failure, remaining: Duration, random: f64) -> Step {
        self.strangers = match failure {
            Failure::Answered(Class::NotANode) => self.strangers.saturating_add(1),
            _ => 0,
        };
        let (again, verdict) = match failure {
            Failure::NotConnected | Failure::Answered(Class::Retry) => (true, Verdict::TimedOut),
            Failure::Answered(Class::NotANode) => (self.strangers < self.endpoints, Verdict::NoNode),
            Failure::Answered(Class::Refused) => (false, Verdict::Refused),
            Failure::Answered(Class::Invalid) => (false, Verdict::Invalid),
            Failure::Answered(Class::Unknown { repeat }) => {
                self.maybe_appended = self.appends;
                (repeat && self.repeatable, Verdict::Unknown)
            }
            Failure::Unanswered => {
                self.maybe_appended = self.appends;
                (false, Verdict::TimedOut)
            }
        };
        if !again {
            return Step::Stop(self.settled(verdict));
        }
        let delay = self.next_delay(failure, random);
        if delay >= remaining {
            Step::Stop(self.out_of_time())
        } else {
            Step::Again(delay)
        }
    }

    /// What it came to when time ran out between two attempts.
    pub(crate) fn out_of_time(&self) -> Verdict {
        self.settled(Verdict::TimedOut)
    }

    /// Progress was made: patience starts anew.
    pub(crate) fn progressed(&mut self) {
        self.maybe_appended = false;
        self.unreached = 0;
        self.strangers = 0;
        self.delays = 0;
    }

    /// An earlier attempt that may have been appended outweighs any later refusal.
    fn settled(&self, verdict: Verdict) -> Verdict {
        if self.maybe_appended {
            Verdict::Unknown
        } else {
            verdict
        }
    }

    /// Endpoints that are unreachable, or no node's, are passed over at once, until all of them were tried.
    fn next_delay(&mut self, failure: Failure, random: f64) -> Duration {
        if matches!(
            failure,
            Failure::NotConnected | Failure::Answered(Class::NotANode)
        ) {
            self.unreached = self.unreached.saturating_add(1);
            if !self.unreached.is_multiple_of(self.endpoints) {
                return Duration::ZERO;
            }
        }
        self.delays = self.delays.saturating_add(1);
        self.backoff.delay(self.delays, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);
    const RETRY: Failure = Failure::Answered(Class::Retry);
    const LOST: Failure = Failure::Answered(Class::Unknown { repeat: true });
    const FORGOTTEN: Failure = Failure::Answered(Class::Unknown { repeat: false });
    const REFUSED: Failure = Failure::Answered(Class::Refused);
    const INVALID: Failure = Failure::Answered(Class::Invalid);

    #[test]
    fn delays_grow_and_are_bounded() {
        let backoff = Backoff {
            base: Duration::from_millis(10),
            cap: Duration::from_millis(100),
        };
        for (attempt, random, milliseconds) in [
            (1, 1.0, 10),
            (1, 0.0, 5),
            (2, 1.0, 20),
            (4, 1.0, 80),
            (5, 1.0, 100),
            (5, 0.0, 50),
            (u32::MAX, 1.0, 100),
            (0, 1.0, 10),
        ] {
            assert_eq!(
                backoff.delay(attempt, random),
                Duration::from_millis(milliseconds),
                "{attempt} {random}"
            );
        }
        assert_eq!(
            backoff.delay(1, f64::MAX),
            Duration::from_millis(10),
            "random is clamped"
        );
    }

    fn verdict_after(attempts: &mut Attempts, failures: &[Failure]) -> Option<Verdict> {
        let steps = failures
            .iter()
            .map(|failure| attempts.failed(*failure, LONG, 0.5));
        match steps.last() {
            Some(Step::Stop(verdict)) => Some(verdict),
            _ => None,
        }
    }

    /// What a series of failures leads to, the last one deciding.
    #[test]
    fn what_failures_come_to() {
        for (repeatable, failures, expected) in [
            (true, vec![INVALID], Some(Verdict::Invalid)),
            (true, vec![REFUSED], Some(Verdict::Refused)),
            (true, vec![RETRY, REFUSED], Some(Verdict::Refused)),
            (true, vec![RETRY, RETRY], None),
            (true, vec![LOST], None),
            (false, vec![LOST], Some(Verdict::Unknown)),
            (false, vec![RETRY, Failure::NotConnected], None),
            (true, vec![FORGOTTEN], Some(Verdict::Unknown)),
            // What may have been appended stays so, whatever a later attempt is told.
            (true, vec![LOST, REFUSED], Some(Verdict::Unknown)),
            (true, vec![LOST, INVALID], Some(Verdict::Unknown)),
            (true, vec![RETRY, Failure::Unanswered], Some(Verdict::Unknown)),
        ] {
            let mut attempts = Attempts::new(Backoff::default(), 5, true, repeatable);
            let verdict = verdict_after(&mut attempts, &failures);
            assert_eq!(verdict, expected, "repeatable {repeatable} {failures:?}");
        }
    }

    #[test]
    fn endpoints_that_are_no_node_s_end_it_when_all_are() {
        let stranger = Failure::Answered(Class::NotANode);
        for (failures, expected) in [
            (vec![stranger], None),
            (vec![stranger, stranger], Some(Verdict::NoNode)),
            (vec![stranger, RETRY, stranger], None),
            (vec![stranger, Failure::NotConnected, stranger], None),
            (vec![LOST, stranger, stranger], Some(Verdict::Unknown)),
        ] {
            let mut attempts = Attempts::new(Backoff::default(), 2, true, true);
            let verdict = verdict_after(&mut attempts, &failures);
            assert_eq!(verdict, expected, "{failures:?}");
        }
    }

    #[test]
    fn time_runs_out() {
        for (failure, expected) in [
            (RETRY, Verdict::TimedOut),
            (Failure::NotConnected, Verdict::TimedOut),
            (LOST, Verdict::Unknown),
        ] {
            let mut attempts = Attempts::new(Backoff::default(), 1, true, true);
            assert_eq!(
                attempts.failed(failure, Duration::ZERO, 0.5),
                Step::Stop(expected),
                "{failure:?}"
            );
        }
        let mut attempts = Attempts::new(Backoff::default(), 1, true, true);
        assert_eq!(attempts.out_of_time(), Verdict::TimedOut);
        attempts.failed(LOST, LONG, 0.5);
        assert_eq!(attempts.out_of_time(), Verdict::Unknown);
        attempts.progressed();
        assert_eq!(attempts.out_of_time(), Verdict::TimedOut);
    }

    #[test]
    fn unreachable_endpoints_are_passed_over_at_once() {
        let mut attempts = Attempts::new(Backoff::default(), 3, true, false);
        let delays: Vec<bool> = (0..6)
            .map(|_| attempts.failed(Failure::NotConnected, LONG, 1.0) == Step::Again(Duration::ZERO))
            .collect();
        assert_eq!(delays, [true, true, false, true, true, false]);
    }

    #[test]
    fn a_call_that_appends_nothing_leaves_nothing_open() {
        let mut attempts = Attempts::new(Backoff::default(), 1, false, true);
        attempts.failed(LOST, LONG, 0.5);
        assert_eq!(attempts.out_of_time(), Verdict::TimedOut);
        assert_eq!(
            attempts.failed(Failure::Unanswered, LONG, 0.5),
            Step::Stop(Verdict::TimedOut)
        );
        assert_eq!(attempts.failed(REFUSED, LONG, 0.5), Step::Stop(Verdict::Refused));
    }
}
