//! For fuzz targets and benchmarks outside of this crate: what arrives over sockets, decoded as the services do it, on its way
//! to the [`crate::node`]. `None` where the services refuse it.

use bytes::Bytes;
use prost::Message as _;
use raftlog_proto::v1;
use raftlog_raft::entry::Operation;
use raftlog_raft::feature::FeatureLevel;
use raftlog_raft::ids::{ClusterId, MemberId, Term};
use raftlog_raft::membership::Member;
use raftlog_raft::message::AppendEntries;

use crate::handle::Answered;
use crate::node::{Committed, FromReplicator, Input, MembershipChange, PeerReport, RequestId, SnapshotId};
use crate::runs::Reorder;
use crate::submit_stream::Requests;
use crate::{header, operation, wire};

/// What one member says to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerMessage {
    /// `RequestVoteRequest`.
    RequestVote,
    /// `RequestVoteResponse`.
    Vote,
    /// `AppendEntriesRequest`.
    AppendEntries,
    /// `AppendEntriesResponse`.
    AppendEntriesResponse,
    /// `TimeoutNowRequest`.
    TimeoutNow,
    /// `CompareHashRequest`.
    CompareHash,
    /// `CompareHashResponse`.
    Compared,
    /// `InstallSnapshotRequest`.
    InstallSnapshot,
    /// `InstallSnapshotResponse`.
    InstallSnapshotResponse,
}

/// A message to `to` whose header says that it comes from `from`.
pub fn peer_message(kind: PeerMessage, from: MemberId, to: MemberId, bytes: Bytes) -> Option<Input> {
    let message = match kind {
        PeerMessage::RequestVote => {
            let request = v1::RequestVoteRequest::decode(bytes).ok()?;
            wire::request_vote_from_wire(from, to, &request).ok()?
        }
        PeerMessage::Vote => {
            let response = v1::RequestVoteResponse::decode(bytes).ok()?;
            wire::vote_from_wire(from, to, &response).ok()?
        }
        PeerMessage::AppendEntries => {
            let request = v1::AppendEntriesRequest::decode(bytes).ok()?;
            wire::append_entries_from_wire(from, to, request).ok()?
        }
        PeerMessage::AppendEntriesResponse => {
            let response = v1::AppendEntriesResponse::decode(bytes).ok()?;
            wire::append_response_from_wire(from, to, response).ok()?
        }
        PeerMessage::TimeoutNow => {
            let request = v1::TimeoutNowRequest::decode(bytes).ok()?;
            wire::timeout_now_from_wire(from, to, &request).ok()?
        }
        PeerMessage::CompareHash => {
            let request = v1::CompareHashRequest::decode(bytes).ok()?;
            wire::compare_hash_from_wire(from, to, &request).ok()?
        }
        PeerMessage::Compared => {
            let response = v1::CompareHashResponse::decode(bytes).ok()?;
            wire::compared_from_wire(from, to, &response).ok()?
        }
        PeerMessage::InstallSnapshot => {
            let request = v1::InstallSnapshotRequest::decode(bytes).ok()?;
            let message = wire::install_snapshot_from_wire(from, to, request).ok()?;
            return Some(Input::InstallSnapshot(message));
        }
        PeerMessage::InstallSnapshotResponse => {
            let response = v1::InstallSnapshotResponse::decode(bytes).ok()?;
            let message = wire::snapshot_response_from_wire(from, to, response).ok()?;
            return Some(Input::InstallSnapshotResponse(message));
        }
    };
    Some(Input::Message(message))
}

/// An `AppendEntriesRequest` as it goes from one of the two to the other.
pub fn append_entries_bytes(
    cluster: ClusterId,
    (from, to): (MemberId, MemberId),
    term: Term,
    level: FeatureLevel,
    append: AppendEntries,
) -> Vec<u8> {
    let envelope = wire::Envelope {
        cluster,
        from,
        to,
        term,
        level,
    };
    wire::append_entries_to_wire(envelope, append).encode_to_vec()
}

