//! The service Cluster: for raftctl, the operator, and nodes that form a cluster.

use std::sync::Arc;
use std::time::Duration;

use raftlog_proto::v1::{self, cluster_client::ClusterClient, cluster_server::Cluster};
use raftlog_proto::{error, reason};
use raftlog_raft::ids::{ClusterId, MemberId};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::config::Config;
use crate::connect;
use crate::deadline;
use crate::download;
use crate::forward;
use crate::handle::{Command, Handle};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::node::{Leader, MembershipRefusal, Role, TakenSnapshot};
use crate::refusal;
use crate::status_watch;
use crate::wire;

/// How long a snapshot may take at most, and where the caller says nothing.
const SNAPSHOT_WITHIN_MAX: Duration = Duration::from_hours(1);

/// Cluster, served.
#[derive(Clone)]
pub(crate) struct ClusterService {
    pub(crate) config: Arc<Config>,
    pub(crate) core: Handle,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) metrics: Metrics,
    /// One permit for each download under way.
    pub(crate) downloads: Arc<Semaphore>,
}

impl ClusterService {
    async fn transfer(
        &self,
        node: u32,
        forwarded: bool,
        timeout: Option<Duration>,
    ) -> Result<v1::TransferLeadershipResponse, Status> {
        let status = self.core.published();
        match (&status.leader, status.role) {
            (_, Role::Leader) => {
                let target = (node != 0).then_some(node);
                let transferred = self.core.transfer(target).await.map_err(refusal::transfer)?;
                Ok(v1::TransferLeadershipResponse {
                    leader: Some(wire::leader_to_wire(&transferred.leader)),
                    term: transferred.term,
                })
            }
            (Some(leader), _) if !forwarded => {
                let (address, mut client) = self.client_of(leader).await?;
                let request =
                    forward::request(v1::TransferLeadershipRequest { node }, self.config.node, timeout);
                let answer = client.transfer_leadership(request).await;
                answer
                    .map(Response::into_inner)
                    .map_err(|status| forward::failure(&address, &status))
            }
            (leader, _) => Err(refusal::no_leader(leader.as_ref())),
        }
    }

    async fn change(
        &self,
        request: v1::ChangeMembershipRequest,
        forwarded: bool,
        timeout: Option<Duration>,
    ) -> Result<v1::ChangeMembershipResponse, Status> {
        let status = self.core.published();
        match (&status.leader, status.role) {
            (_, Role::Leader) => {
                let change = wire::membership_change_from_wire(0, request)
                    .map_err(|why| refusal::membership(MembershipRefusal::Invalid(why.to_string())))?;
                let changed = self.core.change_membership(change).await;
                let configuration = changed.map_err(refusal::membership)?;
                Ok(v1::ChangeMembershipResponse {
                    configuration: Some(wire::configuration_to_wire(&configuration)),
                })
            }
            (Some(leader), _) if !forwarded => {
                let (address, mut client) = self.client_of(leader).await?;
                let request = forward::request(request, self.config.node, timeout);
                let answer = client.change_membership(request).await;
                answer
                    .map(Response::into_inner)
                    .map_err(|status| forward::failure(&address, &status))
            }
            (leader, _) => Err(refusal::no_leader(leader.as_ref())),
        }
    }

    /// A connection to the leader's own service, and where that is.
    async fn client_of(&self, leader: &Leader) -> Result<(String, ClusterClient<Channel>), Status> {
        let status = self.core.published();
        let member = status.configuration.member(leader.member_id);
        let address = member
            .map(|member| member.peer_address.clone())
            .ok_or_else(|| refusal::no_leader(None))?;
        let channel = connect::connect(&address, self.config.election_timeout_min)
            .await
            .map_err(|why| {
                let message = format!(
                    "Leader {} at {address} cannot be reached: {why}; try again later",
                    leader.node
                );
                error::status(Code::Unavailable, reason::NO_LEADER, message)
            })?;
        Ok((address, ClusterClient::new(channel)))
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn bootstrap(
        &self,
        request: Request<v1::BootstrapRequest>,
    ) -> Result<Response<v1::BootstrapResponse>, Status> {
        let request = request.into_inner();
        let malformed = |field| Status::invalid_argument(format!("bad {field}: it must not be 0"));
        let cluster_id = ClusterId::new(request.cluster_id).ok_or_else(|| malformed("cluster_id"))?;
        let to_member = MemberId::new(request.to_member).ok_or_else(|| malformed("to_member"))?;
        let members = wire::members_from_wire(request.members)?;
        let (answer, result) = oneshot::channel();
        self.core
            .command(Command::Bootstrap {
                cluster_id,
                to_member,
                members,
                answer,
            })
            .await;
        match result.await {
            Ok(Ok(())) => Ok(Response::new(v1::BootstrapResponse {})),
            Ok(Err(refused)) => Err(refusal::bootstrap(refused)),
            Err(_) => Err(Status::unavailable("the node is stopping")),
        }
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let (timeout, forwarded) = (
            deadline::of(request.metadata()),
            forward::is_forwarded(request.metadata()),
        );
        let transfer = self.transfer(request.into_inner().node, forwarded, timeout);
        let longest = timeout.unwrap_or(Duration::MAX);
        match tokio::time::timeout(longest, transfer).await {
            Ok(result) => result.map(Response::new),
            Err(_) => Err(Status::deadline_exceeded(
                "no new leader was seen within the deadline",
            )),
        }
    }

    async fn change_membership(
        &self,
        request: Request<v1::ChangeMembershipRequest>,
    ) -> Result<Response<v1::ChangeMembershipResponse>, Status> {
        let (timeout, forwarded) = (
            deadline::of(request.metadata()),
            forward::is_forwarded(request.metadata()),
        );
        let change = self.change(request.into_inner(), forwarded, timeout);
        let longest = timeout.unwrap_or(Duration::MAX);
        match tokio::time::timeout(longest, change).await {
            Ok(result) => result.map(Response::new),
            Err(_) => Err(Status::deadline_exceeded(
                "the change was not complete within the deadline; the same call again finds out",
            )),
        }
    }

    async fn take_snapshot(
        &self,
        request: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        let within = deadline::of(request.metadata()).unwrap_or(SNAPSHOT_WITHIN_MAX);
        let taken = self.core.take_snapshot(within.min(SNAPSHOT_WITHIN_MAX)).await;
        let TakenSnapshot { manifest, place } = taken.map_err(refusal::snapshot)?;
        Ok(Response::new(v1::TakeSnapshotResponse {
            snapshot: Some(wire::manifest_to_wire(manifest)),
            index: place.index,
            term: place.term,
            running_hash: place.running_hash,
        }))
    }

    type DownloadSnapshotStream = ReceiverStream<Result<v1::DownloadSnapshotResponse, Status>>;

    async fn download_snapshot(
        &self,
        request: Request<v1::DownloadSnapshotRequest>,
    ) -> Result<Response<Self::DownloadSnapshotStream>, Status> {
        let from = wire::download_from_wire(&request.into_inner())?;
        let permit = Arc::clone(&self.downloads).try_acquire_owned();
        let permit = permit.map_err(|_| refusal::backpressure())?;
        let (responses, outgoing) = mpsc::channel(1);
        tokio::spawn(download::run(self.clone(), from, responses, permit));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    type WatchStatusStream = ReceiverStream<Result<v1::WatchStatusResponse, Status>>;

    async fn watch_status(
        &self,
        request: Request<v1::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let (responses, outgoing) = mpsc::channel(1);
        let interval = request.into_inner().minimum_interval_milliseconds;
        tokio::spawn(status_watch::run(self.clone(), interval, responses));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}
