//! The nine conditions of a cluster.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::executors::{self, Failing};
use super::failures::{Failure, Failures};
use super::lag::LAG_OPERATIONS;
use super::plan::{Desired, Plan};
use super::raft::Raft;
use super::view::{Observed, PodView};
use super::watches::CANNOT_WATCH;

/// A pod that does not start gets so long before anybody is told.
const PROBLEM_SECONDS: i64 = 15;
/// A pod that has not gone so long after its grace period may never go.
const OVERDUE_SECONDS: i64 = 60;
/// An executor fails. It makes no pod unready, nor the cluster unavailable.
pub const EXECUTOR_FAILING: &str = "ExecutorFailing";
/// Subjects of failures to grow a volume begin so.
pub const GROW: &str = "grow ";

/// What conditions depend on.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// What is asked for.
    pub desired: &'a Desired<'a>,
    /// What there is.
    pub observed: &'a Observed,
    /// In Raft's view.
    pub raft: &'a Raft<'a>,
    /// What is next.
    pub plan: &'a Plan,
    /// What does not work.
    pub failures: &'a Failures,
    /// Why what there is may not be so any more: a watch fails.
    pub blind: Option<&'a str>,
    /// The pod whose replicator lags.
    pub lags: Option<&'a str>,
    /// Executors that fail, by node number.
    pub failing: &'a BTreeMap<u32, Failing>,
}

/// One condition, before it is dated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    kind: &'static str,
    /// Nobody knows, where it is none.
    is: Option<bool>,
    reason: String,
    message: String,
}

