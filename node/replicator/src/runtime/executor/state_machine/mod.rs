//! The executor `state-machine`: a user's program that has a state of its own, and serves `raftlog.v1.StateMachine`.
//!
//! One task that always does one thing: it connects and has operations applied ([`apply`]), or it passes on a snapshot
//! ([`restore`]), or it waits after a failure. What it is told meanwhile that belongs to something else, it has no use for.

mod apply;
mod copy;
mod restore;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use raftlog_proto::MESSAGE_BYTES_MAX;
use raftlog_proto::v1::state_machine_client::StateMachineClient;
use raftlog_proto::v1::{ExecutorFailure, ExecutorStatus, RestoreProgress};
use raftlog_raft::ids::{ClusterId, NodeNumber, OperationIndex};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use self::apply::first_line;
use super::{Link, Results, Run};
use crate::runtime::query::{Answer, Query, Refused};
pub(in crate::runtime) use copy::Spool;
pub(in crate::runtime) use restore::Restore;

/// How long connecting may take, an answer to a hello, and silence to a ping.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first wait after a failure is about this long, the next ones twice as long each.
const WAIT_FIRST: Duration = Duration::from_millis(100);
/// No wait is longer.
const WAIT_LONGEST: Duration = Duration::from_secs(5);
/// Messages that wait for the task or for the driver; the core bounds the bytes in them.
const MESSAGES_MAX: usize = 256;
/// Flow control windows: a piece must not wait for the other side's permission half-way.
const WINDOW_BYTES: u32 = 4 << 20;

/// What the core wants of it.
#[derive(Debug)]
pub(in crate::runtime) enum ToMachine {
    /// Come anew.
    Reattach,
    /// Its state does not fit.
    Refuse(String),
    Copy,
    RestoreBegin(Restore),
    RestorePiece(Bytes),
    RestoreAbort(u64),
}

/// What it says.
#[derive(Debug)]
pub(in crate::runtime) enum FromMachine {
    Attached {
        /// The cluster that it was told it serves.
        serves: ClusterId,
        applied: OperationIndex,
        /// The one that its state is of.
        cluster: Option<ClusterId>,
        /// Where operations go until it is gone.
        runs: mpsc::Sender<Run>,
    },
    Detached,
    Executed(OperationIndex),
    CopyBegun,
    Copied(Option<Spool>),
    RestoreTaken {
        restore: u64,
        bytes: usize,
    },
    Restored {
        restore: u64,
        result: Result<(), String>,
    },
}

/// The driver's ends.
#[derive(Debug)]
pub(in crate::runtime) struct Machine {
    pub(in crate::runtime) to: mpsc::Sender<ToMachine>,
    pub(in crate::runtime) from: mpsc::Receiver<FromMachine>,
}

/// The task.
pub(in crate::runtime) struct StateMachine {
    node: NodeNumber,
    url: String,
    /// Where copies of its state are put.
    folder: PathBuf,
    /// As long as what the core hands out at most.
    runs_max: usize,
    to: mpsc::Receiver<ToMachine>,
    from: mpsc::Sender<FromMachine>,
    queries: mpsc::Receiver<Query>,
    cluster: watch::Receiver<Option<ClusterId>>,
    status: watch::Sender<ExecutorStatus>,
    results: Results,
    /// In a row.
    failures: u32,
    /// The last operation that it was given, by itself or in a snapshot.
    given: OperationIndex,
}

/// Why the task does something else now.
enum Next {
    /// Connect, and have operations applied.
    Apply,
    Restore(Restore),
    /// Wait before that.
    Wait(Failure),
    /// The process stops.
    Stop,
}

/// Why it did not work.
#[derive(Debug)]
struct Failure {
    /// The operation that it fails at; 0 where it is not one operation.
    index: OperationIndex,
    message: String,
}

impl Failure {
    fn of(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { index: 0, message }
    }

    fn status(status: &tonic::Status) -> Self {
        Self::of(format!("{}: {}", status.code(), first_line(status.message())))
    }
}