/// An `AppendEntriesRequest` to the member `own`, which belongs to no cluster yet.
pub fn invitation(own: MemberId, bytes: Bytes) -> Option<Input> {
    let request = v1::AppendEntriesRequest::decode(bytes).ok()?;
    let cluster_id = header::inviting_cluster(request.header.as_ref(), own)?;
    let level = wire::level_from_wire(request.header.as_ref()).ok()?;
    let bootstrap = wire::members_from_wire(request.bootstrap).ok()?;
    Some(Input::Invited {
        cluster_id,
        bootstrap,
        level,
    })
}

/// A `DownloadSnapshotRequest`: of which snapshot, and from which offset on.
pub fn download_snapshot(bytes: Bytes) -> Option<(SnapshotId, u64)> {
    wire::download_from_wire(&v1::DownloadSnapshotRequest::decode(bytes).ok()?).ok()
}

/// A `ChangeMembershipRequest`.
pub fn change_membership(id: RequestId, bytes: Bytes) -> Option<MembershipChange> {
    let request = v1::ChangeMembershipRequest::decode(bytes).ok()?;
    wire::membership_change_from_wire(id, request).ok()
}

/// A `SubmitClientRequestRequest`.
pub fn operation(bytes: Bytes) -> Option<Operation> {
    let request = v1::SubmitClientRequestRequest::decode(bytes).ok()?;
    operation::checked(
        request.operation,
        &request.client_id,
        request.sequence,
        request.acknowledged_through,
    )
    .ok()
}

/// A `ReplicateLogResponse`.
pub fn from_replicator(bytes: Bytes) -> Option<FromReplicator> {
    wire::from_replicator(v1::ReplicateLogResponse::decode(bytes).ok()?).ok()
}

/// A `BootstrapRequest`.
pub fn bootstrap(bytes: Bytes) -> Option<(ClusterId, MemberId, Vec<Member>)> {
    let request = v1::BootstrapRequest::decode(bytes).ok()?;
    let cluster = ClusterId::new(request.cluster_id)?;
    let to_member = MemberId::new(request.to_member)?;
    Some((cluster, to_member, wire::members_from_wire(request.members).ok()?))
}

/// A `NodeStatus`, as a peer answers that is asked what it is.
pub fn peer_report(bytes: Bytes) -> Option<PeerReport> {
    wire::peer_report(v1::NodeStatus::decode(bytes).ok()?).ok()
}

/// What a `SubmitStream` carries, and the answers to it, without what is between them.
#[derive(Debug)]
pub struct Stream {
    requests: Requests,
    reorder: Reorder,
}

impl Stream {
    /// Begins with its first `SubmitStreamRequest`.
    pub fn begin(bytes: Bytes) -> Option<(Self, Vec<(u64, Operation)>)> {
        let first = v1::SubmitStreamRequest::decode(bytes).ok()?;
        let mut stream = Self {
            requests: Requests::begin(first.header.clone()).ok()?,
            reorder: Reorder::default(),
        };
        let taken = stream.take(first);
        Some((stream, taken))
    }

    /// A later one: its operations, each with its place in the stream, up to the first bad one.
    pub fn request(&mut self, bytes: Bytes) -> Option<Vec<(u64, Operation)>> {
        Some(self.take(v1::SubmitStreamRequest::decode(bytes).ok()?))
    }

    fn take(&mut self, request: v1::SubmitStreamRequest) -> Vec<(u64, Operation)> {
        let mut taken = Vec::new();
        // What is before a bad one stands.
        let _ = self
            .requests
            .take(request, |position, operation| taken.push((position, operation)));
        taken
    }

    /// The operation at that place is committed at this index. What the client is told with that: first index and count.
    pub fn committed(&mut self, position: u64, operation_index: u64) -> Vec<(u64, u64)> {
        let result = Ok(Committed {
            operation_index,
            log_index: operation_index,
            term: 1,
        });
        self.reorder.take(Answered { position, result });
        let runs = self.reorder.tell().runs.into_iter();
        runs.map(|run| (run.first_index, run.count)).collect()
    }
}
