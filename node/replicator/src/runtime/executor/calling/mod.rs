//! Executors that call something out there for each operation: one at a time, in order, until it is done or given up.
//!
//! What is called is an [`Endpoint`]; what follows from a failure the [`Policy`] says.

mod dead_letters;
mod metrics;
mod policy;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use raftlog_proto::v1::{ExecutorFailure, ExecutorStatus};
use raftlog_raft::ids::{ClusterId, NodeNumber, Term};
use rand::{Rng, RngExt as _};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Link, Run};
use crate::core::Operation;
use crate::runtime::query::{Answer, Query, Refused};
pub(in crate::runtime) use dead_letters::{BYTES_MIN as DEAD_LETTERS_MIN, DeadLetters};
pub(in crate::runtime) use metrics::CallMetrics;
use policy::Next;
pub(in crate::runtime) use policy::Outcome;
pub(in crate::runtime) use policy::{ASKED_WAIT_MAX, OnFailure, Policy};
pub(super) use policy::{Executed, Failed, Kind};

/// How long an attempt that is under way may take when the process is to stop: one that succeeds is not repeated.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// What others say goes into lines and statuses, as far as this many characters.
const SAID_CHARS_MAX: usize = 500;

/// What is called.
pub(in crate::runtime) trait Endpoint: fmt::Display + Send + 'static {
    /// One attempt. When it has come to its end nothing of it goes on, but for what the other side of a connection does.
    fn attempt(&mut self, call: &Call<'_>) -> impl Future<Output = Outcome> + Send;

    /// Ends what an attempt that was dropped has left, and all else.
    fn end(&mut self) -> impl Future<Output = ()> + Send;
}

/// An operation to be executed.
#[derive(Debug)]
pub(in crate::runtime) struct Call<'a> {
    pub(super) node: NodeNumber,
    pub(super) cluster: ClusterId,
    pub(super) operation: &'a Operation,
    /// The term that the node leads, where only the leader's replicator executes: whoever has seen a higher one may refuse.
    pub(super) leader_term: Option<Term>,
    /// Of the attempt.
    pub(super) timeout: Duration,
}

impl Call<'_> {
    /// The same in each attempt, from whichever replicator, and for no other operation.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.cluster, self.operation.index)
    }
}

/// What it needs beside its endpoint and its link.
pub(in crate::runtime) struct Means {
    pub(in crate::runtime) attempt_timeout: Duration,
    pub(in crate::runtime) policy: Policy,
    /// Where the policy says so.
    pub(in crate::runtime) dead_letters: Option<DeadLetters>,
    /// How to open them again, after they could not be written or opened.
    pub(in crate::runtime) dead_letters_at: (PathBuf, u64),
    pub(in crate::runtime) metrics: CallMetrics,
    /// Spreads waits.
    pub(in crate::runtime) random: Box<dyn Rng + Send>,
    pub(in crate::runtime) stop: CancellationToken,
}

/// The task.
pub(super) struct Calling<E> {
    endpoint: E,
    link: Link,
    means: Means,
}

/// What became of an operation.
enum Done {
    Executed,
    /// It is recorded.
    Skipped,
    /// And with it all that follow.
    GivenUp,
    /// The run was taken back.
    Revoked,
    /// The process stops.
    Stopping,
}

impl<E: Endpoint> Calling<E> {
    pub(super) fn new(endpoint: E, link: Link, means: Means) -> Self {
        Self {
            endpoint,
            link,
            means,
        }
    }

    /// Executes until the process stops, and then lets go of what is not done.
    pub(super) async fn run(mut self) {
        let (_, no_queries) = mpsc::channel(1);
        let queries = std::mem::replace(&mut self.link.queries, no_queries);
        tokio::spawn(refuse(queries, self.link.status.borrow().kind.clone()));
        let stop = self.means.stop.clone();
        self.execute_all().await;
        // Where it has given up, what it is given still has to be let go.
        let runs = &mut self.link.runs;
        let let_go = async { while runs.recv().await.is_some() {} };
        tokio::select! {
            () = stop.cancelled() => {}
            () = let_go => stop.cancelled().await,
        }
        self.endpoint.end().await;
        self.link.ended.cancel();
        // The driver may have more, which it takes back now.
        while self.link.runs.recv().await.is_some() {}
    }

