//! Clients that watch or read: how many there may be, who they are, and how far behind each is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use raftlog_proto::error::status;
use raftlog_proto::reason;
use raftlog_raft::ids::OperationIndex;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

/// Streams to clients at once at most, of watches and reads together. With what waits for each of them it bounds their memory.
pub(super) const READERS_MAX: usize = 128;
/// Watches that `/status` tells of, those first that are farthest behind.
const TOLD_MAX: usize = 20;
/// What is told of how far watches are behind, whatever their number: the lag that so many per cent of them do not exceed.
const QUANTILES: [(usize, &str); 3] = [(50, "0.5"), (90, "0.9"), (100, "1")];

/// Clones count together.
#[derive(Debug, Clone)]
pub(super) struct Watchers {
    places: Arc<Semaphore>,
    watches: Arc<Mutex<Watches>>,
    connected: Gauge,
    refused: Counter,
    overtaken: Counter,
    lags: Family<Quantile, Gauge>,
}

#[derive(Debug, Default)]
struct Watches {
    last_id: u64,
    by_id: BTreeMap<u64, Progress>,
}

/// How far a watch is.
#[derive(Debug)]
struct Progress {
    peer: Option<SocketAddr>,
    next: Arc<AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Quantile {
    quantile: &'static str,
}

/// A client's place among them, until it is dropped.
#[derive(Debug)]
pub(super) struct Reader {
    connected: Gauge,
    _place: OwnedSemaphorePermit,
}

/// A watch that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    id: u64,
    next: Arc<AtomicU64>,
    watches: Arc<Mutex<Watches>>,
}

/// What `/status` says of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct WatchStatus {
    /// Address of the client; `null` where that is not known.
    peer: Option<String>,
    /// Index of the operation that it is given next.
    next_index: OperationIndex,
    /// Committed operations that it was not given yet.
    lag: u64,
}

impl Default for Watchers {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(READERS_MAX)),
            watches: Arc::default(),
            connected: Gauge::default(),
            refused: Counter::default(),
            overtaken: Counter::default(),
            lags: Family::default(),
        }
    }
}

impl Watchers {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Clients that watch or read operations";
        registry.register("raft_replicator_watchers", help, self.connected.clone());
        let help = "Watches and reads that were refused, as there were too many";
        registry.register("raft_replicator_watchers_refused", help, self.refused.clone());
        let help = "Watches and reads that were so slow that what they wanted next was dropped";
        registry.register("raft_replicator_watchers_overtaken", help, self.overtaken.clone());
        let help = "Committed operations that watches were not given yet: this quantile of them, 1 being the slowest";
        registry.register("raft_replicator_watch_lag_operations", help, self.lags.clone());
    }

    /// A place for a client, if there is one.
    pub(super) fn reader(&self) -> Result<Reader, Status> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.refused.inc();
            let message = format!(
                "{READERS_MAX} clients watch or read already: try again later, or another replicator"
            );
            return Err(status(Code::ResourceExhausted, reason::BACKPRESSURE, message));
        };
        self.connected.inc();
        Ok(Reader {
            connected: self.connected.clone(),
            _place: place,
        })
    }

    /// A watch begins.
    pub(super) fn watch(&self, peer: Option<SocketAddr>, next: OperationIndex) -> Watch {
        let mut watches = locked(&self.watches);
        watches.last_id += 1;
        let (id, next) = (watches.last_id, Arc::new(AtomicU64::new(next)));
        let progress = Progress {
            peer,
            next: Arc::clone(&next),
        };
        watches.by_id.insert(id, progress);
        Watch {
            id,
            next,
            watches: Arc::clone(&self.watches),
        }
    }

    /// What a client wanted next was dropped before it took it.
    pub(super) fn overtaken(&self) {
        self.overtaken.inc();
    }

    /// Watches under way, those first that are farthest behind.
    fn all(&self, commit: OperationIndex) -> Vec<WatchStatus> {
        let watches = locked(&self.watches);
        let told = |progress: &Progress| {
            let next_index = progress.next.load(Ordering::Relaxed);
            WatchStatus {
                peer: progress.peer.as_ref().map(SocketAddr::to_string),
                next_index,
                lag: commit.saturating_add(1).saturating_sub(next_index),
            }
        };
        let mut all: Vec<_> = watches.by_id.values().map(told).collect();
        all.sort_by_key(|watch| watch.next_index);
        all
    }

    /// How many there are, and some of them.
    pub(super) fn told(&self, commit: OperationIndex) -> (usize, Vec<WatchStatus>) {
        let mut all = self.all(commit);
        let count = all.len();
        all.truncate(TOLD_MAX);
        (count, all)
    }

    /// Brings the gauges up to date.
    pub(super) fn refresh(&self, commit: OperationIndex) {
        let mut lags: Vec<_> = self.all(commit).iter().map(|watch| watch.lag).collect();
        lags.reverse();
        for (per_cent, quantile) in QUANTILES {
            let lag = i64::try_from(at_quantile(&lags, per_cent)).unwrap_or(i64::MAX);
            self.lags.get_or_create(&Quantile { quantile }).set(lag);
        }
    }
}

impl Watch {
    /// It is given that operation next.
    pub(super) fn goes_on_at(&self, next: OperationIndex) {
        self.next.store(next, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        locked(&self.watches).by_id.remove(&self.id);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.connected.dec();
    }
}

fn locked(watches: &Mutex<Watches>) -> MutexGuard<'_, Watches> {
    watches.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What so many per cent of `ascending` do not exceed; 0 with none.
fn at_quantile(ascending: &[u64], per_cent: usize) -> u64 {
    let rank = (ascending.len() * per_cent).div_ceil(100);
    rank.checked_sub(1)
        .and_then(|at| ascending.get(at))
        .copied()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_lags() {
        for (lags, expected) in [
            (&[][..], [0, 0, 0]),
            (&[7], [7, 7, 7]),
            (&[1, 2], [1, 2, 2]),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [5, 9, 10]),
            (&[0, 0, 0, 99], [0, 99, 99]),
        ] {
            let found = QUANTILES.map(|(per_cent, _)| at_quantile(lags, per_cent));
            assert_eq!(found, expected, "{lags:?}");
        }
    }

    #[test]
    fn those_farthest_behind_are_told_and_not_too_many() {
        let watchers = Watchers::default();
        let peer = "127.0.0.1:7".parse().ok();
        let mut open: Vec<_> = (1..=100).map(|next| watchers.watch(peer, next)).collect();
        open[99].goes_on_at(1_000);
        let (count, told) = watchers.told(50);
        assert_eq!((count, told.len()), (100, TOLD_MAX));
        assert_eq!((told[0].next_index, told[0].lag), (1, 50));
        assert_eq!(told[0].peer.as_deref(), Some("127.0.0.1:7"));
        // Not committed yet, and so nothing to be given.
        open.drain(..99);
        let (_, told) = watchers.told(50);
        assert_eq!(
            told.iter()
                .map(|watch| (watch.next_index, watch.lag))
                .collect::<Vec<_>>(),
            [(1_000, 0)]
        );
        drop(open);
        assert_eq!(watchers.told(50), (0, Vec::new()));
    }

    #[test]
    fn there_is_an_end_of_places() {
        let watchers = Watchers::default();
        let mut readers: Vec<_> = (0..READERS_MAX).map(|_| watchers.reader().unwrap()).collect();
        let refused = watchers.reader().unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("another replicator"), "{refused:?}");
        assert_eq!((watchers.connected.get(), watchers.refused.get()), (128, 1));
        readers.pop();
        assert!(watchers.reader().is_ok());
    }
}
