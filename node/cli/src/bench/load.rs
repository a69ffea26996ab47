//! The load: clients in closed loops, each with a connection and a session of its own.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use raftlog_client::{Client, Endpoint, Error, Options, SEQUENCES_MAX, Session};
use tokio::{sync::mpsc, task::JoinSet};

use super::latency::Latencies;

/// What is asked of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) clients: u16,
    pub(super) size: usize,
    pub(super) stream: bool,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
}

/// What came of it.
pub(super) struct Outcome {
    /// Of operations that were answered within the measured time.
    pub(super) latencies: Latencies,
    pub(super) errors: u64,
    pub(super) first_error: Option<Error>,
}

/// What all clients share.
struct Shared {
    latencies: Latencies,
    errors: AtomicU64,
    first_error: Mutex<Option<Error>>,
    measure_from: Instant,
    measure_until: Instant,
}

impl Shared {
    fn is_over(&self) -> bool {
        Instant::now() >= self.measure_until
    }

    /// An operation was answered now.
    fn answered(&self, sent: Instant) {
        let now = Instant::now();
        if now >= self.measure_from && now < self.measure_until {
            self.latencies.record(now.duration_since(sent));
        }
    }

    fn failed(&self, error: Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    }
}

/// Runs the load; all clients have a session before the time begins. `tick` is called about ten times a second with the
/// time that has gone by.
pub(super) async fn run(load: &Load, mut tick: impl FnMut(Duration)) -> Result<Outcome, Error> {
    let sessions = open_sessions(load).await?;
    let started = Instant::now();
    let measure_from = started + load.warm_up;
    let shared = Arc::new(Shared {
        latencies: Latencies::new(),
        errors: AtomicU64::new(0),
        first_error: Mutex::new(None),
        measure_from,
        measure_until: measure_from + load.duration,
    });
    let operation = Bytes::from(vec![b'x'; load.size]);
    let mut clients = JoinSet::new();
    for session in sessions {
        let (shared, operation) = (Arc::clone(&shared), operation.clone());
        if load.stream {
            clients.spawn(stream(session, operation, shared));
        } else {
            clients.spawn(one_by_one(session, operation, shared));
        }
    }
    while !clients.is_empty() {
        tokio::select! {
            ended = clients.join_next() => if let Some(Err(panicked)) = ended {
                std::panic::resume_unwind(panicked.into_panic());
            },
            () = tokio::time::sleep(Duration::from_millis(100)) => tick(started.elapsed()),
        }
    }
    let shared = Arc::into_inner(shared).expect("all clients have ended");
    let first_error = shared
        .first_error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(Outcome {
        latencies: shared.latencies,
        errors: shared.errors.into_inner(),
        first_error,
    })
}

async fn open_sessions(load: &Load) -> Result<Vec<Session>, Error> {
    let mut opening = JoinSet::new();
    for _ in 0..load.clients {
        let client = Client::new(load.endpoints.clone(), Options::default())?;
        opening.spawn(async move { client.open_session().await });
    }
    let mut sessions = Vec::new();
    while let Some(opened) = opening.join_next().await {
        match opened {
            Ok(session) => sessions.push(session?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    Ok(sessions)
}

async fn one_by_one(session: Session, operation: Bytes, shared: Arc<Shared>) {
    while !shared.is_over() {
        let sent = Instant::now();
        match session.submit(operation.clone()).await {
            Ok(_) => shared.answered(sent),
            Err(error) => shared.failed(error),
        }
    }
}

/// Keeps as many operations under way as a stream can have.
async fn stream(session: Session, operation: Bytes, shared: Arc<Shared>) {
    let (sender, mut receiver) = session.into_stream();
    let (times, mut sent_at) = mpsc::channel(usize::try_from(SEQUENCES_MAX).unwrap_or(1));
    let shared = &*shared;
    // Ends the stream, and so the answers, when it is done.
    let sending = async move {
        while !shared.is_over() {
            // The queue of times bounds what is under way.
            if times.send(Instant::now()).await.is_err() {
                return;
            }
            if !matches!(sender.send(operation.clone()).await, Ok(true)) {
                return;
            }
        }
    };
    let receiving = async {
        while let Some(answered) = receiver.next().await {
            match answered {
                Ok(answered) => {
                    for _ in 0..answered.count {
                        if let Some(sent) = sent_at.recv().await {
                            shared.answered(sent);
                        }
                    }
                }
                Err(error) => shared.failed(error),
            }
            if shared.is_over() {
                return;
            }
        }
    };
    tokio::pin!(sending, receiving);
    tokio::select! {
        () = &mut receiving => {}
        () = &mut sending => receiving.await,
    }
}
