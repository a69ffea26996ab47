//! What must hold in every run, each as a function with the name that the Raft paper or the contract gives it.
//!
//! [`Invariants`] is told what is seen of a cluster as it happens, and judges each step by what it was told before: a step
//! costs what is new in it, not what the cluster holds. It knows nothing of how a member comes to its decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftlog_raft::feature::{FeatureLevel, Supports};
use raftlog_raft::ids::{LogIndex, MemberId, NodeNumber, OperationIndex, Term};
use raftlog_raft::membership::Configuration;
use raftlog_raft::message::LogPosition;

use crate::for_all::ForAll;
use crate::machine::{State, register_of};

/// Something that must never happen, and has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Whether a step was right.
pub type Verdict = Result<(), Violation>;

pub(crate) fn demand(holds: bool, invariant: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds {
        Ok(())
    } else {
        let what = what();
        Err(Violation { invariant, what })
    }
}

/// An entry as it is seen in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenEntry {
    /// Its place.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// Term of the entry before it; 0 before the first.
    pub previous_term: Term,
    /// Its operation index, or that of the last operation before it.
    pub operation_index: OperationIndex,
    /// Its running hash.
    pub running_hash: u64,
    /// What it says, where it is an operation.
    pub operation: Option<SeenOperation>,
    /// The mark of execution that it is, if it is one.
    pub executed_through: Option<OperationIndex>,
}

/// An operation as it is seen in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenOperation {
    /// What the client submitted: no two submissions of these clients say the same.
    pub data: Bytes,
    /// Session and sequence.
    pub session: Option<(Arc<str>, u64)>,
}

/// What a member's log is known to hold.
#[derive(Debug, Default)]
struct SeenLog {
    terms: Vec<Term>,
    persisted: LogIndex,
    commit: LogIndex,
    leads: Option<Term>,
    /// In force when it was last looked at.
    configuration: Option<Configuration>,
    /// The place of which the fold was last looked at.
    folded: Option<(LogIndex, Term)>,
    /// The highest feature level that some version supports as which this member has run.
    supports: Option<FeatureLevel>,
    /// It begins behind that entry.
    base: LogIndex,
    /// The terms of what it had on disk before that was damaged, until it has as much again. What it has acknowledged counts, as it
    /// vouches for nobody who lacks that.
    damaged: Vec<Term>,
}

impl SeenLog {
    fn last(&self) -> LogIndex {
        self.terms.len() as u64
    }

    /// By what elections compare logs that end there (Raft 5.4.1).
    fn place(&self, index: LogIndex) -> (Term, LogIndex) {
        (self.term_at(index).unwrap_or(0), index)
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        term_at(&self.terms, index)
    }

    /// The end of what it vouches for.
    fn vouched(&self) -> (Term, LogIndex) {
        let lost = self.damaged.len() as u64;
        self.place(self.persisted)
            .max((term_at(&self.damaged, lost).unwrap_or(0), lost))
    }

    /// Whether it has acknowledged that entry.
    fn vouches_for(&self, index: LogIndex, term: Term) -> bool {
        let is_there = self.persisted >= index && self.term_at(index) == Some(term);
        is_there || term_at(&self.damaged, index) == Some(term)
    }
}

fn term_at(terms: &[Term], index: LogIndex) -> Option<Term> {
    let at = usize::try_from(index.checked_sub(1)?).ok()?;
    terms.get(at).copied()
}

/// What a log adds up to, as far as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFold {
    /// In force behind it.
    pub feature_level: FeatureLevel,
    /// Entries for which the rehearsed level held.
    pub rehearsed: u64,
    /// Operations.
    pub operation_index: OperationIndex,
    /// Over them.
    pub running_hash: u64,
    /// Of the configuration in force.
    pub configuration: LogIndex,
    /// Sessions that are remembered.
    pub sessions: usize,
    /// Marked as executed.
    pub executed_through: OperationIndex,
}

/// Where a log begins, as it says itself: the last entry that a snapshot holds in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenBase {
    /// That entry's place.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// Operations up to and with it.
    pub operation_index: OperationIndex,
    /// The running hash over them.
    pub running_hash: u64,
}

/// A committed entry, and the term of the member that was first to know.
#[derive(Debug)]
struct Committed {
    term: Term,
    in_term: Term,
}

/// How far one replicator's executions are known.
#[derive(Debug, Default)]
struct SeenExecutions {
    life: u64,
    last: OperationIndex,
    /// Up to where it was offered states in the place of operations: each of them it may have taken.
    offered: BTreeSet<OperationIndex>,
    /// The largest operation index that its node has had on disk.
    persisted: OperationIndex,
}

/// Everything that was seen of a cluster, as far as later steps are judged by it.
#[derive(Debug, Default)]
pub struct Invariants {
    leaders: BTreeMap<Term, MemberId>,
    entries: BTreeMap<(LogIndex, Term), SeenEntry>,
    folds: BTreeMap<(LogIndex, Term), SeenFold>,
    logs: BTreeMap<MemberId, SeenLog>,
    committed: Vec<Committed>,
    operations: Vec<SeenOperation>,
    by_data: BTreeMap<Bytes, OperationIndex>,
    by_session: BTreeMap<(Arc<str>, u64), OperationIndex>,
    executions: BTreeMap<NodeNumber, SeenExecutions>,
    /// Where only the leader's replicator executes.
    for_all: ForAll,
    /// What state machines are to hold after each operation, in its order; the first is of none.
    states: Vec<State>,
}

impl Invariants {
    /// The configuration in force is one of the log, and goes with it when the log is cut (Raft 6). Its entry may be read back
    /// from disk only, and is then not seen.
    pub fn configuration_of_log(
        &self,
        member: MemberId,
        version: LogIndex,
        brings_it: Option<bool>,
    ) -> Verdict {
        let last = self.known(member).0;
        let is_there = version <= last && brings_it != Some(false);
        demand(is_there, "a configuration in force is in the log", || {
            format!(
                "{member} acts by configuration {version}; that is no such entry, and its log ends at {last}"
            )
        })
    }

