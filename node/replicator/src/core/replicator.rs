//! The state machine itself: what it knows, and where each event goes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, OperationIndex};
use raftlog_storage::identity::Identity;
use raftlog_storage::{DiskError, OpId, Outcome, Wal, WalEvent};

use super::attachment::{Attachment, Claim};
use super::belonging::{Belonging, STORE_IDENTITY};
use super::compaction::Compaction;
use super::config::Config;
use super::copying::Copying;
use super::durable::Durable;
use super::effect::{Effect, Notice, Position, Progress, Refusal, Story};
use super::event::{Event, FetchId, Parent, ReadIndexId, StreamId};
use super::execution::Execution;
use super::held::Held;
use super::incoming::Incoming;
use super::leadership::Leadership;
use super::operation::{Operation, Place};
use super::restoring::Installing;
use super::writing::Writing;

/// The replicator: log, commit index, executed index, and the stream of its node.
#[derive(Debug)]
pub struct Replicator {
    pub(super) config: Config,
    pub(super) belonging: Belonging,
    pub(super) wal: Wal<Operation>,
    pub(super) held: Held,
    pub(super) cluster: Option<ClusterId>,
    pub(super) member: Option<MemberId>,
    /// The log is to begin after this place; the one before the first operation, unless it was compacted.
    pub(super) base: Place,
    pub(super) commit: Place,
    pub(super) execution: Execution,
    pub(super) leadership: Leadership,
    pub(super) attachment: Attachment,
    /// The place that the executor goes on after is being read back.
    pub(super) adopting: bool,
    pub(super) copying: Copying,
    pub(super) next_restore: u64,
    pub(super) writing: Writing,
    pub(super) compaction: Compaction,
    /// A snapshot that is on its way to the disk.
    pub(super) installing: Option<Installing>,
    pub(super) stream: Option<NodeStream>,
    /// What the cluster of the last node was recovered from, if it was.
    pub(super) parent: Option<Parent>,
    /// Why the last node was refused, until one is accepted.
    pub(super) refused: Option<Refusal>,
    /// What was committed when this process met its node; to be reached once.
    pub(super) ready_at: Option<OperationIndex>,
    pub(super) read_indexes: BTreeMap<ReadIndexId, ReadIndexState>,
    pub(super) fetches: BTreeMap<u64, FetchId>,
    pub(super) next_read: u64,
    pub(super) phase: Phase,
    pub(super) effects: Vec<Effect>,
}

/// The stream of the node that this replicator listens to now.
#[derive(Debug)]
pub(super) struct NodeStream {
    pub(super) id: StreamId,
    pub(super) cluster: ClusterId,
    pub(super) member: MemberId,
    pub(super) node: NodeNumber,
    /// Up to here the node's log and this one are known to agree; `None` until it said how to start.
    pub(super) agreed: Option<OperationIndex>,
    /// The snapshot that it restores.
    pub(super) incoming: Option<Incoming>,
    /// The snapshot that it ordered and was not given.
    pub(super) order: Option<u64>,
    /// What the node was told last.
    pub(super) told: Option<Progress>,
}

/// A read that wants to be linearizable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadIndexState {
    /// The node was asked on this stream.
    Asked(StreamId),
    /// It answered: this has to be committed here.
    Until(OperationIndex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Stopping,
    Ended,
}

impl Replicator {
    pub(super) fn recovered(
        config: Config,
        (identity, volume_bytes): (Identity, u64),
        mut wal: Wal<Operation>,
        held: Held,
        state: Durable,
    ) -> Self {
        // Where the process died between the two.
        wal.compact(state.base.index);
        let attachment = if config.executor.has_state() {
            Attachment::Away
        } else {
            Attachment::Agreed
        };
        // Nobody asks for ages any more, or did before.
        let ages = Some(Arc::clone(&state.ages)).filter(|_| config.retention.age.is_some());
        let compaction = Compaction::new(ages.unwrap_or_default(), volume_bytes);
        let mut replicator = Self {
            config,
            wal,
            // The state may not have reached the disk before the identity did.
            cluster: identity.cluster,
            member: identity.paired,
            belonging: Belonging::new(identity),
            base: state.base,
            commit: state.commit,
            execution: Execution::new(state.executed),
            // What was executed before there were marks was executed beside every node.
            leadership: Leadership::new(state.mark.unwrap_or(state.executed)),
            attachment,
            adopting: false,
            copying: Copying::default(),
            next_restore: 1,
            writing: Writing::new(held.last().index, state),
            held,
            compaction,
            installing: None,
            stream: None,
            parent: None,
            refused: None,
            ready_at: None,
            read_indexes: BTreeMap::new(),
            fetches: BTreeMap::new(),
            next_read: 1,
            phase: Phase::Running,
            effects: Vec::new(),
        };
        if replicator.commit.index > 0 {
            replicator.tell_commit();
        }
        replicator
    }

