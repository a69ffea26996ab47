//! How much of clients' requests is under way here at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{Level, Metrics};

/// Bytes of client requests under way at once, forwarded ones included.
const BYTES_MAX: usize = 64 << 20;
/// What a request costs beyond its bytes; with [`BYTES_MAX`] it bounds their number too.
const OVERHEAD_BYTES: usize = 512;

/// Room for requests. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    room: Arc<Semaphore>,
    in_flight: Level,
}

/// Room that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    _permit: OwnedSemaphorePermit,
    bytes: u64,
    in_flight: Level,
}

impl Limits {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            room: Arc::new(Semaphore::new(BYTES_MAX)),
            in_flight: metrics.requests_in_flight_bytes.clone(),
        }
    }

    /// Room for an operation of that many bytes, unless too much is under way.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Taken> {
        let weight = weight(bytes);
        let permit = Arc::clone(&self.room).try_acquire_many_owned(weight).ok()?;
        Some(self.taken(permit, weight))
    }

    /// Room for an operation of that many bytes, as soon as there is some.
    pub(crate) async fn take(&self, bytes: usize) -> Option<Taken> {
        let weight = weight(bytes);
        let permit = Arc::clone(&self.room).acquire_many_owned(weight).await.ok()?;
        Some(self.taken(permit, weight))
    }

    fn taken(&self, permit: OwnedSemaphorePermit, weight: u32) -> Taken {
        let bytes = u64::from(weight);
        self.in_flight.inc_by(bytes);
        Taken {
            _permit: permit,
            bytes,
            in_flight: self.in_flight.clone(),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.in_flight.dec_by(self.bytes);
    }
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes.saturating_add(OVERHEAD_BYTES).min(BYTES_MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let limits = Limits::new(&Metrics::new(&mut Registry::default()));
        let taken: Vec<Taken> = std::iter::from_fn(|| limits.try_take(1 << 20)).collect();
        assert_eq!(taken.len(), 63);
        assert!(limits.in_flight.get() <= BYTES_MAX as u64);
        drop(taken);
        assert!(limits.try_take(BYTES_MAX).is_some());
        assert_eq!(limits.in_flight.get(), 0);
    }
}
