//! The bytes on disk; the tables are in the documentation of the crate.

use bytes::{Buf, BufMut, Bytes};

use crate::options::BATCH_BYTES_MAX;

/// What a disk writes whole or not at all, in bytes.
pub(crate) const SECTOR: usize = 512;
/// The same, for places in files.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Version of everything in this file.
pub const FORMAT_VERSION: u32 = 2;

/// First bytes of every segment.
const MAGIC: [u8; 8] = *b"raftlog\n";
/// Set in the stamp of a batch's first sector.
const HEAD: u64 = 1 << 63;
/// The batch sequence that every sector of a batch begins with.
const STAMP: usize = 8;
/// Segment sequence, what was durable, previous CRC, payload length, CRC, CRC of the head.
const BATCH_HEAD: usize = 48;
/// Payload bytes in the first sector of a batch.
const FIRST_ROOM: usize = SECTOR - STAMP - BATCH_HEAD;
/// Payload bytes in each further sector.
const ROOM: usize = SECTOR - STAMP;

// Kinds of items.
const ITEM_STATE: u8 = 1;
const ITEM_TRUNCATE: u8 = 2;
const ITEM_RECORD: u8 = 3;

/// The last batch of a chain: what the next one continues. `Link::default()` is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) sequence: u64,
    pub(crate) crc: u32,
}

/// Bytes that a batch with that much payload takes in a file.
pub(crate) fn framed_bytes(payload: usize) -> usize {
    SECTOR + payload.saturating_sub(FIRST_ROOM).div_ceil(ROOM) * SECTOR
}

/// The longest payload whose batch takes at most that many bytes of a file; `None` if not even an empty one fits.
pub(crate) fn payload_room(bytes: u64) -> Option<usize> {
    let sectors = usize::try_from(bytes / SECTOR_BYTES).unwrap_or(usize::MAX / SECTOR);
    Some(FIRST_ROOM + sectors.checked_sub(1)? * ROOM)
}

/// The first sector of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    pub(crate) owner: u64,
    pub(crate) sequence: u64,
    /// Bytes that the segment may grow to.
    pub(crate) capacity: u64,
}

/// What the first sector of a segment turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadSegmentHead {
    Good(SegmentHead),
    /// Of this program, but of another format.
    Version(u32),
    /// Never written whole, or damaged.
    Bad,
}

impl SegmentHead {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(SECTOR);
        out.put_slice(&MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(0);
        out.put_u64_le(self.owner);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.capacity);
        let crc = crc32fast::hash(&out);
        out.put_u32_le(crc);
        out.resize(SECTOR, 0);
        out.into()
    }

    /// The magic and the version are checked before the CRC: another version may keep its CRC elsewhere.
    pub(crate) fn decode(mut from: &[u8]) -> ReadSegmentHead {
        const COVERED: usize = 40;
        let covered = from.get(..COVERED).unwrap_or_default();
        let Some(mut fields) = covered.strip_prefix(&MAGIC) else {
            return ReadSegmentHead::Bad;
        };
        let version = fields.get_u32_le();
        if version != FORMAT_VERSION {
            return ReadSegmentHead::Version(version);
        }
        fields.advance(4);
        let head = Self {
            owner: fields.get_u64_le(),
            sequence: fields.get_u64_le(),
            capacity: fields.get_u64_le(),
        };
        from.advance(COVERED);
        if from.try_get_u32_le() != Ok(crc32fast::hash(covered)) {
            return ReadSegmentHead::Bad;
        }
        ReadSegmentHead::Good(head)
    }
}

/// Where a batch stands in its chain: what its CRCs cover besides its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) owner: u64,
    pub(crate) segment: u64,
}

/// What was on disk for good when a batch was written: a log whose files hold less was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Durable {
    /// Bytes of the segment that the batch is in.
    pub(crate) bytes: u64,
    /// Sequence of the last segment: the batch's, or the one after it.
    pub(crate) last: u64,
    /// Bytes of that one.
    pub(crate) last_bytes: u64,
}

/// The fixed part of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHead {
    pub(crate) link: Link,
    pub(crate) durable: Durable,
    pub(crate) previous_crc: u32,
    pub(crate) payload_bytes: u32,
}

impl BatchHead {
    /// Bytes of the whole batch in its file.
    pub(crate) fn framed_bytes(&self) -> usize {
        framed_bytes(usize::try_from(self.payload_bytes).expect("32 bits fit a usize"))
    }

