//! The service Operations: what clients ask of any node.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftlog_proto::v1::{self, operations_client::OperationsClient, operations_server::Operations};
use raftlog_proto::{MESSAGE_BYTES_MAX, error, reason};
use raftlog_raft::ids::OperationIndex;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::config::Config;
use crate::deadline;
use crate::forward::{self, Forwarder};
use crate::handle::Handle;
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::lines::{Forward, Stories, Submit};
use crate::metrics::Metrics;
use crate::node::{Committed, Leader, Proposed, Refusal, Role};
use crate::operation;
use crate::refusal;
use crate::results::Results;
use crate::wire;

/// Operations up to this length are copied out of the buffer they came in.
const COPIED_BYTES_MAX: usize = 32 << 10;

/// Operations, served. Clones share everything.
#[derive(Clone)]
pub(crate) struct OperationsService {
    pub(crate) config: Arc<Config>,
    pub(crate) core: Handle,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) stories: Stories,
    pub(crate) executed: watch::Receiver<OperationIndex>,
    pub(crate) results: Results,
    pub(crate) lifecycle: Lifecycle,
}

/// Who decides about a request.
pub(crate) enum Decider {
    ThisNode,
    Leader(Leader),
}

impl OperationsService {
    /// Who decides now. A request that was forwarded once is not forwarded again.
    pub(crate) fn decider(&self, forwarded: bool) -> Result<Decider, Status> {
        let status = self.core.published();
        match (&status.leader, status.role) {
            (_, Role::Leader) => Ok(Decider::ThisNode),
            (Some(leader), _) if !forwarded && leader.member_id != status.member_id => {
                Ok(Decider::Leader(leader.clone()))
            }
            (leader, _) => Err(refusal::no_leader(leader.as_ref())),
        }
    }

    /// Another leader to try, if this node turned out not to lead.
    fn other_leader(refused: &Refusal, forwarded: bool) -> Option<Leader> {
        match refused {
            Refusal::NotLeader { leader } if !forwarded => leader.clone(),
            _ => None,
        }
    }

    pub(crate) fn say(&self, method: &'static str) {
        self.stories.submit.say(Submit {
            node: self.config.node,
            method,
        });
    }

