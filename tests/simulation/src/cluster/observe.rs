//! What is seen of a node after each step, as far as it is new: the invariants judge it.

use raftlog_raft::entry::{Entry, Payload};
use raftlog_raft::fold::Fold;
use raftlog_raft::ids::{LogIndex, MemberId, NodeNumber};
use raftlog_raft::log::Log;
use raftlog_raft::{Raft, RoleName};

use raftlog_server::node::Bounds;

use super::Cluster;
use crate::coverage::Seen;
use crate::fault::Fault;
use crate::invariants::{Invariants, SeenBase, SeenEntry, SeenFold, SeenOperation, Verdict, bounded};

/// Bytes that a node may keep of its log in memory beyond what it was told: an operation or two.
const MEMORY_BYTES_MORE: usize = 4 << 20;
/// Bytes that an entry takes on disk beyond those of its operation: a batch of its own, in whole sectors.
const ENTRY_BYTES_MORE: usize = 3 * 512;
/// Segments of a log beyond what it holds: the one written to, the one prepared, two to be used again, and those that the next
/// snapshot will let go of.
const SEGMENTS_MORE: u64 = 6;
/// A log is full when it takes so many times the bytes between two snapshots. As much as is between two of them may be under way by
/// then, from clients and from leaders, in entries of no less than so many bytes.
const LOG_PER_SNAPSHOT: u64 = 3;
const ENTRY_BYTES_MIN: u64 = 96;
/// Bytes that a term adds to a log: a vote, the beginning of a leader's, and that it is committed.
const TERM_BYTES: u64 = 4 * 512;
/// Operations that a process may have under way to its disk.
const UNDER_WAY_MAX: u64 = 64;

impl Cluster {
    /// Looks at a node after something happened to it.
    pub(super) fn observe(&mut self, number: NodeNumber) {
        if self.observe_forged(number) {
            return;
        }
        let Some(process) = self.pods.get(&number).and_then(|pod| pod.node.as_ref()) else {
            return;
        };
        let (member, Some(raft)) = (process.node.member_id(), process.node.raft()) else {
            return;
        };
        let base = raft.log().base().position;
        let (level_before, level) = (self.invariants.known_level(member), raft.feature_level());
        if base.index > 0 && self.invariants.known_term(member, base.index) != Some(base.term) {
            self.coverage.count(Seen::StartedFromSnapshot);
            if level_before < Some(level) && level == raft.log().settled_feature_level() {
                self.coverage.count(Seen::LevelFromSnapshot);
            }
        } else if base.index > self.invariants.base(member) {
            self.coverage.count(Seen::Compacted);
        }
        let before = self.invariants.known(member).0;
        let configuration = self.invariants.configuration(member);
        let (version, joined) = (raft.configuration().version, raft.configuration().is_joint());
        let (earlier, was_joint) = configuration.map_or((0, false), |c| (c.version, c.is_joint()));
        let verdict = look(&mut self.invariants, member, number, raft);
        let cut = match &verdict {
            Ok(kept) => *kept < before,
            Err(_) => false,
        };
        self.judge(verdict.map(|_| ()));
        self.pod(number).has_formed = true;
        if joined && !was_joint {
            self.count(Seen::Joint);
        }
        if version < earlier {
            self.count(Seen::ConfigurationRewound);
        }
        if cut {
            self.count(Seen::LogTruncated);
        }
        if Some(level) < level_before {
            self.count(Seen::LevelRewound);
        }
        self.count_reads(number);
    }

    fn count_reads(&mut self, number: NodeNumber) {
        let Some(process) = self.pods.get_mut(&number).and_then(|pod| pod.node.as_mut()) else {
            return;
        };
        let Some(now) = process.node.raft().map(Raft::read_counts) else {
            return;
        };
        let before = std::mem::replace(&mut process.reads, now);
        for _ in before.by_lease..now.by_lease {
            self.count(Seen::ReadByLease);
        }
        for _ in before.by_round..now.by_round {
            self.count(Seen::ReadByRound);
        }
    }

