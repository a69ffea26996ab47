//! What a snapshot holds beside its place: two bytes that say whose state follows, and that state, which only its executor
//! understands.

use bytes::Bytes;
use std::fmt;

/// Bytes before an executor's own: `version u8, executor u8`.
pub const STATE_HEADER_BYTES: usize = 2;

const VERSION: u8 = 1;

/// What executes operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorKind {
    /// Prints operations. As what it has printed stays printed, it has no state beyond the place.
    Log,
    /// Posts operations to a URL. What that does is no state of its own.
    Http,
    /// Runs commands. Likewise.
    Exec,
    /// A user's program that has a state of its own, of any size, and knows what it has applied.
    StateMachine,
}

impl ExecutorKind {
    const ALL: [Self; 4] = [Self::Log, Self::Http, Self::Exec, Self::StateMachine];

    /// The name that users give.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Http => "http",
            Self::Exec => "exec",
            Self::StateMachine => "state-machine",
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Http => 2,
            Self::Exec => 3,
            Self::StateMachine => 4,
        }
    }

    /// It keeps a state of its own, and tells what is in it.
    pub(super) fn has_state(self) -> bool {
        self == Self::StateMachine
    }

    /// What the states of its snapshots begin with.
    pub fn header(self) -> [u8; STATE_HEADER_BYTES] {
        [VERSION, self.byte()]
    }

    /// All that a snapshot of an executor without a state holds.
    pub(super) fn empty_state(self) -> Bytes {
        Bytes::copy_from_slice(&self.header())
    }

    /// Takes the header off a snapshot's state, if it is of such an executor; the error is a phrase.
    pub(super) fn check_header(self, state: &[u8]) -> Result<(), String> {
        let Some([version, executor]) = state.first_chunk() else {
            return Err("it is cut short".to_owned());
        };
        if *version != VERSION {
            return Err(format!(
                "it has version {version}, and this program reads {VERSION}: use the program that the other replicators use"
            ));
        }
        let theirs = Self::ALL.into_iter().find(|kind| kind.byte() == *executor);
        // Those without a state have the same one: nothing. So a cluster may change from one to another.
        let is_alike = !self.has_state() && theirs.is_some_and(|kind| !kind.has_state());
        if *executor != self.byte() && !is_alike {
            let theirs = theirs.map_or_else(|| executor.to_string(), |kind| kind.to_string());
            return Err(format!(
                "it is of executor {theirs}, and this one is {self}: give all replicators the same --executor"
            ));
        }
        Ok(())
    }

    /// Whether these bytes are all that a snapshot of an executor without a state holds; the error is a phrase.
    pub(super) fn check_empty_state(self, state: &[u8]) -> Result<(), String> {
        self.check_header(state)?;
        match state.len() - STATE_HEADER_BYTES {
            0 => Ok(()),
            more => Err(format!("it is {more} bytes too long")),
        }
    }
}

impl fmt::Display for ExecutorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_state_of_this_executor_and_version_is_taken() {
        for kind in ExecutorKind::ALL {
            let state = kind.empty_state();
            assert_eq!(kind.check_empty_state(&state), Ok(()));
            for length in 0..state.len() {
                assert!(
                    kind.check_empty_state(&state[..length]).is_err(),
                    "{length} bytes"
                );
            }
            let [version, executor] = kind.header();
            for (other, says) in [
                (&[version, executor, 0][..], "1 bytes too long"),
                (&[version + 1, executor], "version 2"),
                (&[0, executor], "version 0"),
                (&[version, 9], "executor 9"),
            ] {
                let why = kind.check_empty_state(other).unwrap_err();
                assert!(why.contains(says), "{other:?}: {why}");
            }
            assert_eq!(kind.check_header(&[version, executor, 7]), Ok(()));
        }
        // A cluster may change between those without a state.
        for (kind, header, is_taken) in [
            (ExecutorKind::Http, ExecutorKind::Log.header(), true),
            (ExecutorKind::Log, ExecutorKind::Exec.header(), true),
            (ExecutorKind::Http, ExecutorKind::StateMachine.header(), false),
            (ExecutorKind::StateMachine, ExecutorKind::Log.header(), false),
        ] {
            assert_eq!(kind.check_header(&header).is_ok(), is_taken, "{kind} {header:?}");
        }
        let why = ExecutorKind::Log.check_header(&ExecutorKind::StateMachine.header());
        assert!(
            why.unwrap_err()
                .contains("of executor state-machine, and this one is log")
        );
    }
}
