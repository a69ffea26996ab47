//! Between the core's words and the messages of `raftlog.v1`.

use bytes::Bytes;
use raftlog_proto::error::status;
use raftlog_proto::v1::{self, replicate_log_request, replicate_log_response, start};
use raftlog_proto::{QUERY_BYTES_MAX, reason, v1::ReplicateLogResponse};
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber};
use tonic::Code;

use super::handle::NodeMessage;
use super::query::{Answer, Refused};
use crate::core::{Operation, Parent, Place, Position, Progress, ReadIndexId, Refusal, StartAction, Status};

/// Who opened a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) cluster: ClusterId,
    pub(super) member: MemberId,
    pub(super) node: NodeNumber,
    pub(super) parent: Option<Parent>,
    /// The node knows results and statuses of executors.
    pub(super) knows_executors: bool,
    /// The node says whether it leads.
    pub(super) knows_leaders: bool,
}

/// The first message of a stream.
pub(super) fn hello(message: &v1::ReplicateLogRequest) -> Result<Hello, tonic::Status> {
    use replicate_log_request::Message;
    let Some(Message::Hello(hello)) = &message.message else {
        return Err(invalid("the first message of ReplicateLog is hello"));
    };
    match (ClusterId::new(hello.cluster_id), MemberId::new(hello.member_id)) {
        (Some(cluster), Some(member)) if hello.node > 0 => Ok(Hello {
            cluster,
            member,
            node: hello.node,
            parent: hello.parent.and_then(|parent| {
                Some(Parent {
                    cluster: ClusterId::new(parent.cluster_id)?,
                    index: parent.index,
                    running_hash: parent.running_hash,
                })
            }),
            knows_executors: hello.protocol_version >= 1,
            knows_leaders: hello.protocol_version >= 2,
        }),
        _ => Err(invalid(
            "hello names no cluster, no member or no node: only a node of a formed cluster calls its replicator",
        )),
    }
}

/// Any later message of a stream.
pub(super) fn node_message(message: v1::ReplicateLogRequest) -> Result<NodeMessage, tonic::Status> {
    use replicate_log_request::Message;
    match message.message {
        Some(Message::Start(start)) => {
            let action = match start.action {
                Some(start::Action::ResumeFrom(index)) => StartAction::ResumeFrom(index),
                Some(start::Action::CutTo(index)) => StartAction::CutTo(index),
                Some(start::Action::WaitUntil(index)) => StartAction::WaitUntil(index),
                Some(start::Action::Restore(v1::Snapshot { place, size })) => StartAction::Restore {
                    place: place_of(place.ok_or_else(|| invalid("a snapshot to restore names no place"))?),
                    size,
                },
                None => return Err(invalid("start says neither resume, cut, wait nor restore")),
            };
            Ok(NodeMessage::Start {
                action,
                commit: start.commit_index,
            })
        }
        Some(Message::Feed(feed)) => Ok(NodeMessage::Feed {
            operations: feed.operations.into_iter().map(operation).collect(),
            commit: feed.commit_index,
        }),
        Some(Message::Restore(chunk)) if chunk.id == 0 && chunk.snapshot.is_none() => {
            Ok(NodeMessage::RestorePiece {
                offset: chunk.offset,
                data: chunk.data,
            })
        }
        Some(Message::Restore(_)) => Err(invalid(
            "a piece of a snapshot to restore has an id, or names the snapshot, which start has done",
        )),
        Some(Message::TakeSnapshot(order)) => Ok(NodeMessage::TakeSnapshot { id: order.id }),
        Some(Message::SnapshotKept(kept)) => Ok(NodeMessage::SnapshotKept { index: kept.index }),
        Some(Message::Leading(v1::Leading {
            leads,
            term,
            execute_after,
        })) => Ok(NodeMessage::Leading {
            leads: leads.then_some(term),
            execute_after,
        }),
        Some(Message::ReadIndex(answer)) => {
            let index = (!answer.refused).then_some(answer.index);
            Ok(NodeMessage::ReadIndexAnswer { id: answer.id, index })
        }
        Some(Message::Query(v1::Query { id, query })) if query.len() <= QUERY_BYTES_MAX => {
            Ok(NodeMessage::Query { id, query })
        }
        Some(Message::Query(_)) => Err(invalid("a query is too long")),
        Some(Message::ResultsWanted(v1::ResultsWanted { indexes })) => {
            Ok(NodeMessage::ResultsWanted { indexes })
        }
        Some(Message::Hello(_)) => Err(invalid("hello is the first message of ReplicateLog only")),
        None => Err(invalid("an empty message, or one of a newer version")),
    }
}

fn operation(operation: v1::ReplicatedOperation) -> Operation {
    let v1::ReplicatedOperation {
        index,
        term,
        running_hash,
        data,
    } = operation;
    Operation {
        index,
        term,
        running_hash,
        data,
    }
}

