//! One cluster at a time rolls out what is new in the operator itself.

use std::sync::{Arc, Mutex, PoisonError};

use super::cache::Key;

/// Whose turn it is. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    holder: Arc<Mutex<Option<Key>>>,
}

impl Turns {
    /// Whether it is that cluster's turn, or could be.
    pub fn may(&self, key: &Key) -> bool {
        let holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        holder.as_ref().is_none_or(|holder| holder == key)
    }

    /// It wants its turn, or is done with it; says whether it has it.
    pub fn wants(&self, key: &Key, wants: bool) -> bool {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*holder, wants) {
            (None, true) => *holder = Some(key.clone()),
            (Some(current), false) if current == key => *holder = None,
            _ => {}
        }
        holder.as_ref() == Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let key = |name: &str| Key {
            namespace: "a".into(),
            name: name.into(),
        };
        let (one, other) = (key("one"), key("other"));
        let turns = Turns::default();
        assert!(turns.may(&one) && turns.may(&other));
        assert!(turns.wants(&one, true));
        assert!(!turns.wants(&other, true));
        assert!(!turns.may(&other));
        turns.wants(&other, false);
        assert!(turns.may(&one), "only its holder gives it back");
        turns.wants(&one, false);
        assert!(turns.wants(&other, true));
    }
}
