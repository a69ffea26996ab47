//! The task that owns the core: takes what happens from everywhere, and carries out what the core decides.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use raftlog_proto::v1::ReplicateLogResponse;
use raftlog_raft::ids::{ClusterId, OperationIndex};
use raftlog_storage::aside;
use raftlog_telemetry::story::Story;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::disk_thread::{Completion, DiskThread};
use super::handle::{Fetched, FromNode, Inbox, Request, ToNode};
use super::metrics::Metrics;
use super::query::{Answer, Asker, Query, Refused};
use super::story::{CommitLine, ReplicateLogLine};
use super::wire;
use crate::core::{
    self, Effect, Event, FetchId, Notice, Operation, Place, ReadIndexError, ReadIndexId, Replicator, StreamId,
};

/// Events taken before effects are carried out, at most.
const BATCH_EVENTS: usize = 64;
/// How long stopping waits for the executor and the disk.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The two kinds of lines that pass a token bucket.
pub(super) struct Stories {
    pub(super) replicate_log: Story<ReplicateLogLine>,
    pub(super) commit: Story<CommitLine>,
}

/// What the core's effects act on.
pub(super) struct Driver {
    core: Replicator,
    inbox: Inbox,
    disk: DiskThread,
    completions: mpsc::Receiver<Completion>,
    runs: mpsc::Sender<Vec<Operation>>,
    executed: watch::Receiver<OperationIndex>,
    queries: mpsc::Sender<Query>,
    stories: Stories,
    metrics: Metrics,
    node: u32,
    data_dir: PathBuf,
    streams: BTreeMap<StreamId, ToNode>,
    fetches: BTreeMap<FetchId, oneshot::Sender<Fetched>>,
    read_indexes: BTreeMap<ReadIndexId, oneshot::Sender<Result<OperationIndex, ReadIndexError>>>,
    last_id: u64,
    wake: Pin<Box<Sleep>>,
    wake_set: bool,
    end: Option<Result<(), String>>,
}

/// The ways to the executor.
pub(super) struct Executor {
    /// As long as what the core hands out at most, so that it never has to wait.
    pub(super) runs: mpsc::Sender<Vec<Operation>>,
    pub(super) executed: watch::Receiver<OperationIndex>,
    /// What does not fit is refused.
    pub(super) queries: mpsc::Sender<Query>,
}

impl Driver {
    pub(super) fn new(
        (node, data_dir): (u32, PathBuf),
        core: Replicator,
        inbox: Inbox,
        disk: (DiskThread, mpsc::Receiver<Completion>),
        executor: Executor,
        stories: Stories,
        metrics: Metrics,
    ) -> Self {
        Self {
            core,
            inbox,
            disk: disk.0,
            completions: disk.1,
            runs: executor.runs,
            executed: executor.executed,
            queries: executor.queries,
            stories,
            metrics,
            node,
            data_dir,
            streams: BTreeMap::new(),
            fetches: BTreeMap::new(),
            read_indexes: BTreeMap::new(),
            last_id: 0,
            wake: Box::pin(sleep_until(Instant::now())),
            wake_set: false,
            end: None,
        }
    }

