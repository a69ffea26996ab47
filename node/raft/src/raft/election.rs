//! Elections: pre-vote, votes, stickiness (Raft 5.2, 5.4.1; thesis 4.2.3, 9.6).

use std::collections::BTreeMap;
use std::time::Duration;

use super::leader::Leading;
use super::{Raft, Role};
use crate::durability::Ticket;
use crate::effect::{ElectedBy, Notice};
use crate::ids::{LogIndex, MemberId, Term};
use crate::membership::Configuration;
use crate::message::{Body, RequestVote, VoteAnswer};
use crate::planted::Bug;
use crate::time::Time;

/// A campaign's votes.
#[derive(Debug)]
pub(super) struct Ballot {
    votes: BTreeMap<MemberId, VoteAnswer>,
    elected_by: ElectedBy,
    /// What has to be on disk before the own vote counts.
    own_vote: Ticket,
}

impl Ballot {
    /// Whether the voters of that configuration elect, of which everything up to `commit` is known to be committed.
    ///
    /// Who may have lost the end of its log counts only where everybody else says yes: then whatever was committed with its word is
    /// also held by somebody whose word stands for it, unless so many may have lost something that they are a majority by
    /// themselves, or a configuration that others do not know decides.
    fn is_won(&self, voters: &Configuration, commit: LogIndex) -> bool {
        let says = |id, answer| self.votes.get(&id) == Some(&answer);
        if voters.is_quorum(|id| says(id, VoteAnswer::Granted)) {
            return true;
        }
        let may_lack = |id| says(id, VoteAnswer::GrantedIfAll);
        let all = voters
            .voters()
            .all(|voter| may_lack(voter.id) || says(voter.id, VoteAnswer::Granted));
        let is_settled = !voters.is_joint() && voters.version <= commit;
        all && is_settled && !voters.is_quorum(may_lack)
    }
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
            votes: BTreeMap::from([(self.config.id, VoteAnswer::Granted)]),
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
        if stuck || term < self.term || (request.pre_vote && term == self.term) {
            return self.refuse_vote(from, request.pre_vote);
        }
        let up_to_date = self.log.is_up_to_date(request.last) || self.has(Bug::NotUpToDate);
        let granted = if self.suspect {
            VoteAnswer::GrantedIfAll
        } else {
            VoteAnswer::Granted
        };
        if request.pre_vote && up_to_date {
            // What depends on others is no yes, to a candidate of an earlier version, which would take another term for a later one.
            let term = if self.suspect { self.term } else { term };
            let (pre_vote, answer) = (true, granted);
            return self.send(from, term, Body::Vote { pre_vote, answer });
        }
        if request.pre_vote {
            return self.refuse_vote(from, true);
        }
        self.observe_term(now, term);
        let free = self.voted_for.is_none_or(|voted| voted == from) && self.leader.is_none();
        if !up_to_date || !(free || self.has(Bug::TwoVotesInATerm)) {
            return self.refuse_vote(from, false);
        }
        self.voted_for = Some(from);
        self.hard_state_changed = true;
        self.reset_election_timer(now);
        let vote = Body::Vote {
            pre_vote: false,
            answer: granted,
        };
        if self.has(Bug::VoteNotPersisted) {
            self.hard_state_changed = false;
            self.send(from, self.term, vote);
        } else {
            self.send_persisted(from, vote);
        }
    }

    fn refuse_vote(&mut self, from: MemberId, pre_vote: bool) {
        let answer = VoteAnswer::Refused;
        self.send(from, self.term, Body::Vote { pre_vote, answer });
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
        answer: VoteAnswer,
    ) {
        // A granted pre-vote carries the term that was asked for, which is nobody's yet.
        let is_granted = answer == VoteAnswer::Granted;
        if !(pre_vote && is_granted) {
            self.observe_term(now, term);
        }
        if !self.configuration().is_voter(from) {
            return;
        }
        let counts_stale = self.has(Bug::StaleResponseCounted);
        match &mut self.role {
            Role::PreCandidate(ballot) if pre_vote && (term == self.term + 1 || !is_granted) => {
                ballot.votes.insert(from, answer);
                self.finish_pre_vote(now);
            }
            Role::Candidate(ballot) if !pre_vote && term == self.term || counts_stale => {
                ballot.votes.insert(from, answer);
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
        let won = ballot.is_won(&self.deciding(), self.commit);
        if won {
            self.elect(now, ElectedBy::Election);
        }
        won
    }

    pub(super) fn own_vote_persisted(&mut self, now: Time) {
        let me = self.config.id;
        if let Role::Candidate(ballot) = &mut self.role
            && self.durability.is_done(ballot.own_vote)
            && ballot.votes.insert(me, VoteAnswer::Granted).is_none()
        {
            self.finish_vote(now);
        }
    }

    fn finish_vote(&mut self, now: Time) {
        let Role::Candidate(ballot) = &self.role else {
            return;
        };
        let won = ballot.is_won(&self.deciding(), self.commit);
        if won {
            // Others may make a majority by themselves; a leader's own disk has to work, too.
            if ballot.votes.contains_key(&self.config.id) {
                let elected_by = ballot.elected_by;
                self.lead(now, elected_by);
            }
        } else if !self
            .configuration()
            .is_quorum(|id| ballot.votes.get(&id) != Some(&VoteAnswer::Refused))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Member;
    use VoteAnswer::{Granted, GrantedIfAll, Refused};

    fn id(n: u64) -> MemberId {
        MemberId::new(n).unwrap()
    }

    fn voters(count: u64) -> Configuration {
        let member = |n| Member {
            id: id(n),
            node: u32::try_from(n).unwrap(),
            peer_address: String::new(),
            client_address: String::new(),
            voter: true,
        };
        Configuration::new(0, (1..=count).map(member).collect())
    }

    #[test]
    fn who_may_lack_something_counts_only_if_all_say_yes() {
        for (count, answers, won) in [
            (3, &[Granted, Granted][..], true),
            (3, &[Granted, Refused, Granted], true),
            (3, &[Granted, GrantedIfAll], false),
            (3, &[Granted, GrantedIfAll, Refused], false),
            (3, &[Granted, GrantedIfAll, Granted], true),
            // What both have acknowledged may be nowhere.
            (3, &[Granted, GrantedIfAll, GrantedIfAll], false),
            (2, &[Granted, GrantedIfAll], true),
            (4, &[Granted, GrantedIfAll, GrantedIfAll, Granted], true),
            (5, &[Granted, GrantedIfAll, GrantedIfAll, Granted], false),
            (5, &[Granted, GrantedIfAll, GrantedIfAll, Granted, Granted], true),
        ] {
            let ballot = Ballot {
                votes: (1..).map(id).zip(answers.iter().copied()).collect(),
                elected_by: ElectedBy::Election,
                own_vote: 0,
            };
            assert_eq!(
                ballot.is_won(&voters(count), 0),
                won,
                "{count} voters: {answers:?}"
            );
        }
    }

    #[test]
    fn nor_in_a_configuration_that_may_not_be_the_last() {
        let ballot = Ballot {
            votes: BTreeMap::from([(id(1), Granted), (id(2), GrantedIfAll)]),
            elected_by: ElectedBy::Election,
            own_vote: 0,
        };
        let new = Configuration::new(7, voters(2).members().to_vec());
        assert!(!ballot.is_won(&new, 6), "not known to be committed");
        assert!(ballot.is_won(&new, 7));
    }
}
