//! What can go wrong, and what it means for the operation: the classification is pure.

use std::error::Error as _;

use raftlog_proto::reason;
use thiserror::Error;
use tonic::{Code, Status};

/// The longest part of a server's own message that an error repeats, in characters.
const MESSAGE_CHARS_MAX: usize = 400;

/// How the transport names a first answer that is no frame of HTTP/2, such as one of HTTP/1 or TLS: its first three bytes
/// are read as a length, which is far above what was agreed.
const NOT_HTTP2: &str = "frame with invalid size";

/// Why a call failed. Each message is one line: what, where, what to do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The request can never succeed as it is. Nothing was appended.
    #[error("{0}")]
    Invalid(String),
    /// The cluster said no. Nothing was appended.
    #[error("{message}")]
    Refused {
        /// The `google.rpc.ErrorInfo` reason, one of [`raftlog_proto::reason::NOTHING_APPENDED`] or of membership changes.
        reason: String,
        /// One line.
        message: String,
    },
    /// There was no leader that could be reached in the time given. Nothing was appended.
    #[error("{0}")]
    NoLeader(String),
    /// The operation may have been appended, or may be yet. Submitting it again under the same session and sequence is safe.
    #[error("{message}")]
    Unknown {
        /// The `google.rpc.ErrorInfo` reason of the last attempt; empty where it gave none.
        reason: String,
        /// One line.
        message: String,
    },
    /// The operations asked for are not held any more by any replicator that answers: snapshots hold what they did.
    #[error("{message}")]
    NoLongerHeld {
        /// The lowest index that one of them holds.
        first_index: u64,
        /// One line.
        message: String,
    },
    /// The replicator that answers has other operations than those that were read before: it is of another cluster, or of one that was
    /// recovered with another past. What was made of them is of no use there.
    #[error("{0}")]
    OtherPast(String),
    /// A call that appends nothing failed: a read, a status, a transfer of leadership.
    #[error("{0}")]
    Failed(String),
}

/// What an answer other than success means for the operation that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing was appended, and it may work soon or elsewhere.
    Retry,
    /// Nothing was appended, and trying again does not help by itself.
    Refused,
    /// Nothing was appended, and nothing ever will be.
    Invalid,
    /// Nothing was appended: what answered serves no operations. Another endpoint may.
    NotANode,
    /// It may have been appended. `repeat`: another attempt under the same session and sequence can tell.
    Unknown {
        /// Whether another attempt is of use.
        repeat: bool,
    },
}

/// Classifies a failed submission by its gRPC code and its `google.rpc.ErrorInfo` reason (empty: none was given).
///
/// Only the six reasons of the contract, and those of membership changes, promise that nothing was appended; a code alone
/// never does.
pub fn classify(code: Code, reason: &str) -> Class {
    match reason {
        reason::NO_LEADER | reason::NOT_APPENDED | reason::BACKPRESSURE => Class::Retry,
        reason::DISK_FULL
        | reason::SESSION_EXPIRED
        | reason::CONFIGURATION_CHANGED
        | reason::NOT_CAUGHT_UP
        | reason::WOULD_LOSE_QUORUM => Class::Refused,
        reason::INVALID_OPERATION | reason::INVALID_CHANGE | reason::INVALID_QUERY => Class::Invalid,
        reason::SEQUENCE_FORGOTTEN => Class::Unknown { repeat: false },
        reason::LEADERSHIP_LOST | reason::FORWARD_BROKEN | reason::NOT_EXECUTED => {
            Class::Unknown { repeat: true }
        }
        _ => Class::Unknown { repeat: passes(code) },
    }
}

/// Whether the answer shows that whoever gave it serves no operations, so that it cannot have appended any: a server without
/// that method, or one that does not speak the protocol at all. `cause` is the innermost cause of the failure.
///
/// An error of a proxy (502, 503, 504) shows nothing: it may have passed the request on. Neither does a connection that
/// ended.
fn is_no_node(code: Code, reason: &str, cause: &str) -> bool {
    reason.is_empty() && (code == Code::Unimplemented || cause.contains(NOT_HTTP2))
}

/// What a failed call means for the operation that was submitted.
pub(crate) fn classify_status(status: &Status) -> Class {
    let reason = reason_of(status);
    let cause = innermost(status.source()).unwrap_or_default();
    if is_no_node(status.code(), &reason, &cause) {
        Class::NotANode
    } else {
        classify(status.code(), &reason)
    }
}

