//! Shell completions.

use std::io::Write as _;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{args::Arguments, failure::Failure};

/// Prints the completion script.
pub(crate) fn print(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "raftctl", &mut script);
    std::io::stdout()
        .write_all(&script)
        .map_err(|error| Failure::output(&error))
}
