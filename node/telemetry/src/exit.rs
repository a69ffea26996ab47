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
