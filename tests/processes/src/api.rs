//! gRPC calls straight through the generated clients: no retries and no cleverness between a test and the contract.

use crate::address::Address;
use crate::history::Logged;
use bytes::Bytes;
use raftlog_proto::MESSAGE_BYTES_MAX;
use raftlog_proto::v1::operation_log_client::OperationLogClient;
use raftlog_proto::v1::operations_client::OperationsClient;
use raftlog_proto::v1::{
    GetStatusRequest, NodeStatus, QueryRequest, QueryResponse, ReadRequest, SubmitClientRequestRequest,
    SubmitClientRequestResponse,
};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// How long one call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection, made when it is first used and again whenever it broke.
///
/// # Panics
/// Never: the address is well-formed.
pub fn channel(at: impl Into<Address>) -> Channel {
    Endpoint::from_shared(format!("http://{}", at.into()))
        .expect("a well-formed address")
        .connect_timeout(Duration::from_secs(1))
        .connect_lazy()
}

/// The Operations service at that address.
pub fn operations(at: impl Into<Address>) -> OperationsClient<Channel> {
    OperationsClient::new(channel(at)).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// A call with [`CALL_TIMEOUT`], enforced on both sides: a stopped process answers nothing by itself.
///
/// # Errors
/// The server's, or `DEADLINE_EXCEEDED`.
pub async fn call<T>(answer: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL_TIMEOUT, answer).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// The status of the node at that address.
///
/// # Errors
/// When it does not answer.
pub async fn status(at: impl Into<Address>) -> Result<NodeStatus, Status> {
    status_from(&mut operations(at)).await
}

/// The same over a connection that is there.
///
/// # Errors
/// When it does not answer.
pub async fn status_from(client: &mut OperationsClient<Channel>) -> Result<NodeStatus, Status> {
    let answer = call(client.get_status(Request::new(GetStatusRequest {}))).await?;
    answer
        .status
        .ok_or_else(|| Status::internal("GetStatus answered without a status"))
}

/// Submits one operation without a session.
///
/// # Errors
/// What the server answers.
pub async fn submit(
    at: impl Into<Address>,
    operation: impl Into<Bytes>,
) -> Result<SubmitClientRequestResponse, Status> {
    let request = SubmitClientRequestRequest {
        operation: operation.into(),
        ..Default::default()
    };
    call(operations(at).submit_client_request(Request::new(request))).await
}

/// Submits one operation in a session.
///
/// # Errors
/// What the server answers.
pub async fn submit_in_session(
    port: u16,
    client_id: &str,
    sequence: u64,
    operation: impl Into<Bytes>,
) -> Result<SubmitClientRequestResponse, Status> {
    let request = SubmitClientRequestRequest {
        operation: operation.into(),
        client_id: client_id.to_owned(),
        sequence,
        ..Default::default()
    };
    call(operations(port).submit_client_request(Request::new(request))).await
}

/// Asks the executor of the log through that node.
///
/// # Errors
/// What the server answers.
pub async fn query(
    client: &mut OperationsClient<Channel>,
    query: &str,
    allow_stale: bool,
) -> Result<QueryResponse, Status> {
    let mut request = Request::new(QueryRequest {
        query: query.to_owned().into(),
        allow_stale,
    });
    request.set_timeout(CALL_TIMEOUT);
    call(client.query(request)).await
}

/// The `OperationLog` service at that address.
pub fn operation_log(at: impl Into<Address>) -> OperationLogClient<Channel> {
    OperationLogClient::new(channel(at)).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// Everything committed, by a linearizable read from the replicator at that address.
///
/// # Errors
/// What the server answers.
pub async fn read_log(at: impl Into<Address>) -> Result<Vec<Logged>, Status> {
    read_from(&mut operation_log(at), 1).await
}

/// Everything committed at or above `from_index`, by a linearizable read.
///
/// # Errors
/// What the server answers.
pub async fn read_from(
    client: &mut OperationLogClient<Channel>,
    from_index: u64,
) -> Result<Vec<Logged>, Status> {
    let request = ReadRequest {
        from_index,
        ..ReadRequest::default()
    };
    let mut stream = call(client.read(Request::new(request))).await?;
    let mut log = Vec::new();
    while let Some(message) = stream.message().await? {
        let operations = message.operations.into_iter();
        log.extend(operations.map(|operation| Logged {
            index: operation.index,
            term: operation.term,
            data: operation.data,
        }));
    }
    Ok(log)
}
