//! Asks on the terminal before something is done that cannot be taken back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// What somebody said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// To do it.
    Yes,
    /// Anything else.
    No,
    /// There is no terminal.
    NobodyToAsk,
}

/// Somebody has to type it.
pub fn confirm() -> io::Result<Answer> {
    if !io::stdin().is_terminal() {
        return Ok(Answer::NobodyToAsk);
    }
    eprint!("Type 'yes' to do it: ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(if answer.trim() == "yes" {
        Answer::Yes
    } else {
        Answer::No
    })
}
