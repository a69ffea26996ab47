//! What a load writes through.

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use raftlog_client::Session;

/// A connection to a system that keeps what is written. Many clients may write through it at the same time.
pub trait Connection: Send + Sync + 'static {
    /// Writes one operation, and waits until the system has acknowledged it. Ends by itself, with one line that says why where
    /// there is no answer.
    fn write(&self, operation: Bytes) -> BoxFuture<'_, Result<(), String>>;
}

impl Connection for Session {
    fn write(&self, operation: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let committed = self.submit(operation).await;
            committed.map(drop).map_err(|error| error.to_string())
        }
        .boxed()
    }
}