    async fn execute_all(&mut self) {
        let stop = self.means.stop.clone();
        loop {
            let run = tokio::select! {
                run = self.link.runs.recv() => run,
                () = stop.cancelled() => return,
            };
            // It is known before there are operations; the driver is gone where not.
            let cluster = *self.link.cluster.borrow();
            let (Some(run), Some(cluster)) = (run, cluster) else {
                return;
            };
            for operation in &run.operations {
                match self.execute(cluster, &run, operation).await {
                    Done::Executed | Done::Skipped => {
                        self.link.executed.send_replace(operation.index);
                    }
                    Done::Revoked => {
                        self.lets_go().await;
                        break;
                    }
                    Done::GivenUp if run.leader_term.is_some() => {
                        // Whoever leads next may do better; then this one goes on behind what that has done.
                        tokio::select! {
                            () = run.revoked().cancelled() => {}
                            () = stop.cancelled() => return,
                        }
                        self.means.metrics.goes_on();
                        self.lets_go().await;
                        break;
                    }
                    Done::GivenUp | Done::Stopping => return,
                }
            }
        }
    }

    /// What it failed at is another one's by now.
    async fn lets_go(&mut self) {
        self.endpoint.end().await;
        self.link.status.send_modify(|status| {
            status.connected = true;
            status.stopped = false;
            status.failure = None;
        });
    }

    async fn execute(&mut self, cluster: ClusterId, run: &Run, operation: &Operation) -> Done {
        let stop = self.means.stop.clone();
        let call = Call {
            node: self.link.node,
            cluster,
            operation,
            leader_term: run.leader_term,
            timeout: self.means.attempt_timeout,
        };
        let revoked = run.revoked();
        let (mut attempts, mut counted) = (0, 0);
        while !stop.is_cancelled() {
            if revoked.is_cancelled() {
                return Done::Revoked;
            }
            self.means.metrics.attempt_begins(attempts > 0);
            let begin = Instant::now();
            let outcome = tokio::select! {
                outcome = self.endpoint.attempt(&call) => outcome,
                () = out_of_time(&stop) => return Done::Stopping,
                () = revoked.cancelled() => return Done::Revoked,
            };
            self.means.metrics.attempt_took(begin.elapsed(), outcome.is_err());
            let failed = match outcome {
                Ok(executed) => {
                    let result = executed.result.map(|result| (operation.index, result));
                    self.link.results.put(result);
                    self.works();
                    return Done::Executed;
                }
                Err(failed) => failed,
            };
            // Nobody waits for this one any more, and whether it is given up is for the next leader to say.
            if revoked.is_cancelled() {
                return Done::Revoked;
            }
            attempts += 1;
            counted += u64::from(failed.kind != Kind::Fenced);
            self.fails(operation, attempts, &failed);
            let random = self.means.random.random();
            let wait = match self.means.policy.after(failed.kind, attempts, counted, random) {
                Next::RetryIn(wait) => wait,
                Next::GiveUp(OnFailure::Stop) => return self.stops(&call, attempts, &failed.why),
                Next::GiveUp(OnFailure::Skip) => return self.skip(&call, attempts, failed.why).await,
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = revoked.cancelled() => {}
                () = stop.cancelled() => {}
            }
        }
        Done::Stopping
    }

    /// Says so once.
    fn fails(&self, operation: &Operation, attempts: u64, failed: &Failed) {
        let (node, index, why) = (self.link.node, operation.index, &failed.why);
        if attempts == 1 {
            warn!("Node {node}: {} fails at operation {index}: {why}", self.endpoint);
        }
        self.link.status.send_modify(|status| {
            status.connected = failed.kind != Kind::Unreached;
            status.failure = Some(ExecutorFailure {
                index,
                message: why.clone(),
                attempts,
            });
        });
    }

