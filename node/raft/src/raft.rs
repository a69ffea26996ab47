//! One member's consensus: messages, proposals, time and "persisted up to" go in, effects come out.

mod doubt;
mod election;
mod execution_mark;
mod feature_level;
mod follower;
mod leader;
mod lease;
mod members;
mod progress;
mod reads;
mod snapshot;
#[cfg(test)]
mod tests;
mod transfer;
mod watchdog;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::config::{Config, ELECTION_TIMEOUT_MAX};
use crate::durability::{Durability, Ticket};
use crate::effect::{Effect, ElectedBy, Notice, Persist, Refusal, RequestId, StreamId};
use crate::entry::{Entry, HardState};
use crate::feature::FeatureLevel;
use crate::ids::{LogIndex, MemberId, NodeNumber, Term};
use crate::log::Log;
use crate::membership::Configuration;
use crate::message::{Body, Full, Message};
use crate::planted::Bug;
use crate::time::Time;

use doubt::Doubt;
use election::Ballot;
use follower::Following;
use leader::Leading;
pub use progress::Progress;
pub use reads::ReadCounts;
pub use snapshot::Installed;
use transfer::Transfer;

/// No cluster gets there by elections: a higher term is none of this protocol, and would leave no term to campaign in.
const TERM_MAX: Term = Term::MAX / 2;

/// One member.
#[derive(Debug)]
pub struct Raft {
    config: Config,
    random: ChaCha8Rng,
    term: Term,
    voted_for: Option<MemberId>,
    /// The largest minimum election timeout that a leader has stated.
    stated_minimum: Duration,
    /// What has to be on disk so that the stated minimum is.
    stated_by: Ticket,
    log: Log,
    commit: LogIndex,
    durability: Durability,
    role: Role,
    /// The leader of this term, once known.
    leader: Option<MemberId>,
    /// When a leader was last heard. A member that comes back may have heard one just before it went down; one that has
    /// never been in any term has not.
    heard_at: Option<Time>,
    election_deadline: Time,
    full: Full,
    /// A snapshot that ends behind this entry would make room in the log.
    wants_snapshot: Option<LogIndex>,
    /// Since when the disk has completed nothing, once that is longer than the minimum election timeout.
    stalled_since: Option<Time>,
    /// Acknowledged entries may be missing: no votes until a leader has brought them back.
    suspect: bool,
    /// Why a leader's entries were refused, until some are taken in again or nothing that is committed is missing.
    refused: Option<String>,
    /// Whether this member or another is damaged, while that is being found out.
    doubt: Option<Doubt>,
    /// This member is.
    damaged: Option<String>,
    /// A level that this member does not support, and by whose rules others speak.
    left_behind_by: Option<FeatureLevel>,
    /// Streams of submissions: the term in which each began, or `None` once one of its proposals was refused.
    streams: BTreeMap<StreamId, Option<Term>>,
    /// This member's own ReadIndex requests under way to the leader.
    reads: BTreeMap<RequestId, Time>,
    read_counts: ReadCounts,
    transfer: Option<Transfer>,

    // What the next flush carries out.
    truncate_from: Option<LogIndex>,
    entries: Vec<Entry>,
    hard_state_changed: bool,
    /// Commit index that the disk knows of.
    commit_recorded: LogIndex,
    /// Messages that may be sent once that ticket is on disk.
    after: VecDeque<(Ticket, Message)>,
    effects: Vec<Effect>,
}

impl Full {
    /// Why submissions are refused, if they are.
    fn refusal(self) -> Option<Refusal> {
        match self {
            Self { disk: true, .. } => Some(Refusal::DiskFull),
            Self { log: true, .. } => Some(Refusal::LogFull),
            _ => None,
        }
    }
}

/// What a member is in its term.
#[derive(Debug)]
enum Role {
    Follower(Following),
    PreCandidate(Ballot),
    Candidate(Ballot),
    Leader(Box<Leading>),
}

/// What a member is, for status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleName {
    /// A voter that follows, or waits for a leader.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks to be elected.
    Candidate,
    /// Leads.
    Leader,
    /// Receives the log and has no vote.
    Learner,
}

