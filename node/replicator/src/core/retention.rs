//! How much of the log stays for whoever watches it, beyond what the node and this process need: a pure decision (design 6.5).
//!
//! Limits say how much history there is at most: what is beyond one of them goes, whatever the others say. It goes by whole segments, so
//! up to a segment more stays. What is needed never goes, and what the volume has no room for never stays.

use std::time::Duration;

use raftlog_raft::ids::OperationIndex;

/// The log takes at most about one part in so many of the volume, whatever the limits say.
const VOLUME_PARTS: u64 = 4;
/// Ticks within the age that operations may have.
const TICKS_PER_AGE: u32 = 64;
/// Between two ticks.
const TICK_MIN: Duration = Duration::from_millis(100);
const TICK_MAX: Duration = Duration::from_secs(10);

/// How much history there is at most. With no limit at all, it is [`Config::trailing_bytes`](super::Config::trailing_bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// The last so many committed operations.
    pub operations: Option<u64>,
    /// What was committed so long ago at most. Needs [`Event::Tick`](super::Event::Tick).
    pub age: Option<Duration>,
    /// The last so many bytes of the log on disk.
    pub bytes: Option<u64>,
}

impl Retention {
    /// How often to send [`Event::Tick`](super::Event::Tick); `None`: never.
    pub fn tick_interval(&self) -> Option<Duration> {
        let age = self.age?;
        Some((age / TICKS_PER_AGE).clamp(TICK_MIN, TICK_MAX))
    }

    fn is_limited(&self) -> bool {
        self.operations.is_some() || self.age.is_some() || self.bytes.is_some()
    }

    /// What may go of a log.
    pub(super) fn allowance(&self, log: &LogSize) -> Allowance {
        let beyond = |operations| log.commit.saturating_sub(operations);
        let through = self.operations.map_or(0, beyond).max(log.aged);
        let limit = if self.is_limited() {
            self.bytes
        } else {
            Some(log.trailing_bytes)
        };
        Allowance {
            through,
            keep_bytes: limit.unwrap_or(u64::MAX),
            room_bytes: if log.disk_full {
                0
            } else {
                room_bytes(log.volume_bytes)
            },
        }
    }
}

/// The log on disk is to be no longer, in bytes, for the sake of history.
pub(super) fn room_bytes(volume_bytes: u64) -> u64 {
    volume_bytes / VOLUME_PARTS
}

/// What the decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LogSize {
    pub(super) commit: OperationIndex,
    /// Everything up to here is older than it may be.
    pub(super) aged: OperationIndex,
    /// What stays without any limit.
    pub(super) trailing_bytes: u64,
    pub(super) volume_bytes: u64,
    pub(super) disk_full: bool,
}

/// What may go, as far as it is not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Operations up to here may.
    pub(super) through: OperationIndex,
    /// So may those that have so many bytes of the log behind them.
    pub(super) keep_bytes: u64,
    /// And those that have so many behind them do not even have room.
    pub(super) room_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogSize = LogSize {
        commit: 1000,
        aged: 0,
        trailing_bytes: 64,
        volume_bytes: 4000,
        disk_full: false,
    };

    fn limits(operations: Option<u64>, bytes: Option<u64>) -> Retention {
        Retention {
            operations,
            bytes,
            age: None,
        }
    }

    #[test]
    fn what_may_go() {
        let aged = Retention {
            age: Some(Duration::from_secs(9)),
            ..Retention::default()
        };
        let (none, all) = (Retention::default(), u64::MAX);
        for (name, retention, log, (through, keep_bytes, room_bytes)) in [
            ("no limit", none, LOG, (0, 64, 1000)),
            ("operations", limits(Some(10), None), LOG, (990, all, 1000)),
            ("no operation", limits(Some(0), None), LOG, (1000, all, 1000)),
            (
                "more operations than there are",
                limits(Some(1001), None),
                LOG,
                (0, all, 1000),
            ),
            ("bytes", limits(None, Some(500)), LOG, (0, 500, 1000)),
            (
                "more bytes than there is room for",
                limits(None, Some(5000)),
                LOG,
                (0, 5000, 1000),
            ),
            ("either", limits(Some(10), Some(500)), LOG, (990, 500, 1000)),
            ("age", aged, LogSize { aged: 70, ..LOG }, (70, all, 1000)),
            (
                "age and operations",
                Retention {
                    operations: Some(10),
                    ..aged
                },
                LogSize { aged: 70, ..LOG },
                (990, all, 1000),
            ),
            (
                "age and operations, of which age counts",
                Retention {
                    operations: Some(950),
                    ..aged
                },
                LogSize { aged: 70, ..LOG },
                (70, all, 1000),
            ),
            (
                "a full disk",
                limits(Some(10), None),
                LogSize {
                    disk_full: true,
                    ..LOG
                },
                (990, all, 0),
            ),
        ] {
            let expected = Allowance {
                through,
                keep_bytes,
                room_bytes,
            };
            assert_eq!(retention.allowance(&log), expected, "{name}");
        }
    }

    #[test]
    fn ticks_are_for_ages_and_neither_too_many_nor_too_few() {
        for (age, interval) in [
            (None, None),
            (Some(0), Some(TICK_MIN)),
            (Some(64), Some(Duration::from_secs(1))),
            (Some(u64::MAX), Some(TICK_MAX)),
        ] {
            let age = age.map(Duration::from_secs);
            let retention = Retention {
                age,
                ..Retention::default()
            };
            assert_eq!(retention.tick_interval(), interval, "{age:?}");
        }
    }
}
