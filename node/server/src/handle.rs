//! The way into the core task, for everything that is not the core.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftlog_proto::v1;
use raftlog_raft::entry::Operation;
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber};
use raftlog_raft::membership::{Configuration, Member};
use raftlog_raft::message::Message;
use tokio::sync::{mpsc, oneshot, watch};

use crate::node::{
    BootstrapRefusal, Committed, Input, MembershipChange, MembershipRefusal, Proposed, Query, QueryRefusal,
    QueryResult, Refusal, SnapshotChunk, SnapshotId, SnapshotRefusal, Status, StreamId, TakenSnapshot,
    ToReplicator, TransferRefusal, Transferred,
};
use crate::responses::Listener;

/// Commands that wait for the core at most.
pub(crate) const COMMANDS_MAX: usize = 4_096;

/// The answer to one operation of a stream.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Its place in the stream, from 0.
    pub(crate) position: u64,
    pub(crate) result: Result<Committed, Refusal>,
}

/// What the core is asked for.
pub(crate) enum Command {
    /// Hand it to the node.
    Input(Input),
    Submit {
        proposed: Proposed,
        answer: oneshot::Sender<Result<Committed, Refusal>>,
    },
    SubmitStream {
        stream: StreamId,
        /// With their places in the stream.
        operations: Vec<(u64, Operation)>,
        /// Must have room for the answers to everything that is under way.
        answers: mpsc::Sender<Answered>,
    },
    Transfer {
        target: Option<NodeNumber>,
        answer: oneshot::Sender<Result<Transferred, TransferRefusal>>,
    },
    ChangeMembership {
        /// Its number is given by the core.
        change: MembershipChange,
        answer: oneshot::Sender<Result<Configuration, MembershipRefusal>>,
    },
    TakeSnapshot {
        within: Duration,
        answer: oneshot::Sender<Result<TakenSnapshot, SnapshotRefusal>>,
    },
    ReadSnapshot {
        snapshot: SnapshotId,
        offset: u64,
        answer: oneshot::Sender<Option<Bytes>>,
    },
    Bootstrap {
        cluster_id: ClusterId,
        to_member: MemberId,
        members: Vec<Member>,
        answer: oneshot::Sender<Result<(), BootstrapRefusal>>,
    },
    RequestVote {
        message: Message,
        answer: oneshot::Sender<v1::RequestVoteResponse>,
    },
    CompareHash {
        message: Message,
        answer: oneshot::Sender<v1::CompareHashResponse>,
    },
    /// A leader's stream is open here; what is said to that member goes there.
    ListensForResponses {
        member: MemberId,
        responses: Listener<v1::AppendEntriesResponse>,
    },
    /// The same for a stream with a leader's snapshot.
    ListensForSnapshotResponses {
        member: MemberId,
        responses: Listener<v1::InstallSnapshotResponse>,
    },
    Query {
        /// Its number is given by the core.
        query: Query,
        answer: oneshot::Sender<Result<QueryResult, QueryRefusal>>,
    },
    /// A stream to the replicator is open, the hello is sent.
    ReplicatorOpened(mpsc::Sender<ToReplicator>),
    /// A piece of the replicator's state came; who carries it waits until the next may come.
    ReplicatorSnapshot {
        piece: SnapshotChunk,
        taken: oneshot::Sender<()>,
    },
    Status(oneshot::Sender<Arc<Status>>),
}

/// The core's door. Clones are the same door.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    published: watch::Receiver<Arc<Status>>,
}

impl Handle {
    pub(crate) fn new(commands: mpsc::Sender<Command>, published: watch::Receiver<Arc<Status>>) -> Self {
        Self { commands, published }
    }

    /// The last published status: indexes a few milliseconds old, all else fresh.
    pub(crate) fn published(&self) -> Arc<Status> {
        Arc::clone(&self.published.borrow())
    }

    /// To wait for changes of the published status.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Status>> {
        self.published.clone()
    }

    /// The status at this moment; the last published one when the core has ended.
    pub(crate) async fn status(&self) -> Arc<Status> {
        let (answer, status) = oneshot::channel();
        self.command(Command::Status(answer)).await;
        status.await.unwrap_or_else(|_| self.published())
    }

    /// Hands a command over as soon as there is room. Once the core has ended it is dropped, and so is its answer's
    /// sender.
    pub(crate) async fn command(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }

    /// The same for an input.
    pub(crate) async fn input(&self, input: Input) {
        self.command(Command::Input(input)).await;
    }

    /// Proposes, and waits until that is decided. Refuses at once when the core has too much to do.
    pub(crate) async fn submit(&self, proposed: Proposed) -> Result<Committed, Refusal> {
        let (answer, result) = oneshot::channel();
        match self.commands.try_send(Command::Submit { proposed, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Refusal::Backpressure),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(Refusal::NotAppended("the node is stopping"));
            }
        }
        // A core that ends with proposals under way cannot tell what becomes of them.
        result.await.unwrap_or(Err(Refusal::LeadershipLost))
    }

    /// Asks the executor of this node's replicator; `None` once the core has ended. Refuses at once when there is too much to do.
    pub(crate) async fn query(&self, query: Query) -> Option<Result<QueryResult, QueryRefusal>> {
        let (answer, result) = oneshot::channel();
        match self.commands.try_send(Command::Query { query, answer }) {
            Ok(()) => result.await.ok(),
            Err(mpsc::error::TrySendError::Full(_)) => Some(Err(QueryRefusal::Backpressure)),
            Err(mpsc::error::TrySendError::Closed(_)) => None,
        }
    }

    /// Changes who belongs to the cluster.
    pub(crate) async fn change_membership(
        &self,
        change: MembershipChange,
    ) -> Result<Configuration, MembershipRefusal> {
        let (answer, result) = oneshot::channel();
        self.command(Command::ChangeMembership { change, answer }).await;
        result.await.unwrap_or(Err(MembershipRefusal::LeadershipLost))
    }

    /// A snapshot of all that is executed by now.
    pub(crate) async fn take_snapshot(&self, within: Duration) -> Result<TakenSnapshot, SnapshotRefusal> {
        let (answer, result) = oneshot::channel();
        self.command(Command::TakeSnapshot { within, answer }).await;
        result
            .await
            .unwrap_or(Err(SnapshotRefusal::Failed("the node stopped")))
    }

    /// Data of a snapshot from that offset on, as many as one read gives; `None` where it is no more.
    pub(crate) async fn read_snapshot(&self, snapshot: SnapshotId, offset: u64) -> Option<Bytes> {
        let (answer, data) = oneshot::channel();
        let read = Command::ReadSnapshot {
            snapshot,
            offset,
            answer,
        };
        self.command(read).await;
        data.await.ok().flatten()
    }

    /// Hands leadership over.
    pub(crate) async fn transfer(&self, target: Option<NodeNumber>) -> Result<Transferred, TransferRefusal> {
        let (answer, result) = oneshot::channel();
        self.command(Command::Transfer { target, answer }).await;
        result
            .await
            .unwrap_or_else(|_| Err(TransferRefusal::Failed("the node stopped".into())))
    }
}
