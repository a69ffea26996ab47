//! What a node's snapshot holds: the replicator's state, and behind it the fold of the log up to the same place. The metadata
//! say which place that is and where the one ends and the other begins, so that either can be read without the other.
//!
//! The metadata, little-endian: `version u8, operation index u64, term u64 and running hash u64 of the last operation in it,
//! length of the state u64, cluster u64 and member u64 that took it`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raftlog_raft::entry::DecodeError;
use raftlog_raft::feature::Supports;
use raftlog_raft::fold::Fold;
use raftlog_raft::ids::{ClusterId, LogIndex, MemberId};
use raftlog_raft::log::Base;
use raftlog_raft::message::LogPosition;
use raftlog_storage::snapshots::{Manifest, Snapshots};
use raftlog_storage::{Disk, OpenError};

use super::api::Place;

/// Version of the metadata, and of what they speak of.
const CONTENTS_VERSION: u8 = 1;
/// Their length.
const CONTENTS_BYTES: usize = 1 + 6 * 8;
/// No log gets there: whatever follows has to have a number.
const INDEX_MAX: LogIndex = LogIndex::MAX / 2;

/// Where a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) cluster: ClusterId,
    pub(super) member: MemberId,
}

/// What the metadata of a snapshot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    /// The last operation in it.
    pub(super) place: Place,
    /// Bytes of the replicator's state, which comes first; the fold is the rest.
    pub(super) state_bytes: u64,
    pub(super) origin: Origin,
}

impl Contents {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(CONTENTS_BYTES);
        out.put_u8(CONTENTS_VERSION);
        out.put_u64_le(self.place.index);
        out.put_u64_le(self.place.term);
        out.put_u64_le(self.place.running_hash);
        out.put_u64_le(self.state_bytes);
        out.put_u64_le(self.origin.cluster.get());
        out.put_u64_le(self.origin.member.get());
        out.into()
    }

    /// Those of a snapshot, which may come from another member: nothing in it is taken for granted.
    pub(super) fn of(manifest: &Manifest) -> Result<Self, String> {
        let mut from = manifest.metadata.clone();
        if from.len() != CONTENTS_BYTES || from.get_u8() != CONTENTS_VERSION {
            return Err("its metadata are of another version".to_owned());
        }
        let place = Place {
            index: from.get_u64_le(),
            term: from.get_u64_le(),
            running_hash: from.get_u64_le(),
        };
        let state_bytes = from.get_u64_le();
        let (cluster, member) = (
            ClusterId::new(from.get_u64_le()),
            MemberId::new(from.get_u64_le()),
        );
        let (Some(cluster), Some(member)) = (cluster, member) else {
            return Err("its metadata do not say where it was taken".to_owned());
        };
        let origin = Origin { cluster, member };
        if manifest.index > INDEX_MAX {
            return Err(format!(
                "it ends with entry {}, which no log comes to",
                manifest.index
            ));
        }
        if place.index == 0 || place.index > manifest.index || place.term > manifest.term {
            return Err(format!(
                "its metadata speak of operation {} of term {}, which a log up to entry {} of term {} does not hold",
                place.index, place.term, manifest.index, manifest.term
            ));
        }
        if state_bytes > manifest.whole.bytes {
            return Err(format!(
                "its metadata speak of a state of {state_bytes} bytes, of which it has {} at most",
                manifest.whole.bytes
            ));
        }
        Ok(Self {
            place,
            state_bytes,
            origin,
        })
    }
}

/// The entry that is the last one in a snapshot.
pub(super) fn position(manifest: &Manifest) -> LogPosition {
    LogPosition {
        index: manifest.index,
        term: manifest.term,
    }
}

/// Where a log begins of which a snapshot holds the rest.
pub(super) fn base(manifest: &Manifest) -> Result<Base, String> {
    let Place {
        index, running_hash, ..
    } = Contents::of(manifest)?.place;
    Ok(Base {
        position: position(manifest),
        operation_index: index,
        running_hash,
    })
}

/// Why a snapshot's fold is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoFold {
    /// It cannot be one of this snapshot.
    Damaged(String),
    /// It is of a feature level that this version does not support; what to do.
    Unsupported(String),
}

impl From<String> for NoFold {
    fn from(problem: String) -> Self {
        Self::Damaged(problem)
    }
}

/// The error of a folder whose feature level is not supported.
pub(super) fn unsupported(folder: &str, why: &str) -> OpenError {
    OpenError::Identity(format!("cannot use data folder {folder}: {why}"))
}