impl Raft {
    /// A member as it comes back from its disk: everything in `log` and `hard_state` is on it.
    pub fn new(config: Config, hard_state: HardState, mut log: Log, random: ChaCha8Rng, now: Time) -> Self {
        log.plant(config.planted);
        log.settle(hard_state.commit.min(log.last().index).max(log.settled()));
        // A log that begins in a snapshot is settled that far, whatever the state knew.
        let commit = log.settled();
        let durability = Durability::new(log.last().index);
        // Entries may have reached the disk before the state that follows them: a vote is of the state's term only.
        let term = hard_state.term.max(log.last().term);
        let mut raft = Self {
            random,
            term,
            voted_for: hard_state.voted_for.filter(|_| hard_state.term == term),
            stated_minimum: hard_state.stated_minimum.min(ELECTION_TIMEOUT_MAX),
            stated_by: 0,
            commit,
            durability,
            role: Role::Follower(Following::new(commit)),
            leader: None,
            heard_at: (term > 0 && !config.planted.has(Bug::VoteAfterRestart)).then_some(now),
            election_deadline: now,
            full: Full::default(),
            wants_snapshot: None,
            stalled_since: None,
            suspect: false,
            refused: None,
            doubt: None,
            damaged: None,
            left_behind_by: None,
            streams: BTreeMap::new(),
            reads: BTreeMap::new(),
            read_counts: ReadCounts::default(),
            transfer: None,
            truncate_from: None,
            entries: Vec::new(),
            hard_state_changed: false,
            commit_recorded: commit,
            after: VecDeque::new(),
            effects: Vec::new(),
            log,
            config,
        };
        raft.reset_election_timer(now);
        raft
    }

