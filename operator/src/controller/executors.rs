//! Whose executor fails, at which operation and since when. What passes by itself is not told; what was told stays until it has
//! executed for a while, so that one that fails now and then makes no more than a few Events.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use raftlog_proto::v1::{ExecutorStatus, NodeStatus};

use super::conditions::EXECUTOR_FAILING;
use super::view::{PodView, one_line};
use crate::crd::status::{ExecutorFailureStatus, MemberStatus, RaftClusterStatus};

/// One that fails for so long is told.
const BEGINS_AFTER: Duration = Duration::from_secs(10);
/// One that was told and has not failed for so long is well again.
const ENDS_AFTER: Duration = Duration::from_secs(20);

/// How an executor fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// It is tried again.
    Tries,
    /// It has given up at the operation, until it is started anew.
    Stopped,
    /// The container of the state machine does not run, for this reason.
    Container(String),
}

/// An executor that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How.
    pub manner: Manner,
    /// http, exec, state-machine; empty where the replicator has not told.
    pub kind: String,
    /// The operation that it fails at; 0 where it is not one operation.
    pub index: u64,
    /// One line.
    pub message: String,
    /// Attempts in a row.
    pub attempts: u64,
}

/// One that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// Its pod.
    pub pod: String,
    /// As it was seen last.
    pub failure: Failure,
    /// Since when it fails at this operation.
    pub since: Timestamp,
    /// Whether people are told of it.
    pub told: bool,
    /// Whether it fails at the moment.
    pub fails: bool,
    began: Instant,
    /// Since when it executes.
    fine_since: Option<Instant>,
}

impl Failing {
    /// As the status of its member tells it.
    pub fn status(&self) -> ExecutorFailureStatus {
        ExecutorFailureStatus {
            index: i64::try_from(self.failure.index).unwrap_or(i64::MAX),
            message: self.failure.message.clone(),
            attempts: i64::try_from(self.failure.attempts).unwrap_or(i64::MAX),
            since: self.since.to_string(),
        }
    }
}

/// Executors that fail, by node number.
#[derive(Debug, Clone, Default)]
pub struct Executors {
    failing: BTreeMap<u32, Failing>,
    has_begun: bool,
}

impl Executors {
    /// Looks at all pods. `before` is what the status said last, from which an operator that only just began knows who fails and since when:
    /// pods tell it so only later.
    pub fn note(
        &mut self,
        pods: &BTreeMap<u32, PodView>,
        before: &RaftClusterStatus,
        now: Instant,
        clock: Timestamp,
    ) -> &BTreeMap<u32, Failing> {
        if !std::mem::replace(&mut self.has_begun, true) && was_told(before) {
            let members = before.members.iter();
            let remembered = members.filter_map(|member| remember(member, pods.get(&member.node)?, now));
            self.failing = remembered.collect();
        }
        self.failing.retain(|node, _| pods.contains_key(node));
        for (node, pod) in pods {
            match failure(pod) {
                Some(failure) => self.fails(*node, pod, failure, &before.members, now, clock),
                None => self.may_be_fine(*node, pod, now),
            }
        }
        &self.failing
    }

    /// Whether something of it is to be told, or to be told no more, when a little time has passed.
    pub fn is_undecided(&self) -> bool {
        self.failing
            .values()
            .any(|failing| !failing.told || failing.fine_since.is_some())
    }

    fn fails(
        &mut self,
        node: u32,
        pod: &PodView,
        failure: Failure,
        before: &[MemberStatus],
        now: Instant,
        clock: Timestamp,
    ) {
        let known = self.failing.remove(&node);
        let index = failure.index;
        let same = known.as_ref().filter(|known| known.failure.index == index);
        let since = same
            .map(|known| known.since)
            .or_else(|| told_since(before, &pod.name, index).filter(|_| known.is_none()))
            .unwrap_or_else(|| second(clock));
        let began = known.as_ref().map_or(now, |known| known.began);
        let lasts = now.saturating_duration_since(began) >= BEGINS_AFTER;
        let told = known.is_some_and(|known| known.told) || lasts || failure.manner == Manner::Stopped;
        let failing = Failing {
            pod: pod.name.clone(),
            failure,
            since,
            told,
            fails: true,
            began,
            fine_since: None,
        };
        self.failing.insert(node, failing);
    }

