//! A process's disk: it works on one operation after the other, each takes its time, and some never come to a good end.

use std::collections::VecDeque;
use std::time::Duration;

use raftlog_raft::time::Time;
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{Disk, DiskError, DiskErrorKind, Op, OpId, Outcome};
use rand_chacha::ChaCha8Rng;

/// What was done to what a disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Damage {
    None,
    /// A process that starts has to find out, and may refuse.
    Evident,
    /// It may also look as if the last batch had never been written whole.
    LooksUnwritten,
}

/// A disk with its queue.
#[derive(Debug)]
pub(crate) struct QueuedDisk {
    pub(crate) content: MemoryDisk,
    queue: VecDeque<(OpId, Op)>,
    free_at: Time,
    stalled_until: Time,
    fails_next: bool,
    /// An operation was made to fail since the process started: it may stop.
    pub(crate) has_failed: bool,
    pub(crate) damage: Damage,
}

/// What became of the operation that was to be done.
pub(crate) enum Completion {
    Done(OpId, Result<Outcome, DiskError>),
    /// Not before that time.
    Later(Time),
    Nothing,
}

impl QueuedDisk {
    pub(crate) fn new(volume_bytes: u64) -> Self {
        Self {
            content: MemoryDisk::new(volume_bytes),
            queue: VecDeque::new(),
            free_at: Time(0),
            stalled_until: Time(0),
            fails_next: false,
            has_failed: false,
            damage: Damage::None,
        }
    }

    /// Takes an operation; when it is done.
    pub(crate) fn submit(&mut self, id: OpId, op: Op, now: Time, takes: Duration) -> Time {
        self.queue.push_back((id, op));
        self.free_at = self.free_at.max(now) + takes;
        self.free_at
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.damage > Damage::None
    }

    /// More damage, on top of what there was.
    pub(crate) fn damage(&mut self, damage: Damage) {
        self.damage = self.damage.max(damage);
    }

    /// The folder is emptied.
    pub(crate) fn wipe(&mut self) {
        self.content.wipe();
        self.damage = Damage::None;
    }

    /// Operations under way.
    pub(crate) fn under_way(&self) -> usize {
        self.queue.len()
    }

    /// The first operation comes to its end.
    pub(crate) fn complete(&mut self, now: Time, random: &mut ChaCha8Rng) -> Completion {
        if now < self.stalled_until {
            return Completion::Later(self.stalled_until);
        }
        let Some((id, op)) = self.queue.pop_front() else {
            return Completion::Nothing;
        };
        let changes = !matches!(op, Op::Read { .. } | Op::List | Op::Volume);
        if changes && std::mem::take(&mut self.fails_next) {
            self.has_failed = true;
            self.content.fail(&op, random);
            let error = DiskError {
                kind: DiskErrorKind::Failed,
                message: "a write was made to fail".to_owned(),
            };
            return Completion::Done(id, Err(error));
        }
        Completion::Done(id, self.content.execute(&op))
    }

    pub(crate) fn stall(&mut self, until: Time) {
        self.stalled_until = self.stalled_until.max(until);
        self.free_at = self.free_at.max(self.stalled_until);
    }

    /// Nothing stalls or fails any more.
    pub(crate) fn heal(&mut self, volume_bytes: u64) {
        self.stalled_until = Time(0);
        self.fails_next = false;
        self.content.limit_to(volume_bytes);
    }

    pub(crate) fn fail_next(&mut self) {
        self.fails_next = true;
    }

    /// The process dies, and the machine with it where the power fails. Whether sectors survived that behind some that did not.
    pub(crate) fn abandon(&mut self, power_fails: bool, random: &mut ChaCha8Rng) -> bool {
        let under_way: Vec<Op> = self.queue.drain(..).map(|(_, op)| op).collect();
        self.free_at = Time(0);
        self.has_failed = false;
        if power_fails {
            self.content.power_failure(&under_way, random)
        } else {
            self.content.kill(&under_way, random);
            false
        }
    }
}
