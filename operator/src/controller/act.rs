//! Carries out steps: over the API server, and over gRPC at nodes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{DynamicObject, NamespaceResourceScope};
use kube::{Api, Client};
use raftlog_proto::v1::cluster_client::ClusterClient;
use raftlog_proto::v1::{BootstrapRequest, ChangeMembershipRequest, TransferLeadershipRequest};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use super::api::{CallError, call};
use super::drift::{self, Applied, Verdict};
use super::expectations::{Expectations, Target};
use super::nodes;
use super::step::Step;
use crate::resources::meta::{APPLIED, CLUSTER_ID, KEPT, MANAGER, ROLE, digest};
use crate::resources::names::{self, PODS_MAX};
use crate::resources::{Kind, Resource};

/// Somebody who undoes the same repair this often, each time within so long, is not repaired against for a while.
const REPAIRS_MAX: u32 = 3;
const REPAIRS_WITHIN: Duration = Duration::from_mins(1);

/// How long a node may take: a change is complete, or a successor leads, within an election timeout or two.
const NODE_MAX: Duration = Duration::from_secs(15);

/// A step that did not work. One line each: what, and what to do.
#[derive(Debug, Error)]
pub enum StepError {
    /// The API server said no, or nothing.
    #[error("{what}: {source}")]
    Call {
        /// What was tried.
        what: String,
        /// Why it did not work.
        source: CallError,
    },
    /// There is an object of that name which is not the cluster's.
    #[error(
        "{what} is there already and belongs to somebody else: rename or delete it, or give the RaftCluster another name"
    )]
    Foreign {
        /// Which.
        what: String,
    },
    /// A node said no, or nothing.
    #[error("{what}: {why}")]
    Node {
        /// What was tried.
        what: String,
        /// Why it did not work.
        why: String,
    },
    /// What is written is undone again and again.
    #[error(
        "{what} is changed by somebody else each time that it is put right: find them with `kubectl get --show-managed-fields`, and \
         stop them or change the spec"
    )]
    Contested {
        /// Which.
        what: String,
    },
    /// The pod that it is about has no address any more.
    #[error("{what}: its pod has no address")]
    NoAddress {
        /// What was tried.
        what: String,
    },
}

impl StepError {
    /// Reason in conditions and Events, and label in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Call { source, .. } => match source.code() {
                Some(401 | 403) => "Forbidden",
                Some(422 | 400) => "Refused",
                Some(429) => "Postponed",
                Some(_) => "CallFailed",
                None => "Unreachable",
            },
            Self::Foreign { .. } => "NameTaken",
            Self::Contested { .. } => CONTESTED,
            Self::Node { .. } | Self::NoAddress { .. } => "NodeRefused",
        }
    }

    /// What was decided on is not so any more, and is decided again.
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Call { source, .. } => source.is_stale(),
            Self::NoAddress { .. } => true,
            Self::Foreign { .. } | Self::Contested { .. } | Self::Node { .. } => false,
        }
    }
}

/// Reason where what is written is undone again and again.
pub const CONTESTED: &str = "Contested";

/// Acts for one RaftCluster.
pub struct Actor {
    client: Client,
    namespace: String,
    owner: String,
    applied: BTreeMap<(Kind, String), Applied>,
    repairs: BTreeMap<(Kind, String), (u32, Instant)>,
    /// What the view has to show before the next decision.
    pub expectations: Expectations,
}

impl Actor {
    /// For the RaftCluster of that identity.
    pub fn new(client: Client, namespace: String, owner: String) -> Self {
        Self {
            client,
            namespace,
            owner,
            applied: BTreeMap::new(),
            repairs: BTreeMap::new(),
            expectations: Expectations::default(),
        }
    }

