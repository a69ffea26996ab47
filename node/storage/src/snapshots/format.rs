//! The bytes of a snapshot's file; the tables are in the documentation of the module above.

use bytes::{Buf, BufMut, Bytes};

use super::{DATA_BYTES_MAX, METADATA_BYTES_MAX, Manifest, Whole};
use crate::format::SECTOR;

/// Version of everything in this file.
pub(super) const SNAPSHOT_VERSION: u32 = 1;
/// A chunk with its head, in bytes.
pub(super) const FRAME_BYTES: usize = 256 << 10;
/// Number, length, running CRC, CRC, zero.
const FRAME_HEAD: usize = 24;
/// Data bytes of every chunk but the last, which may have fewer: what one read answers with, at most.
pub const CHUNK_BYTES: usize = FRAME_BYTES - FRAME_HEAD;

const MAGIC: [u8; 8] = *b"raftsnap";
/// Bytes of the head before its CRC.
const COVERED: usize = 49;

/// What the first bytes of a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadHead {
    /// Of a snapshot; its length and CRC where they are known.
    Good(Manifest, Option<Whole>),
    /// Of this program, but of another format.
    Version(u32),
    /// Damaged, at that offset.
    Bad(u64, &'static str),
}

/// Bytes of head and metadata, in whole sectors: where the first chunk is.
pub(super) fn data_start(metadata: usize) -> u64 {
    (SECTOR + metadata.next_multiple_of(SECTOR)) as u64
}

/// Where the chunk of that number is.
pub(super) fn frame_offset(metadata: usize, number: u64) -> u64 {
    data_start(metadata) + number * FRAME_BYTES as u64
}

/// Bytes of data in the chunk of that number, of so many in all.
pub(super) fn chunk_length(bytes: u64, number: u64) -> usize {
    let left = bytes.saturating_sub(number * CHUNK_BYTES as u64);
    usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES)
}

/// Bytes of a file whose snapshot has that much data.
pub(super) fn file_bytes(metadata: usize, bytes: u64) -> u64 {
    let chunks = bytes.div_ceil(CHUNK_BYTES as u64);
    data_start(metadata) + bytes + chunks * FRAME_HEAD as u64
}

/// The first sector. Until the snapshot is whole, its length and CRC are those that are announced, if any are.
pub(super) fn encode_head(manifest: &Manifest, whole: Option<Whole>) -> Bytes {
    let mut out = Vec::with_capacity(SECTOR);
    out.put_slice(&MAGIC);
    out.put_u32_le(SNAPSHOT_VERSION);
    out.put_u64_le(manifest.index);
    out.put_u64_le(manifest.term);
    out.put_u32_le(u32::try_from(manifest.metadata.len()).expect("metadata are bounded"));
    out.put_u32_le(crc32fast::hash(&manifest.metadata));
    out.put_u8(u8::from(whole.is_some()));
    out.put_u64_le(whole.map_or(0, |whole| whole.bytes));
    out.put_u32_le(whole.map_or(0, |whole| whole.crc));
    assert_eq!(out.len(), COVERED, "the head has as many bytes as its table says");
    let crc = crc32fast::hash(&out);
    out.put_u32_le(crc);
    out.resize(SECTOR, 0);
    out.into()
}

/// The first sector and the metadata.
pub(super) fn encode_start(manifest: &Manifest, whole: Option<Whole>) -> Bytes {
    let mut out = encode_head(manifest, whole).to_vec();
    out.put_slice(&manifest.metadata);
    out.resize(out.len().next_multiple_of(SECTOR), 0);
    out.into()
}

/// Bytes to read to find a head with its metadata.
pub(super) const START_BYTES_MAX: usize = SECTOR + METADATA_BYTES_MAX;

/// Whether a file begins as those of snapshots do.
pub(super) fn is_snapshot(start: &[u8]) -> bool {
    start.starts_with(&MAGIC)
}

/// The magic and the version are checked before the CRC: another version may keep its CRC elsewhere.
pub(super) fn decode_start(from: &Bytes) -> ReadHead {
    const BAD: ReadHead = ReadHead::Bad(0, "it does not begin as a snapshot does");
    let Some(mut fields) = from.get(..COVERED) else {
        return BAD;
    };
    let crc = crc32fast::hash(fields);
    if !fields.starts_with(&MAGIC) {
        return BAD;
    }
    fields.advance(MAGIC.len());
    let version = fields.get_u32_le();
    if version != SNAPSHOT_VERSION {
        return ReadHead::Version(version);
    }
    let found = from.get(COVERED..).unwrap_or_default().try_get_u32_le();
    if found != Ok(crc) {
        return ReadHead::Bad(0, "its head does not match its CRC");
    }
    let (index, term) = (fields.get_u64_le(), fields.get_u64_le());
    let length = usize::try_from(fields.get_u32_le()).unwrap_or(usize::MAX);
    let metadata_crc = fields.get_u32_le();
    let known = fields.get_u8() != 0;
    let whole = Whole {
        bytes: fields.get_u64_le(),
        crc: fields.get_u32_le(),
    };
    if whole.bytes > DATA_BYTES_MAX {
        return ReadHead::Bad(0, "it has more data than a snapshot may have");
    }
    let metadata = match SECTOR.checked_add(length) {
        Some(end) if length <= METADATA_BYTES_MAX && end <= from.len() => from.slice(SECTOR..end),
        _ => return ReadHead::Bad(SECTOR as u64, "its metadata are cut short"),
    };
    if crc32fast::hash(&metadata) != metadata_crc {
        return ReadHead::Bad(SECTOR as u64, "its metadata do not match their CRC");
    }
    let manifest = Manifest {
        index,
        term,
        metadata,
        whole,
    };
    ReadHead::Good(manifest, known.then_some(whole))
}

