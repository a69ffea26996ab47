//! Elections: pre-vote, votes, stickiness (Raft 5.2, 5.4.1; thesis 4.2.3, 9.6).

use std::collections::BTreeMap;
use std::time::Duration;

use super::leader::Leading;
use super::{Raft, Role};
use crate::durability::Ticket;
use crate::effect::{ElectedBy, Notice};
use crate::ids::{MemberId, Term};
use crate::message::{Body, RequestVote};
use crate::planted::Bug;
use crate::time::Time;

/// A campaign's votes.
#[derive(Debug)]
pub(super) struct Ballot {
    votes: BTreeMap<MemberId, bool>,
    elected_by: ElectedBy,
    /// What has to be on disk before the own vote counts.
    own_vote: Ticket,
}

impl Raft {
    /// No leader was heard in time: ask first whether an election could be won, so that a member that was cut off does not
    /// disturb the others with a higher term (thesis 9.6).
    pub(super) fn campaign(&mut self, now: Time) {
        self.reset_election_timer(now);
        self.leader = None;
        if self.disk_stalled() {
            // With such a disk this member could not lead. A candidate waits for its own vote: where every disk takes long,
            // somebody has to.
            if !matches!(self.role, Role::Candidate(_)) {
                self.become_follower(None);
            }
            return;
        }
        let ballot = Ballot {
            votes: BTreeMap::from([(self.config.id, true)]),
            elected_by: ElectedBy::Election,
            own_vote: 0,
        };
        self.role = Role::PreCandidate(ballot);
        if !self.finish_pre_vote(now) {
            self.request_votes(self.term + 1, true, false);
        }
    }

    /// Asks for votes in a new term.
    pub(super) fn elect(&mut self, now: Time, elected_by: ElectedBy) {
        self.reset_election_timer(now);
        self.term += 1;
        self.voted_for = Some(self.config.id);
        self.hard_state_changed = true;
        self.leader = None;
        let own_vote = self.durability.next();
        self.role = Role::Candidate(Ballot {
            votes: BTreeMap::new(),
            elected_by,
            own_vote,
        });
        let transfer = elected_by == ElectedBy::Transfer;
        self.notice(Notice::Campaigns {
            node: self.me(),
            term: self.term,
            transfer,
        });
        self.request_votes(self.term, false, transfer);
    }

    fn request_votes(&mut self, term: Term, pre_vote: bool, transfer: bool) {
        let request = RequestVote {
            pre_vote,
            transfer,
            last: self.log.last(),
        };
        self.send_to_voters(term, &Body::RequestVote(request));
    }

    pub(super) fn vote_requested(&mut self, now: Time, from: MemberId, term: Term, request: RequestVote) {
        let stuck = !request.transfer && self.sticks(now);
        // A pre-vote asks whether the vote would come, and that has to go to disk.
        let stuck = stuck || (request.pre_vote && self.disk_stalled());
        if stuck || self.suspect || term < self.term || (request.pre_vote && term == self.term) {
            self.send(
                from,
                self.term,
                Body::Vote {
                    pre_vote: request.pre_vote,
                    granted: false,
                },
            );
            return;
        }
        let up_to_date = self.log.is_up_to_date(request.last) || self.has(Bug::NotUpToDate);
        if request.pre_vote {
            let term = if up_to_date { term } else { self.term };
            self.send(
                from,
                term,
                Body::Vote {
                    pre_vote: true,
                    granted: up_to_date,
                },
            );
            return;
        }
        self.observe_term(now, term);
        let free = self.voted_for.is_none_or(|voted| voted == from) && self.leader.is_none();
        if (free || self.has(Bug::TwoVotesInATerm)) && up_to_date {
            self.voted_for = Some(from);
            self.hard_state_changed = true;
            self.reset_election_timer(now);
            let vote = Body::Vote {
                pre_vote: false,
                granted: true,
            };
            if self.has(Bug::VoteNotPersisted) {
                self.hard_state_changed = false;
                self.send(from, self.term, vote);
            } else {
                self.send_persisted(from, vote);
            }
        } else {
            self.send(
                from,
                self.term,
                Body::Vote {
                    pre_vote: false,
                    granted: false,
                },
            );
        }
    }