    fn may_be_fine(&mut self, node: u32, pod: &PodView, now: Instant) {
        let Some(failing) = self.failing.get_mut(&node) else {
            return;
        };
        failing.fails = false;
        if !is_fine(pod) {
            // Such as while its pod restarts: nobody knows.
            return;
        }
        let fine_since = *failing.fine_since.get_or_insert(now);
        if !failing.told || now.saturating_duration_since(fine_since) >= ENDS_AFTER {
            self.failing.remove(&node);
        }
    }
}

fn was_told(before: &RaftClusterStatus) -> bool {
    let mut conditions = before.conditions.iter();
    conditions.any(|condition| condition.type_ == EXECUTOR_FAILING && condition.status == "True")
}

/// What another operator told people of a member's executor.
fn remember(member: &MemberStatus, pod: &PodView, now: Instant) -> Option<(u32, Failing)> {
    let executor = member.executor.as_ref()?;
    let failure = executor.failure.as_ref()?;
    let manner = if executor.stopped {
        Manner::Stopped
    } else {
        Manner::Tries
    };
    let failing = Failing {
        pod: pod.name.clone(),
        failure: Failure {
            manner,
            kind: executor.kind.clone(),
            index: u64::try_from(failure.index).ok()?,
            message: failure.message.clone(),
            attempts: u64::try_from(failure.attempts).ok()?,
        },
        since: failure.since.parse().ok()?,
        told: true,
        fails: false,
        began: now,
        fine_since: None,
    };
    Some((member.node, failing))
}

/// What was told of it before.
fn told_since(before: &[MemberStatus], pod: &str, index: u64) -> Option<Timestamp> {
    let member = before.iter().find(|member| member.pod.as_deref() == Some(pod))?;
    let failure = member.executor.as_ref()?.failure.as_ref()?;
    let same = u64::try_from(failure.index) == Ok(index);
    same.then(|| failure.since.parse().ok()).flatten()
}

/// As it is written.
fn second(clock: Timestamp) -> Timestamp {
    Timestamp::from_second(clock.as_second()).unwrap_or(clock)
}

fn executor(status: &NodeStatus) -> Option<&ExecutorStatus> {
    let replicator = status.replicator.as_ref()?;
    replicator
        .connected
        .then_some(replicator.executor.as_ref())
        .flatten()
}

/// Nothing speaks against it, and somebody speaks for it.
fn is_fine(pod: &PodView) -> bool {
    let connected = pod
        .node
        .as_ref()
        .and_then(|status| status.replicator.as_ref())
        .is_some_and(|replicator| replicator.connected);
    connected && !pod.deleting && pod.state_machine.as_ref().is_none_or(|machine| machine.ready)
}

fn failure(pod: &PodView) -> Option<Failure> {
    if pod.deleting {
        return None;
    }
    let status = pod.node.as_ref();
    let told = status.and_then(executor);
    let kind = told.map_or("", |executor| executor.kind.as_str()).to_owned();
    let failure = told.and_then(|executor| executor.failure.as_ref());
    // Where the state machine ends, nobody tells at what. It is what it would have been given next.
    let index = failure
        .map(|failure| failure.index)
        .filter(|index| *index > 0)
        .or_else(|| next_operation(status?))
        .unwrap_or_default();
    let attempts = failure.map_or(0, |failure| failure.attempts);
    let machine = pod.state_machine.as_ref();
    if let Some(problem) = machine.and_then(|machine| machine.problem.as_ref()) {
        return Some(Failure {
            manner: Manner::Container(problem.reason.clone()),
            kind: "state-machine".into(),
            index,
            message: problem.message.clone(),
            attempts,
        });
    }
    if machine.is_some_and(|machine| machine.runs_seconds.is_none()) {
        // It is being created: there is nothing yet to fail.
        return None;
    }
    let stopped = told.is_some_and(|executor| executor.stopped);
    if failure.is_none() && !stopped {
        return None;
    }
    Some(Failure {
        manner: if stopped { Manner::Stopped } else { Manner::Tries },
        kind,
        index,
        message: failure.map_or_else(String::new, |failure| one_line(&failure.message)),
        attempts,
    })
}

