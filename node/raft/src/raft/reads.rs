//! Linearizable reads by ReadIndex (thesis 6.4): a leader notes its commit index, makes sure that it still leads, by its lease
//! or by one more round, and lets the reader wait until that much is committed where it reads.

use std::collections::VecDeque;

use super::{Raft, Role};
use crate::effect::{Effect, RequestId};
use crate::ids::{MemberId, OperationIndex};
use crate::message::{AppendEntriesResponse, Body, ReadAnswer};
use crate::planted::Bug;
use crate::time::Time;

/// Who asked.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Local(RequestId),
    Remote(MemberId, u64),
}

#[derive(Debug, Clone, Copy)]
struct Read {
    reader: Reader,
    index: OperationIndex,
    /// A majority must answer this round or a later one.
    round: u64,
}

/// Reads that a member has answered while it led.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadCounts {
    /// At once, under a lease.
    pub by_lease: u64,
    /// After a round that a majority answered.
    pub by_round: u64,
}

/// Reads that a leader has under way.
#[derive(Debug, Default)]
pub(super) struct LeaderReads {
    /// Before the term's first commit the commit index may be behind.
    waiting: Vec<Reader>,
    /// In the order of their rounds.
    confirming: VecDeque<Read>,
}

impl LeaderReads {
    fn len(&self) -> usize {
        self.waiting.len() + self.confirming.len()
    }

    pub(super) fn into_local(self) -> impl Iterator<Item = RequestId> {
        let readers = self
            .waiting
            .into_iter()
            .chain(self.confirming.into_iter().map(|read| read.reader));
        readers.filter_map(|reader| match reader {
            Reader::Local(id) => Some(id),
            Reader::Remote(..) => None,
        })
    }
}

impl Raft {
    /// Asks up to where a read has to see to be linearizable; answered by [`Effect::ReadReady`].
    pub fn read_index(&mut self, now: Time, id: RequestId) {
        self.expire(now);
        if self.leading().is_some() {
            self.start_read(now, Reader::Local(id));
            self.confirm_reads();
            return;
        }
        match self.leader {
            Some(leader) if self.reads.len() < self.config.reads_max => {
                self.reads.insert(id, now);
                let response = AppendEntriesResponse {
                    round: 0,
                    matched: 0,
                    received: 0,
                    conflict: None,
                    read_requests: vec![id],
                    full: self.full,
                    supports: self.config.supports,
                    wants_snapshot: self.wants_snapshot,
                };
                self.send(leader, self.term, Body::AppendEntriesResponse(response));
            }
            _ => self.effects.push(Effect::ReadReady(id, None)),
        }
    }

    pub(super) fn read_requested(&mut self, now: Time, from: MemberId, id: u64) {
        self.start_read(now, Reader::Remote(from, id));
    }

    /// Whoever asked did so before `now`: a lease that is valid then makes sure that nobody else had committed anything by then.
    /// It may end before the answer arrives.
    fn start_read(&mut self, now: Time, reader: Reader) {
        let ready = self.term_has_commit() || self.has(Bug::ReadBeforeCommit);
        let index = self.log.operation_index_at(self.commit);
        let reads_max = self.config.reads_max;
        if self.has_lease(now) {
            self.read_counts.by_lease += 1;
            return self.finish_read(reader, Some(index));
        }
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        if leading.reads.len() >= reads_max {
            self.finish_read(reader, None);
        } else if ready {
            let round = leading.round + 1;
            leading.reads.confirming.push_back(Read { reader, index, round });
            for progress in leading.peers.values_mut() {
                progress.order_round();
            }
        } else {
            leading.reads.waiting.push(reader);
        }
    }

    /// The term has its first commit.
    pub(super) fn start_waiting_reads(&mut self, now: Time) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        for reader in std::mem::take(&mut leading.reads.waiting) {
            self.start_read(now, reader);
        }
        // A single voter has nobody whose answer would bring this about.
        self.confirm_reads();
    }

    /// A member's stream broke. It may come back as a new process that numbers its reads anew: an answer to an old one
    /// must not pass for that to a new one, which may have to see more.
    pub(super) fn forget_reads_of(&mut self, member: MemberId) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let of_others = |reader: &Reader| !matches!(reader, Reader::Remote(id, _) if *id == member);
        leading.reads.waiting.retain(of_others);
        leading.reads.confirming.retain(|read| of_others(&read.reader));
        if let Some(progress) = leading.peers.get_mut(&member) {
            progress.read_answers.clear();
        }
    }

    /// A member has answered that round.
    pub(super) fn confirm_reads_by(&mut self, round: u64) {
        let any_will_do = round > 0 && self.has(Bug::ReadByEarlierRound);
        if let Role::Leader(leading) = &mut self.role
            && any_will_do
        {
            let waiting = leading.reads.confirming.iter_mut();
            waiting.for_each(|read| read.round = read.round.min(round));
        }
        self.confirm_reads();
    }

    /// Answers the reads whose round a majority has answered.
    fn confirm_reads(&mut self) {
        let Some(leading) = self.leading() else { return };
        let answered = |id| {
            leading
                .peers
                .get(&id)
                .map_or(u64::MAX, |progress| progress.acknowledged_round)
        };
        let confirmed = if self.has(Bug::ReadWithoutQuorum) {
            u64::MAX
        } else {
            self.configuration().quorum_value(|member| answered(member.id))
        };
        while let Role::Leader(leading) = &mut self.role
            && let Some(read) = leading
                .reads
                .confirming
                .pop_front_if(|read| read.round <= confirmed)
        {
            self.read_counts.by_round += 1;
            self.finish_read(read.reader, Some(read.index));
        }
    }

    fn finish_read(&mut self, reader: Reader, index: Option<OperationIndex>) {
        match reader {
            Reader::Local(id) => self.effects.push(Effect::ReadReady(id, index)),
            Reader::Remote(member, id) => {
                if let Role::Leader(leading) = &mut self.role
                    && let Some(progress) = leading.peers.get_mut(&member)
                {
                    progress.answer_read(id, index);
                }
            }
        }
    }

    pub(super) fn read_answered(&mut self, answer: ReadAnswer) {
        if self.reads.remove(&answer.id).is_some() {
            self.effects.push(Effect::ReadReady(answer.id, answer.index));
        }
    }

    /// The leader that was asked leads no more.
    pub(super) fn refuse_own_reads(&mut self) {
        for id in std::mem::take(&mut self.reads).into_keys() {
            self.effects.push(Effect::ReadReady(id, None));
        }
    }

    /// Requests or answers may get lost: nobody waits for longer than the maximum election timeout.
    pub(super) fn expire_reads(&mut self, now: Time) {
        let limit = self.config.election_timeout_max;
        let expired: Vec<RequestId> = self
            .reads
            .iter()
            .filter(|(_, since)| now >= **since + limit)
            .map(|(&id, _)| id)
            .collect();
        for id in expired {
            self.reads.remove(&id);
            self.effects.push(Effect::ReadReady(id, None));
        }
    }
}
