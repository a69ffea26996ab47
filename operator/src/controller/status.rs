//! What users are told, and when.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt as _;
use raftlog_proto::v1::{Member, NodeStatus, Role};

use super::conditions::{self, EXECUTOR_FAILING, Scene};
use super::executors::{Failing, Manner};
use super::raft::hex;
use super::stored::Refusal;
use super::view::PodView;
use crate::crd::RaftCluster;
use crate::crd::replicator::{ExecuteOn, ReplicatorSpec};
use crate::crd::status::{ExecutorState, MemberStatus, RaftClusterStatus};
use crate::resources::meta::selector_text;

/// Where nothing but indexes change, they are told this often at most.
const INDEXES_EVERY: Duration = Duration::from_secs(10);

/// The status of this moment.
pub fn status(scene: &Scene<'_>, before: &RaftClusterStatus, now: Timestamp) -> RaftClusterStatus {
    let cluster = scene.desired.cluster;
    let pods = || scene.observed.pods.values();
    let ready = pods().filter(|pod| pod.is_ready()).count();
    let wanted = scene.observed.pods.range(..=scene.desired.replicas());
    let wanted_ready = wanted.filter(|(_, pod)| pod.is_ready()).count();
    let (leader_pod, leader) = scene.raft.leader.unzip();
    let told = conditions::conditions(scene);
    let cluster_id = pods()
        .filter_map(|pod| pod.node.as_ref())
        .find(|status| status.cluster_id != 0)
        .map(|status| hex(status.cluster_id));
    RaftClusterStatus {
        observed_generation: cluster.metadata.generation,
        replicas: number(pods().count()),
        ready_replicas: number(ready),
        ready: format!("{wanted_ready}/{}", cluster.spec.replicas),
        selector: selector_text(cluster),
        cluster_id: cluster_id.or_else(|| before.cluster_id.clone()),
        leader: leader_pod
            .and_then(|node| scene.observed.pods.get(&node))
            .map(|pod| pod.name.clone()),
        term: (scene.raft.term > 0).then(|| index(scene.raft.term)),
        commit_index: leader
            .map(|status| index(status.commit_index))
            .or(before.commit_index),
        images: scene.desired.images(scene.observed),
        members: match leader {
            Some(_) => members(scene),
            None => before
                .members
                .iter()
                .map(|member| {
                    remembered(
                        scene.observed.pods.get(&member.node),
                        scene.failing.get(&member.node),
                        member,
                    )
                })
                .collect(),
        },
        conditions: conditions::dated(told, &before.conditions, cluster.metadata.generation, now),
    }
}

/// The status of a RaftCluster that was deleted and is still there.
pub fn deleted(why: &str, before: &RaftClusterStatus, now: Timestamp) -> RaftClusterStatus {
    let generation = before.observed_generation;
    RaftClusterStatus {
        leader: None,
        ready_replicas: number(0),
        ready: format!("0/{}", before.ready.rsplit('/').next().unwrap_or_default()),
        members: before
            .members
            .iter()
            .map(|member| remembered(None, None, member))
            .collect(),
        conditions: conditions::dated(conditions::deleted(why), &before.conditions, generation, now),
        ..before.clone()
    }
}

/// The status of a RaftCluster that cannot be served as it is: all else stays as it was told.
pub fn refused(
    refusal: &Refusal,
    generation: Option<i64>,
    before: &RaftClusterStatus,
    now: Timestamp,
) -> RaftClusterStatus {
    let told = conditions::refused(refusal.reason, &refusal.why);
    RaftClusterStatus {
        observed_generation: generation,
        conditions: conditions::dated(told, &before.conditions, generation, now),
        ..before.clone()
    }
}

fn members(scene: &Scene<'_>) -> Vec<MemberStatus> {
    scene
        .raft
        .members()
        .iter()
        .map(|member| view(scene, member))
        .collect()
}

