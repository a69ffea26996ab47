//! How the executor beside a node is doing, at a glance.

use raftlog_proto::v1::{ExecutorFailure, ExecutorStatus, RestoreProgress};
use serde::Serialize;

use crate::text;

/// In the words of the wire contract.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct ExecutorView {
    /// `log`, `http`, `exec` or `state-machine`.
    pub(crate) kind: String,
    pub(crate) connected: bool,
    /// Nothing more is executed until its replicator is started again.
    pub(crate) stopped: bool,
    /// Operations that were given up and recorded as dead letters, since its replicator was started.
    pub(crate) skipped_operations: u64,
    /// It executes only while its node leads.
    pub(crate) on_leader: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<FailureView>,
    /// Of a snapshot that is on its way into it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restore: Option<RestoreView>,
}

/// What it fails at.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct FailureView {
    /// 0 where it is not one operation.
    pub(crate) index: u64,
    pub(crate) message: String,
    pub(crate) attempts: u64,
}

/// How much of a snapshot it has.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct RestoreView {
    pub(crate) index: u64,
    pub(crate) received_bytes: u64,
    pub(crate) total_bytes: u64,
}

impl From<ExecutorStatus> for ExecutorView {
    fn from(status: ExecutorStatus) -> Self {
        let failure = |failure: ExecutorFailure| FailureView {
            index: failure.index,
            message: failure.message,
            attempts: failure.attempts,
        };
        let restore = |restore: RestoreProgress| RestoreView {
            index: restore.index,
            received_bytes: restore.received_bytes,
            total_bytes: restore.total_bytes,
        };
        Self {
            kind: status.kind,
            connected: status.connected,
            stopped: status.stopped,
            skipped_operations: status.skipped_operations,
            on_leader: status.on_leader,
            failure: status.failure.map(failure),
            restore: status.restore.map(restore),
        }
    }
}

impl ExecutorView {
    /// What is out of the ordinary, for the end of a line; empty if nothing is.
    pub(crate) fn remark(&self) -> String {
        let place = if self.on_leader {
            "; executes on the leader"
        } else {
            ""
        };
        format!("{place}{}", self.trouble())
    }

    fn trouble(&self) -> String {
        if let Some(restore) = &self.restore {
            return format!(
                "; executor restores index {}: {}",
                restore.index,
                percent(restore)
            );
        }
        let skipped = match self.skipped_operations {
            0 => String::new(),
            count => format!("; executor skipped {}", text::count(count, "operation")),
        };
        let Some(failure) = &self.failure else {
            return skipped;
        };
        let at = match failure.index {
            0 => String::new(),
            index => format!(" at index {index}"),
        };
        let attempts = text::count(failure.attempts, "attempt");
        let what = if self.stopped { "stopped" } else { "fails" };
        format!(
            "{skipped}; executor {what}{at} after {attempts}: {}",
            failure.message
        )
    }
}

fn percent(restore: &RestoreView) -> String {
    let hundredths = restore
        .received_bytes
        .saturating_mul(100)
        .checked_div(restore.total_bytes);
    format!("{} %", hundredths.unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_the_ordinary_is_said() {
        let failure = |index, attempts| ExecutorFailure {
            index,
            message: "no".into(),
            attempts,
        };
        let restore = RestoreProgress {
            index: 7,
            received_bytes: 1 << 30,
            total_bytes: 4 << 30,
        };
        for (failure, restore, expected) in [
            (None, None, ""),
            (
                Some(failure(4, 1)),
                None,
                "; executor fails at index 4 after 1 attempt: no",
            ),
            (Some(failure(0, 3)), None, "; executor fails after 3 attempts: no"),
            (None, Some(restore), "; executor restores index 7: 25 %"),
        ] {
            let view = ExecutorView::from(ExecutorStatus {
                failure,
                restore,
                ..ExecutorStatus::default()
            });
            assert_eq!(view.remark(), expected);
            let on_leader = ExecutorView {
                on_leader: true,
                ..view
            };
            assert_eq!(on_leader.remark(), format!("; executes on the leader{expected}"));
        }
        for (failure, stopped, skipped_operations, expected) in [
            (None, false, 1, "; executor skipped 1 operation"),
            (
                Some(failure(4, 2)),
                false,
                3,
                "; executor skipped 3 operations; executor fails at index 4 after 2 attempts: no",
            ),
            (
                Some(failure(4, 2)),
                true,
                0,
                "; executor stopped at index 4 after 2 attempts: no",
            ),
        ] {
            let view = ExecutorView::from(ExecutorStatus {
                failure,
                stopped,
                skipped_operations,
                ..ExecutorStatus::default()
            });
            assert_eq!(view.remark(), expected);
        }
    }
}
