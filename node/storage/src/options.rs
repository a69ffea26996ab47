//! Sizes, and what follows from them.

use raftlog_raft::planted::Planted;

use crate::format::{SECTOR_BYTES, payload_room};

/// The longest record on disk, in bytes: an operation with its session, and room to spare.
pub const RECORD_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// The longest state, in bytes.
pub const STATE_BYTES_MAX: usize = 64 << 10;
/// The longest payload of one batch, in bytes; less where segments are small. An [`crate::Append`] up to this is atomic.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// A segment is no larger than this.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// A segment is no smaller: it fits the longest record and state in one batch.
const SEGMENT_BYTES_MIN: u64 = 2 << 20;
/// A volume has room for at least this many segments.
const SEGMENTS_PER_VOLUME: u64 = 16;
/// Zeros are written this far ahead of the log.
const FILL_AHEAD_BYTES: u64 = 4 << 20;

/// How a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalOptions {
    /// Goes into every CRC: the member ID. A log of another owner is refused.
    pub owner: u64,
    /// Size of new segments; `None`: 64 MiB, or a 16th of the volume if that is less. At least 2 MiB. Segments that are
    /// there keep theirs.
    pub segment_bytes: Option<u64>,
    /// Room that is filled with zeros ahead of the log, in four steps; at most a quarter of a segment.
    pub fill_ahead_bytes: u64,
    /// The sparse index has one place for so much of the log, more once it would outgrow its bound.
    pub index_stride_bytes: u64,
    /// A bug, in tests of the simulator.
    pub planted: Planted,
}

impl WalOptions {
    /// The defaults: sized by the volume, filled 4 MiB ahead, a place in the index for every 64 KiB.
    pub fn new(owner: u64) -> Self {
        Self {
            owner,
            segment_bytes: None,
            fill_ahead_bytes: FILL_AHEAD_BYTES,
            index_stride_bytes: 64 << 10,
            planted: Planted::default(),
        }
    }
}

/// Sizes that fit each other, all in whole sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Bytes of a new segment.
    pub(crate) segment: u64,
    /// Bytes to fill ahead.
    pub(crate) fill_ahead: u64,
    /// Payload bytes of a batch, at most.
    pub(crate) batch: usize,
}

impl Sizes {
    pub(crate) fn new(options: &WalOptions, volume_bytes: u64) -> Self {
        let sectors = |bytes: u64| bytes / SECTOR_BYTES * SECTOR_BYTES;
        let asked = options
            .segment_bytes
            .unwrap_or(SEGMENT_BYTES_MAX.min(volume_bytes / SEGMENTS_PER_VOLUME));
        let segment_bytes = sectors(asked.max(SEGMENT_BYTES_MIN));
        let room = payload_room(segment_bytes - SECTOR_BYTES).expect("a segment has more than its head");
        Self {
            segment: segment_bytes,
            fill_ahead: sectors(options.fill_ahead_bytes.min(segment_bytes / 4)).max(SECTOR_BYTES),
            batch: BATCH_BYTES_MAX.min(room),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_follow_the_volume_within_bounds() {
        for (volume, segment) in [
            (0, 2 << 20),
            (16 << 20, 2 << 20),
            (256 << 20, 16 << 20),
            (1 << 30, 64 << 20),
            (u64::MAX, 64 << 20),
        ] {
            let sizes = Sizes::new(&WalOptions::new(1), volume);
            assert_eq!(sizes.segment, segment, "volume of {volume}");
            assert!(sizes.fill_ahead <= segment / 4);
        }
    }

    #[test]
    fn the_longest_record_and_state_fit_the_smallest_segment() {
        let options = WalOptions {
            segment_bytes: Some(1),
            ..WalOptions::new(1)
        };
        assert!(Sizes::new(&options, 0).batch > RECORD_BYTES_MAX + STATE_BYTES_MAX + 64);
    }
}