impl Told {
    fn status(&self) -> &'static str {
        match self.is {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

fn told(kind: &'static str, is: bool, reason: &str, message: impl Into<String>) -> Told {
    Told {
        kind,
        is: Some(is),
        reason: reason.to_owned(),
        message: message.into(),
    }
}

fn unknown(kind: &'static str, reason: &str, message: &str) -> Told {
    Told {
        is: None,
        ..told(kind, false, reason, message)
    }
}

/// All that there are, in the order of the contract.
const ALL: [&str; 9] = [
    "Ready",
    "Available",
    "Progressing",
    "Degraded",
    "QuorumAtRisk",
    "ExecutionLagging",
    EXECUTOR_FAILING,
    "StorageResizeUnsupported",
    "ReconciliationPaused",
];

/// All conditions, in the order of the contract.
pub fn conditions(scene: &Scene<'_>) -> Vec<Told> {
    vec![
        scene.ready(),
        scene.available(),
        scene.progressing(),
        scene.degraded(),
        scene.quorum_at_risk(),
        scene.execution_lagging(),
        scene.executor_failing(),
        scene.resize_unsupported(),
        scene.paused(),
    ]
}

/// Of a RaftCluster that cannot be served as it is: what was true of it is not known any more.
pub fn refused(reason: &str, why: &str) -> Vec<Told> {
    let all = ALL.map(|kind| match kind {
        // What cannot be seen may be as it has to be.
        "Ready" if reason != CANNOT_WATCH => told(kind, false, reason, why),
        "Degraded" => told(kind, true, reason, why),
        _ => unknown(kind, reason, why),
    });
    all.to_vec()
}

/// Of a RaftCluster that was deleted and that somebody's finalizer keeps: all that it was made of goes.
pub fn deleted(why: &str) -> Vec<Told> {
    let all = ALL.map(|kind| match kind {
        "Available" | "Ready" => told(kind, false, "Deleted", why),
        "Progressing" => told(kind, true, "Deleted", why),
        _ => unknown(kind, "Deleted", why),
    });
    all.to_vec()
}

/// With the time at which each became what it is.
pub fn dated(
    told: Vec<Told>,
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    told.into_iter()
        .map(|told| {
            let status = told.status();
            let same = before
                .iter()
                .find(|before| before.type_ == told.kind && before.status == status);
            Condition {
                type_: told.kind.to_owned(),
                status: status.to_owned(),
                reason: told.reason,
                message: told.message,
                observed_generation: generation,
                last_transition_time: same
                    .map_or(Time(whole_seconds(now)), |same| same.last_transition_time.clone()),
            }
        })
        .collect()
}

/// The API server keeps no fractions.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

impl Scene<'_> {
    fn pods_wanted(&self) -> impl Iterator<Item = (u32, Option<&PodView>)> {
        (1..=self.desired.replicas()).map(|node| (node, self.observed.pods.get(&node)))
    }

    fn is_available(&self) -> bool {
        let leader_is_ready = self.raft.leader.is_some_and(|(_, status)| status.ready);
        let ready = self.raft.voters().filter(|member| {
            let pod = self.observed.pods.get(&member.node);
            pod.is_some_and(PodView::serves)
        });
        leader_is_ready && ready.count() > self.raft.voters().count() / 2
    }

    fn ready(&self) -> Told {
        match self.not_ready() {
            Some(why) => told("Ready", false, "NotReady", why),
            None => told("Ready", true, "AllReplicasVote", self.heartbeat_note()),
        }
    }

    fn not_ready(&self) -> Option<String> {
        if !self.is_available() {
            return Some("the cluster is not available".into());
        }
        let revision = self.plan.revision.as_deref();
        for (node, pod) in self.pods_wanted() {
            let Some(pod) = pod else {
                return Some(format!("there is no pod for node {node}"));
            };
            let status = pod.node.as_ref();
            let member = status.and_then(|status| self.raft.member(status.member_id));
            if pod.waits_for_state_machine_only() {
                return Some(format!(
                    "pod {} is not ready, as its container state-machine does not run: ExecutorFailing tells why",
                    pod.name
                ));
            }
            if !pod.is_ready() {
                return Some(format!("pod {} is not ready", pod.name));
            }
            if !member.is_some_and(|member| member.voter) {
                return Some(format!("node {node} does not vote yet"));
            }
            if pod.revision.as_deref() != revision {
                return Some(format!("pod {} is of an earlier template", pod.name));
            }
        }
        if self.raft.is_changing() || self.raft.members().len() > count(self.desired.replicas()) {
            return Some("members are about to leave".into());
        }
        let surplus = self
            .observed
            .pods
            .keys()
            .any(|node| *node > self.desired.replicas());
        if surplus {
            return Some("pods of members that left are about to go".into());
        }
        self.plan.trouble.as_ref().map(|trouble| trouble.message.clone())
    }

    /// A heartbeat that is lost leads to elections where the next one comes too late.
    fn heartbeat_note(&self) -> String {
        let raft = &self.desired.cluster.spec.raft;
        match (raft.heartbeat_interval.parse(), raft.election_timeout.min.parse()) {
            (Ok(interval), Ok(min)) if interval.saturating_mul(3) > min.saturating_mul(2) => format!(
                "all replicas vote and are current; raft.heartbeatInterval {} is above two thirds of raft.electionTimeout.min {}: \
                 one late heartbeat leads to an election",
                raft.heartbeat_interval, raft.election_timeout.min
            ),
            _ => "all replicas vote and are current".into(),
        }
    }

    fn available(&self) -> Told {
        if self.is_available() {
            return told(
                "Available",
                true,
                "LeaderAndMajority",
                "a leader and a majority of voters are ready",
            );
        }
        match self.raft.leader {
            None => told(
                "Available",
                false,
                "NoLeader",
                self.waits_or("no leader is known"),
            ),
            Some(_) => told("Available", false, "NoMajority", "no majority of voters is ready"),
        }
    }

    fn waits_or(&self, otherwise: &str) -> String {
        self.plan.waits.clone().unwrap_or_else(|| otherwise.to_owned())
    }

    fn progressing(&self) -> Told {
        if self.desired.cluster.spec.paused {
            return told("Progressing", false, "Paused", "spec.paused is true");
        }
        if self.blind.is_some() {
            let why = "nothing is changed until the operator sees what there is: Degraded tells why";
            return told("Progressing", false, CANNOT_WATCH, why);
        }
        if let Some(trouble) = self
            .plan
            .trouble
            .as_ref()
            .filter(|trouble| trouble.reason == "RolloutStopped")
        {
            return told("Progressing", false, trouble.reason, trouble.message.clone());
        }
        match (&self.plan.step, &self.plan.waits) {
            (Some(step), _) => told("Progressing", true, "Acting", step.subject()),
            (None, Some(why)) => told("Progressing", true, "Waiting", why.clone()),
            (None, None) if self.plan.wants_to_roll => {
                let other = self.desired.turn_of.as_deref().unwrap_or("others");
                let why =
                    format!("waits until {other} has rolled out what is new in this version of the operator");
                told("Progressing", true, "Waiting", why)
            }
            (None, None) => told("Progressing", false, "Settled", "there is nothing to do"),
        }
    }

    fn degraded(&self) -> Told {
        if let Some(why) = self.blind {
            return told("Degraded", true, CANNOT_WATCH, why);
        }
        if let Some(trouble) = &self.plan.trouble {
            return told("Degraded", true, trouble.reason, trouble.message.clone());
        }
        let failure = self
            .failures
            .all()
            .find(|(subject, failure)| !is_resize_refused(subject, failure));
        if let Some((_, failure)) = failure {
            return told("Degraded", true, failure.reason, failure.message.clone());
        }
        if let Some(why) = &self.observed.missing {
            let message =
                format!("pods are not created: {why}; see to what it names, or ask for what there is");
            return told("Degraded", true, "PodsNotCreated", message);
        }
        if let Some(told) = self.overdue_pod().or_else(|| self.lost_volume()) {
            return told;
        }
        let problem = self.pods_wanted().find_map(|(node, pod)| {
            let pod = pod.filter(|pod| pod.age_seconds >= PROBLEM_SECONDS)?;
            Some((node, pod, pod.problem.as_ref()?))
        });
        match problem {
            Some((node, pod, problem)) => {
                let message = format!(
                    "pod {}: {}{}; correct the spec, or what it names",
                    pod.name,
                    problem.message,
                    self.claim_note(node)
                );
                told("Degraded", true, &camel(&problem.reason), message)
            }
            None => told("Degraded", false, "Fine", "nothing is wrong"),
        }
    }

    /// Nothing takes its place before the kubelet says that it has gone, which one that is lost never will.
    fn overdue_pod(&self) -> Option<Told> {
        let mut pods = self.observed.pods.values();
        let pod = pods.find(|pod| pod.deleting && pod.overdue_seconds >= OVERDUE_SECONDS)?;
        let machine = pod.machine.as_deref().unwrap_or("none");
        let message = format!(
            "pod {} should have gone {} s ago: if machine {machine} is lost for good, delete it from Kubernetes (kubectl delete \
             node), or the pod with --force",
            pod.name, pod.overdue_seconds
        );
        Some(told("Degraded", true, "PodTerminating", message))
    }

    fn lost_volume(&self) -> Option<Told> {
        let claim = self.observed.claims.values().find(|claim| claim.lost)?;
        let message = format!(
            "the volume of claim {} is lost: delete the claim and then its pod, and a new member takes its place",
            claim.name
        );
        Some(told("Degraded", true, "VolumeLost", message))
    }

    /// A pod whose claim waits for a volume is not told why.
    fn claim_note(&self, node: u32) -> String {
        let claim = self.observed.claims.get(&node).filter(|claim| claim.pending);
        claim.map_or_else(String::new, |claim| {
            let class = claim.class.as_deref().unwrap_or("that is the default");
            format!(
                " (claim {} waits for a volume of storage class {class}: does it exist?)",
                claim.name
            )
        })
    }

    fn quorum_at_risk(&self) -> Told {
        // A leader that is new has not heard of all yet.
        let live = self.raft.voters().filter(|member| {
            let pod = self.observed.pods.get(&member.node);
            let answers = pod.is_some_and(|pod| pod.node.is_some() || pod.serves());
            answers || self.raft.is_live(member.member_id)
        });
        let (voters, live) = (self.raft.voters().count(), live.count());
        if self.raft.leader.is_none() && self.is_being_formed() {
            return told("QuorumAtRisk", false, "NotFormed", "the cluster is being formed");
        }
        if self.raft.leader.is_none() {
            return told(
                "QuorumAtRisk",
                true,
                "NoLeader",
                "no leader is known: there may be no quorum",
            );
        }
        if voters == 1 && self.desired.replicas() > 1 {
            let why =
                "a single member votes until the others do, too: if its volume is lost, so are the data";
            return told("QuorumAtRisk", true, "SingleVoter", why);
        }
        if voters == 1 {
            let why = "a single replica has no other to go on with: ask for 3 to tolerate a failure";
            return told("QuorumAtRisk", false, "SingleReplica", why);
        }
        let message = format!(
            "{live} of {voters} voters are live, and {} are needed",
            voters / 2 + 1
        );
        let at_risk = live <= voters / 2 + 1 && live < voters;
        let reason = if at_risk { "VotersMissing" } else { "VotersLive" };
        told("QuorumAtRisk", at_risk, reason, message)
    }

    /// Nobody has led yet: no volume is noted to hold the cluster's data, or no log has more than its first configuration.
    fn is_being_formed(&self) -> bool {
        let noted = self
            .observed
            .claims
            .values()
            .any(|claim| claim.cluster_id.is_some());
        let mut nodes = self
            .observed
            .pods
            .values()
            .filter_map(|pod| pod.node.as_ref())
            .peekable();
        !noted || (nodes.peek().is_some() && nodes.all(|status| status.last_log_index <= 1))
    }

    fn execution_lagging(&self) -> Told {
        match self.lags {
            Some(pod) => told(
                "ExecutionLagging",
                true,
                "Behind",
                format!(
                    "the replicator of {pod} has been more than {LAG_OPERATIONS} operations behind for a while: look at its executor"
                ),
            ),
            None => told(
                "ExecutionLagging",
                false,
                "UpToDate",
                "all replicators that answer keep up",
            ),
        }
    }

    fn executor_failing(&self) -> Told {
        match executors::describe(self.failing) {
            Some((reason, message)) => told(EXECUTOR_FAILING, true, &camel(&reason), message),
            None => told(
                EXECUTOR_FAILING,
                false,
                "NoneFails",
                "no executor fails, as far as pods tell",
            ),
        }
    }

    fn resize_unsupported(&self) -> Told {
        let refused = self
            .failures
            .all()
            .find(|(subject, failure)| is_resize_refused(subject, failure));
        match refused {
            Some((_, failure)) => told(
                "StorageResizeUnsupported",
                true,
                "Refused",
                format!(
                    "{}; volumes grow where their storage class has allowVolumeExpansion: true: set it there, and it goes on. \
                     Other changes do so meanwhile",
                    failure.message
                ),
            ),
            None => told(
                "StorageResizeUnsupported",
                false,
                "NotRefused",
                "no volume was refused to grow",
            ),
        }
    }

    fn paused(&self) -> Told {
        if self.desired.cluster.spec.paused {
            let why = "spec.paused is true: nothing is changed until it is false";
            return told("ReconciliationPaused", true, "Paused", why);
        }
        told("ReconciliationPaused", false, "NotPaused", "spec.paused is false")
    }
}

/// Whether a volume is not to grow, which is told by its own condition; anything else that keeps one from it is a failure like
/// any other. Rights and quotas are refused by the same code.
fn is_resize_refused(subject: &str, failure: &Failure) -> bool {
    const OTHER_REFUSALS: [&str; 2] = ["exceeded quota", "cannot patch resource"];
    subject.starts_with(GROW)
        && matches!(failure.reason, "Forbidden" | "Refused")
        && !OTHER_REFUSALS.iter().any(|other| failure.message.contains(other))
}

fn count(replicas: u32) -> usize {
    usize::try_from(replicas).unwrap_or(usize::MAX)
}

/// Reasons are words without spaces.
fn camel(reason: &str) -> String {
    let word: String = reason.chars().filter(char::is_ascii_alphanumeric).collect();
    if word.is_empty() { "PodFails".into() } else { word }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use raftlog_proto::v1::{ExecutorFailure, ExecutorStatus, ReplicatorStatus};

    use super::super::executors::Executors;
    use super::super::failures::Attempt;
    use super::super::plan::tests::World;
    use super::super::state_machine::StateMachineView;
    use super::super::view::Problem;
    use super::*;
    use crate::crd::RaftClusterStatus;

    fn told_of(world: &World, failures: &Failures, blind: Option<&str>, lags: Option<&str>) -> Vec<Told> {
        let desired = world.desired();
        let raft = Raft::new(&world.observed.pods, desired.patience());
        let plan = world.plan();
        conditions(&Scene {
            desired: &desired,
            observed: &world.observed,
            raft: &raft,
            plan: &plan,
            failures,
            blind,
            lags,
            failing: &Executors::default()
                .note(
                    &world.observed.pods,
                    &RaftClusterStatus::default(),
                    Instant::now(),
                    Timestamp::UNIX_EPOCH,
                )
                .clone(),
        })
    }

    fn of(world: &World, failures: &Failures) -> Vec<(String, bool, String)> {
        told_of(world, failures, None, None)
            .into_iter()
            .map(|told| (told.kind.to_owned(), told.is == Some(true), told.reason))
            .collect()
    }

    fn true_ones(world: &World) -> Vec<String> {
        let all = of(world, &Failures::default());
        all.into_iter()
            .filter(|(_, is, _)| *is)
            .map(|(kind, _, _)| kind)
            .collect()
    }

    fn ready_world(replicas: u32) -> World {
        let mut world = World::formed(replicas);
        world.status(1, |status| status.ready = true);
        world
    }

    #[test]
    fn what_is_true_when() {
        let world = ready_world(3);
        assert_eq!(true_ones(&world), ["Ready", "Available"]);

        let mut world = ready_world(3);
        world.silent(3);
        assert_eq!(true_ones(&world), ["Available", "QuorumAtRisk"]);

        let mut world = ready_world(5);
        world.silent(3);
        assert_eq!(true_ones(&world), ["Available"]);

        let mut world = ready_world(3);
        world.spec("replicas: 3\npaused: true");
        assert_eq!(true_ones(&world), ["Ready", "Available", "ReconciliationPaused"]);

        let mut world = ready_world(3);
        world.status(1, |status| status.set_role(raftlog_proto::v1::Role::Follower));
        world.observed.claims.get_mut(&1).unwrap().cluster_id = Some("c1".into());
        assert_eq!(true_ones(&world), ["Progressing"], "nobody has led yet");
        world.status(2, |status| status.last_log_index = 9);
        assert_eq!(true_ones(&world), ["Progressing", "QuorumAtRisk"]);
        for node in 1..=3 {
            world.silent(node);
        }
        assert_eq!(true_ones(&world), ["Progressing", "QuorumAtRisk"]);

        let mut world = ready_world(3);
        world.spec("replicas: 1");
        assert_eq!(true_ones(&world), ["Available", "Progressing"]);

        let world = World::unformed(3);
        assert_eq!(true_ones(&world), ["Progressing"]);
    }

    #[test]
    fn causes_are_named() {
        let mut world = ready_world(3);
        world.silent(3);
        world.pod(3).problem = Some(Problem {
            reason: "Unschedulable".into(),
            message: "storageclass x not found".into(),
            of_container: false,
        });
        let degraded = |world: &World, failures: &Failures| {
            let all = of(world, failures);
            all.into_iter().find(|(kind, _, _)| kind == "Degraded").unwrap().2
        };
        assert_eq!(degraded(&world, &Failures::default()), "Unschedulable");
        world.observed.missing = Some("exceeded quota".into());
        assert_eq!(degraded(&world, &Failures::default()), "PodsNotCreated");
        let mut failures = Failures::default();
        failures.failed(
            "Service demo".into(),
            failure("NameTaken", "somebody else's"),
            Instant::now(),
        );
        assert_eq!(degraded(&ready_world(3), &failures), "NameTaken");
    }

    fn failure(reason: &'static str, message: &str) -> Attempt {
        Attempt {
            step: "apply",
            reason,
            message: message.into(),
            passes: false,
        }
    }

    fn find<'a>(told: &'a [Told], kind: &str) -> &'a Told {
        told.iter().find(|told| told.kind == kind).unwrap()
    }

    /// A quota, a right that is missing and a call that came too late were told as a class that does not allow it.
    #[test]
    fn only_a_refusal_of_the_resize_itself_says_so() {
        const CLASS: &str = "persistentvolumeclaims \"data-demo-0\" is forbidden: only dynamically provisioned pvc can be \
                             resized and the storageclass that provisions the pvc must support resize";
        const RIGHT: &str = "persistentvolumeclaims \"data-demo-0\" is forbidden: User \"x\" cannot patch resource \
                             \"persistentvolumeclaims\"";
        for (reason, message, unsupported, degraded) in [
            ("Forbidden", CLASS, true, "Fine"),
            ("Refused", "spec.resources: Invalid value", true, "Fine"),
            ("Forbidden", "exceeded quota: disks", false, "Forbidden"),
            ("Forbidden", RIGHT, false, "Forbidden"),
            ("CallFailed", "not found", false, "CallFailed"),
            ("Unreachable", "no answer", false, "Unreachable"),
        ] {
            let mut failures = Failures::default();
            let subject = format!("{GROW}PersistentVolumeClaim data-demo-0");
            failures.failed(subject, failure(reason, message), Instant::now());
            let told = told_of(&ready_world(3), &failures, None, None);
            let resize = find(&told, "StorageResizeUnsupported");
            assert_eq!(resize.is, Some(unsupported), "{message}");
            assert_eq!(resize.message.contains("allowVolumeExpansion: true"), unsupported);
            assert_eq!(find(&told, "Degraded").reason, degraded, "{message}");
        }
    }

    #[test]
    fn who_cannot_see_says_so() {
        let mut failures = Failures::default();
        failures.failed("a".into(), failure("Refused", "no"), Instant::now());
        let told = told_of(&ready_world(3), &failures, Some("cannot watch"), None);
        let degraded = find(&told, "Degraded");
        assert_eq!(
            (degraded.is, degraded.reason.as_str(), degraded.message.as_str()),
            (Some(true), CANNOT_WATCH, "cannot watch")
        );
        assert_eq!(find(&told, "Progressing").reason, CANNOT_WATCH);
        assert_eq!(find(&told, "Ready").is, Some(true), "nodes say so themselves");
    }

    #[test]
    fn a_replicator_that_lags_is_named() {
        let told = |lags| told_of(&ready_world(3), &Failures::default(), None, lags);
        let lags = told(Some("demo-1"));
        let condition = find(&lags, "ExecutionLagging");
        assert!(condition.is == Some(true) && condition.message.contains("demo-1"));
        assert_eq!(find(&told(None), "ExecutionLagging").is, Some(false));
    }

    fn stops(world: &mut World, node: u32, index: u64) {
        world.status(node, |status| {
            status.replicator = Some(ReplicatorStatus {
                connected: true,
                executor: Some(ExecutorStatus {
                    kind: "http".into(),
                    failure: Some(ExecutorFailure {
                        index,
                        message: "HTTP 400".into(),
                        attempts: 1,
                    }),
                    stopped: true,
                    ..ExecutorStatus::default()
                }),
                ..ReplicatorStatus::default()
            });
        });
    }

    #[test]
    fn an_executor_that_fails_is_told_and_costs_nothing_else() {
        let mut world = ready_world(3);
        stops(&mut world, 2, 7);
        assert_eq!(true_ones(&world), ["Ready", "Available", "ExecutorFailing"]);
        let told = told_of(&world, &Failures::default(), None, None);
        let failing = find(&told, "ExecutorFailing");
        assert_eq!(failing.reason, "Stopped");
        assert!(
            failing
                .message
                .contains("demo-1 has stopped at operation 7 since"),
            "{}",
            failing.message
        );
        let told = told_of(&ready_world(3), &Failures::default(), None, None);
        assert_eq!(find(&told, "ExecutorFailing").reason, "NoneFails");
    }

    #[test]
    fn a_state_machine_that_does_not_run_makes_its_pod_unready_and_the_cluster_not_unavailable() {
        let mut world = ready_world(3);
        for node in 1..=3 {
            world.pod(node).ready = false;
            world.pod(node).state_machine = Some(StateMachineView {
                others_ready: true,
                ..StateMachineView::default()
            });
        }
        assert_eq!(true_ones(&world), ["Available"]);
        let told = told_of(&world, &Failures::default(), None, None);
        let why = &find(&told, "Ready").message;
        assert!(
            why.contains("demo-0 is not ready, as its container state-machine"),
            "{why}"
        );
    }

    /// Six of them vanished, and whoever waited for one waited for good.
    #[test]
    fn all_are_told_of_one_that_is_refused() {
        let kinds = |told: &[Told]| told.iter().map(|told| told.kind).collect::<Vec<_>>();
        let all = kinds(&told_of(&ready_world(3), &Failures::default(), None, None));
        for (reason, ready) in [
            ("InvalidSpec", Some(false)),
            ("RecordDamaged", Some(false)),
            (CANNOT_WATCH, None),
        ] {
            let refused = refused(reason, "why");
            assert_eq!(kinds(&refused), all);
            for told in &refused {
                let expected = match told.kind {
                    "Ready" => ready,
                    "Degraded" => Some(true),
                    _ => None,
                };
                assert_eq!(
                    (told.is, told.reason.as_str()),
                    (expected, reason),
                    "{}",
                    told.kind
                );
            }
        }
        let dated = dated(refused("InvalidSpec", "why"), &[], Some(1), Timestamp::UNIX_EPOCH);
        assert!(dated.iter().any(|condition| condition.status == "Unknown"));
    }

    #[test]
    fn a_transition_is_dated_once() {
        let (then, now) = (
            Timestamp::from_second(100).unwrap(),
            Timestamp::from_second(200).unwrap(),
        );
        let before = dated(vec![told("Ready", true, "A", "")], &[], Some(1), then);
        let same = dated(vec![told("Ready", true, "B", "")], &before, Some(2), now);
        assert_eq!(
            (same[0].last_transition_time.0, same[0].reason.as_str()),
            (then, "B")
        );
        let other = dated(vec![told("Ready", false, "B", "")], &before, Some(2), now);
        assert_eq!(other[0].last_transition_time.0, now);
    }
}