/// The first committed operation that is not executed.
fn next_operation(status: &NodeStatus) -> Option<u64> {
    let executed = status.replicator.as_ref()?.executed_index;
    (executed < status.commit_index).then(|| executed.saturating_add(1))
}

/// The reason of the condition, and its message: what fails where, since when, and what to do. Nothing, where nothing is to be told.
pub fn describe(failing: &BTreeMap<u32, Failing>) -> Option<(String, String)> {
    let told = || failing.values().filter(|failing| failing.told);
    // What needs somebody to do something comes first.
    let urgency = |failing: &&Failing| match failing.failure.manner {
        Manner::Stopped => 0,
        Manner::Container(_) => 1,
        Manner::Tries => 2,
    };
    let first = told().min_by_key(urgency)?;
    let others: Vec<&str> = told()
        .filter(|failing| failing.pod != first.pod)
        .map(|failing| failing.pod.as_str())
        .collect();
    let others = match others.as_slice() {
        [] => String::new(),
        others => format!(" (and so does that of {})", others.join(", ")),
    };
    let message = format!("{}{others}; {}", sentence(first), advice(first));
    let reason = match &first.failure.manner {
        Manner::Stopped => "Stopped".to_owned(),
        Manner::Tries => "Failing".to_owned(),
        Manner::Container(reason) => reason.clone(),
    };
    Some((reason, message))
}

fn sentence(failing: &Failing) -> String {
    let Failing {
        pod, failure, since, ..
    } = failing;
    let at = match failure.index {
        0 => String::new(),
        index => format!(" at operation {index}"),
    };
    let attempts = match failure.attempts {
        0 => String::new(),
        1 => ", after 1 attempt".to_owned(),
        attempts => format!(", after {attempts} attempts"),
    };
    let does = match failure.manner {
        Manner::Stopped => "has stopped",
        Manner::Tries | Manner::Container(_) => "fails",
    };
    let why = match failure.message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    };
    format!("the executor of {pod} {does}{at} since {since}{attempts}{why}")
}

fn advice(failing: &Failing) -> String {
    let pod = &failing.pod;
    match (&failing.failure.manner, failing.failure.kind.as_str()) {
        (Manner::Stopped, _) => format!(
            "nothing more is executed there until it is started anew: see to what it says, and then kubectl delete pod {pod}; with \
             retry.onFailure: Skip such operations are recorded and left out"
        ),
        (Manner::Container(reason), _) if reason == "CrashLoopBackOff" => format!(
            "kubectl logs {pod} --container state-machine --previous tells more; correct spec.replicator.executor.stateMachine, and pods are \
             restarted with it. Nodes serve meanwhile, and no operation is lost"
        ),
        (Manner::Container(_), _) => {
            "correct spec.replicator.executor.stateMachine, or what it names. Nodes serve meanwhile, and no operation is lost".into()
        }
        (Manner::Tries, "state-machine") => format!(
            "it is tried again until it works: kubectl logs {pod} --container state-machine may tell more"
        ),
        (Manner::Tries, "log") => {
            "it is tried again until it works, and nothing is lost meanwhile: see to where the container's output goes".into()
        }
        (Manner::Tries, _) => {
            "it is tried again, and what comes after it waits: see to the endpoint or command, or let spec.replicator.executor say for \
             how long it is tried (retry)"
                .into()
        }
    }
}

#[cfg(test)]
mod tests {
    use raftlog_proto::v1::{ExecutorFailure, ReplicatorStatus};

    use super::super::plan::tests::World;
    use super::super::state_machine::StateMachineView;
    use super::super::view::Problem;
    use super::*;
    use crate::crd::status::ExecutorState;

    /// The executor of that node's replicator is so.
    fn executor_is(world: &mut World, node: u32, failure: Option<(u64, &str)>, stopped: bool) {
        world.status(node, |status| {
            status.commit_index = 50;
            status.replicator = Some(ReplicatorStatus {
                connected: true,
                executed_index: 41,
                executor: Some(ExecutorStatus {
                    kind: "http".into(),
                    failure: failure.map(|(index, message)| ExecutorFailure {
                        index,
                        message: message.into(),
                        attempts: 12,
                    }),
                    stopped,
                    ..ExecutorStatus::default()
                }),
                ..ReplicatorStatus::default()
            });
        });
    }

