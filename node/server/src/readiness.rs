//! When a node is ready: exactly while it has a live elected leader, is in the applied configuration, and its replicator is
//! connected. How far the replicator has executed never counts.

use raftlog_telemetry::http::Answer;

use crate::node::{Role, Status};

/// Whether the node is ready, and why in one line.
pub(crate) fn readiness(status: &Status, replicator_name: &str, stopping: bool) -> Answer {
    let missing = missing(status, replicator_name, stopping);
    if !missing.is_empty() {
        return Answer {
            yes: false,
            why: format!("not ready: {}", missing.join("; ")),
        };
    }
    let leader = match (&status.leader, status.role) {
        (_, Role::Leader) => "leads".to_owned(),
        (Some(leader), _) => format!("follows Leader {}", leader.node),
        (None, _) => "has a leader".to_owned(),
    };
    let behind = status
        .commit_index
        .saturating_sub(status.replicator.progress.executed_index);
    let execution = match behind {
        0 => String::new(),
        behind => format!("; {replicator_name} has {behind} operations left to execute"),
    };
    Answer {
        yes: true,
        why: format!(
            "ready: {leader} in term {}{execution}{}",
            status.term,
            disks(status)
        ),
    }
}

/// What is wrong with disks.
fn disks(status: &Status) -> String {
    let mut wrong = String::new();
    if status.disks.full {
        wrong.push_str("; its disk is full");
    }
    if status.disks.stalled {
        wrong.push_str("; its disk completes nothing");
    }
    if status.disks.lack_room {
        wrong.push_str("; submissions are refused until there is room on its disk and a majority's");
    }
    wrong
}

fn missing(status: &Status, replicator_name: &str, stopping: bool) -> Vec<String> {
    let mut missing = Vec::new();
    if stopping {
        missing.push("stopping".to_owned());
    }
    match (&status.waiting_for, status.cluster_id) {
        (Some(waiting), _) => missing.push(waiting.clone()),
        (None, None) => missing.push("belongs to no cluster yet".to_owned()),
        (None, Some(_)) => {}
    }
    if status.cluster_id.is_none() {
        return missing;
    }
    if !status.is_member {
        missing.push("is not in the applied configuration".to_owned());
    }
    if !status.leader_is_live {
        missing.push(no_leader(status));
    }
    if !status.replicator.connected {
        missing.push(format!("its replicator {replicator_name} is not connected"));
    }
    missing
}

fn no_leader(status: &Status) -> String {
    match (status.role, &status.leader) {
        (Role::Leader, _) => "leads, but a majority has not answered within the election timeout".to_owned(),
        (_, Some(leader)) => format!(
            "has not heard from Leader {} within the election timeout",
            leader.node
        ),
        (_, None) => format!("no leader is known in term {}", status.term),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use raftlog_raft::feature::{FeatureLevel, Supports};
    use raftlog_raft::ids::{ClusterId, MemberId};

    use super::*;
    use crate::node::{Leader, Progress, ReadCounts, ReplicatorView};

    pub(crate) fn follower() -> Status {
        Status {
            cluster_id: ClusterId::new(1),
            member_id: MemberId::new(1).unwrap(),
            node: 1,
            role: Role::Follower,
            term: 3,
            leader: Some(Leader {
                member_id: MemberId::new(2).unwrap(),
                node: 2,
                client_address: "b:5001".into(),
            }),
            leader_is_live: true,
            commit_index: 5,
            execution_mark: 0,
            last_index: 6,
            persisted_index: 6,
            commit_log_index: 7,
            last_log_index: 8,
            running_hash: 9,
            commit_hash: Some(8),
            feature_level: Some(FeatureLevel::FIRST),
            supports: Supports::default(),
            configuration: Arc::default(),
            parent: None,
            bootstrap: None,
            is_member: true,
            progress: Vec::new(),
            replicator: ReplicatorView {
                connected: true,
                progress: Progress {
                    executed_index: 5,
                    ..Progress::default()
                },
                executor: None,
            },
            elected_by: None,
            disks: crate::node::Disks::default(),
            kept: crate::node::Kept::default(),
            waiting_for: None,
            was_removed: false,
            reads: ReadCounts::default(),
            memory_bytes: 0,
            disk_bytes: 0,
            disk_segments: 0,
            pending_bytes: 0,
        }
    }

    fn with(change: impl FnOnce(&mut Status)) -> Status {
        let mut status = follower();
        change(&mut status);
        status
    }

    #[test]
    fn ready_exactly_while_all_three_hold() {
        for (status, ready, says) in [
            (follower(), true, "follows Leader 2 in term 3"),
            (with(|s| s.role = Role::Leader), true, "leads in term 3"),
            (
                with(|s| s.leader_is_live = false),
                false,
                "has not heard from Leader 2",
            ),
            (
                with(|s| (s.leader, s.leader_is_live) = (None, false)),
                false,
                "no leader is known in term 3",
            ),
            (
                with(|s| (s.role, s.leader_is_live) = (Role::Leader, false)),
                false,
                "a majority has not answered",
            ),
            (
                with(|s| s.is_member = false),
                false,
                "not in the applied configuration",
            ),
            (
                with(|s| s.replicator.connected = false),
                false,
                "q4node1 is not connected",
            ),
            (
                with(|s| (s.cluster_id, s.role) = (None, Role::Unformed)),
                false,
                "belongs to no cluster yet",
            ),
            (
                with(|s| s.waiting_for = Some("waits for node 3".into())),
                false,
                "waits for node 3",
            ),
            (
                with(|s| s.replicator.progress.executed_index = 2),
                true,
                "3 operations left to execute",
            ),
            (with(|s| s.disks.full = true), true, "disk is full"),
            (with(|s| s.disks.stalled = true), true, "disk completes nothing"),
            (
                with(|s| s.disks.lack_room = true),
                true,
                "submissions are refused",
            ),
        ] {
            let answer = readiness(&status, "q4node1", false);
            assert_eq!(answer.yes, ready, "{answer:?}");
            assert!(answer.why.contains(says), "{answer:?} should say {says}");
            assert!(!answer.why.contains('\n'));
        }
        assert!(!readiness(&follower(), "q4node1", true).yes);
    }
}
