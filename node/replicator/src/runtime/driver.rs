//! The task that owns the core: takes what happens from everywhere, and carries out what the core decides.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use raftlog_proto::v1::ReplicateLogResponse;
use raftlog_raft::ids::{ClusterId, OperationIndex};
use raftlog_storage::aside;
use raftlog_telemetry::story::Story;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::disk_thread::{Completion, DiskThread};
use super::executor::{Executor, FromMachine, Machine, Restore, Spool, ToMachine};
use super::handle::{Fetched, FromNode, Inbox, Request, ToNode};
use super::metrics::Metrics;
use super::query::{Answer, Asker, Query, Refused};
use super::story::{CommitLine, ReplicateLogLine};
use super::{snapshot_pieces, wire};
use crate::core::{
    self, Effect, Event, FetchId, Notice, Place, ReadIndexError, ReadIndexId, Replicator, StreamId,
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
    executor: Executor,
    /// What the state machine copied last.
    spool: Option<Spool>,
    /// The snapshot on its way to the node.
    sending: Option<AbortHandle>,
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
    /// For ages of operations, where somebody asks.
    ticks: Option<Interval>,
    end: Option<Result<(), String>>,
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
            executor,
            spool: None,
            sending: None,
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
            ticks: None,
            end: None,
        }
    }

    /// Tells the core the time so often, or never.
    pub(super) fn ticking(self, every: Option<Duration>) -> Self {
        let ticks = every.map(ticks);
        Self { ticks, ..self }
    }

    /// Runs until `stop` is cancelled and everything is written, or something fatal, which is the error.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), String> {
        let give_up = sleep_until(Instant::now());
        tokio::pin!(give_up);
        let (mut stopping, mut executor_ended) = (false, false);
        let ended = self.executor.ended.clone();
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
                Ok(()) = self.executor.executed.changed() => self.take_executed(),
                () = self.executor.given.let_go(), if self.executor.given.is_taken_back() => self.taken_back(),
                Ok(()) = self.executor.status.changed() => self.tell_executor_status(),
                Some(said) = from(&mut self.executor.machine) => self.take_from_machine(said),
                Some(request) = self.inbox.requests.recv() => self.take_request(request),
                Some(message) = self.inbox.feed.recv(), if self.core.takes_feed() => self.take_from_node(message),
                () = &mut self.wake, if self.wake_set => {
                    self.wake_set = false;
                    self.core.handle(Event::Wake);
                }
                unix_millis = next_tick(&mut self.ticks) => self.core.handle(Event::Tick { unix_millis }),
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    give_up.as_mut().reset(Instant::now() + STOP_MAX);
                    self.core.handle(Event::Stop);
                }
                () = ended.cancelled(), if stopping && !executor_ended => {
                    executor_ended = true;
                    self.take_executed();
                    self.core.handle(Event::ExecutorDetached);
                }
                () = &mut give_up, if stopping => {
                    warn!("Node {}: stopping without waiting any longer for the executor or the disk", self.node);
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
        let through = *self.executor.executed.borrow_and_update();
        self.has_executed(through);
    }

    /// The executor has let go of what was taken back. What it has done of that it has said before.
    fn taken_back(&mut self) {
        self.take_executed();
        self.core.handle(Event::TakenBack);
    }

    fn has_executed(&mut self, through: OperationIndex) {
        let before = self.core.progress().executed;
        self.core.handle(Event::Executed { through });
        self.metrics.executed(self.core.progress().executed - before);
    }

    fn take_from_machine(&mut self, said: FromMachine) {
        let event = match said {
            FromMachine::Executed(through) => return self.has_executed(through),
            // It is on its way to come anew: until then it is not there.
            FromMachine::Attached { serves, .. } if self.core.cluster() != Some(serves) => return,
            FromMachine::Attached {
                applied,
                cluster,
                runs,
                ..
            } => {
                self.executor.runs = runs;
                Event::ExecutorAttached { applied, cluster }
            }
            FromMachine::Detached => Event::ExecutorDetached,
            FromMachine::CopyBegun => Event::CopyBegun,
            FromMachine::Copied(spool) => {
                self.spool = spool;
                let bytes = self.spool.as_ref().map(|spool| spool.bytes);
                Event::Copied { bytes }
            }
            FromMachine::RestoreTaken { restore, bytes } => Event::RestoreTaken { restore, bytes },
            FromMachine::Restored { restore, result } => Event::Restored { restore, result },
        };
        self.core.handle(event);
    }

    fn tell_machine(&mut self, told: ToMachine) {
        let machine = self
            .executor
            .machine
            .as_ref()
            .expect("the core knows its executor");
        if let Err(error) = machine.to.try_send(told) {
            self.end = Some(Err(format!(
                "the state machine's task takes no messages: {error}"
            )));
        }
    }

    fn tell_executor_status(&mut self) {
        let status = self.executor.status.borrow_and_update().clone();
        for to_node in self.streams.values().filter(|stream| stream.knows_executors) {
            to_node.executor.send_replace(Some(status.clone()));
        }
    }

    /// Answers what nodes wait for, as far as it is executed.
    fn answer_results(&mut self) {
        let executed = self.core.progress().executed;
        let mut failed = Vec::new();
        let mut waiting = 0;
        for (&stream, to_node) in &mut self.streams {
            for message in self.executor.results.answers(&mut to_node.wanted, executed) {
                if to_node.results.try_send(Ok(wire::results(message))).is_err() {
                    failed.push(stream);
                    break;
                }
            }
            waiting += to_node.wanted.len();
        }
        self.metrics.results_waiting(waiting);
        for stream in failed {
            self.refuse(stream, "it lets results queue up");
        }
    }

    fn refuse(&mut self, stream: StreamId, why: &str) {
        self.core.handle(Event::NodeClosed { stream });
        self.end_stream(stream, wire::invalid(why));
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
                if self.core.position().on_leader && !to_node.knows_leaders {
                    warn!(
                        "Node {node} does not say whether it leads, as it is of an older version: with --execute-on leader nothing is \
                         executed here until it is upgraded"
                    );
                }
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
        match message.on(stream) {
            Ok(event) => self.core.handle(event),
            Err(indexes) => {
                let to_node = self.streams.get_mut(&stream);
                if to_node.is_some_and(|to_node| !to_node.wanted.add(indexes)) {
                    self.refuse(stream, "it waits for too many results");
                }
            }
        }
    }

    /// Carries out everything there is to do. What that brings about at once is handled, too.
    fn carry_out(&mut self) {
        loop {
            let effects = self.core.effects();
            if effects.is_empty() {
                break;
            }
            // Whoever is told to come anew, or given the first operations, looks at it.
            self.publish_cluster();
            for effect in effects {
                self.act(effect);
            }
        }
        self.answer_results();
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
                self.tell_executor_status();
            }
            Effect::Progress(stream, progress) => {
                if let Some(to_node) = self.streams.get(&stream) {
                    to_node.progress.send_replace(progress);
                }
            }
            Effect::Snapshot(stream, snapshot) => {
                if let Some(to_node) = self.streams.get(&stream) {
                    // Only the latest matters.
                    self.sending.take().inspect(AbortHandle::abort);
                    self.sending = snapshot_pieces::send(snapshot, self.spool.take(), to_node.pieces.clone());
                    self.metrics.snapshot_taken();
                }
            }
            Effect::Reattach => self.tell_machine(ToMachine::Reattach),
            Effect::RefuseExecutor(why) => self.tell_machine(ToMachine::Refuse(why)),
            Effect::CopyState => self.tell_machine(ToMachine::Copy),
            Effect::RestoreBegin {
                restore,
                place,
                cluster,
                bytes,
            } => self.tell_machine(ToMachine::RestoreBegin(Restore {
                id: restore,
                place,
                cluster,
                bytes,
            })),
            Effect::RestorePiece(data) => self.tell_machine(ToMachine::RestorePiece(data)),
            Effect::RestoreAbort(restore) => self.tell_machine(ToMachine::RestoreAbort(restore)),
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
            Effect::TakeBack => self.executor.given.take_back(),
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

    fn execute(&mut self, run: core::Run) {
        let Some(run) = self.executor.given.give(run) else {
            self.end = Some(Err(
                "the executor was given operations before it had let go of others".to_owned(),
            ));
            return;
        };
        match self.executor.runs.try_send(run) {
            Ok(()) => {}
            // A state machine that has gone says so next.
            Err(TrySendError::Closed(_)) if self.executor.machine.is_some() => {}
            Err(error) => self.end = Some(Err(format!("the executor takes no operations: {error}"))),
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
            return self.refuse(stream, "too many queries are without an answer");
        };
        let asker = Asker { id, place };
        let query = Query {
            executed,
            text,
            asker,
        };
        self.metrics.queried();
        if let Err(TrySendError::Full(query) | TrySendError::Closed(query)) =
            self.executor.queries.try_send(query)
        {
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
        let dropped = status.before_first;
        *self.inbox.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        self.inbox
            .commit
            .send_if_modified(|published| std::mem::replace(published, commit) != commit);
        self.inbox
            .dropped
            .send_if_modified(|published| std::mem::replace(published, dropped) != dropped);
        self.inbox
            .ready
            .send_if_modified(|published| std::mem::replace(published, ready) != ready);
    }

    fn publish_cluster(&self) {
        let cluster = self.core.cluster();
        self.inbox
            .cluster
            .send_if_modified(|published| std::mem::replace(published, cluster) != cluster);
    }
}

/// What a state machine says next; there may be none.
async fn from(machine: &mut Option<Machine>) -> Option<FromMachine> {
    match machine {
        Some(machine) => machine.from.recv().await,
        None => std::future::pending().await,
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// When the next one comes, in milliseconds since 1970; there may be none.
async fn next_tick(ticks: &mut Option<Interval>) -> u64 {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
        }
        None => std::future::pending().await,
    }
}
