//! The service Raft: what other members say to this one.

use raftlog_proto::v1::install_snapshot_request::Part;
use raftlog_proto::v1::{self, raft_server::Raft};
use raftlog_raft::ids::MemberId;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::handle::{Command, Handle};
use crate::header;
use crate::lifecycle::Lifecycle;
use crate::lines;
use crate::metrics::{Metrics, Reason};
use crate::node::Input;
use crate::snapshot_stream;
use crate::wire;

/// Responses that wait for a leader to read them at most.
const QUEUED_RESPONSES_MAX: usize = 256;

/// Raft, served.
#[derive(Clone)]
pub(crate) struct RaftService {
    pub(crate) core: Handle,
    pub(crate) metrics: Metrics,
    pub(crate) lifecycle: Lifecycle,
}

impl RaftService {
    /// Sender and addressee of a message that is for this member.
    fn check(&self, header: Option<&v1::Header>) -> Result<(MemberId, MemberId), Status> {
        let own = self.core.published();
        match header::check(header, own.cluster_id, own.member_id) {
            Ok(from) => Ok((from, own.member_id)),
            Err(mismatch) => {
                let reason = mismatch.reason().to_owned();
                self.metrics
                    .messages_refused
                    .get_or_create(&Reason { reason })
                    .inc();
                Err(mismatch.into())
            }
        }
    }

    fn malformed(&self, error: wire::Malformed) -> Status {
        self.metrics
            .messages_refused
            .get_or_create(&Reason {
                reason: "MALFORMED".into(),
            })
            .inc();
        error.into()
    }

    /// A node that was added to a cluster hears of it from the leader. It takes its place before anything else, and until
    /// that is on disk the leader is refused and tries again.
    async fn accept_invitation(&self, request: &v1::AppendEntriesRequest) -> Result<(), Status> {
        let own = self.core.published();
        if own.cluster_id.is_some() || request.bootstrap.is_empty() {
            return Ok(());
        }
        if let Some(cluster_id) = header::inviting_cluster(request.header.as_ref(), own.member_id) {
            let bootstrap =
                wire::members_from_wire(request.bootstrap.clone()).map_err(|error| self.malformed(error))?;
            let level =
                wire::level_from_wire(request.header.as_ref()).map_err(|error| self.malformed(error))?;
            self.core
                .input(Input::Invited {
                    cluster_id,
                    bootstrap,
                    level,
                })
                .await;
        }
        Ok(())
    }

    async fn take_append(&self, request: v1::AppendEntriesRequest) -> Result<MemberId, Status> {
        self.accept_invitation(&request).await?;
        let (from, to) = self.check(request.header.as_ref())?;
        if request.heartbeat {
            let own = self.core.published();
            lines::runs_append_entries(own.node, lines::called(&own.configuration, from));
        }
        let message =
            wire::append_entries_from_wire(from, to, request).map_err(|error| self.malformed(error))?;
        self.core.input(Input::Message(message)).await;
        Ok(from)
    }

    /// Takes one message of a leader's snapshot in; `leader` is whose stream this is, once that is known.
    async fn take_snapshot_part(
        &self,
        request: v1::InstallSnapshotRequest,
        leader: &mut Option<MemberId>,
        responses: &mpsc::Sender<Result<v1::InstallSnapshotResponse, Status>>,
    ) -> Result<(), Status> {
        let (from, to) = self.check(request.header.as_ref())?;
        if *leader.get_or_insert(from) != from {
            return Err(Status::invalid_argument("one stream speaks for one member"));
        }
        let is_offer = matches!(request.part, Some(Part::Offer(_)));
        let bytes = snapshot_stream::data_bytes(&request);
        let message =
            wire::install_snapshot_from_wire(from, to, request).map_err(|error| self.malformed(error))?;
        if is_offer {
            let own = self.core.published();
            lines::runs_install_snapshot(own.node, lines::called(&own.configuration, from));
            self.core
                .command(Command::ListensForSnapshotResponses {
                    member: from,
                    responses: responses.downgrade(),
                })
                .await;
        }
        self.metrics.snapshot_bytes_received.inc_by(bytes);
        self.core.input(Input::InstallSnapshot(message)).await;
        Ok(())
    }

