//! Who executes (design 6.6): each replicator for itself, or only the one beside the leader, on behalf of all.
//!
//! Where only the leader's does, the log says how far leaders' replicators have executed: a mark, which the node passes on once it is
//! committed. What is at or below it is executed, wherever that was. So a replicator whose node does not lead has its executed place at
//! the mark or beyond, and one whose node begins to lead a term goes on right behind the mark: back, too, from what it has executed under
//! an earlier leadership and nobody has marked. Others may have executed that again since, and then what comes behind has to follow
//! again, or an endpoint would end with an earlier operation as the last one.
//!
//! Snapshots and the beginning of the log are never beyond the mark, as whoever leads next needs what is. That also bounds the log: a node
//! whose log is full of what no mark covers takes no more, and neither does any other, as all keep the same.

use raftlog_raft::ids::{OperationIndex, Term};
use raftlog_raft::planted::Bug;

use super::effect::{Effect, Notice, Refusal};
use super::event::StreamId;
use super::operation::{Operation, Place};
use super::replicator::Replicator;

/// The id under which the log is read back for the place of a mark.
pub(super) const MARK_READ: u64 = u64::MAX - 2;

/// Beside which nodes operations are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExecuteOn {
    /// Each replicator executes all.
    #[default]
    EveryNode,
    /// Only the replicator of the node that leads.
    Leader,
}

/// What is known of marks and leaders. Of no use where every replicator executes.
#[derive(Debug)]
pub(super) struct Leadership {
    /// The mark, with its place.
    mark: Place,
    /// The mark as it was said last; its place is being looked for.
    said: OperationIndex,
    reading: bool,
    role: Role,
    /// In which term this process has executed last.
    led: Option<Term>,
    /// The executor may still have what was taken back.
    taking_back: bool,
}

/// What the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Follows,
    /// It leads that term, and what it goes on behind is being looked for.
    Begins(Term),
    Leads(Term),
}

impl Leadership {
    /// With everything up to that place executed for all.
    pub(super) fn new(mark: Place) -> Self {
        Self {
            mark,
            said: mark.index,
            reading: false,
            role: Role::Follows,
            led: None,
            taking_back: false,
        }
    }

    pub(super) fn mark(&self) -> Place {
        self.mark
    }

    /// In which term its node leads and it executes.
    pub(super) fn term(&self) -> Option<Term> {
        match self.role {
            Role::Leads(term) if !self.taking_back => Some(term),
            _ => None,
        }
    }

    /// A snapshot has taken the place of everything: what is in it is executed.
    pub(super) fn restored(&mut self, place: Place) {
        if place.index > self.mark.index {
            self.mark = place;
            self.said = self.said.max(place.index);
        }
    }
}

impl Replicator {
    fn executes_on_leader(&self) -> bool {
        self.config.execute_on == ExecuteOn::Leader
    }

    /// Whether this replicator is the one that executes now. While it takes nothing from its node, as its disk has no time or room, it
    /// would not hear that the node leads no more: then it begins nothing on behalf of others.
    pub(super) fn is_the_one_that_executes(&self) -> bool {
        let leads = || self.leadership.term().is_some() && !self.seeks_mark_ahead();
        !self.executes_on_leader() || leads() && self.takes_feed()
    }

    /// More is executed than was by this process: where that ends is being looked for, or the executor is on its way there. Nothing of it is to
    /// be handed out again.
    fn seeks_mark_ahead(&self) -> bool {
        let said = self.leadership.said.min(self.commit.index);
        said > self.execution.executed().index
    }

    /// Whether the nodes' logs bound what is not executed. A bound of its own would keep its node's word of who leads, and of marks, out
    /// of the stream, behind operations that wait for that very word.
    pub(super) fn is_bounded_by_marks(&self) -> bool {
        self.executes_on_leader()
    }

    /// The mark, where there are marks.
    pub(super) fn mark(&self) -> Option<Place> {
        self.executes_on_leader().then(|| self.leadership.mark())
    }

    /// Executed wherever a crash strikes, and whoever leads: at or below it nothing is executed again.
    pub(super) fn executed_for_good(&self) -> Place {
        let executed = self.durable_executed();
        self.mark()
            .filter(|mark| mark.index < executed.index)
            .unwrap_or(executed)
    }

