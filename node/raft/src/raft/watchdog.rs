//! Watchdogs over disks. A member whose disk completes nothing stands in no election, and a leader whose disk is behind
//! those of a majority makes way for one of them. Where every disk is slow, or there is only one, the leader stays: nobody
//! else could do better, and to change leaders would only cost more writes. It is the same with full disks, and with logs that
//! are as long as they may be: a leader without room makes way for a member that has some, and where no majority has,
//! submissions are refused.

use super::Raft;
use crate::effect::{Notice, Refusal};
use crate::ids::MemberId;
use crate::planted::Bug;
use crate::time::Time;

const DISK_BEHIND: &str = "its own disk is behind those of a majority";
const DISK_FULL: &str = "its own disk is full";
const LOG_FULL: &str = "its own log is full, as its replicator does not execute";

impl Raft {
    /// Whether its disk has completed nothing for longer than the minimum election timeout, though there is something to
    /// write. That timeout is longer than any pause of a disk that works.
    pub fn disk_stalled(&self) -> bool {
        self.stalled_since.is_some()
    }

    /// Since when the oldest of what it has not on disk has been committed, as the disks of a majority were faster. A leader
    /// makes way then, and leads no more once that has lasted for the maximum election timeout.
    pub fn disk_behind_since(&self) -> Option<Time> {
        self.durability.overtaken_since()
    }

    fn behind_since(&self) -> Option<Time> {
        let stays = self.has(Bug::StalledLeaderStays);
        self.disk_behind_since().filter(|_| !stays)
    }

    /// When the disk's silence is a stall.
    pub(super) fn stall_deadline(&self) -> Time {
        match (self.stalled_since, self.durability.waiting_since()) {
            (None, Some(since)) => since + self.config.election_timeout_min,
            _ => Time::NEVER,
        }
    }

    /// When a leader whose disk lags has to do something about it: hand over, try that again, or step down.
    pub(super) fn disk_behind_deadline(&self) -> Time {
        let patience = if self.is_transferring() {
            self.config.election_timeout_max
        } else {
            self.config.election_timeout_min
        };
        self.behind_since().map_or(Time::NEVER, |since| since + patience)
    }

    pub(super) fn watch_disk(&mut self, now: Time) {
        if now >= self.stall_deadline() {
            self.stalled_since = self.durability.waiting_since();
            self.notice(Notice::DiskStalled {
                node: self.me(),
                silent: self.config.election_timeout_min,
            });
        }
        if self.leading().is_none() {
            return;
        }
        let overtaken = self.behind_since();
        if overtaken.is_some_and(|since| now >= since + self.config.election_timeout_max) {
            self.step_down(now, DISK_BEHIND);
        } else if now >= self.disk_behind_deadline() {
            self.make_way(now, DISK_BEHIND);
        }
    }

    /// It completed something: whatever it was silent about is over.
    pub(super) fn disk_answered(&mut self, now: Time) {
        if let Some(since) = self.stalled_since.take() {
            self.notice(Notice::DiskAnswered {
                node: self.me(),
                after: now - since,
            });
        }
    }

    /// Whether a leader refuses submissions for lack of room, and how: its own disk or log is full, or so many are that what is
    /// left is no majority, or does not keep up, so that a full log has to take what is appended.
    pub fn lack_of_room(&self, now: Time) -> Option<Refusal> {
        let leading = self.leading()?;
        let own = self.full.refusal();
        if own.is_some() || leading.without_room.is_empty() {
            return own;
        }
        if self.majority_has_room(now) {
            let mut full = leading.without_room.iter();
            let (_, fed) = full.find(|(id, full)| full.log && !self.is_spared(now, **id))?;
            return fed.refusal();
        }
        let disk = leading.without_room.values().find(|full| full.disk);
        disk.or(leading.without_room.values().next())?.refusal()
    }

    /// Whether a follower is sent no entries for now: its log is full, and a majority commits without it. It gets a snapshot in their
    /// place, or has room again when its replicator executes. Who answers and does not keep up, as its disk is slow or it has just
    /// come back, commits nothing.
    pub(super) fn is_spared(&self, now: Time, id: MemberId) -> bool {
        let is_full = self
            .leading()
            .and_then(|leading| leading.without_room.get(&id))
            .is_some_and(|full| full.log);
        let commits = |id| self.has_room(now, id) && (id == self.config.id || self.keeps_up(now, id));
        is_full && !self.is_transferring_to(id) && self.configuration().is_quorum(commits)
    }

    fn majority_has_room(&self, now: Time) -> bool {
        self.configuration().is_quorum(|id| self.has_room(now, id))
    }

    /// Whoever does not answer is not counted on.
    fn has_room(&self, now: Time, id: MemberId) -> bool {
        if id == self.config.id {
            return self.full.refusal().is_none();
        }
        let Some(leading) = self.leading() else {
            return false;
        };
        let progress = leading.peers.get(&id);
        !leading.without_room.contains_key(&id)
            && progress.is_some_and(|progress| progress.is_responsive(now, self.config.election_timeout_max))
    }

    /// A leader without room hands over to a member that has some, if that gets the cluster on. With every heartbeat it
    /// tries again.
    pub(super) fn leave_without_room(&mut self, now: Time) {
        if self.full.refusal().is_none() || !self.majority_has_room(now) {
            return;
        }
        let why = if self.full.disk { DISK_FULL } else { LOG_FULL };
        if let Ok(target) = self.choose_target(None)
            && self.has_room(now, target)
        {
            self.start_transfer(now, None, target, Some(why));
        }
    }
}