    /// A member runs as a version that supports those levels.
    pub fn runs_version(&mut self, member: MemberId, supports: Supports) {
        let log = self.logs.entry(member).or_default();
        log.supports = log.supports.max(Some(supports.max()));
    }

    /// A leader raises the feature level once every member has run as a version that supports it, learners and those that are
    /// about to leave included.
    pub fn raised(&self, leader: MemberId, level: FeatureLevel, configuration: &Configuration) -> Verdict {
        let supports = |member| self.logs.get(&member)?.supports;
        let mut members = configuration.members().iter().map(|member| member.id);
        let short = members.find(|&member| supports(member) < Some(level));
        demand(short.is_none(), "raised once all members support it", || {
            format!("{leader} raises the feature level to {level}, which {short:?} has never supported")
        })
    }

    /// The same log adds up to the same on all members, whatever their versions (a fold is a function of the log): rules change
    /// at the same place everywhere. And no member follows rules that its version does not know.
    pub fn folded(
        &mut self,
        member: MemberId,
        (index, term): (LogIndex, Term),
        supports: Supports,
        fold: impl FnOnce() -> SeenFold,
    ) -> Verdict {
        let log = self.logs.entry(member).or_default();
        if log.folded.replace((index, term)) == Some((index, term)) {
            return Ok(());
        }
        let fold = fold();
        let level = fold.feature_level;
        demand(
            level <= supports.max(),
            "no rules that a version does not know",
            || format!("{member} is at feature level {level} and supports {supports}"),
        )?;
        let first = self.folds.entry((index, term)).or_insert_with(|| fold.clone());
        demand(*first == fold, "equal logs add up to the same", || {
            format!("up to entry {index} of term {term} {member} has {fold:?}, another member {first:?}")
        })
    }

    /// The feature level of the place of which a member's fold was last looked at.
    pub fn known_level(&self, member: MemberId) -> Option<FeatureLevel> {
        let place = self.logs.get(&member)?.folded?;
        self.folds.get(&place).map(|fold| fold.feature_level)
    }

    /// That configuration is in force at a member.
    pub fn configured(&mut self, member: MemberId, configuration: &Configuration) {
        let known = &mut self.logs.entry(member).or_default().configuration;
        if known.as_ref() != Some(configuration) {
            *known = Some(configuration.clone());
        }
    }

    /// The same, unless one is known.
    pub fn configured_first(&mut self, member: MemberId, configuration: &Configuration) {
        let known = &mut self.logs.entry(member).or_default().configuration;
        known.get_or_insert_with(|| configuration.clone());
    }

    /// The configuration that was last in force at that member.
    pub fn configuration(&self, member: MemberId) -> Option<&Configuration> {
        self.logs.get(&member)?.configuration.as_ref()
    }

    /// How many entries are known of that member's log, and the term of the last one.
    pub fn known(&self, member: MemberId) -> (LogIndex, Term) {
        let log = self.logs.get(&member);
        log.map_or((0, 0), |log| (log.last(), log.terms.last().copied().unwrap_or(0)))
    }

    /// The term that is known of an entry of that member's log.
    pub fn known_term(&self, member: MemberId, index: LogIndex) -> Option<Term> {
        self.logs.get(&member)?.term_at(index)
    }

    /// Committed operations.
    pub fn operations(&self) -> OperationIndex {
        self.operations.len() as u64
    }

    /// A committed operation.
    pub fn operation(&self, index: OperationIndex) -> Option<&SeenOperation> {
        self.operations.get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    /// Election safety: at most one leader can be elected in a given term (Raft 5.2). And leader completeness: a committed
    /// entry is in the logs of the leaders of all higher terms (5.4).
    pub fn leads(&mut self, member: MemberId, term: Term) -> Verdict {
        let log = self.logs.entry(member).or_default();
        if log.leads == Some(term) {
            return Ok(());
        }
        log.leads = Some(term);
        self.election_safety(member, term)?;
        self.leader_completeness(member, term)
    }

    /// It does not lead.
    pub fn leads_not(&mut self, member: MemberId) {
        self.logs.entry(member).or_default().leads = None;
    }

    fn election_safety(&mut self, member: MemberId, term: Term) -> Verdict {
        let first = *self.leaders.entry(term).or_insert(member);
        demand(first == member, "election safety", || {
            format!("{first} and {member} both lead in term {term}")
        })
    }

    fn leader_completeness(&self, member: MemberId, term: Term) -> Verdict {
        let earlier = self.committed.partition_point(|entry| entry.in_term < term);
        let (Some(last), Some(log)) = (
            earlier.checked_sub(1).and_then(|at| self.committed.get(at)),
            self.logs.get(&member),
        ) else {
            return Ok(());
        };
        // With the last one, by log matching, it has all of them.
        let holds = log.term_at(earlier as u64) == Some(last.term);
        demand(holds, "leader completeness", || {
            format!(
                "{member} leads in term {term} without entry {earlier} of term {}, committed in term {}",
                last.term, last.in_term
            )
        })
    }

    /// Log matching: entries of the same index and term are the same, and so is everything before them (Raft 5.3).
    pub fn appended(&mut self, member: MemberId, entry: &SeenEntry) -> Verdict {
        let log = self.logs.entry(member).or_default();
        let (index, term) = (entry.index, entry.term);
        let (last, previous) = (log.last(), log.terms.last().copied().unwrap_or(0));
        log.terms.push(term);
        let follows = index == last + 1 && entry.previous_term == previous && term >= previous;
        demand(follows, "log matching", || {
            format!("{member} appends entry {index} of term {term} behind entry {last} of term {previous}")
        })?;
        let first = self.entries.entry((index, term)).or_insert_with(|| entry.clone());
        demand(first == entry, "log matching", || {
            format!("{member} holds {entry:?}, another member {first:?}")
        })
    }

    /// Leader append-only: a leader never overwrites or deletes entries in its log (Raft 5.3). And nobody changes what it
    /// knows to be committed.
    pub fn truncated(&mut self, member: MemberId, from: LogIndex) -> Verdict {
        let log = self.logs.entry(member).or_default();
        log.terms
            .truncate(usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX));
        log.persisted = log.persisted.min(from.saturating_sub(1));
        demand(log.leads.is_none(), "leader append-only", || {
            format!(
                "{member} drops entries from {from} on while it leads in term {:?}",
                log.leads
            )
        })?;
        demand(from > log.commit, "state machine safety", || {
            format!(
                "{member} drops entries from {from} on and has committed {}",
                log.commit
            )
        })
    }