    fn machine_is(world: &mut World, node: u32, problem: Option<&str>, runs_seconds: Option<i64>) {
        world.pod(node).state_machine = Some(StateMachineView {
            ready: runs_seconds.is_some(),
            others_ready: true,
            runs_seconds,
            problem: problem.map(|reason| Problem {
                reason: reason.into(),
                message: "container state-machine: ended with exit code 3".into(),
                of_container: true,
            }),
            ..StateMachineView::default()
        });
    }

    struct Clock {
        executors: Executors,
        began: Instant,
    }

    impl Clock {
        fn new() -> Self {
            Self {
                executors: Executors::default(),
                began: Instant::now(),
            }
        }

        fn at(&mut self, seconds: u64, world: &World) -> Option<(String, String)> {
            let (now, clock) = (
                self.began + Duration::from_secs(seconds),
                Timestamp::from_second(1_000 + i64::try_from(seconds).unwrap()).unwrap(),
            );
            let before = RaftClusterStatus::default();
            describe(self.executors.note(&world.observed.pods, &before, now, clock))
        }
    }

    #[test]
    fn what_lasts_is_told_and_stays_until_it_has_executed_for_a_while() {
        let mut world = World::formed(3);
        let mut clock = Clock::new();
        for (seconds, fails, told) in [
            (0, true, false),
            (9, true, false),
            // It worked once: the time begins anew.
            (10, false, false),
            (11, true, false),
            (20, true, false),
            (21, true, true),
            (22, false, true),
            (30, true, true),
            (31, false, true),
            (50, false, true),
            (51, false, false),
        ] {
            executor_is(&mut world, 2, fails.then_some((42, "HTTP 503")), false);
            assert_eq!(clock.at(seconds, &world).is_some(), told, "after {seconds} s");
            let undecided = !told && fails || told && !fails;
            assert_eq!(clock.executors.is_undecided(), undecided, "after {seconds} s");
        }
    }

