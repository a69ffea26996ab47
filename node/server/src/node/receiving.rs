//! A snapshot that comes from the leader: received to disk, then what contradicts it in the log gives way, then it is saved,
//! then its fold is read back, and the core starts from it. Each step is on disk before the next begins, so that the process may
//! end at any point: a restart goes on receiving, or finds the snapshot and starts from it.

use bytes::{Bytes, BytesMut};
use raftlog_raft::durability::Ticket;
use raftlog_raft::feature::Supports;
use raftlog_raft::fold::Fold;
use raftlog_raft::ids::MemberId;
use raftlog_raft::time::Time;
use raftlog_raft::{Raft, RoleName};
use raftlog_storage::snapshots::{Manifest, Refused, SnapshotEvent, Snapshots};

use super::install_snapshot::{InstallSnapshot, SnapshotAnswer, SnapshotId, SnapshotPart};
use super::snapshot::{self, Contents, NoFold};

/// Numbers of reads of this part have this bit.
const READS: u64 = 1 << 61;

/// The snapshot that comes in, if one does.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    incoming: Option<Incoming>,
    last_read: u64,
}

#[derive(Debug)]
struct Incoming {
    from: MemberId,
    manifest: Manifest,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Data come in.
    Data,
    /// All are here; what contradicts them is being cut off the log.
    MakingWay(Ticket),
    Saving,
    /// It is on disk, and its fold is read, of which this much was; perhaps the next piece is being read.
    ReadingFold {
        bytes: BytesMut,
        reading: bool,
    },
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Say it to that member.
    Answer(MemberId, SnapshotId, SnapshotAnswer),
    /// It is on disk: the core may start from it.
    Install(MemberId, Manifest, Box<Fold>),
    /// What is on disk is damaged.
    Stop(String),
}

impl Incoming {
    fn id(&self) -> SnapshotId {
        SnapshotId::of(&self.manifest)
    }

    fn answer(&self, answer: SnapshotAnswer) -> Step {
        Step::Answer(self.from, self.id(), answer)
    }

    /// Whether it is the one that the store takes in, and not one that was taken here since.
    fn is_coming_in(&self, snapshots: &Snapshots) -> bool {
        snapshots
            .incoming()
            .is_some_and(|(index, _)| index == self.manifest.index)
    }
}

impl Receiving {
    /// Whether a snapshot comes in: none is to be taken meanwhile.
    pub(super) fn is_under_way(&self) -> bool {
        self.incoming.is_some()
    }

    /// A leader says something.
    pub(super) fn heard(
        &mut self,
        now: Time,
        message: InstallSnapshot,
        raft: &mut Raft,
        snapshots: &mut Snapshots,
    ) -> Vec<Step> {
        let InstallSnapshot { from, term, part, .. } = message;
        raft.term_heard(now, term);
        let id = match &part {
            SnapshotPart::Offer(manifest) => SnapshotId::of(manifest),
            SnapshotPart::Data { id, .. } => *id,
        };
        // An earlier one is over; a later one is heeded by now, unless no election can have come to it.
        let answer = if term == raft.term() {
            match part {
                SnapshotPart::Offer(manifest) => self.offered(from, manifest, raft, snapshots),
                SnapshotPart::Data { id, offset, data } => self.received(id, offset, &data, snapshots),
            }
        } else {
            Some(SnapshotAnswer::Refused("it is in another term".to_owned()))
        };
        let mut steps: Vec<Step> = answer
            .map(|answer| Step::Answer(from, id, answer))
            .into_iter()
            .collect();
        steps.extend(self.make_way(now, raft, snapshots));
        steps
    }

