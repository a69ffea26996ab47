//! How runs differ from what their seeds draw.

use raftlog_raft::planted::{Bug, Planted};

use crate::options::Options;
use crate::runner::run_seed;

/// What is left out of runs, and which bug is planted in them.
#[derive(Debug, Clone, Default)]
pub struct Variation {
    without: Vec<&'static str>,
    bug: Option<Bug>,
    planted: Planted,
}

impl Variation {
    /// Leaves out a fault, or a way in which messages and clocks go wrong.
    pub fn leave_out(&mut self, name: &str) -> Result<(), String> {
        let known = Options::PARTS.iter().find(|part| **part == name);
        let part = known.ok_or_else(|| format!("'{name}' is none of {}", Options::PARTS.join(", ")))?;
        if !self.without.contains(part) {
            self.without.push(part);
        }
        Ok(())
    }

    /// Plants a bug.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: Bug) -> Result<(), String> {
        self.bug = Some(bug);
        self.planted = Planted::with(bug);
        Ok(())
    }

    /// Plants a bug: not in this build.
    #[cfg(not(feature = "planted-bugs"))]
    pub fn plant(&mut self, bug: Bug) -> Result<(), String> {
        let name = bug.name();
        Err(format!(
            "this build has no room for '{name}': run it as cargo run --release -p simulation --features planted-bugs"
        ))
    }

    /// What that seed draws, varied.
    pub fn options(&self, seed: u64) -> Options {
        let mut options = Options::draw(seed);
        for part in &self.without {
            options.leave_out(part);
        }
        options.planted = self.planted;
        options
    }

    /// The command that runs that seed again, telling what happens.
    pub fn replay_command(&self, seed: u64) -> String {
        let mut command = vec!["cargo run --release -p simulation".to_owned()];
        command.extend(self.bug.map(|_| "--features planted-bugs".to_owned()));
        command.push(format!("-- --seed {seed}"));
        command.extend(self.bug.map(|bug| format!("--plant {}", bug.name())));
        if !self.without.is_empty() {
            command.push(format!("--without {}", self.without.join(",")));
        }
        command.join(" ")
    }

    /// Leaves out whatever that seed can do without and still violate the same invariant.
    #[must_use]
    pub fn minimized(&self, seed: u64) -> Self {
        let fails = |variation: &Self| match run_seed(&variation.options(seed), false) {
            Ok(outcome) => outcome.violation.map(|violation| violation.invariant),
            Err(violation) => Some(violation.invariant),
        };
        let mut least = self.clone();
        let Some(invariant) = fails(&least) else {
            return least;
        };
        for part in self.options(seed).parts() {
            let mut less = least.clone();
            less.without.push(part);
            if fails(&less) == Some(invariant) {
                least = less;
            }
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_not_drawn() {
        let mut variation = Variation::default();
        for part in Options::PARTS {
            variation.leave_out(part).unwrap();
            variation.leave_out(part).unwrap();
        }
        assert!(variation.leave_out("everything").is_err());
        for seed in 0..20 {
            let options = variation.options(seed);
            assert_eq!(options.parts(), Vec::<&str>::new(), "{options}");
            assert!(options.faults.is_empty());
        }
        let command = variation.replay_command(7);
        assert!(command.contains("--seed 7 --without power,"), "{command}");
    }
}
