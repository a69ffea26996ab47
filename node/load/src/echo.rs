//! A server that does nothing: what it costs to be asked and to answer.

use std::{future::Future, io, pin::Pin};

use raftlog_proto::{
    MESSAGE_BYTES_MAX,
    v1::{
        GetStatusRequest, GetStatusResponse, OpenSessionRequest, OpenSessionResponse, QueryRequest,
        QueryResponse, SubmitClientRequestRequest, SubmitClientRequestResponse, SubmitStreamRequest,
        SubmitStreamResponse,
        operations_server::{Operations, OperationsServer},
    },
};
use tokio::net::TcpListener;
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// As nodes have them: the longest operation arrives without waiting for more room.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Answers every `SubmitClientRequest` at once, until `stop` is done.
pub async fn serve(listener: TcpListener, stop: impl Future<Output = ()>) -> io::Result<()> {
    let service = OperationsServer::new(Answerer).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let server = Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(service);
    let incoming = TcpListenerStream::new(listener);
    let ended = server.serve_with_incoming_shutdown(incoming, stop).await;
    ended.map_err(io::Error::other)
}

/// Answers every operation at once, as a node would that had nothing to do for it.
struct Answerer;

#[tonic::async_trait]
impl Operations for Answerer {
    type SubmitStreamStream = Pin<Box<dyn Stream<Item = Result<SubmitStreamResponse, Status>> + Send>>;

    async fn submit_client_request(
        &self,
        _: Request<SubmitClientRequestRequest>,
    ) -> Result<Response<SubmitClientRequestResponse>, Status> {
        Ok(Response::new(SubmitClientRequestResponse {
            leader_address: "127.0.0.1:5001".to_owned(),
            ..Default::default()
        }))
    }

    async fn submit_stream(
        &self,
        _: Request<Streaming<SubmitStreamRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        Err(only_echo())
    }

    async fn open_session(
        &self,
        _: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        Err(only_echo())
    }

    async fn query(&self, _: Request<QueryRequest>) -> Result<Response<QueryResponse>, Status> {
        Err(only_echo())
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Err(only_echo())
    }
}

fn only_echo() -> Status {
    Status::unimplemented("only the echo is served here")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{Bare, Connection as _};

    #[tokio::test]
    async fn an_echo_answers_the_longest_operation_and_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, async { drop(stopped.await) }));
        let bare = Bare::connect(address).await.unwrap();
        bare.write(Bytes::from(vec![0; raftlog_proto::OPERATION_BYTES_MAX]))
            .await
            .unwrap();
        drop((bare, stop));
        server.await.unwrap().unwrap();
    }
}
