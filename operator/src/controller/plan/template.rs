//! Which template pods are made from: the one asked for, unless it was seen to fail, or has to wait for its turn.

use serde_json::Value;

use super::super::raft::Raft;
use super::super::view::{Observed, PodView};
use super::{Desired, Trouble};
use crate::resources::pod::revision;
use crate::resources::record::FailedRollout;

/// A pod whose image or container does not start has so long before the rollout stops.
const STUCK_SECONDS: i64 = 30;
/// A pod that runs and does not become ready has so long.
const UNREADY_SECONDS: i64 = 600;

/// The template, and why it is this one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    pub(super) template: Value,
    /// The generation of the spec that it was made for.
    pub(super) generation: Option<i64>,
    /// For the record.
    pub(super) good_template: Option<Value>,
    /// For the record.
    pub(super) failed: Option<FailedRollout>,
    pub(super) trouble: Option<Trouble>,
    pub(super) wants_to_roll: bool,
}

/// `wanted` is the one that is asked for.
pub(super) fn choose(wanted: Value, desired: &Desired<'_>, observed: &Observed, raft: &Raft<'_>) -> Chosen {
    let generation = desired.cluster.metadata.generation;
    let record = &observed.record;
    let mut chosen = Chosen {
        generation,
        good_template: record.good_template.clone(),
        failed: None,
        trouble: None,
        wants_to_roll: false,
        template: wanted.clone(),
    };
    let Some(good) = record
        .good_template
        .as_ref()
        .filter(|good| revision(good) != revision(&wanted))
    else {
        if all_run(&wanted, desired, observed, raft) {
            chosen.good_template = Some(wanted);
        }
        return chosen;
    };
    if let Some(failed) = failed(&wanted, observed) {
        chosen.trouble = Some(Trouble {
            reason: "RolloutStopped",
            message: format!(
                "the rollout stopped, and the last template that worked is back: {}; correct the spec, and it goes on",
                failed.why
            ),
        });
        chosen.failed = Some(failed);
        chosen.template = good.clone();
        return chosen;
    }
    let set = observed.stateful_set.as_ref();
    let rolls = set.is_some_and(|set| set.revision.as_deref() == revision(&wanted));
    let asked_for = set.is_none_or(|set| set.generation != generation);
    chosen.wants_to_roll = !asked_for || (rolls && !desired.may_roll);
    if !rolls && !asked_for && !desired.may_roll {
        chosen.template = good.clone();
    } else if all_run(&wanted, desired, observed, raft) {
        chosen.good_template = Some(wanted);
        chosen.wants_to_roll = false;
    }
    chosen
}

/// A rollout that failed before, or does now.
fn failed(wanted: &Value, observed: &Observed) -> Option<FailedRollout> {
    let revision = revision(wanted)?;
    let before = observed.record.failed.as_ref();
    if let Some(before) = before.filter(|before| before.revision == revision) {
        return Some(before.clone());
    }
    let (pod, why) = stuck(wanted, observed)?;
    Some(FailedRollout {
        revision: revision.to_owned(),
        why: format!("pod {} did not start with the new one ({why})", pod.name),
    })
}

/// A pod of that template that had its time and does not work.
fn stuck<'a>(template: &Value, observed: &'a Observed) -> Option<(&'a PodView, String)> {
    observed
        .pods
        .values()
        .filter(|pod| pod.revision.as_deref() == revision(template) && !pod.ready)
        .find_map(|pod| match &pod.problem {
            Some(problem) if pod.age_seconds >= STUCK_SECONDS => {
                Some((pod, format!("{}: {}", problem.reason, problem.message)))
            }
            None if pod.age_seconds >= UNREADY_SECONDS && pod.node.is_none() => {
                Some((pod, "its node does not answer".to_owned()))
            }
            _ => None,
        })
}

/// All pods that are asked for are of that template, ready, and vote.
fn all_run(template: &Value, desired: &Desired<'_>, observed: &Observed, raft: &Raft<'_>) -> bool {
    (1..=desired.replicas()).all(|node| {
        observed.pods.get(&node).is_some_and(|pod| {
            let member = pod.node.as_ref().and_then(|status| raft.member(status.member_id));
            pod.ready
                && pod.revision.as_deref() == revision(template)
                && member.is_some_and(|member| member.voter)
        })
    })
}
