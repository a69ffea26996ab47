//! SubmitStream: many operations in order, pipelined within a window; after the first that was not appended, none is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use raftlog_proto::v1;
use raftlog_raft::entry::Operation;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::forward;
use crate::handle::{Answered, Command, Handle};
use crate::limits::Taken;
use crate::node::{Input, Leader, StreamId};
use crate::operation;
use crate::operations_service::{Decider, OperationsService};
use crate::refusal;
use crate::runs::{Reorder, Told};

/// Operations of one stream under way at once.
const WINDOW_OPERATIONS: usize = 4_096;
/// Bytes of operations in one message.
const MESSAGE_OPERATION_BYTES_MAX: usize = 4 << 20;
/// Responses that wait for a client to read them.
const QUEUED_RESPONSES_MAX: usize = 16;

/// Numbers the streams of this process.
static NEXT_STREAM: AtomicU64 = AtomicU64::new(1);

type Responses = mpsc::Sender<Result<v1::SubmitStreamResponse, Status>>;

impl OperationsService {
    /// Serves one stream in a task of its own.
    pub(crate) fn stream(
        self,
        requests: Streaming<v1::SubmitStreamRequest>,
        forwarded: bool,
    ) -> ReceiverStream<Result<v1::SubmitStreamResponse, Status>> {
        let (responses, outgoing) = mpsc::channel(QUEUED_RESPONSES_MAX);
        tokio::spawn(async move {
            let drain = self.lifecycle.drain.clone();
            let served = tokio::select! {
                served = self.serve_stream(requests, forwarded, &responses) => served,
                () = responses.closed() => return,
                () = drain.cancelled() => Err(Status::unavailable("the node is stopping")),
            };
            if let Err(status) = served {
                self.metrics.refused(&status);
                let _ = responses.send(Err(status)).await;
            }
        });
        ReceiverStream::new(outgoing)
    }

    async fn serve_stream(
        &self,
        mut requests: Streaming<v1::SubmitStreamRequest>,
        forwarded: bool,
        responses: &Responses,
    ) -> Result<(), Status> {
        let Some(first) = requests.message().await? else {
            return Ok(());
        };
        let taking = Requests::begin(first.header.clone())?;
        match self.decider(forwarded)? {
            Decider::Leader(leader) => self.forward_stream(&leader, first, requests, responses).await,
            Decider::ThisNode => {
                let mut stream = LocalStream::new(self, taking);
                stream.pump(first, requests, responses).await
            }
        }
    }

