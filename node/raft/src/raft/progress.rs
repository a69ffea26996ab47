//! What a leader knows of one follower, and what is under way to it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::feature::Supports;
use crate::ids::{LogIndex, OperationIndex};
use crate::message::{READS_MAX, ReadAnswer};
use crate::time::Time;

/// One follower, as its leader sees it.
#[derive(Debug)]
pub struct Progress {
    /// On the follower's disk and equal to the leader's log up to here.
    pub matched: LogIndex,
    /// Send time of the latest round that it answered.
    pub acknowledged_at: Time,
    /// The feature levels that it supports, once it has told this leader.
    pub supports: Option<Supports>,
    /// Where the next entries to send begin.
    pub(super) next: LogIndex,
    /// Whether the logs are known to agree before `next`, so that batches may follow one another unanswered.
    pub(super) pipelining: bool,
    pub(super) acknowledged_round: u64,
    pub(super) commit_sent: LogIndex,
    /// Entries are being read back from the leader's disk.
    pub(super) reading: bool,
    /// What the next flush sends whether or not there are entries to send.
    pub(super) ordered: Ordered,
    pub(super) read_answers: Vec<ReadAnswer>,
    snapshot: Lack,
    /// Since the last heartbeat a snapshot was ordered for it that it lacks nothing of.
    gets_wanted_snapshot: bool,
    in_flight: VecDeque<Batch>,
    in_flight_bytes: usize,
    catching_up: CatchingUp,
}

/// How a follower gets hold of the whole log, in rounds (thesis 4.2.1): each begins with what the leader holds at that time,
/// and when one takes less than an election timeout, the follower keeps up.
#[derive(Debug, Clone, Copy, Default)]
struct CatchingUp {
    /// The round under way: where it ends, and when it began.
    round: Option<(LogIndex, Time)>,
    keeps_up: bool,
}

/// Whether it lacks entries that the leader has in a snapshot only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Nothing,
    /// It gets heartbeats and no entries.
    Snapshot,
    /// The same, and since the last heartbeat the snapshot was ordered for it.
    Ordered,
}

/// What was ordered, each including the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Ordered {
    #[default]
    Nothing,
    /// Anything at all, so that its round gets answered.
    Round,
    /// What the clock demands.
    Heartbeat,
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    last: LogIndex,
    bytes: usize,
}

impl Progress {
    /// A follower of which nothing is known but that it was there just now: assume that it holds what the leader held.
    pub(super) fn new(last: LogIndex, now: Time) -> Self {
        Self {
            matched: 0,
            acknowledged_at: now,
            supports: None,
            next: last + 1,
            pipelining: true,
            acknowledged_round: 0,
            commit_sent: 0,
            reading: false,
            ordered: Ordered::Heartbeat,
            read_answers: Vec::new(),
            snapshot: Lack::Nothing,
            gets_wanted_snapshot: false,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            catching_up: CatchingUp::default(),
        }
    }

    /// Whether it answered this leader within that time.
    pub fn is_responsive(&self, now: Time, within: Duration) -> bool {
        self.has_answered() && now < self.acknowledged_at + within
    }

    /// Whether it has ever answered this leader.
    pub fn has_answered(&self) -> bool {
        self.acknowledged_round > 0
    }

    /// Whether it holds what the leader does, but for what has come within that time (thesis 4.2.1).
    pub fn is_caught_up(&self, now: Time, within: Duration) -> bool {
        let CatchingUp { round, keeps_up } = self.catching_up;
        keeps_up && round.is_none_or(|(_, since)| now - since <= within)
    }

    /// The follower has answered, and the leader's log ends at `last`.
    pub(super) fn track_catching_up(&mut self, last: LogIndex, now: Time, within: Duration) {
        let CatchingUp { round, keeps_up } = &mut self.catching_up;
        match *round {
            Some((end, _)) if self.matched < end => return,
            Some((_, since)) => *keeps_up = now - since <= within,
            None => *keeps_up |= self.matched == last,
        }
        *round = (self.matched < last).then_some((last, now));
    }

    /// Whether it lacks entries that the leader has in a snapshot only.
    pub fn needs_snapshot(&self) -> bool {
        self.snapshot != Lack::Nothing
    }

