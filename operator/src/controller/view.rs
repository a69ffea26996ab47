//! What there is, taken from API objects: only what decisions need, and nothing taken for granted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod};
use kube::ResourceExt as _;
use raftlog_proto::v1::NodeStatus;
use serde_json::Value;

use crate::resources::meta::{CLUSTER_ID, REVISION, ROLE};
use crate::resources::pod::revision;
use crate::resources::record::Record;

/// Annotation of a StatefulSet: the generation of the spec that its template was made for.
pub const GENERATION: &str = "raftlog.io/generation";

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
    /// The generation of the spec that the template was made for.
    pub generation: Option<i64>,
}

impl StatefulSetView {
    /// Of a StatefulSet as the API server tells it.
    pub fn new(body: &Value) -> Self {
        let replicas = body.pointer("/spec/replicas").and_then(Value::as_u64);
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let generation = body
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(GENERATION));
        Self {
            replicas: replicas
                .and_then(|replicas| u32::try_from(replicas).ok())
                .unwrap_or(1),
            revision: body
                .pointer("/spec/template")
                .and_then(revision)
                .map(str::to_owned),
            size: text("/spec/volumeClaimTemplates/0/spec/resources/requests/storage"),
            generation: generation
                .and_then(Value::as_str)
                .and_then(|text| text.parse().ok()),
        }
    }
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// Where it is reached.
    pub ip: Option<String>,
    /// How long it has been there.
    pub age_seconds: i64,
    /// Why it does not run.
    pub problem: Option<Problem>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Such as ImagePullBackOff.
    pub reason: String,
    /// One line.
    pub message: String,
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
        let problem = problem(pod);
        let (node, silent) = match heard {
            Heard::Status(status) => (Some(*status), false),
            Heard::Nothing => (None, ip.is_none() || problem.is_some()),
            Heard::Silence => (None, true),
        };
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            revision: pod.annotations().get(REVISION).cloned(),
            ready: conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            role: pod.labels().get(ROLE).cloned(),
            ip,
            age_seconds: created.map_or(0, |created| now.as_second().saturating_sub(created.0.as_second())),
            problem,
            node,
            silent,
        }
    }
}

fn problem(pod: &Pod) -> Option<Problem> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unscheduled = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    containers.iter().find_map(container_problem).or_else(|| {
        unscheduled.map(|condition| Problem {
            reason: condition.reason.clone().unwrap_or_else(|| "Unschedulable".into()),
            message: one_line(condition.message.as_deref().unwrap_or_default()),
        })
    })
}

/// A container that only just begins to wait has no problem yet.
fn container_problem(status: &ContainerStatus) -> Option<Problem> {
    const PASSING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone()?;
    if PASSING.contains(&reason.as_str()) {
        return None;
    }
    let told = waiting.message.as_deref().unwrap_or_default();
    Some(Problem {
        message: one_line(&format!("container {}: {told}", status.name)),
        reason,
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
pub struct ClaimView {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// The cluster whose data it holds, as the operator noted.
    pub cluster_id: Option<String>,
    /// What it asks for.
    pub size: Option<String>,
    /// The class that it names.
    pub class: Option<String>,
    /// Whether it waits for a volume.
    pub pending: bool,
    /// Whether it is on its way out.
    pub deleting: bool,
}

impl ClaimView {
    /// Of a claim as the API server tells it.
    pub fn new(claim: &PersistentVolumeClaim) -> Self {
        let spec = claim.spec.as_ref();
        let requests = spec
            .and_then(|spec| spec.resources.as_ref())
            .and_then(|resources| resources.requests.as_ref());
        Self {
            name: claim.name_any(),
            uid: claim.uid().unwrap_or_default(),
            cluster_id: claim.annotations().get(CLUSTER_ID).cloned(),
            size: requests
                .and_then(|requests| requests.get("storage"))
                .map(|size| size.0.clone()),
            class: spec.and_then(|spec| spec.storage_class_name.clone()),
            pending: claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending"),
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