    /// Whether it comes right after `link`.
    pub(crate) fn follows(&self, link: Link) -> bool {
        self.link.sequence == link.sequence + 1 && self.previous_crc == link.crc
    }
}

/// What a sector turned out to be when a batch was looked for in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadHead {
    /// The first sector of a batch of this owner and segment.
    Good(BatchHead),
    /// It bears the stamp of a first sector, but its fields do not match their CRC.
    Bad {
        /// The sequence of the stamp.
        sequence: u64,
    },
    /// No first sector.
    None,
}

/// The stamp of a sector: whether it is a batch's first, and the batch's sequence. `None` for less than a sector.
pub(crate) fn stamp(sector: &[u8]) -> Option<(bool, u64)> {
    let mut whole = sector.get(..SECTOR)?;
    let stamp = whole.get_u64_le();
    Some((stamp & HEAD != 0, stamp & !HEAD))
}

/// Whether a sector holds what it held before `first`, the first batch of its segment, was written: zeros, or an older batch's
/// sector where the file was used before. So does what is past the end of a file.
pub(crate) fn is_unwritten(first: u64, sector: &[u8]) -> bool {
    let is_older = |(_, sequence): (bool, u64)| (1..first).contains(&sequence);
    stamp(sector).is_none_or(is_older) || sector.iter().all(|byte| *byte == 0)
}

/// Whether the first sector of that batch was written here, whatever its stamp says by now.
pub(crate) fn is_head_of(place: Place, sequence: u64, sector: &[u8]) -> bool {
    let fields = sector.get(STAMP..).unwrap_or_default();
    let stamped = [&(sequence | HEAD).to_le_bytes(), fields].concat();
    matches!(read_head(place, &stamped), ReadHead::Good(_))
}

/// Whether a sector of the batch is neither its own nor [unwritten](is_unwritten): only damage does that.
pub(crate) fn has_damaged_stamp(head: &BatchHead, first: u64, framed: &[u8]) -> bool {
    let mut sectors = framed.chunks(SECTOR).enumerate();
    sectors.any(|(number, sector)| {
        stamp(sector) != Some((number == 0, head.link.sequence)) && !is_unwritten(first, sector)
    })
}

/// The segment that a batch says it is in.
pub(crate) fn segment_of(batch: &[u8]) -> Option<u64> {
    let mut field = batch.get(STAMP..STAMP + 8)?;
    Some(field.get_u64_le())
}

/// Reads the first sector of a batch.
pub(crate) fn read_head(place: Place, sector: &[u8]) -> ReadHead {
    let Some((true, sequence)) = stamp(sector) else {
        return ReadHead::None;
    };
    let Some(mut fields) = sector.get(STAMP..STAMP + BATCH_HEAD) else {
        return ReadHead::None;
    };
    let segment = fields.get_u64_le();
    let head = BatchHead {
        durable: Durable {
            bytes: fields.get_u64_le(),
            last: fields.get_u64_le(),
            last_bytes: fields.get_u64_le(),
        },
        previous_crc: fields.get_u32_le(),
        payload_bytes: fields.get_u32_le(),
        link: Link {
            sequence,
            crc: fields.get_u32_le(),
        },
    };
    // What nobody writes is not read either: a file does not say how much memory is taken.
    let too_long = usize::try_from(head.payload_bytes).is_ok_and(|bytes| bytes > BATCH_BYTES_MAX);
    if segment != place.segment || fields.get_u32_le() != head_crc(place, &head) || too_long {
        return ReadHead::Bad { sequence };
    }
    ReadHead::Good(head)
}

/// A batch ready to be written.
#[derive(Debug)]
pub(crate) struct Framed {
    pub(crate) link: Link,
    pub(crate) bytes: Bytes,
}

/// Builds the batch that follows `previous` from pieces of payload.
pub(crate) fn frame(place: Place, previous: Link, durable: Durable, payload: &[Bytes]) -> Framed {
    let length: usize = payload.iter().map(Bytes::len).sum();
    let payload_bytes = u32::try_from(length).expect("a batch is bounded far below 4 GiB");
    let sequence = previous.sequence + 1;
    let mut head = BatchHead {
        link: Link { sequence, crc: 0 },
        durable,
        previous_crc: previous.crc,
        payload_bytes,
    };
    let mut crc = batch_crc(place, &head);
    for piece in payload {
        crc.update(piece);
    }
    head.link.crc = crc.finalize();
    let mut out = Vec::with_capacity(head.framed_bytes());
    out.put_u64_le(sequence | HEAD);
    out.put_u64_le(place.segment);
    out.put_u64_le(durable.bytes);
    out.put_u64_le(durable.last);
    out.put_u64_le(durable.last_bytes);
    out.put_u32_le(head.previous_crc);
    out.put_u32_le(head.payload_bytes);
    out.put_u32_le(head.link.crc);
    out.put_u32_le(head_crc(place, &head));
    for piece in payload {
        put_payload(sequence, piece, &mut out);
    }
    out.resize(head.framed_bytes(), 0);
    Framed {
        link: head.link,
        bytes: out.into(),
    }
}

