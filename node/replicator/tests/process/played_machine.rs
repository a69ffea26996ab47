//! A state machine, as far as its replicator can tell: it keeps the list of operations that it has applied.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use raftlog_proto::v1::state_machine_server::{StateMachine, StateMachineServer};
use raftlog_proto::v1::{
    ApplyFailed, ApplyPosition, ApplyRequest, ApplyResponse, ApplyResults, RestoreRequest, RestoreResponse,
    StateMachineQueryRequest, StateMachineQueryResponse, StateMachineSnapshotRequest,
    StateMachineSnapshotResponse, apply_request, apply_response, restore_request,
};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// What it keeps, whichever process serves it.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) cluster_id: u64,
    /// Indexes; those of a restored state are not in it.
    pub(crate) applied: Vec<u64>,
    pub(crate) index: u64,
    /// Restored, or what is given as a snapshot.
    pub(crate) bytes: Vec<u8>,
    /// It cannot apply this one.
    pub(crate) fails_at: Option<u64>,
}

/// Clones are of the same state.
#[derive(Clone, Default)]
pub(crate) struct Machine(Arc<Mutex<State>>);

/// A process that serves it, as far as its replicator can tell; it dies with all its connections when this is dropped.
pub(crate) struct Serving(Option<Runtime>);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Machine {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn indexes(&self) -> Vec<u64> {
        self.state().applied.clone()
    }

    pub(crate) fn serve(&self, socket: &Path) -> Serving {
        // Of the one before.
        let _ = std::fs::remove_file(socket);
        let runtime = Runtime::new().unwrap();
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        let service = StateMachineServer::new(self.clone()).max_decoding_message_size(8 << 20);
        runtime.spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await
                .unwrap();
        });
        Serving(Some(runtime))
    }

    /// Applies what it can; the error is why not all.
    fn apply_all(&self, request: ApplyRequest) -> apply_response::Message {
        let Some(apply_request::Message::Operations(operations)) = request.message else {
            panic!("operations follow the hello: {request:?}")
        };
        let mut state = self.state();
        let mut results = Vec::new();
        for operation in operations.operations {
            assert_eq!(operation.index, state.index + 1, "operations come in order");
            if state.fails_at == Some(operation.index) {
                return apply_response::Message::Failed(ApplyFailed {
                    index: operation.index,
                    message: "no such thing\nand more".to_owned(),
                });
            }
            state.index = operation.index;
            results.push(format!("did {}", operation.index).into());
            state.applied.push(operation.index);
        }
        apply_response::Message::Results(ApplyResults {
            applied_index: state.index,
            results,
        })
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl StateMachine for Machine {
    type ApplyStream = Answers<ApplyResponse>;
    type SnapshotStream = Answers<StateMachineSnapshotResponse>;

    async fn apply(
        &self,
        request: Request<Streaming<ApplyRequest>>,
    ) -> Result<Response<Self::ApplyStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, queue) = mpsc::channel(1);
        let machine = self.clone();
        let hello = requests.message().await?.and_then(|request| request.message);
        let Some(apply_request::Message::Hello(hello)) = hello else {
            panic!("the first is the hello")
        };
        let position = {
            let mut state = self.state();
            let position = ApplyPosition {
                protocol_version: 1,
                applied_index: state.index,
                cluster_id: state.cluster_id,
            };
            state.cluster_id = hello.cluster_id;
            position
        };
        tokio::spawn(async move {
            let mut message = apply_response::Message::Position(position);
            loop {
                let message_of = |message| {
                    Ok(ApplyResponse {
                        message: Some(message),
                    })
                };
                if answers.send(message_of(message)).await.is_err() {
                    return;
                }
                match requests.message().await {
                    Ok(Some(request)) => message = machine.apply_all(request),
                    _ => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn snapshot(
        &self,
        _: Request<StateMachineSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let (applied_index, bytes) = {
            let state = self.state();
            (state.index, state.bytes.clone())
        };
        let first = StateMachineSnapshotResponse {
            applied_index,
            data: Bytes::new(),
        };
        let pieces: Vec<_> = bytes.chunks(1 << 20).map(Bytes::copy_from_slice).collect();
        let pieces = pieces.into_iter().map(|data| StateMachineSnapshotResponse {
            applied_index: 0,
            data,
        });
        let all = std::iter::once(first).chain(pieces).map(Ok);
        Ok(Response::new(Box::pin(tokio_stream::iter(all))))
    }

    async fn restore(
        &self,
        request: Request<Streaming<RestoreRequest>>,
    ) -> Result<Response<RestoreResponse>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.message);
        let Some(restore_request::Message::Header(header)) = first else {
            panic!("the first is the header")
        };
        let mut bytes = Vec::new();
        while let Some(request) = requests.next().await {
            let Some(restore_request::Message::Data(data)) = request?.message else {
                panic!("data follows the header")
            };
            bytes.extend_from_slice(&data);
        }
        if bytes.len() as u64 != header.size {
            return Err(Status::aborted("it broke off"));
        }
        let mut state = self.state();
        (state.index, state.cluster_id, state.bytes) = (header.applied_index, header.cluster_id, bytes);
        Ok(Response::new(RestoreResponse {}))
    }

    async fn query(
        &self,
        request: Request<StateMachineQueryRequest>,
    ) -> Result<Response<StateMachineQueryResponse>, Status> {
        let query = request.into_inner().query;
        let state = self.state();
        match &query[..] {
            b"count" => Ok(Response::new(StateMachineQueryResponse {
                result: state.applied.len().to_string().into(),
                applied_index: state.index,
            })),
            b"" => Err(Status::invalid_argument("what?")),
            _ => Err(Status::out_of_range("not there")),
        }
    }
}
