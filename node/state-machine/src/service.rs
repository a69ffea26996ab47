//! The service `StateMachine`.

use std::pin::Pin;

use raftlog_proto::v1::state_machine_server::StateMachine;
use raftlog_proto::v1::{
    ApplyRequest, ApplyResponse, RestoreRequest, RestoreResponse, StateMachineQueryRequest,
    StateMachineQueryResponse, StateMachineSnapshotRequest, StateMachineSnapshotResponse,
};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::failure::stopping;
use crate::restore::{self, Pieces};
use crate::worker::{Call, Worker};
use crate::{apply, snapshot};

/// Responses that wait for flow control.
const RESPONSES_MAX: usize = 4;

/// See [`StateMachine`].
pub(crate) struct Service(pub(crate) Worker);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl StateMachine for Service {
    type ApplyStream = Answers<ApplyResponse>;
    type SnapshotStream = Answers<StateMachineSnapshotResponse>;

    async fn apply(
        &self,
        request: Request<Streaming<ApplyRequest>>,
    ) -> Result<Response<Self::ApplyStream>, Status> {
        let (responses, queue) = mpsc::channel(RESPONSES_MAX);
        tokio::spawn(apply::run(self.0.clone(), request.into_inner(), responses));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn snapshot(
        &self,
        _: Request<StateMachineSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let taken = self.0.ask(Call::Snapshot).await.map_err(|_| stopping())?;
        let (position, snapshot) = taken.map_err(|failed| failed.status())?;
        let pieces = snapshot::write(position, snapshot)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(pieces))))
    }

    async fn restore(
        &self,
        request: Request<Streaming<RestoreRequest>>,
    ) -> Result<Response<RestoreResponse>, Status> {
        let mut requests = request.into_inner();
        let (position, size) = restore::header(&mut requests).await?;
        let (pieces, sender) = Pieces::new(size);
        tokio::spawn(restore::pass_on(requests, sender));
        let restored = self.0.ask(|answer| Call::Restore {
            position,
            pieces,
            answer,
        });
        let restored = restored.await.map_err(|_| stopping())?;
        restored.map_err(|failed| failed.status())?;
        Ok(Response::new(RestoreResponse {}))
    }

    async fn query(
        &self,
        request: Request<StateMachineQueryRequest>,
    ) -> Result<Response<StateMachineQueryResponse>, Status> {
        let query = request.into_inner().query;
        let asked = self.0.ask(|answer| Call::Query(query, answer));
        let (position, result) = asked.await.map_err(|_| stopping())?;
        let result = result.map_err(|error| error.status())?.into();
        Ok(Response::new(StateMachineQueryResponse {
            result,
            applied_index: position.applied_index,
        }))
    }
}
