//! Queries of a node to the executor, whichever that is.

use bytes::Bytes;
use raftlog_proto::v1::ReplicateLogResponse;
use tokio::sync::mpsc;

use super::wire;
use crate::core::Place;

/// A query that an executor has to answer.
#[derive(Debug)]
pub(super) struct Query {
    /// The last operation that was executed when it came: the answer is of this state, or of a later one.
    pub(super) executed: Place,
    /// At most [`raftlog_proto::QUERY_BYTES_MAX`].
    pub(super) text: Bytes,
    pub(super) asker: Asker,
}

/// The way back to whoever asked, where there is always room.
#[derive(Debug)]
pub(super) struct Asker {
    /// The node's number for the query.
    pub(super) id: u64,
    pub(super) place: mpsc::OwnedPermit<Result<ReplicateLogResponse, tonic::Status>>,
}

/// What an executor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The last operation in the state that it is of.
    pub(super) executed: Place,
    /// At most [`raftlog_proto::RESULT_BYTES_MAX`].
    pub(super) result: Result<Bytes, Refused>,
}

/// Why there is no result; one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// The executor has no time.
    Busy(String),
    /// It knows no such query.
    Invalid(String),
    /// What is asked for is not there yet, or not any more.
    OutOfRange(String),
    /// The result would be.
    TooLong(String),
}

impl Asker {
    pub(super) fn answer(self, answer: Answer) {
        self.place.send(Ok(wire::query_answer(self.id, answer)));
    }
}
