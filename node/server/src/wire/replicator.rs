//! Between a node and its replicator.

use std::sync::Arc;

use bytes::Bytes;
use raftlog_proto::RESULT_BYTES_MAX;
use raftlog_proto::v1::{self, replicate_log_request, replicate_log_response, start};
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, OperationIndex};

use super::Malformed;
use crate::node::{
    FromReplicator, Leading, Parent, Place, Position, Progress, QueryRefused, ReplicatedOperation,
    SnapshotChunk, StartAction, StateSnapshot, ToReplicator, WhyRefused,
};

/// 1: this node knows results and statuses of executors. 2: it says whether it leads.
const PROTOCOL_VERSION: u32 = 2;
/// Of a piece of a snapshot.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// Of the name of an executor.
const KIND_BYTES_MAX: usize = 32;
/// Of what an executor fails at.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// The first message of a stream.
pub(crate) fn hello(
    cluster: ClusterId,
    member: MemberId,
    node: NodeNumber,
    parent: Option<Parent>,
) -> v1::ReplicateLogRequest {
    let hello = v1::NodeHello {
        cluster_id: cluster.get(),
        member_id: member.get(),
        node,
        parent: parent.map(|parent| v1::Parent {
            cluster_id: parent.cluster.get(),
            index: parent.operation_index,
            running_hash: parent.running_hash,
        }),
        protocol_version: PROTOCOL_VERSION,
    };
    v1::ReplicateLogRequest {
        message: Some(replicate_log_request::Message::Hello(hello)),
    }
}

/// Why a stream has to end instead of taking another message, for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Another may begin at once.
    StartOver(String),
    /// The two do not belong together.
    Close(String),
}

/// A message to the replicator, unless it means that the stream has to end.
pub(crate) fn to_replicator(message: ToReplicator) -> Result<v1::ReplicateLogRequest, End> {
    use replicate_log_request::Message;
    let message = match message {
        ToReplicator::Start { action, commit } => {
            let action = match action {
                StartAction::ResumeFrom(index) => start::Action::ResumeFrom(index),
                StartAction::CutTo(index) => start::Action::CutTo(index),
                StartAction::WaitUntil(index) => start::Action::WaitUntil(index),
                StartAction::Restore(StateSnapshot { place, size }) => start::Action::Restore(v1::Snapshot {
                    place: Some(v1::Place {
                        index: place.index,
                        term: place.term,
                        running_hash: place.running_hash,
                    }),
                    size,
                }),
            };
            Message::Start(v1::Start {
                action: Some(action),
                commit_index: commit,
            })
        }
        ToReplicator::Feed { operations, commit } => Message::Feed(v1::Feed {
            operations: operations.into_iter().map(operation).collect(),
            commit_index: commit,
        }),
        ToReplicator::Leading(Leading { leads, execute_after }) => Message::Leading(v1::Leading {
            leads: leads.is_some(),
            term: leads.unwrap_or(0),
            execute_after,
        }),
        ToReplicator::ReadAnswer { id, index } => {
            let (index, refused) = (index.unwrap_or(0), index.is_none());
            Message::ReadIndex(v1::ReadIndexAnswer { id, index, refused })
        }
        ToReplicator::Query { id, query } => Message::Query(v1::Query { id, query }),
        ToReplicator::TakeSnapshot { id } => Message::TakeSnapshot(v1::TakeSnapshot { id }),
        ToReplicator::Restore { offset, data } => Message::Restore(v1::SnapshotChunk {
            id: 0,
            snapshot: None,
            offset,
            data,
        }),
        ToReplicator::SnapshotKept { index } => Message::SnapshotKept(v1::SnapshotKept { index }),
        ToReplicator::StartOver { why } => return Err(End::StartOver(why)),
        ToReplicator::Close { why } => return Err(End::Close(why)),
    };
    Ok(v1::ReplicateLogRequest {
        message: Some(message),
    })
}

/// A message from the replicator.
pub(crate) fn from_replicator(message: v1::ReplicateLogResponse) -> Result<FromReplicator, Malformed> {
    use replicate_log_response::Message;
    Ok(match message.message.ok_or(Malformed("message"))? {
        Message::Position(at) => FromReplicator::Position(Position {
            cluster_id: ClusterId::new(at.cluster_id),
            member_id: MemberId::new(at.member_id),
            first_index: at.first_index,
            last: place(at.last),
            commit: place(at.commit),
            executed: place(at.executed),
            needs_state: at.needs_state,
            on_leader: at.on_leader,
        }),
        Message::Progress(at) => FromReplicator::Progress(Progress {
            last_index: at.last_index,
            commit_index: at.commit_index,
            executed_index: at.executed_index,
            durable_executed_index: at.durable_executed_index,
            leading_term: Some(at.leading_term).filter(|term| *term > 0),
        }),
        Message::ReadIndex(request) => FromReplicator::ReadIndex { id: request.id },
        Message::Query(answer) if answer.result.len() > RESULT_BYTES_MAX => return Err(Malformed("result")),
        Message::Query(answer) => FromReplicator::QueryAnswer {
            id: answer.id,
            index: answer.index,
            term: answer.term,
            result: match answer.refused {
                None => Ok(answer.result),
                Some(refused) => Err(query_refused(refused)),
            },
        },
        Message::Snapshot(chunk) if chunk.data.len() > PIECE_BYTES_MAX => return Err(Malformed("data")),
        Message::Snapshot(chunk) => FromReplicator::Snapshot(SnapshotChunk {
            id: chunk.id,
            snapshot: chunk.snapshot.map(|snapshot| StateSnapshot {
                place: place(snapshot.place),
                size: snapshot.size,
            }),
            offset: chunk.offset,
            data: chunk.data,
        }),
        Message::Executor(status) => FromReplicator::Executor(Arc::new(executor(status))),
        // They go past the core.
        Message::Results(_) => return Err(Malformed("message")),
    })
}

