//! A cluster is formed once: first it is recorded how, then all nodes are told the same.

use std::collections::BTreeMap;

use raftlog_proto::v1::{BootstrapRequest, Member, NodeStatus};

use super::super::raft::Raft;
use super::super::step::Step;
use super::super::view::Observed;
use super::{Desired, Verdict};
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
    if let Some(pod) = foreign(observed) {
        let why = format!("pod {pod} holds the data of another cluster: give it an empty volume");
        return (recorded, Verdict::Wait(why));
    }
    let unformed = unformed(observed, replicas);
    let nobody_is_formed = unformed.len() == usize::try_from(replicas).unwrap_or(usize::MAX);
    let kept = observed.claims.values().find(|claim| claim.cluster_id.is_some());
    match (&recorded, kept) {
        // Who forms a cluster beside data that were kept could not have them back.
        (_, Some(claim)) if nobody_is_formed => {
            let why = format!(
                "the volume of claim {} was kept for cluster {}, and no node finds its data there: restore them, or delete the \
                 claims to begin anew",
                claim.name,
                claim.cluster_id.as_deref().unwrap_or_default()
            );
            (recorded, Verdict::Wait(why))
        }
        (Some(formation), _) if nobody_is_formed && formation.members != unformed => {
            let formation = fresh(desired, unformed);
            (Some(formation), Verdict::Pass)
        }
        (Some(formation), _) => {
            let verdict = bootstrap(desired, formation, observed, raft);
            (recorded, verdict)
        }
        (None, None) if nobody_is_formed => (Some(fresh(desired, unformed)), Verdict::Pass),
        (None, _) if raft.leader.is_none() => {
            let why = waits_for(desired, observed, replicas);
            (recorded, Verdict::Wait(why))
        }
        (None, _) => (recorded, Verdict::Pass),
    }
}

fn fresh(desired: &Desired<'_>, members: BTreeMap<u32, String>) -> Formation {
    Formation {
        cluster_id: hex(desired.fresh_cluster_id),
        members,
    }
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

/// The name of a pod that belongs to another cluster than most, where they differ.
fn foreign(observed: &Observed) -> Option<&str> {
    let mut told = observed.pods.values().filter_map(|pod| {
        let id = pod.node.as_ref()?.cluster_id;
        (id != 0).then_some((pod.name.as_str(), id))
    });
    let (_, first) = told.next()?;
    told.find(|(_, id)| *id != first).map(|(name, _)| name)
}

/// Tells the next node that was listed and has not heard of it yet.
fn bootstrap(desired: &Desired<'_>, formation: &Formation, observed: &Observed, raft: &Raft<'_>) -> Verdict {
    let listed = formation.members.iter().find_map(|(node, id)| {
        let status = observed.pods.get(node)?.node.as_ref()?;
        (status.cluster_id == 0 && hex(status.member_id) == *id).then_some((*node, status))
    });
    match (listed, raft.leader) {
        (Some((_, status)), Some(_)) if raft.member(status.member_id).is_none() => Verdict::Pass,
        (None, Some(_)) => Verdict::Pass,
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

fn hex(id: u64) -> String {
    format!("{id:016x}")
}
