//! What the executor itself knows of what is executed, which counts more than what is written here.
//!
//! An executor with a state of its own (`state-machine`) comes and goes, and says each time it comes up to where its state goes. From
//! there it is given operations, back or forth from what this replicator remembers: so each operation is in its state once. An
//! executor without a state is always there, and goes on behind what this replicator remembers.

use raftlog_raft::ids::{ClusterId, OperationIndex};
use raftlog_raft::planted::Bug;

use super::effect::{Effect, Notice, Refusal};
use super::operation::{Operation, Place};
use super::replicator::Replicator;

/// The id under which the log is read back for the place that the executor goes on after.
pub(super) const ADOPTION_READ: u64 = u64::MAX - 1;

/// How the executor and this replicator stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attachment {
    /// It is not there.
    Away,
    /// It is there, and nothing can be said of its state before a node has.
    Unchecked(Claim),
    /// It goes on after that operation, as soon as this is committed here and its place is known.
    Adopting(OperationIndex),
    /// It has applied what counts as executed here.
    Agreed,
    /// The log here begins after what it needs, which begins behind that operation: only a snapshot helps.
    NeedsState(OperationIndex),
}

/// What an executor says of its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) applied: OperationIndex,
    /// Of which cluster; absent with an empty state.
    pub(super) cluster: Option<ClusterId>,
}

impl Attachment {
    /// Whether it has applied more than is committed here.
    pub(super) fn is_ahead_of(self, commit: OperationIndex) -> bool {
        matches!(self, Self::Adopting(applied) if applied > commit)
    }

    pub(super) fn may_execute(self) -> bool {
        self == Self::Agreed
    }

    pub(super) fn needs_state(self) -> bool {
        matches!(self, Self::NeedsState(_))
    }
}

impl Replicator {
    /// The executor is there, with that state.
    pub(super) fn executor_attached(&mut self, claim: Claim) {
        self.execution.take_back();
        self.attachment = Attachment::Unchecked(claim);
        self.check_claim();
    }

    /// It is gone: what it has done of what it was given, it says when it comes back.
    pub(super) fn executor_detached(&mut self) {
        let needed_state = self.attachment.needs_state();
        self.executor_away();
        // What the node was told of that holds no more, and neither would what it says to it.
        let restores = self
            .stream
            .as_ref()
            .is_some_and(|stream| stream.incoming.is_some());
        if needed_state && !restores {
            self.end_restore("it went away before that began".to_owned());
        }
    }

    /// It is given nothing from now on, until it comes anew.
    pub(super) fn executor_away(&mut self) {
        self.execution.take_back();
        self.attachment = Attachment::Away;
        self.copying.executor_gone();
    }

    /// Whether its state is of this cluster, as soon as that can be told.
    pub(super) fn check_claim(&mut self) {
        let Attachment::Unchecked(claim) = self.attachment else {
            return;
        };
        let Some(ours) = self.cluster else { return };
        if let Some(theirs) = claim.cluster.filter(|theirs| *theirs != ours) {
            // What a cluster was recovered from, a node tells.
            if self.stream.is_none() {
                return;
            }
            let is_parent =
                |parent: &super::Parent| parent.cluster == theirs && claim.applied <= parent.index;
            if !self.parent.as_ref().is_some_and(is_parent) {
                let why = format!(
                    "its state is of cluster {theirs}, up to index {}, and this replicator is of cluster {ours}: give it the data \
                     of this cluster, or none",
                    claim.applied
                );
                self.attachment = Attachment::Away;
                self.effects.push(Effect::RefuseExecutor(why));
                return;
            }
        }
        self.attachment = Attachment::Adopting(claim.applied);
        self.adopt_when_known();
    }

    /// Goes on behind what the executor has applied, or what leaders before have.
    pub(super) fn adopt_when_known(&mut self) {
        let Attachment::Adopting(applied) = self.attachment else {
            return;
        };
        if applied > self.commit.index || self.is_restoring() {
            return;
        }
        if applied < self.base.index {
            return self.needs_state(applied);
        }
        if let Some(place) = self.known_place(applied) {
            self.adopt(place);
        } else if !self.adopting {
            self.adopting = true;
            if let Some(records) = self.wal.read(ADOPTION_READ, applied, applied, 1) {
                self.adoption_read_back(&records);
            }
        }
    }

    /// The place of an operation, without reading it back.
    pub(super) fn known_place(&self, index: OperationIndex) -> Option<Place> {
        let known = [Place::default(), self.base, self.execution.executed()];
        let known = known.into_iter().find(|place| place.index == index);
        let held = || self.held.range(index, index)?.next().map(Operation::place);
        known.or_else(|| self.held.place(index)).or_else(held)
    }

    pub(super) fn adoption_read_back(&mut self, records: &[Operation]) {
        self.adopting = false;
        let Attachment::Adopting(applied) = self.attachment else {
            return;
        };
        match records.first().filter(|found| found.index == applied) {
            Some(found) if applied >= self.base.index => self.adopt(found.place()),
            // Asked for something else, or dropped meanwhile.
            _ => self.adopt_when_known(),
        }
    }

    fn adopt(&mut self, place: Place) {
        let before = self.execution.executed().index;
        if place.index != before {
            self.notice(Notice::ExecutorGoesOn {
                node: self.config.node,
                after: place.index,
                before,
            });
        }
        if !self.config.planted.has(Bug::AppliedIndexIgnored) {
            self.execution.go_on_after(place);
        }
        self.attachment = Attachment::Agreed;
    }

    /// The node has what the executor needs, and finds out from the position on a new stream.
    fn needs_state(&mut self, applied: OperationIndex) {
        self.attachment = Attachment::NeedsState(applied);
        let Some(stream) = self.take_stream() else { return };
        let refusal = Refusal::NeedsState {
            applied,
            first: self.base.index.saturating_add(1),
        };
        self.notice(Notice::Refused(refusal.clone()));
        self.effects.push(Effect::Close(stream.id, refusal));
    }
}
