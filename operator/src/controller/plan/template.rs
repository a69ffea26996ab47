//! Which template pods are made from: the one asked for, unless it was seen to fail, or has to wait for its turn.

use serde_json::{Value, json};

use super::super::raft::Raft;
use super::super::view::{Observed, Origin, PodView};
use super::{Desired, Trouble};
use crate::crd::spec::RaftClusterSpec;
use crate::resources::meta::digest;
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
    /// The spec that it was made for.
    pub(super) origin: Origin,
    /// For the record.
    pub(super) good_template: Option<Value>,
    /// For the record.
    pub(super) failed: Option<FailedRollout>,
    pub(super) trouble: Option<Trouble>,
    /// A rollout that nobody asked for has begun or is to begin.
    pub(super) wants_to_roll: bool,
    /// It has begun, and it is another cluster's turn: no pod is restarted.
    pub(super) held: bool,
}

/// `wanted` is the one that is asked for.
pub(super) fn choose(wanted: Value, desired: &Desired<'_>, observed: &Observed, raft: &Raft<'_>) -> Chosen {
    let record = &observed.record;
    let set = observed.stateful_set.as_ref();
    let before = set.map(|set| set.origin.clone()).unwrap_or_default();
    let now = Origin {
        generation: desired.cluster.metadata.generation,
        asked_for: Some(asked_for(&desired.cluster.spec)),
        by_operator: before.by_operator,
    };
    // A spec that says the same about pods asks for no restart; nor does one that only another version writes differently.
    let is_asked_for =
        set.is_none() || (before.generation != now.generation && before.asked_for != now.asked_for);
    let mut chosen = Chosen {
        origin: now,
        good_template: record.good_template.clone(),
        failed: None,
        trouble: None,
        wants_to_roll: false,
        held: false,
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
        chosen.origin.by_operator = false;
        return chosen;
    };
    if let Some(failed) = failed(&wanted, observed, raft) {
        chosen.trouble = Some(Trouble {
            reason: "RolloutStopped",
            message: format!(
                "the rollout stopped, and the last template that worked is back: {}; correct the spec, and it goes on (a change \
                 of podAnnotations tries the same again)",
                failed.why
            ),
        });
        chosen.failed = Some(failed);
        chosen.template = good.clone();
        return chosen;
    }
    let rolls = set.is_some_and(|set| set.revision.as_deref() == revision(&wanted));
    if is_asked_for {
        chosen.origin.by_operator = false;
    } else if !rolls {
        chosen.origin.by_operator = true;
    }
    let others_turn = desired.turn_of.is_some();
    chosen.wants_to_roll = chosen.origin.by_operator;
    if chosen.wants_to_roll && !rolls && others_turn {
        chosen.template = good.clone();
    } else if all_run(&wanted, desired, observed, raft) {
        chosen.good_template = Some(wanted);
        chosen.wants_to_roll = false;
    } else {
        chosen.held = chosen.wants_to_roll && others_turn;
    }
    chosen
}

/// What the spec says about pods, added up: all but what they do not depend on.
fn asked_for(spec: &RaftClusterSpec) -> String {
    const ELSEWHERE: [&str; 7] = [
        "replicas",
        "paused",
        "storage",
        "service",
        "testClient",
        "podDisruptionBudget",
        "networkPolicy",
    ];
    let mut spec = json!(spec);
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|name, _| !ELSEWHERE.contains(&name.as_str()));
    }
    digest(&spec)
}

/// A rollout that failed before, or does now.
fn failed(wanted: &Value, observed: &Observed, raft: &Raft<'_>) -> Option<FailedRollout> {
    let revision = revision(wanted)?;
    let before = observed.record.failed.as_ref();
    if let Some(before) = before.filter(|before| before.revision == revision) {
        return Some(before.clone());
    }
    let (pod, why) = stuck(wanted, observed, raft)?;
    Some(FailedRollout {
        revision: revision.to_owned(),
        why: format!("pod {} did not start with the new one ({why})", pod.name),
    })
}

/// A pod of that template that had its time and does not work. One that no machine takes is waited for: machines come back.
fn stuck<'a>(template: &Value, observed: &'a Observed, raft: &Raft<'_>) -> Option<(&'a PodView, String)> {
    observed
        .pods
        .values()
        .filter(|pod| pod.revision.as_deref() == revision(template) && !pod.ready)
        .find_map(|pod| match (pod.any_problem(), &pod.node) {
            (Some(problem), _) if problem.of_container && pod.unready_seconds >= STUCK_SECONDS => {
                Some((pod, format!("{}: {}", problem.reason, problem.message)))
            }
            (None, None) if pod.started && pod.unready_seconds >= UNREADY_SECONDS => {
                Some((pod, "its node does not answer".to_owned()))
            }
            (None, Some(status)) if raft.leader.is_some() && pod.unready_seconds >= UNREADY_SECONDS => {
                let why = if pod.waits_for_state_machine_only() {
                    "its container state-machine is not ready".to_owned()
                } else {
                    format!("it is not ready: {}", status.reason)
                };
                Some((pod, why))
            }
            _ => None,
        })
}

/// All pods that are asked for are of that template, ready, and vote; and what has just begun in them does not end at once.
fn all_run(template: &Value, desired: &Desired<'_>, observed: &Observed, raft: &Raft<'_>) -> bool {
    (1..=desired.replicas()).all(|node| {
        observed.pods.get(&node).is_some_and(|pod| {
            let member = pod.node.as_ref().and_then(|status| raft.member(status.member_id));
            pod.ready
                && pod.is_settled()
                && pod.revision.as_deref() == revision(template)
                && member.is_some_and(|member| member.voter)
        })
    })
}