    pub(crate) fn client(&self, leader: &Leader) -> Result<OperationsClient<Channel>, Status> {
        self.stories.forward.say(Forward {
            node: self.config.node,
            leader: leader.node,
        });
        self.metrics.forwards.inc();
        let channel = self.forwarder.channel(&leader.client_address)?;
        Ok(OperationsClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    async fn submit(
        &self,
        request: v1::SubmitClientRequestRequest,
        forwarded: bool,
        timeout: Option<Duration>,
    ) -> Result<v1::SubmitClientRequestResponse, Status> {
        let (data, client_id) = (unshared(&request.operation), &request.client_id);
        let operation = operation::checked(data, client_id, request.sequence, request.acknowledged_through)?;
        let wait_for = v1::WaitFor::try_from(request.wait_for)
            .map_err(|_| operation::invalid(format!("wait_for {} is unknown", request.wait_for)))?;
        let taken = self
            .limits
            .try_take(operation.data.len())
            .ok_or_else(refusal::backpressure)?;
        let leader = match self.decider(forwarded)? {
            Decider::Leader(leader) => leader,
            Decider::ThisNode => match self.core.submit(Proposed::Operation(operation)).await {
                Ok(committed) => {
                    // Who waits for its result holds up nobody else: an executor may take long.
                    drop(taken);
                    return self.committed(&committed, wait_for).await;
                }
                Err(refused) => {
                    Self::other_leader(&refused, forwarded).ok_or_else(|| refusal::proposal(refused))?
                }
            },
        };
        // Boxed: it is many times larger than all else of a call, and few calls come here.
        Box::pin(self.forward_submit(leader, request, timeout)).await
    }

    async fn forward_submit(
        &self,
        leader: Leader,
        request: v1::SubmitClientRequestRequest,
        timeout: Option<Duration>,
    ) -> Result<v1::SubmitClientRequestResponse, Status> {
        let mut client = self.client(&leader)?;
        let request = forward::request(request, self.config.node, timeout);
        let response = self
            .forwarder
            .answer(&leader, client.submit_client_request(request))
            .await?;
        Ok(response.into_inner())
    }

    async fn committed(
        &self,
        committed: &Committed,
        wait_for: v1::WaitFor,
    ) -> Result<v1::SubmitClientRequestResponse, Status> {
        let result = match wait_for {
            v1::WaitFor::Committed => None,
            v1::WaitFor::Executed => self.result(committed.operation_index).await?,
        };
        let result_available = result.is_some();
        Ok(v1::SubmitClientRequestResponse {
            index: committed.operation_index,
            term: committed.term,
            leader_node: self.config.node,
            leader_address: self.config.client_address.clone(),
            result: result.unwrap_or_default(),
            result_available,
        })
    }

    /// What came of a committed operation, once this node's replicator has executed it.
    async fn result(&self, index: OperationIndex) -> Result<Option<Bytes>, Status> {
        let Some(answered) = self.results.of(index) else {
            return Err(not_executed(
                "too many wait for what comes of theirs already, or have waited: its executor is far behind",
            ));
        };
        answered.await.map_err(|_| not_executed("the node is stopping"))
    }

    /// Waits until this node's replicator has executed up to there.
    pub(crate) async fn executed(&self, index: OperationIndex) -> Result<(), Status> {
        let mut executed = self.executed.clone();
        match executed.wait_for(|&executed| executed >= index).await {
            Ok(_) => Ok(()),
            Err(_) => Err(not_executed("the node is stopping")),
        }
    }

    async fn open(
        &self,
        forwarded: bool,
        timeout: Option<Duration>,
    ) -> Result<v1::OpenSessionResponse, Status> {
        let leader = match self.decider(forwarded)? {
            Decider::Leader(leader) => leader,
            Decider::ThisNode => match self.core.submit(Proposed::OpenSession).await {
                Ok(opened) => {
                    let client_id = opened.session_id();
                    return Ok(v1::OpenSessionResponse { client_id });
                }
                Err(refused) => {
                    Self::other_leader(&refused, forwarded).ok_or_else(|| refusal::proposal(refused))?
                }
            },
        };
        let mut client = self.client(&leader)?;
        let request = forward::request(v1::OpenSessionRequest {}, self.config.node, timeout);
        Ok(self
            .forwarder
            .answer(&leader, client.open_session(request))
            .await?
            .into_inner())
    }

    /// Bounds a call by its caller's deadline, and counts its refusal.
    async fn bounded<T>(
        &self,
        timeout: Option<Duration>,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<Response<T>, Status> {
        let result = match timeout {
            None => call.await,
            Some(timeout) => match tokio::time::timeout(timeout, call).await {
                Ok(result) => result,
                Err(_) => Err(Status::deadline_exceeded(
                    "no answer within the deadline: the outcome is unknown; retry with the same session and sequence",
                )),
            },
        };
        result
            .map(Response::new)
            .inspect_err(|status| self.metrics.refused(status))
    }
}

/// A short operation in a buffer of its own: the one it came in is many times longer, and would be kept for as long as the
/// log keeps the operation in memory.
fn unshared(operation: &Bytes) -> Bytes {
    if operation.len() <= COPIED_BYTES_MAX {
        Bytes::copy_from_slice(operation)
    } else {
        operation.clone()
    }
}

fn not_executed(why: &str) -> Status {
    error::status(
        Code::Aborted,
        reason::NOT_EXECUTED,
        format!("committed, but not known to be executed: {why}"),
    )
}

#[tonic::async_trait]
impl Operations for OperationsService {
    async fn submit_client_request(
        &self,
        request: Request<v1::SubmitClientRequestRequest>,
    ) -> Result<Response<v1::SubmitClientRequestResponse>, Status> {
        self.say("SubmitClientRequest");
        let (timeout, forwarded) = (
            deadline::of(request.metadata()),
            forward::is_forwarded(request.metadata()),
        );
        self.bounded(timeout, self.submit(request.into_inner(), forwarded, timeout))
            .await
    }

    type SubmitStreamStream = ReceiverStream<Result<v1::SubmitStreamResponse, Status>>;

    async fn submit_stream(
        &self,
        request: Request<Streaming<v1::SubmitStreamRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        self.say("SubmitStream");
        let forwarded = forward::is_forwarded(request.metadata());
        let responses = self.clone().stream(request.into_inner(), forwarded);
        Ok(Response::new(responses))
    }

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        self.say("OpenSession");
        let (timeout, forwarded) = (
            deadline::of(request.metadata()),
            forward::is_forwarded(request.metadata()),
        );
        self.bounded(timeout, self.open(forwarded, timeout)).await
    }

    async fn query(&self, request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryResponse>, Status> {
        self.say("Query");
        let timeout = deadline::of(request.metadata());
        self.timed_query(request.into_inner(), timeout)
            .await
            .map(Response::new)
    }

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let status = self.core.status().await;
        let status = wire::status_to_wire(&status, &self.config, self.lifecycle.is_stopping());
        Ok(Response::new(v1::GetStatusResponse { status: Some(status) }))
    }
}
