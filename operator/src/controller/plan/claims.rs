//! Claims say whose data they hold, grow with the spec, and go with their member. The StatefulSet deletes none: whoever scales
//! it by hand would take the data of voters.

use super::super::raft::{Raft, hex};
use super::super::step::Step;
use super::super::view::{ClaimView, Observed};
use super::Desired;
use crate::controller::quantity::bytes;
use crate::crd::spec::Retention;
use crate::resources::meta::goes_with;

pub(super) fn claims(desired: &Desired<'_>, observed: &Observed, raft: &Raft<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let wanted = &desired.cluster.spec.storage.size;
    for (node, claim) in observed.claims.iter().filter(|(_, claim)| !claim.deleting) {
        let status = observed.pods.get(node).and_then(|pod| pod.node.as_ref());
        let formed = status.filter(|status| status.cluster_id != 0);
        if let Some(id) = formed.map(|status| hex(status.cluster_id))
            && claim.cluster_id.as_ref() != Some(&id)
        {
            steps.push(Step::AnnotateClaim {
                claim: claim.name.clone(),
                uid: claim.uid.clone(),
                cluster_id: id,
            });
        }
        let owner = (desired.cluster.spec.storage.retention.when_deleted == Retention::Delete && !claim.kept)
            .then(|| goes_with(desired.cluster));
        let is_owned = claim.owners.iter().any(|(kind, _)| kind == "RaftCluster");
        if owner.is_some() != is_owned {
            steps.push(Step::OwnClaim {
                claim: claim.name.clone(),
                uid: claim.uid.clone(),
                owner,
            });
        }
        if let Some(step) = after_its_member(*node, claim, desired, observed, raft) {
            steps.push(step);
            continue;
        }
        let size = claim.size.as_deref().and_then(bytes);
        if size
            .zip(bytes(wanted))
            .is_some_and(|(size, wanted)| size < wanted)
        {
            steps.push(Step::GrowClaim {
                claim: claim.name.clone(),
                uid: claim.uid.clone(),
                size: wanted.clone(),
            });
        }
    }
    steps
}

/// What becomes of a claim whose member has left: it is kept or deleted. What was kept once stays, whatever the spec says later, until
/// it is in use again.
fn after_its_member(
    node: u32,
    claim: &ClaimView,
    desired: &Desired<'_>,
    observed: &Observed,
    raft: &Raft<'_>,
) -> Option<Step> {
    let (name, uid) = (claim.name.clone(), claim.uid.clone());
    let keep = |kept| Step::KeepClaim {
        claim: name.clone(),
        uid: uid.clone(),
        kept,
    };
    if claim.kept {
        return observed.pods.contains_key(&node).then(|| keep(false));
    }
    if !is_left_behind(node, claim, desired, observed, raft) {
        return None;
    }
    Some(match desired.cluster.spec.storage.retention.when_scaled {
        Retention::Retain => keep(true),
        Retention::Delete => Step::DeleteClaim { claim: name, uid },
    })
}

/// Whether its member has left, in a change that is committed, and its pod has gone.
fn is_left_behind(
    node: u32,
    claim: &ClaimView,
    desired: &Desired<'_>,
    observed: &Observed,
    raft: &Raft<'_>,
) -> bool {
    let Some((_, leader)) = raft.leader.filter(|_| !raft.is_changing()) else {
        return false;
    };
    let of_this_cluster = match &claim.cluster_id {
        Some(id) => *id == hex(leader.cluster_id),
        // It has no volume yet, so nobody has data there.
        None => claim.pending,
    };
    let pods_gone = observed
        .stateful_set
        .as_ref()
        .is_some_and(|set| set.replicas < node);
    of_this_cluster
        && node > desired.replicas()
        && pods_gone
        && !observed.pods.contains_key(&node)
        && raft.members().iter().all(|member| member.node != node)
}
