//! What was measured, told past the capture of test output.

use std::io::Write as _;

use jiff::Timestamp;

/// One line.
pub fn report(line: &str) {
    let _ = writeln!(std::io::stderr(), "MEASURED {line}");
}

/// All values of a distribution, its median and its maximum.
pub fn distribution(what: &str, values_ms: &[i64]) {
    let mut sorted = values_ms.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let maximum = sorted.last().copied().unwrap_or_default();
    report(&format!(
        "{what}: median {median} ms, maximum {maximum} ms, all {values_ms:?}"
    ));
}

/// Now, in milliseconds of the Unix epoch.
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}
