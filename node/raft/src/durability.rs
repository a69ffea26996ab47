//! What of all that was handed to the disk is on it.

use std::collections::VecDeque;

use crate::ids::LogIndex;
use crate::time::Time;

/// Numbers what is handed to the disk: 1, 2, 3, ... All up to one are reported together.
pub type Ticket = u64;

#[derive(Debug, Clone, Copy)]
struct Pending {
    ticket: Ticket,
    /// The log's last index once this is on disk.
    last: LogIndex,
    since: Time,
    /// When all of it was committed without this member's disk.
    overtaken: Option<Time>,
}

/// The queue of what is not yet on disk.
#[derive(Debug)]
pub struct Durability {
    issued: Ticket,
    done: Ticket,
    pending: VecDeque<Pending>,
    persisted: LogIndex,
    /// When the disk last completed something.
    answered_at: Time,
}

impl Durability {
    /// All of a log that ends there is on disk.
    pub fn new(persisted: LogIndex) -> Self {
        Self {
            issued: 0,
            done: 0,
            pending: VecDeque::new(),
            persisted,
            answered_at: Time::default(),
        }
    }

    /// The log is on disk up to here, as far as it still holds what was written.
    pub fn persisted(&self) -> LogIndex {
        self.persisted
    }

    /// The ticket that the next [`Durability::issue`] gives.
    pub fn next(&self) -> Ticket {
        self.issued + 1
    }

    /// Whether what that ticket stands for is on disk.
    pub fn is_done(&self, ticket: Ticket) -> bool {
        ticket <= self.done
    }

    /// Something is handed to the disk, with which the log ends at `last`.
    pub fn issue(&mut self, last: LogIndex, now: Time) -> Ticket {
        self.issued += 1;
        self.pending.push_back(Pending {
            ticket: self.issued,
            last,
            since: now,
            overtaken: None,
        });
        self.issued
    }

    /// The log is on disk up to there, though not as entries: a snapshot holds them.
    pub fn is_in_snapshot(&mut self, through: LogIndex) {
        self.persisted = self.persisted.max(through);
    }

    /// The ticket with which all that was handed to the disk so far is on it.
    pub fn last_issued(&self) -> Ticket {
        self.issued
    }

    /// The log lost everything from that index on; what is on disk of it counts no more.
    pub fn truncate(&mut self, from: LogIndex) {
        let kept = from - 1;
        self.persisted = self.persisted.min(kept);
        for pending in &mut self.pending {
            pending.last = pending.last.min(kept);
        }
    }

    /// All up to that ticket is on disk.
    pub fn complete(&mut self, through: Ticket, now: Time) {
        assert!(through <= self.issued, "ticket {through} was never issued");
        self.done = self.done.max(through);
        self.answered_at = now;
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.ticket <= through) {
            self.persisted = self.persisted.max(pending.last);
        }
    }

    /// Since when the disk has had something to write and has completed nothing.
    pub fn waiting_since(&self) -> Option<Time> {
        let oldest = self.pending.front()?;
        Some(oldest.since.max(self.answered_at))
    }

    /// The log is committed up to there.
    pub fn committed(&mut self, index: LogIndex, now: Time) {
        let end = self.pending.partition_point(|pending| pending.last <= index);
        let new = self.pending.range_mut(..end).rev();
        new.take_while(|pending| pending.overtaken.is_none())
            .for_each(|pending| pending.overtaken = Some(now));
    }

    /// Since when the oldest of what is not on disk has been committed: others' disks were faster.
    pub fn overtaken_since(&self) -> Option<Time> {
        self.pending.front()?.overtaken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_truncated_while_under_way_does_not_count() {
        let mut disk = Durability::new(0);
        let first = disk.issue(5, Time(1));
        disk.truncate(3);
        let second = disk.issue(4, Time(2));
        disk.complete(first, Time(3));
        assert_eq!(disk.persisted(), 2, "3..=5 were of another leader");
        assert_eq!(disk.waiting_since(), Some(Time(3)), "it answered just now");
        disk.complete(second, Time(4));
        assert_eq!((disk.persisted(), disk.waiting_since()), (4, None));
    }

    #[test]
    fn what_is_committed_before_it_is_on_disk_is_overtaken() {
        let mut disk = Durability::new(0);
        let first = disk.issue(2, Time(1));
        let second = disk.issue(4, Time(2));
        disk.issue(5, Time(3));
        disk.committed(1, Time(4));
        assert_eq!(disk.overtaken_since(), None, "not all of the oldest");
        disk.committed(2, Time(5));
        disk.committed(4, Time(6));
        assert_eq!(disk.overtaken_since(), Some(Time(5)));
        disk.complete(first, Time(7));
        assert_eq!(disk.overtaken_since(), Some(Time(6)));
        disk.complete(second, Time(8));
        assert_eq!(disk.overtaken_since(), None);
    }
}