fn view(scene: &Scene<'_>, member: &Member) -> MemberStatus {
    let pod = scene.observed.pods.get(&member.node).filter(|pod| {
        let status = pod.node.as_ref();
        status.is_some_and(|status| status.member_id == member.member_id)
    });
    let status = pod.and_then(|pod| pod.node.as_ref());
    MemberStatus {
        node: member.node,
        member_id: hex(member.member_id),
        pod: pod.map(|pod| pod.name.clone()),
        role: status.map_or("unknown", role).to_owned(),
        voter: member.voter,
        match_index: index(scene.raft.match_log_index(member.member_id)),
        ready: pod.is_some_and(PodView::is_ready),
        applied_index: status
            .and_then(|status| status.replicator.as_ref())
            .map(|replicator| index(replicator.executed_index)),
        executor: executor(pod, scene.failing.get(&member.node)),
    }
}

/// How a pod's executor does, as far as its replicator or its container tells. A failure that people are told of stays, for the next operator
/// to know.
fn executor(pod: Option<&PodView>, failing: Option<&Failing>) -> Option<ExecutorState> {
    let replicator = pod.and_then(|pod| pod.node.as_ref()?.replicator.as_ref());
    let connected = replicator.filter(|replicator| replicator.connected);
    let told = connected.and_then(|replicator| replicator.executor.as_ref());
    let failing = failing.filter(|failing| failing.fails || failing.told);
    let failure = failing.map(Failing::status);
    if told.is_none() && failure.is_none() {
        return None;
    }
    let known = || failing.map_or_else(String::new, |failing| failing.failure.kind.clone());
    let has_stopped = || failing.is_some_and(|failing| failing.failure.manner == Manner::Stopped);
    Some(ExecutorState {
        kind: told.map_or_else(known, |told| told.kind.clone()),
        stopped: told.map_or_else(has_stopped, |told| told.stopped),
        skipped_operations: told.map_or(0, |told| index(told.skipped_operations)),
        failure,
    })
}

/// Without a leader nobody says who the members are: one that was told last, as its pod is now.
fn remembered(pod: Option<&PodView>, failing: Option<&Failing>, member: &MemberStatus) -> MemberStatus {
    let status = pod.and_then(|pod| pod.node.as_ref());
    let same = status.filter(|status| hex(status.member_id) == member.member_id);
    MemberStatus {
        role: same.map_or("unknown", role).to_owned(),
        ready: same.is_some() && pod.is_some_and(PodView::is_ready),
        executor: executor(None, failing),
        ..member.clone()
    }
}

fn role(status: &NodeStatus) -> &'static str {
    match status.role() {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate | Role::PreCandidate => "candidate",
        Role::Learner => "learner",
        Role::Unformed | Role::Unspecified => "unknown",
    }
}

/// Whether the status is to be written now: everything at once, but for indexes.
pub fn is_due(
    before: &RaftClusterStatus,
    now: &RaftClusterStatus,
    written_at: Option<Instant>,
    at: Instant,
) -> bool {
    if without_indexes(before) != without_indexes(now) {
        return true;
    }
    let waited =
        written_at.is_none_or(|written_at| at.saturating_duration_since(written_at) >= INDEXES_EVERY);
    before != now && waited
}

fn without_indexes(status: &RaftClusterStatus) -> RaftClusterStatus {
    let mut status = status.clone();
    status.commit_index = None;
    for member in &mut status.members {
        member.match_index = 0;
        member.applied_index = None;
        // Whether one fails for long is told by its condition, at once; what it says of it may change with each attempt.
        member.executor = None;
    }
    for condition in &mut status.conditions {
        if condition.type_ == EXECUTOR_FAILING {
            condition.message.clear();
        }
    }
    status
}

/// Why the operator cannot serve it, where the schema under which it was stored let it pass.
pub fn check(cluster: &RaftCluster) -> Result<(), String> {
    let spec = &cluster.spec;
    if !(1..=9).contains(&spec.replicas) || spec.replicas % 2 == 0 {
        return Err(format!(
            "spec.replicas is {}: give 1, 3, 5, 7 or 9",
            spec.replicas
        ));
    }
    let parse = |field: &str, text: &crate::crd::duration::DurationText| {
        text.parse().map_err(|error| format!("spec.{field}: {error}"))
    };
    let min = parse("raft.electionTimeout.min", &spec.raft.election_timeout.min)?;
    let max = parse("raft.electionTimeout.max", &spec.raft.election_timeout.max)?;
    let heartbeat = parse("raft.heartbeatInterval", &spec.raft.heartbeat_interval)?;
    parse("testClient.interval", &spec.test_client.interval)?;
    check_replicator(&spec.replicator)?;
    if heartbeat >= min || min >= max {
        return Err(
            "spec.raft: heartbeatInterval must be below electionTimeout.min, and that below max".into(),
        );
    }
    let name = cluster.name_any();
    if name.len() > 40 {
        return Err(format!(
            "its name has {} characters: choose one of at most 40",
            name.len()
        ));
    }
    Ok(())
}

