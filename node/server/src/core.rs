//! The core task: the only one that touches the node. Inputs come through one bounded queue, in batches; after each batch
//! the node's outputs are carried out. It sleeps until there is input or the node's deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bytes::Bytes;
use raftlog_proto::v1;
use raftlog_raft::ids::MemberId;
use raftlog_raft::membership::Configuration;
use raftlog_raft::message::{AppendEntriesResponse, Body, Message};
use raftlog_raft::time::Time;
use raftlog_storage::{Op, OpId};
use raftlog_telemetry::clock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::disk_thread::Completion;
use crate::formation::Formation;
use crate::handle::{Answered, Command};
use crate::lines;
use crate::metrics::Metrics;
use crate::node::{
    BootstrapRefusal, Committed, FromReplicator, Input, InstallSnapshot, InstallSnapshotResponse,
    MembershipChange, MembershipRefusal, Node, Notice, Output, Proposal, Proposed, Query, QueryRefusal,
    QueryResult, Refusal, RequestId, SnapshotRefusal, Status, TakenSnapshot, ToReplicator, TransferRefusal,
    Transferred,
};
use crate::peers::{Outgoing, Peers, Sent};
use crate::responses::Responses;
use crate::wire::{self, Envelope};

/// Inputs taken at once.
const BATCH_INPUTS_MAX: usize = 1_024;
/// Indexes alone are published at most this often.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);

/// Who waits for what.
enum Waiter {
    Submit(oneshot::Sender<Result<Committed, Refusal>>),
    Stream {
        position: u64,
        answers: mpsc::Sender<Answered>,
    },
    Query(oneshot::Sender<Result<QueryResult, QueryRefusal>>),
    Transfer(oneshot::Sender<Result<Transferred, TransferRefusal>>),
    Change(oneshot::Sender<Result<Configuration, MembershipRefusal>>),
    TakeSnapshot(oneshot::Sender<Result<TakenSnapshot, SnapshotRefusal>>),
    ReadSnapshot(oneshot::Sender<Option<Bytes>>),
    Bootstrap(oneshot::Sender<Result<(), BootstrapRefusal>>),
}

/// Where the core's outputs go.
pub(crate) struct Edges {
    pub(crate) disk: SyncSender<(OpId, Op)>,
    pub(crate) peers: Peers,
    pub(crate) formation: Formation,
    pub(crate) published: watch::Sender<Arc<Status>>,
    pub(crate) metrics: Metrics,
}

/// The task's state.
pub(crate) struct Core {
    node: Node,
    edges: Edges,
    status: Arc<Status>,
    published_at: Time,
    unpublished: bool,
    next_request: RequestId,
    waiters: BTreeMap<RequestId, Waiter>,
    /// Proposals of this batch that the node has not seen.
    proposals: Vec<Proposal>,
    /// What carrying out the outputs brought up.
    follow_up: Vec<Input>,
    /// The stream on which each leader listens for responses.
    responses: Responses<v1::AppendEntriesResponse>,
    /// The same for those with snapshots.
    snapshot_responses: Responses<v1::InstallSnapshotResponse>,
    /// The unary call that waits for this node's vote; keyed by candidate and pre-vote.
    votes: BTreeMap<(MemberId, bool), oneshot::Sender<v1::RequestVoteResponse>>,
    /// The unary call that waits for this node's running hash, by who compares.
    comparisons: BTreeMap<MemberId, oneshot::Sender<v1::CompareHashResponse>>,
    replicator: Option<mpsc::Sender<ToReplicator>>,
    /// Waits until the node has taken a piece of the replicator's state.
    piece_taken: Option<oneshot::Sender<()>>,
    stop_reason: Option<String>,
}

impl Core {
    pub(crate) fn new(node: Node, status: Arc<Status>, edges: Edges) -> Self {
        Self {
            node,
            edges,
            status,
            published_at: Time::default(),
            unpublished: true,
            next_request: 0,
            waiters: BTreeMap::new(),
            proposals: Vec::new(),
            follow_up: Vec::new(),
            responses: Responses::default(),
            snapshot_responses: Responses::default(),
            votes: BTreeMap::new(),
            comparisons: BTreeMap::new(),
            replicator: None,
            piece_taken: None,
            stop_reason: None,
        }
    }