    fn offered(
        &mut self,
        from: MemberId,
        manifest: Manifest,
        raft: &Raft,
        snapshots: &mut Snapshots,
    ) -> Option<SnapshotAnswer> {
        let refused = |why: String| Some(SnapshotAnswer::Refused(why));
        if raft.role() == RoleName::Leader {
            return refused("it leads itself".to_owned());
        }
        if !raft.has_use_for_snapshot(manifest.index) {
            return Some(SnapshotAnswer::Installed);
        }
        if let Some(incoming) = &mut self.incoming
            && !matches!(incoming.stage, Stage::Data)
        {
            if incoming.manifest != manifest {
                return refused("it starts from another one at this moment".to_owned());
            }
            // The answer follows when it is installed.
            incoming.from = from;
            return None;
        }
        if let Err(why) = Contents::of(&manifest).and_then(|contents| fits(&manifest, &contents, raft)) {
            return refused(why);
        }
        match snapshots.begin(manifest.clone(), true) {
            Ok(offset) => {
                let stage = Stage::Data;
                self.incoming = Some(Incoming {
                    from,
                    manifest,
                    stage,
                });
                Some(SnapshotAnswer::GoOnAt(offset))
            }
            Err(why) => refused(why.to_string()),
        }
    }

    /// Data out of order are passed over: they come again, from where it was said that they go on.
    fn received(
        &mut self,
        id: SnapshotId,
        offset: u64,
        data: &Bytes,
        snapshots: &mut Snapshots,
    ) -> Option<SnapshotAnswer> {
        let incoming = self.incoming.as_ref()?;
        if incoming.id() != id || !matches!(incoming.stage, Stage::Data) {
            return None;
        }
        if !incoming.is_coming_in(snapshots) {
            self.incoming = None;
            return None;
        }
        match snapshots.receive(offset, data) {
            Ok(()) | Err(Refused::OutOfOrder { .. } | Refused::Busy) => None,
            Err(why) => {
                self.incoming = None;
                Some(SnapshotAnswer::Refused(why.to_string()))
            }
        }
    }

    /// Once all of it is here, the log gives way.
    fn make_way(&mut self, now: Time, raft: &mut Raft, snapshots: &mut Snapshots) -> Option<Step> {
        let incoming = self.incoming.as_mut()?;
        let all = (incoming.manifest.index, incoming.manifest.whole.bytes);
        if !matches!(incoming.stage, Stage::Data) || snapshots.incoming() != Some(all) {
            return None;
        }
        match raft.make_way_for_snapshot(now, snapshot::position(&incoming.manifest)) {
            Some(ticket) => {
                incoming.stage = Stage::MakingWay(ticket);
                None
            }
            None => self.abandon(snapshots),
        }
    }

    /// The log has come to hold everything by itself.
    fn abandon(&mut self, snapshots: &mut Snapshots) -> Option<Step> {
        let incoming = self.incoming.take()?;
        if incoming.is_coming_in(snapshots) {
            snapshots.abandon();
        }
        Some(incoming.answer(SnapshotAnswer::Installed))
    }

    /// Goes on where something had to be waited for.
    pub(super) fn poll(&mut self, now: Time, raft: &Raft, snapshots: &mut Snapshots) -> Option<Step> {
        let incoming = self.incoming.as_ref()?;
        match incoming.stage {
            // By now another leader may have sent the entries, or this member have become one, or its log have room again.
            Stage::Data if !raft.has_use_for_snapshot(incoming.manifest.index) => self.abandon(snapshots),
            // Who sent it leads no more, or is not heard. What has come is kept, should the same one be sent again; meanwhile this
            // member may take one of its own.
            Stage::Data if raft.leader() != Some(incoming.from) || !raft.has_live_leader(now) => {
                self.incoming = None;
                None
            }
            Stage::MakingWay(ticket) if raft.is_persisted(ticket) => self.save(raft, snapshots),
            Stage::ReadingFold { reading: false, .. } => self.read_fold(snapshots, raft.config().supports),
            _ => None,
        }
    }