/// Where a chunk belongs: what its CRC covers besides its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) number: u64,
}

/// A chunk with its head; `running` is the CRC of all data up to its end.
pub(super) fn encode_frame(place: Place, running: u32, data: &[u8]) -> Bytes {
    let length = u32::try_from(data.len()).expect("a chunk is bounded");
    let mut out = Vec::with_capacity(FRAME_HEAD + data.len());
    out.put_u64_le(place.number);
    out.put_u32_le(length);
    out.put_u32_le(running);
    out.put_u32_le(frame_crc(place, length, running, data));
    out.put_u32_le(0);
    out.put_slice(data);
    out.into()
}

/// The data of a chunk that is to have that many bytes, and the CRC of all data up to its end; `None` where it is damaged.
pub(super) fn decode_frame(place: Place, length: usize, from: &Bytes) -> Option<(Bytes, u32)> {
    let mut head = from.get(..FRAME_HEAD)?;
    let (number, found) = (head.get_u64_le(), head.get_u32_le());
    let (running, crc) = (head.get_u32_le(), head.get_u32_le());
    let data = from.get(FRAME_HEAD..FRAME_HEAD + length)?;
    let good = number == place.number
        && usize::try_from(found) == Ok(length)
        && crc == frame_crc(place, found, running, data);
    good.then(|| (from.slice(FRAME_HEAD..FRAME_HEAD + length), running))
}

/// Bytes of a chunk with its head.
pub(super) fn frame_bytes(length: usize) -> usize {
    FRAME_HEAD + length
}

fn frame_crc(place: Place, length: u32, running: u32, data: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for field in [place.index, place.term, place.number] {
        crc.update(&field.to_le_bytes());
    }
    crc.update(&length.to_le_bytes());
    crc.update(&running.to_le_bytes());
    crc.update(data);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            index: 9,
            term: 2,
            metadata: Bytes::from(vec![7; 600]),
            whole: Whole { bytes: 5, crc: 1 },
        }
    }

    #[test]
    fn a_head_survives_and_damage_is_noticed() {
        let manifest = manifest();
        for whole in [None, Some(manifest.whole)] {
            let bytes = encode_start(&manifest, whole);
            assert_eq!(bytes.len() as u64, data_start(600));
            let found = Manifest {
                whole: whole.unwrap_or_default(),
                ..manifest.clone()
            };
            assert_eq!(decode_start(&bytes), ReadHead::Good(found, whole));
            for at in (0..COVERED + 4).chain(SECTOR..SECTOR + 600) {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 4;
                assert!(
                    !matches!(decode_start(&damaged.into()), ReadHead::Good(..)),
                    "byte {at}"
                );
                let cut = bytes.slice(..at);
                assert!(!matches!(decode_start(&cut), ReadHead::Good(..)), "cut at {at}");
            }
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        for bytes in [DATA_BYTES_MAX + 1, u64::MAX] {
            let whole = Whole { bytes, crc: 1 };
            let read = decode_start(&encode_start(&manifest(), Some(whole)));
            assert_eq!(
                read,
                ReadHead::Bad(0, "it has more data than a snapshot may have")
            );
        }
        let mut long = encode_head(&manifest(), None).to_vec();
        long[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
        let crc = crc32fast::hash(&long[..COVERED]);
        long[COVERED..COVERED + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            decode_start(&long.into()),
            ReadHead::Bad(512, "its metadata are cut short")
        );
    }

    #[test]
    fn a_chunk_is_of_one_place_in_one_snapshot() {
        let place = Place {
            index: 9,
            term: 2,
            number: 3,
        };
        let data = vec![5; 1000];
        let bytes = encode_frame(place, 77, &data);
        assert_eq!(decode_frame(place, 1000, &bytes), Some((data.into(), 77)));
        assert_eq!(decode_frame(place, 999, &bytes), None);
        for other in [
            Place { index: 8, ..place },
            Place { term: 1, ..place },
            Place { number: 2, ..place },
        ] {
            assert_eq!(decode_frame(other, 1000, &bytes), None);
        }
        for at in (0..20).chain(FRAME_HEAD..bytes.len()) {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert_eq!(decode_frame(place, 1000, &damaged.into()), None, "byte {at}");
        }
    }
}