/// Appends payload, with a stamp where a sector begins.
fn put_payload(sequence: u64, mut piece: &[u8], out: &mut Vec<u8>) {
    while !piece.is_empty() {
        let used = out.len() % SECTOR;
        if used == 0 {
            out.put_u64_le(sequence);
            continue;
        }
        let (now, later) = piece.split_at(piece.len().min(SECTOR - used));
        out.put_slice(now);
        piece = later;
    }
}

/// What the sectors of a batch turned out to hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadBatch {
    /// Its payload, as written.
    Good(Bytes),
    /// A sector lacks the batch's stamp: it was never written, is past the end of the file, or its stamp is damaged.
    Unstamped,
    /// Every sector bears the stamp, but the CRC does not match.
    Bad,
}

/// Reads a batch whose head is known from `framed`, which begins with it.
pub(crate) fn read_batch(place: Place, head: &BatchHead, framed: &[u8]) -> ReadBatch {
    let Some(payload) = payload(head, framed) else {
        return ReadBatch::Unstamped;
    };
    let mut crc = batch_crc(place, head);
    crc.update(&payload);
    if crc.finalize() != head.link.crc {
        return ReadBatch::Bad;
    }
    ReadBatch::Good(payload)
}

/// What is in a batch, whatever its CRC says; `None` where a sector lacks its stamp.
pub(crate) fn payload(head: &BatchHead, framed: &[u8]) -> Option<Bytes> {
    let framed = framed.get(..head.framed_bytes())?;
    let length = usize::try_from(head.payload_bytes).expect("32 bits fit a usize");
    let mut payload = Vec::with_capacity(framed.len());
    for (number, sector) in framed.chunks_exact(SECTOR).enumerate() {
        if stamp(sector) != Some((number == 0, head.link.sequence)) {
            return None;
        }
        let skip = if number == 0 { STAMP + BATCH_HEAD } else { STAMP };
        payload.extend_from_slice(sector.get(skip..).unwrap_or_default());
    }
    payload.truncate(length);
    Some(payload.into())
}

/// Over all fields but the CRC itself.
fn batch_crc(place: Place, head: &BatchHead) -> crc32fast::Hasher {
    let mut crc = crc32fast::Hasher::new();
    let durable = head.durable;
    for field in [
        place.owner,
        place.segment,
        head.link.sequence,
        durable.bytes,
        durable.last,
        durable.last_bytes,
    ] {
        crc.update(&field.to_le_bytes());
    }
    crc.update(&head.previous_crc.to_le_bytes());
    crc.update(&head.payload_bytes.to_le_bytes());
    crc
}

fn head_crc(place: Place, head: &BatchHead) -> u32 {
    let mut crc = batch_crc(place, head);
    crc.update(&head.link.crc.to_le_bytes());
    crc.finalize()
}

/// One thing that a batch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// The caller's state, replacing the one before.
    State(Bytes),
    /// Records from this index on are no more.
    Truncate(u64),
    /// A record.
    Record { index: u64, body: Bytes },
}

/// Bytes before a record's body.
pub(crate) const RECORD_HEAD: usize = 13;
/// Bytes before a state.
pub(crate) const STATE_HEAD: usize = 5;

pub(crate) fn put_state(state: &[u8], out: &mut Vec<u8>) {
    out.put_u8(ITEM_STATE);
    out.put_u32_le(u32::try_from(state.len()).expect("a state is bounded"));
    out.put_slice(state);
}

pub(crate) fn put_truncate(from: u64, out: &mut Vec<u8>) {
    out.put_u8(ITEM_TRUNCATE);
    out.put_u64_le(from);
}

/// Appends a record whose body `encode` appends; returns the length of that body.
pub(crate) fn put_record(index: u64, out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
    out.put_u8(ITEM_RECORD);
    out.put_u64_le(index);
    out.put_u32_le(0);
    let start = out.len();
    encode(out);
    let length = out.len().checked_sub(start).expect("an encoder only appends");
    let bytes = u32::try_from(length).expect("a record is bounded");
    out.get_mut(start - 4..start)
        .expect("just written")
        .copy_from_slice(&bytes.to_le_bytes());
    length
}

