//! What a state machine says when it cannot do what it was asked.

use std::error::Error;
use std::fmt;

use raftlog_proto::{error, reason};
use tonic::{Code, Status};

/// The longest message that is passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 500;

/// A state machine could not do what it was asked: its disk is full, its database broken. The replicator says so in its status, and asks
/// again later.
///
/// Any error becomes one by `?`. An operation that is turned down is no failure: its result says so, the same on every replica.
#[derive(Debug)]
pub struct Failed {
    operation: Option<u64>,
    message: String,
}

impl Failed {
    /// For any reason, in one line.
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            operation: None,
            message: one_line(&message.to_string()),
        }
    }

    /// At this operation of a batch. Those before it are given again, without it, so that nothing but it is held up.
    pub fn at(index: u64, message: impl fmt::Display) -> Self {
        Self {
            operation: Some(index),
            ..Self::new(message)
        }
    }

    /// The operation that it was, where that is known.
    pub fn operation(&self) -> Option<u64> {
        self.operation
    }

    pub(crate) fn status(&self) -> Status {
        Status::internal(&self.message)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

// `Failed` is no `Error` itself, or this would contradict `From<T> for T`.
impl<E: Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// Why a query has no result. Any error becomes [`QueryError::Failed`] by `?`.
#[derive(Debug)]
pub enum QueryError {
    /// There is no such query.
    Invalid(String),
    /// What is asked for is not there.
    OutOfRange(String),
    /// Ask later.
    Busy(String),
    /// It could not be answered.
    Failed(Failed),
}

impl QueryError {
    pub(crate) fn status(&self) -> Status {
        let (code, reason, message) = match self {
            Self::Invalid(message) => (Code::InvalidArgument, reason::INVALID_QUERY, message),
            Self::OutOfRange(message) => (Code::OutOfRange, reason::OUT_OF_RANGE, message),
            Self::Busy(message) => (Code::ResourceExhausted, reason::BACKPRESSURE, message),
            Self::Failed(failed) => return failed.status(),
        };
        error::status(code, reason, one_line(message))
    }
}

impl<E: Error> From<E> for QueryError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The message breaks the protocol, and why.
pub(crate) fn invalid(message: impl Into<String>) -> Status {
    error::status(Code::InvalidArgument, reason::INVALID_REQUEST, message)
}

/// The state machine's thread is no more.
pub(crate) fn stopping() -> Status {
    error::status(
        Code::Unavailable,
        reason::STOPPING,
        "this state machine is stopping: call again",
    )
}

/// Without line breaks or other control characters, and not too long.
pub(crate) fn one_line(text: &str) -> String {
    let clean = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter });
    clean.take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_becomes_one_line() {
        let failed: Failed = std::io::Error::other("no\nspace").into();
        assert_eq!(
            (failed.operation(), failed.to_string().as_str()),
            (None, "no space")
        );
        assert_eq!(Failed::at(7, "bad").operation(), Some(7));
        assert_eq!(
            Failed::new("x".repeat(9_999)).to_string().len(),
            MESSAGE_CHARS_MAX
        );
    }

    #[test]
    fn a_query_s_error_has_the_protocol_s_code() {
        for (error, code) in [
            (QueryError::Invalid("?".into()), Code::InvalidArgument),
            (QueryError::OutOfRange("?".into()), Code::OutOfRange),
            (QueryError::Busy("?".into()), Code::ResourceExhausted),
            (std::io::Error::other("?").into(), Code::Internal),
        ] {
            assert_eq!(error.status().code(), code, "{error:?}");
        }
    }
}