    #[test]
    fn pod_operation_time_and_what_to_do_are_named() {
        let mut world = World::formed(3);
        executor_is(&mut world, 2, Some((42, "HTTP 503")), false);
        executor_is(&mut world, 3, Some((40, "HTTP 503")), false);
        let mut clock = Clock::new();
        clock.at(0, &world);
        let (reason, message) = clock.at(10, &world).unwrap();
        assert_eq!(reason, "Failing");
        for part in [
            "the executor of demo-1 fails at operation 42 since 1970-01-01T00:16:40Z, after 12 attempts: HTTP 503 (and so does that \
             of demo-2); it is tried again",
            "see to the endpoint",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn one_that_has_stopped_is_told_at_once_and_first() {
        let mut world = World::formed(3);
        executor_is(&mut world, 1, Some((42, "HTTP 503")), false);
        let mut clock = Clock::new();
        clock.at(0, &world);
        executor_is(&mut world, 3, Some((7, "HTTP 400")), true);
        let (reason, message) = clock.at(10, &world).unwrap();
        assert_eq!(reason, "Stopped");
        assert!(
            message.starts_with("the executor of demo-2 has stopped at operation 7 since")
                && message.contains("kubectl delete pod demo-2"),
            "{message}"
        );
    }

    #[test]
    fn a_container_that_crashes_is_told_with_the_operation_that_it_would_have_been_given() {
        let mut world = World::formed(3);
        let mut clock = Clock::new();
        executor_is(&mut world, 2, Some((0, "UNAVAILABLE")), false);
        machine_is(&mut world, 2, Some("CrashLoopBackOff"), None);
        assert_eq!(clock.at(0, &world), None);
        // It runs for a moment in between.
        machine_is(&mut world, 2, None, Some(1));
        executor_is(&mut world, 2, None, false);
        clock.at(5, &world);
        machine_is(&mut world, 2, Some("CrashLoopBackOff"), None);
        executor_is(&mut world, 2, Some((0, "UNAVAILABLE")), false);
        clock.at(6, &world);
        let (reason, message) = clock.at(16, &world).unwrap();
        assert_eq!(reason, "CrashLoopBackOff");
        assert!(
            message.contains("demo-1 fails at operation 42")
                && message.contains("exit code 3")
                && message.contains("--previous"),
            "{message}"
        );
        // Its pod restarts with another image: nobody knows, and then it is well.
        world.pod(2).deleting = true;
        assert!(clock.at(60, &world).is_some());
        world.pod(2).deleting = false;
        world.pod(2).node = None;
        machine_is(&mut world, 2, None, None);
        assert!(clock.at(90, &world).is_some());
        world.has_pod(2);
        executor_is(&mut world, 2, None, false);
        machine_is(&mut world, 2, None, Some(1));
        assert!(clock.at(91, &world).is_some());
        assert_eq!(clock.at(111, &world), None);
    }

    #[test]
    fn a_container_that_is_being_created_does_not_fail() {
        let mut world = World::formed(3);
        executor_is(&mut world, 2, Some((0, "UNAVAILABLE")), false);
        machine_is(&mut world, 2, None, None);
        let mut clock = Clock::new();
        clock.at(0, &world);
        assert_eq!(clock.at(100, &world), None);
    }

    #[test]
    fn an_operator_that_only_just_began_knows_since_when() {
        let mut world = World::formed(3);
        let failure = |index| ExecutorFailureStatus {
            index,
            since: "1970-01-01T00:00:07Z".into(),
            ..ExecutorFailureStatus::default()
        };
        let member = |index| MemberStatus {
            pod: Some("demo-1".into()),
            executor: Some(ExecutorState {
                failure: Some(failure(index)),
                ..ExecutorState::default()
            }),
            ..MemberStatus::default()
        };
        let clock = Timestamp::from_second(100).unwrap();
        for (told_index, since) in [(42, 7), (41, 100)] {
            let mut executors = Executors::default();
            executor_is(&mut world, 2, Some((42, "HTTP 503")), false);
            let before = RaftClusterStatus {
                members: vec![member(told_index)],
                ..RaftClusterStatus::default()
            };
            let failing = executors.note(&world.observed.pods, &before, Instant::now(), clock);
            assert_eq!(failing[&2].since.as_second(), since);
            // The next operation that it fails at is another matter.
            executor_is(&mut world, 2, Some((43, "HTTP 503")), false);
            let failing = executors.note(&world.observed.pods, &before, Instant::now(), clock);
            assert_eq!(failing[&2].since.as_second(), 100);
        }
    }

    #[test]
    fn an_operator_that_only_just_began_takes_nobody_for_well_who_was_told_to_fail() {
        let mut world = World::formed(3);
        executor_is(&mut world, 2, Some((42, "HTTP 503")), false);
        let mut clock = Clock::new();
        clock.at(0, &world);
        let (reason, message) = clock.at(10, &world).unwrap();
        let member = MemberStatus {
            node: 2,
            pod: Some("demo-1".into()),
            executor: Some(ExecutorState {
                kind: "http".into(),
                failure: Some(clock.executors.failing[&2].status()),
                ..ExecutorState::default()
            }),
            ..MemberStatus::default()
        };
        let told = |status: &str| {
            let condition = serde_json::json!({
                "type": EXECUTOR_FAILING, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "1970-01-01T00:00:07Z",
            });
            RaftClusterStatus {
                members: vec![member.clone()],
                conditions: vec![serde_json::from_value(condition).unwrap()],
                ..RaftClusterStatus::default()
            }
        };
        // Pods do not answer yet, and then they do.
        world.pod(2).node = None;
        let began = Instant::now();
        for (before, is_told) in [(told("True"), true), (told("False"), false)] {
            let mut executors = Executors::default();
            let mut at = |seconds, world: &World| {
                let now = began + Duration::from_secs(seconds);
                let clock = Timestamp::from_second(2_000).unwrap();
                describe(executors.note(&world.observed.pods, &before, now, clock)).is_some()
            };
            assert_eq!(at(0, &world), is_told);
            let mut well = World::formed(3);
            executor_is(&mut well, 2, None, false);
            assert_eq!(at(5, &well), is_told);
            assert_eq!(at(24, &well), is_told);
            assert!(!at(25, &well));
        }
    }

    #[test]
    fn pods_that_are_gone_are_forgotten() {
        let mut world = World::formed(3);
        executor_is(&mut world, 3, Some((42, "HTTP 503")), true);
        let mut clock = Clock::new();
        assert!(clock.at(0, &world).is_some());
        world.observed.pods.remove(&3);
        assert_eq!(clock.at(1, &world), None);
    }
}
