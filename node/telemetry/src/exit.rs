//! How a program ends: one line on stderr, and a code that scripts can rely on.

use std::io::Write as _;
use std::process::ExitCode;

/// It failed.
pub const FAILED: u8 = 1;
/// It was used wrongly.
pub const USAGE: u8 = 2;

/// `PROGRAM: MESSAGE` as one line on stderr, then [`FAILED`].
pub fn failed(program: &str, message: &str) -> ExitCode {
    say(program, message);
    ExitCode::from(FAILED)
}

/// `PROGRAM: MESSAGE` as one line on stderr, then [`USAGE`].
pub fn usage(program: &str, message: &str) -> ExitCode {
    say(program, message);
    ExitCode::from(USAGE)
}

fn say(program: &str, message: &str) {
    let line = message.replace('\n', " ");
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{program}: {line}");
}

/// How a command line that clap refused ends: help and version on stdout with success, anything else as one line on stderr
/// with [`USAGE`].
pub fn refused_flags(program: &str, error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Where stdout is closed there is nobody to help.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    usage(program, &first_paragraph(&error.render().to_string()))
}

/// Clap's own words up to its usage lines, as one line.
fn first_paragraph(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let joined = lines.collect::<Vec<_>>().join(" ");
    format!(
        "{}; see --help",
        joined.strip_prefix("error: ").unwrap_or(&joined)
    )
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    #[test]
    fn an_unknown_flag_is_told_in_one_line() {
        let error = Command::new("x")
            .try_get_matches_from(["x", "--nonsense"])
            .unwrap_err();
        let line = first_paragraph(&error.render().to_string());
        assert_eq!(line, "unexpected argument '--nonsense' found; see --help");
    }
}