    /// Snapshots hold what is committed and nothing else (Raft 7): a log that begins behind one holds all that is committed up
    /// to its last entry. A leader's log never begins anew.
    pub fn starts_from_snapshot(&mut self, member: MemberId, index: LogIndex, term: Term) -> Verdict {
        let until = usize::try_from(index).unwrap_or(usize::MAX);
        let committed = self.committed.get(..until).unwrap_or_default();
        let last = committed.last().map(|entry| entry.term);
        demand(last == Some(term), "snapshots hold what is committed", || {
            format!(
                "{member} starts from a snapshot up to entry {index} of term {term}, where {last:?} is committed"
            )
        })?;
        let log = self.logs.entry(member).or_default();
        log.terms = committed.iter().map(|entry| entry.term).collect();
        demand(log.leads.is_none(), "leader append-only", || {
            format!("{member} starts from a snapshot while it leads")
        })
    }

    /// The same of every log that begins behind a snapshot, also where a member has let go of entries of its own: what was
    /// committed up to there adds up to what the snapshot says.
    pub fn begins_behind(&mut self, member: MemberId, base: &SeenBase) -> Verdict {
        let committed = base
            .index
            .checked_sub(1)
            .and_then(|at| self.committed.get(usize::try_from(at).ok()?));
        let entry = committed.and_then(|committed| self.entries.get(&(base.index, committed.term)));
        let there = entry.map(|entry| SeenBase {
            index: entry.index,
            term: entry.term,
            operation_index: entry.operation_index,
            running_hash: entry.running_hash,
        });
        // Of a damaged snapshot the log may still hold all.
        demand(
            base.index == 0 || there == Some(*base),
            "snapshots hold what is committed",
            || format!("the log of {member} begins behind {base:?}, committed is {there:?}"),
        )?;
        self.logs.entry(member).or_default().base = base.index;
        Ok(())
    }

    /// Behind which entry that member's log was last seen to begin.
    pub fn base(&self, member: MemberId) -> LogIndex {
        self.logs.get(&member).map_or(0, |log| log.base)
    }

    /// Sessions are kept: one expires only where more were used since than are kept, each by an entry at least. A leader goes by all
    /// of its log, committed or not.
    pub fn expired(&self, kept: usize) -> Verdict {
        let longest = self.logs.values().map(SeenLog::last).max().unwrap_or(0);
        demand(longest > kept as u64, "sessions are kept", || {
            format!("a session expired where {kept} are kept, and no log has more than {longest} entries")
        })
    }

    /// A leader whose disk is behind those of a majority makes way for one of them: it does not lead for longer than its
    /// maximum election timeout, `patience`, without what is committed.
    pub fn leads_behind(node: NodeNumber, behind: Duration, patience: Duration) -> Verdict {
        demand(behind < patience, "a stalled disk does not lead", || {
            format!(
                "node {node} still leads, {behind:?} after others committed what its disk has not completed"
            )
        })
    }

    /// A replicator takes the state of a snapshot up to that operation, which is committed.
    pub fn restores(&mut self, node: NodeNumber, index: OperationIndex) -> Verdict {
        let committed = self.operations();
        self.executions.entry(node).or_default().offered.insert(index);
        demand(index <= committed, "snapshots hold what is committed", || {
            format!("replicator {node} takes a state up to index {index}; {committed} are committed")
        })
    }

    /// A member has that much on disk.
    pub fn persisted(
        &mut self,
        member: MemberId,
        node: NodeNumber,
        through: LogIndex,
        operations: OperationIndex,
    ) {
        let log = self.logs.entry(member).or_default();
        log.persisted = through;
        if through >= log.damaged.len() as u64 {
            log.damaged.clear();
        }
        let seen = self.executions.entry(node).or_default();
        seen.persisted = seen.persisted.max(operations);
    }

    /// Durability: what a member had on disk is there when it comes back with the first `kept` of the entries that it had. From a
    /// damaged disk something may be missing, or what it had replaced be there again, where the member `is_aware` of it, and so
    /// does not vouch for its log.
    pub fn came_back(&mut self, member: MemberId, kept: LogIndex, is_aware: bool) -> Verdict {
        let log = self.logs.entry(member).or_default();
        log.leads = None;
        log.folded = None;
        let persisted = log.persisted;
        // What it knew to be committed and had not on disk is gone with its memory.
        log.commit = log.commit.min(persisted).min(kept);
        if kept < persisted && log.damaged.len() < log.terms.len() {
            log.damaged.clone_from(&log.terms);
            log.damaged
                .truncate(usize::try_from(persisted).unwrap_or(usize::MAX));
        }
        log.terms.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        log.persisted = persisted.min(kept);
        demand(is_aware || kept >= persisted, "durability", || {
            format!("{member} had {persisted} entries on disk and comes back with {kept} of them")
        })
    }

    /// The running hash up to an entry that somebody had in its log.
    pub fn running_hash(&self, at: LogPosition) -> Option<u64> {
        let entry = self.entries.get(&(at.index, at.term))?;
        Some(entry.running_hash)
    }

    /// Integrity: what a member reads from its disk is what was written there.
    pub fn found_again(&self, member: MemberId, entry: &SeenEntry) -> Verdict {
        let written = self.entries.get(&(entry.index, entry.term));
        demand(written == Some(entry), "integrity", || {
            format!("{member} comes back with {entry:?}, written was {written:?}")
        })
    }

    /// State machine safety: no two members commit different entries at an index (Raft 5.4.3). A new one is on the disks of
    /// a majority.
    pub fn committed(&mut self, member: MemberId, term: Term, through: LogIndex) -> Verdict {
        let Some(log) = self.logs.get_mut(&member) else {
            return Ok(());
        };
        if through <= log.commit {
            return Ok(());
        }
        let from = std::mem::replace(&mut log.commit, through) + 1;
        let known = self.committed.len() as u64;
        for index in from..=through {
            self.state_machine_safety(member, term, index)?;
        }
        if through > known {
            self.nobody_wins_without(member, through)?;
        }
        Ok(())
    }

