//! Tests that need more than Rust and a C compiler say what they miss and skip, unless nothing may be skipped.

use std::io::Write;
use std::path::PathBuf;

/// Set (to anything) where everything that a test may need is installed: a skip is then a failure.
pub const REQUIRE_ALL: &str = "RAFT_TEST_REQUIRE_ALL";

/// Says on stderr, past the capture of test output, that `test` is skipped and why.
///
/// # Panics
/// When [`REQUIRE_ALL`] is set.
pub fn skip(test: &str, why: &str) {
    assert!(
        std::env::var_os(REQUIRE_ALL).is_none(),
        "{test} would be skipped, and {REQUIRE_ALL} is set: {why}"
    );
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Whether this process may mount file systems and run containers.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where `tool` is on PATH.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}
