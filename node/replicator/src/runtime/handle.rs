//! How the gRPC services and HTTP reach the core's task.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use raftlog_proto::v1::{ExecutorStatus, ReplicateLogResponse};
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, OperationIndex, Term};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::executor::Wanted;
use crate::core::{
    Event, FetchError, Operation, Parent, Place, Progress, ReadIndexError, ReadIndexId, StartAction, Status,
    StreamId,
};

/// Requests that wait for the core at most.
const REQUESTS_MAX: usize = 256;
/// Messages of a node that wait for the core at most; each is bounded in bytes where it is decoded.
const FEED_MESSAGES_MAX: usize = 4;

/// Operations from one index on, and the commit index.
pub(super) type Fetched = Result<(Vec<Operation>, OperationIndex), FetchError>;

/// What the core's task is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// A node opened a stream.
    Open {
        stream: StreamId,
        cluster: ClusterId,
        member: MemberId,
        node: NodeNumber,
        parent: Option<Parent>,
        to_node: ToNode,
    },
    /// The stream is gone.
    Close { stream: StreamId },
    Fetch {
        from: OperationIndex,
        to: OperationIndex,
        bytes_max: usize,
        answer: oneshot::Sender<Fetched>,
    },
    ReadIndex {
        answer: oneshot::Sender<Result<OperationIndex, ReadIndexError>>,
    },
}

/// What a node says on its stream after the first message.
#[derive(Debug)]
pub(super) struct FromNode {
    pub(super) stream: StreamId,
    pub(super) message: NodeMessage,
}

/// See [`FromNode`].
#[derive(Debug)]
pub(super) enum NodeMessage {
    Start {
        action: StartAction,
        commit: OperationIndex,
    },
    Feed {
        operations: Vec<Operation>,
        commit: OperationIndex,
    },
    RestorePiece {
        offset: u64,
        data: Bytes,
    },
    TakeSnapshot {
        id: u64,
    },
    SnapshotKept {
        index: OperationIndex,
    },
    ReadIndexAnswer {
        id: u64,
        index: Option<OperationIndex>,
    },
    Leading {
        leads: Option<Term>,
        execute_after: OperationIndex,
    },
    Query {
        id: u64,
        query: Bytes,
    },
    ResultsWanted {
        indexes: Vec<OperationIndex>,
    },
}

impl NodeMessage {
    /// What it is to the core, or else the results that are wanted, which are none of the core's business.
    pub(super) fn on(self, stream: StreamId) -> Result<Event, Vec<OperationIndex>> {
        Ok(match self {
            Self::Start { action, commit } => Event::Start {
                stream,
                action,
                commit,
            },
            Self::Feed { operations, commit } => Event::Feed {
                stream,
                operations,
                commit,
            },
            Self::RestorePiece { offset, data } => Event::RestorePiece { stream, offset, data },
            Self::TakeSnapshot { id } => Event::TakeSnapshot { stream, id },
            Self::SnapshotKept { index } => Event::SnapshotKept { stream, index },
            Self::Leading { leads, execute_after } => Event::Leading {
                stream,
                leads,
                execute_after,
            },
            Self::Query { id, query } => Event::Query { stream, id, query },
            Self::ReadIndexAnswer { id, index } => Event::ReadIndexAnswer {
                stream,
                id: ReadIndexId(id),
                index,
            },
            Self::ResultsWanted { indexes } => return Err(indexes),
        })
    }
}

/// The way back to a node.
#[derive(Debug)]
pub(super) struct ToNode {
    /// Position and read index requests, and how the stream ends.
    pub(super) messages: mpsc::Sender<Result<ReplicateLogResponse, tonic::Status>>,
    /// Only the latest matters.
    pub(super) progress: watch::Sender<Progress>,
    /// Likewise.
    pub(super) executor: watch::Sender<Option<ExecutorStatus>>,
    /// Pieces of snapshots.
    pub(super) pieces: mpsc::Sender<Result<ReplicateLogResponse, tonic::Status>>,
    /// What came of operations. A node that lets them queue up is to ask again on another stream.
    pub(super) results: mpsc::Sender<Result<ReplicateLogResponse, tonic::Status>>,
    /// What it waits for.
    pub(super) wanted: Wanted,
    /// It knows what [`ToNode::executor`] and [`ToNode::results`] carry.
    pub(super) knows_executors: bool,
    /// It says whether it leads.
    pub(super) knows_leaders: bool,
    /// As long as what may be without an answer: each query reserves its place.
    pub(super) answers: mpsc::Sender<Result<ReplicateLogResponse, tonic::Status>>,
    /// Cancelled when the core is done with the stream.
    pub(super) done: CancellationToken,
}

