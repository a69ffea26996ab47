//! How much log a node keeps, and what follows from that.

use raftlog_raft::fold::Fold;
use raftlog_raft::ids::LogIndex;
use raftlog_raft::planted::Planted;

use super::api::SnapshotPolicy;
use super::snapshot::Origin;
use super::taking::Taking;
use super::weights::Weights;

/// Bytes between two snapshots by default: at most so many,
const EVERY_BYTES_MAX: u64 = 1 << 30;
/// and at most this part of the volume. The log is kept back to the older of two snapshots, and the replicator on the same volume
/// keeps as much, both in segments of such a part: so that together they leave room.
const EVERY_BYTES_PER_VOLUME: u64 = 16;
/// The log may weigh so many times what lies between two snapshots. Two is what it comes to if all goes well.
const LOG_PER_EVERY_BYTES: u64 = 3;
/// What is under way to a follower, or not committed yet, is at most this part of that: by so much a log may be longer when
/// everybody has heard that it is full.
const UNDER_WAY_PER_EVERY_BYTES: u64 = 2;
/// Marks between two snapshots.
const MARKS: u64 = 16;

/// What is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    every_operations: u64,
    every_bytes: u64,
}

impl Room {
    pub(super) fn new(policy: SnapshotPolicy, volume_bytes: u64) -> Self {
        let by_volume = EVERY_BYTES_MAX.min(volume_bytes / EVERY_BYTES_PER_VOLUME);
        let (every_operations, every_bytes) = match policy.every_operations {
            0 => (u64::MAX, u64::MAX),
            operations => (operations, policy.every_bytes.unwrap_or(by_volume).max(1)),
        };
        Self {
            every_operations,
            every_bytes,
        }
    }

    /// What the log may weigh.
    pub(super) fn log_bytes_max(&self) -> u64 {
        self.every_bytes.saturating_mul(LOG_PER_EVERY_BYTES)
    }

    /// What may be under way, in bytes, of a `bound` on memory.
    pub(super) fn under_way_bytes_max(&self, bound: usize) -> usize {
        let part = usize::try_from(self.every_bytes / UNDER_WAY_PER_EVERY_BYTES);
        bound.min(part.unwrap_or(usize::MAX)).max(1)
    }

    /// Of a log that begins behind `base`.
    pub(super) fn weights(&self, base: LogIndex) -> Weights {
        Weights::new(base, self.every_bytes / MARKS)
    }

    /// With the fold of the log up to `folded`.
    pub(super) fn taking(&self, origin: Origin, fold: Fold, folded: LogIndex, planted: Planted) -> Taking {
        Taking::new(
            (self.every_operations, self.every_bytes),
            origin,
            fold,
            folded,
            planted,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_follows_the_volume_unless_it_is_given() {
        let asked = |every_bytes| SnapshotPolicy {
            every_operations: 100,
            every_bytes,
        };
        for (every_bytes, volume, log) in [
            (None, 1 << 30, 3 * (64 << 20)),
            (None, 1 << 40, 3 << 30),
            (Some(1000), 1 << 40, 3000),
            (Some(0), 0, 3),
        ] {
            let room = Room::new(asked(every_bytes), volume);
            assert_eq!(room.log_bytes_max(), log);
            let under_way = usize::try_from(log / 6).unwrap().clamp(1, 16 << 20);
            assert_eq!(room.under_way_bytes_max(16 << 20), under_way);
        }
        let never = SnapshotPolicy {
            every_operations: 0,
            every_bytes: Some(1000),
        };
        let all = Room::new(never, 1 << 30);
        assert_eq!(all.log_bytes_max(), u64::MAX);
        assert_eq!(all.under_way_bytes_max(16 << 20), 16 << 20);
    }
}
