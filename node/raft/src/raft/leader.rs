//! A leader's side: proposals, replication, commit, check-quorum (Raft 5.3, 5.4.2; thesis 6.2).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::mem;

use super::progress::Ordered;
use super::reads::LeaderReads;
use super::{Progress, Raft, Role};
use crate::effect::{Committed, Effect, ElectedBy, Notice, Proposal, Proposed, Refusal, RequestId};
use crate::entry::{CLIENT_ID_BYTES_MAX, Entry, OPERATION_BYTES_MAX, Operation, Payload};
use crate::ids::{LogIndex, MemberId, OperationIndex};
use crate::log::Base;
use crate::membership::change::ChangeRefusal;
use crate::message::{AppendEntries, AppendEntriesResponse, Body, Conflict, Full, LogPosition};
use crate::planted::Bug;
use crate::session::{self, Verdict};
use crate::time::Time;

/// Sessions that are opened though room in the log is short and nobody has submitted anything yet: one of them will.
const SESSIONS_BEFORE_OPERATIONS: usize = 64;

/// What a member has while it leads.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) elected_by: ElectedBy,
    pub(super) peers: BTreeMap<MemberId, Progress>,
    pub(super) heartbeat_due: Time,
    /// Whose disks or logs are full, as far as they have said.
    pub(super) without_room: BTreeMap<MemberId, Full>,
    /// The last round that was sent.
    pub(super) round: u64,
    /// By how many microseconds a round's number was ahead of its send time at most.
    rounds_ahead: u64,
    /// It has told another member to campaign, in this term.
    pub(super) has_handed_over: bool,
    /// Proposals by the log index whose commit they wait for.
    waiting: BTreeMap<LogIndex, Vec<RequestId>>,
    /// Membership changes that wait for the end of the one that is open.
    pub(super) changes: Vec<RequestId>,
    pub(super) reads: LeaderReads,
}

impl Leading {
    pub(super) fn new(
        others: impl Iterator<Item = MemberId>,
        last: LogIndex,
        elected_by: ElectedBy,
        now: Time,
        heartbeat_due: Time,
    ) -> Self {
        Self {
            elected_by,
            peers: others.map(|id| (id, Progress::new(last, now))).collect(),
            heartbeat_due,
            without_room: BTreeMap::new(),
            round: now.0,
            rounds_ahead: 0,
            has_handed_over: false,
            waiting: BTreeMap::new(),
            changes: Vec::new(),
            reads: LeaderReads::default(),
        }
    }

    pub(super) fn order_heartbeats(&mut self) {
        self.peers.values_mut().for_each(Progress::order_heartbeat);
    }

    /// The number of a round that is sent now.
    fn next_round(&self, now: Time) -> u64 {
        now.0.max(self.round + 1)
    }

    /// A round was sent.
    fn sent_round(&mut self, round: u64, now: Time) {
        self.round = round;
        self.rounds_ahead = self.rounds_ahead.max(round.saturating_sub(now.0));
    }

    /// When that round was sent, or somewhat earlier; [`Time`] 0 for round 0, which stands for none.
    pub(super) fn sent_at(&self, round: u64) -> Time {
        Time(round.saturating_sub(self.rounds_ahead))
    }
}

impl Raft {
    /// The current leader has committed an entry of its own term, and with it everything before (Raft 5.4.2).
    pub(super) fn term_has_commit(&self) -> bool {
        self.log.term_at(self.commit) == Some(self.term)
    }

    /// When a leader ceases to have heard a majority within the maximum election timeout.
    pub(super) fn quorum_deadline(&self) -> Time {
        let Some(leading) = self.leading().filter(|_| !self.has(Bug::LeaderWithoutQuorum)) else {
            return Time::NEVER;
        };
        let heard = |id| {
            leading
                .peers
                .get(&id)
                .map_or(u64::MAX, |progress| progress.acknowledged_at.0)
        };
        Time(self.configuration().quorum_value(|member| heard(member.id))) + self.config.election_timeout_max
    }

    /// Ceases to lead; whoever waits for a commit learns that its outcome is unknown.
    pub(super) fn step_down(&mut self, now: Time, why: &'static str) {
        let following = Role::Follower(super::Following::new(self.commit));
        let Role::Leader(leading) = mem::replace(&mut self.role, following) else {
            return;
        };
        self.leader = None;
        self.notice(Notice::SteppedDown {
            node: self.me(),
            term: self.term,
            why,
        });
        let refusal = if self.has(Bug::LostLeadershipDenied) {
            Refusal::NotAppended(why)
        } else {
            Refusal::LeadershipLost
        };
        for id in leading.waiting.into_values().flatten() {
            self.effects.push(Effect::Answer(id, Err(refusal)));
        }
        for id in leading.changes {
            self.effects
                .push(Effect::MembershipChanged(id, Err(ChangeRefusal::LeadershipLost)));
        }
        for id in leading.reads.into_local() {
            self.effects.push(Effect::ReadReady(id, None));
        }
        self.reset_election_timer(now);
    }

