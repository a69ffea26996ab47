//! Marks of execution (`executeOn: leader`): who leads says in the log how far its replicator has executed, and who leads next goes on
//! behind that.

use super::Raft;
use crate::entry::Payload;
use crate::ids::{OperationIndex, Term};
use crate::time::Time;

impl Raft {
    /// The term in which this member leads, if the log tells it where execution goes on: it has committed an entry of its own, and with
    /// that every mark of those who led before. Nobody executes while leadership is handed over.
    pub fn executes_in(&self) -> Option<Term> {
        let leads = self.leading().is_some() && self.term_has_commit() && !self.is_transferring();
        leads.then_some(self.term)
    }

    /// Up to here leaders' replicators have executed, as far as is committed: nobody who leads from now on executes that again.
    pub fn execution_mark(&self) -> OperationIndex {
        self.log.settled_executed_through()
    }

    /// Whether a mark is on its way.
    pub fn is_marking_execution(&self) -> bool {
        self.log.fold().executed_through > self.execution_mark()
    }

    /// The replicator beside this leader has executed up to there, all of it committed. One mark is under way at a time, and where it
    /// would say nothing new there is none. Answers whether there is one now.
    pub fn mark_execution(&mut self, now: Time, through: OperationIndex) -> bool {
        self.expire(now);
        let committed = self.log.operation_index_at(self.commit);
        let is_new = self.execution_mark() < through && through <= committed;
        if !is_new || self.is_marking_execution() || self.executes_in().is_none() {
            return false;
        }
        self.append_own(Payload::ExecutionProgress {
            executed_through: through,
        });
        true
    }
}
