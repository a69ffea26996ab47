//! Snapshots that come from a leader (Raft 7; thesis 5): a follower that lacks what the leader has let go of starts from a
//! snapshot, which the leader sends beside its heartbeats. The data pass the core by; it says who needs them, and what
//! becomes of the log.

use super::{Raft, Role, TERM_MAX};
use crate::durability::Ticket;
use crate::fold::Fold;
use crate::ids::{LogIndex, Term};
use crate::log::Log;
use crate::message::LogPosition;
use crate::planted::Bug;
use crate::time::Time;

/// What a snapshot has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// Nothing: all that it holds was committed here before, or this member leads and needs no other's.
    Nothing,
    /// The log held all of it and stays as it is, committed that far.
    Commit,
    /// The log begins behind it, and is empty.
    Log,
}

impl Raft {
    /// Another member is in that term, as it said in anything else than a [`crate::message::Message`].
    pub fn term_heard(&mut self, now: Time, term: Term) {
        self.expire(now);
        if term <= TERM_MAX {
            self.observe_term(now, term);
        }
    }

    /// The log is about to be full, as the own replicator does not execute, and a snapshot of the leader's that ends behind this
    /// entry would make room in it; `None`: there is enough.
    pub fn want_snapshot(&mut self, behind: Option<LogIndex>) {
        self.wants_snapshot = behind;
    }

    /// Whether a leader's snapshot up to there is of use: it holds what is not known to be committed here, or makes room.
    pub fn has_use_for_snapshot(&self, index: LogIndex) -> bool {
        let makes_room = self.wants_snapshot.is_some_and(|behind| behind < index);
        self.leading().is_none() && (index > self.commit || makes_room)
    }

    /// A snapshot up to there has come from the leader and is about to be saved: what contradicts it gives way. It may
    /// be saved once the ticket is on disk, as a restart would find the snapshot and what contradicts it side by side;
    /// `None`: there is no use for it.
    ///
    /// Only what contradicts it goes: entries before may have been counted on, and are nowhere else yet.
    pub fn make_way_for_snapshot(&mut self, now: Time, position: LogPosition) -> Option<Ticket> {
        self.expire(now);
        if !self.has_use_for_snapshot(position.index) {
            return None;
        }
        let held = self.log.term_at(position.index);
        if held.is_some_and(|term| term != position.term) {
            // Whoever asked for votes did so with all of its log.
            self.give_up_candidacy();
            self.truncate(position.index);
        }
        let unwritten = self.truncate_from.is_some() || !self.entries.is_empty() || self.hard_state_changed;
        Some(if unwritten {
            self.durability.next()
        } else {
            self.durability.last_issued()
        })
    }

    /// Whether all up to that ticket is on disk.
    pub fn is_persisted(&self, ticket: Ticket) -> bool {
        self.durability.is_done(ticket)
    }

    /// A snapshot of the leader's up to there is on disk, where the log adds up to that fold. The error says how it
    /// contradicts what is held here: one of the two is damaged. Of what has left memory the hash is not compared.
    pub fn snapshot_installed(
        &mut self,
        now: Time,
        position: LogPosition,
        fold: Fold,
    ) -> Result<Installed, String> {
        self.expire(now);
        let LogPosition { index, term } = position;
        let held = self.log.term_at(index);
        if let Some(held) = held {
            self.check_snapshot(position, held, &fold)?;
        }
        if self.leading().is_some() {
            return Ok(Installed::Nothing);
        }
        let installed = if index <= self.commit {
            Installed::Nothing
        } else if held.is_some() {
            self.commit_to(index);
            Installed::Commit
        } else if term > self.term {
            return Err(format!(
                "it ends with an entry of term {term}, and this member is in term {}",
                self.term
            ));
        } else {
            self.begin_log_at(position, fold);
            Installed::Log
        };
        self.acknowledge_snapshot();
        Ok(installed)
    }

    fn check_snapshot(&self, position: LogPosition, held: Term, fold: &Fold) -> Result<(), String> {
        let LogPosition { index, term } = position;
        if held != term {
            return Err(format!(
                "it ends with entry {index} of term {term}, which is of term {held} here"
            ));
        }
        let operation = self.log.operation_index_at(index);
        let hash = self.log.running_hash_at(index);
        if operation != fold.operation_index || hash.is_some_and(|hash| hash != fold.running_hash) {
            return Err(format!(
                "it has {} operations up to entry {index}, and other ones than the {operation} here",
                fold.operation_index
            ));
        }
        Ok(())
    }

    fn begin_log_at(&mut self, position: LogPosition, mut fold: Fold) {
        self.give_up_candidacy();
        if self.has(Bug::SessionsNotTakenOver) {
            fold.sessions.clone_from(&self.log.fold().sessions);
        }
        self.log = Log::over(position, fold, self.config.recent_bytes_max);
        self.log.plant(self.config.planted);
        self.truncate_from = None;
        self.entries.clear();
        self.durability.is_in_snapshot(position.index);
        self.commit = position.index;
        self.refused = None;
        self.doubt = None;
        // The state goes behind the new beginning of the log on disk.
        self.hard_state_changed = true;
    }

    /// A candidacy was for the log as it was.
    fn give_up_candidacy(&mut self) {
        if !matches!(self.role, Role::Follower(_)) {
            self.become_follower(self.leader);
        }
    }
}