    /// A client's wish. Answered once it is committed, or refused.
    pub fn propose(&mut self, now: Time, proposal: Proposal) {
        self.expire(now);
        let Proposal { id, stream, proposed } = proposal;
        match self.admit(now, stream, &proposed) {
            Ok(Admission::Append) => {
                let payload = match proposed {
                    Proposed::Operation(operation) => Payload::Operation(operation),
                    Proposed::OpenSession => Payload::SessionOpened,
                };
                let at = self.append_own(payload);
                self.wait_for_commit(at, id);
            }
            Ok(Admission::Known(at)) => self.wait_for_commit(at, id),
            Ok(Admission::Compacted(operation_index)) => {
                let base = self.log.base().position;
                let committed = Committed {
                    operation_index,
                    log_index: base.index,
                    term: base.term,
                };
                self.effects.push(Effect::Answer(id, Ok(committed)));
            }
            Err(refusal) => {
                if let Some(stream) = stream {
                    self.streams.insert(stream, None);
                }
                self.effects.push(Effect::Answer(id, Err(refusal)));
            }
        }
    }

    /// No more proposals of that stream will come.
    pub fn stream_closed(&mut self, stream: u64) {
        self.streams.remove(&stream);
    }

    fn admit(&mut self, now: Time, stream: Option<u64>, proposed: &Proposed) -> Result<Admission, Refusal> {
        if self.leading().is_none() {
            return Err(Refusal::NotLeader { leader: self.leader });
        }
        if let Some(stream) = stream {
            let began = match self.streams.entry(stream) {
                MapEntry::Vacant(place) => *place.insert(Some(self.term)),
                MapEntry::Occupied(place) => *place.get(),
            };
            if began != Some(self.term) {
                return Err(Refusal::NotAppended(
                    "an earlier operation of this stream was not appended",
                ));
            }
        }
        if self.transfer.is_some() {
            return Err(Refusal::NotAppended("leadership is being handed over"));
        }
        if let Proposed::Operation(operation) = proposed {
            match self.judge(operation)? {
                Verdict::New => {}
                Verdict::Known(_) if self.has(Bug::DedupeAtApply) => {}
                Verdict::Known(index) if index <= self.log.base().operation_index => {
                    return Ok(Admission::Compacted(index));
                }
                Verdict::Known(index) => {
                    let at = self
                        .log
                        .log_index_of(index)
                        .expect("sessions only know operations of the log and what it begins behind");
                    return Ok(Admission::Known(at));
                }
                Verdict::Forgotten => return Err(Refusal::SequenceForgotten),
                Verdict::Expired => return Err(self.expired(now, operation)),
            }
        }
        if let Some(refusal) = self.lack_of_room(now) {
            return Err(refusal);
        }
        // A snapshot ends with an operation: before the first one, the log is never full, but not for the sake of sessions.
        let fold = self.log.fold();
        let is_first_needed = self.wants_snapshot.is_some() && fold.operation_index == 0;
        let has_sessions = fold.sessions.len() >= SESSIONS_BEFORE_OPERATIONS;
        if is_first_needed && has_sessions && matches!(proposed, Proposed::OpenSession) {
            return Err(Refusal::LogFull);
        }
        // What others have committed waits in memory, too, for an own disk that is slower than theirs.
        let unwritten =
            self.log.recent_bytes() >= self.config.recent_bytes_max + self.config.uncommitted_bytes_max;
        if unwritten || self.log.unsettled_bytes() >= self.config.uncommitted_bytes_max {
            return Err(Refusal::Backpressure);
        }
        Ok(Admission::Append)
    }

    /// Of a session that is not here: it has expired, unless a later leader may have opened it and this one not know yet that it
    /// leads no more. Under a lease there is none.
    fn expired(&self, now: Time, operation: &Operation) -> Refusal {
        let stamp = operation.session.as_ref();
        let opened = stamp.and_then(|stamp| session::opened_in(&stamp.client_id));
        if opened.is_some_and(|term| term > self.term) && !self.has_lease(now) {
            return Refusal::NotAppended("its session is of a later leader, if of this cluster at all");
        }
        Refusal::SessionExpired
    }

    fn judge(&self, operation: &Operation) -> Result<Verdict, Refusal> {
        if operation.data.is_empty() || operation.data.len() > OPERATION_BYTES_MAX {
            return Err(Refusal::InvalidOperation("an operation has 1 byte to 1 MiB"));
        }
        let Some(stamp) = &operation.session else {
            return Ok(Verdict::New);
        };
        if stamp.client_id.is_empty() || stamp.client_id.len() > CLIENT_ID_BYTES_MAX {
            return Err(Refusal::InvalidOperation("a client_id has at most 256 bytes"));
        }
        Ok(self.log.fold().sessions.verdict(stamp))
    }

