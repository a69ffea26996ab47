//! Refusals of the core as clients see them: code, reason, one line.

use raftlog_proto::{error, reason};
use tonic::{Code, Status};

use crate::node::{
    BootstrapRefusal, Leader, MembershipRefusal, QueryRefusal, QueryRefused, Refusal, SnapshotRefusal,
    TransferRefusal, WhyRefused,
};

/// What a client is told about a proposal that failed.
pub(crate) fn proposal(refusal: Refusal) -> Status {
    match refusal {
        Refusal::NotLeader { leader } => no_leader(leader.as_ref()),
        Refusal::NotAppended(why) => error::status(Code::Unavailable, reason::NOT_APPENDED, why),
        Refusal::Backpressure => backpressure(),
        Refusal::DiskFull => error::status(
            Code::ResourceExhausted,
            reason::DISK_FULL,
            "the leader's disk is full, or too many others are: make room (raftctl health names them) and try again",
        ),
        Refusal::LogFull => error::status(
            Code::ResourceExhausted,
            reason::BACKPRESSURE,
            "the leader's log is full, as its replicator does not execute; look at that replicator, and try again",
        ),
        Refusal::InvalidOperation(why) => {
            error::status(Code::InvalidArgument, reason::INVALID_OPERATION, why)
        }
        Refusal::SessionExpired => error::status(
            Code::FailedPrecondition,
            reason::SESSION_EXPIRED,
            "the session was evicted or never opened; open a new one",
        ),
        Refusal::SequenceForgotten => error::status(
            Code::FailedPrecondition,
            reason::SEQUENCE_FORGOTTEN,
            "the session no longer remembers this sequence; it may have been appended long ago",
        ),
        Refusal::LeadershipLost => error::status(
            Code::Aborted,
            reason::LEADERSHIP_LOST,
            "leadership was lost before the commit: the outcome is unknown; retry with the same session and sequence",
        ),
    }
}

/// What a client is told about a query that has no result. It left no trace, so it may be asked again anywhere.
pub(crate) fn query(refusal: QueryRefusal) -> Status {
    let late = |reason, message: String| error::status(Code::DeadlineExceeded, reason, message);
    match refusal {
        QueryRefusal::NoLeader { leader: None } => error::status(
            Code::Unavailable,
            reason::NO_LEADER,
            "no leader is known that could say up to where to read; try again later, or with allow_stale",
        ),
        QueryRefusal::NoLeader { leader: Some(leader) } => error::status(
            Code::Unavailable,
            reason::NO_LEADER,
            format!(
                "Leader {} at {} did not say up to where to read; try again",
                leader.node, leader.client_address
            ),
        ),
        QueryRefusal::Backpressure => backpressure(),
        QueryRefusal::NoReplicator => error::status(
            Code::Unavailable,
            reason::NO_REPLICATOR,
            "this node's replicator is not connected, or went away; ask another node",
        ),
        QueryRefusal::NotReadInTime => late(
            reason::NO_LEADER,
            "the leader did not say in time up to where to read; try again later, or with allow_stale"
                .to_owned(),
        ),
        QueryRefusal::NotExecutedInTime { index, executed } => {
            let executed = executed.map_or("nothing that it tells".to_owned(), |executed| {
                executed.to_string()
            });
            let message = format!(
                "this node's replicator did not execute operation {index} in time; executed: {executed}; ask another node, or with \
                 allow_stale"
            );
            late(reason::NOT_EXECUTED, message)
        }
        QueryRefusal::NotAnsweredInTime => late(
            reason::NOT_EXECUTED,
            "this node's replicator did not answer in time; ask another node".to_owned(),
        ),
        QueryRefusal::Executor(refused) => refused_by_executor(refused),
    }
}

