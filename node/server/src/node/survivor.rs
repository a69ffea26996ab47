//! A member whose majority is lost for good, and how it goes on alone: as the only voter of a new cluster that has the old
//! one's operations, as far as they are here.
//!
//! Its identity is all that changes, in one step: it says which cluster the log was of, whose it is and where it ends. The next
//! start appends the entry with which the new cluster begins. So a folder is the old member's until that step and the new
//! one's from then on, whenever the process ends.

use raftlog_raft::fold::Fold;
use raftlog_raft::ids::{ClusterId, LogIndex, MemberId, NodeNumber, OperationIndex};
use raftlog_raft::membership::{Configuration, Member};
use raftlog_raft::message::LogPosition;
use raftlog_storage::identity::{Identity, Program, RecoveredFrom};
use raftlog_storage::{Disk, OpenError};

use super::api::SnapshotPolicy;
use super::room::Room;
use super::{recovery, volume_bytes};

/// What a folder holds.
#[derive(Debug)]
pub struct Survivor {
    identity: Identity,
    cluster: ClusterId,
    /// The members, as far as this one knows.
    pub members: Configuration,
    /// Its last entry.
    pub last: LogPosition,
    /// Operations that it holds.
    pub operations: OperationIndex,
    /// Of them those that it knows to be committed.
    pub committed: OperationIndex,
    /// Sessions that it remembers.
    pub sessions: usize,
    /// The end of its log was damaged: what it acknowledged itself may be missing.
    pub suspect: bool,
}

/// What it is alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alone {
    /// The new cluster.
    pub cluster: ClusterId,
    /// Its only voter.
    pub member: MemberId,
}

impl Survivor {
    /// Looks at a folder. Like a start, this completes what an interrupted one left.
    pub fn examine(disk: &mut dyn Disk) -> Result<Self, OpenError> {
        let folder = disk.folder();
        let refused = |why: &str| OpenError::Identity(format!("data folder {folder} {why}"));
        let identity = Identity::load(disk)?.ok_or_else(|| refused("holds no node: is it the right one?"))?;
        identity.check(Program::Node, identity.node, &folder)?;
        let cluster = identity.cluster.filter(|_| identity.formed);
        let cluster = cluster
            .ok_or_else(|| refused("belongs to no cluster: nothing is lost with it, start it empty"))?;
        let room = room(disk)?;
        let (_, found) = recovery::read(disk, &identity, recovery::Settings::default(), &room)?;
        let fold = found.log.fold();
        if left_alone(&identity, fold, found.log.last().index + 1).is_none() {
            return Err(refused(
                "is not of a member: the last configuration in its log does not list it; recover another one",
            ));
        }
        Ok(Self {
            cluster,
            members: fold.configuration.clone(),
            last: found.log.last(),
            operations: fold.operation_index,
            committed: found.log.operation_index_at(found.log.settled()),
            sessions: fold.sessions.len(),
            suspect: found.suspect,
            identity,
        })
    }

    /// The version of the configuration that removed it, as a voter has told it.
    pub fn removed_by(&self) -> Option<LogIndex> {
        self.identity.removed_by
    }

    /// Its number.
    pub fn node(&self) -> NodeNumber {
        self.identity.node
    }

    /// What it is now.
    pub fn now(&self) -> Alone {
        Alone {
            cluster: self.cluster,
            member: self.identity.member,
        }
    }

    /// Whether it is a recovered one that was never started since: there is nothing left to be done.
    pub fn is_recovered(&self) -> bool {
        let recovered = self.identity.recovered;
        recovered.is_some_and(|from| self.last.index <= from.after + 1)
    }

    /// Becomes the only voter of a new cluster, for good.
    pub fn go_on_alone(&self, disk: &mut dyn Disk, random: &mut dyn rand::Rng) -> Result<Alone, OpenError> {
        let alone = Alone {
            cluster: ClusterId::random(random),
            member: MemberId::random(random),
        };
        let identity = Identity {
            cluster: Some(alone.cluster),
            member: alone.member,
            recovered: Some(RecoveredFrom {
                cluster: self.cluster,
                log_owner: self.identity.log_owner(),
                after: self.last.index,
            }),
            removed_by: None,
            ..self.identity.clone()
        };
        disk.execute(&identity.store())?;
        complete(disk, &identity)?;
        Ok(alone)
    }

    /// What an interrupted [`Survivor::go_on_alone`] left to be done.
    pub fn complete(&self, disk: &mut dyn Disk) -> Result<(), OpenError> {
        complete(disk, &self.identity)
    }
}

/// Has a new cluster begin that an identity speaks of.
pub(super) fn complete(disk: &mut dyn Disk, identity: &Identity) -> Result<(), OpenError> {
    let room = room(disk)?;
    recovery::recover(disk, identity, recovery::Settings::default(), &room)?;
    Ok(())
}

fn room(disk: &mut dyn Disk) -> Result<Room, OpenError> {
    Ok(Room::new(SnapshotPolicy::default(), volume_bytes(disk)?))
}

/// The configuration of that member alone, at the addresses that the log knows of its node; `None` if it knows none.
pub(super) fn left_alone(identity: &Identity, fold: &Fold, version: LogIndex) -> Option<Configuration> {
    let listed = fold.configuration.node(identity.node)?;
    let member = Member {
        id: identity.member,
        voter: true,
        ..listed.clone()
    };
    Some(Configuration::new(version, vec![member]))
}
