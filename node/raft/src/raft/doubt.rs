//! Doubt: another member's running hash is not this one's where both hold the same entry. One of the two is damaged, and
//! nobody can tell by itself which; so whoever finds out asks all voters, and a majority of equal answers decides. A member
//! that is in the minority stops. Nobody's word alone makes a member stop, a leader's as little as any other's: each counts
//! what the others say themselves.
//!
//! Equal entries have equal hashes, and what follows a difference differs, too: so any entry that both hold will do, committed
//! or not, and the question is about one that the doubting member holds itself. It is repeated with whatever brought it up.

use std::collections::BTreeMap;

use super::Raft;
use crate::effect::Effect;
use crate::entry::{Entry, Payload};
use crate::fold::running_hash;
use crate::ids::{LogIndex, MemberId, NodeNumber};
use crate::message::{Body, Comparison, LogPosition};
use crate::time::Time;

/// What is being found out.
#[derive(Debug)]
pub(super) struct Doubt {
    position: LogPosition,
    /// This member's own.
    running_hash: u64,
    /// What others say.
    words: BTreeMap<MemberId, u64>,
    began: Time,
    asked_at: Time,
}

impl Raft {
    /// Why this member must not go on, once it is known to be damaged.
    pub fn damaged(&self) -> Option<&str> {
        self.damaged.as_deref()
    }

    /// Another member differs in what this one holds up to that entry. Whoever it is differs until it stops: once in a
    /// heartbeat interval is often enough to ask.
    pub(super) fn doubt(&mut self, now: Time, index: LogIndex) {
        let Some((term, running_hash)) = self.log.term_at(index).zip(self.log.running_hash_at(index)) else {
            return;
        };
        let comparison = Comparison {
            position: LogPosition { index, term },
            running_hash,
        };
        self.raise_doubt(now, comparison);
    }

    fn raise_doubt(&mut self, now: Time, own: Comparison) {
        let (interval, patience) = (self.config.heartbeat_interval, self.config.election_timeout_max);
        match &mut self.doubt {
            Some(doubt) if now < doubt.asked_at + interval => return,
            Some(doubt) if now < doubt.began + patience => doubt.asked_at = now,
            _ => {
                self.doubt = Some(Doubt {
                    position: own.position,
                    running_hash: own.running_hash,
                    words: BTreeMap::new(),
                    began: now,
                    asked_at: now,
                });
            }
        }
        self.ask_around();
    }

    fn ask_around(&mut self) {
        let Some(doubt) = &self.doubt else { return };
        let comparison = Comparison {
            position: doubt.position,
            running_hash: doubt.running_hash,
        };
        self.send_to_voters(0, &Body::Compare(comparison));
    }

    /// Another member doubts, and says what it has there.
    pub(super) fn asked_to_compare(&mut self, now: Time, from: MemberId, theirs: Comparison) {
        let LogPosition { index, term } = theirs.position;
        if self.log.term_at(index) != Some(term) {
            return;
        }
        match self.log.running_hash_at(index) {
            Some(own) => self.compare(now, from, theirs, own),
            None => self.effects.push(Effect::ReadHash { member: from, theirs }),
        }
    }

    /// The hash that [`Effect::ReadHash`] asked for.
    pub fn hash_read(&mut self, now: Time, member: MemberId, theirs: Comparison, own: u64) {
        self.expire(now);
        // The log may have been cut meanwhile.
        if self.log.term_at(theirs.position.index) == Some(theirs.position.term) {
            self.compare(now, member, theirs, own);
        }
    }

    fn compare(&mut self, now: Time, from: MemberId, theirs: Comparison, running_hash: u64) {
        let own = Comparison {
            position: theirs.position,
            running_hash,
        };
        self.send(from, 0, Body::Compared(own));
        if theirs.running_hash == running_hash {
            self.check_entry_after(own);
        } else {
            self.raise_doubt(now, own);
            self.compared(from, theirs);
        }
    }

    /// Another member says what it has there.
    pub(super) fn compared(&mut self, from: MemberId, theirs: Comparison) {
        if let Some(doubt) = &mut self.doubt
            && doubt.position == theirs.position
        {
            doubt.words.insert(from, theirs.running_hash);
            self.judge_doubt();
        }
    }

    /// The doubt is over when a majority says the same, whatever that is.
    fn judge_doubt(&mut self) {
        let Some(doubt) = &self.doubt else { return };
        let me = self.config.id;
        let own = doubt.running_hash;
        let says = |id, hash| {
            let word = if id == me {
                Some(&own)
            } else {
                doubt.words.get(&id)
            };
            word == Some(&hash)
        };
        let is_of_majority = |hash: u64| self.configuration().is_quorum(|id| says(id, hash));
        if is_of_majority(own) {
            self.doubt = None;
            return;
        }
        let other = doubt.words.values().copied().find(|&hash| is_of_majority(hash));
        if let Some(hash) = other {
            let who: Vec<NodeNumber> = self
                .configuration()
                .members()
                .iter()
                .filter(|member| says(member.id, hash))
                .map(|member| member.node)
                .collect();
            self.damaged = Some(self.in_the_minority(doubt, hash, &who));
        }
    }

    fn in_the_minority(&self, doubt: &Doubt, hash: u64, who: &[NodeNumber]) -> String {
        let (node, LogPosition { index, term }) = (self.me(), doubt.position);
        let operation = self.log.operation_index_at(index);
        let who: Vec<String> = who.iter().map(ToString::to_string).collect();
        format!(
            "Node {node} stops, as its log is damaged: up to index {operation} (log entry {index} of term {term}) its running hash \
             is {:016x}, where a majority, Nodes {}, has {hash:016x}; move its data folder away, start it with an empty one, and \
             run 'raftctl member replace {node}'",
            doubt.running_hash,
            who.join(", ")
        )
    }

    /// Who asked holds the same up to there, so it is what comes next that it was refused to take: the own copy of that may be
    /// damaged in memory.
    fn check_entry_after(&mut self, own: Comparison) {
        let index = own.position.index + 1;
        let Some(entry) = self.log.entry(index) else {
            return;
        };
        let fits = match &entry.payload {
            Payload::Operation(operation) => {
                let at = self.log.operation_index_at(own.position.index) + 1;
                let hash = running_hash(own.running_hash, at, entry.term, &operation.data);
                (entry.operation_index, entry.running_hash) == (at, hash)
            }
            _ => entry.running_hash == own.running_hash,
        };
        if fits {
            return;
        }
        let (node, Entry { operation_index, .. }) = (self.me(), entry);
        self.damaged = Some(format!(
            "Node {node} stops, as its memory is damaged: index {operation_index} (log entry {index}) does not add up to its \
             running hash {:016x}, and another node that holds the same before it refuses it; start it again, which checks all \
             that is on its disk",
            entry.running_hash
        ));
    }

    /// Entries from that index on are no more: there is nothing to find out about them.
    pub(super) fn forget_doubt(&mut self, from: LogIndex) {
        self.doubt.take_if(|doubt| doubt.position.index >= from);
    }
}
