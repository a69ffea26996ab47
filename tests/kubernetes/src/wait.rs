//! Waiting for conditions, with a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. Generous: it bounds failing tests, not passing ones.
pub const PATIENCE: Duration = Duration::from_mins(3);

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Polls until `condition` answers `Ok`, and gives its value.
///
/// # Panics
/// After [`PATIENCE`], with `what` and the last answer that was not good enough.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}: {why}"),
        }
        sleep(POLL_INTERVAL);
    }
}
