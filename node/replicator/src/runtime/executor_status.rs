//! How the executor is doing, for `/status` and `/readyz`. It never makes anything unready (design 4.2).

use raftlog_proto::v1::{ExecutorFailure, ExecutorStatus};
use serde::Serialize;

/// In `/status`.
#[derive(Debug, Serialize)]
pub(super) struct ExecutorBody {
    /// `log`, `http`, `exec` or `state-machine`.
    kind: String,
    /// It can take operations.
    connected: bool,
    /// Nothing more is executed until this process is started again.
    stopped: bool,
    /// What it fails at; `null` while it does not.
    failure: Option<FailureBody>,
    /// A snapshot that is on its way into it; `null` otherwise.
    restore: Option<RestoreBody>,
    /// Operations that were given up and recorded as dead letters, since this process was started.
    skipped_operations: u64,
}

#[derive(Debug, Serialize)]
struct FailureBody {
    /// The operation; 0 where it is not one operation.
    index: u64,
    message: String,
    /// Attempts that failed in a row.
    attempts: u64,
}

#[derive(Debug, Serialize)]
struct RestoreBody {
    index: u64,
    received_bytes: u64,
    total_bytes: u64,
}

impl From<ExecutorStatus> for ExecutorBody {
    fn from(status: ExecutorStatus) -> Self {
        Self {
            kind: status.kind,
            connected: status.connected,
            stopped: status.stopped,
            failure: status.failure.map(|failure| FailureBody {
                index: failure.index,
                message: failure.message,
                attempts: failure.attempts,
            }),
            restore: status.restore.map(|restore| RestoreBody {
                index: restore.index,
                received_bytes: restore.received_bytes,
                total_bytes: restore.total_bytes,
            }),
            skipped_operations: status.skipped_operations,
        }
    }
}

/// For the end of the line of `/readyz`: which executor it is, and what is wrong with it.
pub(super) fn remark(status: &ExecutorStatus) -> String {
    let kind = &status.kind;
    let Some(ExecutorFailure {
        index,
        message,
        attempts,
    }) = &status.failure
    else {
        return format!("; executor {kind}");
    };
    let at = match index {
        0 => String::new(),
        index => format!(" at index {index}"),
    };
    let what = if status.stopped { "stopped" } else { "fails" };
    let times = if *attempts == 1 { "attempt" } else { "attempts" };
    format!("; executor {kind} {what}{at} after {attempts} {times}: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_which_executor_and_what_it_fails_at() {
        let failure = |index, attempts| ExecutorFailure {
            index,
            message: "no".to_owned(),
            attempts,
        };
        for (failure, stopped, expected) in [
            (None, false, "; executor http"),
            (
                Some(failure(0, 3)),
                false,
                "; executor http fails after 3 attempts: no",
            ),
            (
                Some(failure(7, 1)),
                false,
                "; executor http fails at index 7 after 1 attempt: no",
            ),
            (
                Some(failure(7, 2)),
                true,
                "; executor http stopped at index 7 after 2 attempts: no",
            ),
        ] {
            let status = ExecutorStatus {
                kind: "http".to_owned(),
                failure,
                stopped,
                ..ExecutorStatus::default()
            };
            assert_eq!(remark(&status), expected);
        }
    }
}
