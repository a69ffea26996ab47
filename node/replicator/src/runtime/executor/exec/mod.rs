//! The executor `exec`: commands on this machine.

mod answer;
pub(in crate::runtime) mod guard;
mod guarded;
mod lines;
mod operation;
mod output;

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

use super::calling::Call;
pub(in crate::runtime) use lines::ByLines;
pub(in crate::runtime) use operation::PerOperation;

/// A program and its arguments, which no shell has a look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime) struct CommandLine {
    program: OsString,
    arguments: Vec<OsString>,
}

impl CommandLine {
    /// Where there is a program.
    pub(in crate::runtime) fn new(words: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut words = words.into_iter();
        let program = words.next().filter(|program| !program.is_empty())?;
        let arguments = words.collect();
        Some(Self { program, arguments })
    }

    fn words(&self) -> impl Iterator<Item = &OsString> {
        std::iter::once(&self.program).chain(&self.arguments)
    }
}

impl FromStr for CommandLine {
    type Err = String;

    /// A JSON array of strings.
    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<String> = serde_json::from_str(text)
            .map_err(|error| format!("{error}; a command is for example [\"/bin/do-it\", \"--now\"]"))?;
        Self::new(words.into_iter().map(OsString::from))
            .ok_or_else(|| "a command begins with a program".to_owned())
    }
}

/// Only the program: arguments may be secrets.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.program.display().fmt(f)
    }
}

/// What all commands and processes find in their environment, beside what this program has there.
fn environment(call: &Call<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("RAFTLOG_CLUSTER_ID", call.cluster.to_string()),
        ("RAFTLOG_NODE", call.node.to_string()),
    ]
}
