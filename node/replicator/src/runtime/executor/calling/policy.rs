//! What follows from an attempt that failed: decided here, and nowhere else.

use std::time::Duration;

use bytes::Bytes;

/// No endpoint makes anybody wait longer than this.
pub(in crate::runtime) const ASKED_WAIT_MAX: Duration = Duration::from_mins(5);

/// What comes of an attempt.
pub(in crate::runtime) type Outcome = Result<Executed, Failed>;

/// It is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::runtime) struct Executed {
    /// For whoever waits for it; absent where it is not known.
    pub(in crate::runtime) result: Option<Bytes>,
}

/// It is not, as far as can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) struct Failed {
    /// One line, for people.
    pub(in crate::runtime) why: String,
    pub(in crate::runtime) kind: Kind,
}

/// What another attempt is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) enum Kind {
    /// Nothing took it.
    Unreached,
    /// It may do better, not before that time has passed.
    Later(Duration),
    /// It has seen a later leader than the one beside this replicator: the operation is that one's to execute, or to give up.
    Fenced,
    /// It would fail in the same way.
    Never,
}

impl Failed {
    pub(in crate::runtime) fn unreached(why: impl Into<String>) -> Self {
        let why = why.into();
        Self {
            why,
            kind: Kind::Unreached,
        }
    }

    pub(in crate::runtime) fn later(why: impl Into<String>) -> Self {
        let (why, kind) = (why.into(), Kind::Later(Duration::ZERO));
        Self { why, kind }
    }

    pub(in crate::runtime) fn fenced(why: impl Into<String>) -> Self {
        let (why, kind) = (why.into(), Kind::Fenced);
        Self { why, kind }
    }

    pub(in crate::runtime) fn never(why: impl Into<String>) -> Self {
        let (why, kind) = (why.into(), Kind::Never);
        Self { why, kind }
    }
}

/// What the user wants of operations that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) struct Policy {
    /// The first wait is about this long, the next ones twice as long each.
    pub(in crate::runtime) wait_first: Duration,
    /// No wait is longer, but where the endpoint asks for it.
    pub(in crate::runtime) wait_longest: Duration,
    /// Then it is given up; absent: never.
    pub(in crate::runtime) attempts_max: Option<u64>,
    pub(in crate::runtime) on_failure: OnFailure,
}

/// What giving up means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::runtime) enum OnFailure {
    /// Nothing more is executed until the replicator is started again.
    #[default]
    Stop,
    /// It is recorded, and the next one is executed.
    Skip,
}

/// What is to be done after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    RetryIn(Duration),
    GiveUp(OnFailure),
}

impl Policy {
    /// `attempts` have failed, `counted` of them by what is not [`Kind::Fenced`]; `random` is in 0.0..1.0.
    pub(super) fn after(&self, kind: Kind, attempts: u64, counted: u64, random: f64) -> Next {
        let asked = match kind {
            Kind::Never => return Next::GiveUp(self.on_failure),
            Kind::Fenced => return Next::RetryIn(self.wait(attempts, random)),
            Kind::Unreached => Duration::ZERO,
            Kind::Later(asked) => asked.min(ASKED_WAIT_MAX),
        };
        if self.attempts_max.is_some_and(|max| counted >= max) {
            return Next::GiveUp(self.on_failure);
        }
        Next::RetryIn(self.wait(attempts, random).max(asked))
    }

    /// Between half and the whole of what doubling gives, so that replicators do not come back all at once.
    fn wait(&self, attempts: u64, random: f64) -> Duration {
        let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let wait = self.wait_first.saturating_mul(2_u32.saturating_pow(doublings));
        wait.min(self.wait_longest)
            .mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn policy(attempts_max: Option<u64>, on_failure: OnFailure) -> Policy {
        Policy {
            wait_first: 100 * MS,
            wait_longest: 1000 * MS,
            attempts_max,
            on_failure,
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let policy = policy(None, OnFailure::Stop);
        for (attempts, random, expected) in [
            (1, 0.0, 50),
            (1, 0.5, 75),
            (1, 1.0, 100),
            (2, 1.0, 200),
            (4, 1.0, 800),
            (5, 1.0, 1000),
            (5, 0.0, 500),
            (64, 1.0, 1000),
            (u64::MAX, 1.0, 1000),
        ] {
            let next = policy.after(Kind::Unreached, attempts, attempts, random);
            assert_eq!(next, Next::RetryIn(expected * MS), "{attempts} {random}");
        }
    }

    #[test]
    fn what_an_endpoint_asks_for_is_waited_for_within_a_bound() {
        let policy = policy(None, OnFailure::Stop);
        for (asked, expected) in [
            (Duration::ZERO, 100 * MS),
            (99 * MS, 100 * MS),
            (5000 * MS, 5000 * MS),
            (Duration::MAX, ASKED_WAIT_MAX),
        ] {
            let next = policy.after(Kind::Later(asked), 1, 1, 1.0);
            assert_eq!(next, Next::RetryIn(expected), "{asked:?}");
        }
    }

    #[test]
    fn it_is_given_up_when_the_user_said_or_when_nothing_else_would_help() {
        let later = Kind::Later(Duration::ZERO);
        for on_failure in [OnFailure::Stop, OnFailure::Skip] {
            for (attempts_max, kind, attempts, gives_up) in [
                (None, later, u64::MAX, false),
                (None, Kind::Unreached, u64::MAX, false),
                (None, Kind::Never, 1, true),
                (Some(3), later, 2, false),
                (Some(3), later, 3, true),
                (Some(3), Kind::Unreached, 3, true),
                (Some(3), Kind::Never, 1, true),
                (Some(3), Kind::Fenced, u64::MAX, false),
                (Some(1), later, 1, true),
            ] {
                let next = policy(attempts_max, on_failure).after(kind, u64::MAX, attempts, 0.0);
                let found = next == Next::GiveUp(on_failure);
                assert_eq!(found, gives_up, "{attempts_max:?} {kind:?} {attempts}: {next:?}");
            }
        }
    }
}
