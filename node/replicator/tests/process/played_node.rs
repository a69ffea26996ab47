//! A node, as far as its replicator can tell.

use std::net::SocketAddr;

use bytes::Bytes;
use raftlog_proto::v1::replicate_log_request::Message;
use raftlog_proto::v1::replicate_log_response::Message as Answer;
use raftlog_proto::v1::replicator_client::ReplicatorClient;
use raftlog_proto::v1::{
    ExecutorStatus, Feed, NodeHello, OperationResult, Position, Progress, Query, QueryAnswer,
    ReadIndexAnswer, ReplicateLogRequest, ReplicateLogResponse, ReplicatedOperation, ResultsWanted, Snapshot,
    SnapshotChunk, Start, TakeSnapshot, start,
};
use raftlog_raft::fold::running_hash;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::program::LONG;

/// The log that the played node holds.
#[derive(Clone, Default)]
pub(crate) struct Log(pub(crate) Vec<ReplicatedOperation>);

impl Log {
    pub(crate) fn of(data: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let mut log = Self::default();
        for data in data {
            log.push(data);
        }
        log
    }

    pub(crate) fn push(&mut self, data: impl Into<Bytes>) {
        let (index, data) = (self.0.len() as u64 + 1, data.into());
        let previous = self.0.last().map_or(0, |last| last.running_hash);
        let running_hash = running_hash(previous, index, 1, &data);
        self.0.push(ReplicatedOperation {
            index,
            term: 1,
            running_hash,
            data,
        });
    }

    /// `operation-1` to `operation-COUNT`.
    pub(crate) fn numbered(count: u64) -> Self {
        Self::of((1..=count).map(|index| format!("operation-{index}")))
    }
}

/// Who it is.
#[derive(Clone, Copy)]
pub(crate) struct Who {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    pub(crate) node: u32,
}

pub(crate) const NODE_1: Who = Who {
    cluster_id: 0xc1,
    member_id: 0x11,
    node: 1,
};

/// An open stream.
pub(crate) struct PlayedNode {
    pub(crate) requests: mpsc::Sender<ReplicateLogRequest>,
    answers: Streaming<ReplicateLogResponse>,
    executor: ExecutorStatus,
}