/// Takes a batch's payload apart.
pub(crate) fn items(payload: Bytes) -> Items {
    Items { rest: payload }
}

/// Iterator over the items of a payload; an error is a phrase, and the last thing it returns.
#[derive(Debug)]
pub(crate) struct Items {
    rest: Bytes,
}

impl Iterator for Items {
    type Item = Result<Item, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = take_item(&mut self.rest);
        if item.is_err() {
            self.rest.clear();
        }
        Some(item)
    }
}

fn take_item(from: &mut Bytes) -> Result<Item, String> {
    let short = |_| "an item is cut short".to_owned();
    match from.get_u8() {
        ITEM_STATE => {
            let length = from.try_get_u32_le().map_err(short)?;
            Ok(Item::State(take_bytes(from, length)?))
        }
        ITEM_TRUNCATE => Ok(Item::Truncate(from.try_get_u64_le().map_err(short)?)),
        ITEM_RECORD => {
            let index = from.try_get_u64_le().map_err(short)?;
            let length = from.try_get_u32_le().map_err(short)?;
            Ok(Item::Record {
                index,
                body: take_bytes(from, length)?,
            })
        }
        kind => Err(format!("unknown item kind {kind}")),
    }
}

fn take_bytes(from: &mut Bytes, length: u32) -> Result<Bytes, String> {
    let length = usize::try_from(length).map_err(|e| e.to_string())?;
    if from.len() < length {
        return Err("an item is cut short".to_owned());
    }
    Ok(from.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { owner: 7, segment: 3 };
    const PREVIOUS: Link = Link {
        sequence: 41,
        crc: 0xfeed,
    };
    const DURABLE: Durable = Durable {
        bytes: 1 << 20,
        last: 4,
        last_bytes: 512,
    };

    fn payload(length: usize) -> Bytes {
        (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    fn good(place: Place, framed: &[u8]) -> Option<Bytes> {
        match read_head(place, framed) {
            ReadHead::Good(head) => match read_batch(place, &head, framed) {
                ReadBatch::Good(payload) => Some(payload),
                _ => None,
            },
            _ => None,
        }
    }

    #[test]
    fn a_batch_of_any_length_survives_in_whole_stamped_sectors() {
        for length in [
            0,
            1,
            FIRST_ROOM - 1,
            FIRST_ROOM,
            FIRST_ROOM + 1,
            FIRST_ROOM + ROOM,
            FIRST_ROOM + ROOM + 1,
            99_999,
        ] {
            let payload = payload(length);
            let (a, b) = (payload.slice(..length / 3), payload.slice(length / 3..));
            let framed = frame(PLACE, PREVIOUS, DURABLE, &[a, b]);
            assert_eq!(framed.bytes.len(), framed_bytes(length));
            assert!(payload_room(framed.bytes.len() as u64).unwrap() >= length);
            for (number, sector) in framed.bytes.chunks(SECTOR).enumerate() {
                assert_eq!(stamp(sector), Some((number == 0, 42)), "length {length}");
            }
            assert_eq!(good(PLACE, &framed.bytes), Some(payload));
        }
    }

    /// A head of 44 bytes made a reader ask for 4 GiB.
    #[test]
    fn a_batch_longer_than_any_is_damaged_whatever_its_crc_says() {
        for (length, good) in [(BATCH_BYTES_MAX, true), (BATCH_BYTES_MAX + 1, false)] {
            let framed = frame(PLACE, PREVIOUS, DURABLE, &[payload(length)]);
            let head = read_head(PLACE, &framed.bytes[..SECTOR]);
            assert_eq!(matches!(head, ReadHead::Good(_)), good, "{length}: {head:?}");
            assert_eq!(head == ReadHead::Bad { sequence: 42 }, !good);
        }
    }

    #[test]
    fn a_batch_is_of_one_owner_one_segment_and_one_chain() {
        let framed = frame(PLACE, PREVIOUS, DURABLE, &[payload(1000)]);
        for place in [Place { owner: 8, ..PLACE }, Place { segment: 4, ..PLACE }] {
            assert_eq!(good(place, &framed.bytes), None, "{place:?}");
        }
        let ReadHead::Good(head) = read_head(PLACE, &framed.bytes) else {
            panic!("it is good")
        };
        assert!(head.follows(PREVIOUS));
        assert_eq!(head.durable, DURABLE);
        for link in [
            Link { crc: 1, ..PREVIOUS },
            Link {
                sequence: 42,
                ..PREVIOUS
            },
            Link::default(),
        ] {
            assert!(!head.follows(link), "{link:?}");
        }
        let other = frame(PLACE, Link { crc: 1, ..PREVIOUS }, DURABLE, &[payload(1000)]);
        assert_ne!(other.link.crc, framed.link.crc, "the chain goes into the CRC");
    }

    #[test]
    fn a_changed_byte_is_noticed_wherever_it_counts() {
        let length = FIRST_ROOM + ROOM + 100;
        let framed = frame(PLACE, PREVIOUS, DURABLE, &[payload(length)]).bytes;
        let padding = 2 * SECTOR + STAMP + 100;
        for at in 0..framed.len() {
            let mut bytes = framed.to_vec();
            bytes[at] ^= 0x10;
            assert_eq!(good(PLACE, &bytes).is_none(), at < padding, "byte {at}");
        }
    }

    #[test]
    fn a_sector_that_was_not_written_is_told_from_a_damaged_one() {
        let framed = frame(PLACE, PREVIOUS, DURABLE, &[payload(2000)]).bytes;
        let ReadHead::Good(head) = read_head(PLACE, &framed) else {
            panic!("it is good")
        };
        for sector in 1..framed.len() / SECTOR {
            let mut torn = framed.to_vec();
            torn[sector * SECTOR..][..SECTOR].fill(0);
            assert_eq!(
                read_batch(PLACE, &head, &torn),
                ReadBatch::Unstamped,
                "sector {sector}"
            );
            let mut bad = framed.to_vec();
            bad[sector * SECTOR + 9] ^= 1;
            assert_eq!(read_batch(PLACE, &head, &bad), ReadBatch::Bad, "sector {sector}");
        }
        assert_eq!(read_batch(PLACE, &head, &framed[..SECTOR]), ReadBatch::Unstamped);
    }

    #[test]
    fn payload_that_imitates_a_batch_is_none() {
        let inner = frame(PLACE, Link { sequence: 42, crc: 5 }, DURABLE, &[payload(400)]).bytes;
        // However it is placed, no sector of the outer batch but the first begins as a batch does.
        for shift in 0..SECTOR {
            let payload = [vec![0; shift], inner.to_vec(), inner.to_vec()].concat();
            let framed = frame(PLACE, PREVIOUS, DURABLE, &[payload.into()]).bytes;
            let heads = framed
                .chunks(SECTOR)
                .filter(|sector| read_head(PLACE, sector) != ReadHead::None);
            assert_eq!(heads.count(), 1, "shift {shift}");
        }
    }

    #[test]
    fn items_survive_and_garbage_is_refused() {
        let mut bytes = Vec::new();
        put_state(b"state", &mut bytes);
        put_truncate(9, &mut bytes);
        assert_eq!(put_record(9, &mut bytes, |out| out.extend_from_slice(b"body")), 4);
        let expected = vec![
            Ok(Item::State(Bytes::from_static(b"state"))),
            Ok(Item::Truncate(9)),
            Ok(Item::Record {
                index: 9,
                body: Bytes::from_static(b"body"),
            }),
        ];
        assert_eq!(items(bytes.clone().into()).collect::<Vec<_>>(), expected);
        for length in 0..bytes.len() {
            let read: Vec<_> = items(Bytes::copy_from_slice(&bytes[..length])).collect();
            assert!(read.len() <= 3 && read.iter().filter(|item| item.is_err()).count() <= 1);
        }
        assert_eq!(items(Bytes::from_static(&[9, 9])).count(), 1);
    }

    #[test]
    fn a_segment_head_survives_and_says_what_is_wrong() {
        let head = SegmentHead {
            owner: 7,
            sequence: 3,
            capacity: 64 << 20,
        };
        let bytes = head.encode();
        assert_eq!(bytes.len(), SECTOR);
        assert_eq!(SegmentHead::decode(&bytes), ReadSegmentHead::Good(head));
        for at in 0..44 {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            let version = (8..12).contains(&at);
            let read = SegmentHead::decode(&bad);
            assert_eq!(matches!(read, ReadSegmentHead::Version(_)), version, "byte {at}");
            assert_eq!(read == ReadSegmentHead::Bad, !version, "byte {at}");
        }
        assert_eq!(SegmentHead::decode(&[]), ReadSegmentHead::Bad);
    }
}
