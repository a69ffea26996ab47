//! Pods that were made from another template are made anew, in an order that never costs the quorum: who does not vote at
//! once, who is not ready directly, who is ready by eviction, the leader last.

use super::super::raft::Raft;
use super::super::step::Step;
use super::super::view::{Observed, PodView};
use super::Verdict;

/// A pod that is not ready for so long is not only late with a probe.
const UNREADY_SECONDS: i64 = 10;
/// Nodes that all answer and elect nobody for so long may need the template that is asked for.
const ELECTED_WITHIN_SECONDS: u64 = 60;

/// Outdated pods that do not vote are in nobody's way.
pub(super) fn idle(revision: Option<&str>, observed: &Observed, raft: &Raft<'_>) -> Verdict {
    if raft.is_changing() {
        // Voters of the configuration before still count.
        return Verdict::Pass;
    }
    let mut outdated = outdated(revision, observed).rev();
    let idle = outdated.clone().find(|(node, pod)| !votes(*node, pod, raft));
    if let Some((_, pod)) = idle {
        return delete(pod, "its template is outdated, and it does not vote");
    }
    // Such as with election timeouts that cannot work: one after the other gets others, until somebody is elected.
    let wanted = observed.stateful_set.as_ref().map_or(0, |set| set.replicas);
    let all_answer = (1..=wanted).all(|node| observed.pods.get(&node).is_some_and(had_its_chance));
    let in_vain = raft.leader.is_none() && observed.leaderless_seconds >= ELECTED_WITHIN_SECONDS;
    match outdated.next().filter(|_| in_vain && all_answer) {
        Some((_, pod)) => delete(
            pod,
            "its template is outdated, and all nodes answer and elect nobody",
        ),
        None => Verdict::Pass,
    }
}

/// It answers, and had the time for an election since it was made.
fn had_its_chance(pod: &PodView) -> bool {
    pod.node.is_some() && !pod.deleting && pod.age_seconds.unsigned_abs() >= ELECTED_WITHIN_SECONDS
}

pub(super) fn next(revision: Option<&str>, observed: &Observed, raft: &Raft<'_>) -> Verdict {
    let outdated = || outdated(revision, observed);
    // The highest ordinal first, as a StatefulSet does.
    let Some((_, pod)) = outdated().next_back() else {
        return Verdict::Pass;
    };
    if raft.leader.is_none() {
        return Verdict::Wait(format!(
            "waits with the restart of {} until there is a leader",
            pod.name
        ));
    }
    if let Some(voter) = going(observed, raft) {
        return Verdict::Wait(format!(
            "waits with the restart of {} until the pod of node {voter} is back",
            pod.name
        ));
    }
    if let Some((node, unready)) = outdated().rev().find(|(_, pod)| !pod.ready) {
        return match raft.voter_of(node) {
            Some(_) if unready.unready_seconds < UNREADY_SECONDS => Verdict::Wait(format!(
                "waits whether {} becomes ready before it is restarted",
                unready.name
            )),
            // Without a single voter there is no quorum, whenever it restarts.
            Some(voter) if is_single(raft) || raft.keeps_quorum_without(voter.member_id) => {
                delete(unready, "its template is outdated, and it is not ready")
            }
            _ => Verdict::Wait(format!(
                "waits with the restart of {}: the others would have no quorum without it",
                unready.name
            )),
        };
    }
    if let Some(late) = late(observed, raft) {
        return Verdict::Wait(format!("waits with the restart of {} until {late}", pod.name));
    }
    let leads = |node: u32| raft.leader.is_some_and(|(leader, _)| leader == node);
    match outdated().rev().find(|(node, _)| !leads(*node)) {
        Some((_, follower)) => evict(follower),
        None => restart_leader(pod, observed, raft),
    }
}

fn outdated<'a>(
    revision: Option<&str>,
    observed: &'a Observed,
) -> impl DoubleEndedIterator<Item = (u32, &'a PodView)> + Clone {
    let pods = observed.pods.iter().filter(|(_, pod)| !pod.deleting);
    pods.filter(move |(_, pod)| pod.revision.as_deref() != revision)
        .map(|(node, pod)| (*node, pod))
}

/// The node of a voter whose pod is about to go or has gone: its connections may live a moment longer.
fn going(observed: &Observed, raft: &Raft<'_>) -> Option<u32> {
    let gone = |node: u32| observed.pods.get(&node).is_none_or(|pod| pod.deleting);
    raft.voters().map(|voter| voter.node).find(|node| gone(*node))
}

/// Whether a vote may be lost when the pod goes. Who does not answer the operator may answer the others: it does not vote only
/// where the kubelet says so too.
fn votes(node: u32, pod: &PodView, raft: &Raft<'_>) -> bool {
    let answers = match &pod.node {
        Some(status) => status.cluster_id != 0,
        None => pod.started || pod.ready,
    };
    match (raft.leader, raft.voter_of(node)) {
        (Some(_), Some(voter)) => answers || raft.is_live(voter.member_id),
        (Some(_), None) => false,
        (None, _) => answers,
    }
}

/// A voter that is not fit to carry on while another one restarts.
fn late(observed: &Observed, raft: &Raft<'_>) -> Option<String> {
    let single = is_single(raft);
    raft.voters().filter(|_| !single).find_map(|voter| {
        let pod = observed.pods.get(&voter.node);
        let fit = pod.is_some_and(|pod| pod.ready && !pod.deleting) && raft.is_caught_up(voter.member_id);
        if !fit {
            return Some(format!("node {} is ready and has caught up", voter.node));
        }
        let settles = pod.filter(|pod| !pod.is_settled())?;
        Some(format!(
            "the state machine of {} has run for a while",
            settles.name
        ))
    })
}

fn is_single(raft: &Raft<'_>) -> bool {
    raft.voters().count() == 1
}

/// Its successor is up to date already, as everybody else was restarted before.
fn restart_leader(pod: &PodView, observed: &Observed, raft: &Raft<'_>) -> Verdict {
    let Some((leader, status)) = raft.leader else {
        return Verdict::Pass;
    };
    let heir = raft.voters().find(|member| {
        member.member_id != status.member_id
            && raft.is_caught_up(member.member_id)
            && observed.pods.get(&member.node).is_some_and(|pod| pod.ready)
    });
    match heir {
        Some(heir) => Verdict::Do(Step::Transfer {
            leader,
            to: heir.node,
            why: format!("node {} leads, as node {leader} restarts", heir.node),
        }),
        None => evict(pod),
    }
}

fn delete(pod: &PodView, why: &str) -> Verdict {
    Verdict::Do(Step::DeletePod {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        stray: false,
        why: why.to_owned(),
    })
}

fn evict(pod: &PodView) -> Verdict {
    Verdict::Do(Step::EvictPod {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        why: "its template is outdated".into(),
    })
}
