//! Which waits are worth an Event: those that last, each once.

use std::collections::BTreeSet;
use std::time::Instant;

use super::lasting::Lasting;

/// So many texts are remembered; one more, and all of them may be told again.
const TOLD_MAX: usize = 64;

/// What a cluster waits for, and what was told of it.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    lasting: Lasting<String>,
    told: BTreeSet<String>,
}

impl Waiting {
    /// It waits for that at the moment, or for nothing; gives the text, once, when it has lasted.
    pub fn note(&mut self, waits: Option<&str>, now: Instant) -> Option<String> {
        let lasts = self.lasting.note(waits.map(str::to_owned), now)?;
        if self.told.contains(lasts) {
            return None;
        }
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        self.told.insert(lasts.clone());
        Some(lasts.clone())
    }

    /// Something else is asked for: what is waited for then is news.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_that_lasts_is_told_once() {
        let mut waiting = Waiting::default();
        let began = Instant::now();
        let leader = Some("waits until a leader is elected");
        let pod = Some("waits for the nodes of demo-2");
        for (seconds, waits, told) in [
            (0, leader, None),
            (29, leader, None),
            (30, leader, leader),
            (31, leader, None),
            (40, pod, None),
            (69, pod, None),
            (70, pod, pod),
            (80, None, None),
            (90, leader, None),
            (130, leader, None),
        ] {
            let now = began + Duration::from_secs(seconds);
            assert_eq!(waiting.note(waits, now).as_deref(), told, "after {seconds} s");
        }
        waiting.forget();
        assert_eq!(waiting.note(leader, began), None);
        let now = began + Duration::from_secs(30);
        assert_eq!(waiting.note(leader, now).as_deref(), leader);
    }

    #[test]
    fn texts_that_never_end_take_no_memory() {
        let mut waiting = Waiting::default();
        let mut now = Instant::now();
        for number in 0..1_000 {
            let text = format!("waits for {number}");
            waiting.note(Some(&text), now);
            now += Duration::from_secs(30);
            waiting.note(Some(&text), now);
        }
        assert!(waiting.told.len() <= TOLD_MAX);
    }
}