    fn wait_for_commit(&mut self, at: LogIndex, id: RequestId) {
        if at <= self.commit || self.has(Bug::AnsweredAtAppend) {
            self.answer_committed(at, id);
        } else if let Role::Leader(leading) = &mut self.role {
            leading.waiting.entry(at).or_default().push(id);
        }
    }

    fn answer_committed(&mut self, at: LogIndex, id: RequestId) {
        let committed = Committed {
            operation_index: self.log.operation_index_at(at),
            log_index: at,
            term: self.log.term_at(at).expect("what is committed is in the log"),
        };
        self.effects.push(Effect::Answer(id, Ok(committed)));
    }

    pub(super) fn append_noop(&mut self) {
        self.append_own(Payload::Noop);
    }

    pub(super) fn append_own(&mut self, payload: Payload) -> LogIndex {
        let entry = self
            .log
            .fold()
            .next_entry(self.log.last().index + 1, self.term, payload);
        let at = entry.log_index;
        self.log.push(entry.clone());
        self.entries.push(entry);
        at
    }

    /// Commits what a majority has on disk, if it is of this term (Raft 5.4.2).
    pub(super) fn advance_commit(&mut self, now: Time) {
        let Some(leading) = self.leading() else { return };
        let own = if self.has(Bug::OwnDiskNotAwaited) {
            self.log.last().index
        } else {
            self.durability.persisted()
        };
        let matched = |id| leading.peers.get(&id).map_or(own, |progress| progress.matched);
        let reached = self.deciding().quorum_value(|member| matched(member.id));
        let of_this_term = self.log.term_at(reached) == Some(self.term) || self.has(Bug::OlderTermByCount);
        if reached <= self.commit || !of_this_term {
            return;
        }
        let before = mem::replace(&mut self.commit, reached);
        self.durability.committed(reached, now);
        self.log.settle(reached);
        self.log.evict(own);
        self.remember_configuration(before);
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let later = leading.waiting.split_off(&(reached + 1));
        let committed = mem::replace(&mut leading.waiting, later);
        for (at, ids) in committed {
            for id in ids {
                self.answer_committed(at, id);
            }
        }
        self.start_waiting_reads(now);
        self.advance_membership(now, before);
        self.raise_feature_level();
    }

    /// Sends each follower whatever is due: entries, a moved commit index, a heartbeat, answers to reads.
    pub(super) fn broadcast(&mut self, now: Time) {
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let round = leading.next_round(now);
        let peers: Vec<MemberId> = leading.peers.keys().copied().collect();
        let mut sent = false;
        for id in peers {
            let spared = self.is_spared(now, id);
            while self.send_next(id, round, spared) {
                sent = true;
            }
        }
        if let Role::Leader(leading) = &mut self.role
            && sent
        {
            leading.sent_round(round, now);
        }
    }

    /// Sends one message to a follower, if there is a reason for one; without entries to who is spared.
    fn send_next(&mut self, id: MemberId, round: u64, spared: bool) -> bool {
        let Role::Leader(leading) = &mut self.role else {
            return false;
        };
        let Some(progress) = leading.peers.get_mut(&id) else {
            return false;
        };
        let due = progress.ordered != Ordered::Nothing;
        let last = self.log.last().index;
        let room = progress.room(self.config.in_flight_bytes_max);
        let may_carry = progress.next <= last
            && room > 0
            && (progress.pipelining || due)
            && !progress.reading
            && !spared
            && !progress.needs_snapshot();
        let mut entries = Vec::new();
        if may_carry {
            match self
                .log
                .entries(progress.next, last, room.min(self.config.append_bytes_max))
            {
                Some(found) => entries = found,
                // A probe needs no entries.
                None if !progress.pipelining => {}
                None => {
                    progress.reading = true;
                    self.effects.push(Effect::ReadEntries {
                        member: id,
                        first: progress.next,
                        last: self.log.settled(),
                        bytes_max: self.config.append_bytes_max,
                    });
                }
            }
        }
        let push_commit = progress.pipelining && progress.commit_sent < self.commit;
        if entries.is_empty() && !due && !push_commit && progress.read_answers.is_empty() {
            return false;
        }
        self.send_entries(id, round, entries);
        true
    }

