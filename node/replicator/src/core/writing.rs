//! Lazy writing: what is held goes to the log some time later, in few large writes, so that the disk is left to the node.

use std::collections::VecDeque;

use raftlog_raft::ids::OperationIndex;
use raftlog_raft::planted::Bug;
use raftlog_storage::{Append, Ticket};

use super::durable::Durable;
use super::effect::Effect;
use super::held::Held;
use super::operation::{Operation, Place};
use super::replicator::{Phase, Replicator};

/// What was handed to the log, and what is on disk.
#[derive(Debug)]
pub(super) struct Writing {
    /// Up to here the log was given this replicator's operations.
    appended: OperationIndex,
    /// The log holds other operations from here on: the next write has to drop them.
    truncate_from: Option<OperationIndex>,
    /// The state that the log was given last.
    state_written: Durable,
    /// Writes on their way to the disk.
    under_way: VecDeque<Written>,
    /// Up to here the operations are on disk.
    pub(super) persisted: OperationIndex,
    /// The executed place on disk.
    pub(super) durable_executed: Place,
    /// The place that the log begins after, as the state on disk says.
    pub(super) durable_base: Place,
    /// Bytes held that the log was not given.
    unwritten_bytes: usize,
    /// Bytes held that are not on disk.
    pub(super) unpersisted_bytes: usize,
    pub(super) full: bool,
    /// A wake is under way.
    wake: bool,
}

#[derive(Debug)]
struct Written {
    ticket: Ticket,
    through: OperationIndex,
    /// The state that goes with it, if one does.
    state: Option<Durable>,
}

impl Writing {
    pub(super) fn new(last: OperationIndex, state: Durable) -> Self {
        Self {
            appended: last,
            truncate_from: None,
            under_way: VecDeque::new(),
            persisted: last,
            durable_executed: state.executed,
            durable_base: state.base,
            state_written: state,
            unwritten_bytes: 0,
            unpersisted_bytes: 0,
            full: false,
            wake: false,
        }
    }

    /// Nothing is on its way to the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(super) fn took(&mut self, operation: &Operation) {
        self.unwritten_bytes += operation.weight();
        self.unpersisted_bytes += operation.weight();
    }

    /// `from` and all after it was dropped, of which `dropped` was in memory.
    pub(super) fn truncated(&mut self, from: OperationIndex, dropped: &[Operation]) {
        let weight_above = |index| -> usize {
            dropped
                .iter()
                .filter(|operation| operation.index > index)
                .map(Operation::weight)
                .sum()
        };
        self.unwritten_bytes -= weight_above(self.appended);
        self.unpersisted_bytes -= weight_above(self.persisted);
        if from <= self.appended {
            // What was to be dropped before lies above what was appended, and so above this.
            self.truncate_from = Some(from);
            self.appended = from - 1;
        }
        self.persisted = self.persisted.min(from - 1);
        for written in &mut self.under_way {
            written.through = written.through.min(from - 1);
        }
    }

    /// A snapshot is on disk in the place of all that was.
    pub(super) fn restored(&mut self, state: Durable) {
        let (full, wake) = (self.full, self.wake);
        *self = Self {
            full,
            wake,
            ..Self::new(state.base.index, state)
        };
    }

    /// What the log holds and this replicator dropped, for the next write.
    pub(super) fn take_truncation(&mut self) -> Option<OperationIndex> {
        self.truncate_from.take()
    }

    fn handed_to_log(&mut self, ticket: Ticket, through: OperationIndex, state: Option<Durable>) {
        self.appended = through;
        self.unwritten_bytes = 0;
        if let Some(state) = &state {
            self.state_written.clone_from(state);
        }
        self.under_way.push_back(Written {
            ticket,
            through,
            state,
        });
    }

    pub(super) fn persisted(&mut self, ticket: Ticket, held: &Held) {
        while let Some(written) = self.under_way.front().filter(|written| written.ticket <= ticket) {
            if written.through > self.persisted {
                let operations = held.range(self.persisted + 1, written.through);
                let operations = operations.expect("what is not on disk is in memory");
                self.unpersisted_bytes -= operations.map(Operation::weight).sum::<usize>();
                self.persisted = written.through;
            }
            if let Some(state) = &written.state {
                (self.durable_executed, self.durable_base) = (state.executed, state.base);
            }
            self.under_way.pop_front();
        }
    }
}

impl Replicator {
    pub(super) fn durable(&self) -> Durable {
        Durable {
            cluster: self.cluster,
            member: self.member,
            base: self.base,
            commit: self.commit,
            ages: self.compaction.ages.ladder(),
            executed: if self.config.planted.has(Bug::ExecutedRecordedEarly) {
                self.execution.given()
            } else {
                self.execution.executed()
            },
            mark: self.mark(),
        }
    }

    pub(super) fn has_to_write(&self) -> bool {
        let writing = &self.writing;
        let unwritten = writing.appended < self.held.last().index || writing.truncate_from.is_some();
        // Nothing comes behind a snapshot that is to replace it all.
        self.installing.is_none() && (unwritten || writing.state_written != self.durable())
    }

    pub(super) fn write_when_due(&mut self) {
        let now = self.phase == Phase::Stopping || self.writing.unwritten_bytes >= self.config.write_bytes;
        if now && self.has_to_write() {
            self.write();
        }
        let delay = if self.writing.full {
            self.config.full_disk_delay
        } else if self.has_to_write() {
            self.config.write_delay
        } else {
            return;
        };
        if !self.writing.wake {
            self.writing.wake = true;
            self.effects.push(Effect::WakeIn(delay));
        }
    }

    pub(super) fn woken(&mut self) {
        self.writing.wake = false;
        if self.writing.full
            && let Some(event) = self.wal.retry()
        {
            self.wal_event(event);
        }
        if self.has_to_write() {
            self.write();
        }
    }

    /// Gives the log everything, and behind it the state: which so never goes beyond the operations on disk.
    fn write(&mut self) {
        let (last, state) = (self.held.last().index, self.durable());
        let truncate_from = self.writing.take_truncation();
        let first = self.writing.appended + 1;
        if truncate_from.is_some() || first <= last {
            let records = match self.held.range(first, last) {
                Some(unwritten) => unwritten.cloned().collect(),
                None if first > last => Vec::new(),
                None => panic!("operations {first} to {last} are not on disk and not in memory"),
            };
            let ticket = self.wal.append(Append {
                truncate_from,
                records,
                state: None,
            });
            self.writing.handed_to_log(ticket, last, None);
        }
        let ticket = self.wal.append(Append {
            state: Some(state.encode()),
            ..Append::default()
        });
        self.writing.handed_to_log(ticket, last, Some(state));
    }
}
