//! What the programs share towards the people who run them: log lines, rate limits for them, health, metrics and status
//! over HTTP, signals, and the clock.
//!
//! ```
//! use raftlog_telemetry::{bucket::Gate, clock};
//!
//! let mut gate = Gate::new(20, 10);
//! assert_eq!(gate.offer(clock::now(), "Node 1 runs RPC SubmitClientRequest called by a client.").is_some(), true);
//! ```

pub mod bucket;
pub mod clock;
pub mod exit;
pub mod hostname;
pub mod http;
pub mod lines;
pub mod listener;
pub mod logging;
pub mod process;
pub mod quantity;
pub mod signals;
pub mod story;
pub mod workers;
