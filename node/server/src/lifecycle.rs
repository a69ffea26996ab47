//! How far the end has come.

use tokio_util::sync::CancellationToken;

/// The steps of a graceful stop. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lifecycle {
    /// A signal came: not ready any more, still forwarding.
    pub(crate) stopping: CancellationToken,
    /// Nothing new is accepted, streams end.
    pub(crate) drain: CancellationToken,
}

impl Lifecycle {
    /// Whether a signal came.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }
}
