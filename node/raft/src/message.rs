//! What members say to each other. The cluster ID is added and checked where messages leave and enter the process.

use std::time::Duration;

use crate::entry::Entry;
use crate::feature::{FeatureLevel, Supports};
use crate::ids::{LogIndex, MemberId, OperationIndex, Term};

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub from: MemberId,
    /// To whom.
    pub to: MemberId,
    /// The sender's term; in a pre-vote and its grant the term asked for.
    pub term: Term,
    /// The feature level of what the sender knows to be committed: the rules by which it speaks.
    pub level: FeatureLevel,
    /// What it says.
    pub body: Body,
}

/// The kinds of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Raft 5.2, 9.6 of the thesis for pre-votes.
    RequestVote(RequestVote),
    /// The answer to [`Body::RequestVote`].
    Vote {
        /// Whether this answers a pre-vote.
        pre_vote: bool,
        /// Yes or no.
        answer: VoteAnswer,
    },
    /// Raft 5.3.
    AppendEntries(AppendEntries),
    /// The answer to [`Body::AppendEntries`].
    AppendEntriesResponse(AppendEntriesResponse),
    /// Leadership transfer (thesis 3.10): campaign at once.
    TimeoutNow,
    /// The sender doubts, as somebody's running hash is not its own: what is the receiver's?
    Compare(Comparison),
    /// The answer to [`Body::Compare`], of who holds the same entry.
    Compared(Comparison),
}

/// What a member's log adds up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// Up to and with the entry there, which it holds.
    pub position: LogPosition,
    /// [`crate::fold::running_hash`] there.
    pub running_hash: u64,
}

/// A candidate's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestVote {
    /// Asks only whether the vote would be given.
    pub pre_vote: bool,
    /// The leader itself told the candidate to campaign: passes stickiness.
    pub transfer: bool,
    /// The candidate's last entry.
    pub last: LogPosition,
}

/// A place in the log: an index and the term of the entry there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogPosition {
    /// 0 is the place before the first entry.
    pub index: LogIndex,
    /// 0 at index 0.
    pub term: Term,
}

/// A leader's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendEntries {
    /// What comes right before `entries`.
    pub previous: LogPosition,
    /// The leader's running hash there, where its memory tells it.
    pub previous_hash: Option<u64>,
    /// Consecutive.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: LogIndex,
    /// Strictly increasing in a term: the send time in microseconds, or one more than the one before; echoed. 0 in a
    /// message without entries asks for no answer if all is well: it only pushes the commit index.
    pub round: u64,
    /// Sent by the clock, traffic or not.
    pub heartbeat: bool,
    /// The leader's minimum election timeout.
    pub minimum_election_timeout: Duration,
    /// Answers to the follower's `read_requests`, at most [`READS_MAX`].
    pub read_answers: Vec<ReadAnswer>,
}

/// Most ReadIndex requests or answers in one message.
pub const READS_MAX: usize = 4_096;

/// A leader's answer to one ReadIndex request (thesis 6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAnswer {
    /// The request's number.
    pub id: u64,
    /// What has to be committed at the reader first; `None` refuses.
    pub index: Option<OperationIndex>,
}

/// A follower's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendEntriesResponse {
    /// The round it answers; 0 where it reports progress on its own.
    pub round: u64,
    /// On disk and known to equal the leader's log up to here.
    pub matched: LogIndex,
    /// Held and known to equal the leader's log up to here, on disk or not.
    pub received: LogIndex,
    /// Set when `previous` did not match.
    pub conflict: Option<Conflict>,
    /// ReadIndex requests, to be answered by `read_answers`, at most [`READS_MAX`].
    pub read_requests: Vec<u64>,
    /// What the follower has no room on: soon it may be able to take no more.
    pub full: Full,
    /// The feature levels that the follower supports.
    pub supports: Supports,
    /// Its log is about to be full, as its replicator does not execute: with a snapshot of the leader's that ends behind this entry
    /// it could let go of some.
    pub wants_snapshot: Option<LogIndex>,
}

/// What a voter says to a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VoteAnswer {
    /// No.
    Refused,
    /// Yes.
    Granted,
    /// Only if all voters say yes: what this one has acknowledged may be missing at the end of its log.
    GrantedIfAll,
}

/// What there is no room on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Full {
    /// The disk.
    pub disk: bool,
    /// The log: it is as long as it may be until it can be compacted.
    pub log: bool,
}

/// Where to look for the last common entry (Raft 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The `previous.index` that did not match.
    pub previous: LogIndex,
    /// The highest index at which the logs may agree, with the follower's term there.
    pub hint: LogPosition,
}
