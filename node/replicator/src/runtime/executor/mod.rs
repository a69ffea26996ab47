//! What executes committed operations, one kind to a file. Each is a task that takes what the core hands out, in order, and says how far
//! it is; results go past the core, to whoever waits for them.

mod calling;
mod exec;
mod given;
mod http;
mod log;
mod log_query;
mod results;
mod state_machine;

use raftlog_proto::QUERIES_MAX;
use raftlog_proto::v1::ExecutorStatus;
use raftlog_raft::ids::{ClusterId, NodeNumber, OperationIndex};
use raftlog_telemetry::lines::Lines;
use raftlog_telemetry::logging::LogFormat;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(super) use calling::{CallMetrics, DEAD_LETTERS_MIN, DeadLetters, Means, OnFailure, Policy};
pub(super) use exec::{ByLines, CommandLine, PerOperation, guard};
pub(super) use given::{Given, Run};
pub(super) use http::Http;
pub(super) use results::{Results, Wanted};
pub(super) use state_machine::{FromMachine, Machine, Restore, Spool, StateMachine, ToMachine};

use super::handle::Handle;
use super::query::Query;
use crate::core::ExecutorKind;
use calling::{Calling, Endpoint};
use log::LogExecutor;

/// The driver's ends of the ways to an executor.
pub(super) struct Executor {
    /// As long as what the core hands out at most, so that it never has to wait.
    pub(super) runs: mpsc::Sender<Run>,
    /// Of which it still has what it has not done.
    pub(super) given: Given,
    /// The last operation executed, with effects that outlive a kill of this process.
    pub(super) executed: watch::Receiver<OperationIndex>,
    /// What does not fit is refused.
    pub(super) queries: mpsc::Sender<Query>,
    /// How it is doing.
    pub(super) status: watch::Receiver<ExecutorStatus>,
    /// What came of operations.
    pub(super) results: Results,
    /// Cancelled when nothing more is executed, as the process stops: what is handed out and not done may be taken back.
    pub(super) ended: CancellationToken,
    /// What a state machine is told and says beside that.
    pub(super) machine: Option<Machine>,
}

/// The executor's ends.
pub(super) struct Link {
    pub(super) node: NodeNumber,
    pub(super) runs: mpsc::Receiver<Run>,
    pub(super) executed: watch::Sender<OperationIndex>,
    pub(super) queries: mpsc::Receiver<Query>,
    pub(super) status: watch::Sender<ExecutorStatus>,
    /// To be filled before `executed` is advanced.
    pub(super) results: Results,
    /// An executor that may take long for an operation says here when it does no more.
    pub(super) ended: CancellationToken,
    /// Known before the first operation comes.
    pub(super) cluster: watch::Receiver<Option<ClusterId>>,
}

/// Both ends, with everything executed up to there.
pub(super) fn link(
    (node, kind): (NodeNumber, ExecutorKind),
    handle: &Handle,
    runs_max: usize,
    executed: OperationIndex,
) -> (Executor, Link) {
    // As long as what the core hands out at most: each run is an operation at least.
    let (runs, queue) = mpsc::channel(runs_max + 1);
    let (done, executed) = watch::channel(executed);
    let (queries, asked) = mpsc::channel(QUERIES_MAX);
    let (status, statuses) = watch::channel(ExecutorStatus {
        kind: kind.name().to_owned(),
        connected: kind != ExecutorKind::StateMachine,
        ..ExecutorStatus::default()
    });
    let (results, ended) = (Results::default(), CancellationToken::new());
    let executor = Executor {
        runs,
        given: Given::default(),
        executed,
        queries,
        status: statuses,
        results: results.clone(),
        ended: ended.clone(),
        machine: None,
    };
    let link = Link {
        node,
        runs: queue,
        executed: done,
        queries: asked,
        status,
        results,
        ended,
        cluster: handle.cluster(),
    };
    (executor, link)
}

/// Starts the executor `log`.
pub(super) fn start_log(link: Link, format: LogFormat, lines: Lines, handle: Handle) {
    let Link {
        node,
        runs,
        executed,
        queries,
        status,
        ..
    } = link;
    let executor = LogExecutor {
        node,
        format,
        lines,
        status,
    };
    tokio::spawn(executor.run(runs, executed));
    tokio::spawn(log_query::run(handle, queries));
}

/// Starts an executor that calls something for each operation.
pub(super) fn start_calling(endpoint: impl Endpoint, link: Link, means: Means) {
    tokio::spawn(Calling::new(endpoint, link, means).run());
}
