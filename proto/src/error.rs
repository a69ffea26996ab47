//! Errors as every service of this package tells them: a gRPC code, one line for people, and a reason for programs in
//! `google.rpc.ErrorInfo`.

use std::collections::HashMap;
use std::error::Error as _;

use tonic::{Code, ConnectError, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{ERROR_DOMAIN, reason};

/// Key in the metadata of `google.rpc.ErrorInfo`.
const FIRST_INDEX: &str = "first_index";

/// A status with `ErrorInfo {domain: "raftlog.io", reason}`. `reason` is one of [`crate::reason`].
pub fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    Status::with_error_details(
        code,
        message,
        ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new()),
    )
}

/// `OUT_OF_RANGE`, for operations that are not held any more; `first` is the first index that is.
pub fn no_longer_held(first: u64, message: impl Into<String>) -> Status {
    let metadata = HashMap::from([(FIRST_INDEX.to_owned(), first.to_string())]);
    Status::with_error_details(
        Code::OutOfRange,
        message,
        ErrorDetails::with_error_info(reason::OUT_OF_RANGE, ERROR_DOMAIN, metadata),
    )
}

/// The first index that is held, where [`no_longer_held`] said so.
pub fn first_index_of(status: &Status) -> Option<u64> {
    let info = status.get_details_error_info()?;
    let ours = info.domain == ERROR_DOMAIN && info.reason == reason::OUT_OF_RANGE;
    info.metadata.get(FIRST_INDEX).filter(|_| ours)?.parse().ok()
}

/// The reason that [`status`] gave, if the status carries one of this system.
pub fn reason_of(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == ERROR_DOMAIN).then_some(info.reason)
}

/// Whether a client may be sure that nothing was appended.
pub fn nothing_appended(status: &Status) -> bool {
    reason_of(status).is_some_and(|given| reason::NOTHING_APPENDED.contains(&given.as_str()))
}

/// Whether the request never left: the connection could not be made.
pub fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_was_never_made_sent_nothing() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let never = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        assert!(never_sent(&never));
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(!never_sent(&Status::from_error(Box::new(reset))));
        assert!(!never_sent(&Status::unavailable("connection refused")));
    }

    #[test]
    fn a_reason_survives_the_status() {
        let refused = status(Code::Unavailable, reason::NO_LEADER, "no leader is known");
        assert_eq!(reason_of(&refused).as_deref(), Some(reason::NO_LEADER));
        assert!(nothing_appended(&refused));
        let lost = status(Code::Aborted, reason::LEADERSHIP_LOST, "leadership was lost");
        assert!(!nothing_appended(&lost));
    }

    #[test]
    fn what_is_still_held_survives_the_status() {
        let gone = no_longer_held(7, "index 3 is not held any more");
        assert_eq!(reason_of(&gone).as_deref(), Some(reason::OUT_OF_RANGE));
        assert_eq!(first_index_of(&gone), Some(7));
        let beyond = status(Code::OutOfRange, reason::OUT_OF_RANGE, "not committed yet");
        assert_eq!(first_index_of(&beyond), None);
        let other = HashMap::from([(FIRST_INDEX.to_owned(), "x".to_owned())]);
        let other = ErrorDetails::with_error_info(reason::OUT_OF_RANGE, ERROR_DOMAIN, other);
        assert_eq!(
            first_index_of(&Status::with_error_details(Code::OutOfRange, "no", other)),
            None
        );
    }

    #[test]
    fn what_others_say_has_no_reason() {
        assert_eq!(reason_of(&Status::unavailable("connection refused")), None);
        let other = ErrorDetails::with_error_info(reason::NO_LEADER, "example.com", HashMap::new());
        assert!(!nothing_appended(&Status::with_error_details(
            Code::Unavailable,
            "no",
            other
        )));
        let garbage = Status::with_details(Code::Internal, "no", bytes::Bytes::from_static(b"\xff\xff"));
        assert_eq!(reason_of(&garbage), None);
    }
}
