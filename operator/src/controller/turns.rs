//! One cluster at a time rolls out what is new in the operator itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cache::Key;

/// Those that an operator before this one has begun with come first: so long nobody else begins.
const OTHERS_WAIT: Duration = Duration::from_secs(15);

/// Whose turn it is. Clones are the same.
#[derive(Debug, Clone)]
pub struct Turns {
    holder: Arc<Mutex<Option<Key>>>,
    since: Instant,
}

impl Turns {
    /// It is nobody's.
    pub fn new(now: Instant) -> Self {
        Self {
            holder: Arc::default(),
            since: now,
        }
    }

    /// The name of the other cluster whose turn it is, if it is another's.
    pub fn of_another(&self, key: &Key) -> Option<String> {
        let holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        let other = holder.as_ref().filter(|holder| *holder != key)?;
        Some(format!("{}/{}", other.namespace, other.name))
    }

    /// It is done with its turn, or wants none.
    pub fn give_back(&self, key: &Key) {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        if holder.as_ref() == Some(key) {
            *holder = None;
        }
    }

    /// It wants its turn; says whether it has it. `has_begun`: some of its pods are new already.
    pub fn take(&self, key: &Key, has_begun: bool, now: Instant) -> bool {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        let may_begin = has_begun || now.saturating_duration_since(self.since) >= OTHERS_WAIT;
        if holder.is_none() && may_begin {
            *holder = Some(key.clone());
        }
        holder.as_ref() == Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_first_who_has_begun() {
        let key = |name: &str| Key {
            namespace: "a".into(),
            name: name.into(),
        };
        let (one, other) = (key("one"), key("other"));
        let start = Instant::now();
        let turns = Turns::new(start);
        assert!(!turns.take(&one, false, start), "another may have begun");
        assert!(turns.take(&other, true, start));
        assert_eq!(turns.of_another(&one).as_deref(), Some("a/other"));
        assert_eq!(turns.of_another(&other), None);
        let later = start + OTHERS_WAIT;
        assert!(!turns.take(&one, true, later));
        turns.give_back(&one);
        assert!(turns.of_another(&one).is_some(), "only its holder gives it back");
        turns.give_back(&other);
        assert!(turns.take(&one, false, later));
    }
}
