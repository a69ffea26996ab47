//! One cluster's task: looks, decides, acts, tells; and again when something changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::runtime::events::EventType;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::act::{Actor, CONTESTED, StepError};
use super::api::call;
use super::cache::{Cache, Key, raft_clusters};
use super::clusters::Work;
use super::conditions::Scene;
use super::drift;
use super::events::Events;
use super::executors::Executors;
use super::expectations::{Seen, Target};
use super::failures::{Attempt, Failures};
use super::lag::Lag;
use super::metrics::{ErrorLabel, Metrics, StepLabel};
use super::missing::Missing;
use super::news;
use super::nodes::Nodes;
use super::plan::{self, Desired, Plan};
use super::raft::Raft;
use super::status;
use super::step::Step;
use super::stored::{self, Refusal};
use super::turns::Turns;
use super::view::{ClaimView, Observed, PodView, StatefulSetView, Told};
use super::waiting::Waiting;
use super::watches::CANNOT_WATCH;
use crate::crd::RaftCluster;
use crate::crd::status::{Images, RaftClusterStatus};
use crate::resources::meta::MANAGER;
use crate::resources::names::{self, PODS_MAX};
use crate::resources::record::Record;
use crate::resources::{Kind, Resource};

/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// The next look after something was done, whose effect may be seen by then.
const AFTER_STEP: Duration = Duration::from_millis(200);
/// The next look while something is waited for that nodes do not tell, such as time that passes.
const WHILE_WAITING: Duration = Duration::from_secs(1);
/// The same where there is no leader: nobody is in a hurry, and what pods and nodes tell wakes it.
const WHILE_LEADERLESS: Duration = Duration::from_secs(5);
/// The next look at a cluster where nothing is to be done: indexes move.
const WHILE_SETTLED: Duration = Duration::from_secs(10);

/// A step that was decided on a view older than this is decided upon again.
const DECIDED_WITHIN: Duration = Duration::from_secs(1);

/// Of failures: the status could not be written.
const STATUS: &str = "status";

/// Before it decides for the first time, it hears what all nodes say, or for so long that they say nothing.
const LISTENS_FIRST: Duration = Duration::from_secs(4);
/// The next look while it only listens.
const WHILE_LISTENING: Duration = Duration::from_millis(200);

/// What all clusters share.
#[derive(Clone)]
pub struct Shared {
    /// For calls.
    pub client: Client,
    /// What is there.
    pub cache: Arc<Cache>,
    /// Events.
    pub events: Events,
    /// Counters.
    pub metrics: Metrics,
    /// Images for those that name none.
    pub default_images: Images,
    /// Whose turn it is to roll out what is new in the operator.
    pub turns: Turns,
}

impl Work for Shared {
    async fn run(&self, key: Key, wake: Arc<Notify>) {
        Task::new(self.clone(), key, wake).run().await;
    }

    fn is_there(&self, key: &Key) -> bool {
        self.cache.cluster(key).is_some()
    }
}

/// The task.
pub struct Task {
    shared: Shared,
    key: Key,
    wake: Arc<Notify>,
    nodes: Nodes,
    actor: Option<Actor>,
    failures: Failures,
    missing: Missing,
    lag: Lag,
    executors: Executors,
    waiting: Waiting,
    generation: Option<i64>,
    began: Instant,
    /// Since when no leader is known.
    leaderless_since: Option<Instant>,
    strays_deleted: BTreeMap<u32, u32>,
    written: Option<(RaftClusterStatus, Instant)>,
}

impl Task {
    /// Is woken by that one.
    pub fn new(shared: Shared, key: Key, wake: Arc<Notify>) -> Self {
        Self {
            nodes: Nodes::new(Arc::clone(&wake)),
            shared,
            key,
            wake,
            actor: None,
            failures: Failures::default(),
            missing: Missing::default(),
            lag: Lag::default(),
            executors: Executors::default(),
            waiting: Waiting::default(),
            generation: None,
            began: Instant::now(),
            leaderless_since: None,
            strays_deleted: BTreeMap::new(),
            written: None,
        }
    }

