//! What failed, and when it may be tried again: each subject by itself, so that one that fails holds up no other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Before the second attempt.
const FIRST: Duration = Duration::from_secs(1);
/// No wait is longer.
const LONGEST: Duration = Duration::from_mins(5);

/// One that has not worked since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Such as `ApplyFailed`.
    pub reason: &'static str,
    /// One line: what, and the way out.
    pub message: String,
    attempts: u32,
    again_at: Instant,
}

/// Failures by subject. There are no more than a cluster has objects.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    by_subject: BTreeMap<String, Failure>,
}

impl Failures {
    /// Whether that may be tried.
    pub fn may_try(&self, subject: &str, now: Instant) -> bool {
        self.by_subject
            .get(subject)
            .is_none_or(|failure| failure.again_at <= now)
    }

    /// Why that fails, if it does.
    pub fn reason(&self, subject: &str) -> Option<&'static str> {
        self.by_subject.get(subject).map(|failure| failure.reason)
    }

    /// It failed; says whether that is news.
    pub fn failed(&mut self, subject: String, reason: &'static str, message: String, now: Instant) -> bool {
        let before = self.by_subject.get(&subject);
        let attempts = before.map_or(0, |failure| failure.attempts.saturating_add(1));
        let news = before.is_none_or(|failure| failure.message != message);
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(attempts)).min(LONGEST);
        let failure = Failure {
            reason,
            message,
            attempts,
            again_at: now.checked_add(wait).unwrap_or(now),
        };
        self.by_subject.insert(subject, failure);
        news
    }

    /// It worked.
    pub fn worked(&mut self, subject: &str) {
        self.by_subject.remove(subject);
    }

    /// Something else is asked for: all may be tried, and what is asked for no more is forgotten.
    pub fn forget(&mut self) {
        self.by_subject.clear();
    }

    /// All that fail, with what they are about.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Failure)> {
        self.by_subject
            .iter()
            .map(|(subject, failure)| (subject.as_str(), failure))
    }

    /// Those that are not wanted any more do not fail any more.
    pub fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.by_subject.retain(|subject, _| wanted(subject));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_have_an_end() {
        let mut failures = Failures::default();
        let now = Instant::now();
        let mut fail = |message: &str| failures.failed("a".into(), "ApplyFailed", message.into(), now);
        assert!(fail("no"));
        assert!(!fail("no"), "that is known");
        assert!(fail("other"));
        assert!(!failures.may_try("a", now + Duration::from_secs(3)));
        assert!(failures.may_try("a", now + Duration::from_secs(4)));
        assert!(failures.may_try("b", now));
        for _ in 0..100 {
            failures.failed("a".into(), "ApplyFailed", "no".into(), now);
        }
        assert!(failures.may_try("a", now + LONGEST));
        failures.worked("a");
        assert!(failures.may_try("a", now));
    }
}
