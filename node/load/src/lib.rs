//! Load, and what comes of it: whoever asks how fast something is, `raftctl bench` and `tests/benchmark`, asks in the same way.
//!
//! - [`closed`] lets so many clients write one operation after the other; [`open`] writes at a fixed rate, whether or not
//!   answers come, and counts each latency from when the operation was due; [`streamed`] pipelines.
//! - They write through a [`Connection`], whatever is behind it, during a [`Span`], and give an [`Outcome`] with a histogram of
//!   [`latency`].
//! - [`floor`] is what no replicated commit can be faster than on this machine; [`echo`] is a server that does nothing, for
//!   the rate that none can exceed.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use bytes::Bytes;
//! use futures::future::{BoxFuture, FutureExt as _};
//! use raftlog_load::{Connection, Span, closed};
//!
//! struct Nothing;
//!
//! impl Connection for Nothing {
//!     fn write(&self, _: Bytes) -> BoxFuture<'_, Result<(), String>> {
//!         async {
//!             tokio::time::sleep(Duration::from_millis(1)).await;
//!             Ok(())
//!         }
//!         .boxed()
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let connections: Vec<Arc<dyn Connection>> = vec![Arc::new(Nothing)];
//! let span = Span::from_now(Duration::ZERO, Duration::from_millis(20));
//! let outcome = closed::run(&connections, 4, &Bytes::from_static(b"operation"), span, |_| {}).await;
//! assert!(outcome.answered > 0 && outcome.errors == 0);
//! # }
//! ```

mod bare;
pub mod closed;
mod connection;
pub mod echo;
pub mod floor;
pub mod latency;
pub mod open;
mod recorder;
mod span;
pub mod streamed;
mod sync;

pub use bare::Bare;
pub use connection::Connection;
pub use recorder::Outcome;
pub use span::Span;