    /// Until the RaftCluster is gone.
    pub async fn run(mut self) {
        while let Some(object) = self.shared.cache.cluster(&self.key) {
            self.shared.metrics.reconciliations.inc();
            let pause = self.look(&object).await;
            // Whichever is first; a wake-up in the meantime is not lost.
            let _ = tokio::time::timeout(pause, self.wake.notified()).await;
            tokio::time::sleep(GATHER).await;
        }
        self.shared.turns.give_back(&self.key);
    }

    async fn look(&mut self, object: &DynamicObject) -> Duration {
        if object.metadata.deletion_timestamp.is_some() {
            self.shared.turns.give_back(&self.key);
            self.tell_deleted(object).await;
            return WHILE_SETTLED;
        }
        // Before anything is taken from what was told: that may have been of another object of that name.
        self.begin_anew(&object.metadata);
        let before = self.last_told(stored::told(object));
        let cluster = match stored::asked(object) {
            Ok(cluster) => cluster,
            Err(refusal) => return self.refuse(object, &before, &refusal).await,
        };
        let blind = self.shared.cache.trouble();
        if let Some(why) = blind.clone().filter(|_| !self.shared.cache.is_complete()) {
            let reason = CANNOT_WATCH;
            return self.refuse(object, &before, &Refusal { reason, why }).await;
        }
        if blind.is_none() && !self.sees_what_it_wrote() {
            return WHILE_LISTENING;
        }
        let looked_at = Instant::now();
        let observed = match self.observe(&before).await {
            Ok(observed) => observed,
            Err(refusal) => return self.refuse(object, &before, &refusal).await,
        };
        let unheard = |pod: &PodView| pod.node.is_none() && !pod.silent;
        if self.began.elapsed() < LISTENS_FIRST && observed.pods.values().any(unheard) {
            return WHILE_LISTENING;
        }
        self.serve(&cluster, observed, &before, looked_at, blind.as_deref())
            .await
    }

    /// Nothing is decided on a view that is older than what was done last.
    fn sees_what_it_wrote(&mut self) -> bool {
        let (cache, Key { namespace, .. }) = (&self.shared.cache, &self.key);
        let seen = |target: &Target| match target {
            Target::Object(kind, name) => cache
                .object(*kind, namespace, name)
                .map(|object| Seen::new(&object.metadata)),
            Target::Pod(name) => cache.pod(namespace, name).map(|pod| Seen::new(&pod.metadata)),
            Target::Claim(name) => cache
                .claim(namespace, name)
                .map(|claim| Seen::new(&claim.metadata)),
        };
        let actor = self.actor.as_mut();
        actor.is_none_or(|actor| actor.expectations.are_met(Instant::now(), seen))
    }

    /// What was told last, by this process or the one before. The cache may be a moment behind.
    fn last_told(&self, cached: RaftClusterStatus) -> RaftClusterStatus {
        match &self.written {
            Some((written, at)) if at.elapsed() < WHILE_SETTLED => written.clone(),
            _ => cached,
        }
    }

    /// Another object of that name, or another spec, is not to pay for the failures of the one before.
    fn begin_anew(&mut self, metadata: &ObjectMeta) {
        let uid = metadata.uid.clone().unwrap_or_default();
        if self.actor.as_ref().is_none_or(|actor| actor.owner() != uid) {
            let actor = Actor::new(self.shared.client.clone(), self.key.namespace.clone(), uid);
            self.actor = Some(actor);
            self.written = None;
            self.strays_deleted.clear();
            self.executors = Executors::default();
            self.leaderless_since = None;
            self.failures.forget();
            self.waiting.forget();
        }
        if self.generation != metadata.generation {
            self.generation = metadata.generation;
            self.failures.forget();
            self.waiting.forget();
        }
    }

