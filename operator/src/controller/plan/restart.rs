//! Pods that were made from another template are made anew, in an order that never costs the quorum: who does not vote at
//! once, who is not ready directly, who is ready by eviction, the leader last.

use super::super::raft::Raft;
use super::super::step::Step;
use super::super::view::{Observed, PodView};
use super::Verdict;

/// Outdated pods that do not vote are in nobody's way.
pub(super) fn idle(revision: Option<&str>, observed: &Observed, raft: &Raft<'_>) -> Verdict {
    let idle = outdated(revision, observed)
        .rev()
        .find(|(node, pod)| !votes(*node, pod, raft));
    idle.map_or(Verdict::Pass, |(_, pod)| {
        delete(pod, "its template is outdated, and it does not vote")
    })
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
    if let Some((_, unready)) = outdated().rev().find(|(_, pod)| !pod.ready) {
        return match member(unready) {
            Some(id) if raft.keeps_quorum_without(id) => {
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
) -> impl DoubleEndedIterator<Item = (u32, &'a PodView)> {
    let pods = observed.pods.iter().filter(|(_, pod)| !pod.deleting);
    pods.filter(move |(_, pod)| pod.revision.as_deref() != revision)
        .map(|(node, pod)| (*node, pod))
}

/// Whether a vote is lost when the pod goes. The leader knows; without one, whoever is not known to be silent is counted on.
fn votes(node: u32, pod: &PodView, raft: &Raft<'_>) -> bool {
    if raft.leader.is_some() {
        let mut members = raft.members().iter();
        return members.any(|member| member.node == node && member.voter && raft.is_live(member.member_id));
    }
    match &pod.node {
        Some(status) => status.cluster_id != 0,
        None => !pod.silent,
    }
}

fn member(pod: &PodView) -> Option<u64> {
    pod.node.as_ref().map(|status| status.member_id)
}

/// A voter that is not fit to carry on while another one restarts.
fn late(observed: &Observed, raft: &Raft<'_>) -> Option<String> {
    let voters = raft.members().iter().filter(|member| member.voter);
    let single = voters.clone().count() == 1;
    voters.filter(|_| !single).find_map(|voter| {
        let pod = observed.pods.get(&voter.node);
        let fit = pod.is_some_and(|pod| pod.ready && !pod.deleting) && raft.is_caught_up(voter.member_id);
        (!fit).then(|| format!("node {} is ready and has caught up", voter.node))
    })
}

/// Its successor is up to date already, as everybody else was restarted before.
fn restart_leader(pod: &PodView, observed: &Observed, raft: &Raft<'_>) -> Verdict {
    let Some((leader, status)) = raft.leader else {
        return Verdict::Pass;
    };
    let heir = raft.members().iter().find(|member| {
        member.voter
            && member.member_id != status.member_id
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