    /// Leader completeness, ahead of any election (Raft 5.4.2): once an entry is committed, in every majority there is
    /// somebody whose disk holds more than the log of anyone who lacks that entry.
    fn nobody_wins_without(&self, member: MemberId, index: LogIndex) -> Verdict {
        let (Some(configuration), Some(log)) = (self.configuration(member), self.logs.get(&member)) else {
            return Ok(());
        };
        let committed = log.term_at(index);
        let votes_for = |last: (Term, LogIndex), voter| {
            let voter = self.logs.get(&voter);
            voter.is_none_or(|voter| voter.vouched() <= last)
        };
        let wins = |log: &SeenLog| configuration.is_quorum(|voter| votes_for(log.place(log.last()), voter));
        let lacks = |log: &SeenLog| log.term_at(index) != committed;
        let mut voters = self.logs.iter().filter(|(id, _)| configuration.is_voter(**id));
        match voters.find(|(_, log)| lacks(log) && wins(log)) {
            None => Ok(()),
            Some((winner, _)) => demand(false, "leader completeness", || {
                format!("{member} has committed entry {index}, and {winner} would be elected without it")
            }),
        }
    }

    fn state_machine_safety(&mut self, member: MemberId, term: Term, index: LogIndex) -> Verdict {
        let found = self.logs.get(&member).and_then(|log| log.term_at(index));
        demand(found.is_some(), "state machine safety", || {
            format!("{member} commits entry {index}, which it does not hold")
        })?;
        let found = found.unwrap_or(0);
        let at = usize::try_from(index - 1).unwrap_or(usize::MAX);
        if let Some(first) = self.committed.get(at) {
            return demand(first.term == found, "state machine safety", || {
                format!(
                    "{member} commits entry {index} of term {found}, another member the one of term {}",
                    first.term
                )
            });
        }
        self.on_a_majority(member, index, found)?;
        self.committed.push(Committed {
            term: found,
            in_term: term,
        });
        match self.entries.get(&(index, found)).cloned() {
            Some(entry) => self.dense_operation_indexes(&entry),
            None => Ok(()),
        }
    }

    /// Committed means on the disks of a majority (Raft 5.3), and of both halves of a joint configuration (6).
    fn on_a_majority(&self, member: MemberId, index: LogIndex, term: Term) -> Verdict {
        let has = |member| {
            let log = self.logs.get(&member);
            log.is_some_and(|log| log.vouches_for(index, term))
        };
        let configuration = self.configuration(member);
        let is_quorum = configuration.is_some_and(|configuration| configuration.is_quorum(has));
        demand(is_quorum, "committed on a majority of disks", || {
            let holders: Vec<String> = self
                .logs
                .keys()
                .filter(|&&member| has(member))
                .map(MemberId::to_string)
                .collect();
            let holders = holders.join(", ");
            format!(
                "entry {index} of term {term} is committed and on the disks of {holders}: {configuration:?}"
            )
        })
    }

    /// Operation indexes are 1, 2, 3, ... whatever else the log holds.
    fn dense_operation_indexes(&mut self, entry: &SeenEntry) -> Verdict {
        let operations = self.operations.len() as u64;
        let expected = operations + u64::from(entry.operation.is_some());
        demand(
            entry.operation_index == expected,
            "dense operation indexes",
            || {
                format!(
                    "entry {} has operation index {} where {expected} comes next",
                    entry.index, entry.operation_index
                )
            },
        )?;
        if let Some(through) = entry.executed_through {
            self.for_all.committed(entry.term, through);
        }
        match &entry.operation {
            Some(operation) => {
                self.operations.push(operation.clone());
                self.exactly_once(operation, expected)
            }
            None => Ok(()),
        }
    }

    /// Exactly once: an operation is appended once within its session, however often it is submitted.
    fn exactly_once(&mut self, operation: &SeenOperation, index: OperationIndex) -> Verdict {
        let mut first = *self.by_data.entry(operation.data.clone()).or_insert(index);
        if let Some(session) = &operation.session {
            first = first.min(*self.by_session.entry(session.clone()).or_insert(index));
        }
        demand(first == index, "exactly once per session", || {
            format!("{operation:?} is at index {first} and at {index}")
        })
    }

    /// No acknowledged operation is lost: what a client was told is committed at that index.
    pub fn acknowledged(&self, data: &[u8], index: OperationIndex) -> Verdict {
        let found = self.operation(index).map(|operation| &*operation.data);
        demand(found == Some(data), "no acknowledged operation lost", || {
            format!(
                "{} was acknowledged at index {index}, where {} is committed",
                String::from_utf8_lossy(data),
                found.map_or("nothing".into(), String::from_utf8_lossy)
            )
        })
    }

    /// Nothing is executed that is not committed and on the own node's disk; and it is executed in order: within a life of
    /// the replicator one after the other, after a crash again from an earlier one on.
    pub fn executed(&mut self, node: NodeNumber, life: u64, index: OperationIndex, data: &[u8]) -> Verdict {
        self.may_execute(node, index, data)?;
        let seen = self.executions.entry(node).or_default();
        let again = life > seen.life && index >= 1 && index <= seen.last;
        let restored = index.checked_sub(1).is_some_and(|at| seen.offered.contains(&at));
        let follows = index == seen.last + 1 || restored || again;
        seen.offered.retain(|&at| at >= index);
        let last = std::mem::replace(&mut seen.last, index);
        seen.life = life;
        demand(follows, "executed in order", || {
            format!("replicator {node} executes index {index} after {last}")
        })
    }