pub(super) fn position(position: &Position) -> ReplicateLogResponse {
    response(replicate_log_response::Message::Position(v1::Position {
        cluster_id: position.cluster.map_or(0, ClusterId::get),
        member_id: position.member.map_or(0, MemberId::get),
        first_index: position.first_index,
        last: Some(place(position.last)),
        commit: Some(place(position.commit)),
        executed: Some(place(position.executed)),
        needs_state: position.needs_state,
        on_leader: position.on_leader,
    }))
}

fn place_of(place: v1::Place) -> Place {
    Place {
        index: place.index,
        term: place.term,
        running_hash: place.running_hash,
    }
}

/// A piece of the snapshot with that id; the first one says what it is of, and how long it is in all.
pub(super) fn snapshot_piece(
    id: u64,
    first: Option<(Place, u64)>,
    offset: u64,
    data: Bytes,
) -> ReplicateLogResponse {
    response(replicate_log_response::Message::Snapshot(v1::SnapshotChunk {
        id,
        snapshot: first.map(|(at, size)| v1::Snapshot {
            place: Some(place(at)),
            size,
        }),
        offset,
        data,
    }))
}

pub(super) fn executor(status: v1::ExecutorStatus) -> ReplicateLogResponse {
    response(replicate_log_response::Message::Executor(status))
}

pub(super) fn results(results: Vec<v1::OperationResult>) -> ReplicateLogResponse {
    response(replicate_log_response::Message::Results(v1::Results { results }))
}

fn place(place: Place) -> v1::Place {
    v1::Place {
        index: place.index,
        term: place.term,
        running_hash: place.running_hash,
    }
}

pub(super) fn progress(progress: Progress) -> ReplicateLogResponse {
    response(replicate_log_response::Message::Progress(v1::Progress {
        last_index: progress.last,
        commit_index: progress.commit,
        executed_index: progress.executed,
        durable_executed_index: progress.durable_executed,
        leading_term: progress.leading_term.unwrap_or(0),
    }))
}

pub(super) fn read_index(id: ReadIndexId) -> ReplicateLogResponse {
    response(replicate_log_response::Message::ReadIndex(v1::ReadIndexRequest {
        id: id.0,
    }))
}

pub(super) fn query_answer(id: u64, answer: Answer) -> ReplicateLogResponse {
    use v1::QueryRefusal as Why;
    let Answer { executed, result } = answer;
    let (result, refused) = match result {
        Ok(result) => (result, None),
        Err(refused) => {
            let (why, message) = match refused {
                Refused::Busy(message) => (Why::Busy, message),
                Refused::Invalid(message) => (Why::Invalid, message),
                Refused::OutOfRange(message) => (Why::OutOfRange, message),
                Refused::TooLong(message) => (Why::TooLong, message),
            };
            let why = why.into();
            (Bytes::new(), Some(v1::QueryRefused { why, message }))
        }
    };
    response(replicate_log_response::Message::Query(v1::QueryAnswer {
        id,
        index: executed.index,
        term: executed.term,
        result,
        refused,
    }))
}

fn response(message: replicate_log_response::Message) -> ReplicateLogResponse {
    ReplicateLogResponse {
        message: Some(message),
    }
}

/// For clients.
pub(super) fn logged(operation: Operation) -> v1::LoggedOperation {
    v1::LoggedOperation {
        index: operation.index,
        term: operation.term,
        data: operation.data,
        running_hash: operation.running_hash,
    }
}

/// For clients that compare replicas.
pub(super) fn log_status(status: &Status) -> v1::GetLogStatusResponse {
    v1::GetLogStatusResponse {
        cluster_id: status.cluster.map_or(0, ClusterId::get),
        node: status.node,
        first_index: status.first_index,
        commit_index: status.commit.index,
        commit_hash: status.commit.running_hash,
    }
}

/// How a node's stream ends.
pub(super) fn refused(refusal: &Refusal) -> tonic::Status {
    let (code, reason) = match refusal {
        Refusal::WrongCluster { .. } | Refusal::OtherPast { .. } => {
            (Code::FailedPrecondition, reason::WRONG_CLUSTER)
        }
        Refusal::WrongNode { .. } => (Code::FailedPrecondition, reason::WRONG_MEMBER),
        Refusal::Protocol { .. } => (Code::InvalidArgument, reason::INVALID_REQUEST),
        Refusal::NeedsState { .. } | Refusal::NotRestored { .. } => (Code::Aborted, reason::NO_SNAPSHOT),
        Refusal::Replaced { .. } => (Code::Aborted, reason::REPLACED),
        Refusal::Stopping => return stopping(),
    };
    status(code, reason, refusal.to_string())
}

pub(super) fn stopping() -> tonic::Status {
    status(
        Code::Unavailable,
        reason::STOPPING,
        "this replicator is stopping: call again later, or call another one",
    )
}

pub(super) fn invalid(why: &str) -> tonic::Status {
    status(Code::InvalidArgument, reason::INVALID_REQUEST, why)
}