    /// Runs until `stop`, or until the node must not go on: the error says why.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut completions: mpsc::Receiver<Completion>,
        stop: CancellationToken,
    ) -> Result<(), String> {
        let mut done = Vec::new();
        let mut batch = Vec::new();
        self.carry_out(clock::now());
        loop {
            let wake = self.wake_in();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                count = completions.recv_many(&mut done, BATCH_INPUTS_MAX) => {
                    if count == 0 {
                        return Err("the disk thread ended; see the lines before".into());
                    }
                }
                count = commands.recv_many(&mut batch, BATCH_INPUTS_MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep(wake) => {}
            }
            // Whoever is ready to run may have something for this batch, and the sockets, too.
            tokio::task::yield_now().await;
            // Whatever else has come meanwhile goes into the same batch.
            while let Ok(completion) = completions.try_recv() {
                done.push(completion);
            }
            while batch.len() < BATCH_INPUTS_MAX
                && let Ok(command) = commands.try_recv()
            {
                batch.push(command);
            }
            self.edges
                .metrics
                .batch_inputs
                .observe(count(done.len() + batch.len()));
            self.edges
                .metrics
                .queued_inputs
                .set(u64::try_from(commands.len()).unwrap_or(u64::MAX));
            let now = clock::now();
            for (id, result) in done.drain(..) {
                self.node.handle(now, Input::Disk(id, result));
            }
            for command in batch.drain(..) {
                self.take(now, command);
            }
            self.propose(now);
            if now >= self.node.deadline() {
                self.node.handle(now, Input::Tick);
            }
            self.carry_out(now);
            if let Some(why) = self.stop_reason.take() {
                return Err(why);
            }
        }
    }

    /// How long nothing has to be done, if nothing comes.
    fn wake_in(&self) -> Duration {
        let mut deadline = self.node.deadline();
        if self.unpublished {
            deadline = deadline.min(self.published_at + PUBLISH_INTERVAL);
        }
        if !self.follow_up.is_empty() {
            return Duration::ZERO;
        }
        // A timer that is asked for too much of the future would overflow.
        (deadline - clock::now()).min(Duration::from_hours(1))
    }

    fn take(&mut self, now: Time, command: Command) {
        match command {
            Command::Submit { proposed, answer } => {
                let id = self.expect(Waiter::Submit(answer));
                self.proposals.push(Proposal {
                    id,
                    stream: None,
                    proposed,
                });
            }
            Command::SubmitStream {
                stream,
                operations,
                answers,
            } => {
                for (position, operation) in operations {
                    let id = self.expect(Waiter::Stream {
                        position,
                        answers: answers.clone(),
                    });
                    let proposed = Proposed::Operation(operation);
                    self.proposals.push(Proposal {
                        id,
                        stream: Some(stream),
                        proposed,
                    });
                }
            }
            other => {
                // In the order in which they came.
                self.propose(now);
                self.take_other(now, other);
            }
        }
    }

    fn take_other(&mut self, now: Time, command: Command) {
        match command {
            Command::Submit { .. } | Command::SubmitStream { .. } => {
                unreachable!("proposals are taken where they are collected")
            }
            Command::Input(input) => {
                if matches!(input, Input::Replicator(FromReplicator::Closed)) {
                    self.replicator = None;
                }
                self.node.handle(now, input);
            }
            Command::Transfer { target, answer } => {
                let id = self.expect(Waiter::Transfer(answer));
                self.node.handle(now, Input::TransferLeadership { id, target });
            }
            Command::ChangeMembership { change, answer } => {
                let id = self.expect(Waiter::Change(answer));
                let change = MembershipChange { id, ..change };
                self.node.handle(now, Input::ChangeMembership(change));
            }
            Command::TakeSnapshot { within, answer } => {
                let id = self.expect(Waiter::TakeSnapshot(answer));
                self.node.handle(now, Input::TakeSnapshot { id, within });
            }
            Command::ReadSnapshot {
                snapshot,
                offset,
                answer,
            } => {
                let id = self.expect(Waiter::ReadSnapshot(answer));
                self.node
                    .handle(now, Input::ReadSnapshot { id, snapshot, offset });
            }
            Command::Bootstrap {
                cluster_id,
                to_member,
                members,
                answer,
            } => {
                let id = self.expect(Waiter::Bootstrap(answer));
                self.node.handle(
                    now,
                    Input::Bootstrap {
                        id,
                        cluster_id,
                        to_member,
                        members,
                    },
                );
            }
            Command::Query { query, answer } => {
                let id = self.expect(Waiter::Query(answer));
                self.node.handle(now, Input::Query(Query { id, ..query }));
            }
            Command::RequestVote { message, answer } => {
                if let Body::RequestVote(request) = &message.body {
                    self.votes.retain(|_, waiting| !waiting.is_closed());
                    self.votes.insert((message.from, request.pre_vote), answer);
                }
                self.node.handle(now, Input::Message(message));
            }
            Command::CompareHash { message, answer } => {
                self.comparisons.retain(|_, waiting| !waiting.is_closed());
                self.comparisons.insert(message.from, answer);
                self.node.handle(now, Input::Message(message));
            }
            Command::ListensForResponses { member, responses } => self.responses.listens(member, responses),
            Command::ListensForSnapshotResponses { member, responses } => {
                self.snapshot_responses.listens(member, responses);
            }
            Command::ReplicatorOpened(sender) => {
                self.replicator = Some(sender);
                self.node.handle(now, Input::Replicator(FromReplicator::Opened));
            }
            Command::ReplicatorSnapshot { piece, taken } => {
                self.piece_taken = Some(taken);
                let said = FromReplicator::Snapshot(piece);
                self.node.handle(now, Input::Replicator(said));
            }
            Command::Status(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(Arc::new(self.node.status(now)));
            }
        }
    }

    fn expect(&mut self, waiter: Waiter) -> RequestId {
        self.next_request += 1;
        self.waiters.insert(self.next_request, waiter);
        self.next_request
    }

    fn propose(&mut self, now: Time) {
        if !self.proposals.is_empty() {
            let proposals = std::mem::take(&mut self.proposals);
            self.edges
                .metrics
                .proposals
                .inc_by(u64::try_from(proposals.len()).unwrap_or(u64::MAX));
            self.node.handle(now, Input::Submit(proposals));
        }
    }

    /// One batch of effects, and the status after it.
    fn carry_out(&mut self, now: Time) {
        for input in std::mem::take(&mut self.follow_up) {
            self.node.handle(now, input);
        }
        let outputs = self.node.outputs(now);
        let status = Arc::new(self.node.status(now));
        self.edges.metrics.observe_status(&self.status, &status);
        self.edges.peers.follow(&status.configuration);
        let urgent = is_urgent(&self.status, &status);
        self.status = status;
        for output in outputs {
            self.carry_out_one(output);
        }
        if let Some(taken) = self.piece_taken.take_if(|_| self.node.takes_snapshot()) {
            // The stream may have ended.
            let _ = taken.send(());
        }
        self.publish(now, urgent);
    }

    fn publish(&mut self, now: Time, urgent: bool) {
        self.unpublished = self.unpublished || *self.status != **self.edges.published.borrow();
        if urgent || self.unpublished && now >= self.published_at + PUBLISH_INTERVAL {
            self.edges.published.send_replace(Arc::clone(&self.status));
            self.published_at = now;
            self.unpublished = false;
        }
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::Disk(id, op) => {
                self.edges.metrics.queued_disk_ops.inc();
                if self.edges.disk.send((id, op)).is_err() {
                    self.stop_reason = Some("the disk thread ended; see the lines before".into());
                }
            }
            Output::Send(message) => self.send(message),
            Output::InstallSnapshot(message) => self.install_snapshot(message),
            Output::InstallSnapshotResponse(response) => self.answer_snapshot(response),
            Output::Answer { id, result } => self.answer(id, result),
            Output::Transferred { id, result } => {
                if let Some(Waiter::Transfer(answer)) = self.waiters.remove(&id) {
                    let _ = answer.send(result);
                }
            }
            Output::MembershipChanged { id, result } => {
                if let Some(Waiter::Change(answer)) = self.waiters.remove(&id) {
                    let _ = answer.send(result);
                }
            }
            Output::SnapshotTaken { id, result } => {
                if let Some(Waiter::TakeSnapshot(answer)) = self.waiters.remove(&id) {
                    let _ = answer.send(result);
                }
            }
            Output::SnapshotRead { id, data } => {
                if let Some(Waiter::ReadSnapshot(answer)) = self.waiters.remove(&id) {
                    let _ = answer.send(data);
                }
            }
            Output::Bootstrapped { id, result } => {
                if let Some(Waiter::Bootstrap(answer)) = self.waiters.remove(&id) {
                    let _ = answer.send(result);
                }
            }
            Output::QueryAnswered { id, result } => {
                if let Some(Waiter::Query(answer)) = self.waiters.remove(&id) {
                    let _ = answer.send(result);
                }
            }
            Output::AskPeer { node, address } => self.edges.formation.ask(node, address),
            Output::SendBootstrap {
                node,
                address,
                cluster_id,
                to_member,
                members,
            } => {
                self.edges
                    .formation
                    .bootstrap(node, address, (cluster_id, to_member), &members);
            }
            Output::Replicator(message) => self.tell_replicator(message),
            Output::Notice(notice) => {
                if let Notice::SnapshotTaken { took, .. } = &notice {
                    self.edges.metrics.observe_snapshot(*took);
                }
                tracing::info!("{notice}");
            }
            Output::Stop(why) => self.stop_reason = Some(why),
        }
    }

    fn answer(&mut self, id: RequestId, result: Result<Committed, Refusal>) {
        // Whoever waited may have gone: the operation's fate is the same.
        match self.waiters.remove(&id) {
            Some(Waiter::Submit(answer)) => {
                let _ = answer.send(result);
            }
            Some(Waiter::Stream { position, answers }) => {
                // The stream's window is the channel's capacity, so there is room.
                let _ = answers.try_send(Answered { position, result });
            }
            _ => {}
        }
    }

    fn send(&mut self, message: Message) {
        let Some(cluster) = self.status.cluster_id else {
            return;
        };
        let Message {
            from,
            to,
            term,
            level,
            body,
        } = message;
        let envelope = Envelope {
            cluster,
            from,
            to,
            term,
            level,
        };
        let (own, who) = (self.status.node, lines::called(&self.status.configuration, to));
        match body {
            Body::RequestVote(vote) => {
                lines::sends_request_vote(own, who);
                let request = wire::request_vote_to_wire(envelope, vote);
                self.tell_peer(to, Outgoing::RequestVote(request));
            }
            Body::AppendEntries(append) => {
                if append.heartbeat {
                    lines::sends_heartbeat(own, who);
                }
                let request = wire::append_entries_to_wire(envelope, append);
                self.tell_peer(to, Outgoing::AppendEntries(request));
            }
            Body::TimeoutNow => {
                let request = wire::timeout_now_to_wire(envelope);
                self.tell_peer(to, Outgoing::TimeoutNow(request));
            }
            Body::Vote { pre_vote, answer } => {
                if let Some(call) = self.votes.remove(&(to, pre_vote)) {
                    let mut vote = wire::vote_to_wire(envelope, pre_vote, answer);
                    vote.removed_by = self.removed_by(to);
                    let _ = call.send(vote);
                }
            }
            Body::AppendEntriesResponse(response) => self.respond(envelope, response),
            Body::Compare(own) => {
                let request = wire::compare_hash_to_wire(envelope, own);
                self.tell_peer(to, Outgoing::CompareHash(request));
            }
            Body::Compared(own) => {
                if let Some(answer) = self.comparisons.remove(&to) {
                    let _ = answer.send(wire::compared_to_wire(envelope, own));
                }
            }
        }
    }

    fn install_snapshot(&mut self, message: InstallSnapshot) {
        let Some(cluster) = self.status.cluster_id else {
            return;
        };
        let to = message.to;
        let request = wire::install_snapshot_to_wire(cluster, message);
        // What is dropped is sent again: the core orders the snapshot until the follower has it.
        let _ = self.edges.peers.send(to, Outgoing::InstallSnapshot(request));
    }

    fn answer_snapshot(&mut self, response: InstallSnapshotResponse) {
        let Some(cluster) = self.status.cluster_id else {
            return;
        };
        let to = response.to;
        let response = wire::snapshot_response_to_wire(cluster, response);
        if !self.snapshot_responses.say(to, response) {
            self.edges.metrics.responses_dropped.inc();
        }
    }

    /// The version of the committed configuration if that does not list this member; 0 otherwise.
    fn removed_by(&self, member: MemberId) -> u64 {
        let configuration = &self.status.configuration;
        let committed = configuration.version <= self.status.commit_log_index;
        if committed && configuration.member(member).is_none() {
            configuration.version
        } else {
            0
        }
    }

    fn tell_peer(&mut self, to: MemberId, outgoing: Outgoing) {
        match self.edges.peers.send(to, outgoing) {
            Sent::Queued | Sent::DroppedAgain => {}
            Sent::Dropped => self.follow_up.push(Input::PeerStreamBroken(to)),
        }
    }

    fn respond(&mut self, envelope: Envelope, response: AppendEntriesResponse) {
        let response = wire::append_response_to_wire(envelope, response);
        // The leader that does not read asks again with its next heartbeat.
        if !self.responses.say(envelope.to, response) {
            self.edges.metrics.responses_dropped.inc();
        }
    }

    fn tell_replicator(&mut self, message: ToReplicator) {
        let Some(sender) = &self.replicator else { return };
        if sender.try_send(message).is_err() {
            // Dropping the sender ends the stream, which comes back as Closed.
            self.replicator = None;
        }
    }
}

/// Whether watchers are told at once: anything but indexes, bytes and times changed.
fn is_urgent(before: &Status, now: &Status) -> bool {
    let key = |status: &Status| {
        (
            (status.cluster_id, status.role, status.term, status.elected_by),
            (
                status.leader_is_live,
                status.is_member,
                status.replicator.connected,
                (status.disks, status.kept.log_full),
            ),
        )
    };
    key(before) != key(now)
        || before.leader != now.leader
        || before.waiting_for != now.waiting_for
        || !Arc::ptr_eq(&before.configuration, &now.configuration)
            && before.configuration != now.configuration
}

fn count(inputs: usize) -> f64 {
    u32::try_from(inputs).map_or(f64::MAX, f64::from)
}