    async fn observe(&mut self, before: &RaftClusterStatus) -> Result<Observed, Refusal> {
        let now = Timestamp::now();
        let mut observed = Observed {
            told: Told {
                cluster_id: before.cluster_id.clone(),
                members: before.members.clone(),
                images: before.images.clone(),
            },
            strays_deleted: self.strays_deleted.clone(),
            ..Observed::default()
        };
        let namespace = &self.key.namespace;
        let set = self.stateful_set().await;
        let set_uid = set
            .as_ref()
            .and_then(|set| set.pointer("/metadata/uid")?.as_str());
        for node in 1..=PODS_MAX {
            let name = names::pod(&self.key.name, node);
            let mut pod = self.shared.cache.pod(namespace, &name);
            let others = |pod: &Arc<Pod>| controller(pod).is_some_and(|uid| Some(uid) != set_uid);
            if pod.as_ref().is_some_and(others) {
                observed.left_over = Some(format!(
                    "pod {name} of a StatefulSet that was deleted is gone: if its machine is lost for good, delete the pod by \
                     'kubectl delete --force'"
                ));
                pod = None;
            }
            let uid = pod.as_ref().and_then(|pod| pod.uid());
            let status = pod.as_ref().and_then(|pod| pod.status.as_ref());
            let ip = status.and_then(|status| status.pod_ip.clone());
            self.nodes.listen(node, uid.as_deref().zip(ip.as_deref()));
            if let Some(pod) = pod {
                let view = PodView::new(&pod, self.nodes.heard(node), now);
                observed.pods.insert(node, view);
            }
            let claim = self
                .shared
                .cache
                .claim(namespace, &names::claim(&self.key.name, node));
            if let Some(claim) = claim {
                let view = ClaimView::new(&claim);
                let goes = view.owners.iter().any(|(kind, uid)| match kind.as_str() {
                    "StatefulSet" => Some(uid.as_str()) != set_uid,
                    "RaftCluster" => Some(uid.as_str()) != self.actor.as_ref().map(Actor::owner),
                    _ => false,
                });
                if goes {
                    observed.left_over = Some(format!(
                        "claim {} is gone: it goes with what it was made for, which was deleted",
                        view.name
                    ));
                }
                observed.claims.insert(node, view);
            }
        }
        // Who has begun anew is a stray no more.
        self.strays_deleted.retain(|node, _| {
            let status = observed.pods.get(node).and_then(|pod| pod.node.as_ref());
            status.is_none_or(|status| status.cluster_id != 0)
        });
        observed.stateful_set = set.map(|set| StatefulSetView::new(&set));
        let due = observed.stateful_set.as_ref().map_or(0, |set| set.replicas);
        let missing = (1..=due).any(|node| !observed.pods.contains_key(&node));
        let client = &self.shared.client;
        observed.missing = self.missing.why(client, namespace, &self.key.name, missing).await;
        let name = names::record(&self.key.name);
        if let Some(record) = self.own(Kind::ConfigMap, &name) {
            observed.record = Record::parse(&record).map_err(|why| Refusal::record_damaged(&name, &why))?;
        }
        Ok(observed)
    }

    /// The StatefulSet. Without its labels it is not followed, and asked for where there are pods of one.
    async fn stateful_set(&self) -> Option<Value> {
        let Key { namespace, name } = &self.key;
        if let Some(set) = self.own(Kind::StatefulSet, name) {
            return Some(set);
        }
        let has_controller = |node| {
            let pod = self.shared.cache.pod(namespace, &names::pod(name, node));
            pod.is_some_and(|pod| controller(&pod).is_some())
        };
        if !(1..=PODS_MAX).any(has_controller) {
            return None;
        }
        let api: Api<StatefulSet> = Api::namespaced(self.shared.client.clone(), namespace);
        let found = call(api.get_opt(name)).await.ok()??;
        let owner = self.actor.as_ref().map(Actor::owner)?;
        Some(json!(found)).filter(|set| drift::is_ours(set, owner))
    }

    /// What an earlier RaftCluster of that name left says nothing of this one, nor do the pods of its StatefulSet.
    fn own(&self, kind: Kind, name: &str) -> Option<Value> {
        self.body(kind, name)
            .filter(|object| !self.is_of_predecessor(object))
    }

    fn body(&self, kind: Kind, name: &str) -> Option<Value> {
        let object = self.shared.cache.object(kind, &self.key.namespace, name)?;
        Some(json!(&*object))
    }