/// Where everything meets. Clones reach the same core.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    requests: mpsc::Sender<Request>,
    feed: mpsc::Sender<FromNode>,
    commit: watch::Receiver<OperationIndex>,
    cluster: watch::Receiver<Option<ClusterId>>,
    dropped: watch::Receiver<Place>,
    status: Arc<Mutex<Status>>,
    streams: Arc<AtomicU64>,
    /// Cancelled when the process stops: streams to clients end.
    pub(super) stopping: CancellationToken,
}

/// The other end of [`Handle`], for the core's task.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) feed: mpsc::Receiver<FromNode>,
    pub(super) commit: watch::Sender<OperationIndex>,
    pub(super) cluster: watch::Sender<Option<ClusterId>>,
    pub(super) dropped: watch::Sender<Place>,
    pub(super) status: Arc<Mutex<Status>>,
    pub(super) ready: watch::Sender<bool>,
}

/// The process is stopping: there is no core to ask any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopping;

/// Both ends, for a core in that state.
pub(super) fn channels(
    status: Status,
    stopping: CancellationToken,
) -> (Handle, Inbox, watch::Receiver<bool>) {
    let (requests, request_queue) = mpsc::channel(REQUESTS_MAX);
    let (feed, feed_queue) = mpsc::channel(FEED_MESSAGES_MAX);
    let (commit_sender, commit) = watch::channel(status.commit.index);
    let (cluster_sender, cluster) = watch::channel(status.cluster);
    let (dropped_sender, dropped) = watch::channel(status.before_first);
    let (ready, ready_receiver) = watch::channel(status.readiness.ready);
    let status = Arc::new(Mutex::new(status));
    let handle = Handle {
        requests,
        feed,
        commit,
        cluster,
        dropped,
        status: Arc::clone(&status),
        streams: Arc::default(),
        stopping,
    };
    let inbox = Inbox {
        requests: request_queue,
        feed: feed_queue,
        commit: commit_sender,
        cluster: cluster_sender,
        dropped: dropped_sender,
        status,
        ready,
    };
    (handle, inbox, ready_receiver)
}

impl Handle {
    /// A name for a new stream.
    pub(super) fn next_stream(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Puts a request to the core.
    pub(super) async fn request(&self, request: Request) -> Result<(), Stopping> {
        self.requests.send(request).await.map_err(|_| Stopping)
    }

    /// Hands on what a node said, as soon as the core takes it.
    pub(super) async fn hand_on(&self, message: FromNode) -> Result<(), Stopping> {
        self.feed.send(message).await.map_err(|_| Stopping)
    }

    /// Committed operations from `from` on: as many as fit into `bytes_max`, at least one if `from` is committed and held.
    pub(super) async fn fetch(
        &self,
        from: OperationIndex,
        to: OperationIndex,
        bytes_max: usize,
    ) -> Result<Fetched, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Fetch {
            from,
            to,
            bytes_max,
            answer,
        })
        .await?;
        answered.await.map_err(|_| Stopping)
    }

    /// What has to be committed here for a read to be linearizable; answers once it is.
    pub(super) async fn read_index(&self) -> Result<Result<OperationIndex, ReadIndexError>, Stopping> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::ReadIndex { answer }).await?;
        answered.await.map_err(|_| Stopping)
    }

    /// The commit index, and its changes.
    pub(super) fn commit(&self) -> watch::Receiver<OperationIndex> {
        self.commit.clone()
    }

    /// The cluster, once a node was met, and its changes.
    pub(super) fn cluster(&self) -> watch::Receiver<Option<ClusterId>> {
        self.cluster.clone()
    }

    /// The last operation that is not held any more, and its changes.
    pub(super) fn dropped(&self) -> watch::Receiver<Place> {
        self.dropped.clone()
    }

    /// How the core is doing.
    pub(super) fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