impl StateMachine {
    /// The task, and the ways to it.
    pub(in crate::runtime) fn new(
        link: Link,
        url: String,
        folder: PathBuf,
        runs_max: usize,
    ) -> (Self, Machine) {
        let (to, told) = mpsc::channel(MESSAGES_MAX);
        let (from, said) = mpsc::channel(MESSAGES_MAX);
        let machine = Self {
            node: link.node,
            url,
            folder,
            runs_max,
            to: told,
            from,
            queries: link.queries,
            cluster: link.cluster,
            status: link.status,
            results: link.results,
            failures: 0,
            given: 0,
        };
        (machine, Machine { to, from: said })
    }

    /// Until the driver is gone.
    pub(in crate::runtime) async fn run(mut self) {
        let mut next = Next::Apply;
        loop {
            next = match next {
                Next::Apply => self.apply().await,
                Next::Restore(restore) => self.restore(restore).await,
                Next::Wait(failure) => self.wait(failure).await,
                Next::Stop => return,
            };
        }
    }

    /// Lets some time pass, longer and longer, and says so once.
    async fn wait(&mut self, failure: Failure) -> Next {
        if self.failures == 0 {
            warn!(
                "Node {}: {}; trying again",
                self.node,
                described(&self.url, &failure)
            );
        }
        let wait = WAIT_FIRST
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(WAIT_LONGEST);
        self.failures = self.failures.saturating_add(1);
        let attempts = u64::from(self.failures);
        self.status.send_modify(|status| {
            status.connected = false;
            status.restore = None;
            status.failure = Some(ExecutorFailure {
                index: failure.index,
                message: failure.message,
                attempts,
            });
        });
        let until = Instant::now() + wait.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        loop {
            tokio::select! {
                () = sleep_until(until) => return Next::Apply,
                told = self.to.recv() => match told {
                    None => return Next::Stop,
                    Some(ToMachine::RestoreBegin(restore)) => return Next::Restore(restore),
                    Some(_) => {}
                },
                Some(query) = self.queries.recv() => not_there(query),
            }
        }
    }

    /// It works again.
    fn works(&mut self) {
        if self.failures > 0 {
            info!("Node {}: the state machine at {} goes on", self.node, self.url);
        }
        self.failures = 0;
        self.status
            .send_if_modified(|status| status.failure.take().is_some());
    }

    /// It is there, and its state is of this cluster. Where nothing that it was given is missing, and it did not fail at an operation, that
    /// is all that can be asked of it: there may be nothing to do for long. Otherwise only doing it shows that it works.
    fn is_there(&mut self, applied: OperationIndex) {
        let fails_at = |status: &ExecutorStatus| status.failure.as_ref().map(|failure| failure.index);
        let fails_at = fails_at(&self.status.borrow());
        if applied >= self.given && fails_at == Some(0) {
            self.works();
        }
    }

    fn restore_status(&self, restore: Option<RestoreProgress>) {
        self.status.send_modify(|status| status.restore = restore);
    }

    async fn say(&self, message: FromMachine) -> Result<(), Next> {
        self.from.send(message).await.map_err(|_| Next::Stop)
    }
}

async fn connect(url: &str) -> Result<StateMachineClient<Channel>, Failure> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| Failure::of(root_cause(&error)))?;
    let endpoint = endpoint
        .connect_timeout(PATIENCE)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let channel = match timeout(PATIENCE, endpoint.connect()).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return Err(Failure::of(format!("no connection: {}", root_cause(&error)))),
        Err(_) => return Err(Failure::of(format!("no connection within {PATIENCE:?}"))),
    };
    Ok(StateMachineClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX))
}

fn described(url: &str, failure: &Failure) -> String {
    let Failure { index, message } = failure;
    match index {
        0 => format!("the state machine at {url} takes no operations: {message}"),
        index => format!("the state machine at {url} fails at operation {index}: {message}"),
    }
}

/// Another node may answer sooner than this one's state machine comes back.
fn not_there(query: Query) {
    let executed = query.executed;
    let why = "the state machine of this node is not there: ask another node, or again later".to_owned();
    query.asker.answer(Answer {
        executed,
        result: Err(Refused::Busy(why)),
    });
}

/// The innermost error: the outer ones only say "transport error".
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
