//! A follower's side of replication (Raft 5.3).

use super::{Raft, Role};
use crate::config::ELECTION_TIMEOUT_MAX;
use crate::effect::Notice;
use crate::entry::Entry;
use crate::ids::{LogIndex, MemberId, Term};
use crate::message::{AppendEntries, AppendEntriesResponse, Body, Conflict, LogPosition};
use crate::planted::Bug;
use crate::time::Time;

/// What a follower knows of its log and its leader's.
#[derive(Debug)]
pub(super) struct Following {
    /// Up to here the log is known to equal the leader's.
    verified: LogIndex,
    /// The latest round that waits for the disk: for its entries, or for what it stated.
    unanswered_round: Option<u64>,
    /// With the log on disk up to here, all that was committed when the leader said so is: nothing it counts on is missing.
    complete_at: Option<LogIndex>,
}

impl Following {
    /// What is committed equals any later leader's log (leader completeness, Raft 5.4.3).
    pub(super) fn new(commit: LogIndex) -> Self {
        Self {
            verified: commit,
            unanswered_round: None,
            complete_at: None,
        }
    }
}

impl Raft {
    pub(super) fn append_received(&mut self, now: Time, from: MemberId, term: Term, request: AppendEntries) {
        if term < self.term {
            // The sender learns of the term and steps down.
            self.send(
                from,
                self.term,
                Body::AppendEntriesResponse(self.response(0, None)),
            );
            return;
        }
        self.observe_term(now, term);
        if self.leading().is_some() {
            // Two leaders in one term cannot be: not a message of this protocol.
            return;
        }
        self.follow(now, from, &request);
        let AppendEntries {
            previous,
            previous_hash,
            entries,
            commit,
            round,
            read_answers,
            ..
        } = request;
        for answer in read_answers {
            self.read_answered(answer);
        }
        if self.log.term_at(previous.index) != Some(previous.term) && previous.index > self.commit {
            let hint = self.log.agreement_hint(previous.index, previous.term);
            let conflict = Conflict {
                previous: previous.index,
                hint,
            };
            let round = if self.may_vouch() { round } else { 0 };
            self.send(
                from,
                self.term,
                Body::AppendEntriesResponse(self.response(round, Some(conflict))),
            );
            return;
        }
        if let Err(why) = self.check_hash(previous, previous_hash) {
            return self.refuse(now, from, previous.index, why);
        }
        let brought_entries = !entries.is_empty();
        let Some(verified) = self.take_in(now, from, previous.index, entries) else {
            return;
        };
        if brought_entries || commit <= verified {
            self.refused = None;
        }
        if brought_entries {
            self.left_behind_by = None;
        }
        if self.has(Bug::TailCutWithoutConflict) && (self.commit..self.log.last().index).contains(&verified) {
            self.truncate(verified + 1);
        }
        let committed = if self.has(Bug::CommitBeyondVerified) {
            self.log.last().index
        } else {
            verified
        };
        self.commit_to(commit.min(committed));
        let all_on_disk = verified <= self.durability.persisted();
        let may_vouch = self.may_vouch();
        let complete = commit <= verified && self.log.term_at(commit) == Some(self.term);
        let Role::Follower(following) = &mut self.role else {
            return;
        };
        if complete {
            following.complete_at.get_or_insert(verified);
        }
        following.verified = following.verified.max(verified);
        if brought_entries && !all_on_disk || round > 0 && !may_vouch {
            following.unanswered_round = Some(round);
        } else if round > 0 {
            self.send(
                from,
                self.term,
                Body::AppendEntriesResponse(self.response(round, None)),
            );
        }
        self.clear_suspicion();
    }

    /// The sender is this term's leader.
    fn follow(&mut self, now: Time, leader: MemberId, request: &AppendEntries) {
        if self.leader != Some(leader) {
            // What was refused was another leader's.
            self.refused = None;
            self.left_behind_by = None;
            self.become_follower(Some(leader));
            self.notice(Notice::Follows {
                node: self.me(),
                leader: self.node_of(leader),
                term: self.term,
            });
            self.transfer_succeeded(leader);
            self.refuse_own_reads();
        } else if !matches!(self.role, Role::Follower(_)) {
            self.become_follower(Some(leader));
        }
        self.heard_at = Some(now);
        let stated = request.minimum_election_timeout.min(ELECTION_TIMEOUT_MAX);
        if stated > self.stated_minimum {
            self.stated_minimum = stated;
            self.hard_state_changed = true;
            self.stated_by = self.durability.next();
        }
        self.reset_election_timer(now);
    }

    /// An answered round makes this member stick to the leader for the minimum that it stated. Before that is on disk, it would
    /// stick for less after a restart.
    fn may_vouch(&self) -> bool {
        self.durability.is_done(self.stated_by)
    }

    /// Appends what is new of the entries after `previous`; answers how far the logs are equal now, or `None` where the
    /// entries cannot be what a leader sent.
    fn take_in(
        &mut self,
        now: Time,
        from: MemberId,
        previous: LogIndex,
        entries: Vec<Entry>,
    ) -> Option<LogIndex> {
        let mut verified = previous;
        for entry in entries {
            let (index, term) = (entry.log_index, entry.term);
            if let Err(why) = self.take_in_one(verified, entry) {
                let holds_it = self.log.term_at(index) == Some(term);
                self.refuse(now, from, if holds_it { index } else { verified }, why);
                return None;
            }
            verified = index;
        }
        Some(verified)
    }

