//! A cluster is formed once: first it is recorded how, then all nodes are told the same.

use std::collections::BTreeMap;

use raftlog_proto::v1::{BootstrapRequest, Member, NodeStatus};

use super::super::raft::{Raft, hex};
use super::super::step::Step;
use super::super::view::Observed;
use super::{Desired, Trouble, Verdict};
use crate::resources::names::{self, CLIENT_PORT, PEER_PORT};
use crate::resources::record::Formation;
use kube::ResourceExt as _;

/// How the cluster is formed, for the record, and what is to be done for it.
pub(super) fn form(
    desired: &Desired<'_>,
    observed: &Observed,
    raft: &Raft<'_>,
    replicas: u32,
) -> (Option<Formation>, Verdict) {
    let recorded = observed.record.formation.clone();
    let unformed = unformed(observed, replicas);
    let nobody_is_formed = is_nobody_formed(&unformed, replicas);
    match &recorded {
        Some(formation) if nobody_is_formed && formation.members != unformed => {
            let formation = fresh(desired, unformed);
            (Some(formation), Verdict::Pass)
        }
        Some(formation) => {
            let verdict = bootstrap(desired, formation, observed, raft);
            (recorded, verdict)
        }
        None if nobody_is_formed => (Some(fresh(desired, unformed)), Verdict::Pass),
        None if raft.leader.is_none() => {
            let why = waits_for(desired, observed, replicas);
            (recorded, Verdict::Wait(why))
        }
        None => (recorded, Verdict::Pass),
    }
}

/// Data that were there and that nobody has any more: who forms a cluster in their place could not have them back.
pub(super) fn data_lost(observed: &Observed, replicas: u32) -> Option<Trouble> {
    if !is_nobody_formed(&unformed(observed, replicas), replicas) {
        return None;
    }
    let kept = observed
        .claims
        .values()
        .filter(|claim| !claim.deleting)
        .find_map(|claim| Some((claim, claim.cluster_id.as_ref()?)));
    let message = match (kept, &observed.told.cluster_id) {
        (Some((claim, id)), _) => format!(
            "the volume of claim {} was kept for cluster {id}, and no node finds its data there: restore them, or delete the \
             claims and this RaftCluster, and make it anew to begin with nothing",
            claim.name
        ),
        (None, Some(id)) => format!(
            "no node has data of cluster {id} any more: restore the volumes, or delete this RaftCluster and make it anew to begin \
             with nothing"
        ),
        (None, None) => return None,
    };
    Some(Trouble {
        reason: "DataLost",
        message,
    })
}

fn fresh(desired: &Desired<'_>, members: BTreeMap<u32, String>) -> Formation {
    Formation {
        cluster_id: hex(desired.fresh_cluster_id),
        members,
    }
}

fn is_nobody_formed(unformed: &BTreeMap<u32, String>, replicas: u32) -> bool {
    unformed.len() == usize::try_from(replicas).unwrap_or(usize::MAX)
}

/// Member IDs of all pods that say that they belong to no cluster, by node number.
fn unformed(observed: &Observed, replicas: u32) -> BTreeMap<u32, String> {
    let pods = observed.pods.iter().filter(|(node, _)| **node <= replicas);
    pods.filter_map(|(node, pod)| {
        let status = pod.node.as_ref().filter(|_| !pod.deleting)?;
        let unformed = status.cluster_id == 0 && !status.was_removed;
        unformed.then(|| (*node, hex(status.member_id)))
    })
    .collect()
}

/// Pods that hold data of different clusters. Which one is to be kept, only a leader can tell, and only people can know.
pub(super) fn mixed(observed: &Observed, raft: &Raft<'_>) -> Option<Trouble> {
    let mut by_id: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let formed = observed
        .pods
        .values()
        .filter_map(|pod| Some((pod, pod.node.as_ref()?)));
    for (pod, status) in formed.filter(|(_, status)| status.cluster_id != 0) {
        by_id.entry(status.cluster_id).or_default().push(&pod.name);
    }
    if by_id.len() < 2 {
        return None;
    }
    let holders = |(id, pods): (&u64, &Vec<&str>)| format!("{} of cluster {}", pods.join(" and "), hex(*id));
    let message = match raft.leader {
        Some((_, leader)) => {
            let id = leader.cluster_id;
            let others: Vec<String> = by_id
                .iter()
                .filter(|(other, _)| **other != id)
                .map(holders)
                .collect();
            format!(
                "cluster {} has a leader, and other pods hold other data: {}. If it is the one to keep, delete their claims and \
                 then these pods, and they join with empty volumes",
                hex(id),
                others.join(", ")
            )
        }
        None => format!(
            "pods hold data of different clusters: {}. Nothing is done before there is one leader: find out which cluster is to be \
             kept before anything is deleted",
            by_id.iter().map(holders).collect::<Vec<_>>().join(", ")
        ),
    };
    Some(Trouble {
        reason: "ForeignData",
        message,
    })
}

/// Tells the next node that was listed and has not heard of it yet.
fn bootstrap(desired: &Desired<'_>, formation: &Formation, observed: &Observed, raft: &Raft<'_>) -> Verdict {
    let listed = formation.members.iter().find_map(|(node, id)| {
        let status = observed.pods.get(node)?.node.as_ref()?;
        (status.cluster_id == 0 && hex(status.member_id) == *id).then_some((*node, status))
    });
    let mut formed = observed.pods.values().filter_map(|pod| pod.node.as_ref());
    let other =
        formed.find(|status| status.cluster_id != 0 && hex(status.cluster_id) != formation.cluster_id);
    match (listed, raft.leader) {
        (Some((_, status)), Some(_)) if raft.member(status.member_id).is_none() => Verdict::Pass,
        (None, Some(_)) => Verdict::Pass,
        // Somebody belongs to another cluster than was recorded: nobody is told to form that one now.
        (Some(_), None) if other.is_some() => Verdict::Wait(waits_for(desired, observed, desired.replicas())),
        (Some((node, status)), _) => match request(desired, formation, status) {
            Some(request) => Verdict::Do(Step::Bootstrap { node, request }),
            None => Verdict::Wait("the record of how the cluster was formed is damaged: restore it".into()),
        },
        (None, None) => Verdict::Wait(waits_for(desired, observed, desired.replicas())),
    }
}

fn request(desired: &Desired<'_>, formation: &Formation, to: &NodeStatus) -> Option<BootstrapRequest> {
    let members = formation.members.iter().map(|(node, id)| {
        let pod = names::pod(&desired.cluster.name_any(), *node);
        let host = names::host(desired.cluster, &pod);
        Some(Member {
            member_id: u64::from_str_radix(id, 16).ok()?,
            node: *node,
            peer_address: format!("{host}:{PEER_PORT}"),
            client_address: format!("{host}:{CLIENT_PORT}"),
            voter: true,
        })
    });
    Some(BootstrapRequest {
        cluster_id: u64::from_str_radix(&formation.cluster_id, 16).ok()?,
        members: members.collect::<Option<_>>()?,
        to_member: to.member_id,
    })
}

fn waits_for(desired: &Desired<'_>, observed: &Observed, replicas: u32) -> String {
    let silent: Vec<String> = (1..=replicas)
        .filter(|node| observed.pods.get(node).is_none_or(|pod| pod.node.is_none()))
        .map(|node| names::pod(&desired.cluster.name_any(), node))
        .collect();
    if silent.is_empty() {
        return "waits until a leader is elected".into();
    }
    format!("waits for the nodes of {}", silent.join(", "))
}
