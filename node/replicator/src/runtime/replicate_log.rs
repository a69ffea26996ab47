//! The service Replicator: a node feeds its replicator.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use raftlog_proto::error::status;
use raftlog_proto::v1::replicator_server::Replicator;
use raftlog_proto::v1::{ReplicateLogRequest, ReplicateLogResponse};
use raftlog_proto::{QUERIES_MAX, reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::executor::Wanted;
use super::handle::{FromNode, Handle, Request as CoreRequest, ToNode};
use super::wire;
use crate::core::Progress;

/// Streams open at once at most: one is the node's, others are being replaced or refused.
const STREAMS_MAX: usize = 16;
/// How long an open stream may take to say who it is.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// Messages that wait for a node to read them, progress, pieces of snapshots, results and answers aside.
const MESSAGES_MAX: usize = 64;
/// Pieces of a snapshot that do.
const PIECES_MAX: usize = 1;
/// Messages with results that do, each of 1 MiB at most: more than all that is kept takes.
const RESULTS_MAX: usize = 128;

/// See [`Replicator`].
pub(super) struct ReplicatorService {
    handle: Handle,
    streams: Arc<Semaphore>,
}

impl ReplicatorService {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}

#[tonic::async_trait]
impl Replicator for ReplicatorService {
    type ReplicateLogStream = Pin<Box<dyn Stream<Item = Result<ReplicateLogResponse, Status>> + Send>>;

    async fn replicate_log(
        &self,
        request: Request<Streaming<ReplicateLogRequest>>,
    ) -> Result<Response<Self::ReplicateLogStream>, Status> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let message = format!("{STREAMS_MAX} streams are open already: one node has one replicator");
            status(Code::ResourceExhausted, reason::BACKPRESSURE, message)
        })?;
        let (messages, message_queue) = mpsc::channel(MESSAGES_MAX);
        let (progress, progresses) = watch::channel(Progress::default());
        let (executor, executors) = watch::channel(None);
        let (pieces, piece_queue) = mpsc::channel(PIECES_MAX);
        let (results, result_queue) = mpsc::channel(RESULTS_MAX);
        let (answers, answer_queue) = mpsc::channel(QUERIES_MAX);
        let to_node = ToNode {
            messages,
            progress,
            executor,
            pieces,
            results,
            wanted: Wanted::default(),
            knows_executors: false,
            knows_leaders: false,
            answers,
            done: CancellationToken::new(),
        };
        tokio::spawn(listen(self.handle.clone(), request.into_inner(), to_node, permit));
        let progresses = WatchStream::from_changes(progresses).map(|progress| Ok(wire::progress(progress)));
        let executors = WatchStream::from_changes(executors);
        let executors = executors.filter_map(|status| Some(Ok(wire::executor(status?))));
        let messages = ReceiverStream::new(message_queue);
        let answers = ReceiverStream::new(answer_queue);
        let pieces = ReceiverStream::new(piece_queue);
        // Whoever waits for a result is told before how far all else is.
        let results = ReceiverStream::new(result_queue);
        Ok(Response::new(Box::pin(
            results
                .merge(messages)
                .merge(progresses)
                .merge(executors)
                .merge(answers)
                .merge(pieces),
        )))
    }
}

/// Hands on what the node says, until it or the core ends the stream.
async fn listen(
    handle: Handle,
    mut incoming: Streaming<ReplicateLogRequest>,
    mut to_node: ToNode,
    _permit: OwnedSemaphorePermit,
) {
    let (done, end) = (to_node.done.clone(), to_node.messages.clone());
    let hello = match timeout(HELLO_MAX, first(&mut incoming)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(refused)) => return drop(end.try_send(Err(refused))),
        Err(_) => return drop(end.try_send(Err(wire::invalid("no hello came in time")))),
    };
    let stream = handle.next_stream();
    let wire::Hello {
        cluster,
        member,
        node,
        parent,
        knows_executors,
        knows_leaders,
    } = hello;
    (to_node.knows_executors, to_node.knows_leaders) = (knows_executors, knows_leaders);
    let open = CoreRequest::Open {
        stream,
        cluster,
        member,
        node,
        parent,
        to_node,
    };
    if handle.request(open).await.is_err() {
        return drop(end.try_send(Err(wire::stopping())));
    }
    loop {
        let message = tokio::select! {
            message = incoming.next() => message,
            () = done.cancelled() => return,
        };
        // A broken connection needs no answer.
        let Some(Ok(message)) = message else { break };
        let message = match wire::node_message(message) {
            Ok(message) => message,
            Err(refused) => {
                // The queue is for a node that reads.
                let _ = end.try_send(Err(refused));
                break;
            }
        };
        let taken = tokio::select! {
            taken = handle.hand_on(FromNode { stream, message }) => taken,
            () = done.cancelled() => return,
        };
        if taken.is_err() {
            return drop(end.try_send(Err(wire::stopping())));
        }
    }
    // Where the core is gone there is nothing to close.
    let _ = handle.request(CoreRequest::Close { stream }).await;
}

async fn first(incoming: &mut Streaming<ReplicateLogRequest>) -> Result<wire::Hello, Status> {
    match incoming.next().await {
        Some(message) => wire::hello(&message?),
        None => Err(wire::invalid("the stream ended before hello")),
    }
}