    /// Time has passed for a node: a leader whose disk stalls has had to notice.
    pub(super) fn observe_disk(&mut self, number: NodeNumber) {
        let raft = self.pods[&number]
            .node
            .as_ref()
            .and_then(|process| process.node.raft());
        let leader = raft.filter(|raft| raft.role() == RoleName::Leader);
        if let Some((raft, since)) = leader.and_then(|raft| Some((raft, raft.disk_behind_since()?))) {
            let behind = self.shown(number) - since;
            let patience = raft.config().election_timeout_max;
            self.judge(Invariants::leads_behind(number, behind, patience));
        }
    }

    /// What costs more to look at, now and then.
    pub(super) fn observe_bounds(&mut self, number: NodeNumber) {
        let Some(pod) = self.pods.get(&number) else { return };
        let under_way = pod.node_disk.under_way().max(pod.replicator_disk.under_way()) as u64;
        let used = pod.node_disk.content.used_bytes();
        let memory = pod
            .node
            .as_ref()
            .and_then(|process| process.node.raft())
            .map_or(0, |raft| raft.log().recent_bytes() as u64);
        let sessions = pod
            .node
            .as_ref()
            .and_then(|process| process.node.raft())
            .map_or(0, |raft| raft.log().fold().sessions.len() as u64);
        let volume = self.options.volume_bytes;
        self.judge(bounded(
            "operations under way to a disk",
            under_way,
            UNDER_WAY_MAX,
        ));
        let Bounds {
            recent_bytes_max,
            uncommitted_bytes_max,
            sessions_max,
            ..
        } = self.options.bounds;
        self.judge(bounded("sessions", sessions, sessions_max as u64));
        let memory_max = (recent_bytes_max + uncommitted_bytes_max + MEMORY_BYTES_MORE) as u64;
        self.judge(bounded("bytes of the log in memory", memory, memory_max));
        self.judge(bounded("bytes on a volume", used, volume));
        self.observe_log_files(number);
        self.observe_log_bytes(number);
    }

    /// A log that cannot be compacted stays within its bound, but for what elections and changes of members add to it.
    fn observe_log_bytes(&mut self, number: NodeNumber) {
        let every = self.options.snapshot_bytes;
        let process = self.pods.get(&number).and_then(|pod| pod.node.as_ref());
        let Some((process, raft)) = process.and_then(|process| Some((process, process.node.raft()?))) else {
            return;
        };
        let bounded_at_all = every > 0 && self.options.snapshot_every > 0;
        if !bounded_at_all || self.options.faults.contains_key(&Fault::Membership) {
            return;
        }
        let found = process.node.status(self.shown(number)).kept.log_bytes;
        let operation = (self.options.operation_bytes_max + ENTRY_BYTES_MORE) as u64;
        let under_way = (every / ENTRY_BYTES_MIN + 2) * operation;
        let limit = every * LOG_PER_SNAPSHOT + under_way + raft.term() * TERM_BYTES;
        self.judge(bounded("bytes of the log", found, limit));
    }

    /// Segments that no entry is needed of are used again or removed: a log takes what it holds, and some segments more.
    fn observe_log_files(&mut self, number: NodeNumber) {
        let every = self.options.snapshot_every;
        let Some(pod) = self.pods.get(&number) else { return };
        let raft = pod.node.as_ref().and_then(|process| process.node.raft());
        let Some(log) = raft.map(Raft::log).filter(|log| log.base().position.index > 0) else {
            return;
        };
        // Without room even the file that lets go of segments has to wait; and so does what is behind it in a queue.
        if pod.node_disk.under_way() > 0 || self.options.faults.contains_key(&Fault::DiskFull) {
            return;
        }
        let content = &pod.node_disk.content;
        let files = content
            .names()
            .into_iter()
            .filter(|file| file.to_string().starts_with("log-"));
        let found: usize = files
            .map(|file| content.content(file).map_or(0, <[u8]>::len))
            .sum();
        let entries = log.last().index - log.base().position.index + 2 * every;
        let entry = (self.options.operation_bytes_max + ENTRY_BYTES_MORE) as u64;
        let limit = entries * entry + self.options.volume_bytes / 16 * SEGMENTS_MORE;
        self.judge(bounded("bytes of log files", found as u64, limit));
    }
}

