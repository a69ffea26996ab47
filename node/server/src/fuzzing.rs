//! For fuzz targets outside of this crate: what arrives over sockets, decoded as the services do it, on its way to the
//! [`crate::node`]. `None` where the services refuse it.

use bytes::Bytes;
use prost::Message as _;
use raftlog_proto::v1;
use raftlog_raft::entry::Operation;
use raftlog_raft::ids::{ClusterId, MemberId};
use raftlog_raft::membership::Member;
use raftlog_raft::message::Message;

use crate::node::{FromReplicator, PeerReport};
use crate::{operation, wire};

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
}

/// A message to `to` whose header says that it comes from `from`.
pub fn peer_message(kind: PeerMessage, from: MemberId, to: MemberId, bytes: Bytes) -> Option<Message> {
    match kind {
        PeerMessage::RequestVote => {
            let request = v1::RequestVoteRequest::decode(bytes).ok()?;
            wire::request_vote_from_wire(from, to, &request).ok()
        }
        PeerMessage::Vote => {
            let response = v1::RequestVoteResponse::decode(bytes).ok()?;
            wire::vote_from_wire(from, to, &response).ok()
        }
        PeerMessage::AppendEntries => {
            let request = v1::AppendEntriesRequest::decode(bytes).ok()?;
            wire::append_entries_from_wire(from, to, request).ok()
        }
        PeerMessage::AppendEntriesResponse => {
            let response = v1::AppendEntriesResponse::decode(bytes).ok()?;
            wire::append_response_from_wire(from, to, response).ok()
        }
        PeerMessage::TimeoutNow => {
            let request = v1::TimeoutNowRequest::decode(bytes).ok()?;
            wire::timeout_now_from_wire(from, to, &request).ok()
        }
    }
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