fn refused_by_executor(refused: QueryRefused) -> Status {
    let QueryRefused { why, message } = refused;
    let (code, reason) = match why {
        WhyRefused::Busy => (Code::ResourceExhausted, reason::BACKPRESSURE),
        WhyRefused::Invalid => (Code::InvalidArgument, reason::INVALID_QUERY),
        WhyRefused::OutOfRange => (Code::OutOfRange, reason::OUT_OF_RANGE),
        WhyRefused::TooLong => (Code::FailedPrecondition, reason::RESULT_TOO_LONG),
    };
    error::status(code, reason, message)
}

/// Too much is under way here.
pub(crate) fn backpressure() -> Status {
    error::status(
        Code::ResourceExhausted,
        reason::BACKPRESSURE,
        "too much is under way; try again later",
    )
}

/// Nobody to give it to.
pub(crate) fn no_leader(leader: Option<&Leader>) -> Status {
    let message = match leader {
        None => "no leader is known; try again later".to_owned(),
        Some(leader) => format!(
            "Leader {} at {} leads; ask there",
            leader.node, leader.client_address
        ),
    };
    error::status(Code::Unavailable, reason::NO_LEADER, message)
}

/// What the operator is told about a transfer that failed.
pub(crate) fn transfer(refusal: TransferRefusal) -> Status {
    match refusal {
        TransferRefusal::NotLeader { leader } => no_leader(leader.as_ref()),
        TransferRefusal::BadTarget(why) => {
            error::status(Code::FailedPrecondition, reason::TRANSFER_FAILED, why)
        }
        TransferRefusal::Failed(why) => error::status(Code::Aborted, reason::TRANSFER_FAILED, why),
    }
}

/// What the operator is told about a membership change that was not made.
pub(crate) fn membership(refusal: MembershipRefusal) -> Status {
    match refusal {
        MembershipRefusal::NotLeader { leader } => no_leader(leader.as_ref()),
        MembershipRefusal::NotNow(why) => error::status(
            Code::Unavailable,
            reason::NOT_APPENDED,
            format!("{why}; try again later"),
        ),
        MembershipRefusal::OtherVersion(version) => error::status(
            Code::FailedPrecondition,
            reason::CONFIGURATION_CHANGED,
            format!("configuration {version} is in force; look at it, and try again with its version"),
        ),
        MembershipRefusal::Invalid(why) => error::status(Code::InvalidArgument, reason::INVALID_CHANGE, why),
        MembershipRefusal::NotCaughtUp(member) => error::status(
            Code::FailedPrecondition,
            reason::NOT_CAUGHT_UP,
            format!(
                "member {member} does not hold enough of the log to vote; wait until it does, or force it once it has \
                 received that it is a member"
            ),
        ),
        MembershipRefusal::WouldLoseQuorum { responsive, voters } => error::status(
            Code::FailedPrecondition,
            reason::WOULD_LOSE_QUORUM,
            format!(
                "only {responsive} of the {voters} voters that there would be answer the leader, which is no majority; \
                 bring them back first, or force it"
            ),
        ),
        MembershipRefusal::LeadershipLost => error::status(
            Code::Aborted,
            reason::LEADERSHIP_LOST,
            "leadership was lost before the change was complete: the outcome is unknown; the same call again finds out",
        ),
    }
}

/// What the operator is told where there is no snapshot.
pub(crate) fn snapshot(refusal: SnapshotRefusal) -> Status {
    let (code, why) = match refusal {
        SnapshotRefusal::Busy => return backpressure(),
        SnapshotRefusal::Unformed => {
            let why = "this node belongs to no cluster yet: ask one that does";
            return error::status(Code::FailedPrecondition, reason::UNFORMED, why);
        }
        SnapshotRefusal::NoReplicator => (
            Code::Unavailable,
            "this node's replicator is not there, or catches up: look at it, or ask another node".to_owned(),
        ),
        SnapshotRefusal::NothingExecuted => (
            Code::FailedPrecondition,
            "this node's replicator has executed no operation yet: there is nothing to hold".to_owned(),
        ),
        SnapshotRefusal::Failed(why) => (
            Code::Unavailable,
            format!("the snapshot came to nothing, as {why}: see to that and try again, or ask another node"),
        ),
        SnapshotRefusal::TimedOut => (
            Code::DeadlineExceeded,
            "the snapshot was not on disk in time: see that the disk is not full, and give it more time"
                .to_owned(),
        ),
    };
    error::status(code, reason::NO_SNAPSHOT, why)
}