/// What people are to read is cut to a length.
fn executor(mut status: v1::ExecutorStatus) -> v1::ExecutorStatus {
    cut(&mut status.kind, KIND_BYTES_MAX);
    if let Some(failure) = &mut status.failure {
        cut(&mut failure.message, MESSAGE_BYTES_MAX);
    }
    status
}

fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

/// Asks for the results of operations.
pub(crate) fn results_wanted(indexes: Vec<OperationIndex>) -> v1::ReplicateLogRequest {
    let wanted = v1::ResultsWanted { indexes };
    v1::ReplicateLogRequest {
        message: Some(replicate_log_request::Message::ResultsWanted(wanted)),
    }
}

/// What came of an operation; a result that is too long is none.
pub(crate) fn result(result: &v1::OperationResult) -> (OperationIndex, Option<&Bytes>) {
    let available = result.available && result.result.len() <= RESULT_BYTES_MAX;
    (result.index, available.then_some(&result.result))
}

fn query_refused(refused: v1::QueryRefused) -> QueryRefused {
    let why = match refused.why() {
        v1::QueryRefusal::Busy => WhyRefused::Busy,
        v1::QueryRefusal::Invalid => WhyRefused::Invalid,
        v1::QueryRefusal::OutOfRange => WhyRefused::OutOfRange,
        v1::QueryRefusal::TooLong => WhyRefused::TooLong,
    };
    let message = refused.message;
    QueryRefused { why, message }
}

/// An absent place is the one before the first operation.
fn place(place: Option<v1::Place>) -> Place {
    let place = place.unwrap_or_default();
    Place {
        index: place.index,
        term: place.term,
        running_hash: place.running_hash,
    }
}

fn operation(operation: ReplicatedOperation) -> v1::ReplicatedOperation {
    v1::ReplicatedOperation {
        index: operation.index,
        term: operation.term,
        running_hash: operation.running_hash,
        data: operation.data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_may_be_empty() {
        let empty = v1::Position::default();
        let message = Some(replicate_log_response::Message::Position(empty));
        let at = from_replicator(v1::ReplicateLogResponse { message }).unwrap();
        let FromReplicator::Position(at) = at else {
            panic!("{at:?}")
        };
        assert_eq!(
            (at.cluster_id, at.member_id, at.last),
            (None, None, Place::default())
        );
        assert!(from_replicator(v1::ReplicateLogResponse { message: None }).is_err());
    }

    #[test]
    fn an_answer_to_a_query_is_a_result_or_why_there_is_none() {
        let said = |answer| {
            let message = Some(replicate_log_response::Message::Query(answer));
            from_replicator(v1::ReplicateLogResponse { message })
        };
        let answer = |bytes: usize, why: Option<v1::QueryRefusal>| v1::QueryAnswer {
            id: 1,
            index: 7,
            term: 2,
            result: vec![b'x'; bytes].into(),
            refused: why.map(|why| v1::QueryRefused {
                why: why.into(),
                message: "no".into(),
            }),
        };
        let FromReplicator::QueryAnswer {
            id: 1,
            index: 7,
            term: 2,
            result,
        } = said(answer(3, None)).unwrap()
        else {
            panic!("not an answer")
        };
        assert_eq!(result, Ok("xxx".into()));
        for (wire, expected) in [
            (v1::QueryRefusal::Busy, WhyRefused::Busy),
            (v1::QueryRefusal::Invalid, WhyRefused::Invalid),
            (v1::QueryRefusal::OutOfRange, WhyRefused::OutOfRange),
            (v1::QueryRefusal::TooLong, WhyRefused::TooLong),
        ] {
            assert!(matches!(
                said(answer(0, Some(wire))).unwrap(),
                FromReplicator::QueryAnswer { result: Err(refused), .. } if refused.why == expected
            ));
        }
        assert!(said(answer(RESULT_BYTES_MAX, None)).is_ok());
        assert_eq!(said(answer(RESULT_BYTES_MAX + 1, None)), Err(Malformed("result")));
    }

    #[test]
    fn every_message_has_its_form() {
        use replicate_log_request::Message;
        let feed = ToReplicator::Feed {
            operations: vec![],
            commit: 4,
        };
        let wire = to_replicator(feed).unwrap().message;
        assert!(
            matches!(wire, Some(Message::Feed(v1::Feed { commit_index: 4, .. }))),
            "{wire:?}"
        );
        let wire = to_replicator(ToReplicator::ReadAnswer { id: 2, index: None })
            .unwrap()
            .message;
        let refused = v1::ReadIndexAnswer {
            id: 2,
            index: 0,
            refused: true,
        };
        assert_eq!(wire, Some(Message::ReadIndex(refused)));
        let start = ToReplicator::Start {
            action: StartAction::CutTo(7),
            commit: 9,
        };
        let expected = v1::Start {
            action: Some(start::Action::CutTo(7)),
            commit_index: 9,
        };
        assert_eq!(
            to_replicator(start).unwrap().message,
            Some(Message::Start(expected))
        );
        for (leads, term) in [(None, 0), (Some(3), 3)] {
            let said = ToReplicator::Leading(Leading {
                leads,
                execute_after: 5,
            });
            let expected = v1::Leading {
                leads: leads.is_some(),
                term,
                execute_after: 5,
            };
            assert_eq!(
                to_replicator(said).unwrap().message,
                Some(Message::Leading(expected))
            );
        }
        assert_eq!(
            to_replicator(ToReplicator::Close { why: "no".into() }),
            Err(End::Close("no".into()))
        );
    }
}
