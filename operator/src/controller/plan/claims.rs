//! Claims say whose data they hold, and grow with the spec.

use super::super::step::Step;
use super::super::view::Observed;
use super::Desired;
use crate::controller::quantity::bytes;

pub(super) fn claims(desired: &Desired<'_>, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    let wanted = &desired.cluster.spec.storage.size;
    for (node, claim) in observed.claims.iter().filter(|(_, claim)| !claim.deleting) {
        let status = observed.pods.get(node).and_then(|pod| pod.node.as_ref());
        let formed = status.filter(|status| status.cluster_id != 0);
        if let Some(id) = formed.map(|status| format!("{:016x}", status.cluster_id))
            && claim.cluster_id.as_ref() != Some(&id)
        {
            steps.push(Step::AnnotateClaim {
                claim: claim.name.clone(),
                uid: claim.uid.clone(),
                cluster_id: id,
            });
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