    /// The node says whether it leads, and how far is executed.
    pub(super) fn leading(&mut self, id: StreamId, leads: Option<Term>, mark: OperationIndex) {
        let Some(stream) = self.stream.as_ref().filter(|stream| stream.id == id) else {
            return;
        };
        let (node, has_started) = (stream.node, stream.agreed.is_some());
        if let Err(what) = self.check_leading(has_started, mark) {
            return self.refuse_stream(Refusal::Protocol { node, what });
        }
        self.leadership.said = self.leadership.said.max(mark);
        match leads {
            Some(term) if self.leadership.role == Role::Leads(term) => {}
            Some(term) => {
                self.stop_executing();
                self.leadership.role = Role::Begins(term);
            }
            None if self.config.planted.has(Bug::ExecutedWithoutLeading) => {}
            None => self.leads_no_more(),
        }
        self.follow_marks();
    }

    /// Whether a node may say that now; the error is what is wrong with it.
    fn check_leading(&self, has_started: bool, mark: OperationIndex) -> Result<(), String> {
        let commit = self.commit.index;
        if !self.executes_on_leader() {
            return Err(
                "it said whether it leads to a replicator that executes beside every node".to_owned(),
            );
        }
        if !has_started {
            return Err("it said whether it leads before it said how to start".to_owned());
        }
        if mark > commit {
            return Err(format!(
                "it said that index {mark} is executed, and {commit} is committed here"
            ));
        }
        Ok(())
    }

    /// The node leads no more, or is not there to say that it does.
    pub(super) fn leads_no_more(&mut self) {
        if self.leadership.role != Role::Follows {
            self.leadership.role = Role::Follows;
            self.stop_executing();
        }
    }

    /// What the node has in snapshots is executed. Where that is beyond the mark, it was before there were marks.
    pub(super) fn is_in_snapshots(&mut self, index: OperationIndex) {
        self.leadership.said = self.leadership.said.max(index);
    }

    fn stop_executing(&mut self) {
        if !self.execution.is_idle() {
            self.leadership.taking_back = true;
            self.effects.push(Effect::TakeBack);
        }
        self.execution.take_back();
    }

    /// The executor has nothing any more of what was taken back, and does none of it from now on.
    pub(super) fn taken_back(&mut self) {
        self.leadership.taking_back = false;
        self.follow_marks();
    }

    /// Goes where the mark is, and begins to execute where that is due.
    pub(super) fn follow_marks(&mut self) {
        if !self.executes_on_leader() || self.is_restoring() {
            return;
        }
        self.find_mark();
        let Leadership { mark, said, role, .. } = self.leadership;
        let executed = self.execution.executed().index;
        // What an earlier process of this leadership had done: where the executor has that again already, it gets there by itself.
        let gets_there = self.leadership.term().is_some() && mark.index <= self.execution.given().index;
        let is_ahead = mark.index > executed && !gets_there;
        if is_ahead {
            self.stop_executing();
        }
        if self.leadership.taking_back {
            return;
        }
        match role {
            Role::Begins(term) if mark.index >= said.min(self.commit.index) => {
                // Of its own term only this one can have executed anything.
                let goes_on = self.leadership.led == Some(term) && executed >= mark.index;
                if !goes_on && !self.config.planted.has(Bug::MarkIgnored) {
                    self.go_on_behind(mark);
                }
                self.leadership.role = Role::Leads(term);
                self.leadership.led = Some(term);
                let (node, after) = (self.config.node, self.execution.executed().index);
                self.notice(Notice::ExecutesForAll { node, term, after });
            }
            _ if is_ahead => self.go_on_behind(mark),
            _ => {}
        }
    }

    fn go_on_behind(&mut self, mark: Place) {
        if self.execution.executed() != mark {
            self.execution.go_on_after(mark);
        }
    }

    fn find_mark(&mut self) {
        let Leadership { mark, said, .. } = self.leadership;
        let index = said.min(self.commit.index);
        if index <= mark.index {
            return;
        }
        if let Some(place) = self.known_place(index) {
            self.leadership.mark = place;
        } else if !self.leadership.reading {
            self.leadership.reading = true;
            if let Some(records) = self.wal.read(MARK_READ, index, index, 1) {
                self.mark_read_back(&records);
            }
        }
    }

    pub(super) fn mark_read_back(&mut self, records: &[Operation]) {
        self.leadership.reading = false;
        // A snapshot may have been restored meanwhile.
        let found = records.first().map(Operation::place);
        if let Some(place) = found.filter(|place| place.index > self.leadership.mark.index) {
            self.leadership.mark = place;
        }
    }
}