    fn works(&self) {
        let goes_on = |status: &mut ExecutorStatus| {
            let was_connected = std::mem::replace(&mut status.connected, true);
            status.failure.take().is_some() || !was_connected
        };
        if self.link.status.send_if_modified(goes_on) {
            info!("Node {}: {} goes on", self.link.node, self.endpoint);
        }
    }

    fn stops(&self, call: &Call<'_>, attempts: u64, why: &str) -> Done {
        let until = if call.leader_term.is_some() {
            "transfer leadership, or start this replicator again"
        } else {
            "start this replicator again"
        };
        error!(
            "Node {}: nothing more is executed: {} fails at operation {}, attempt {attempts}: {why}; put it right, and {until}",
            self.link.node, self.endpoint, call.operation.index
        );
        self.means.metrics.stopped();
        self.link.status.send_modify(|status| {
            status.connected = false;
            status.stopped = true;
        });
        Done::GivenUp
    }

    async fn skip(&mut self, call: &Call<'_>, attempts: u64, why: String) -> Done {
        let operation = call.operation;
        let letters = self.means.dead_letters.take();
        let place = self.means.dead_letters_at.clone();
        let recorded = record(letters, place, operation.clone(), attempts, why.clone()).await;
        match recorded {
            Ok((letters, oldest_go)) => {
                self.means.dead_letters = Some(letters);
                if oldest_go {
                    self.means.metrics.dead_letters_dropped();
                    warn!(
                        "Node {}: the older half of the dead letters had to go for newer ones: see to them sooner, or raise --dead-letters-max",
                        self.link.node
                    );
                }
            }
            Err(error) => {
                let why = format!("{why}; and it cannot be recorded as a dead letter: {error}");
                self.link.status.send_modify(|status| {
                    if let Some(failure) = &mut status.failure {
                        failure.message.clone_from(&why);
                    }
                });
                return self.stops(call, attempts, &why);
            }
        }
        warn!(
            "Node {}: operation {} is skipped and recorded as a dead letter, after attempt {attempts}: {why}",
            self.link.node, operation.index
        );
        self.means.metrics.skipped();
        self.link.status.send_modify(|status| {
            status.failure = None;
            status.skipped_operations = status.skipped_operations.saturating_add(1);
        });
        Done::Skipped
    }
}

/// Whether the oldest letters had to go for it, too.
async fn record(
    letters: Option<DeadLetters>,
    (folder, bytes_max): (PathBuf, u64),
    operation: Operation,
    attempts: u64,
    why: String,
) -> Result<(DeadLetters, bool), String> {
    let recording = spawn_blocking(move || {
        let mut letters = match letters {
            Some(letters) => letters,
            None => DeadLetters::open(&folder, bytes_max)?,
        };
        let oldest_go = letters.record(&operation, attempts, &why)?;
        Ok::<_, std::io::Error>((letters, oldest_go))
    });
    let recorded = recording.await.map_err(|error| error.to_string())?;
    recorded.map_err(|error| error.to_string())
}

/// Passes when the process is to stop, and some time more has passed.
async fn out_of_time(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(STOP_GRACE).await;
}

/// What is called has no state that could be asked for.
async fn refuse(mut queries: mpsc::Receiver<Query>, kind: String) {
    while let Some(query) = queries.recv().await {
        let executed = query.executed;
        let why = format!(
            "the executor {kind} answers no queries: ask what it calls, or use --executor state-machine"
        );
        let result = Err(Refused::Invalid(why));
        query.asker.answer(Answer { executed, result });
    }
}

/// The beginning of what somebody says, without what would break a line.
pub(super) fn said(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let chars = line.unwrap_or_default().chars();
    chars.filter(|it| !it.is_control()).take(SAID_CHARS_MAX).collect()
}