    async fn forward_stream(
        &self,
        leader: &Leader,
        first: v1::SubmitStreamRequest,
        requests: Streaming<v1::SubmitStreamRequest>,
        responses: &Responses,
    ) -> Result<(), Status> {
        let mut client = self.client(leader)?;
        // A client that breaks off ends the stream here too; what it sent before stands.
        let outgoing = tokio_stream::once(first).chain(requests.map_while(Result::ok));
        let request = forward::request(outgoing, self.config.node, None);
        let mut answers = self
            .forwarder
            .answer(leader, client.submit_stream(request))
            .await?
            .into_inner();
        while let Some(response) = self.forwarder.answer(leader, answers.message()).await? {
            if responses.send(Ok(response)).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Tells the core, however the stream ends, that no more of it will come.
struct Open {
    core: Handle,
    stream: StreamId,
}

impl Drop for Open {
    fn drop(&mut self) {
        let (core, stream) = (self.core.clone(), self.stream);
        tokio::spawn(async move { core.input(Input::StreamClosed(stream)).await });
    }
}

/// The requests of a stream, one after the other.
#[derive(Debug)]
pub(crate) struct Requests {
    header: v1::SubmitStreamHeader,
    wait_for: v1::WaitFor,
    /// Operations taken so far.
    taken: u64,
}

impl Requests {
    /// Of a stream whose first message has this header.
    pub(crate) fn begin(header: Option<v1::SubmitStreamHeader>) -> Result<Self, Status> {
        let header = header
            .ok_or_else(|| operation::invalid("the first message of a stream carries its header".into()))?;
        let wait_for = v1::WaitFor::try_from(header.wait_for)
            .map_err(|_| operation::invalid(format!("wait_for {} is unknown", header.wait_for)))?;
        Ok(Self {
            header,
            wait_for,
            taken: 0,
        })
    }

    /// Takes the operations of a message, each with its place in the stream, up to the first bad one.
    pub(crate) fn take(
        &mut self,
        request: v1::SubmitStreamRequest,
        mut each: impl FnMut(u64, Operation),
    ) -> Result<(), Status> {
        let bytes: usize = request.operations.iter().map(bytes::Bytes::len).sum();
        if bytes > MESSAGE_OPERATION_BYTES_MAX {
            let why = format!(
                "the message has {bytes} bytes of operations, more than {MESSAGE_OPERATION_BYTES_MAX}"
            );
            return Err(operation::invalid(why));
        }
        for data in request.operations {
            let (client_id, first) = (&self.header.client_id, self.header.first_sequence);
            let sequence = first
                .checked_add(self.taken)
                .ok_or_else(|| operation::invalid("the stream's sequences overflow".into()))?;
            let operation = operation::checked(data, client_id, sequence, request.acknowledged_through)?;
            each(self.taken, operation);
            self.taken += 1;
        }
        Ok(())
    }
}

/// A stream that this node decides about.
struct LocalStream<'a> {
    service: &'a OperationsService,
    open: Open,
    requests: Requests,
    /// Room of those that are not answered yet, in the stream's order.
    room: VecDeque<Taken>,
    reorder: Reorder,
}

impl<'a> LocalStream<'a> {
    fn new(service: &'a OperationsService, requests: Requests) -> Self {
        Self {
            service,
            open: Open {
                core: service.core.clone(),
                stream: NEXT_STREAM.fetch_add(1, Ordering::Relaxed),
            },
            requests,
            room: VecDeque::new(),
            reorder: Reorder::default(),
        }
    }

    async fn pump(
        &mut self,
        first: v1::SubmitStreamRequest,
        mut requests: Streaming<v1::SubmitStreamRequest>,
        responses: &Responses,
    ) -> Result<(), Status> {
        let (answers, mut answered) = mpsc::channel(WINDOW_OPERATIONS);
        // What was read and does not fit into the window yet.
        let mut waiting = VecDeque::new();
        let mut refused = self.check(first, &mut waiting).err();
        let mut open = refused.is_none();
        loop {
            self.submit(&mut waiting, &answers).await;
            if self.room.is_empty() && waiting.is_empty() && !open {
                return refused.map_or(Ok(()), Err);
            }
            tokio::select! {
                request = requests.message(), if open && waiting.is_empty() => match request {
                    Ok(Some(request)) => {
                        // What came before a bad one is still answered.
                        refused = self.check(request, &mut waiting).err();
                        open = refused.is_none();
                    }
                    Ok(None) => open = false,
                    Err(status) => return Err(status),
                },
                Some(answer) = answered.recv() => {
                    self.reorder.take(answer);
                    while let Ok(answer) = answered.try_recv() {
                        self.reorder.take(answer);
                    }
                    let told = self.reorder.tell();
                    self.tell(told, responses).await?;
                }
            }
        }
    }

    fn check(
        &mut self,
        request: v1::SubmitStreamRequest,
        waiting: &mut VecDeque<(u64, Operation)>,
    ) -> Result<(), Status> {
        let queue = |position, operation| waiting.push_back((position, operation));
        self.requests.take(request, queue)
    }

    /// Hands to the core what fits into the window.
    async fn submit(&mut self, waiting: &mut VecDeque<(u64, Operation)>, answers: &mpsc::Sender<Answered>) {
        let mut batch = Vec::new();
        while self.room.len() < WINDOW_OPERATIONS
            && let Some((position, operation)) = waiting.pop_front()
        {
            let room = match self.service.limits.try_take(operation.data.len()) {
                Some(room) => room,
                // With nothing of its own under way it waits its turn; otherwise its own answers make room.
                None if self.room.is_empty() => match self.service.limits.take(operation.data.len()).await {
                    Some(room) => room,
                    None => return,
                },
                None => {
                    waiting.push_front((position, operation));
                    break;
                }
            };
            self.room.push_back(room);
            batch.push((position, operation));
        }
        if !batch.is_empty() {
            let answers = answers.clone();
            let command = Command::SubmitStream {
                stream: self.open.stream,
                operations: batch,
                answers,
            };
            self.service.core.command(command).await;
        }
    }

    async fn tell(&mut self, told: Told, responses: &Responses) -> Result<(), Status> {
        if !told.runs.is_empty() {
            let count: u64 = told.runs.iter().map(|run| run.count).sum();
            for _ in 0..count {
                self.room.pop_front();
            }
            if self.requests.wait_for == v1::WaitFor::Executed {
                self.service.executed(told.highest).await?;
            }
            let response = v1::SubmitStreamResponse {
                runs: told.runs,
                term: told.term,
                leader_node: self.service.config.node,
                leader_address: self.service.config.client_address.clone(),
            };
            responses
                .send(Ok(response))
                .await
                .map_err(|_| Status::cancelled("the client is gone"))?;
        }
        told.failed
            .map_or(Ok(()), |refused| Err(refusal::proposal(refused)))
    }
}