    async fn take_snapshot(
        self,
        mut requests: Streaming<v1::InstallSnapshotRequest>,
        responses: mpsc::Sender<Result<v1::InstallSnapshotResponse, Status>>,
    ) {
        let mut leader = None;
        loop {
            let request = tokio::select! {
                () = self.lifecycle.drain.cancelled() => return,
                () = responses.closed() => return,
                request = requests.message() => request,
            };
            let taken = match request {
                Ok(Some(request)) => self.take_snapshot_part(request, &mut leader, &responses).await,
                Ok(None) => return,
                Err(status) => Err(status),
            };
            if let Err(refused) = taken {
                // The stream ends with it; whoever opened it may have gone.
                let _ = responses.send(Err(refused)).await;
                return;
            }
        }
    }

    async fn take_appends(
        self,
        mut requests: Streaming<v1::AppendEntriesRequest>,
        responses: mpsc::Sender<Result<v1::AppendEntriesResponse, Status>>,
    ) {
        let mut leader = None;
        loop {
            let request = tokio::select! {
                () = self.lifecycle.drain.cancelled() => return,
                () = responses.closed() => return,
                request = requests.message() => request,
            };
            let taken = match request {
                Ok(Some(request)) => {
                    if leader.is_none()
                        && let Ok((from, _)) = self.check(request.header.as_ref())
                    {
                        leader = Some(from);
                        let responses = responses.downgrade();
                        self.core
                            .command(Command::ListensForResponses {
                                member: from,
                                responses,
                            })
                            .await;
                    }
                    self.take_append(request).await
                }
                Ok(None) => return,
                Err(status) => Err(status),
            };
            let refused = match taken {
                Ok(from) if Some(from) == leader => continue,
                Ok(_) => Status::invalid_argument("one stream speaks for one member"),
                Err(status) => status,
            };
            // The stream ends with it; whoever opened it may have gone.
            let _ = responses.send(Err(refused)).await;
            return;
        }
    }
}

#[tonic::async_trait]
impl Raft for RaftService {
    async fn request_vote(
        &self,
        request: Request<v1::RequestVoteRequest>,
    ) -> Result<Response<v1::RequestVoteResponse>, Status> {
        let request = request.into_inner();
        let (from, to) = self.check(request.header.as_ref())?;
        let own = self.core.published();
        lines::runs_request_vote(own.node, lines::called(&own.configuration, from));
        let message =
            wire::request_vote_from_wire(from, to, &request).map_err(|error| self.malformed(error))?;
        let (answer, vote) = oneshot::channel();
        self.core.command(Command::RequestVote { message, answer }).await;
        let vote = vote
            .await
            .map_err(|_| Status::aborted("a later request took this one's place"))?;
        Ok(Response::new(vote))
    }

    type AppendEntriesStream = ReceiverStream<Result<v1::AppendEntriesResponse, Status>>;

    async fn append_entries(
        &self,
        request: Request<Streaming<v1::AppendEntriesRequest>>,
    ) -> Result<Response<Self::AppendEntriesStream>, Status> {
        let (responses, outgoing) = mpsc::channel(QUEUED_RESPONSES_MAX);
        tokio::spawn(self.clone().take_appends(request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    type InstallSnapshotStream = ReceiverStream<Result<v1::InstallSnapshotResponse, Status>>;

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::InstallSnapshotRequest>>,
    ) -> Result<Response<Self::InstallSnapshotStream>, Status> {
        let (responses, outgoing) = mpsc::channel(QUEUED_RESPONSES_MAX);
        tokio::spawn(self.clone().take_snapshot(request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn timeout_now(
        &self,
        request: Request<v1::TimeoutNowRequest>,
    ) -> Result<Response<v1::TimeoutNowResponse>, Status> {
        let request = request.into_inner();
        let (from, to) = self.check(request.header.as_ref())?;
        let message =
            wire::timeout_now_from_wire(from, to, &request).map_err(|error| self.malformed(error))?;
        self.core.input(Input::Message(message)).await;
        Ok(Response::new(v1::TimeoutNowResponse {}))
    }

    async fn compare_hash(
        &self,
        request: Request<v1::CompareHashRequest>,
    ) -> Result<Response<v1::CompareHashResponse>, Status> {
        let request = request.into_inner();
        let (from, to) = self.check(request.header.as_ref())?;
        let message =
            wire::compare_hash_from_wire(from, to, &request).map_err(|error| self.malformed(error))?;
        let (answer, compared) = oneshot::channel();
        self.core.command(Command::CompareHash { message, answer }).await;
        // Who does not hold that entry says nothing, and the caller's patience ends.
        let compared = compared
            .await
            .map_err(|_| Status::aborted("a later request took this one's place"))?;
        Ok(Response::new(compared))
    }
}