    /// The identity of the RaftCluster.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    fn objects(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.api())
    }

    /// Makes the object as it has to be; says whether anything was written.
    pub async fn object(&mut self, resource: &Resource, observed: Option<&Value>) -> Result<bool, StepError> {
        let key = (resource.kind, resource.name.clone());
        match drift::verdict(resource, observed, &self.owner, self.applied.get(&key)) {
            Verdict::Keep => Ok(false),
            Verdict::Foreign => Err(foreign(resource)),
            Verdict::Remove => self.remove(resource, observed).await.map(|()| true),
            Verdict::Apply if observed.is_some() && self.is_contested(&key, resource, Instant::now()) => {
                Err(StepError::Contested {
                    what: named(resource),
                })
            }
            Verdict::Apply => {
                if observed.is_none() {
                    self.check_name(resource).await?;
                }
                let result = self.apply(resource, observed).await?;
                let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
                let changed = observed.and_then(version) != version(&result);
                let target = Target::Object(resource.kind, resource.name.clone());
                self.expectations.wrote(
                    target,
                    version(&result).as_ref().and_then(Value::as_str),
                    Instant::now(),
                );
                if let Some(body) = &resource.body {
                    self.applied.insert(key, Applied::new(body, &result));
                }
                Ok(changed)
            }
        }
    }

    /// Whether the very same was put right too often of late.
    fn is_contested(&mut self, key: &(Kind, String), resource: &Resource, now: Instant) -> bool {
        let before = self.applied.get(key).zip(resource.body.as_ref());
        if !before.is_some_and(|(applied, body)| applied.is_of(body)) {
            return false;
        }
        let (count, at) = self.repairs.entry(key.clone()).or_insert((0, now));
        if now.saturating_duration_since(*at) >= REPAIRS_WITHIN {
            *count = 0;
        }
        *at = now;
        *count = count.saturating_add(1);
        *count > REPAIRS_MAX
    }

    /// What is watched are the operator's own objects: another one of that name is seen only when asked for.
    async fn check_name(&self, resource: &Resource) -> Result<(), StepError> {
        let api = self.objects(resource.kind);
        let there = call(api.get_opt(&resource.name)).await;
        let there = there.map_err(|source| failed("look for", resource, source))?;
        match there {
            Some(object) if !drift::is_ours(&json!(object), &self.owner) => Err(foreign(resource)),
            _ if resource.kind == Kind::StatefulSet => self.check_claims(resource).await,
            _ => Ok(()),
        }
    }

    /// A StatefulSet takes every claim of its names for its own, whoever made it.
    async fn check_claims(&self, resource: &Resource) -> Result<(), StepError> {
        let body = resource.body.as_ref();
        let wanted = body.and_then(|body| body.pointer("/spec/volumeClaimTemplates/0/metadata/labels"));
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &self.namespace);
        for node in 1..=PODS_MAX {
            let name = names::claim(&resource.name, node);
            let claim = call(api.get_metadata_opt(&name)).await;
            let claim = claim.map_err(|source| failed("look for the claims of", resource, source))?;
            let labels = claim.map(|claim| json!(claim.metadata.labels));
            if labels.is_some_and(|labels| !wanted.is_some_and(|wanted| drift::contains(&labels, wanted))) {
                return Err(StepError::Foreign {
                    what: format!("PersistentVolumeClaim {name}"),
                });
            }
        }
        Ok(())
    }

    async fn apply(&self, resource: &Resource, observed: Option<&Value>) -> Result<Value, StepError> {
        let mut body = resource.body.clone().unwrap_or_default();
        body["metadata"]["annotations"][APPLIED] = json!(digest(&body));
        // If another one has taken its place by now, this is not about that.
        if let Some(uid) = observed.and_then(|observed| observed.pointer("/metadata/uid")) {
            body["metadata"]["uid"] = uid.clone();
        }
        let api = self.objects(resource.kind);
        if resource.kind == Kind::ConfigMap {
            // What is remembered is replaced only as it was seen, and made only where there is none: two operators at once would
            // form two clusters.
            return self.record(&api, resource, observed, body).await;
        }
        let parameters = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&body);
        let mut applied = call(api.patch(&resource.name, &parameters, &patch)).await;
        if observed.is_some() && is_refused(&applied) && resource.kind == Kind::Service {
            // Ports that somebody else wrote stay in a list that is applied, and may contradict ours.
            let ports = json!({"metadata": {"uid": body["metadata"]["uid"]}, "spec": {"ports": body["spec"]["ports"]}});
            let merged = call(api.patch(&resource.name, &plain(), &Patch::Merge(&ports))).await;
            merged.map_err(|source| failed("repair", resource, source))?;
            applied = call(api.patch(&resource.name, &parameters, &patch)).await;
        }
        let applied = applied.map_err(|source| failed("apply", resource, source))?;
        Ok(as_cached(&applied))
    }

    async fn record(
        &self,
        api: &Api<DynamicObject>,
        resource: &Resource,
        observed: Option<&Value>,
        mut body: Value,
    ) -> Result<Value, StepError> {
        let written = if let Some(observed) = observed {
            body["metadata"]["resourceVersion"] = observed["metadata"]["resourceVersion"].clone();
            let parameters = PatchParams::apply(MANAGER).force();
            call(api.patch(&resource.name, &parameters, &Patch::Apply(&body))).await
        } else {
            let object = serde_json::from_value(body.clone()).map_err(|error| StepError::Node {
                what: format!("cannot make {}", named(resource)),
                why: error.to_string(),
            })?;
            let parameters = PostParams {
                field_manager: Some(MANAGER.into()),
                ..PostParams::default()
            };
            match call(api.create(&parameters, &object)).await {
                Err(source) if source.code() == Some(409) => {
                    return self.follow_again(api, resource, &body, source).await;
                }
                made => made,
            }
        };
        let written = written.map_err(|source| failed("write", resource, source))?;
        Ok(as_cached(&written))
    }

    /// What nobody made since it was looked for is there without its labels, and so not followed.
    async fn follow_again(
        &self,
        api: &Api<DynamicObject>,
        resource: &Resource,
        body: &Value,
        conflict: CallError,
    ) -> Result<Value, StepError> {
        let there = call(api.get(&resource.name)).await;
        let there = there.map_err(|source| failed("look for", resource, source))?;
        if !drift::is_ours(&json!(there), &self.owner) {
            return Err(failed("write", resource, conflict));
        }
        let labels = json!({"metadata": {"uid": there.metadata.uid, "labels": body["metadata"]["labels"]}});
        let labelled = call(api.patch(&resource.name, &plain(), &Patch::Merge(&labels))).await;
        let labelled = labelled.map_err(|source| failed("repair", resource, source))?;
        Ok(as_cached(&labelled))
    }

    async fn remove(&mut self, resource: &Resource, observed: Option<&Value>) -> Result<(), StepError> {
        let uid = observed.and_then(|observed| observed.pointer("/metadata/uid")?.as_str());
        let parameters = DeleteParams::background().preconditions(only(uid.unwrap_or_default()));
        let removed = call(self.objects(resource.kind).delete(&resource.name, &parameters)).await;
        removed.map_err(|source| failed("delete", resource, source))?;
        let target = Target::Object(resource.kind, resource.name.clone());
        self.expectations
            .deleted(target, uid.unwrap_or_default(), Instant::now());
        Ok(())
    }

    /// Does anything else. `ips` says where the pods of node numbers are.
    pub async fn act(&mut self, step: &Step, ips: &BTreeMap<u32, String>) -> Result<(), StepError> {
        let what = step.subject();
        let called = |source| StepError::Call {
            what: what.clone(),
            source,
        };
        match step {
            Step::Object(_) => Ok(()),
            Step::Label {
                pod,
                uid,
                role,
                selector,
            } => self.label(pod, uid, role, selector).await.map_err(called),
            Step::AnnotateClaim {
                claim,
                uid,
                cluster_id,
            } => {
                let change = json!({"metadata": {"uid": uid, "annotations": {CLUSTER_ID: cluster_id}}});
                self.patch_claim(claim, &change).await.map_err(called)
            }
            Step::KeepClaim { claim, uid, kept } => {
                let value = kept.then_some("true");
                let change = json!({"metadata": {"uid": uid, "annotations": {KEPT: value}}});
                self.patch_claim(claim, &change).await.map_err(called)
            }
            Step::OwnClaim { claim, uid, owner } => {
                self.own_claim(claim, uid, owner.as_ref()).await.map_err(called)
            }
            Step::GrowClaim { claim, uid, size } => {
                let change = json!({
                    "metadata": {"uid": uid},
                    "spec": {"resources": {"requests": {"storage": size}}},
                });
                self.patch_claim(claim, &change).await.map_err(called)
            }
            Step::DeleteClaim { claim, uid } => {
                let target = Target::Claim(claim.clone());
                self.delete::<PersistentVolumeClaim>(claim, uid, target)
                    .await
                    .map_err(called)
            }
            Step::DeletePod { pod, uid, .. } => {
                let target = Target::Pod(pod.clone());
                self.delete::<Pod>(pod, uid, target).await.map_err(called)
            }
            Step::EvictPod { pod, uid, .. } => self.evict_pod(pod, uid).await.map_err(called),
            Step::Bootstrap { node, request } => bootstrap(ip(ips, *node, &what)?, request, &what).await,
            Step::ChangeMembership { leader, request, .. } => {
                change_membership(ip(ips, *leader, &what)?, request, &what).await
            }
            Step::Transfer { leader, to, .. } => transfer(ip(ips, *leader, &what)?, *to, &what).await,
        }
    }

    async fn label(
        &mut self,
        pod: &str,
        uid: &str,
        role: &str,
        selector: &BTreeMap<String, String>,
    ) -> Result<(), CallError> {
        let mut body = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "uid": uid, "labels": selector},
        });
        body["metadata"]["labels"][ROLE] = json!(role);
        let parameters = PatchParams::apply(MANAGER).force();
        self.patch::<Pod>(
            pod,
            Target::Pod(pod.to_owned()),
            &parameters,
            &Patch::Apply(&body),
        )
        .await
    }

    /// Other owners stay.
    async fn own_claim(&mut self, claim: &str, uid: &str, owner: Option<&Value>) -> Result<(), CallError> {
        let body = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "uid": uid, "ownerReferences": owner.into_iter().collect::<Vec<_>>()},
        });
        let (target, parameters) = (
            Target::Claim(claim.to_owned()),
            PatchParams::apply(MANAGER).force(),
        );
        self.patch::<PersistentVolumeClaim>(claim, target, &parameters, &Patch::Apply(&body))
            .await
    }

    async fn patch_claim(&mut self, claim: &str, change: &Value) -> Result<(), CallError> {
        let target = Target::Claim(claim.to_owned());
        self.patch::<PersistentVolumeClaim>(claim, target, &plain(), &Patch::Merge(change))
            .await
    }

    async fn patch<K>(
        &mut self,
        name: &str,
        target: Target,
        parameters: &PatchParams,
        patch: &Patch<&Value>,
    ) -> Result<(), CallError>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let patched = call(api.patch_metadata(name, parameters, patch)).await?;
        let version = patched.metadata.resource_version.as_deref();
        self.expectations.wrote(target, version, Instant::now());
        Ok(())
    }

    async fn delete<K>(&mut self, name: &str, uid: &str, target: Target) -> Result<(), CallError>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = DeleteParams::default().preconditions(only(uid));
        call(api.delete(name, &parameters)).await?;
        self.expectations.deleted(target, uid, Instant::now());
        Ok(())
    }

    async fn evict_pod(&mut self, pod: &str, uid: &str) -> Result<(), CallError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = EvictParams {
            delete_options: Some(DeleteParams::default().preconditions(only(uid))),
            ..EvictParams::default()
        };
        call(api.evict(pod, &parameters)).await?;
        self.expectations
            .deleted(Target::Pod(pod.to_owned()), uid, Instant::now());
        Ok(())
    }
}

