//! Waiting for conditions, with a deadline.

use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a condition may take before the test fails. Generous: it bounds failing tests, not passing ones.
pub const PATIENCE: Duration = Duration::from_secs(90);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Polls until `condition` answers `Ok`, and gives its value.
///
/// # Panics
/// After [`PATIENCE`], with `what` and the last answer that was not good enough.
pub async fn eventually<T>(what: &str, condition: impl AsyncFnMut() -> Result<T, String>) -> T {
    eventually_within(PATIENCE, what, condition).await
}

/// As [`eventually`], with a deadline of its own, for conditions whose speed is part of the promise.
pub async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(why) => assert!(Instant::now() < deadline, "waited {limit:?} for {what}: {why}"),
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Sees to it that `condition` answers `Ok` every time it is asked during `span`: the only way to observe that something
/// does *not* happen.
///
/// # Panics
/// At its first `Err`.
pub async fn holds_for(span: Duration, what: &str, mut condition: impl AsyncFnMut() -> Result<(), String>) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if let Err(why) = condition().await {
            panic!("{what} did not hold: {why}");
        }
        sleep(POLL_INTERVAL).await;
    }
}
