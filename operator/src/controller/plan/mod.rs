//! What to do next: a pure function of what is asked for and what there is. Each file is one rule.

mod claims;
mod formation;
mod labels;
mod members;
mod quorum;
mod reachable;
mod restart;
mod size;
mod template;

use std::time::Duration;

use serde_json::{Value, json};

use super::raft::Raft;
use super::step::Step;
use super::view::{Observed, Origin};
use crate::crd::RaftCluster;
use crate::crd::status::Images;
use crate::resources::{self, Resource, pod, record::Record, stateful_set};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Desired<'a> {
    /// The object.
    pub cluster: &'a RaftCluster,
    /// The images of the operator's choice, where the object names none.
    pub default_images: &'a Images,
    /// The cluster whose turn it is to roll out what is new in the operator itself, if that is another one.
    pub turn_of: Option<String>,
    /// For a cluster that is formed now: random, not 0.
    pub fresh_cluster_id: u64,
}

impl Desired<'_> {
    /// Nodes that are to vote.
    pub fn replicas(&self) -> u32 {
        u32::try_from(self.cluster.spec.replicas).unwrap_or(1)
    }

    /// The images that it runs: what the spec names, or else what was chosen before, or else the operator's choice.
    pub fn images(&self, observed: &Observed) -> Images {
        let asked = &self.cluster.spec.image;
        let chosen = self.chosen(observed);
        Images {
            node: asked.node.clone().unwrap_or(chosen.node),
            replicator: asked.replicator.clone().unwrap_or(chosen.replicator),
        }
    }

    /// The operator's choice, made once: as it was recorded, or else as it was told, where the record was lost.
    fn chosen(&self, observed: &Observed) -> Images {
        let (recorded, told) = (&observed.record.default_images, &observed.told.images);
        let choose = |candidates: [&String; 3]| {
            let first = candidates.into_iter().find(|image| !image.is_empty());
            first.cloned().unwrap_or_default()
        };
        Images {
            node: choose([&recorded.node, &told.node, &self.default_images.node]),
            replicator: choose([
                &recorded.replicator,
                &told.replicator,
                &self.default_images.replicator,
            ]),
        }
    }

    /// A leader takes a member for gone that does not answer for so long.
    pub fn patience(&self) -> Duration {
        const DEFAULT: Duration = Duration::from_secs(3);
        let max = self.cluster.spec.raft.election_timeout.max.parse();
        max.unwrap_or(DEFAULT).max(Duration::from_secs(1))
    }
}

/// Something that people should know while it is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Such as `RolloutStopped`.
    pub reason: &'static str,
    /// What, and the way out.
    pub message: String,
}

/// What to do, and what to tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Objects as they have to be; those that are so already cost nothing.
    pub objects: Vec<Resource>,
    /// What is done in any order, without a risk.
    pub chores: Vec<Step>,
    /// The one thing that changes the cluster itself, once objects and chores are done.
    pub step: Option<Step>,
    /// What it waits for, where there is more to do.
    pub waits: Option<String>,
    /// What is wrong.
    pub trouble: Option<Trouble>,
    /// The revision that pods have to have.
    pub revision: Option<String>,
    /// A rollout that nobody asked for wants its turn.
    pub wants_to_roll: bool,
}

/// What one rule says.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    /// This is next.
    Do(Step),
    /// Nothing may be done before that.
    Wait(String),
    /// It has nothing to say.
    Pass,
}

impl Verdict {
    /// The next rule's word, where this one has nothing to say.
    fn or_else(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Pass => next(),
            said => said,
        }
    }
}

/// What to do next.
pub fn plan(desired: &Desired<'_>, observed: &Observed) -> Plan {
    let raft = Raft::new(&observed.pods, desired.patience());
    let images = desired.images(observed);
    let wanted = pod::template(desired.cluster, &images);
    let chosen = template::choose(wanted, desired, observed, &raft);
    let replicas = size::pods(desired, observed, &raft);
    let danger = formation::mixed(observed, &raft).or_else(|| formation::data_lost(observed, replicas));
    let mut plan = Plan {
        objects: resources::around(
            desired.cluster,
            &images,
            reachable::unready_too(desired, observed),
        ),
        chores: labels::labels(desired, observed, &raft),
        revision: pod::revision(&chosen.template).map(str::to_owned),
        wants_to_roll: chosen.wants_to_roll,
        trouble: danger
            .clone()
            .or_else(|| quorum::lost(observed, &raft))
            .or(chosen.trouble)
            .or_else(|| members::stray_trouble(desired, observed, &raft)),
        ..Plan::default()
    };
    plan.chores.extend(claims::claims(desired, observed, &raft));
    let mut record = Record {
        default_images: desired.chosen(observed),
        good_template: chosen.good_template,
        failed: chosen.failed,
        ..observed.record.clone()
    };
    // Whose data are to be kept, people have to say before anybody is told to belong to a cluster.
    let formed = match &danger {
        Some(_) if raft.leader.is_some() => Verdict::Pass,
        Some(trouble) => Verdict::Wait(trouble.message.clone()),
        None => {
            let (formation, verdict) = formation::form(desired, observed, &raft, replicas);
            record.formation = formation;
            verdict
        }
    };
    plan.objects.push(record.resource(desired.cluster));
    plan.objects.push(pods(
        desired,
        observed,
        &chosen.template,
        replicas,
        &chosen.origin,
    ));
    // What is remembered must be so before it is acted upon.
    if record != observed.record {
        plan.waits = Some("waits until what it decided is recorded".into());
        return plan;
    }
    // Nobody is restarted for a template that the StatefulSet does not have, nor while it is not known whose data are to be kept.
    let applied = observed
        .stateful_set
        .as_ref()
        .is_some_and(|set| set.revision == plan.revision);
    let in_danger = danger.is_some() && raft.leader.is_none();
    let restarts = Some(plan.revision.as_deref()).filter(|_| applied && !chosen.held && !in_danger);
    let idle = restarts.map_or(Verdict::Pass, |revision| restart::idle(revision, observed, &raft));
    let verdict = idle
        .or_else(|| formed)
        .or_else(|| members::change(desired, observed, &raft))
        .or_else(|| restarts.map_or(Verdict::Pass, |revision| restart::next(revision, observed, &raft)));
    match verdict {
        Verdict::Do(step) => plan.step = Some(step),
        Verdict::Wait(why) => plan.waits = Some(why),
        Verdict::Pass => {}
    }
    plan
}

/// The StatefulSet, with the template that was chosen.
fn pods(
    desired: &Desired<'_>,
    observed: &Observed,
    template: &Value,
    replicas: u32,
    origin: &Origin,
) -> Resource {
    let spec = &desired.cluster.spec;
    // What claims ask for at first cannot be changed in a StatefulSet.
    let size = observed.stateful_set.as_ref().and_then(|set| set.size.as_deref());
    let size = size.unwrap_or(&spec.storage.size);
    let mut resource = stateful_set::build(desired.cluster, template, replicas, size);
    if let Some(body) = &mut resource.body {
        body["metadata"]["annotations"] = json!(origin.annotations());
    }
    resource
}

#[cfg(test)]
pub(crate) mod tests;
