//! How many pods there are: as many as are asked for, and never fewer than Raft still counts on.

use super::super::raft::Raft;
use super::super::view::Observed;
use super::Desired;
use crate::resources::names::PODS_MAX;

pub(super) fn pods(desired: &Desired<'_>, observed: &Observed, raft: &Raft<'_>) -> u32 {
    let wanted = desired.replicas();
    if raft.leader.is_some() {
        let counted_on = raft
            .members()
            .iter()
            .map(|member| member.node)
            .max()
            .unwrap_or_default();
        return match &observed.stateful_set {
            // Until it is committed, those that it leaves out still count.
            Some(set) if raft.is_changing() => wanted.max(counted_on).max(set.replicas.min(PODS_MAX)),
            _ => wanted.max(counted_on),
        };
    }
    // Whoever changed the StatefulSet meanwhile, these still count.
    let told = observed.told.members.iter().map(|member| member.node).max();
    let told = told.unwrap_or_default().min(PODS_MAX);
    let adopted = observed
        .claims
        .iter()
        .filter(|(_, claim)| claim.cluster_id.is_some() && !claim.deleting && !claim.kept)
        .map(|(node, _)| *node)
        .max();
    let may_be_formed = adopted.is_some()
        || observed.record.formation.is_some()
        || observed
            .pods
            .values()
            .any(|pod| pod.node.as_ref().is_some_and(|status| status.cluster_id != 0));
    match (&observed.stateful_set, adopted) {
        // Without a leader nobody can say who may go, and nobody could be added.
        (Some(set), _) if may_be_formed => set.replicas.max(told).clamp(1, PODS_MAX),
        (None, Some(nodes)) => nodes.max(told),
        _ => wanted.max(told),
    }
}