fn check_replicator(spec: &ReplicatorSpec) -> Result<(), String> {
    let executor = spec.executor();
    let named = [
        executor.log.is_some(),
        executor.http.is_some(),
        executor.exec.is_some(),
        executor.state_machine.is_some(),
    ];
    if named.into_iter().filter(|named| *named).count() != 1 {
        return Err(
            "spec.replicator.executor must name exactly one of log, http, exec and stateMachine: keep one"
                .into(),
        );
    }
    if executor.state_machine.is_some() && spec.execute_on == ExecuteOn::Leader {
        return Err(
            "spec.replicator.executeOn: leader does not go with stateMachine: write everyNode".into(),
        );
    }
    let http = executor.http.iter().map(|http| (&http.timeout, &http.retry));
    let exec = executor.exec.iter().map(|exec| (&exec.timeout, &exec.retry));
    let attempts = http
        .chain(exec)
        .flat_map(|(timeout, retry)| [timeout, &retry.backoff.min, &retry.backoff.max]);
    for duration in attempts.chain(&spec.retention.age) {
        duration
            .parse()
            .map_err(|error| format!("spec.replicator: {error}"))?;
    }
    Ok(())
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn index(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use raftlog_proto::v1::{ExecutorFailure, ExecutorStatus, ReplicatorStatus};

    use super::super::executors::Executors;
    use super::super::failures::Failures;
    use super::super::plan::tests::World;
    use super::super::raft::Raft;
    use super::*;
    use crate::resources::tests::cluster;

    fn of(world: &World) -> RaftClusterStatus {
        after(world, &RaftClusterStatus::default())
    }

    fn after(world: &World, before: &RaftClusterStatus) -> RaftClusterStatus {
        let desired = world.desired();
        let raft = Raft::new(&world.observed.pods, desired.patience());
        let mut executors = Executors::default();
        let failing = executors.note(
            &world.observed.pods,
            before,
            Instant::now(),
            Timestamp::UNIX_EPOCH,
        );
        let scene = Scene {
            desired: &desired,
            observed: &world.observed,
            raft: &raft,
            plan: &world.plan(),
            failures: &Failures::default(),
            blind: None,
            lags: None,
            failing,
        };
        status(&scene, before, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn it_tells_leader_term_and_members() {
        let status = of(&World::formed(3));
        assert_eq!(status.ready, "3/3");
        assert_eq!(status.leader.as_deref(), Some("demo-0"));
        assert_eq!(status.term, Some(2));
        assert_eq!(status.cluster_id.as_deref(), Some("00000000000000c1"));
        let members: Vec<_> = status
            .members
            .iter()
            .map(|member| {
                (
                    member.node,
                    member.role.as_str(),
                    member.voter,
                    member.match_index,
                )
            })
            .collect();
        assert_eq!(
            members,
            [
                (1, "leader", true, 0),
                (2, "follower", true, 9),
                (3, "follower", true, 9)
            ]
        );
    }

    /// What was told last stood there as if it were so.
    #[test]
    fn without_a_leader_members_are_told_as_they_are_seen() {
        let mut world = World::formed(3);
        let before = of(&world);
        world.silent(1);
        world.status(2, |status| status.leader = None);
        world.pod(2).ready = false;
        world.silent(3);
        let status = after(&world, &before);
        let members: Vec<_> = status
            .members
            .iter()
            .map(|member| (member.node, member.role.as_str(), member.ready))
            .collect();
        assert_eq!(
            members,
            [
                (1, "unknown", false),
                (2, "follower", false),
                (3, "unknown", false)
            ]
        );
    }

    #[test]
    fn who_was_deleted_and_is_kept_says_so() {
        let before = of(&World::formed(3));
        let status = deleted("somebody keeps it", &before, Timestamp::UNIX_EPOCH);
        assert_eq!((status.ready.as_str(), status.leader), ("0/3", None));
        assert!(
            status
                .members
                .iter()
                .all(|member| member.role == "unknown" && !member.ready)
        );
        let is = |kind: &str| {
            let mut all = status.conditions.iter();
            let condition = all.find(|condition| condition.type_ == kind).unwrap();
            (condition.status.as_str(), condition.reason.as_str())
        };
        assert_eq!(is("Available"), ("False", "Deleted"));
        assert_eq!(is("Ready"), ("False", "Deleted"));
    }

    #[test]
    fn indexes_wait_and_the_rest_does_not() {
        let mut world = World::formed(3);
        let before = of(&world);
        let at = Instant::now();
        assert!(!is_due(&before, &before, None, at));
        world.status(1, |status| status.commit_index = 7);
        let moved = of(&world);
        assert!(!is_due(&before, &moved, Some(at), at + Duration::from_secs(9)));
        assert!(is_due(&before, &moved, Some(at), at + Duration::from_secs(10)));
        world.pod(2).ready = false;
        assert!(is_due(&before, &of(&world), Some(at), at));
    }

    #[test]
    fn members_tell_what_is_executed_and_what_fails() {
        let mut world = World::formed(3);
        let executor_is = |world: &mut World, executed_index, attempts| {
            world.status(2, |status| {
                status.replicator = Some(ReplicatorStatus {
                    connected: true,
                    executed_index,
                    executor: Some(ExecutorStatus {
                        kind: "http".into(),
                        failure: Some(ExecutorFailure {
                            index: 42,
                            message: format!("HTTP 503, {attempts}"),
                            attempts,
                        }),
                        skipped_operations: 3,
                        ..ExecutorStatus::default()
                    }),
                    ..ReplicatorStatus::default()
                });
            });
        };
        executor_is(&mut world, 41, 5);
        let before = of(&world);
        let member = &before.members[1];
        assert_eq!(member.applied_index, Some(41));
        let executor = member.executor.as_ref().unwrap();
        assert_eq!((executor.kind.as_str(), executor.skipped_operations), ("http", 3));
        let failure = executor.failure.as_ref().unwrap();
        assert_eq!(
            (
                failure.index,
                failure.message.as_str(),
                failure.attempts,
                failure.since.as_str()
            ),
            (42, "HTTP 503, 5", 5, "1970-01-01T00:00:00Z")
        );
        assert_eq!(
            (before.members[0].applied_index, &before.members[0].executor),
            (None, &None)
        );
        // It changes with each attempt, and that is told as seldom as indexes.
        executor_is(&mut world, 41, 6);
        let at = Instant::now();
        let now = after(&world, &before);
        assert_ne!(before, now);
        assert!(!is_due(&before, &now, Some(at), at + Duration::from_secs(9)));
        assert!(is_due(&before, &now, Some(at), at + Duration::from_secs(10)));
    }

    #[test]
    fn what_slipped_through_an_earlier_schema_is_named() {
        for (spec, says) in [
            ("replicas: 3", ""),
            ("replicas: 4", "give 1, 3, 5, 7 or 9"),
            ("replicas: 11", "give 1, 3, 5, 7 or 9"),
            ("raft: {heartbeatInterval: soon}", "spec.raft.heartbeatInterval"),
            ("raft: {heartbeatInterval: 2s}", "must be below"),
            ("replicator: {executor: {}}", "exactly one"),
            (
                "replicator: {executor: {log: {}, http: {url: 'http://a'}}}",
                "exactly one",
            ),
            (
                "replicator: {executor: {stateMachine: {image: a}}, executeOn: leader}",
                "write everyNode",
            ),
            (
                "replicator: {executor: {http: {url: 'http://a', timeout: soon}}}",
                "'soon' is no duration",
            ),
            ("replicator: {retention: {age: long}}", "'long' is no duration"),
        ] {
            let told = check(&cluster(spec)).err().unwrap_or_default();
            assert!(
                told.contains(says) && told.is_empty() == says.is_empty(),
                "{spec}: {told}"
            );
        }
    }
}