    fn may_execute(&self, node: NodeNumber, index: OperationIndex, data: &[u8]) -> Verdict {
        let committed = self
            .operation(index)
            .is_some_and(|operation| operation.data == data);
        demand(committed, "nothing executed that is not committed", || {
            let data = String::from_utf8_lossy(data);
            format!("replicator {node} executes {data} at index {index}, which is not committed there")
        })?;
        let persisted = self.executions.get(&node).map_or(0, |seen| seen.persisted);
        demand(
            index <= persisted,
            "nothing executed that is not persisted",
            || format!("replicator {node} executes index {index}, its node has {persisted} on disk"),
        )
    }

    /// Exactly once: into a state that had everything up to `before` comes the next operation, whatever crashed.
    pub fn applied(
        &self,
        node: NodeNumber,
        before: OperationIndex,
        index: OperationIndex,
        data: &[u8],
    ) -> Verdict {
        self.may_execute(node, index, data)?;
        demand(index == before + 1, "applied exactly once", || {
            format!("machine {node} applies index {index} to a state that has {before}")
        })
    }

    /// Equal states: a state machine holds what the committed operations up to its index add up to.
    pub(crate) fn has_state(&mut self, node: NodeNumber, state: &State) -> Verdict {
        let committed = self.operations();
        demand(state.applied <= committed, "equal states", || {
            format!(
                "machine {node} has index {} in its state; {committed} are committed",
                state.applied
            )
        })?;
        while self.states.len() as u64 <= state.applied {
            let mut next = self.states.last().cloned().unwrap_or_default();
            if let Some(operation) = (!self.states.is_empty())
                .then(|| self.operation(next.applied + 1))
                .flatten()
            {
                next.apply(next.applied + 1, &operation.data);
            }
            self.states.push(next);
        }
        let expected = usize::try_from(state.applied)
            .ok()
            .and_then(|at| self.states.get(at));
        demand(expected == Some(state), "equal states", || {
            format!("machine {node} has {state:?}, where the operations add up to {expected:?}")
        })
    }

    /// Linearizable reads of a state machine: what is read is of a state with all that was executed when it was asked, and is what
    /// was written last there.
    pub fn queried_machine(
        &self,
        node: NodeNumber,
        executed: OperationIndex,
        applied: OperationIndex,
        (register, value): (u8, OperationIndex),
    ) -> Verdict {
        demand(executed <= applied, "queries see what is executed", || {
            format!("machine {node} answers a query at index {executed}; its state has {applied}")
        })?;
        let written = (1..=applied)
            .rev()
            .find(|&index| {
                self.operation(index)
                    .is_some_and(|operation| register_of(&operation.data) == register)
            })
            .unwrap_or(0);
        demand(written == value, "linearizable reads", || {
            format!(
                "machine {node} reads {value} of register {register} at index {applied}; {written} was written last"
            )
        })
    }

    /// What that replicator has executed.
    pub fn executed_through(&self, node: NodeNumber) -> OperationIndex {
        self.executions.get(&node).map_or(0, |seen| seen.last)
    }

    /// The same where only the leader's replicator executes, in that term of its node: what it was given is judged when it is given.
    pub fn executed_for_all(
        &mut self,
        node: NodeNumber,
        term: Term,
        index: OperationIndex,
        data: &[u8],
    ) -> Verdict {
        let committed = self
            .operation(index)
            .is_some_and(|operation| operation.data == data);
        demand(committed, "nothing executed that is not committed", || {
            format!(
                "replicator {node} executes index {index}, where something else is committed, if anything"
            )
        })?;
        let seen = self.executions.entry(node).or_default();
        seen.last = index.max(seen.last);
        let persisted = seen.persisted;
        self.for_all.executed(node, term, index)?;
        demand(
            index <= persisted,
            "nothing executed that is not persisted",
            || format!("replicator {node} executes index {index}, its node has {persisted} on disk"),
        )
    }

    /// A replicator hears whether its node leads, and how far leaders' replicators have executed.
    pub fn hears_leading(
        &mut self,
        node: NodeNumber,
        life: u64,
        leads: Option<Term>,
        execute_after: OperationIndex,
    ) -> Verdict {
        self.for_all.hears(node, life, leads, execute_after)
    }

    /// A replicator has no node any more that says that it leads.
    pub fn leads_no_more(&mut self, node: NodeNumber) {
        self.for_all.leads_no_more(node);
    }

    /// A replicator gives those operations to its executor, in that term of its node.
    pub fn given(
        &mut self,
        node: NodeNumber,
        term: Option<Term>,
        first: OperationIndex,
        last: OperationIndex,
    ) -> Verdict {
        self.for_all.given(node, term, first, last)
    }

    /// A replicator says how far it is, where only the leader's executes.
    pub fn progressed(
        &mut self,
        node: NodeNumber,
        executed: OperationIndex,
        durable: (Option<Term>, OperationIndex),
    ) -> Verdict {
        let own = self.executed_through(node);
        let offered = self
            .executions
            .get(&node)
            .and_then(|seen| seen.offered.last().copied());
        let through = own.max(offered.unwrap_or(0));
        self.for_all.progressed(node, (executed, through), durable)
    }

    /// A leader's log says what is executed.
    pub fn marks(&self, leader: MemberId, term: Term, through: OperationIndex) -> Verdict {
        self.for_all.marks(leader, term, through)
    }

    /// Marked as executed, as is committed.
    pub fn mark(&self) -> OperationIndex {
        self.for_all.mark()
    }

    /// Queries see what is executed: the state that one is answered from, at `index`, is what that replicator has executed, or
    /// took from a snapshot.
    pub fn queried(&self, node: NodeNumber, index: OperationIndex) -> Verdict {
        let seen = self.executions.get(&node);
        let through = seen.map_or(0, |seen| seen.last.max(seen.offered.last().copied().unwrap_or(0)));
        let through = through.max(self.for_all.mark());
        demand(index <= through, "queries see what is executed", || {
            format!("replicator {node} answers a query at index {index}; {through} is executed")
        })
    }

    /// A lease ends before anybody can be elected to a later term (thesis 6.4.1): `holders` lead their terms under one while
    /// another member becomes leader. One whose votes come late may still find that it was elected to an earlier term:
    /// whoever voted for the lease's would take nothing from it.
    pub fn elected_beside_leases(elected: (NodeNumber, Term), holders: &[(NodeNumber, Term)]) -> Verdict {
        let (node, term) = elected;
        let misled: Vec<_> = holders.iter().filter(|(_, led)| *led < term).collect();
        demand(misled.is_empty(), "leases end before elections", || {
            format!(
                "node {node} becomes leader of term {term} while leases are held: (node, term) {misled:?}"
            )
        })
    }

