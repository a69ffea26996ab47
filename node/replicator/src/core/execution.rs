//! Execution: in order, only what is committed, with a bounded amount handed out at a time (design 6.6).

use std::collections::VecDeque;

use raftlog_raft::ids::{OperationIndex, Term};
use raftlog_raft::planted::Bug;

use super::effect::Effect;
use super::operation::{Operation, Place};
use super::replicator::{Phase, Replicator, fitting};

/// The id under which the log is read back for execution.
pub(super) const EXECUTION_READ: u64 = 0;

/// What the executor is to do, in order, one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// At least one.
    pub operations: Vec<Operation>,
    /// The term that the node leads, where only the leader's replicator executes: it goes with every call, so that an endpoint can tell
    /// a leader from one that only thinks it still leads.
    pub leader_term: Option<Term>,
}

/// What the executor has, and what it has done.
#[derive(Debug)]
pub(super) struct Execution {
    executed: Place,
    /// Handed out and not done, in order, each with its weight.
    handed_out: VecDeque<(Place, usize)>,
    handed_out_bytes: usize,
    /// The log is being read back for the next run.
    reading: bool,
    /// What is read back is not what comes next any more.
    read_in_vain: bool,
}

impl Execution {
    pub(super) fn new(executed: Place) -> Self {
        Self {
            executed,
            handed_out: VecDeque::new(),
            handed_out_bytes: 0,
            reading: false,
            read_in_vain: false,
        }
    }

    pub(super) fn executed(&self) -> Place {
        self.executed
    }

    /// The last one that the executor was given.
    pub(super) fn given(&self) -> Place {
        self.handed_out.back().map_or(self.executed, |(place, _)| *place)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.handed_out.is_empty()
    }

    /// Nothing is on its way to it either.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_idle() && !self.reading
    }

    /// Operations handed out and not done.
    pub(super) fn operations(&self) -> usize {
        self.handed_out.len()
    }

    pub(super) fn done(&mut self, through: OperationIndex) {
        while let Some((place, weight)) = self
            .handed_out
            .front()
            .copied()
            .filter(|(p, _)| p.index <= through)
        {
            self.executed = place;
            self.handed_out_bytes -= weight;
            self.handed_out.pop_front();
        }
    }

    /// What was handed out and is not known to be done is not at the executor any more.
    pub(super) fn take_back(&mut self) {
        self.handed_out.clear();
        self.handed_out_bytes = 0;
        self.read_in_vain = self.reading;
    }

    /// Goes on behind that operation: forth, or back to what an executor still knows.
    pub(super) fn go_on_after(&mut self, place: Place) {
        self.take_back();
        self.executed = place;
    }

    fn next(&self) -> OperationIndex {
        self.given().index + 1
    }

    fn hand_out(&mut self, run: &[Operation]) {
        for operation in run {
            self.handed_out.push_back((operation.place(), operation.weight()));
            self.handed_out_bytes += operation.weight();
        }
    }
}

impl Replicator {
    /// The log would grow without bound where the node is faster than the executor. What is not committed does not count:
    /// that it is, the node can only say if it is listened to. Neither does it matter before the node has said how to start.
    pub(super) fn waits_for_executor(&self) -> bool {
        let is_heard = self.stream.as_ref().is_some_and(|stream| stream.agreed.is_some());
        // An executor that is ahead waits for the very operations that are not taken.
        if !is_heard || self.is_bounded_by_marks() || self.attachment.is_ahead_of(self.commit.index) {
            return false;
        }
        let executed = self.execution.executed().index;
        let segment = self.wal.segment_bytes();
        let bytes_max = self.config.unexecuted_bytes_max.unwrap_or(3 * segment);
        executed < self.commit.index && self.wal.bytes_beyond(executed) >= bytes_max.saturating_add(segment)
    }

    /// Execution never counts for readiness (design 4.2): what its bound keeps out does not have to be held first.
    pub(super) fn excuse_executor(&mut self) {
        if self.waits_for_executor() {
            let commit = self.commit.index;
            self.ready_at = self.ready_at.map(|target| target.min(commit));
        }
    }

    /// Hands out what is committed, as far as the executor has room.
    pub(super) fn execute_more(&mut self) {
        while self.is_its_turn() {
            let last = if self.config.planted.has(Bug::ExecutedUncommitted) {
                self.held.last().index
            } else {
                self.commit.index
            };
            let first = self.execution.next();
            // Half the room at a time: a run at a time costs less than an operation at a time.
            let bytes = self.config.executing_bytes_max / 2;
            let count = self.config.executing_operations_max / 2;
            let busy = self.execution.handed_out_bytes > bytes || self.execution.operations() > count;
            if first > last || busy {
                return;
            }
            let last = last.min(first.saturating_add(count as u64));
            let in_memory = self.held.range(first, last);
            if let Some(run) = in_memory.map(|operations| fitting(operations, bytes)) {
                self.hand_out(run);
            } else {
                self.execution.reading = true;
                let last = last.min(self.held.recent_from() - 1);
                if let Some(run) = self.wal.read(EXECUTION_READ, first, last, bytes) {
                    self.read_back(EXECUTION_READ, run);
                }
            }
        }
    }

    /// Whether the executor is to be given anything now.
    fn is_its_turn(&self) -> bool {
        let waits = self.phase != Phase::Running || self.execution.reading || self.is_restoring();
        !waits && self.attachment.may_execute() && self.is_the_one_that_executes()
    }

    fn hand_out(&mut self, operations: Vec<Operation>) {
        self.execution.hand_out(&operations);
        let leader_term = self.leadership.term();
        self.effects.push(Effect::Execute(Run {
            operations,
            leader_term,
        }));
    }

    /// The log was read back for execution.
    pub(super) fn execute_read_back(&mut self, run: Vec<Operation>) {
        self.execution.reading = false;
        let in_vain = std::mem::take(&mut self.execution.read_in_vain);
        if in_vain || !self.is_its_turn() {
            return;
        }
        let expected = self.execution.next();
        let found = run.first().map_or(0, |first| first.index);
        assert_eq!(found, expected, "the log answers with what was asked for");
        self.hand_out(run);
    }
}