    async fn serve(
        &mut self,
        cluster: &RaftCluster,
        mut observed: Observed,
        before: &RaftClusterStatus,
        looked_at: Instant,
        blind: Option<&str>,
    ) -> Duration {
        let default_images = self.shared.default_images.clone();
        let mut desired = Desired {
            cluster,
            default_images: &default_images,
            turn_of: self.shared.turns.of_another(&self.key),
            fresh_cluster_id: fresh_cluster_id(),
        };
        observed.leaderless_seconds = self.leaderless_seconds(&desired, &observed);
        let observed = &observed;
        let mut plan = plan::plan(&desired, observed);
        let held_back = self.hold_back(&mut plan, observed, blind.is_some());
        if !self.takes_its_turn(cluster, &plan, observed) && plan.wants_to_roll && desired.turn_of.is_none() {
            let other = self.shared.turns.of_another(&self.key);
            desired.turn_of = Some(other.unwrap_or_else(|| "who has begun before".into()));
            plan = plan::plan(&desired, observed);
        }
        let acted = if cluster.spec.paused {
            plan.waits = None;
            plan.step = None;
            false
        } else if held_back {
            false
        } else {
            self.act(cluster, &plan, observed, looked_at).await
        };
        let raft = Raft::new(&observed.pods, desired.patience());
        let lags = self.lag.note(&observed.pods, Instant::now());
        let failing = self
            .executors
            .note(&observed.pods, before, Instant::now(), Timestamp::now())
            .clone();
        let scene = Scene {
            desired: &desired,
            observed,
            raft: &raft,
            plan: &plan,
            failures: &self.failures,
            blind,
            lags: lags.as_deref(),
            failing: &failing,
        };
        let now = status::status(&scene, before, Timestamp::now());
        let waits = plan.waits.is_some() || plan.trouble.is_some() || self.executors.is_undecided();
        let leaderless = raft.leader.is_none();
        self.tell(cluster, before, now).await;
        self.tell_what_it_waits_for(cluster, plan.waits.as_deref()).await;
        match (acted, leaderless, waits) {
            (true, _, _) => AFTER_STEP,
            (false, true, _) => WHILE_LEADERLESS,
            (false, false, true) => WHILE_WAITING,
            (false, false, false) => WHILE_SETTLED,
        }
    }

    fn leaderless_seconds(&mut self, desired: &Desired<'_>, observed: &Observed) -> u64 {
        let raft = Raft::new(&observed.pods, desired.patience());
        self.leaderless_since = match raft.leader {
            Some(_) => None,
            // Before it is formed, nobody can lead.
            None if !is_formed(observed) => None,
            None => self.leaderless_since.or_else(|| Some(Instant::now())),
        };
        self.leaderless_since.map_or(0, |since| since.elapsed().as_secs())
    }

    /// Whether it is its turn to roll out what is new in the operator. One that is paused takes none.
    fn takes_its_turn(&self, cluster: &RaftCluster, plan: &Plan, observed: &Observed) -> bool {
        let set = observed.stateful_set.as_ref();
        let has_begun = set.is_some_and(|set| set.origin.by_operator && set.revision == plan.revision);
        let turns = &self.shared.turns;
        if plan.wants_to_roll && !cluster.spec.paused {
            return turns.take(&self.key, has_begun, Instant::now());
        }
        turns.give_back(&self.key);
        false
    }

    /// Leaves nothing to do in the plan, where nothing may be done; says whether that is so.
    fn hold_back(&self, plan: &mut Plan, observed: &Observed, blind: bool) -> bool {
        let left = plan.objects.iter().find(|resource| {
            let object = self.body(resource.kind, &resource.name);
            object.is_some_and(|object| self.is_of_predecessor(&object))
        });
        let waits = left.map(|resource| {
            let Resource { kind, name, .. } = resource;
            format!("waits until {kind:?} {name} of an earlier RaftCluster of that name, which was deleted, is gone")
        });
        let waits = waits.or_else(|| {
            let left = observed.left_over.as_ref()?;
            Some(format!("waits until {left}"))
        });
        let held_back = blind || waits.is_some();
        if held_back {
            plan.step = None;
            plan.waits = waits;
            // Others need not wait for it.
            plan.wants_to_roll = false;
        }
        held_back
    }

    fn is_of_predecessor(&self, object: &Value) -> bool {
        let owner = self.actor.as_ref().map(Actor::owner);
        owner.is_some_and(|owner| drift::is_of_predecessor(object, &self.key.name, owner))
    }