    /// Linearizable reads: a read sees everything that was acknowledged, or read by somebody, before it began (`floor`), and
    /// nothing that is not committed.
    pub fn read(&self, floor: OperationIndex, index: OperationIndex) -> Verdict {
        let committed = self.operations();
        demand(floor <= index && index <= committed, "linearizable reads", || {
            format!("a read sees up to {index}; {floor} was known when it began, {committed} are committed")
        })
    }
}

/// Bounded memory and disk: whatever `what` is, it stays within its limit.
pub fn bounded(what: &str, found: u64, limit: u64) -> Verdict {
    demand(found <= limit, "bounded memory and disk", || {
        format!("{what}: {found} where {limit} is the limit")
    })
}

#[cfg(test)]
mod tests {
    use raftlog_raft::membership::Member;

    use super::*;

    fn member(id: u64) -> MemberId {
        MemberId::new(id).unwrap()
    }

    fn operation(data: &'static str, session: Option<u64>) -> SeenOperation {
        SeenOperation {
            data: data.into(),
            session: session.map(|sequence| ("client".into(), sequence)),
        }
    }

    /// The entries of a log of these terms, of which every one after the first is an operation.
    fn entry(terms: &[Term], index: LogIndex) -> SeenEntry {
        let at = usize::try_from(index).unwrap() - 1;
        let data = ["", "a", "b", "c", "d", "e"][at];
        SeenEntry {
            index,
            term: terms[at],
            previous_term: if at == 0 { 0 } else { terms[at - 1] },
            operation_index: index - 1,
            running_hash: terms[..=at].iter().fold(7, |hash, term| hash * 31 + term),
            operation: (at > 0).then(|| operation(data, Some(index))),
            executed_through: None,
        }
    }

    fn configuration() -> Configuration {
        let voter = |id| Member {
            id: member(id),
            node: u32::try_from(id).unwrap(),
            peer_address: String::new(),
            client_address: String::new(),
            voter: true,
        };
        Configuration::new(0, (1..=3).map(voter).collect())
    }

    /// Three voters that hold such a log on disk, member 1 leads in its last term, and that much is committed.
    fn cluster(terms: &[Term], committed: LogIndex) -> Invariants {
        let mut seen = Invariants::default();
        for id in 1..=3 {
            seen.configured(member(id), &configuration());
            for index in 1..=terms.len() as u64 {
                seen.appended(member(id), &entry(terms, index)).unwrap();
            }
            seen.persisted(
                member(id),
                u32::try_from(id).unwrap(),
                terms.len() as u64,
                terms.len() as u64 - 1,
            );
        }
        let term = *terms.last().unwrap();
        seen.leads(member(1), term).unwrap();
        seen.committed(member(1), term, committed).unwrap();
        seen
    }

