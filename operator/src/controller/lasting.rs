//! What has to be so for a while before anybody is told: much passes by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// That long.
pub const LASTS: Duration = Duration::from_secs(30);

/// Since when each of them is so. There are as many as are so at the moment.
#[derive(Debug, Clone)]
pub struct Lasting<T> {
    since: BTreeMap<T, Instant>,
}

impl<T> Default for Lasting<T> {
    fn default() -> Self {
        Self {
            since: BTreeMap::new(),
        }
    }
}

impl<T: Ord> Lasting<T> {
    /// These are so at the moment, and no others; gives the first that has been so for long enough.
    pub fn note(&mut self, now_so: impl IntoIterator<Item = T>, now: Instant) -> Option<&T> {
        let mut before = std::mem::take(&mut self.since);
        let dated = now_so.into_iter().map(|what| {
            let since = before.remove(&what).unwrap_or(now);
            (what, since)
        });
        self.since = dated.collect();
        let lasts = |since: Instant| now.saturating_duration_since(since) >= LASTS;
        self.since
            .iter()
            .find_map(|(what, since)| lasts(*since).then_some(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_time() {
        let mut lasting = Lasting::default();
        let began = Instant::now();
        for (seconds, now_so, expected) in [
            (0, &["a"][..], None),
            (10, &["a", "b"], None),
            (29, &["a", "b"], None),
            (30, &["a", "b"], Some("a")),
            (31, &["b"], None),
            (40, &["a", "b"], Some("b")),
            (41, &[], None),
            (42, &["b"], None),
            (71, &["b"], None),
            (72, &["b"], Some("b")),
        ] {
            let now = began + Duration::from_secs(seconds);
            let told = lasting.note(now_so.iter().copied(), now).copied();
            assert_eq!(told, expected, "after {seconds} s");
        }
    }
}