    /// Where this member holds the entry that a leader speaks of, both have the same running hash there.
    fn check_hash(&self, position: LogPosition, theirs: Option<u64>) -> Result<(), String> {
        let LogPosition { index, term } = position;
        let holds_it = self.log.term_at(index) == Some(term) && !self.has(Bug::HashNotCompared);
        let own = self.log.running_hash_at(index).filter(|_| holds_it);
        match own.zip(theirs) {
            Some((own, theirs)) if own != theirs => Err(format!(
                "entry {index} has running hash {theirs:016x} there and {own:016x} here"
            )),
            _ => Ok(()),
        }
    }

    /// The leader tries again and again: that is told once. Up to `index` this member holds what may differ: the others are asked
    /// which of the two is damaged.
    fn refuse(&mut self, now: Time, from: MemberId, index: LogIndex, why: String) {
        self.doubt(now, index);
        if self.refused.as_ref() != Some(&why) {
            let (node, leader) = (self.me(), self.node_of(from));
            self.notice(Notice::EntriesRefused {
                node,
                leader,
                why: why.clone(),
            });
            self.refused = Some(why);
        }
    }

    fn take_in_one(&mut self, verified: LogIndex, entry: Entry) -> Result<(), String> {
        let Entry {
            log_index: index,
            term,
            ..
        } = entry;
        if index != verified + 1 || term > self.term {
            return Err(format!("entry {index} of term {term} after {verified}"));
        }
        if index <= self.log.base().position.index {
            // It is committed, and in a snapshot.
            return Ok(());
        }
        let held = self.log.term_at(index);
        if held == Some(term) {
            return self.check_hash(LogPosition { index, term }, Some(entry.running_hash));
        }
        if index <= self.commit {
            return Err(format!("it would change the committed entry {index}"));
        }
        if term < self.log.term_at(verified).unwrap_or(0) {
            return Err(format!("entry {index} goes back to term {term}"));
        }
        if held.is_some() {
            self.truncate(index);
        }
        if self.has(Bug::HashNotCompared) {
            self.log.push(entry.clone());
        } else {
            let appended = self.log.append(entry.clone());
            appended.map_err(|mismatch| mismatch.to_string())?;
        }
        self.entries.push(entry);
        Ok(())
    }

    pub(super) fn truncate(&mut self, from: LogIndex) {
        let on_disk_or_under_way = self
            .entries
            .first()
            .map_or(self.log.last().index, |entry| entry.log_index - 1);
        self.log.truncate(from);
        self.forget_doubt(from);
        self.durability.truncate(from);
        self.entries.retain(|entry| entry.log_index < from);
        if from <= on_disk_or_under_way {
            self.truncate_from = Some(self.truncate_from.map_or(from, |earlier| earlier.min(from)));
        }
        if let Role::Follower(following) = &mut self.role {
            following.verified = following.verified.min(from - 1);
        }
    }

    pub(super) fn commit_to(&mut self, index: LogIndex) {
        if index > self.commit {
            let before = std::mem::replace(&mut self.commit, index);
            self.log.settle(index);
            self.log.evict(self.durability.persisted());
            self.remember_configuration(before);
        }
    }

    fn response(&self, round: u64, conflict: Option<Conflict>) -> AppendEntriesResponse {
        let verified = match &self.role {
            Role::Follower(following) => following.verified,
            _ => 0,
        };
        let on_disk = if self.has(Bug::AcknowledgedBeforeSync) {
            verified
        } else {
            self.durability.persisted()
        };
        AppendEntriesResponse {
            round,
            matched: verified.min(on_disk),
            received: verified,
            conflict,
            read_requests: Vec::new(),
            full: self.full,
            supports: self.config.supports,
            wants_snapshot: self.wants_snapshot,
        }
    }

    /// Whatever was committed with this member's word is in the log of a leader that has committed in its own term; with all
    /// of that on disk again nothing can be missing. The own commit index says less: it may be from before the damage, or
    /// follow the leader's in steps while entries are brought back.
    pub(super) fn clear_suspicion(&mut self) {
        if let Role::Follower(following) = &self.role
            && following
                .complete_at
                .is_some_and(|at| at <= self.durability.persisted())
        {
            self.suspect = false;
        }
    }

    /// A snapshot holds what is committed up to there, and so does any later leader's log: tell it, unasked.
    pub(super) fn acknowledge_snapshot(&mut self) {
        let commit = self.commit;
        if let Role::Follower(following) = &mut self.role {
            following.verified = following.verified.max(commit);
            following.unanswered_round.get_or_insert(0);
        }
        self.acknowledge_persisted();
    }

    /// More of the leader's entries are on disk: tell it.
    pub(super) fn acknowledge_persisted(&mut self) {
        let Some(leader) = self.leader.filter(|_| self.may_vouch()) else {
            return;
        };
        let Role::Follower(following) = &mut self.role else {
            return;
        };
        let Some(round) = following.unanswered_round else {
            return;
        };
        if self.durability.persisted() >= following.verified {
            following.unanswered_round = None;
        }
        self.send(
            leader,
            self.term,
            Body::AppendEntriesResponse(self.response(round, None)),
        );
    }
}
