//! How patient a client is.

use std::time::Duration;

use crate::retry::Backoff;

/// How patient a client is, and whether it goes to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a call may take with all its attempts; for a stream, how long without any progress.
    pub timeout: Duration,
    /// How long one endpoint may take to connect.
    pub connect_timeout: Duration,
    /// How long the leader's own address may take to connect and to confirm that it is this cluster's leader. Beyond,
    /// calls stay where they are and are forwarded, so that port-forwards work.
    pub follow_timeout: Duration,
    /// Whether to go to the leader's address at all.
    pub follow_leader: bool,
    /// A connection with calls under way is pinged this often, and given up when a ping goes unanswered this long.
    pub keep_alive: Duration,
    /// Between attempts.
    pub backoff: Backoff,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(1),
            follow_timeout: Duration::from_millis(250),
            follow_leader: true,
            keep_alive: Duration::from_secs(2),
            backoff: Backoff::default(),
        }
    }
}