    fn send_entries(&mut self, id: MemberId, round: u64, entries: Vec<Entry>) {
        let (commit, minimum) = (self.commit, self.config.election_timeout_min);
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let Some(progress) = leading.peers.get_mut(&id) else {
            return;
        };
        let before = progress.next - 1;
        let previous = LogPosition {
            index: before,
            term: self
                .log
                .term_at(before)
                .expect("a leader sends from within its log"),
        };
        // While probing, what is sent may have to be sent again: `next` stays.
        if let (true, Some(last)) = (progress.pipelining, entries.last()) {
            progress.sent(last.log_index, entries.iter().map(Entry::weight).sum());
        }
        progress.commit_sent = commit;
        let ordered = mem::take(&mut progress.ordered);
        // Nobody waits for the answer to a message that only pushes the commit index.
        let wants_answer = !entries.is_empty() || ordered != Ordered::Nothing;
        let request = AppendEntries {
            previous,
            previous_hash: self.log.running_hash_at(before),
            entries,
            commit,
            round: if wants_answer { round } else { 0 },
            heartbeat: ordered == Ordered::Heartbeat,
            minimum_election_timeout: minimum,
            read_answers: progress.some_read_answers(),
        };
        self.send(id, self.term, Body::AppendEntries(request));
    }

    /// Entries that [`Effect::ReadEntries`] asked for.
    pub fn entries_read(&mut self, now: Time, member: MemberId, entries: Vec<Entry>) {
        self.expire(now);
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let round = leading.next_round(now);
        let Some(progress) = leading.peers.get_mut(&member) else {
            return;
        };
        if !mem::take(&mut progress.reading) {
            return;
        }
        let wanted = entries
            .first()
            .is_some_and(|entry| entry.log_index == progress.next);
        let settled = entries
            .last()
            .is_some_and(|entry| entry.log_index <= self.log.settled());
        if wanted && settled && progress.pipelining {
            leading.sent_round(round, now);
            self.send_entries(member, round, entries);
        }
    }

    /// A snapshot on disk holds everything up to there, which is committed: the log begins behind it from now on. Followers
    /// that are not that far need the snapshot.
    pub fn compact_to(&mut self, base: Base) {
        self.log.compact_to(base);
        let base = self.log.base().position.index;
        if let Role::Leader(leading) = &mut self.role {
            let peers = leading.peers.values_mut();
            peers
                .filter(|progress| progress.next <= base)
                .for_each(|progress| progress.left_behind(base));
        }
    }

    /// The stream to that member broke: whatever was under way may be lost.
    pub fn peer_stream_broken(&mut self, member: MemberId) {
        let last = self.log.last().index;
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        if let Some(progress) = leading.peers.get_mut(&member) {
            progress.forget(last);
            // The next heartbeat tries again; at once would spin while nobody is there.
            progress.ordered = Ordered::Nothing;
        }
        self.forget_reads_of(member);
    }

    pub(super) fn append_answered(&mut self, now: Time, from: MemberId, response: AppendEntriesResponse) {
        let AppendEntriesResponse {
            round,
            matched,
            received,
            conflict,
            read_requests,
            full,
            supports,
            wants_snapshot,
        } = response;
        let last = self.log.last().index;
        let from_receipt = self.has(Bug::LeaseFromReceipt);
        let Role::Leader(leading) = &mut self.role else {
            return;
        };
        let Some(progress) = leading.peers.get_mut(&from) else {
            return;
        };
        if matched > last || received > last || round > leading.round {
            // Nothing that this leader has sent: not a message of this protocol.
            return;
        }
        // Rounds are numbered by the time at which they are sent.
        let counts_from = if from_receipt && round > 0 { now.0 } else { round };
        progress.answered(counts_from, now);
        progress.supports = Some(supports);
        if full.refusal().is_some() {
            leading.without_room.insert(from, full);
        } else {
            leading.without_room.remove(&from);
        }
        match conflict {
            Some(Conflict { previous, hint }) => {
                if progress.is_current_conflict(previous) {
                    let hint = self.log.agreement_hint(hint.index, hint.term).index;
                    let (agreed, base) = (hint.min(previous - 1), self.log.base().position.index);
                    if agreed < base {
                        progress.left_behind(base);
                    } else {
                        progress.probe_from(agreed + 1);
                    }
                }
            }
            None => progress.agreed(matched, received),
        }
        // What the leader's log begins behind is in its snapshots.
        let base = self.log.base().position.index;
        let wanted = wants_snapshot.is_some_and(|behind| behind < base) && progress.order_wanted_snapshot();
        if progress.order_snapshot() || wanted {
            self.effects.push(Effect::SendSnapshot { member: from });
        }
        progress.track_catching_up(last, now, self.config.election_timeout_min);
        for id in read_requests {
            self.read_requested(now, from, id);
        }
        self.advance_commit(now);
        self.confirm_reads_by(round);
        self.advance_transfer();
        self.raise_feature_level();
    }
}

enum Admission {
    Append,
    /// The session has appended it already, at that log index.
    Known(LogIndex),
    /// The session has appended that operation, which is in a snapshot by now: of where and in which term it was, only the
    /// latest that may be is known.
    Compacted(OperationIndex),
}
