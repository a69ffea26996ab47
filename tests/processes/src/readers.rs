//! Clients that read and remember what they saw, and when.

use crate::address::Address;
use crate::api;
use crate::history::Logged;
use crate::linearizability::{Read, View};
use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use raftlog_proto::v1::operation_log_client::OperationLogClient;
use raftlog_proto::v1::operations_client::OperationsClient;
use raftlog_proto::v1::{QueryResponse, Role};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::transport::Channel;

/// A read begins so far below what its reader has seen, at most: it is to see the end, not everything.
const LOOK_BACK: u64 = 64;
/// A whole read may take so long.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// Readers at work.
#[derive(Debug)]
pub struct Readers {
    shared: Arc<Shared>,
    readers: JoinSet<Seen>,
}

/// What readers saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// From replicators.
    pub reads: Vec<Read>,
    /// Of the last operation that was executed, through nodes.
    pub queries: Vec<Read>,
    /// Of nodes.
    pub views: Vec<View>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    stop: AtomicBool,
    /// The node that said most recently that it leads; 0 before the first.
    leader: AtomicU64,
}

/// One reader: one request at a time.
struct Reader {
    logs: Vec<(u32, OperationLogClient<Channel>)>,
    nodes: Vec<(u32, OperationsClient<Channel>)>,
    random: ChaCha8Rng,
    shared: Arc<Shared>,
    seen: Seen,
    /// The highest index that it was given.
    highest: u64,
}

impl Readers {
    /// Starts `count` readers of nodes and their replicators, given as node number and both addresses. Times count from
    /// `began`.
    pub fn start(pods: &[(u32, Address, Address)], count: u64, began: Instant, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            began,
            stop: AtomicBool::new(false),
            leader: AtomicU64::new(0),
        });
        let mut readers = JoinSet::new();
        for number in 1..=count {
            let reader = Reader {
                logs: pods
                    .iter()
                    .map(|&(node, _, log)| (node, api::operation_log(log)))
                    .collect(),
                nodes: pods
                    .iter()
                    .map(|&(node, at, _)| (node, api::operations(at)))
                    .collect(),
                random: ChaCha8Rng::seed_from_u64(seed.wrapping_sub(number)),
                shared: Arc::clone(&shared),
                seen: Seen::default(),
                highest: 0,
            };
            readers.spawn(reader.run());
        }
        Self { shared, readers }
    }

    /// The node that was last heard to lead, if any was.
    pub fn leader(&self) -> Option<u32> {
        let leader = self.shared.leader.load(Ordering::Relaxed);
        u32::try_from(leader).ok().filter(|&leader| leader > 0)
    }

    /// Ends them.
    ///
    /// # Panics
    /// When a reader was answered in a way that breaks the contract.
    pub async fn finish(mut self) -> Seen {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        while let Some(seen) = self.readers.join_next().await {
            let seen = seen.expect("a reader failed");
            all.reads.extend(seen.reads);
            all.queries.extend(seen.queries);
            all.views.extend(seen.views);
        }
        all
    }
}

impl Reader {
    async fn run(mut self) -> Seen {
        while !self.shared.stop.load(Ordering::Relaxed) {
            match self.random.random_range(0..3) {
                0 => self.read().await,
                1 => self.query().await,
                _ => self.view().await,
            }
            let pause = self.random.random_range(5..40);
            sleep(Duration::from_millis(pause)).await;
        }
        self.seen
    }

    async fn read(&mut self) {
        let back = self.random.random_range(0..LOOK_BACK);
        let from_index = self.highest.saturating_sub(back).max(1);
        let at = self.random.random_range(0..self.logs.len());
        let (replicator, client) = self.logs.get_mut(at).expect("the index is in range");
        let replicator = *replicator;
        let began_micros = micros(self.shared.began);
        // What fails or takes too long tells nothing, with one exception.
        match timeout(READ_TIMEOUT, api::read_from(client, from_index)).await {
            Ok(Ok(operations)) => {
                let last = operations.last().map_or(0, |last: &Logged| last.index);
                self.highest = last.max(self.highest);
                self.seen.reads.push(Read {
                    replicator,
                    from_index,
                    operations,
                    began_micros,
                    ended_micros: micros(self.shared.began),
                });
            }
            Ok(Err(status)) => assert_not_stale(replicator, from_index, &status),
            Err(_) => {}
        }
    }

    async fn query(&mut self) {
        let at = self.random.random_range(0..self.nodes.len());
        let (node, client) = self.nodes.get_mut(at).expect("the index is in range");
        let began_micros = micros(self.shared.began);
        // What is refused or takes too long tells nothing.
        if let Ok(QueryResponse { result, index, term }) = api::query(client, "last", false).await {
            self.highest = index.max(self.highest);
            let last = Logged {
                index,
                term,
                data: result,
            };
            self.seen.queries.push(Read {
                replicator: *node,
                from_index: index.max(1),
                operations: (index > 0).then_some(last).into_iter().collect(),
                began_micros,
                ended_micros: micros(self.shared.began),
            });
        }
    }

    async fn view(&mut self) {
        let at = self.random.random_range(0..self.nodes.len());
        let (node, client) = self.nodes.get_mut(at).expect("the index is in range");
        let began_micros = micros(self.shared.began);
        if let Ok(status) = api::status_from(client).await {
            let leads = status.role() == Role::Leader;
            if leads {
                self.shared.leader.store((*node).into(), Ordering::Relaxed);
            }
            self.seen.views.push(View {
                node: *node,
                member: status.member_id,
                term: status.term,
                leads,
                commit_index: status.commit_index,
                began_micros,
                ended_micros: micros(self.shared.began),
            });
        }
    }
}

/// A linearizable read from an index that was seen before can't be beyond the end.
fn assert_not_stale(replicator: u32, from_index: u64, status: &Status) {
    assert_ne!(
        reason_of(status).as_deref(),
        Some(reason::OUT_OF_RANGE),
        "replicator {replicator} knows nothing of index {from_index}, which was read before: {status:?}"
    );
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).expect("a test takes less than an age")
}