    /// This member's identity.
    pub fn id(&self) -> MemberId {
        self.config.id
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its commit index.
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The last log index that is on its disk.
    pub fn persisted_index(&self) -> LogIndex {
        self.durability.persisted()
    }

    /// The leader of this term, once known.
    pub fn leader(&self) -> Option<MemberId> {
        self.leader
    }

    /// The configuration that is committed.
    pub fn committed_configuration(&self) -> &Configuration {
        self.log.settled_configuration()
    }

    /// The configuration in force.
    pub fn configuration(&self) -> &Configuration {
        &self.log.fold().configuration
    }

    /// The reads that it has answered while it led.
    pub fn read_counts(&self) -> ReadCounts {
        self.read_counts
    }

    /// Whether the disk is full.
    pub fn disk_full(&self) -> bool {
        self.full.disk
    }

    /// What it is now.
    pub fn role(&self) -> RoleName {
        match &self.role {
            Role::Follower(_) if self.is_voter() => RoleName::Follower,
            Role::Follower(_) => RoleName::Learner,
            Role::PreCandidate(_) => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    /// How this member came to lead; `None` while it does not.
    pub fn elected_by(&self) -> Option<ElectedBy> {
        self.leading().map(|leading| leading.elected_by)
    }

    /// What a leader knows of the other members, in ascending order of identity; empty elsewhere.
    pub fn progress(&self) -> impl Iterator<Item = (MemberId, &Progress)> {
        self.leading()
            .into_iter()
            .flat_map(|leading| leading.peers.iter().map(|(&id, progress)| (id, progress)))
            .filter(|(id, _)| self.configuration().member(*id).is_some())
    }

    /// Whether a live leader is known: it leads with a fresh quorum, or heard the leader within the maximum election
    /// timeout. What readiness means.
    pub fn has_live_leader(&self, now: Time) -> bool {
        if self.leading().is_some() {
            return self.term_has_commit() && now < self.quorum_deadline();
        }
        let heard = self
            .heard_at
            .is_some_and(|at| now <= at + self.config.election_timeout_max);
        self.leader.is_some() && heard
    }

    /// When [`Raft::tick`] is due.
    pub fn deadline(&self) -> Time {
        let by_role = match &self.role {
            Role::Leader(leading) => leading
                .heartbeat_due
                .min(self.quorum_deadline())
                .min(self.disk_behind_deadline()),
            _ if self.may_campaign() => self.election_deadline,
            _ => Time::NEVER,
        };
        let transfer = self
            .transfer
            .as_ref()
            .map_or(Time::NEVER, |transfer| transfer.deadline);
        let read = self
            .reads
            .values()
            .copied()
            .min()
            .map_or(Time::NEVER, |since| since + self.config.election_timeout_max);
        by_role.min(transfer).min(read).min(self.stall_deadline())
    }

    /// Time has come for whatever is due.
    pub fn tick(&mut self, now: Time) {
        self.expire(now);
        let heartbeat_interval = self.config.heartbeat_interval;
        match &mut self.role {
            Role::Leader(leading) => {
                if now >= leading.heartbeat_due {
                    leading.heartbeat_due = now + heartbeat_interval;
                    leading.order_heartbeats();
                    self.forget_departed(now);
                    self.leave_without_room(now);
                }
            }
            _ => {
                if now >= self.election_deadline && self.may_campaign() {
                    self.campaign(now);
                }
            }
        }
    }

    /// Ends what time has ended. Comes before anything else that happens, as the process may have been suspended: a leader
    /// that slept must not act on what it was.
    fn expire(&mut self, now: Time) {
        if now >= self.quorum_deadline() {
            self.step_down(now, "no majority answered within the maximum election timeout");
        }
        self.expire_transfer(now);
        self.expire_reads(now);
        self.watch_disk(now);
    }

    /// Takes in a message. Those that are not for this member, or not from one of its cluster, were refused before.
    pub fn message(&mut self, now: Time, message: Message) {
        self.expire(now);
        assert_eq!(
            message.to, self.config.id,
            "messages for others are refused where they come in"
        );
        let Message {
            from,
            term,
            level,
            body,
            ..
        } = message;
        if term > TERM_MAX || !self.understands(level, &body) {
            return;
        }
        if self.has(Bug::LevelAtOnce) {
            self.log.adopt(level);
        }
        match body {
            Body::RequestVote(request) => self.vote_requested(now, from, term, request),
            Body::Vote { pre_vote, answer } => self.vote_received(now, from, term, pre_vote, answer),
            Body::AppendEntries(request) => self.append_received(now, from, term, request),
            Body::AppendEntriesResponse(response) => {
                self.observe_term(now, term);
                if term == self.term || self.has(Bug::StaleResponseCounted) {
                    self.append_answered(now, from, response);
                }
            }
            Body::TimeoutNow => self.told_to_take_over(now, from, term),
            Body::Compare(theirs) => self.asked_to_compare(now, from, theirs),
            Body::Compared(theirs) => self.compared(from, theirs),
        }
    }

    /// Everything up to that ticket is on disk.
    pub fn persisted(&mut self, now: Time, ticket: Ticket) {
        self.durability.complete(ticket, now);
        self.disk_answered(now);
        self.expire(now);
        while let Some((_, message)) = self
            .after
            .pop_front_if(|(ticket, _)| self.durability.is_done(*ticket))
        {
            self.effects.push(Effect::Send(message));
        }
        match &self.role {
            Role::Follower(_) => {
                self.acknowledge_persisted();
                self.clear_suspicion();
            }
            Role::Candidate(_) => self.own_vote_persisted(now),
            Role::Leader(_) => self.advance_commit(now),
            Role::PreCandidate(_) => {}
        }
        self.log.evict(self.durability.persisted());
    }

    /// The disk is full, or is no more. A leader hands over to a member that has room, and refuses submissions until then.
    pub fn set_disk_full(&mut self, now: Time, full: bool) {
        self.expire(now);
        self.full.disk = full;
        self.leave_without_room(now);
    }

    /// The log is as long as it may be until it can be compacted, or is no more. A leader hands over to a member that has room,
    /// and refuses submissions until then.
    pub fn set_log_full(&mut self, now: Time, full: bool) {
        self.expire(now);
        self.full.log = full;
        self.leave_without_room(now);
    }

    /// Whether the log is as long as it may be.
    pub fn log_full(&self) -> bool {
        self.full.log
    }

    /// The end of the log was damaged and dropped: entries that this member has acknowledged may be missing. It neither
    /// votes nor campaigns until a leader has brought back everything that is committed.
    pub fn set_suspect(&mut self) {
        self.suspect = true;
    }

    /// Whether acknowledged entries may still be missing.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Why this member refuses what its leader sends: one of the two is damaged.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Takes what is to be done. The more happened since the last flush, the larger the batches.
    pub fn flush(&mut self, now: Time) -> Vec<Effect> {
        self.broadcast(now);
        self.persist(now);
        std::mem::take(&mut self.effects)
    }

    fn persist(&mut self, now: Time) {
        if self.truncate_from.is_none() && self.entries.is_empty() && !self.hard_state_changed {
            return;
        }
        let ticket = self.durability.issue(self.log.last().index, now);
        let state_due = self.hard_state_changed || self.commit != self.commit_recorded;
        self.hard_state_changed = false;
        self.commit_recorded = self.commit;
        self.effects.push(Effect::Persist(Persist {
            ticket,
            truncate_from: self.truncate_from.take(),
            entries: std::mem::take(&mut self.entries),
            hard_state: state_due.then(|| self.hard_state()),
        }));
    }

    fn hard_state(&self) -> HardState {
        HardState {
            term: self.term,
            voted_for: self.voted_for,
            commit: self.commit,
            stated_minimum: self.stated_minimum,
        }
    }

    /// A higher term than its own makes any member a follower (Raft 5.1).
    fn observe_term(&mut self, now: Time, term: Term) {
        if term <= self.term {
            return;
        }
        if self.leading().is_some() {
            self.step_down(now, "another member is in a higher term");
        }
        self.term = term;
        self.voted_for = None;
        self.hard_state_changed = true;
        self.become_follower(None);
    }

    fn become_follower(&mut self, leader: Option<MemberId>) {
        self.role = Role::Follower(Following::new(self.commit));
        self.leader = leader;
    }

    fn reset_election_timer(&mut self, now: Time) {
        let (low, high) = (self.config.election_timeout_min, self.config.election_timeout_max);
        let spread = u64::try_from(high.saturating_sub(low).as_micros()).unwrap_or(u64::MAX - 1);
        // To campaign is to vote, too.
        self.election_deadline =
            now + self.stickiness() + Duration::from_micros(self.random.random_range(0..=spread));
    }

    /// Tells a line.
    fn notice(&mut self, notice: Notice) {
        self.effects.push(Effect::Notice(notice));
    }

    fn send(&mut self, to: MemberId, term: Term, body: Body) {
        let message = self.message_to(to, term, body);
        self.effects.push(Effect::Send(message));
    }

    /// Sends the same to every other voter.
    fn send_to_voters(&mut self, term: Term, body: &Body) {
        let voters = self.configuration().voters().map(|member| member.id);
        let others: Vec<MemberId> = voters.filter(|&id| id != self.config.id).collect();
        for id in others {
            self.send(id, term, body.clone());
        }
    }

    /// Sends once what this flush persists is on disk.
    fn send_persisted(&mut self, to: MemberId, body: Body) {
        let message = self.message_to(to, self.term, body);
        self.after.push_back((self.durability.next(), message));
    }

    fn message_to(&self, to: MemberId, term: Term, body: Body) -> Message {
        Message {
            from: self.config.id,
            to,
            term,
            level: self.committed_feature_level(),
            body,
        }
    }

    /// The configuration whose majorities elect and commit.
    fn deciding(&self) -> Cow<'_, Configuration> {
        let configuration = self.configuration();
        if self.has(Bug::OldMajorityIgnored) {
            Cow::Owned(configuration.left(configuration.version))
        } else {
            Cow::Borrowed(configuration)
        }
    }

    /// Whether that bug is planted here.
    fn has(&self, bug: Bug) -> bool {
        self.config.planted.has(bug)
    }

    fn is_voter(&self) -> bool {
        self.configuration().is_voter(self.config.id)
    }

    /// A voter may, and a member that leaves until that is committed: it may be the only one that has the configuration
    /// without it, and then nobody else can be elected (thesis 4.2.2).
    fn may_campaign(&self) -> bool {
        let is_needed = self.is_voter() || self.committed_configuration().is_voter(self.config.id);
        is_needed && !self.suspect
    }

    fn leading(&self) -> Option<&Leading> {
        match &self.role {
            Role::Leader(leading) => Some(leading),
            _ => None,
        }
    }

    /// The number of another member, for lines; 0 where it is not in the configuration.
    fn node_of(&self, id: MemberId) -> NodeNumber {
        self.configuration().member(id).map_or(0, |member| member.node)
    }

    fn me(&self) -> NodeNumber {
        let listed = self.configuration().member(self.config.id);
        listed.map_or(self.config.node, |member| member.node)
    }
}