    /// The log has given way on disk.
    fn save(&mut self, raft: &Raft, snapshots: &mut Snapshots) -> Option<Step> {
        let incoming = self.incoming.as_mut()?;
        if !raft.has_use_for_snapshot(incoming.manifest.index) {
            return self.abandon(snapshots);
        }
        if !incoming.is_coming_in(snapshots) {
            self.incoming = None;
            return None;
        }
        match snapshots.finish() {
            Ok(()) => {
                incoming.stage = Stage::Saving;
                None
            }
            Err(why) => {
                let incoming = self.incoming.take()?;
                Some(incoming.answer(SnapshotAnswer::Refused(why.to_string())))
            }
        }
    }

    /// Something happened to the store.
    pub(super) fn snapshot_event(&mut self, event: &SnapshotEvent, snapshots: &Snapshots) -> Option<Step> {
        let own_read = READS | self.last_read;
        let incoming = self.incoming.as_mut()?;
        match event {
            SnapshotEvent::Synced(bytes) if incoming.is_coming_in(snapshots) => {
                Some(incoming.answer(SnapshotAnswer::Received(*bytes)))
            }
            SnapshotEvent::Saved(index) if *index == incoming.manifest.index => {
                let bytes = BytesMut::new();
                incoming.stage = Stage::ReadingFold {
                    bytes,
                    reading: false,
                };
                None
            }
            SnapshotEvent::Read { id, data } if *id == own_read => {
                if let Stage::ReadingFold { bytes, reading } = &mut incoming.stage {
                    *reading = false;
                    bytes.extend_from_slice(data);
                }
                None
            }
            SnapshotEvent::Damaged { id, damage } if *id == own_read => Some(Step::Stop(damage.to_string())),
            _ => None,
        }
    }

    /// Reads on, until the fold is whole.
    fn read_fold(&mut self, snapshots: &mut Snapshots, supports: Supports) -> Option<Step> {
        let incoming = self.incoming.as_mut()?;
        let Stage::ReadingFold { bytes, reading } = &mut incoming.stage else {
            return None;
        };
        let manifest = &incoming.manifest;
        let begins = match Contents::of(manifest) {
            Ok(contents) => contents.state_bytes,
            Err(why) => return Some(unreadable(snapshots, manifest, &why)),
        };
        let offset = begins + bytes.len() as u64;
        if offset < manifest.whole.bytes {
            self.last_read += 1;
            return match snapshots.read(READS | self.last_read, manifest.index, offset) {
                Ok(()) => {
                    *reading = true;
                    None
                }
                Err(Refused::Busy) => None,
                Err(why) => Some(unreadable(snapshots, manifest, &why.to_string())),
            };
        }
        match snapshot::decode_fold(manifest, std::mem::take(bytes).freeze(), supports) {
            Ok(fold) => {
                let Incoming { from, manifest, .. } = self.incoming.take()?;
                Some(Step::Install(from, manifest, Box::new(fold)))
            }
            Err(NoFold::Damaged(why)) => Some(unreadable(snapshots, manifest, &why)),
            Err(NoFold::Unsupported(why)) => Some(Step::Stop(why)),
        }
    }
}

/// What is committed here is in a leader's snapshot in the same way: the log is to begin behind it.
fn fits(manifest: &Manifest, contents: &Contents, raft: &Raft) -> Result<(), String> {
    let (log, at, place) = (raft.log(), manifest.index, contents.place);
    let (base, commit) = (log.base().position.index, raft.commit());
    if at > commit {
        return Ok(());
    }
    let differs = at <= base
        || log.term_at(at) != Some(manifest.term)
        || log.operation_index_at(at) != place.index
        || log
            .running_hash_at(at)
            .is_some_and(|hash| hash != place.running_hash);
    if differs {
        return Err(format!(
            "it ends with entry {at} of term {} and operation {}, running hash {:016x}, which is not what is committed here",
            manifest.term, place.index, place.running_hash
        ));
    }
    Ok(())
}

fn unreadable(snapshots: &Snapshots, manifest: &Manifest, why: &str) -> Step {
    let file = snapshots.file(manifest.index);
    Step::Stop(format!(
        "{file} cannot be used: {why}: check the disk and start again"
    ))
}
