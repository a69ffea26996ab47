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
}

/// The queue of what is not yet on disk.
#[derive(Debug)]
pub struct Durability {
    issued: Ticket,
    done: Ticket,
    pending: VecDeque<Pending>,
    persisted: LogIndex,
}

impl Durability {
    /// All of a log that ends there is on disk.
    pub fn new(persisted: LogIndex) -> Self {
        Self {
            issued: 0,
            done: 0,
            pending: VecDeque::new(),
            persisted,
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
    pub fn complete(&mut self, through: Ticket) {
        assert!(through <= self.issued, "ticket {through} was never issued");
        self.done = self.done.max(through);
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.ticket <= through) {
            self.persisted = self.persisted.max(pending.last);
        }
    }

    /// Since when the oldest of what is not on disk has been waiting.
    pub fn waiting_since(&self) -> Option<Time> {
        self.pending.front().map(|pending| pending.since)
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
        disk.complete(first);
        assert_eq!(disk.persisted(), 2, "3..=5 were of another leader");
        assert_eq!(disk.waiting_since(), Some(Time(2)));
        disk.complete(second);
        assert_eq!((disk.persisted(), disk.waiting_since()), (4, None));
    }
}