/// Whether a failure with this code, unexplained, tends to pass.
fn passes(code: Code) -> bool {
    match code {
        Code::Unavailable
        | Code::Aborted
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Internal
        | Code::Unknown => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// The reason in a status's `google.rpc.ErrorInfo`, empty without one of this system's.
pub(crate) fn reason_of(status: &Status) -> String {
    raftlog_proto::error::reason_of(status).unwrap_or_default()
}

/// A status in one line, with the innermost cause, which is the one that says something.
pub(crate) fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    if let Some(cause) = innermost(status.source())
        && !text.contains(&cause)
    {
        text = if text.is_empty() {
            cause
        } else {
            format!("{text}: {cause}")
        };
    }
    if text.is_empty() {
        status.code().description().clone_into(&mut text);
    }
    let reason = reason_of(status);
    let line = one_line(&text);
    if reason.is_empty() || line.contains(&reason) {
        line
    } else {
        format!("{line} [{}]", one_line(&reason))
    }
}

/// The message of the last error in a chain of causes.
pub(crate) fn innermost(mut source: Option<&(dyn std::error::Error + 'static)>) -> Option<String> {
    let mut text = None;
    while let Some(error) = source {
        text = Some(error.to_string());
        source = error.source();
    }
    text
}

/// What another process said, without line breaks or control characters, and not too long.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(MESSAGE_CHARS_MAX)
        .collect();
    if text.chars().nth(MESSAGE_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_decide() {
        let codes = [Code::Unavailable, Code::FailedPrecondition, Code::Internal];
        for (reason, expected) in [
            (reason::NO_LEADER, Class::Retry),
            (reason::NOT_APPENDED, Class::Retry),
            (reason::BACKPRESSURE, Class::Retry),
            (reason::DISK_FULL, Class::Refused),
            (reason::SESSION_EXPIRED, Class::Refused),
            (reason::INVALID_OPERATION, Class::Invalid),
            (reason::CONFIGURATION_CHANGED, Class::Refused),
            (reason::NOT_CAUGHT_UP, Class::Refused),
            (reason::WOULD_LOSE_QUORUM, Class::Refused),
            (reason::INVALID_CHANGE, Class::Invalid),
            (reason::INVALID_QUERY, Class::Invalid),
            (reason::SEQUENCE_FORGOTTEN, Class::Unknown { repeat: false }),
            (reason::LEADERSHIP_LOST, Class::Unknown { repeat: true }),
            (reason::FORWARD_BROKEN, Class::Unknown { repeat: true }),
            (reason::NOT_EXECUTED, Class::Unknown { repeat: true }),
        ] {
            for code in codes {
                assert_eq!(classify(code, reason), expected, "{code:?} {reason}");
            }
        }
    }

    #[test]
    fn exactly_the_contract_s_reasons_promise_that_nothing_was_appended() {
        for reason in reason::NOTHING_APPENDED {
            assert!(
                !matches!(classify(Code::Unavailable, reason), Class::Unknown { .. }),
                "{reason}"
            );
        }
        for reason in [
            "",
            "no_leader",
            "UNFORMED",
            "WRONG_CLUSTER",
            "TRANSFER_FAILED",
            "A_LATER_ONE",
        ] {
            for code in (0..=16).map(Code::from_i32) {
                assert!(
                    matches!(classify(code, reason), Class::Unknown { .. }),
                    "{code:?} {reason}"
                );
            }
        }
    }

    #[test]
    fn codes_alone_say_whether_to_repeat() {
        for (code, repeat) in [
            (Code::Unavailable, true),
            (Code::Aborted, true),
            (Code::DeadlineExceeded, true),
            (Code::Cancelled, true),
            (Code::Internal, true),
            (Code::Unknown, true),
            (Code::ResourceExhausted, true),
            (Code::InvalidArgument, false),
            (Code::OutOfRange, false),
            (Code::Unimplemented, false),
            (Code::PermissionDenied, false),
            (Code::Unauthenticated, false),
        ] {
            assert_eq!(classify(code, ""), Class::Unknown { repeat }, "{code:?}");
        }
    }

    #[test]
    fn who_serves_no_operations_cannot_have_appended_any() {
        let http1 = "connection error detected: frame with invalid size";
        for (code, reason, cause, expected) in [
            (Code::Unimplemented, "", "", true),
            (Code::Internal, "", http1, true),
            (Code::Unknown, "", http1, true),
            // A node said it: its reason decides.
            (Code::Unimplemented, reason::FORWARD_BROKEN, "", false),
            (Code::Internal, reason::LEADERSHIP_LOST, http1, false),
            // What may have come after the request was taken.
            (Code::Unavailable, "", "", false),
            (Code::Unavailable, "", "connection reset by peer", false),
            (Code::Unknown, "", "broken pipe", false),
            (Code::Internal, "", "stream no longer needed", false),
            (Code::Cancelled, "", "", false),
        ] {
            assert_eq!(
                is_no_node(code, reason, cause),
                expected,
                "{code:?} '{reason}' '{cause}'"
            );
        }
        assert_eq!(classify_status(&Status::unimplemented("")), Class::NotANode);
    }

    #[test]
    fn descriptions_are_one_bounded_line() {
        for (status, expected) in [
            (Status::unavailable("a\nb\u{1b}[2J"), "a b [2J"),
            (Status::unavailable(""), "The service is currently unavailable"),
        ] {
            assert_eq!(describe(&status), expected);
        }
        let long = describe(&Status::unavailable("x".repeat(10_000)));
        assert_eq!(long.chars().count(), MESSAGE_CHARS_MAX + 1);
    }
}
