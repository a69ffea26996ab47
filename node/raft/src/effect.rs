//! What the core wants done, and how it answers.

use std::fmt;
use std::time::Duration;

use crate::durability::Ticket;
use crate::entry::{Entry, HardState, Operation};
use crate::feature::{FeatureLevel, Supports};
use crate::ids::{LogIndex, MemberId, NodeNumber, OperationIndex, Term};
use crate::membership::Configuration;
use crate::membership::change::ChangeRefusal;
use crate::message::{Comparison, Message};

/// Numbers a request of the embedding program; answers carry it back.
pub type RequestId = u64;
/// Numbers a stream of submissions whose order must survive.
pub type StreamId = u64;

/// What a client wants in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its answer's number.
    pub id: RequestId,
    /// After the first proposal of a stream that is refused, so are all later ones.
    pub stream: Option<StreamId>,
    /// The wish itself.
    pub proposed: Proposed,
}

/// The kinds of proposals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposed {
    /// Append an operation, or find the one that the session has appended already.
    Operation(Operation),
    /// Open a session.
    OpenSession,
}

/// A proposal was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Index of the operation; for a session that of the last operation before.
    pub operation_index: OperationIndex,
    /// Where the entry is in the log; where that begins, if the entry is only in a snapshot by now.
    pub log_index: LogIndex,
    /// The term of the entry there.
    pub term: Term,
}

/// A proposal was not committed. Only after `LeadershipLost` may it have been appended; after `SequenceForgotten` it may
/// have been long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Ask the leader, if one is known.
    NotLeader {
        /// The leader's identity.
        leader: Option<MemberId>,
    },
    /// For that reason it was not appended.
    NotAppended(&'static str),
    /// Too much is under way.
    Backpressure,
    /// The disk is full.
    DiskFull,
    /// The log is as long as it may be, and cannot be compacted yet.
    LogFull,
    /// The length of the operation or of the client ID is out of bounds.
    InvalidOperation(&'static str),
    /// The session was evicted, or never opened.
    SessionExpired,
    /// The session does not remember so low a sequence.
    SequenceForgotten,
    /// It was appended, and then this member ceased to lead.
    LeadershipLost,
}

/// A leadership transfer did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferRefusal {
    /// Ask the leader, if one is known.
    NotLeader {
        /// The leader's identity.
        leader: Option<MemberId>,
    },
    /// No other voter has that node number, or there is no other voter.
    NoTarget,
    /// Another one is under way.
    Busy,
    /// The target did not take over in time.
    TimedOut,
}

/// One effect. Effects of one flush may be carried out in any order, but each kind keeps its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write and sync; then report the ticket by [`crate::Raft::persisted`].
    Persist(Persist),
    /// Send, or lose.
    Send(Message),
    /// Answer a proposal.
    Answer(RequestId, Result<Committed, Refusal>),
    /// Answer a transfer: the identity of the new leader.
    Transferred(RequestId, Result<MemberId, TransferRefusal>),
    /// Answer a membership change: the configuration in which it ended, committed; of a dry run the one in which it would.
    MembershipChanged(RequestId, Result<Configuration, ChangeRefusal>),
    /// A read is linearizable once this operation index is committed here; `None`: there is no leader to ask.
    ReadReady(RequestId, Option<OperationIndex>),
    /// Read entries back, at least one; then report them by [`crate::Raft::entries_read`].
    ReadEntries {
        /// Who they are for.
        member: MemberId,
        /// From here,
        first: LogIndex,
        /// through here at most,
        last: LogIndex,
        /// about so many bytes.
        bytes_max: usize,
    },
    /// Read the entry of that position back; then report its running hash by [`crate::Raft::hash_read`].
    ReadHash {
        /// Who compares.
        member: MemberId,
        /// What it has there.
        theirs: Comparison,
    },
    /// That follower lacks entries that are in a snapshot only: send it the newest one, unless that is under way. Comes again
    /// after every heartbeat until the follower has what it lacks.
    SendSnapshot {
        /// Who needs it.
        member: MemberId,
    },
    /// Something worth a line.
    Notice(Notice),
}

/// What must go to disk together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persist {
    /// Its number.
    pub ticket: Ticket,
    /// First drop everything from that index on.
    pub truncate_from: Option<LogIndex>,
    /// Then append these.
    pub entries: Vec<Entry>,
    /// And remember this.
    pub hard_state: Option<HardState>,
}

/// How a leader came to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectedBy {
    /// An election timeout elapsed.
    Election,
    /// The leader before it handed over.
    Transfer,
}

impl fmt::Display for ElectedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Election => "election",
            Self::Transfer => "transfer",
        })
    }
}