/// The fold of a snapshot, of which `bytes` are all that comes behind the state.
pub(super) fn decode_fold(manifest: &Manifest, bytes: Bytes, supports: Supports) -> Result<Fold, NoFold> {
    let place = Contents::of(manifest)?.place;
    let supported = |level| supports.check(level).map_err(NoFold::Unsupported);
    let fold = match Fold::decode(bytes, manifest.index) {
        Ok(fold) => fold,
        Err(error) => {
            if let DecodeError::FeatureLevel(level) = error {
                supported(level)?;
            }
            return Err(NoFold::Damaged(format!("its fold is {error}")));
        }
    };
    supported(fold.feature_level)?;
    if (fold.operation_index, fold.running_hash) != (place.index, place.running_hash) {
        return Err(NoFold::Damaged(format!(
            "its fold is at operation {} with running hash {:016x}, its metadata at operation {} with {:016x}",
            fold.operation_index, fold.running_hash, place.index, place.running_hash
        )));
    }
    Ok(fold)
}

/// Reads the fold of a snapshot while opening.
pub(super) fn read_fold(
    snapshots: &Snapshots,
    disk: &mut dyn Disk,
    manifest: &Manifest,
    supports: Supports,
) -> Result<Fold, OpenError> {
    let corrupt = |problem| OpenError::Corrupt {
        file: snapshots.file(manifest.index),
        offset: 0,
        problem,
    };
    let mut offset = Contents::of(manifest).map_err(corrupt)?.state_bytes;
    let mut bytes = BytesMut::new();
    while offset < manifest.whole.bytes {
        let data = snapshots.read_now(disk, manifest.index, offset)?;
        assert!(!data.is_empty(), "there are data before the end of a snapshot");
        offset += data.len() as u64;
        bytes.extend_from_slice(&data);
    }
    decode_fold(manifest, bytes.freeze(), supports).map_err(|error| match error {
        NoFold::Damaged(problem) => corrupt(problem),
        NoFold::Unsupported(why) => unsupported(&disk.folder(), &why),
    })
}

#[cfg(test)]
mod tests {
    use raftlog_raft::membership::Configuration;
    use raftlog_storage::snapshots::Whole;

    use super::*;

    fn manifest(contents: Contents, bytes: u64) -> Manifest {
        Manifest {
            index: 9,
            term: 3,
            metadata: contents.encode(),
            whole: Whole { bytes, crc: 0 },
        }
    }

    fn origin() -> Origin {
        Origin {
            cluster: ClusterId::new(21).unwrap(),
            member: MemberId::new(22).unwrap(),
        }
    }

    #[test]
    fn metadata_that_cannot_be_are_refused() {
        let good = Contents {
            place: Place {
                index: 7,
                term: 2,
                running_hash: 11,
            },
            state_bytes: 4,
            origin: origin(),
        };
        let with = |place| Contents { place, ..good };
        let cases = [
            ("good", good, 4, true),
            ("a state longer than all", good, 3, false),
            (
                "no operation",
                with(Place {
                    index: 0,
                    ..good.place
                }),
                4,
                false,
            ),
            (
                "more operations than entries",
                with(Place {
                    index: 10,
                    ..good.place
                }),
                4,
                false,
            ),
            (
                "a later term",
                with(Place {
                    term: 4,
                    ..good.place
                }),
                4,
                false,
            ),
        ];
        for (name, contents, bytes, fine) in cases {
            let read = Contents::of(&manifest(contents, bytes));
            assert_eq!(read.is_ok(), fine, "{name}: {read:?}");
            assert!(read.is_err() || read == Ok(contents), "{name}");
        }
        let nobody = {
            let mut bytes = good.encode().to_vec();
            bytes[CONTENTS_BYTES - 8..].fill(0);
            Manifest {
                metadata: bytes.into(),
                ..manifest(good, 4)
            }
        };
        assert!(Contents::of(&nobody).is_err());
        let short = Manifest {
            metadata: Bytes::from_static(b"\x01"),
            ..manifest(good, 4)
        };
        assert!(Contents::of(&short).is_err());
    }

    #[test]
    fn a_fold_that_is_not_at_the_place_is_refused() {
        let fold = Fold {
            operation_index: 7,
            running_hash: 11,
            ..Fold::new(Configuration::default())
        };
        let mut bytes = Vec::new();
        fold.encode(&mut bytes);
        for (index, fine) in [(7, true), (6, false)] {
            let place = Place {
                index,
                term: 2,
                running_hash: 11,
            };
            let contents = Contents {
                place,
                state_bytes: 0,
                origin: origin(),
            };
            let manifest = manifest(contents, bytes.len() as u64);
            let decoded = decode_fold(&manifest, bytes.clone().into(), Supports::default());
            assert_eq!(decoded.is_ok(), fine, "{index}");
        }
    }
}
