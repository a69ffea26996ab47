//! Clients that submit a great deal, in sessions of their own and by streams, for measurements: what they are told is
//! counted, and not remembered.

use crate::address::Address;
use bytes::Bytes;
use raftlog_client::{Client, Endpoint, Options, Session};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

/// Streams at work.
#[derive(Debug)]
pub struct Streams {
    acknowledged: Arc<AtomicU64>,
    streams: JoinSet<()>,
}

impl Streams {
    /// Starts `streams` of them, which together submit `operations` of so many bytes each.
    ///
    /// # Panics
    /// When no session can be opened.
    pub async fn start(nodes: &[Address], streams: u64, operations: u64, bytes: usize) -> Self {
        let endpoints: Vec<Endpoint> = nodes
            .iter()
            .map(|node| Endpoint::parse(&node.to_string()).expect("addresses are endpoints"))
            .collect();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let operation = Bytes::from(vec![b'.'; bytes]);
        let mut tasks = JoinSet::new();
        for number in 0..streams {
            let client = Client::new(endpoints.clone(), Options::default()).expect("there are endpoints");
            let session = client.open_session().await.expect("a session can be opened");
            let share = operations / streams + u64::from(number < operations % streams);
            tasks.spawn(submit(
                session,
                share,
                operation.clone(),
                Arc::clone(&acknowledged),
            ));
        }
        Self {
            acknowledged,
            streams: tasks,
        }
    }

    /// Acknowledgements so far.
    ///
    /// # Panics
    /// When a stream has failed.
    pub fn acknowledged(&mut self) -> u64 {
        while let Some(ended) = self.streams.try_join_next() {
            ended.expect("a stream failed");
        }
        self.acknowledged.load(Ordering::Relaxed)
    }
}

async fn submit(session: Session, operations: u64, operation: Bytes, acknowledged: Arc<AtomicU64>) {
    let (sender, mut receiver) = session.into_stream();
    let sending = async move {
        for _ in 0..operations {
            // The receiver says why.
            if !matches!(sender.send(operation.clone()).await, Ok(true)) {
                return;
            }
        }
    };
    let receiving = async {
        while let Some(answered) = receiver.next().await {
            let answered = answered.expect("an operation of a stream is acknowledged");
            acknowledged.fetch_add(answered.count, Ordering::Relaxed);
        }
    };
    tokio::join!(sending, receiving);
}