    /// Takes what happened. What follows from it is in [`Replicator::effects`].
    pub fn handle(&mut self, event: Event) {
        if self.phase == Phase::Ended {
            return;
        }
        match event {
            Event::NodeOpened {
                stream,
                cluster,
                member,
                node,
                parent,
            } => {
                self.node_opened(stream, cluster, member, node, parent);
            }
            Event::Start {
                stream,
                action,
                commit,
            } => self.start(stream, action, commit),
            Event::Feed {
                stream,
                operations,
                commit,
            } => self.feed(stream, operations, commit),
            Event::RestorePiece { stream, offset, data } => self.restore_piece(stream, offset, data),
            Event::TakeSnapshot { stream, id } => self.take_snapshot(stream, id),
            Event::SnapshotKept { stream, index } => self.snapshot_kept(stream, index),
            Event::Leading {
                stream,
                leads,
                execute_after,
            } => self.leading(stream, leads, execute_after),
            Event::Query { stream, id, query } => self.query(stream, id, query),
            Event::ReadIndexAnswer { stream, id, index } => self.read_index_answered(stream, id, index),
            Event::NodeClosed { stream } => self.node_closed(stream),
            Event::Disk(STORE_IDENTITY, outcome) => self.identity_stored(outcome),
            Event::Disk(id, outcome) => self.disk_done(id, outcome),
            Event::Executed { through } => self.execution.done(through),
            Event::TakenBack => self.taken_back(),
            Event::ExecutorAttached { applied, cluster } => {
                self.executor_attached(Claim { applied, cluster });
            }
            Event::ExecutorDetached => self.executor_detached(),
            Event::CopyBegun => self.copy_begun(),
            Event::Copied { bytes } => self.copied(bytes),
            Event::RestoreTaken { restore, bytes } => self.restore_taken(restore, bytes),
            Event::Restored { restore, result } => self.restored(restore, result),
            Event::Fetch {
                id,
                from,
                to,
                bytes_max,
            } => self.fetch(id, from, to, bytes_max),
            Event::ReadIndex { id } => self.ask_read_index(id),
            Event::ReadIndexAbandoned { id } => {
                self.read_indexes.remove(&id);
            }
            Event::Tick { unix_millis } => self.tick(unix_millis),
            Event::Wake => self.woken(),
            Event::Stop => self.stop(),
        }
    }

    /// What to do now, in this order. Call it after every [`Replicator::handle`], or after a batch of them.
    pub fn effects(&mut self) -> Vec<Effect> {
        if self.phase != Phase::Ended {
            self.adopt_when_known();
            self.follow_marks();
            self.execute_more();
            self.install_when_quiet();
            self.excuse_executor();
            self.compact_when_due();
            self.write_when_due();
            self.held.evict(self.config.cache_bytes, self.writing.persisted);
            self.tell_progress();
            self.answer_order();
            while let Some((id, op)) = self.wal.next_op() {
                self.effects.push(Effect::Disk(id, op));
            }
            self.end_when_stopped();
        }
        std::mem::take(&mut self.effects)
    }

    /// Whether to take more from the node: false while too much waits for the disk or the executor, or a whole snapshot does.
    /// What the node sends meanwhile is to wait in its stream, whose flow control then stops the node.
    pub fn takes_feed(&self) -> bool {
        let unpersisted = self.writing.unpersisted_bytes < self.config.unpersisted_bytes_max;
        unpersisted && self.installing.is_none() && self.takes_restore() && !self.waits_for_executor()
    }

    /// The cluster that it belongs to; absent until a node was met.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// What it holds, as a node is told.
    pub fn position(&self) -> Position {
        let last = self.held.last();
        Position {
            cluster: self.cluster,
            member: self.member,
            first_index: if last.index < self.first_index() {
                0
            } else {
                self.first_index()
            },
            last,
            commit: self.commit,
            executed: self.execution.executed(),
            needs_state: self.attachment.needs_state(),
            on_leader: self.mark().is_some(),
        }
    }

