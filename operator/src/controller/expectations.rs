//! What this process wrote and does not see yet. A view that lacks it is stale, and nothing is decided on it: controllers of
//! Kubernetes call that expectations.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::resources::Kind;

/// What is written and deleted by others in the same moment may never be seen; a watch that fails is told of elsewhere.
const LONGEST: Duration = Duration::from_secs(10);

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One of the cluster's own objects.
    Object(Kind, String),
    /// A pod.
    Pod(String),
    /// A claim.
    Claim(String),
}

/// What a view has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    /// That version or a later one (KEP-5504: versions of one resource can be compared as numbers).
    Version(u64),
    /// That the object of this identity goes or has gone.
    Leaving(String),
}

/// An object as the view shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    version: u64,
    uid: String,
    leaving: bool,
}

impl Seen {
    /// Of its metadata.
    pub fn new(metadata: &ObjectMeta) -> Self {
        Self {
            version: number(metadata.resource_version.as_deref()).unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            leaving: metadata.deletion_timestamp.is_some(),
        }
    }
}

/// What is expected, by what was written: no more than a cluster has objects.
#[derive(Debug, Clone, Default)]
pub struct Expectations {
    by_target: BTreeMap<Target, (Expected, Instant)>,
}

impl Expectations {
    /// The API server answered a write with that version.
    pub fn wrote(&mut self, target: Target, version: Option<&str>, now: Instant) {
        if let Some(version) = number(version) {
            self.by_target.insert(target, (Expected::Version(version), now));
        }
    }

    /// The object of that identity was deleted or evicted.
    pub fn deleted(&mut self, target: Target, uid: &str, now: Instant) {
        self.by_target
            .insert(target, (Expected::Leaving(uid.to_owned()), now));
    }

    /// Whether the view, asked by `seen`, shows all of it. What it shows is expected no more.
    pub fn are_met(&mut self, now: Instant, seen: impl Fn(&Target) -> Option<Seen>) -> bool {
        self.by_target.retain(|target, (expected, since)| {
            let met = is_met(expected, seen(target).as_ref());
            !met && now.saturating_duration_since(*since) < LONGEST
        });
        self.by_target.is_empty()
    }
}

fn is_met(expected: &Expected, seen: Option<&Seen>) -> bool {
    match (expected, seen) {
        (Expected::Version(version), Some(seen)) => seen.version >= *version,
        (Expected::Version(_), None) => false,
        (Expected::Leaving(uid), Some(seen)) => seen.leaving || seen.uid != *uid,
        (Expected::Leaving(_), None) => true,
    }
}

fn number(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(version: u64, uid: &str, leaving: bool) -> Seen {
        Seen {
            version,
            uid: uid.to_owned(),
            leaving,
        }
    }

    #[test]
    fn a_view_is_stale_until_it_shows_what_was_written() {
        let version = Expected::Version(10);
        let leaving = Expected::Leaving("u".into());
        for (expected, seen, met) in [
            (&version, None, false),
            (&version, Some(seen(9, "u", false)), false),
            (&version, Some(seen(10, "u", false)), true),
            (&version, Some(seen(100, "u", false)), true),
            (&leaving, Some(seen(100, "u", false)), false),
            (&leaving, Some(seen(100, "u", true)), true),
            (&leaving, Some(seen(100, "v", false)), true),
            (&leaving, None, true),
        ] {
            assert_eq!(is_met(expected, seen.as_ref()), met, "{expected:?} {seen:?}");
        }
    }

    #[test]
    fn nothing_is_expected_for_ever() {
        let mut expectations = Expectations::default();
        let now = Instant::now();
        expectations.wrote(Target::Pod("demo-0".into()), Some("5"), now);
        expectations.wrote(Target::Pod("demo-1".into()), Some("not a number"), now);
        assert!(!expectations.are_met(now, |_| None));
        assert!(expectations.are_met(now + LONGEST, |_| None));
    }
}