    fn found(verdict: Verdict) -> &'static str {
        verdict.map_or_else(|violation| violation.invariant, |()| "nothing")
    }

    #[test]
    fn a_good_history_is_good() {
        let mut seen = cluster(&[1, 1, 2], 2);
        seen.committed(member(2), 2, 2).unwrap();
        seen.executed(1, 1, 1, b"a").unwrap();
        seen.executed(1, 2, 1, b"a").unwrap();
        seen.acknowledged(b"a", 1).unwrap();
        seen.read(1, 1).unwrap();
        seen.queried(1, 1).unwrap();
        seen.queried(2, 0).unwrap();
        seen.truncated(member(2), 3).unwrap();
        seen.leads(member(3), 3).unwrap();
        seen.came_back(member(3), 3, false).unwrap();
        bounded("memory", 5, 5).unwrap();
        assert_eq!((seen.known(member(2)), seen.executed_through(1)), ((2, 1), 1));
    }

    #[test]
    fn two_leaders_in_a_term() {
        let mut seen = cluster(&[1, 1], 1);
        assert_eq!(found(seen.leads(member(2), 1)), "election safety");
    }

    #[test]
    fn a_leader_that_drops_its_entries() {
        let mut seen = cluster(&[1, 1], 1);
        assert_eq!(found(seen.truncated(member(1), 2)), "leader append-only");
    }

    #[test]
    fn a_query_that_sees_what_is_not_executed() {
        let mut seen = cluster(&[1, 1, 2], 2);
        assert_eq!(found(seen.queried(1, 1)), "queries see what is executed");
        seen.restores(1, 1).unwrap();
        seen.queried(1, 1).unwrap();
        assert_eq!(found(seen.queried(1, 2)), "queries see what is executed");
    }

    #[test]
    fn logs_that_do_not_match() {
        let terms = [1, 1, 2];
        let other = SeenEntry {
            running_hash: 1,
            ..entry(&terms, 3)
        };
        let gap = SeenEntry {
            index: 4,
            ..entry(&terms, 3)
        };
        let back = SeenEntry {
            term: 0,
            ..entry(&terms, 3)
        };
        for bad in [other, gap, back] {
            let mut seen = cluster(&terms, 1);
            seen.truncated(member(2), 3).unwrap();
            assert_eq!(found(seen.appended(member(2), &bad)), "log matching");
        }
    }

    #[test]
    fn a_leader_that_lacks_what_is_committed() {
        let mut seen = cluster(&[1, 1, 2], 2);
        seen.truncated(member(3), 2).unwrap();
        assert_eq!(found(seen.leads(member(3), 3)), "leader completeness");
        let mut seen = cluster(&[1, 1, 2], 2);
        seen.truncated(member(3), 2).unwrap();
        assert_eq!(
            found(seen.leads(member(3), 2)),
            "election safety",
            "of the same term it says nothing"
        );
    }

    /// Figure 8 of the paper: 1 comes to lead again, and its entry of term 2 comes to be on a majority of disks, while 3 has one
    /// of term 3.
    #[test]
    fn an_entry_of_an_earlier_term_that_can_still_be_lost() {
        let mut seen = cluster(&[1, 2], 1);
        seen.truncated(member(3), 2).unwrap();
        seen.appended(member(3), &entry(&[1, 3], 2)).unwrap();
        seen.leads(member(1), 4).unwrap();
        let mut with_its_own = cluster(&[1, 2, 4], 1);
        with_its_own.truncated(member(3), 2).unwrap();
        with_its_own.appended(member(3), &entry(&[1, 3], 2)).unwrap();
        assert_eq!(with_its_own.committed(member(1), 4, 3), Ok(()));
        assert_eq!(found(seen.committed(member(1), 4, 2)), "leader completeness");
    }

    #[test]
    fn another_entry_committed_at_the_same_index() {
        let mut seen = cluster(&[1, 1], 2);
        seen.truncated(member(2), 2).unwrap();
        seen.appended(member(2), &entry(&[1, 2], 2)).unwrap();
        assert_eq!(found(seen.committed(member(2), 2, 2)), "state machine safety");
        assert_eq!(
            found(seen.committed(member(3), 2, 9)),
            "state machine safety",
            "not held"
        );
    }

    #[test]
    fn a_committed_entry_that_is_dropped() {
        let mut seen = cluster(&[1, 1], 2);
        seen.committed(member(2), 1, 2).unwrap();
        assert_eq!(found(seen.truncated(member(2), 2)), "state machine safety");
    }

    #[test]
    fn an_entry_that_is_on_too_few_disks() {
        let mut seen = cluster(&[1, 1], 1);
        seen.persisted(member(2), 2, 1, 0);
        seen.persisted(member(3), 3, 1, 0);
        assert_eq!(
            found(seen.committed(member(1), 1, 2)),
            "committed on a majority of disks"
        );
    }

    /// The last batch of a disk rots just after it was acknowledged: who has it still vouches for nobody who lacks the entry.
    #[test]
    fn an_entry_that_was_acknowledged_before_its_disk_rotted() {
        let mut seen = cluster(&[1, 1], 1);
        seen.persisted(member(3), 3, 1, 0);
        seen.came_back(member(2), 1, true).unwrap();
        assert_eq!(seen.committed(member(1), 1, 2), Ok(()));
    }

    #[test]
    fn a_configuration_that_outlives_its_entry() {
        let seen = cluster(&[1, 1], 2);
        assert_eq!(seen.configuration_of_log(member(1), 0, None), Ok(()));
        assert_eq!(seen.configuration_of_log(member(1), 2, Some(true)), Ok(()));
        for (version, entry) in [(2, Some(false)), (3, None)] {
            let verdict = seen.configuration_of_log(member(1), version, entry);
            assert_eq!(found(verdict), "a configuration in force is in the log");
        }
    }

    #[test]
    fn a_disk_that_forgets() {
        let mut seen = cluster(&[1, 1], 1);
        seen.came_back(member(2), 1, true).unwrap();
        assert_eq!(found(seen.came_back(member(3), 1, false)), "durability");
    }

    /// The last batch of a log replaced entries by a later leader's, which were committed; it rots, so that what it replaced is
    /// there again. Whoever is aware of that asks others for what is lost: nothing of it was ever committed.
    #[test]
    fn what_was_replaced_and_is_there_again_is_not_what_was_committed() {
        let mut seen = cluster(&[1, 2], 2);
        seen.committed(member(3), 2, 2).unwrap();
        seen.came_back(member(3), 1, true).unwrap();
        assert_eq!(seen.known(member(3)), (1, 1));
        seen.appended(member(3), &entry(&[1, 1], 2)).unwrap();
        seen.truncated(member(3), 2).unwrap();
    }

    #[test]
    fn a_disk_that_returns_something_else() {
        let seen = cluster(&[1, 1], 1);
        assert_eq!(seen.found_again(member(2), &entry(&[1, 1], 2)), Ok(()));
        let mut other = entry(&[1, 1], 2);
        other.operation = Some(operation("b", Some(2)));
        assert_eq!(found(seen.found_again(member(2), &other)), "integrity");
        assert_eq!(
            found(seen.found_again(member(2), &entry(&[1, 1, 1], 3))),
            "integrity",
            "never written"
        );
    }

    #[test]
    fn operation_indexes_with_a_gap() {
        let mut seen = cluster(&[1], 1);
        let gap = SeenEntry {
            operation_index: 2,
            ..entry(&[1, 1], 2)
        };
        for id in 1..=3 {
            seen.appended(member(id), &gap.clone()).unwrap();
            seen.persisted(member(id), 1, 2, 2);
        }
        assert_eq!(found(seen.committed(member(1), 1, 2)), "dense operation indexes");
    }

    #[test]
    fn an_operation_appended_twice() {
        for again in [operation("a", None), operation("other", Some(2))] {
            let mut seen = cluster(&[1, 1], 2);
            let twice = SeenEntry {
                operation: Some(again),
                ..entry(&[1, 1, 1], 3)
            };
            for id in 1..=3 {
                seen.appended(member(id), &twice.clone()).unwrap();
                seen.persisted(member(id), 1, 3, 2);
            }
            assert_eq!(found(seen.committed(member(1), 1, 3)), "exactly once per session");
        }
    }

    #[test]
    fn an_acknowledged_operation_that_is_not_there() {
        let seen = cluster(&[1, 1], 2);
        assert_eq!(
            found(seen.acknowledged(b"a", 2)),
            "no acknowledged operation lost"
        );
        assert_eq!(
            found(seen.acknowledged(b"b", 1)),
            "no acknowledged operation lost"
        );
    }

    #[test]
    fn executions_that_must_not_be() {
        let cases: [(&str, u64, u64, &[u8]); 4] = [
            ("nothing executed that is not committed", 1, 3, b"c"),
            ("nothing executed that is not committed", 1, 1, b"b"),
            ("executed in order", 1, 2, b"b"),
            ("executed in order", 2, 2, b"b"),
        ];
        for (invariant, life, index, data) in cases {
            let mut seen = cluster(&[1, 1, 1, 1], 3);
            assert_eq!(
                found(seen.executed(1, life, index, data)),
                invariant,
                "index {index}"
            );
        }
        let mut seen = cluster(&[1, 1], 2);
        seen.executions.clear();
        assert_eq!(
            found(seen.executed(1, 1, 1, b"a")),
            "nothing executed that is not persisted"
        );
    }

    #[test]
    fn the_same_execution_twice_in_a_life() {
        let mut seen = cluster(&[1, 1], 2);
        seen.executed(1, 1, 1, b"a").unwrap();
        assert_eq!(found(seen.executed(1, 1, 1, b"a")), "executed in order");
    }

    #[test]
    fn a_replicator_goes_on_behind_the_state_that_it_was_given() {
        let mut seen = cluster(&[1, 1, 1, 1], 4);
        seen.restores(1, 1).unwrap();
        seen.restores(1, 2).unwrap();
        seen.restores(1, 3).unwrap();
        // What is on its way it does not have yet.
        seen.executed(1, 1, 3, b"c").unwrap();
        assert_eq!(found(seen.executed(1, 1, 2, b"b")), "executed in order");
        assert_eq!(found(seen.restores(1, 4)), "snapshots hold what is committed");
    }

    #[test]
    fn a_log_that_begins_behind_what_is_not_committed() {
        let mut seen = cluster(&[1, 1, 2], 2);
        for (index, term) in [(2, 2), (3, 2)] {
            let verdict = seen.starts_from_snapshot(member(3), index, term);
            assert_eq!(found(verdict), "snapshots hold what is committed");
        }
        seen.starts_from_snapshot(member(3), 2, 1).unwrap();
        assert_eq!(seen.known(member(3)), (2, 1));
        assert_eq!(
            found(seen.starts_from_snapshot(member(1), 2, 1)),
            "leader append-only"
        );
    }

    #[test]
    fn a_log_that_begins_where_something_else_is_committed() {
        let terms = [1, 1, 2];
        let mut seen = cluster(&terms, 2);
        let SeenEntry {
            index,
            term,
            operation_index,
            running_hash,
            ..
        } = entry(&terms, 2);
        let good = SeenBase {
            index,
            term,
            operation_index,
            running_hash,
        };
        let bad = [
            SeenBase { index: 3, ..good },
            SeenBase { term: 2, ..good },
            SeenBase {
                operation_index: 2,
                ..good
            },
            SeenBase {
                running_hash: 1,
                ..good
            },
        ];
        for base in bad {
            let verdict = seen.begins_behind(member(3), &base);
            assert_eq!(found(verdict), "snapshots hold what is committed", "{base:?}");
        }
        assert_eq!(seen.base(member(3)), 0);
        seen.begins_behind(member(3), &good).unwrap();
        assert_eq!(seen.base(member(3)), 2);
    }

    #[test]
    fn a_session_that_expires_too_soon() {
        let seen = cluster(&[1, 1, 1], 3);
        assert_eq!(seen.expired(2), Ok(()));
        assert_eq!(found(seen.expired(3)), "sessions are kept");
    }

    #[test]
    fn a_leader_that_stays_without_a_disk() {
        let patience = Duration::from_secs(3);
        Invariants::leads_behind(1, Duration::from_secs(2), patience).unwrap();
        assert_eq!(
            found(Invariants::leads_behind(1, patience, patience)),
            "a stalled disk does not lead"
        );
    }

    #[test]
    fn reads_that_miss_or_see_too_much() {
        let seen = cluster(&[1, 1, 1], 3);
        assert_eq!(found(seen.read(2, 1)), "linearizable reads");
        assert_eq!(found(seen.read(2, 3)), "linearizable reads");
    }

    #[test]
    fn a_level_that_is_raised_too_early() {
        let mut seen = Invariants::default();
        for (id, supports) in [
            (1, Supports::REHEARSAL),
            (2, Supports::REHEARSAL),
            (3, Supports::default()),
        ] {
            seen.runs_version(member(id), supports);
        }
        let raised = |seen: &Invariants| seen.raised(member(1), FeatureLevel::REHEARSED, &configuration());
        assert_eq!(found(raised(&seen)), "raised once all members support it");
        seen.runs_version(member(3), Supports::REHEARSAL);
        seen.runs_version(member(3), Supports::default());
        raised(&seen).unwrap();
    }

    #[test]
    fn folds_of_equal_logs_that_differ() {
        let fold = |level, rehearsed| {
            move || SeenFold {
                feature_level: level,
                rehearsed,
                operation_index: 1,
                running_hash: 2,
                configuration: 0,
                sessions: 0,
                executed_through: 0,
            }
        };
        let (first, later) = (FeatureLevel::FIRST, FeatureLevel::REHEARSED);
        let mut seen = Invariants::default();
        seen.folded(member(1), (5, 1), Supports::REHEARSAL, fold(later, 3))
            .unwrap();
        seen.folded(member(2), (5, 1), Supports::REHEARSAL, fold(later, 3))
            .unwrap();
        seen.folded(member(2), (5, 2), Supports::REHEARSAL, fold(first, 0))
            .unwrap();
        assert_eq!(seen.known_level(member(2)), Some(first));
        for other in [fold(later, 2), fold(first, 0)] {
            let differs = seen.folded(member(3), (5, 1), Supports::REHEARSAL, other);
            assert_eq!(found(differs), "equal logs add up to the same");
            seen.came_back(member(3), 0, true).unwrap();
        }
        let unknown = seen.folded(member(3), (5, 1), Supports::default(), fold(later, 3));
        assert_eq!(found(unknown), "no rules that a version does not know");
    }

    #[test]
    fn a_leader_beside_a_lease() {
        Invariants::elected_beside_leases((1, 5), &[]).unwrap();
        Invariants::elected_beside_leases((1, 5), &[(2, 6)]).unwrap();
        let bad = Invariants::elected_beside_leases((1, 5), &[(2, 6), (3, 4)]);
        assert_eq!(found(bad), "leases end before elections");
    }

    #[test]
    fn what_outgrows_its_bound() {
        assert_eq!(found(bounded("memory", 6, 5)), "bounded memory and disk");
    }
}
