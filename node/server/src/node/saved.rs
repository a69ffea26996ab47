//! A snapshot in a file by itself, and a data folder that is made of it: of the only voter of a new cluster that has the old one's
//! operations up to there.
//!
//! The folder is what a survivor's is that has gone on alone: its identity says of which cluster the log was and where it ends,
//! and the next start appends the entry with which the new cluster begins. The log is empty and begins behind the snapshot.
//! The identity is stored last: a folder without one is of no node, and refused by all that find a log in it.

use std::path::Path;

use bytes::BytesMut;
use raftlog_raft::entry::{Entry, HardState};
use raftlog_raft::feature::Supports;
use raftlog_raft::fold::{Fold, Parent};
use raftlog_raft::ids::{ClusterId, MemberId};
use raftlog_raft::membership::{Configuration, Member};
use raftlog_raft::message::LogPosition;
use raftlog_storage::identity::{Identity, Program, RecoveredFrom};
use raftlog_storage::snapshots::{SnapshotFile, Snapshots};
use raftlog_storage::{Append, Disk, OpenError, Wal, WalOptions};

use super::api::Place;
use super::snapshot::{self, Contents, NoFold};
use super::store::Store;
use super::survivor::Alone;
use super::{recovery, survivor};

/// What a file holds.
#[derive(Debug)]
pub struct SavedSnapshot {
    file: SnapshotFile,
    /// The cluster in which it was taken.
    pub cluster: ClusterId,
    /// The member that took it.
    pub member: MemberId,
    /// The last operation in it.
    pub place: Place,
    /// The last entry in it.
    pub last: LogPosition,
    /// The members.
    pub configuration: Configuration,
    /// Sessions that it remembers.
    pub sessions: usize,
    /// The cluster that its cluster was recovered from, if it was.
    pub parent: Option<Parent>,
    /// Length of the replicator's state.
    pub state_bytes: u64,
    /// Length of all data.
    pub bytes: u64,
    /// CRC-32 of all data.
    pub crc: u32,
}

impl SavedSnapshot {
    /// Reads all of it. `seen` is told how many bytes of data were. The error is one line.
    pub fn open(path: &Path, seen: &mut dyn FnMut(u64)) -> Result<Self, String> {
        let file = SnapshotFile::open(path)?;
        file.check(seen)?;
        let manifest = file.manifest().clone();
        let no_use = |why: String| format!("{} is of no use: {why}", file.name());
        let contents = Contents::of(&manifest).map_err(no_use)?;
        let fold = read_fold(&file, contents)?;
        let fold =
            snapshot::decode_fold(&manifest, fold.freeze(), Supports::default()).map_err(|no_fold| {
                match no_fold {
                    NoFold::Damaged(why) | NoFold::Unsupported(why) => no_use(why),
                }
            })?;
        let Contents {
            place,
            state_bytes,
            origin,
        } = contents;
        let Fold {
            configuration,
            sessions,
            parent,
            ..
        } = fold;
        Ok(Self {
            file,
            cluster: origin.cluster,
            member: origin.member,
            place,
            last: snapshot::position(&manifest),
            configuration,
            sessions: sessions.len(),
            parent,
            state_bytes,
            bytes: manifest.whole.bytes,
            crc: manifest.whole.crc,
        })
    }

    /// Makes a data folder of it, which must be empty, of a node as it is told: the only voter of a new cluster.
    pub fn restore(
        &self,
        disk: &mut dyn Disk,
        node: Member,
        random: &mut dyn rand::Rng,
    ) -> Result<Alone, OpenError> {
        let alone = Alone {
            cluster: ClusterId::random(random),
            member: MemberId::random(random),
        };
        begin_log(disk, alone.member)?;
        self.copy_to(disk)?;
        let recovered = RecoveredFrom {
            cluster: self.cluster,
            log_owner: alone.member,
            after: self.last.index,
        };
        let member = Member {
            id: alone.member,
            voter: true,
            ..node
        };
        let identity = Identity {
            cluster: Some(alone.cluster),
            formed: true,
            recovered: Some(recovered),
            bootstrap: vec![member.clone()],
            ..Identity::new(Program::Node, member.node, member.id)
        };
        disk.execute(&identity.store())?;
        survivor::complete(disk, &identity)?;
        Ok(alone)
    }

    fn copy_to(&self, disk: &mut dyn Disk) -> Result<(), OpenError> {
        let failed = |why: String| OpenError::Identity(format!("{}: {why}", self.file.name()));
        let manifest = self.file.manifest();
        let (mut snapshots, _) = Snapshots::open(disk)?;
        let begun = snapshots.begin(manifest.clone(), true);
        let mut offset = begun.map_err(|refused| failed(refused.to_string()))?;
        while offset < manifest.whole.bytes {
            let data = self.file.read(offset).map_err(OpenError::Identity)?;
            let taken = snapshots.receive(offset, &data);
            taken.map_err(|refused| failed(refused.to_string()))?;
            offset += data.len() as u64;
            snapshots.write_now(disk)?;
        }
        let whole = snapshots.finish();
        whole.map_err(|refused| failed(refused.to_string()))?;
        snapshots.write_now(disk)
    }
}

fn read_fold(file: &SnapshotFile, contents: Contents) -> Result<BytesMut, String> {
    let mut bytes = BytesMut::new();
    let (mut offset, end) = (contents.state_bytes, file.manifest().whole.bytes);
    while offset < end {
        let data = file.read(offset)?;
        offset += data.len() as u64;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The log's first batch: what a formed member has.
fn begin_log(disk: &mut dyn Disk, owner: MemberId) -> Result<(), OpenError> {
    let (wal, _) = Wal::<Entry>::open(disk, WalOptions::new(owner.get()), &mut |_| Ok(()))?;
    let (snapshots, _) = Snapshots::open(disk)?;
    let mut store = Store { wal, snapshots };
    let mut state = Vec::new();
    HardState::default().encode(&mut state);
    store.wal.append(Append {
        state: Some(state.into()),
        ..Append::default()
    });
    recovery::finish_writing(disk, &mut store)
}
