//! How often each fault and each path of the protocol occurred: one that never does tests nothing.

use std::fmt::Write as _;

macro_rules! events {
    ($($variant:ident $text:literal,)*) => {
        /// Something that is worth counting.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Seen {
            $(#[doc = $text] $variant,)*
        }

        impl Seen {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What the table calls it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

events! {
    MessageDelivered "network: message delivered",
    MessageLost "network: message lost",
    MessageDuplicated "network: message duplicated",
    MessageLate "network: message late, others overtake it",
    MessageCut "network: message into a partition",
    Partitioned "fault: partition in two",
    Isolated "fault: one pod isolated",
    OneWay "fault: one-way partition",
    LinkBroken "fault: stream between two nodes broken",
    NodeKilled "fault: node killed",
    ReplicatorKilled "fault: replicator killed",
    PowerFailed "fault: power failure of a pod",
    AllPowerFailed "fault: power failure of all pods",
    CrashLooped "fault: crash loop begun",
    Suspended "fault: pod suspended",
    ClockJumped "fault: clock jumped",
    ClockDrifted "fault: clock changed its rate",
    DiskStalled "fault: disk stalled",
    DiskFilled "fault: disk filled up",
    WriteFailed "fault: write or sync failed",
    SectorsDisordered "fault: sectors survive a crash, some before them do not",
    Rotted "fault: bit rot",
    LastBatchRotted "fault: bit rot in the last batch of a log",
    NodeWiped "fault: node's disk wiped",
    ReplicatorWiped "fault: replicator's disk wiped",
    ReplicatorSlowed "fault: executor slow",
    TransferAsked "fault: leadership transfer asked for",
    ChangeAsked "fault: membership change asked for",
    Ambushed "fault: leader ambushed",
    FreshLeaderHit "fault: leader hit soon after its election",
    LogLost "fault: node's log gone, its identity kept",
    Forged "fault: node's log says something else, and adds up",
    Upgraded "fault: node restarted as the later version",
    RolledBack "fault: node restarted as the earlier version",
    NodeStarted "node: started",
    NodeStopped "node: stopped itself after a disk error",
    NodeRefused "node: refused a damaged folder",
    Compared "node: running hash compared on demand",
    MinorityStopped "node: stopped in the minority",
    NodeSuspect "node: came back with a suspect tail",
    NodeRepaired "node: suspect tail repaired by a leader",
    StallNoticed "node: noticed that its disk stalls",
    NodeWaits "node: a lost disk waits as a new member",
    ClusterFormed "node: joined its cluster",
    Elected "election: won",
    ElectedByTransfer "election: won by transfer",
    Campaigned "election: candidate asks for votes",
    PreVoteRefused "election: pre-vote refused",
    VoteRefused "election: vote refused",
    VoteGranted "election: vote granted",
    VoteGrantedIfAll "election: vote granted if all grant it",
    SteppedDown "leader: stepped down",
    SteppedDownByQuorum "leader: stepped down without a quorum",
    SteppedDownByDisk "leader: stepped down with a stalled disk",
    MadeWayForDisk "leader: handed over for want of a good disk",
    TransferDone "leader: transfer succeeded",
    TransferRefused "leader: transfer refused or given up",
    ChangeDone "members: change made",
    ChangeRefused "members: change refused or given up",
    Joint "members: joint configuration in force",
    ConfigurationRewound "members: configuration rewound",
    LeaderRemoved "members: leader removed itself",
    Invited "members: new member invited",
    ToldOfRemoval "members: removed member told so by a voter",
    MovedAside "members: removed member starts anew",
    LevelRaised "level: raised by a leader",
    LevelRewound "level: rewound with its entry",
    LevelFromSnapshot "level: came with a leader's snapshot",
    LeftBehind "level: member of the earlier version left behind",
    VersionRefused "level: folder refused by the earlier version",
    LogTruncated "log: tail replaced",
    LogShortened "log: unsynced tail lost in a crash",
    Conflicted "log: conflict answered with a hint",
    EntriesReadBack "log: entries read back from disk",
    SegmentBegun "log: another segment begun",
    SegmentRecycled "log: dropped segment used again",
    Compacted "log: compacted",
    LogFull "log: leader told that it is full",
    RefusedNotLeader "client: refused, not the leader",
    RefusedNotAppended "client: refused, not appended",
    RefusedBackpressure "client: refused, too much under way",
    RefusedDiskFull "client: refused, disk full",
    SnapshotOrdered "snapshot: ordered from a replicator",
    SnapshotTaken "snapshot: taken",
    Restored "snapshot: restored to a replicator",
    SnapshotPieceSent "snapshot: piece sent to a follower",
    SnapshotPieceAnswered "snapshot: piece answered",
    StartedFromSnapshot "snapshot: a log begun behind a leader's",
    StartedOver "snapshot: a stream started over",
    RefusedLogFull "client: refused, log full",
    RefusedExpired "client: refused, session expired",
    RefusedForgotten "client: refused, sequence forgotten",
    LeadershipLost "client: outcome unknown, leadership lost",
    AnswerLost "client: answer lost",
    TimedOut "client: no answer in time",
    Acknowledged "client: operation acknowledged",
    AcknowledgedAgain "client: duplicate answered with the first index",
    SessionOpened "client: session opened",
    ReadByNode "read: linearizable through a node",
    ReadByReplicator "read: linearizable through a replicator",
    ReadByLease "read: answered by a leader under its lease",
    ReadByRound "read: answered by a leader after a round",
    ReadRefused "read: refused",
    Executed "replicator: operation executed",
    ExecutedAgain "replicator: executed again after a crash",
    ExecutesForAll "replicator: executes for all, as its node leads",
    ExecutionMarked "replicator: what it executed for all is marked",
    WentBack "replicator: goes back to the mark as its node leads again",
    TakenBack "replicator: execution taken back",
    Resumed "replicator: resumed",
    Cut "replicator: cut",
    Waits "replicator: waits for its node",
    FeedHeldBack "replicator: feed held back",
    MachineKilled "fault: state machine killed",
    MachineWiped "fault: state machine's state lost",
    MachineAttached "state machine: attached",
    Applied "state machine: operation applied",
    Copied "state machine: state copied for a snapshot",
    MachineRestored "state machine: state restored",
    MachineRestoreAborted "state machine: restore broken off",
    MachineQueried "state machine: register read",
    ReplicatorStarted "replicator: started",
    ReplicatorStopped "replicator: stopped itself after a disk error",
    ReplicatorRefused "replicator: refused a damaged folder",
}

/// Counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    counts: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            counts: vec![0; Seen::ALL.len()],
        }
    }
}

impl Coverage {
    /// It occurred once more.
    pub fn count(&mut self, seen: Seen) {
        self.counts[seen as usize] += 1;
    }

    /// How often it occurred.
    pub fn of(&self, seen: Seen) -> u64 {
        self.counts[seen as usize]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
    }

    /// A line for each.
    pub fn table(&self) -> String {
        let mut table = String::new();
        for &seen in Seen::ALL {
            let count = self.of(seen);
            let never = if count == 0 { "   never" } else { "" };
            let _ = writeln!(table, "{:<52}{count:>12}{never}", seen.name());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_occurs_is_seen() {
        let mut one = Coverage::default();
        one.count(Seen::Elected);
        let mut both = one.clone();
        both.add(&one);
        assert_eq!((both.of(Seen::Elected), both.of(Seen::Cut)), (2, 0));
        let table = both.table();
        assert!(
            table
                .lines()
                .any(|line| line.starts_with("election: won ") && line.ends_with('2'))
        );
        assert!(
            table
                .lines()
                .any(|line| line.starts_with("replicator: cut") && line.ends_with("never"))
        );
    }
}