    /// Objects, then chores, then the one step; says whether anything was done.
    async fn act(
        &mut self,
        cluster: &RaftCluster,
        plan: &Plan,
        observed: &Observed,
        looked_at: Instant,
    ) -> bool {
        let mut acted = false;
        let mut wanted = BTreeSet::new();
        let mut complete = true;
        for resource in &plan.objects {
            let subject = Step::Object(Box::new(resource.clone())).subject();
            wanted.insert(subject.clone());
            if !self.failures.may_try(&subject, Instant::now()) {
                complete &= self.failures.reason(&subject) == Some(CONTESTED) && !is_vital(resource.kind);
                continue;
            }
            let result = self.object(resource).await;
            complete &= match &result {
                Ok(_) => true,
                Err(StepError::Contested { .. }) => !is_vital(resource.kind),
                Err(_) => false,
            };
            let label = if resource.body.is_some() {
                "apply"
            } else {
                "remove"
            };
            acted |= self.done(cluster, label, subject, result, None).await;
        }
        let ips: BTreeMap<u32, String> = observed
            .pods
            .iter()
            .filter_map(|(node, pod)| Some((*node, pod.ip.clone()?)))
            .collect();
        // What the cluster is made of comes before what is done with it; a label waits for nothing.
        let step = plan.step.as_ref().filter(|_| complete && !acted);
        for step in plan.chores.iter().chain(step) {
            let subject = step.subject();
            wanted.insert(subject.clone());
            if plan.step.as_ref() == Some(step) && looked_at.elapsed() >= DECIDED_WITHIN {
                // Chores took long: it is decided upon again.
                acted = true;
                continue;
            }
            if self.failures.may_try(&subject, Instant::now()) {
                let result = self.step(step, &ips).await;
                if result.is_ok() {
                    self.count_strays(step, observed);
                }
                acted |= self
                    .done(cluster, step.label(), subject, result, step.event())
                    .await;
            }
        }
        self.failures
            .keep(|subject| subject == STATUS || wanted.contains(subject));
        acted
    }

    async fn object(&mut self, resource: &Resource) -> Result<bool, StepError> {
        let observed = self.body(resource.kind, &resource.name);
        match &mut self.actor {
            Some(actor) => actor.object(resource, observed.as_ref()).await,
            None => Ok(false),
        }
    }

    /// Of pods with members that were removed, deleted so that they come back as new ones.
    fn count_strays(&mut self, step: &Step, observed: &Observed) {
        let Step::DeletePod { pod, stray: true, .. } = step else {
            return;
        };
        let node = observed
            .pods
            .iter()
            .find(|(_, view)| view.name == *pod)
            .map(|(node, _)| *node);
        if let Some(node) = node {
            let count = self.strays_deleted.entry(node).or_default();
            *count = count.saturating_add(1);
        }
    }