/// A happening, told as a plain line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// This member leads.
    BecameLeader {
        /// Node number.
        node: NodeNumber,
        /// In that term.
        term: Term,
        /// How.
        by: ElectedBy,
    },
    /// This member led, and does no more.
    SteppedDown {
        /// Node number.
        node: NodeNumber,
        /// The term that it led.
        term: Term,
        /// Why.
        why: &'static str,
    },
    /// This member heard of a new leader.
    Follows {
        /// Node number.
        node: NodeNumber,
        /// The leader's; 0 where no configuration that is held lists it.
        leader: NodeNumber,
        /// In that term.
        term: Term,
    },
    /// This member starts an election.
    Campaigns {
        /// Node number.
        node: NodeNumber,
        /// In that term.
        term: Term,
        /// Because of a transfer.
        transfer: bool,
    },
    /// A leader's entries do not continue this member's log: one of the two is damaged.
    EntriesRefused {
        /// Node number.
        node: NodeNumber,
        /// The leader's.
        leader: NodeNumber,
        /// What is wrong.
        why: String,
    },
    /// Leadership is being handed over.
    TransferStarted {
        /// Node number.
        node: NodeNumber,
        /// The next leader's.
        target: NodeNumber,
        /// Why, where nobody asked for it.
        why: Option<&'static str>,
    },
    /// The disk has completed nothing for long.
    DiskStalled {
        /// Node number.
        node: NodeNumber,
        /// For how long.
        silent: Duration,
    },
    /// A disk that was stalled completed something.
    DiskAnswered {
        /// Node number.
        node: NodeNumber,
        /// After how long.
        after: Duration,
    },
    /// A leader begins to change who belongs to the cluster.
    ChangesMembership {
        /// Node number.
        node: NodeNumber,
        /// Who belongs to it until then.
        before: Roster,
        /// Who will in the end.
        after: Roster,
    },
    /// What a leader was changing is committed, and in force alone.
    ChangedMembership {
        /// Node number.
        node: NodeNumber,
        /// Of the configuration.
        version: LogIndex,
        /// Who belongs to the cluster.
        members: Roster,
    },
    /// All members support a higher feature level, and a leader appends it.
    RaisesFeatureLevel {
        /// Node number.
        node: NodeNumber,
        /// In force until then.
        from: FeatureLevel,
        /// In force behind that entry.
        to: FeatureLevel,
    },
    /// The leader is at a feature level that this member does not support.
    LeftBehind {
        /// Node number.
        node: NodeNumber,
        /// The leader's.
        level: FeatureLevel,
        /// What this member supports.
        supports: Supports,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BecameLeader { node, term, by } => {
                write!(f, "Node {node} became Leader of term {term} by {by}")
            }
            Self::SteppedDown { node, term, why } => {
                write!(f, "Node {node} stepped down as Leader of term {term}: {why}")
            }
            Self::Follows {
                node,
                leader: 0,
                term,
            } => {
                // A new member does not hold the entry yet that lists its leader.
                write!(f, "Node {node} follows the Leader of term {term}")
            }
            Self::Follows { node, leader, term } => {
                write!(f, "Node {node} follows Leader {leader} in term {term}")
            }
            Self::Campaigns {
                node,
                term,
                transfer: false,
            } => {
                write!(
                    f,
                    "Node {node} heard of no Leader in time and campaigns for term {term}"
                )
            }
            Self::Campaigns {
                node,
                term,
                transfer: true,
            } => {
                write!(
                    f,
                    "Node {node} was told by the Leader to take over and campaigns for term {term}"
                )
            }
            Self::EntriesRefused { node, leader, why } => {
                write!(
                    f,
                    "Node {node} refuses entries of Leader {leader}: {why}; compare the replicas by 'raftctl verify' before \
                     restarting either"
                )
            }
            Self::TransferStarted { node, target, why } => {
                write!(f, "Leader Node {node} hands leadership over to Node {target}")?;
                why.map_or(Ok(()), |why| write!(f, ": {why}"))
            }
            Self::DiskStalled { node, silent } => {
                write!(
                    f,
                    "Node {node} waits for its disk, which has completed nothing for {silent:.1?}, and stands in no \
                     election until it does"
                )
            }
            Self::DiskAnswered { node, after } => {
                write!(
                    f,
                    "Node {node} goes on: its disk completed a write after {after:.1?}"
                )
            }
            Self::ChangesMembership { node, before, after } => {
                write!(
                    f,
                    "Leader Node {node} changes the members: from {before} to {after}"
                )
            }
            Self::ChangedMembership {
                node,
                version,
                members,
            } => {
                write!(
                    f,
                    "Leader Node {node} committed configuration {version}: {members}"
                )
            }
            Self::RaisesFeatureLevel { node, from, to } => {
                write!(
                    f,
                    "Leader Node {node} raises the cluster's feature level from {from} to {to}, as every member supports it"
                )
            }
            Self::LeftBehind {
                node,
                level,
                supports,
            } => {
                let why = supports.check(*level).err().unwrap_or_default();
                write!(f, "Node {node} cannot follow any more: {why}")
            }
        }
    }
}

/// Who belongs to a configuration, by node number in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// The voters.
    pub voters: Vec<NodeNumber>,
    /// The others.
    pub learners: Vec<NodeNumber>,
}

impl Roster {
    /// Of a configuration, or of the one that a joint one leads to.
    pub fn of(configuration: &Configuration) -> Self {
        let numbers = |voter| {
            let members = configuration
                .lasting_members()
                .filter(|member| member.voter == voter);
            let mut numbers: Vec<NodeNumber> = members.map(|member| member.node).collect();
            numbers.sort_unstable();
            numbers
        };
        Self {
            voters: numbers(true),
            learners: numbers(false),
        }
    }
}

/// `voters 1, 2, 3` or `voters 1, 2, 3 and learners 4`.
impl fmt::Display for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[NodeNumber]| {
            let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            texts.join(", ")
        };
        write!(f, "voters {}", list(&self.voters))?;
        if !self.learners.is_empty() {
            write!(f, " and learners {}", list(&self.learners))?;
        }
        Ok(())
    }
}
