//! Where a log begins whose first segments were dropped: the file `log-start`; its table is in the documentation of the
//! crate.

use bytes::{Buf, BufMut, Bytes};

use crate::disk::{Disk, DiskErrorKind, FileName, Op, Outcome};
use crate::error::OpenError;
use crate::format::{FORMAT_VERSION, Link};
use crate::options::STATE_BYTES_MAX;

/// The file.
pub(crate) const FILE: FileName = FileName::named("log-start");
/// Its first bytes.
const MAGIC: [u8; 8] = *b"raftlogs";
/// Bytes before the state.
const FIXED_BYTES: usize = 65;
/// The longest file: the fields, a state, the CRC.
const FILE_BYTES_MAX: usize = FIXED_BYTES + STATE_BYTES_MAX + 4;

/// What comes before the first segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beginning {
    /// Records up to this index are no more, wherever they still stand.
    pub(crate) through: u64,
    /// The first segment.
    pub(crate) segment: u64,
    /// The last batch before it.
    pub(crate) link: Link,
    /// Sequence of a batch that was on disk for good when this was written: a log that ends before it is damaged.
    pub(crate) synced: u64,
    /// The last state before it.
    pub(crate) state: Option<Bytes>,
}

impl Default for Beginning {
    /// Of a log that has never lost a segment.
    fn default() -> Self {
        Self {
            through: 0,
            segment: 1,
            link: Link::default(),
            synced: 0,
            state: None,
        }
    }
}

/// Why a file is no beginning of this owner's log.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Version(u32),
    Foreign(u64),
    /// A phrase.
    Bad(&'static str),
}

impl Beginning {
    /// What the folder says.
    pub(crate) fn load(disk: &mut dyn Disk, owner: u64) -> Result<Self, OpenError> {
        let data = match disk.execute(&Op::Read {
            file: FILE,
            offset: 0,
            length: FILE_BYTES_MAX + 1,
        }) {
            Ok(Outcome::Data(data)) => data,
            Ok(other) => unreachable!("data was asked for, not {other:?}"),
            Err(error) if error.kind == DiskErrorKind::Missing => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let file = format!("{}/{FILE}", disk.folder());
        Self::decode(&data, owner).map_err(|problem| match problem {
            Problem::Version(found) => OpenError::Version {
                file,
                found,
                expected: FORMAT_VERSION,
            },
            Problem::Foreign(found) => OpenError::Foreign {
                file,
                found,
                expected: owner,
            },
            Problem::Bad(problem) => OpenError::Corrupt {
                file,
                offset: 0,
                problem: problem.to_owned(),
            },
        })
    }

    /// The operation that stores it.
    pub(crate) fn store(&self, owner: u64) -> Op {
        Op::Replace {
            file: FILE,
            data: self.encode(owner),
        }
    }

    fn encode(&self, owner: u64) -> Bytes {
        let mut out = Vec::with_capacity(FIXED_BYTES + 4);
        out.put_slice(&MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u64_le(owner);
        out.put_u64_le(self.through);
        out.put_u64_le(self.segment);
        out.put_u64_le(self.link.sequence);
        out.put_u32_le(self.link.crc);
        out.put_u64_le(self.synced);
        out.put_u8(u8::from(self.state.is_some()));
        let state = self.state.as_deref().unwrap_or_default();
        out.put_u64_le(state.len() as u64);
        out.put_slice(state);
        let crc = crc32fast::hash(&out);
        out.put_u32_le(crc);
        out.into()
    }

    /// The magic and the version are checked before the CRC: another version may keep its CRC elsewhere.
    fn decode(from: &Bytes, owner: u64) -> Result<Self, Problem> {
        let short = Problem::Bad("it is cut short");
        let covered = from.len().checked_sub(4).ok_or(short)?;
        let mut fields = from.slice(..covered);
        let crc = crc32fast::hash(&fields);
        if !fields.starts_with(&MAGIC) {
            return Err(Problem::Bad("it is no beginning of a log"));
        }
        fields.advance(MAGIC.len());
        let short = |_| Problem::Bad("it is cut short");
        let version = fields.try_get_u32_le().map_err(short)?;
        if version != FORMAT_VERSION {
            return Err(Problem::Version(version));
        }
        if from.slice(covered..).get_u32_le() != crc {
            return Err(Problem::Bad("it does not match its CRC"));
        }
        let found = fields.try_get_u64_le().map_err(short)?;
        if found != owner {
            return Err(Problem::Foreign(found));
        }
        let beginning = Self {
            through: fields.try_get_u64_le().map_err(short)?,
            segment: fields.try_get_u64_le().map_err(short)?,
            link: Link {
                sequence: fields.try_get_u64_le().map_err(short)?,
                crc: fields.try_get_u32_le().map_err(short)?,
            },
            synced: fields.try_get_u64_le().map_err(short)?,
            state: None,
        };
        let has_state = fields.try_get_u8().map_err(short)?;
        let length = fields.try_get_u64_le().map_err(short)?;
        if usize::try_from(length) != Ok(fields.len()) || beginning.segment == 0 {
            return Err(Problem::Bad("its fields contradict each other"));
        }
        Ok(Self {
            state: (has_state != 0).then_some(fields),
            ..beginning
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginning(state: Option<&'static str>) -> Beginning {
        Beginning {
            through: 10,
            segment: 3,
            link: Link {
                sequence: 77,
                crc: 0xfeed,
            },
            synced: 99,
            state: state.map(Bytes::from),
        }
    }

    #[test]
    fn it_survives_the_disk() {
        for state in [None, Some(""), Some("a vote")] {
            let beginning = beginning(state);
            let bytes = beginning.encode(7);
            assert_eq!(Beginning::decode(&bytes, 7), Ok(beginning));
            assert_eq!(Beginning::decode(&bytes, 8), Err(Problem::Foreign(7)));
        }
        assert_eq!(beginning(None).encode(7).len(), FIXED_BYTES + 4);
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let bytes = beginning(Some("a vote")).encode(7);
        for at in 0..bytes.len() {
            assert!(Beginning::decode(&bytes.slice(..at), 7).is_err(), "cut at {at}");
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(Beginning::decode(&damaged.into(), 7).is_err(), "byte {at}");
        }
    }
}