    /// For how long this member vouches for a leader that it has heard: the minimum election timeout, its own or the longest
    /// that a leader has stated. A leader may rely on it, and read under a lease.
    pub(super) fn stickiness(&self) -> Duration {
        if self.has(Bug::ShorterMinimum) {
            return self.config.election_timeout_min;
        }
        self.config.election_timeout_min.max(self.stated_minimum)
    }

    /// Whether this member vouches for a leader: it leads, or has heard one, or may have before a restart, recently enough.
    pub(super) fn sticks(&self, now: Time) -> bool {
        self.leading().is_some() || self.heard_at.is_some_and(|at| now < at + self.stickiness())
    }

    pub(super) fn vote_received(
        &mut self,
        now: Time,
        from: MemberId,
        term: Term,
        pre_vote: bool,
        granted: bool,
    ) {
        // A granted pre-vote carries the term that was asked for, which is nobody's yet.
        if !(pre_vote && granted) {
            self.observe_term(now, term);
        }
        if !self.configuration().is_voter(from) {
            return;
        }
        let counts_stale = self.has(Bug::StaleResponseCounted);
        match &mut self.role {
            Role::PreCandidate(ballot) if pre_vote && (term == self.term + 1 || !granted) => {
                ballot.votes.insert(from, granted);
                self.finish_pre_vote(now);
            }
            Role::Candidate(ballot) if !pre_vote && term == self.term || counts_stale => {
                ballot.votes.insert(from, granted);
                self.finish_vote(now);
            }
            _ => {}
        }
    }

    /// Whether the pre-vote was won, and with it the election started.
    fn finish_pre_vote(&mut self, now: Time) -> bool {
        let Role::PreCandidate(ballot) = &self.role else {
            return false;
        };
        let won = self
            .deciding()
            .is_quorum(|id| ballot.votes.get(&id) == Some(&true));
        if won {
            self.elect(now, ElectedBy::Election);
        }
        won
    }

    pub(super) fn own_vote_persisted(&mut self, now: Time) {
        let me = self.config.id;
        if let Role::Candidate(ballot) = &mut self.role
            && self.durability.is_done(ballot.own_vote)
            && ballot.votes.insert(me, true).is_none()
        {
            self.finish_vote(now);
        }
    }

    fn finish_vote(&mut self, now: Time) {
        let Role::Candidate(ballot) = &self.role else {
            return;
        };
        let won = self
            .deciding()
            .is_quorum(|id| ballot.votes.get(&id) == Some(&true));
        if won {
            // Others may make a majority by themselves; a leader's own disk has to work, too.
            if ballot.votes.contains_key(&self.config.id) {
                let elected_by = ballot.elected_by;
                self.lead(now, elected_by);
            }
        } else if !self
            .configuration()
            .is_quorum(|id| ballot.votes.get(&id) != Some(&false))
        {
            // Whoever has not answered yet would not make a majority any more.
            self.become_follower(None);
        }
    }

    fn lead(&mut self, now: Time, by: ElectedBy) {
        let others = self
            .configuration()
            .members()
            .iter()
            .map(|member| member.id)
            .filter(|&id| id != self.config.id);
        let leading = Leading::new(
            others,
            self.log.last().index,
            by,
            now,
            now + self.config.heartbeat_interval,
        );
        self.role = Role::Leader(Box::new(leading));
        self.leader = Some(self.config.id);
        self.refused = None;
        self.refuse_own_reads();
        self.transfer_succeeded(self.config.id);
        self.notice(Notice::BecameLeader {
            node: self.me(),
            term: self.term,
            by,
        });
        self.append_noop();
    }
}