    async fn step(&mut self, step: &Step, ips: &BTreeMap<u32, String>) -> Result<bool, StepError> {
        match &mut self.actor {
            Some(actor) => actor.act(step, ips).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Notes what came of a step; says whether it changed anything.
    async fn done(
        &mut self,
        cluster: &RaftCluster,
        label: &'static str,
        subject: String,
        result: Result<bool, StepError>,
        event: Option<(&'static str, String)>,
    ) -> bool {
        match result {
            Ok(changed) => {
                self.failures.worked(&subject);
                if changed {
                    self.shared
                        .metrics
                        .steps
                        .get_or_create(&StepLabel { step: label })
                        .inc();
                    if let Some((reason, message)) = event {
                        self.publish(cluster, EventType::Normal, reason, &message).await;
                    }
                }
                changed
            }
            Err(error) => {
                let reason = error.reason();
                let labels = ErrorLabel { step: label, reason };
                self.shared.metrics.errors.get_or_create(&labels).inc();
                let attempt = Attempt {
                    step: label,
                    reason,
                    message: error.to_string(),
                    // A view that was stale, or a budget that is used up, is news to nobody; but it is not tried at once.
                    passes: error.is_stale() || reason == "Postponed",
                };
                if self.failures.failed(subject, attempt, Instant::now()) {
                    self.publish(cluster, EventType::Warning, reason, &error.to_string())
                        .await;
                }
                false
            }
        }
    }

    /// A log line and an Event.
    async fn publish(&self, cluster: &RaftCluster, kind: EventType, reason: &str, message: &str) {
        self.publish_of(&cluster.object_ref(&()), kind, reason, message)
            .await;
    }

    async fn publish_of(&self, about: &ObjectReference, kind: EventType, reason: &str, message: &str) {
        let Key { namespace, name } = &self.key;
        match kind {
            EventType::Normal => tracing::info!("RaftCluster {namespace}/{name}: {message}"),
            EventType::Warning => tracing::warn!("RaftCluster {namespace}/{name}: {reason}: {message}"),
        }
        if let Err(error) = self.shared.events.publish(about, kind, reason, message).await {
            tracing::debug!("RaftCluster {namespace}/{name}: cannot publish an Event: {error}");
        }
    }

    /// It cannot be served as it is: that is told, and nothing is done.
    async fn refuse(
        &mut self,
        object: &DynamicObject,
        before: &RaftClusterStatus,
        refusal: &Refusal,
    ) -> Duration {
        self.shared.turns.give_back(&self.key);
        let now = status::refused(refusal, object.metadata.generation, before, Timestamp::now());
        let news = news::is_refused_anew(before, refusal);
        if self.write(object.uid(), before, now).await && news {
            let about = object.object_ref(&raft_clusters());
            self.publish_of(&about, EventType::Warning, refusal.reason, &refusal.why)
                .await;
        }
        WHILE_SETTLED
    }

    /// Of a RaftCluster that was deleted and that somebody keeps.
    async fn tell_deleted(&mut self, object: &DynamicObject) {
        let finalizers = object.metadata.finalizers.as_deref().unwrap_or_default();
        if finalizers.is_empty() {
            return;
        }
        let why = format!(
            "it was deleted, and all that it was made of goes; it stays until {} is removed from its finalizers",
            finalizers.join(", ")
        );
        let before = self.last_told(stored::told(object));
        let now = status::deleted(&why, &before, Timestamp::now());
        self.write(object.uid(), &before, now).await;
    }

    /// An Event, once a wait has lasted.
    async fn tell_what_it_waits_for(&mut self, cluster: &RaftCluster, waits: Option<&str>) {
        if let Some(waits) = self.waiting.note(waits, Instant::now()) {
            self.publish(cluster, EventType::Normal, "Waiting", &waits).await;
        }
    }

    /// Writes the status where that is due, and says what became true or false.
    async fn tell(&mut self, cluster: &RaftCluster, before: &RaftClusterStatus, now: RaftClusterStatus) {
        let news = news::news(before, &now);
        if self.write(cluster.uid(), before, now).await {
            for (kind, reason, message) in news {
                self.publish(cluster, kind, &reason, &message).await;
            }
        }
    }

    /// Says whether it was written.
    async fn write(
        &mut self,
        uid: Option<String>,
        before: &RaftClusterStatus,
        now: RaftClusterStatus,
    ) -> bool {
        let at = Instant::now();
        let written_at = self.written.as_ref().map(|(_, at)| *at);
        if !status::is_due(before, &now, written_at, at) || !self.failures.may_try(STATUS, at) {
            return false;
        }
        let resource = raft_clusters();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.shared.client.clone(), &self.key.namespace, &resource);
        let body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": self.key.name, "uid": uid},
            "status": now,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        match call(api.patch_status(&self.key.name, &parameters, &Patch::Apply(&body))).await {
            Ok(_) => {
                self.failures.worked(STATUS);
                self.written = Some((now, at));
                true
            }
            Err(error) => {
                let message = format!(
                    "cannot write the status of {}/{}: {error}",
                    self.key.namespace, self.key.name
                );
                let attempt = Attempt {
                    step: STATUS,
                    reason: "StatusFailed",
                    message: message.clone(),
                    passes: error.is_stale(),
                };
                if self.failures.failed(STATUS.into(), attempt, at) {
                    tracing::warn!("{message}");
                }
                false
            }
        }
    }
}

/// Nothing is done with pods while these are not as they have to be.
fn is_vital(kind: Kind) -> bool {
    matches!(kind, Kind::StatefulSet | Kind::ConfigMap)
}

/// Somebody belongs to the cluster, or did.
fn is_formed(observed: &Observed) -> bool {
    let mut nodes = observed.pods.values().filter_map(|pod| pod.node.as_ref());
    !observed.told.members.is_empty() || nodes.any(|status| status.cluster_id != 0)
}

/// The identity of what made it.
fn controller(pod: &Pod) -> Option<&str> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true));
    controller.map(|owner| owner.uid.as_str())
}

fn fresh_cluster_id() -> u64 {
    rand::random_range(1..=u64::MAX)
}
