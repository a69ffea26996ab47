//! What a member knows of its own removal beside its log: what voters have told it, and how much of that is on its disk.
//!
//! Only what is on disk counts, as the next start acts on it. It is taken back once a later configuration that lists the member
//! is committed and on disk: the member was added again.

use raftlog_raft::ids::LogIndex;
use raftlog_raft::time::Time;

use super::RETRY_FULL_DISK;

/// Versions of committed configurations that do not list this member; 0 where there is none.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// The latest that a voter has told.
    told: LogIndex,
    /// What is on disk.
    kept: LogIndex,
    /// What is on its way to the disk.
    storing: Option<LogIndex>,
    retry_at: Time,
}

/// What the member's own log says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logged {
    /// The version of its latest configuration.
    pub(super) latest: LogIndex,
    /// That of the latest one that lists the member, is committed and on disk; 0 if there is none.
    pub(super) member_since: LogIndex,
}

impl Removal {
    /// As the disk says.
    pub(super) fn kept(kept: Option<LogIndex>) -> Self {
        Self {
            kept: kept.unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Whether there is anything to keep or to take back.
    pub(super) fn is_nothing(&self) -> bool {
        self.told == 0 && self.kept == 0
    }

    /// A voter has said so.
    pub(super) fn told(&mut self, version: LogIndex) {
        self.told = self.told.max(version);
    }

    /// The version that removed the member, as the disk says, unless its log has a later one.
    ///
    /// Nobody makes a voter of a member that lacks the configuration that lists it. So whoever has none later than the one that
    /// removed it counts in no majority.
    pub(super) fn version(&self, latest: LogIndex) -> Option<LogIndex> {
        Some(self.kept).filter(|version| *version > latest)
    }

    /// What the disk is to say, if it is to change now.
    pub(super) fn next(&mut self, now: Time, logged: Logged) -> Option<LogIndex> {
        let behind = |version: LogIndex, after| if version > after { version } else { 0 };
        let wanted = behind(self.told, logged.latest).max(behind(self.kept, logged.member_since));
        if wanted == self.kept || self.storing.is_some() || now < self.retry_at {
            return None;
        }
        self.storing = Some(wanted);
        self.storing
    }

    /// That is on disk; or, if it is full, not yet.
    pub(super) fn stored(&mut self, now: Time, is_on_disk: bool) {
        let stored = self.storing.take();
        if is_on_disk {
            self.kept = stored.unwrap_or(self.kept);
        } else {
            self.retry_at = now + RETRY_FULL_DISK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Time = Time(5_000_000);

    fn logged(latest: LogIndex, member_since: LogIndex) -> Logged {
        Logged { latest, member_since }
    }

    #[test]
    fn what_is_told_counts_once_it_is_on_disk() {
        let mut removal = Removal::kept(None);
        assert_eq!(removal.next(AT, logged(3, 3)), None);
        removal.told(2);
        assert_eq!(removal.next(AT, logged(3, 3)), None, "the voter is behind");
        removal.told(7);
        assert_eq!(removal.next(AT, logged(3, 3)), Some(7));
        assert_eq!(removal.version(3), None);
        assert_eq!(removal.next(AT, logged(3, 3)), None, "it is on its way");
        removal.stored(AT, true);
        assert_eq!(removal.version(3), Some(7));
        assert_eq!(removal.next(AT, logged(3, 3)), None);
    }

    #[test]
    fn a_full_disk_is_tried_again_later() {
        let mut removal = Removal::kept(None);
        removal.told(7);
        assert!(removal.next(AT, logged(3, 3)).is_some());
        removal.stored(AT, false);
        assert_eq!(removal.version(3), None);
        assert_eq!(removal.next(AT, logged(3, 3)), None);
        assert_eq!(removal.next(AT + RETRY_FULL_DISK, logged(3, 3)), Some(7));
    }

    #[test]
    fn it_is_taken_back_once_the_member_was_added_again_for_good() {
        let mut removal = Removal::kept(Some(7));
        assert_eq!(removal.version(9), None, "the log has a later one");
        assert_eq!(removal.next(AT, logged(9, 3)), None, "that may be cut off yet");
        assert_eq!(removal.version(3), Some(7), "it was");
        assert_eq!(removal.next(AT, logged(9, 9)), Some(0));
        removal.stored(AT, true);
        assert_eq!(removal.version(3), None);
        removal.told(7);
        assert_eq!(removal.next(AT, logged(9, 9)), None, "that voter is behind");
    }
}
