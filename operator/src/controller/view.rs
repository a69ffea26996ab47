//! What there is, taken from API objects: only what decisions need, and nothing taken for granted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use raftlog_proto::v1::NodeStatus;
use serde_json::Value;

use super::state_machine::StateMachineView;
use crate::crd::status::{Images, MemberStatus};
use crate::resources::meta::{CLUSTER_ID, COMPONENT, INSTANCE, KEPT, REVISION, ROLE};
use crate::resources::pod::revision;
use crate::resources::record::Record;
use crate::resources::state_machine::NAME as STATE_MACHINE;

/// Annotation of a StatefulSet: the generation of the spec that its template was made for.
pub const GENERATION: &str = "raftlog.io/generation";
/// Annotation of a StatefulSet: what that spec said about pods, added up.
pub const ASKED_FOR: &str = "raftlog.io/asked-for";
/// Annotation of a StatefulSet: who changed the template last, the spec or the operator.
pub const CHANGED_BY: &str = "raftlog.io/changed-by";

/// Everything that a cluster's next step depends on.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The StatefulSet, once it is there.
    pub stateful_set: Option<StatefulSetView>,
    /// Pods by node number.
    pub pods: BTreeMap<u32, PodView>,
    /// Claims by node number.
    pub claims: BTreeMap<u32, ClaimView>,
    /// What was remembered; nothing at first.
    pub record: Record,
    /// Why pods that are asked for are not made, where that is known.
    pub missing: Option<String>,
    /// What another StatefulSet of that name left, if there is anything: a pod that is none of the cluster's, or a claim that goes.
    pub left_over: Option<String>,
    /// What the status said before.
    pub told: Told,
    /// How long no leader has been known to this operator.
    pub leaderless_seconds: u64,
    /// How often a pod of that node was deleted in vain, so that its removed member comes back as a new one.
    pub strays_deleted: BTreeMap<u32, u32>,
}

/// What the status said last about who belongs to the cluster: known also while nobody answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// 16 hex digits, once it was formed.
    pub cluster_id: Option<String>,
    /// As its last leader saw them.
    pub members: Vec<MemberStatus>,
    /// That it ran.
    pub images: Images,
}

/// A StatefulSet.
#[derive(Debug, Clone, PartialEq)]
pub struct StatefulSetView {
    /// Pods that it is to have.
    pub replicas: u32,
    /// What its template adds up to.
    pub revision: Option<String>,
    /// What the claims of new pods ask for.
    pub size: Option<String>,
    /// The spec that the template was made for.
    pub origin: Origin,
}

/// What a StatefulSet's template comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// What the spec said about pods, added up.
    pub asked_for: Option<String>,
    /// Whether the operator alone, being new, changed it last.
    pub by_operator: bool,
}

impl Origin {
    const OPERATOR: &'static str = "operator";
    const SPEC: &'static str = "spec";

    fn of(body: &Value) -> Self {
        let annotations = body.pointer("/metadata/annotations");
        let text = |name: &str| annotations?.get(name)?.as_str();
        Self {
            generation: text(GENERATION).and_then(|text| text.parse().ok()),
            asked_for: text(ASKED_FOR).map(str::to_owned),
            by_operator: text(CHANGED_BY) == Some(Self::OPERATOR),
        }
    }

    /// As annotations of the StatefulSet.
    pub fn annotations(&self) -> BTreeMap<&'static str, String> {
        let changed_by = if self.by_operator {
            Self::OPERATOR
        } else {
            Self::SPEC
        };
        let mut annotations = BTreeMap::from([(CHANGED_BY, changed_by.to_owned())]);
        annotations.extend(
            self.generation
                .map(|generation| (GENERATION, generation.to_string())),
        );
        annotations.extend(self.asked_for.clone().map(|digest| (ASKED_FOR, digest)));
        annotations
    }
}

impl StatefulSetView {
    /// Of a StatefulSet as the API server tells it.
    pub fn new(body: &Value) -> Self {
        let replicas = body.pointer("/spec/replicas").and_then(Value::as_u64);
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Self {
            replicas: replicas
                .and_then(|replicas| u32::try_from(replicas).ok())
                .unwrap_or(1),
            revision: body
                .pointer("/spec/template")
                .and_then(revision)
                .map(str::to_owned),
            size: text("/spec/volumeClaimTemplates/0/spec/resources/requests/storage"),
            origin: Origin::of(body),
        }
    }
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq)]
// Each is observed by itself.
#[allow(clippy::struct_excessive_bools)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// What its template added up to.
    pub revision: Option<String>,
    /// Whether Kubernetes takes it for ready.
    pub ready: bool,
    /// Whether it is on its way out.
    pub deleting: bool,
    /// Label of its role.
    pub role: Option<String>,
    /// Whether it lost labels that Services and the StatefulSet know it by.
    pub unlabelled: bool,
    /// Where it is reached.
    pub ip: Option<String>,
    /// How long it has been there.
    pub age_seconds: i64,
    /// How long it has not been ready; 0 while it is.
    pub unready_seconds: i64,
    /// How long ago it should have been gone; 0 while nobody deleted it or its grace period lasts.
    pub overdue_seconds: i64,
    /// The machine that it was given.
    pub machine: Option<String>,
    /// Whether its node's container runs and has answered the kubelet.
    pub started: bool,
    /// Why its node or its replicator does not run.
    pub problem: Option<Problem>,
    /// Its container for a state machine, if it has one.
    pub state_machine: Option<StateMachineView>,
    /// What its node says, if it answers.
    pub node: Option<NodeStatus>,
    /// Whether it was asked and did not answer for a while; an operator that only just began has not asked yet.
    pub silent: bool,
}