/// Of a patch that replaces what it names.
fn plain() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    }
}

fn is_refused<T>(answer: &Result<T, CallError>) -> bool {
    answer.as_ref().is_err_and(|error| error.code() == Some(422))
}

fn only(uid: &str) -> Preconditions {
    Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    }
}

fn named(resource: &Resource) -> String {
    format!("{:?} {}", resource.kind, resource.name)
}

/// As the cache keeps objects.
fn as_cached(object: &DynamicObject) -> Value {
    let mut object = json!(object);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

fn foreign(resource: &Resource) -> StepError {
    StepError::Foreign {
        what: named(resource),
    }
}

fn failed(verb: &str, resource: &Resource, source: CallError) -> StepError {
    StepError::Call {
        what: format!("cannot {verb} {}", named(resource)),
        source,
    }
}

fn ip<'a>(ips: &'a BTreeMap<u32, String>, node: u32, what: &str) -> Result<&'a str, StepError> {
    let ip = ips.get(&node).map(String::as_str);
    ip.ok_or_else(|| StepError::NoAddress {
        what: what.to_owned(),
    })
}

async fn bootstrap(ip: &str, request: &BootstrapRequest, what: &str) -> Result<(), StepError> {
    at_node(ip, what, async |mut client, _| {
        client.bootstrap(request.clone()).await.map(drop)
    })
    .await
}

