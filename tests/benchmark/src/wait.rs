//! Waiting for conditions, with a deadline.

use std::time::{Duration, Instant};

use crate::{failure::Failure, server::Servers};

/// How long servers may take for anything. Generous: they start on a machine that has few cores.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Polls until `condition` answers `Ok`, and gives its value. Fails when it takes longer than [`PATIENCE`], and at once when a
/// server has ended.
pub(crate) async fn until<T>(
    what: &str,
    servers: &mut Servers,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        servers.check()?;
        match condition().await {
            Ok(value) => return Ok(value),
            Err(why) if Instant::now() >= deadline => {
                let (seconds, said) = (PATIENCE.as_secs(), servers.last_words());
                return Err(Failure::new(format!(
                    "waited {seconds} s for {what}: {why}; run with --keep and look at the logs, which end: {said}"
                )));
            }
            Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}
