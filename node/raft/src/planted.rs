//! Bugs to plant, so that a test can show that the simulator finds them.
//!
//! A program has none of them. Without the feature `planted-bugs`, which nothing but the simulator's own feature of that
//! name turns on, [`Planted`] has no room for a bug and [`Planted::has`] is `false` when the program is compiled.

macro_rules! bugs {
    ($($variant:ident $name:literal $what:literal,)*) => {
        /// A classic mistake that can be planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $(#[doc = $what] $variant,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// What it is called on a command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What goes wrong.
            pub fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }
        }
    };
}

bugs! {
    VoteNotPersisted "vote-not-persisted"
        "a vote is sent before it is on disk",
    TwoVotesInATerm "two-votes-in-a-term"
        "whoever asks gets a vote, also the second candidate of a term",
    NotUpToDate "no-up-to-date-check"
        "a candidate gets votes also of those whose log has more",
    OlderTermByCount "older-term-by-count"
        "an entry of an earlier term is committed because a majority holds it",
    StaleResponseCounted "stale-response-counted"
        "an answer to an earlier request counts, of another term or to a pre-vote",
    AcknowledgedBeforeSync "acknowledged-before-sync"
        "a follower acknowledges entries that are not on its disk yet",
    OwnDiskNotAwaited "own-disk-not-awaited"
        "a leader counts itself for entries that are not on its disk yet",
    AnsweredAtAppend "answered-at-append"
        "a client is told that its operation is committed as soon as the leader has it",
    CommitBeyondVerified "commit-beyond-verified"
        "a follower commits entries of which it does not know that they are the leader's",
    TailCutWithoutConflict "tail-cut-without-conflict"
        "a follower drops what it holds behind a message's last entry",
    ReadWithoutQuorum "read-without-quorum"
        "a leader answers reads without making sure that it still leads",
    ReadByEarlierRound "read-by-earlier-round"
        "a read is confirmed by answers that come after it, though to messages that were sent before it",
    ReadBeforeCommit "read-before-commit"
        "a leader answers reads before it has committed anything in its term",
    LeaseFromReceipt "lease-from-receipt"
        "a lease counts from when an answer came, and not from when it was asked for",
    LeaseAfterTimeoutNow "lease-after-timeout-now"
        "a leader that has told another one to campaign keeps its lease",
    VoteAfterRestart "vote-after-restart"
        "a voter forgets by a restart that it has just heard a leader",
    ShorterMinimum "shorter-minimum"
        "a voter sticks to a leader for its own MIN, though the leader's is longer",
    DedupeAtApply "dedupe-only-at-apply"
        "a leader appends what its log already holds of a session",
    SessionsNotRewound "sessions-not-rewound"
        "sessions remember operations that were dropped from the log",
    LostLeadershipDenied "lost-leadership-denied"
        "a leader that steps down says that nothing was appended",
    LeaderWithoutQuorum "leader-without-quorum"
        "a leader that reaches nobody goes on leading",
    OldMajorityIgnored "old-majority-ignored"
        "in a joint configuration a majority of the new voters decides alone",
    ChangeDuringChange "change-during-change"
        "a membership change begins before the one before is complete",
    ConfigurationNotRewound "configuration-not-rewound"
        "a configuration stays in force when its entry is dropped from the log",
    HashNotCompared "hash-not-compared"
        "a follower takes in what continues another log than its own",
    LevelRaisedEarly "level-raised-early"
        "a leader raises the feature level as soon as it supports a higher one itself",
    LevelAtOnce "level-at-once"
        "a member follows the rules of its leader's feature level before it comes to the entry that raises it",
    LevelNotRewound "level-not-rewound"
        "a feature level stays in force when its entry is dropped from the log",
    FsyncSkipped "fsync-skipped"
        "a write to the log counts before it is synced",
    NoSyncAfterRecovery "no-sync-after-recovery"
        "what was read at the start counts as being on disk, though it may never have been synced",
    BadFinalBatchTrusted "bad-final-batch-trusted"
        "a batch that does not match its CRC is taken for data",
    SuspectTailVotes "suspect-tail-votes"
        "a member whose last batch was damaged votes as if nothing were missing",
    LogDeletedIdentityKept "log-deleted-identity-kept"
        "a member whose log is gone starts with an empty one",
    LostDiskSameVoter "lost-disk-same-voter"
        "a node that lost its disk comes back as the voter it was",
    RecycledPastTrusted "recycled-past-trusted"
        "what a segment held before it was used again is taken for data",
    CompactedBeyondSnapshot "compacted-beyond-snapshot"
        "a log lets go of what is committed and in no snapshot yet",
    SessionsNotInSnapshot "sessions-not-in-snapshot"
        "a snapshot leaves out what sessions remember",
    SessionsNotTakenOver "sessions-not-taken-over"
        "a member that starts from a leader's snapshot keeps the sessions it had",
    StalledLeaderStays "stalled-leader-stays"
        "a leader whose disk is behind those of a majority goes on leading",
    ExecutedBeyondPersisted "executed-beyond-persisted"
        "a replicator is told to execute what is not on its node's disk",
    ExecutedUncommitted "executed-uncommitted"
        "a replicator executes what is not committed",
    CutBelowCommit "cut-below-commit"
        "a replicator drops what it has committed and its node does not hold",
    ExecutedRecordedEarly "executed-recorded-early"
        "a replicator records operations as executed before they are",
    AppliedIndexIgnored "applied-index-ignored"
        "a state machine goes on where its replicator remembers, not where it says that its state is",
    CopyPlacedLate "copy-placed-late"
        "the copy of a state goes with what is executed when it is complete, not when it was begun",
    ExecutedWithoutLeading "executed-without-leading"
        "a replicator that executes on the leader goes on when its node says that it leads no more",
    MarkIgnored "mark-ignored"
        "a replicator whose node begins to lead goes on behind what it has executed itself",
    MarkedBeforeExecuted "marked-before-executed"
        "a leader marks as executed what its replicator has not executed yet",
}

/// The bug that is planted in a part of the system, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Planted {
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

impl Planted {
    /// With that bug.
    #[cfg(feature = "planted-bugs")]
    pub const fn with(bug: Bug) -> Self {
        Self { bug: Some(bug) }
    }

    /// Whether it is that one.
    #[cfg(feature = "planted-bugs")]
    pub fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether it is that one: never.
    #[cfg(not(feature = "planted-bugs"))]
    #[inline]
    pub const fn has(self, _: Bug) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_by_itself() {
        assert!(Bug::ALL.iter().all(|&bug| !Planted::default().has(bug)));
        #[cfg(not(feature = "planted-bugs"))]
        assert_eq!(size_of::<Planted>(), 0, "there is no room for a bug");
    }

    #[test]
    fn names_are_different() {
        let names: std::collections::BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
    }
}