async fn change_membership(ip: &str, request: &ChangeMembershipRequest, what: &str) -> Result<(), StepError> {
    at_node(ip, what, async |mut client, within| {
        let mut request = tonic::Request::new(request.clone());
        request.set_timeout(within);
        client.change_membership(request).await.map(drop)
    })
    .await
}

async fn transfer(ip: &str, to: u32, what: &str) -> Result<(), StepError> {
    at_node(ip, what, async |mut client, within| {
        let mut request = tonic::Request::new(TransferLeadershipRequest { node: to });
        request.set_timeout(within);
        client.transfer_leadership(request).await.map(drop)
    })
    .await
}

async fn at_node(
    ip: &str,
    what: &str,
    ask: impl AsyncFnOnce(ClusterClient<tonic::transport::Channel>, Duration) -> Result<(), tonic::Status>,
) -> Result<(), StepError> {
    let refused = |why: String| StepError::Node {
        what: what.to_owned(),
        why,
    };
    let asked = async {
        let channel = nodes::connect(ip).await.map_err(refused)?;
        let answer = ask(ClusterClient::new(channel), NODE_MAX).await;
        answer.map_err(|status| refused(status.message().to_owned()))
    };
    match tokio::time::timeout(NODE_MAX, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(refused(format!("no answer within {} s", NODE_MAX.as_secs()))),
    }
}