/// The snapshot that is downloaded was removed.
pub(crate) fn snapshot_gone() -> Status {
    error::status(
        Code::NotFound,
        reason::SNAPSHOT_GONE,
        "this node no longer has that snapshot, as it took newer ones, or it is damaged: take another",
    )
}

/// What a caller of Bootstrap is told.
pub(crate) fn bootstrap(refusal: BootstrapRefusal) -> Status {
    match refusal {
        BootstrapRefusal::AlreadyFormed(cluster) => error::status(
            Code::FailedPrecondition,
            reason::ALREADY_FORMED,
            format!("this node belongs to cluster {cluster} already"),
        ),
        BootstrapRefusal::WrongMember(own) => error::status(
            Code::FailedPrecondition,
            reason::WRONG_MEMBER,
            format!("this node is member {own}"),
        ),
        BootstrapRefusal::Invalid(why) => Status::invalid_argument(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_a_change_has_its_code_and_reason() {
        use MembershipRefusal as Refusal;
        for (refusal, code, reason) in [
            (
                Refusal::NotLeader { leader: None },
                Code::Unavailable,
                reason::NO_LEADER,
            ),
            (Refusal::NotNow("busy"), Code::Unavailable, reason::NOT_APPENDED),
            (
                Refusal::OtherVersion(7),
                Code::FailedPrecondition,
                reason::CONFIGURATION_CHANGED,
            ),
            (
                Refusal::Invalid("nobody left".into()),
                Code::InvalidArgument,
                reason::INVALID_CHANGE,
            ),
            (
                Refusal::NotCaughtUp(raftlog_raft::ids::MemberId::new(1).unwrap()),
                Code::FailedPrecondition,
                reason::NOT_CAUGHT_UP,
            ),
            (
                Refusal::WouldLoseQuorum {
                    responsive: 1,
                    voters: 3,
                },
                Code::FailedPrecondition,
                reason::WOULD_LOSE_QUORUM,
            ),
            (Refusal::LeadershipLost, Code::Aborted, reason::LEADERSHIP_LOST),
        ] {
            let status = membership(refusal.clone());
            assert_eq!(status.code(), code, "{refusal:?}");
            assert_eq!(error::reason_of(&status).as_deref(), Some(reason), "{refusal:?}");
            assert!(!status.message().contains('\n') && !status.message().is_empty());
        }
    }

    #[test]
    fn every_refusal_of_a_snapshot_has_its_code_and_reason() {
        use SnapshotRefusal as Refusal;
        for (refusal, code, reason) in [
            (Refusal::Unformed, Code::FailedPrecondition, reason::UNFORMED),
            (Refusal::Busy, Code::ResourceExhausted, reason::BACKPRESSURE),
            (Refusal::NoReplicator, Code::Unavailable, reason::NO_SNAPSHOT),
            (
                Refusal::NothingExecuted,
                Code::FailedPrecondition,
                reason::NO_SNAPSHOT,
            ),
            (Refusal::Failed("so"), Code::Unavailable, reason::NO_SNAPSHOT),
            (Refusal::TimedOut, Code::DeadlineExceeded, reason::NO_SNAPSHOT),
        ] {
            let status = snapshot(refusal);
            assert_eq!(status.code(), code, "{refusal:?}");
            assert_eq!(error::reason_of(&status).as_deref(), Some(reason), "{refusal:?}");
            assert!(!status.message().contains('\n') && !status.message().is_empty());
        }
    }

    #[test]
    fn every_refusal_of_a_query_has_its_code_and_reason() {
        use QueryRefusal as Refusal;
        let leader = Leader {
            member_id: raftlog_raft::ids::MemberId::new(1).unwrap(),
            node: 1,
            client_address: "node1:5001".into(),
        };
        let executor = |why| {
            let message = "no".to_owned();
            Refusal::Executor(QueryRefused { why, message })
        };
        let late = |executed| Refusal::NotExecutedInTime { index: 9, executed };
        for (refusal, code, reason) in [
            (
                Refusal::NoLeader { leader: None },
                Code::Unavailable,
                reason::NO_LEADER,
            ),
            (
                Refusal::NoLeader { leader: Some(leader) },
                Code::Unavailable,
                reason::NO_LEADER,
            ),
            (
                Refusal::Backpressure,
                Code::ResourceExhausted,
                reason::BACKPRESSURE,
            ),
            (Refusal::NoReplicator, Code::Unavailable, reason::NO_REPLICATOR),
            (Refusal::NotReadInTime, Code::DeadlineExceeded, reason::NO_LEADER),
            (late(Some(4)), Code::DeadlineExceeded, reason::NOT_EXECUTED),
            (late(None), Code::DeadlineExceeded, reason::NOT_EXECUTED),
            (
                Refusal::NotAnsweredInTime,
                Code::DeadlineExceeded,
                reason::NOT_EXECUTED,
            ),
            (
                executor(WhyRefused::Busy),
                Code::ResourceExhausted,
                reason::BACKPRESSURE,
            ),
            (
                executor(WhyRefused::Invalid),
                Code::InvalidArgument,
                reason::INVALID_QUERY,
            ),
            (
                executor(WhyRefused::OutOfRange),
                Code::OutOfRange,
                reason::OUT_OF_RANGE,
            ),
            (
                executor(WhyRefused::TooLong),
                Code::FailedPrecondition,
                reason::RESULT_TOO_LONG,
            ),
        ] {
            let status = query(refusal.clone());
            assert_eq!(status.code(), code, "{refusal:?}");
            assert_eq!(error::reason_of(&status).as_deref(), Some(reason), "{refusal:?}");
            assert!(!status.message().contains('\n') && !status.message().is_empty());
        }
    }

    #[test]
    fn every_refusal_has_its_code_and_reason() {
        for (refusal, code, reason, nothing_appended) in [
            (
                Refusal::NotLeader { leader: None },
                Code::Unavailable,
                reason::NO_LEADER,
                true,
            ),
            (
                Refusal::NotAppended("no"),
                Code::Unavailable,
                reason::NOT_APPENDED,
                true,
            ),
            (
                Refusal::Backpressure,
                Code::ResourceExhausted,
                reason::BACKPRESSURE,
                true,
            ),
            (
                Refusal::DiskFull,
                Code::ResourceExhausted,
                reason::DISK_FULL,
                true,
            ),
            (
                Refusal::LogFull,
                Code::ResourceExhausted,
                reason::BACKPRESSURE,
                true,
            ),
            (
                Refusal::InvalidOperation("empty".into()),
                Code::InvalidArgument,
                reason::INVALID_OPERATION,
                true,
            ),
            (
                Refusal::SessionExpired,
                Code::FailedPrecondition,
                reason::SESSION_EXPIRED,
                true,
            ),
            (
                Refusal::SequenceForgotten,
                Code::FailedPrecondition,
                reason::SEQUENCE_FORGOTTEN,
                false,
            ),
            (
                Refusal::LeadershipLost,
                Code::Aborted,
                reason::LEADERSHIP_LOST,
                false,
            ),
        ] {
            let status = proposal(refusal.clone());
            assert_eq!(status.code(), code, "{refusal:?}");
            assert_eq!(error::reason_of(&status).as_deref(), Some(reason), "{refusal:?}");
            assert_eq!(error::nothing_appended(&status), nothing_appended, "{refusal:?}");
            assert!(!status.message().contains('\n') && !status.message().is_empty());
        }
    }
}