    /// Weight of the entries that are under way.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// Room for that many more bytes of entries.
    pub(super) fn room(&self, bytes_max: usize) -> usize {
        bytes_max.saturating_sub(self.in_flight_bytes)
    }

    /// The next flush sends something, so that its round gets answered.
    pub(super) fn order_round(&mut self) {
        self.ordered = self.ordered.max(Ordered::Round);
    }

    /// The next flush sends what the clock demands.
    pub(super) fn order_heartbeat(&mut self) {
        self.ordered = Ordered::Heartbeat;
        self.gets_wanted_snapshot = false;
        if self.snapshot == Lack::Ordered {
            self.snapshot = Lack::Snapshot;
        }
    }

    /// Whether to send it a snapshot now that it has answered: once a heartbeat, for as long as it needs one.
    pub(super) fn order_snapshot(&mut self) -> bool {
        let due = self.snapshot == Lack::Snapshot;
        if due {
            self.snapshot = Lack::Ordered;
        }
        due
    }

    /// Whether to send it a snapshot that it lacks nothing of, to make room in its log: once a heartbeat.
    pub(super) fn order_wanted_snapshot(&mut self) -> bool {
        !std::mem::replace(&mut self.gets_wanted_snapshot, true)
    }

    /// Entries up to `last` were sent.
    pub(super) fn sent(&mut self, last: LogIndex, bytes: usize) {
        self.next = last + 1;
        self.in_flight.push_back(Batch { last, bytes });
        self.in_flight_bytes += bytes;
    }

    /// The follower answered a round; both it and its time only go forward.
    pub(super) fn answered(&mut self, round: u64, now: Time) {
        self.acknowledged_round = self.acknowledged_round.max(round);
        self.acknowledged_at = self.acknowledged_at.max(Time(round).min(now));
    }

    /// The follower holds the leader's log up to `received`, and on disk up to `matched`.
    pub(super) fn agreed(&mut self, matched: LogIndex, received: LogIndex) {
        self.matched = self.matched.max(matched);
        while let Some(batch) = self.in_flight.pop_front_if(|batch| batch.last <= self.matched) {
            self.in_flight_bytes -= batch.bytes;
        }
        if !self.pipelining && received + 1 >= self.next {
            self.pipelining = true;
            self.snapshot = Lack::Nothing;
            self.next = received + 1;
            self.order_round();
        }
        self.next = self.next.max(self.matched + 1);
    }

    /// The logs differ before `next`, or what was sent got lost: look for the last common entry from `next` on, one
    /// message at a time.
    pub(super) fn probe_from(&mut self, next: LogIndex) {
        self.stop_pipelining(next.max(self.matched + 1));
        self.snapshot = Lack::Nothing;
        self.order_round();
    }

    /// The logs agree before `base` at best, and what lies there is in a snapshot. Heartbeats ask whether that has changed:
    /// to ask at once again would spin.
    pub(super) fn left_behind(&mut self, base: LogIndex) {
        self.stop_pipelining(base + 1);
        if !self.needs_snapshot() {
            self.snapshot = Lack::Snapshot;
        }
    }

    fn stop_pipelining(&mut self, next: LogIndex) {
        self.pipelining = false;
        self.next = next;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    /// Whatever was under way may be lost, and the follower may even have come back with less than it had: nothing counts
    /// until it says anew what it holds.
    pub(super) fn forget(&mut self, last: LogIndex) {
        self.matched = 0;
        self.commit_sent = 0;
        self.catching_up = CatchingUp::default();
        self.probe_from(last + 1);
    }

    /// Whether an answer of a conflict before `previous + 1` is about what is being tried now, and not an old one.
    pub(super) fn is_current_conflict(&self, previous: LogIndex) -> bool {
        previous > self.matched
            && (if self.pipelining {
                previous < self.next
            } else {
                previous == self.next - 1
            })
    }

    /// As many answers as one message has room for; those that are left go with the next.
    pub(super) fn some_read_answers(&mut self) -> Vec<ReadAnswer> {
        let count = self.read_answers.len().min(READS_MAX);
        self.read_answers.drain(..count).collect()
    }

    /// Tells it with the next message how far a read has to see.
    pub(super) fn answer_read(&mut self, id: u64, index: Option<OperationIndex>) {
        self.read_answers.push(ReadAnswer { id, index });
    }
}