/// Tells the invariants what is new; how much of what was known of the log is still so.
fn look(
    seen: &mut Invariants,
    member: MemberId,
    number: NodeNumber,
    raft: &Raft,
) -> Result<LogIndex, crate::invariants::Violation> {
    let log = raft.log();
    let leads = raft.role() == RoleName::Leader;
    if !leads {
        seen.leads_not(member);
    }
    let base = log.base().position;
    if base.index > 0 && seen.known_term(member, base.index) != Some(base.term) {
        seen.starts_from_snapshot(member, base.index, base.term)?;
    }
    if base.index != seen.base(member) {
        seen.begins_behind(member, &seen_base(log))?;
    }
    let kept = agreed(seen, member, log);
    if kept < seen.known(member).0 {
        seen.truncated(member, kept + 1)?;
    }
    for index in kept + 1..=log.last().index {
        seen.appended(member, &seen_entry(log, index))?;
        if let Some(Payload::FeatureLevel(level)) = log.entry(index).map(|entry| &entry.payload)
            && leads
        {
            seen.raised(member, *level, raft.configuration())?;
        }
        if let Some(Payload::ExecutionProgress { executed_through }) =
            log.entry(index).map(|entry| &entry.payload)
            && leads
            && log.term_at(index) == Some(raft.term())
        {
            seen.marks(member, raft.term(), *executed_through)?;
        }
    }
    let (last, supports) = (log.last(), raft.config().supports);
    seen.folded(member, (last.index, last.term), supports, || {
        seen_fold(log.fold())
    })?;
    let version = raft.configuration().version;
    let brings_it = |entry: &Entry| matches!(entry.payload, Payload::Configuration(_));
    seen.configuration_of_log(member, version, log.entry(version).map(brings_it))?;
    let persisted = raft.persisted_index().min(log.last().index);
    seen.persisted(member, number, persisted, log.operation_index_at(persisted));
    if leads {
        seen.leads(member, raft.term())?;
    }
    // What was committed was committed by the configuration that was in force before.
    seen.configured_first(member, raft.configuration());
    seen.committed(member, raft.term(), raft.commit())?;
    seen.configured(member, raft.configuration());
    Ok(kept)
}

/// Up to where the log is the one that was known. Two places of the same index and term are the same log, as log matching
/// has been judged.
fn agreed(seen: &Invariants, member: MemberId, log: &Log) -> LogIndex {
    let mut index = seen.known(member).0.min(log.last().index);
    while index > 0 && log.term_at(index) != seen.known_term(member, index) {
        index -= 1;
    }
    index
}

fn seen_fold(fold: &Fold) -> SeenFold {
    SeenFold {
        feature_level: fold.feature_level,
        rehearsed: fold.rehearsed,
        operation_index: fold.operation_index,
        running_hash: fold.running_hash,
        configuration: fold.configuration.version,
        sessions: fold.sessions.len(),
        executed_through: fold.executed_through,
    }
}

fn seen_base(log: &Log) -> SeenBase {
    let base = log.base();
    SeenBase {
        index: base.position.index,
        term: base.position.term,
        operation_index: base.operation_index,
        running_hash: base.running_hash,
    }
}

fn seen_entry(log: &Log, index: LogIndex) -> SeenEntry {
    let operation = |entry: &Entry| match &entry.payload {
        Payload::Operation(operation) => Some(SeenOperation {
            data: operation.data.clone(),
            session: operation
                .session
                .as_ref()
                .map(|stamp| (stamp.client_id.clone(), stamp.sequence)),
        }),
        _ => None,
    };
    let entry = log.entry(index).expect("what is new is in memory");
    SeenEntry {
        index,
        term: entry.term,
        previous_term: log.term_at(index - 1).unwrap_or(0),
        operation_index: entry.operation_index,
        running_hash: entry.running_hash,
        operation: operation(entry),
        executed_through: match entry.payload {
            Payload::ExecutionProgress { executed_through } => Some(executed_through),
            _ => None,
        },
    }
}

/// What comes back with a node's log.
pub(super) fn came_back(seen: &mut Invariants, member: MemberId, raft: &Raft, is_aware: bool) -> Verdict {
    let log = raft.log();
    // What its snapshots hold is judged when its log is looked at.
    let kept = agreed(seen, member, log).max(log.base().position.index);
    seen.came_back(member, kept, is_aware)?;
    // From the end back to where memory ends.
    for index in (1..=log.last().index).rev() {
        if log.entry(index).is_none() {
            break;
        }
        seen.found_again(member, &seen_entry(log, index))?;
    }
    Ok(())
}