impl PodView {
    /// Whether its node serves: it says so itself. Kubernetes may be the last to notice, where a machine is cut off.
    pub fn serves(&self) -> bool {
        match &self.node {
            Some(status) => status.ready,
            None => self.is_ready(),
        }
    }

    /// Whether nothing but its state machine keeps Kubernetes from taking it for ready. Its node serves all the same.
    pub fn waits_for_state_machine_only(&self) -> bool {
        let machine = self.state_machine.as_ref();
        !self.ready && machine.is_some_and(|machine| !machine.ready && machine.others_ready)
    }

    /// Whether its state machine, if it has one, has run for a while. There is no probe that would tell more.
    pub fn is_settled(&self) -> bool {
        self.state_machine
            .as_ref()
            .is_none_or(StateMachineView::is_settled)
    }

    /// Why one of its containers does not run.
    pub fn any_problem(&self) -> Option<&Problem> {
        let machine = self.state_machine.as_ref();
        self.problem
            .as_ref()
            .or_else(|| machine.and_then(|machine| machine.problem.as_ref()))
    }

    /// Whether Kubernetes takes it for ready, and nothing speaks against it.
    pub fn is_ready(&self) -> bool {
        self.ready && !self.silent
    }
}

/// What was heard of a pod's node.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Heard {
    /// It was not asked yet, or not for long.
    #[default]
    Nothing,
    /// It was asked and does not answer.
    Silence,
    /// It answers.
    Status(Box<NodeStatus>),
}

/// Why a pod does not run, in Kubernetes' words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// Such as ImagePullBackOff.
    pub reason: String,
    /// One line.
    pub message: String,
    /// A container does not start: that may come from the template. Otherwise no machine takes the pod, or not yet.
    pub of_container: bool,
}

impl PodView {
    /// Of a pod as the API server tells it, and what was heard of its node.
    pub fn new(pod: &Pod, heard: Heard, now: Timestamp) -> Self {
        let created = pod.metadata.creation_timestamp.as_ref();
        let status = pod.status.as_ref();
        let conditions = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        let ip = status.and_then(|status| status.pod_ip.clone());
        let ready_condition = conditions.iter().find(|condition| condition.type_ == "Ready");
        let ready = ready_condition.is_some_and(|condition| condition.status == "True");
        let age_seconds = seconds_since(created, now);
        let unready_since = ready_condition.and_then(|condition| condition.last_transition_time.as_ref());
        let problem = problem(pod, age_seconds);
        let (node, silent) = match heard {
            Heard::Status(status) => (Some(*status), false),
            Heard::Nothing => (None, ip.is_none() || problem.is_some()),
            Heard::Silence => (None, true),
        };
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            revision: pod.annotations().get(REVISION).cloned(),
            ready,
            deleting: pod.metadata.deletion_timestamp.is_some(),
            role: pod.labels().get(ROLE).cloned(),
            unlabelled: [INSTANCE, COMPONENT]
                .iter()
                .any(|label| !pod.labels().contains_key(*label)),
            ip,
            age_seconds,
            unready_seconds: if ready {
                0
            } else {
                seconds_since(unready_since.or(created), now)
            },
            // The API server adds the grace period to it.
            overdue_seconds: seconds_since(pod.metadata.deletion_timestamp.as_ref(), now),
            machine: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            started: node_started(pod),
            problem,
            state_machine: StateMachineView::new(pod, age_seconds, now),
            node,
            silent,
        }
    }
}

pub(super) fn seconds_since(then: Option<&Time>, now: Timestamp) -> i64 {
    then.map_or(0, |then| {
        now.as_second().saturating_sub(then.0.as_second()).max(0)
    })
}

/// By the kubelet: the startup probe of the node's container, which asks for no leader, has passed.
fn node_started(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    let mut statuses = statuses.unwrap_or_default().iter();
    statuses.any(|status| status.name == "node" && status.started == Some(true))
}

fn problem(pod: &Pod, age_seconds: i64) -> Option<Problem> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unscheduled = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let container = containers
        .iter()
        .filter(|status| status.name != STATE_MACHINE)
        .find_map(|status| container_problem(status, age_seconds));
    container.or_else(|| {
        unscheduled.map(|condition| Problem {
            reason: condition.reason.clone().unwrap_or_else(|| "Unschedulable".into()),
            message: one_line(condition.message.as_deref().unwrap_or_default()),
            of_container: false,
        })
    })
}

