//! Nobody leads, and not only for a moment: who is missing, why, and the way back.

use std::collections::BTreeMap;

use super::super::raft::{Raft, hex};
use super::super::view::{Observed, PodView};
use super::Trouble;

/// An election may take that long.
const ELECTED_WITHIN_SECONDS: u64 = 30;

/// What people have to know where no leader has been known for a while.
pub(super) fn lost(observed: &Observed, raft: &Raft<'_>) -> Option<Trouble> {
    let voters = voters(observed);
    if raft.leader.is_some() || observed.leaderless_seconds < ELECTED_WITHIN_SECONDS || voters.is_empty() {
        return None;
    }
    let missing: Vec<String> = voters
        .iter()
        .filter_map(|(node, id)| Some(format!("node {node} {}", absence(observed.pods.get(node), id)?)))
        .collect();
    if unreachable(observed) {
        return Some(Trouble {
            reason: "NodesUnreachable",
            message: "pods run and this operator reaches port 5002 of none of them, so it changes nothing: does a NetworkPolicy or \
                      the network keep it from them?"
                .into(),
        });
    }
    if voters.len().saturating_sub(missing.len()) > voters.len() / 2 {
        return Some(Trouble {
            reason: "NoLeader",
            message: format!(
                "a majority of the {} voters answers and elects nobody: do they reach each other at port 5002, and are \
                 spec.raft.electionTimeout and its network's delays compatible?",
                voters.len()
            ),
        });
    }
    Some(Trouble {
        reason: "QuorumLost",
        message: format!(
            "no leader without a majority of {} voters: {}. Bring them back; if their data are gone for good, operator/README.md \
             says under 'When a majority is lost' how to go on with what is left",
            voters.len(),
            missing.join("; ")
        ),
    })
}

/// Member IDs in hex digits by node number: as the last leader was seen to count them, or else as a node that answers knows them.
fn voters(observed: &Observed) -> BTreeMap<u32, String> {
    let told = observed.told.members.iter().filter(|member| member.voter);
    let told: BTreeMap<u32, String> = told
        .map(|member| (member.node, member.member_id.clone()))
        .collect();
    if !told.is_empty() {
        return told;
    }
    let nodes = observed.pods.values().filter_map(|pod| pod.node.as_ref());
    let latest = nodes
        .filter(|status| status.cluster_id != 0)
        .filter_map(|status| status.configuration.as_ref())
        .max_by_key(|configuration| configuration.version);
    let members = latest.map_or(&[][..], |configuration| &configuration.members);
    let voters = members.iter().filter(|member| member.voter);
    voters
        .map(|member| (member.node, hex(member.member_id)))
        .collect()
}

/// Why that member does not count, if it does not.
fn absence(pod: Option<&PodView>, member_id: &str) -> Option<String> {
    let Some(pod) = pod else {
        return Some("has no pod".into());
    };
    match (&pod.node, &pod.problem) {
        (Some(status), _) if hex(status.member_id) == member_id => None,
        (Some(_), _) => Some(format!(
            "has lost its data: pod {} holds another member",
            pod.name
        )),
        (None, Some(problem)) => Some(format!("does not run: {}: {}", problem.reason, problem.message)),
        (None, None) => Some(format!("does not answer in pod {}", pod.name)),
    }
}

/// The kubelets hear from nodes, and the operator from none.
fn unreachable(observed: &Observed) -> bool {
    let mut started = observed.pods.values().filter(|pod| pod.started).peekable();
    started.peek().is_some()
        && started.all(|pod| pod.silent)
        && observed.pods.values().all(|pod| pod.node.is_none())
}