    /// How far things are.
    pub fn progress(&self) -> Progress {
        Progress {
            last: self.held.last().index,
            commit: self.commit.index,
            executed: self.execution.executed().index,
            durable_executed: self.durable_executed().index,
            leading_term: self.leadership.term(),
        }
    }

    /// The executed place that would survive a crash. What is on disk may be beyond what an executor with a state still has.
    pub(super) fn durable_executed(&self) -> Place {
        let (on_disk, executed) = (self.writing.durable_executed, self.execution.executed());
        if on_disk.index <= executed.index {
            on_disk
        } else {
            executed
        }
    }

    /// The commit index moves to `index`, if that is ahead and held.
    pub(super) fn commit_to(&mut self, index: OperationIndex) {
        if index <= self.commit.index {
            return;
        }
        self.commit = self.held.place(index).expect("what the logs agree on is held");
        // Before places are forgotten.
        self.adopt_when_known();
        self.held.forget_places_below(index);
        self.tell_commit();
        self.execute_more();
        self.answer_read_indexes();
    }

    pub(super) fn tell_commit(&mut self) {
        let story = Story::Committed {
            commit: self.commit.index,
            total: self.held.last().index,
        };
        self.effects.push(Effect::Story(story));
    }

    fn tell_progress(&mut self) {
        let progress = self.progress();
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.agreed.is_some()) else {
            return;
        };
        if stream.told != Some(progress) {
            stream.told = Some(progress);
            self.effects.push(Effect::Progress(stream.id, progress));
        }
    }

    fn disk_done(&mut self, id: OpId, outcome: Result<Outcome, DiskError>) {
        let events = match self.wal.complete(id, outcome) {
            Ok(events) => events,
            Err(fatal) => return self.fail(fatal.to_string()),
        };
        for event in events {
            self.wal_event(event);
        }
    }

    pub(super) fn wal_event(&mut self, event: WalEvent<Operation>) {
        match event {
            WalEvent::Persisted(ticket) => {
                self.writing.persisted(ticket, &self.held);
                self.compact_to_durable_base();
                self.installed(ticket);
                self.store_identity();
            }
            WalEvent::Read { id, records } => self.read_back(id, records),
            WalEvent::Full(full) => {
                self.writing.full = full;
                self.notice(Notice::DiskFull {
                    node: self.config.node,
                    full,
                });
            }
            // Asked for at the start; nothing waits for it.
            WalEvent::Repaired => {}
        }
    }

    fn stop(&mut self) {
        self.phase = Phase::Stopping;
        if let Some(stream) = self.take_stream() {
            self.effects.push(Effect::Close(stream.id, Refusal::Stopping));
        }
    }

    /// Lets go of the node's stream, and of all that hangs on it.
    pub(super) fn take_stream(&mut self) -> Option<NodeStream> {
        let stream = self.stream.take()?;
        self.refuse_read_indexes(stream.id);
        self.abort_restore(stream.incoming.as_ref());
        self.leads_no_more();
        Some(stream)
    }

    fn end_when_stopped(&mut self) {
        let idle = self.writing.is_idle() && self.installing.is_none() && self.belonging.is_idle();
        let written = !self.has_to_write() && idle;
        let done = self.execution.is_idle() && written;
        if self.phase == Phase::Stopping && done {
            self.phase = Phase::Ended;
            self.effects.push(Effect::Stopped);
        }
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.effects.push(Effect::Notice(notice));
    }

    pub(super) fn give_up(&mut self, cluster: ClusterId, why: String) {
        self.phase = Phase::Ended;
        self.effects.push(Effect::GivenUp { cluster, why });
    }

    pub(super) fn fail(&mut self, why: String) {
        self.phase = Phase::Ended;
        self.effects.push(Effect::Fatal(why));
    }
}

/// As many of `operations` as fit into `bytes`, and at least one.
pub(super) fn fitting<'a>(operations: impl Iterator<Item = &'a Operation>, bytes: usize) -> Vec<Operation> {
    let mut total = 0;
    let mut run = VecDeque::new();
    for operation in operations {
        total += operation.weight();
        if total > bytes && !run.is_empty() {
            break;
        }
        run.push_back(operation.clone());
    }
    run.into()
}