/// A container that only just begins to wait has no problem yet; one that is created for ever may lack its volume.
pub(super) fn container_problem(status: &ContainerStatus, age_seconds: i64) -> Option<Problem> {
    const PASSING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
    const CREATED_WITHIN_SECONDS: i64 = 120;
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone()?;
    let passing = PASSING.contains(&reason.as_str());
    if passing && age_seconds < CREATED_WITHIN_SECONDS {
        return None;
    }
    let told = match waiting.message.as_deref() {
        None | Some("") if passing => {
            "is not created: kubectl describe pod tells why, such as a volume that cannot be mounted"
        }
        told => told.unwrap_or_default(),
    };
    Some(Problem {
        message: one_line(&format!("container {}: {told}", status.name)),
        reason,
        of_container: !passing,
    })
}

/// A message of any length as one line.
pub fn one_line(text: &str) -> String {
    const CHARACTERS_MAX: usize = 300;
    let joined: Vec<&str> = text.split_whitespace().collect();
    joined.join(" ").chars().take(CHARACTERS_MAX).collect()
}

/// A claim for a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
// Each is observed by itself.
#[allow(clippy::struct_excessive_bools)]
pub struct ClaimView {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// The cluster whose data it holds, as the operator noted.
    pub cluster_id: Option<String>,
    /// Whether it was left behind while such claims were to be kept.
    pub kept: bool,
    /// Whom it is deleted with: kinds and identities.
    pub owners: Vec<(String, String)>,
    /// What it asks for.
    pub size: Option<String>,
    /// The class that it names.
    pub class: Option<String>,
    /// Whether it waits for a volume.
    pub pending: bool,
    /// Whether its volume is gone for good.
    pub lost: bool,
    /// Whether it is on its way out.
    pub deleting: bool,
}

impl ClaimView {
    /// Of a claim as the API server tells it.
    pub fn new(claim: &PersistentVolumeClaim) -> Self {
        let spec = claim.spec.as_ref();
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        let requests = spec
            .and_then(|spec| spec.resources.as_ref())
            .and_then(|resources| resources.requests.as_ref());
        Self {
            name: claim.name_any(),
            uid: claim.uid().unwrap_or_default(),
            cluster_id: claim.annotations().get(CLUSTER_ID).cloned(),
            kept: claim.annotations().contains_key(KEPT),
            owners: claim
                .owner_references()
                .iter()
                .map(|owner| (owner.kind.clone(), owner.uid.clone()))
                .collect(),
            size: requests
                .and_then(|requests| requests.get("storage"))
                .map(|size| size.0.clone()),
            class: spec.and_then(|spec| spec.storage_class_name.clone()),
            pending: phase == Some("Pending"),
            lost: phase == Some("Lost"),
            deleting: claim.metadata.deletion_timestamp.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(yaml: &str) -> PodView {
        let pod: Pod = serde_saphyr::from_str(yaml).unwrap();
        PodView::new(
            &pod,
            Heard::Nothing,
            Timestamp::from_second(1_000_000_100).unwrap(),
        )
    }

    #[test]
    fn a_pod_says_why_it_does_not_run() {
        let waits = |reason: &str| {
            pod(&format!(
                "metadata: {{name: demo-0}}\nstatus: {{containerStatuses: [{{name: node, image: x, imageID: '', ready: false, \
                 restartCount: 0, state: {{waiting: {{reason: {reason}, message: 'no such image'}}}}}}]}}"
            ))
            .problem
        };
        assert_eq!(waits("ContainerCreating"), None);
        let problem = waits("ImagePullBackOff").unwrap();
        assert_eq!(problem.reason, "ImagePullBackOff");
        assert_eq!(problem.message, "container node: no such image");
        let unscheduled = pod(
            "metadata: {name: demo-0}\nstatus: {conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, \
             message: 'storageclass \"x\" not found'}]}",
        );
        assert!(unscheduled.problem.unwrap().message.contains("not found"));
    }

    #[test]
    fn a_pod_is_taken_as_it_is_told() {
        let pod = pod(
            "metadata: {name: demo-2, uid: u, creationTimestamp: '2001-09-09T01:46:40Z', annotations: \
             {raftlog.io/revision: abc}, labels: {raftlog.io/role: leader}}\n\
             status: {podIP: 10.0.0.7, conditions: [{type: Ready, status: 'True'}]}",
        );
        assert!(pod.ready && !pod.deleting);
        assert_eq!(pod.age_seconds, 100);
        assert_eq!(pod.revision.as_deref(), Some("abc"));
        assert_eq!(pod.role.as_deref(), Some("leader"));
        assert_eq!(pod.ip.as_deref(), Some("10.0.0.7"));
    }
}
