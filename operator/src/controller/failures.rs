//! What failed, and when it may be tried again: each subject by itself, so that one that fails holds up no other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Before the second attempt.
const FIRST: Duration = Duration::from_secs(1);
/// No wait is longer.
const LONGEST: Duration = Duration::from_mins(5);
/// No wait for a node is longer: that a node has no leader yet, or is not caught up, passes within seconds.
const LONGEST_AT_NODES: Duration = Duration::from_secs(10);
/// No wait for an eviction is longer: a PodDisruptionBudget allows it once the pod before is back.
const LONGEST_EVICTION: Duration = Duration::from_secs(30);
/// What may pass by itself is told from this attempt in a row on.
const PASSES_BEFORE: u32 = 3;

/// An attempt that did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Label of the step.
    pub step: &'static str,
    /// Such as `ApplyFailed`.
    pub reason: &'static str,
    /// One line: what, and the way out.
    pub message: String,
    /// Whether it is likely to work the next time: the view was stale, or a pod may only not be evicted just now.
    pub passes: bool,
}

/// One that has not worked since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Such as `ApplyFailed`.
    pub reason: &'static str,
    /// One line: what, and the way out.
    pub message: String,
    attempts: u32,
    told: bool,
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

    /// It failed; says whether that is news to people.
    pub fn failed(&mut self, subject: String, attempt: Attempt, now: Instant) -> bool {
        let before = self.by_subject.get(&subject);
        let told_before = before.filter(|failure| failure.told);
        let attempts = before.map_or(0, |failure| failure.attempts).saturating_add(1);
        let told = !attempt.passes || attempts >= PASSES_BEFORE || told_before.is_some();
        let news = told && told_before.is_none_or(|failure| failure.message != attempt.message);
        let wait = wait(attempt.step, attempts);
        let failure = Failure {
            reason: attempt.reason,
            message: attempt.message,
            attempts,
            told,
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

    /// All that people are told of, with what they are about.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Failure)> {
        self.by_subject
            .iter()
            .filter(|(_, failure)| failure.told)
            .map(|(subject, failure)| (subject.as_str(), failure))
    }

    /// Those that are not wanted any more do not fail any more.
    pub fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.by_subject.retain(|subject, _| wanted(subject));
    }
}

/// After so many attempts at that step, before the next one.
fn wait(step: &str, attempts: u32) -> Duration {
    let longest = match step {
        "membership" | "bootstrap" | "transfer" => LONGEST_AT_NODES,
        "evict" => LONGEST_EVICTION,
        _ => LONGEST,
    };
    let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
    FIRST.saturating_mul(doubled).min(longest)
}

#[cfg(test)]
mod tests {
    use raftlog_proto::v1::{BootstrapRequest, ChangeMembershipRequest};

    use super::super::step::Step;
    use super::*;

    fn attempt(message: &str, passes: bool) -> Attempt {
        Attempt {
            step: "apply",
            reason: "CallFailed",
            message: message.into(),
            passes,
        }
    }

    #[test]
    fn waits_grow_and_have_an_end() {
        let mut failures = Failures::default();
        let now = Instant::now();
        let mut fail = |message: &str| failures.failed("a".into(), attempt(message, false), now);
        assert!(fail("no"));
        assert!(!fail("no"), "that is known");
        assert!(fail("other"));
        assert!(!failures.may_try("a", now + Duration::from_secs(3)));
        assert!(failures.may_try("a", now + Duration::from_secs(4)));
        assert!(failures.may_try("b", now));
        for _ in 0..100 {
            failures.failed("a".into(), attempt("no", false), now);
        }
        assert!(failures.may_try("a", now + LONGEST));
        failures.worked("a");
        assert!(failures.may_try("a", now));
    }

    /// A cluster without a leader for a minute was left alone for five.
    #[test]
    fn nodes_are_asked_again_soon() {
        let (pod, uid, why) = (String::new(), String::new(), String::new());
        let membership = Step::ChangeMembership {
            leader: 1,
            request: ChangeMembershipRequest::default(),
            why: why.clone(),
        };
        let bootstrap = Step::Bootstrap {
            node: 1,
            request: BootstrapRequest::default(),
        };
        let transfer = Step::Transfer {
            leader: 1,
            to: 2,
            why: why.clone(),
        };
        let (evicted, evicted_uid, evicted_why) = (pod.clone(), uid.clone(), why.clone());
        let evict = Step::EvictPod {
            pod: evicted,
            uid: evicted_uid,
            why: evicted_why,
        };
        let delete = Step::DeletePod {
            pod,
            uid,
            stray: false,
            why,
        };
        for (step, seconds) in [
            (membership, 10),
            (bootstrap, 10),
            (transfer, 10),
            (evict, 30),
            (delete, 300),
        ] {
            let label = step.label();
            assert_eq!(wait(label, 1), FIRST, "{label}");
            assert_eq!(wait(label, 40), Duration::from_secs(seconds), "{label}");
        }
    }

    #[test]
    fn what_may_pass_is_told_from_the_third_attempt_on() {
        let mut failures = Failures::default();
        let now = Instant::now();
        let told = |failures: &Failures| failures.all().count();
        for (attempts, news) in [(1, false), (2, false), (3, true), (4, false)] {
            let failed = failures.failed("a".into(), attempt("stale", true), now);
            assert_eq!(failed, news, "attempt {attempts}");
            assert_eq!(told(&failures), usize::from(attempts >= 3), "attempt {attempts}");
            assert!(!failures.may_try("a", now), "it is not tried at once");
        }
        failures.worked("a");
        assert!(
            !failures.failed("a".into(), attempt("stale", true), now),
            "it is a new row"
        );
        assert!(failures.failed("a".into(), attempt("no right", false), now));
        failures.failed("a".into(), attempt("stale", true), now);
        assert_eq!(told(&failures), 1, "what was told stays until it works");
    }
}
