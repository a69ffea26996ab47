//! For fuzz targets outside of this crate: logs and snapshots that chance would never find, since all their CRCs are good.

use bytes::Bytes;

use crate::disk::FileName;
use crate::format::{Durable, Link, Place, SECTOR_BYTES, SegmentHead, frame};
use crate::snapshots;

pub use snapshots::fuzzing::snapshot_file;

/// The name of the segment of that sequence.
pub fn segment_name(sequence: u64) -> FileName {
    FileName::segment(sequence)
}

/// The name of the snapshot at that index.
pub fn snapshot_name(index: u64) -> FileName {
    FileName::snapshot(index)
}

/// The name of a snapshot that is not whole yet.
pub fn incoming_name() -> FileName {
    snapshots::INCOMING
}

/// The bytes of the first segment, with a batch for each payload, whatever it holds, and zeros behind them.
pub fn segment(owner: u64, payloads: &[Bytes]) -> Vec<u8> {
    const SEQUENCE: u64 = 1;
    const ZEROS: usize = 4 * 512;
    let head = SegmentHead {
        owner,
        sequence: SEQUENCE,
        capacity: 64 << 20,
    };
    let place = Place {
        owner,
        segment: SEQUENCE,
    };
    let durable = Durable {
        bytes: SECTOR_BYTES,
        last: SEQUENCE,
        last_bytes: SECTOR_BYTES,
    };
    let mut bytes = head.encode().to_vec();
    let mut link = Link::default();
    for payload in payloads {
        let framed = frame(place, link, durable, std::slice::from_ref(payload));
        bytes.extend_from_slice(&framed.bytes);
        link = framed.link;
    }
    bytes.resize(bytes.len() + ZEROS, 0);
    bytes
}