    /// Runs until `stop` is cancelled and everything is written, or something fatal, which is the error.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        let give_up = sleep_until(Instant::now());
        tokio::pin!(give_up);
        let mut stopping = false;
        loop {
            self.carry_out();
            if let Some(end) = self.end.take() {
                self.stories.replicate_log.flush();
                self.stories.commit.flush();
                return end;
            }
            tokio::select! {
                completion = self.completions.recv() => match completion {
                    Some((id, outcome)) => self.core.handle(Event::Disk(id, outcome)),
                    None => return Err("the disk's thread ended".to_owned()),
                },
                Ok(()) = self.executed.changed() => self.take_executed(),
                Some(request) = self.inbox.requests.recv() => self.take_request(request),
                Some(message) = self.inbox.feed.recv(), if self.core.takes_feed() => self.take_from_node(message),
                () = &mut self.wake, if self.wake_set => {
                    self.wake_set = false;
                    self.core.handle(Event::Wake);
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    give_up.as_mut().reset(Instant::now() + STOP_MAX);
                    self.core.handle(Event::Stop);
                }
                () = &mut give_up, if stopping => {
                    warn!("Node {}: stopping without waiting any longer for stdout's reader or the disk", self.node);
                    self.end = Some(Ok(()));
                }
            }
            self.take_more();
        }
    }

    /// Takes what else is there, so that one pass through the core serves many events.
    fn take_more(&mut self) {
        for _ in 0..BATCH_EVENTS {
            let mut some = false;
            if let Ok((id, outcome)) = self.completions.try_recv() {
                self.core.handle(Event::Disk(id, outcome));
                some = true;
            }
            if let Ok(request) = self.inbox.requests.try_recv() {
                self.take_request(request);
                some = true;
            }
            if self.core.takes_feed()
                && let Ok(message) = self.inbox.feed.try_recv()
            {
                self.take_from_node(message);
                some = true;
            }
            if !some {
                return;
            }
        }
    }

    fn take_executed(&mut self) {
        let through = *self.executed.borrow_and_update();
        let before = self.core.progress().executed;
        self.core.handle(Event::Executed { through });
        self.metrics.executed(self.core.progress().executed - before);
    }

    fn take_request(&mut self, request: Request) {
        self.last_id += 1;
        match request {
            Request::Open {
                stream,
                cluster,
                member,
                node,
                parent,
                to_node,
            } => {
                self.streams.insert(stream, to_node);
                self.core.handle(Event::NodeOpened {
                    stream,
                    cluster,
                    member,
                    node,
                    parent,
                });
            }
            Request::Close { stream } => {
                self.streams.remove(&stream);
                self.core.handle(Event::NodeClosed { stream });
            }
            Request::Fetch {
                from,
                to,
                bytes_max,
                answer,
            } => {
                let id = FetchId(self.last_id);
                self.fetches.insert(id, answer);
                self.core.handle(Event::Fetch {
                    id,
                    from,
                    to,
                    bytes_max,
                });
            }
            Request::ReadIndex { answer } => {
                self.forget_abandoned_reads();
                let id = ReadIndexId(self.last_id);
                self.read_indexes.insert(id, answer);
                self.core.handle(Event::ReadIndex { id });
            }
        }
    }

    /// Reads whose client has gone make room.
    fn forget_abandoned_reads(&mut self) {
        let core = &mut self.core;
        self.read_indexes.retain(|id, answer| {
            if answer.is_closed() {
                core.handle(Event::ReadIndexAbandoned { id: *id });
            }
            !answer.is_closed()
        });
    }

    fn take_from_node(&mut self, FromNode { stream, message }: FromNode) {
        self.core.handle(message.on(stream));
    }

    /// Carries out everything there is to do. What that brings about at once is handled, too.
    fn carry_out(&mut self) {
        loop {
            let effects = self.core.effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.act(effect);
            }
        }
        self.publish();
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Disk(id, op) => {
                if let Err(why) = self.disk.submit(id, op) {
                    self.end = Some(Err(why));
                }
            }
            Effect::Position(stream, position) => {
                self.tell_node(stream, wire::position(&position));
            }
            Effect::Progress(stream, progress) => {
                if let Some(to_node) = self.streams.get(&stream) {
                    to_node.progress.send_replace(progress);
                }
            }
            Effect::Snapshot(stream, snapshot) => {
                if let Some(to_node) = self.streams.get(&stream) {
                    to_node.snapshot.send_replace(Some(snapshot));
                    self.metrics.snapshot_taken();
                }
            }
            Effect::AskReadIndex(stream, id) => {
                if !self.tell_node(stream, wire::read_index(id)) {
                    self.core.handle(Event::ReadIndexAnswer {
                        stream,
                        id,
                        index: None,
                    });
                }
            }
            Effect::Query {
                stream,
                id,
                executed,
                query,
            } => self.ask_executor(stream, id, executed, query),
            Effect::Close(stream, refusal) => self.end_stream(stream, wire::refused(&refusal)),
            Effect::Execute(run) => self.execute(run),
            Effect::Story(core::Story::Replicated { from }) => {
                self.stories.replicate_log.say(ReplicateLogLine {
                    node: self.node,
                    from,
                });
            }
            Effect::Story(core::Story::Committed { commit, total }) => {
                self.stories.commit.say(CommitLine {
                    node: self.node,
                    commit,
                    total,
                });
            }
            Effect::Fetched { id, result, commit } => {
                if let Some(answer) = self.fetches.remove(&id) {
                    // Whoever asked may be gone.
                    let _ = answer.send(result.map(|operations| (operations, commit)));
                }
            }
            Effect::ReadIndexReady(id, result) => {
                if let Some(answer) = self.read_indexes.remove(&id) {
                    let _ = answer.send(result);
                }
            }
            Effect::WakeIn(delay) => {
                self.wake.as_mut().reset(Instant::now() + delay);
                self.wake_set = true;
            }
            Effect::Notice(notice) => self.note(&notice),
            Effect::Fatal(why) => self.end = Some(Err(why)),
            Effect::GivenUp { cluster, why } => self.end = Some(Err(self.give_up(cluster, why))),
            Effect::Stopped => self.end = Some(Ok(())),
        }
    }

    fn execute(&mut self, run: Vec<Operation>) {
        if let Err(error) = self.runs.try_send(run) {
            self.end = Some(Err(format!("the executor takes no operations: {error}")));
        }
    }

    /// The next start moves everything aside, as files are open here. Answers what is to be said.
    fn give_up(&self, cluster: ClusterId, why: String) -> String {
        match aside::begin(&self.data_dir, &cluster) {
            Ok(_) => why,
            Err(error) => format!(
                "{why}; but it cannot be moved in {}: {error}; move it away by hand",
                self.data_dir.display()
            ),
        }
    }

    /// Hands a query to the executor, if the node leaves room for the answer.
    fn ask_executor(&mut self, stream: StreamId, id: u64, executed: Place, text: Bytes) {
        let Some(to_node) = self.streams.get(&stream) else {
            return;
        };
        let Ok(place) = to_node.answers.clone().try_reserve_owned() else {
            self.core.handle(Event::NodeClosed { stream });
            return self.end_stream(stream, wire::invalid("too many queries are without an answer"));
        };
        let asker = Asker { id, place };
        let query = Query {
            executed,
            text,
            asker,
        };
        self.metrics.queried();
        if let Err(TrySendError::Full(query) | TrySendError::Closed(query)) = self.queries.try_send(query) {
            let busy = "the executor has too many queries: ask again later".to_owned();
            let result = Err(Refused::Busy(busy));
            query.asker.answer(Answer { executed, result });
        }
    }

    fn end_stream(&mut self, stream: StreamId, why: tonic::Status) {
        if let Some(to_node) = self.streams.remove(&stream) {
            // A node that does not read has no use for the reason.
            let _ = to_node.messages.try_send(Err(why));
            to_node.done.cancel();
        }
    }

    fn note(&self, notice: &Notice) {
        if let Notice::Restored { .. } = notice {
            self.metrics.snapshot_restored();
        }
        match notice {
            Notice::Refused(_) | Notice::DiskFull { full: true, .. } => warn!("{notice}"),
            _ => info!("{notice}"),
        }
    }

    /// Whether it could be told.
    fn tell_node(&self, stream: StreamId, message: ReplicateLogResponse) -> bool {
        self.streams
            .get(&stream)
            .is_some_and(|to_node| to_node.messages.try_send(Ok(message)).is_ok())
    }

    /// Lets the others see how things are.
    fn publish(&mut self) {
        let status = self.core.status();
        let (commit, ready) = (status.commit.index, status.readiness.ready);
        *self.inbox.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        self.inbox
            .commit
            .send_if_modified(|published| std::mem::replace(published, commit) != commit);
        self.inbox
            .ready
            .send_if_modified(|published| std::mem::replace(published, ready) != ready);
    }
}