impl PlayedNode {
    /// Opens a stream and says who it is.
    pub(crate) async fn open(to: SocketAddr, who: Who) -> Self {
        let channel = Endpoint::from_shared(format!("http://{to}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self::open_on(channel, who).await
    }

    pub(crate) async fn open_on(channel: Channel, who: Who) -> Self {
        Self::try_open(channel, who).await.unwrap()
    }

    async fn try_open(channel: Channel, who: Who) -> Result<Self, Status> {
        let (requests, queue) = mpsc::channel(16);
        let Who {
            cluster_id,
            member_id,
            node,
        } = who;
        let hello = Message::Hello(NodeHello {
            cluster_id,
            member_id,
            node,
            parent: None,
            protocol_version: 1,
        });
        requests
            .send(ReplicateLogRequest { message: Some(hello) })
            .await
            .unwrap();
        let answers = ReplicatorClient::new(channel)
            .replicate_log(ReceiverStream::new(queue))
            .await?
            .into_inner();
        Ok(Self {
            requests,
            answers,
            executor: ExecutorStatus::default(),
        })
    }

    /// How a port without the service answers.
    pub(crate) async fn refused(to: SocketAddr) -> Status {
        let channel = Endpoint::from_shared(format!("http://{to}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self::try_open(channel, NODE_1).await.err().unwrap()
    }

    /// Opens, and starts after what the replicator has of `log`; `commit` is the node's commit index.
    pub(crate) async fn start(to: SocketAddr, commit: u64) -> (Self, Position) {
        Self::start_as(to, NODE_1, commit).await
    }

    /// Likewise, as another node.
    pub(crate) async fn start_as(to: SocketAddr, who: Who, commit: u64) -> (Self, Position) {
        let mut node = Self::open(to, who).await;
        let position = node.position().await;
        let resume_from = position.last.unwrap_or_default().index + 1;
        node.say(Message::Start(Start {
            action: Some(start::Action::ResumeFrom(resume_from)),
            commit_index: commit,
        }))
        .await;
        (node, position)
    }

    pub(crate) async fn say(&self, message: Message) {
        self.requests
            .send(ReplicateLogRequest {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    pub(crate) async fn feed(&self, operations: &[ReplicatedOperation], commit_index: u64) {
        self.say(Message::Feed(Feed {
            operations: operations.to_vec(),
            commit_index,
        }))
        .await;
    }

    /// The next answer, or how the stream ended. What is said of the executor is put aside.
    pub(crate) async fn next(&mut self) -> Result<Option<Answer>, Status> {
        loop {
            let answer = timeout(LONG, self.answers.message())
                .await
                .expect("the replicator answers");
            match answer?.and_then(|answer| answer.message) {
                Some(Answer::Executor(status)) => self.executor = status,
                other => return Ok(other),
            }
        }
    }

    /// Waits for a status of the executor that is enough.
    pub(crate) async fn executor(&mut self, enough: impl Fn(&ExecutorStatus) -> bool) -> ExecutorStatus {
        while !enough(&self.executor) {
            let answer = timeout(LONG, self.answers.message()).await;
            let answer = answer.unwrap_or_else(|_| panic!("the executor stays as {:?}", self.executor));
            if let Some(Answer::Executor(status)) = answer.unwrap().unwrap().message {
                self.executor = status;
            }
        }
        self.executor.clone()
    }

    /// Waits for what came of operations, in order.
    pub(crate) async fn results(&mut self, indexes: &[u64]) -> Vec<OperationResult> {
        let indexes = indexes.to_vec();
        let mut results = Vec::new();
        let count = indexes.len();
        self.say(Message::ResultsWanted(ResultsWanted { indexes })).await;
        while results.len() < count {
            match self.next().await.unwrap() {
                Some(Answer::Results(more)) => results.extend(more.results),
                Some(Answer::Progress(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        results
    }

    /// Asks the executor and waits for the answer.
    pub(crate) async fn query(&mut self, id: u64, query: &'static str) -> QueryAnswer {
        let query = query.into();
        self.say(Message::Query(Query { id, query })).await;
        loop {
            match self.next().await.unwrap() {
                Some(Answer::Query(answer)) => return answer,
                Some(Answer::Progress(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Orders a snapshot and waits for it.
    pub(crate) async fn take_snapshot(&mut self, id: u64) -> SnapshotChunk {
        self.say(Message::TakeSnapshot(TakeSnapshot { id })).await;
        loop {
            match self.next().await.unwrap() {
                Some(Answer::Snapshot(chunk)) => return chunk,
                Some(Answer::Progress(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends a snapshot, a byte at a time, the first `bytes` of it.
    pub(crate) async fn restore(&self, snapshot: Snapshot, state: &Bytes, bytes: usize) {
        let commit_index = snapshot.place.unwrap_or_default().index;
        self.say(Message::Start(Start {
            action: Some(start::Action::Restore(snapshot)),
            commit_index,
        }))
        .await;
        for at in 0..bytes {
            self.say(Message::Restore(SnapshotChunk {
                offset: at as u64,
                data: state.slice(at..=at),
                ..SnapshotChunk::default()
            }))
            .await;
        }
    }

    pub(crate) async fn position(&mut self) -> Position {
        match self.next().await.unwrap() {
            Some(Answer::Position(position)) => position,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the position that is said in the middle of a stream.
    pub(crate) async fn position_again(&mut self) -> Position {
        loop {
            match self.next().await.unwrap() {
                Some(Answer::Position(position)) => return position,
                Some(Answer::Progress(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits for progress that is enough.
    pub(crate) async fn progress(&mut self, enough: impl Fn(&Progress) -> bool) -> Progress {
        loop {
            match self.next().await.unwrap() {
                Some(Answer::Progress(progress)) if enough(&progress) => return progress,
                Some(Answer::Progress(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits for a read index request and answers it; `None`: there is no leader.
    pub(crate) async fn answer_read_index(&mut self, index: Option<u64>) {
        loop {
            match self.next().await.unwrap() {
                Some(Answer::ReadIndex(request)) => {
                    let (refused, index) = (index.is_none(), index.unwrap_or(0));
                    return self
                        .say(Message::ReadIndex(ReadIndexAnswer {
                            id: request.id,
                            index,
                            refused,
                        }))
                        .await;
                }
                Some(Answer::Progress(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits until the replicator ends the stream, and says how.
    pub(crate) async fn ended(&mut self) -> Status {
        loop {
            match self.next().await {
                Err(status) => return status,
                Ok(None) => panic!("the stream ended without a reason"),
                Ok(Some(_)) => {}
            }
        }
    }
}
