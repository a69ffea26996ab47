//! What a leader and a follower say to each other about a snapshot (Raft 7), beside what the cores say. The
//! cluster ID is added and checked where messages leave and enter the process.

use bytes::Bytes;
use raftlog_raft::ids::{LogIndex, MemberId, Term};
use raftlog_storage::snapshots::Manifest;

/// Which snapshot something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotId {
    /// Index of the last entry that it holds.
    pub index: LogIndex,
    /// CRC-32 of its data: two members may each have taken one at the same index.
    pub crc: u32,
}

impl SnapshotId {
    /// That of the snapshot with this manifest.
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            index: manifest.index,
            crc: manifest.whole.crc,
        }
    }
}

/// From a leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallSnapshot {
    /// Who says it.
    pub from: MemberId,
    /// To whom.
    pub to: MemberId,
    /// The sender's term.
    pub term: Term,
    /// What it says.
    pub part: SnapshotPart,
}

/// The parts of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotPart {
    /// Its beginning. An answer says where data go on.
    Offer(Manifest),
    /// A piece of its data.
    Data {
        /// Of which snapshot.
        id: SnapshotId,
        /// Of the first byte.
        offset: u64,
        /// At most 1 MiB.
        data: Bytes,
    },
}

/// From a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallSnapshotResponse {
    /// Who says it.
    pub from: MemberId,
    /// To whom.
    pub to: MemberId,
    /// The sender's term.
    pub term: Term,
    /// About which snapshot.
    pub id: SnapshotId,
    /// What it says.
    pub answer: SnapshotAnswer,
}

/// What a follower says to a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotAnswer {
    /// To an offer: data are wanted from this offset on.
    GoOnAt(u64),
    /// So many bytes are on its disk.
    Received(u64),
    /// Its log holds, or begins behind, everything that is in the snapshot.
    Installed,
    /// It has no use for it; why, for people.
    Refused(String),
}
