//! The pod that leads is labelled, for the Service of the leader; and labels that Services and the StatefulSet know pods by are put back.

use super::super::raft::Raft;
use super::super::step::Step;
use super::super::view::Observed;
use super::Desired;
use crate::resources::meta::{Component, FOLLOWER, LEADER, selector};

/// The new leader's label first, so that there is always one. Without a leader roles stay: any pod forwards.
pub(super) fn labels(desired: &Desired<'_>, observed: &Observed, raft: &Raft<'_>) -> Vec<Step> {
    let leader = raft.leader.map(|(leader, _)| leader);
    let role = |node: u32| if Some(node) == leader { LEADER } else { FOLLOWER };
    let mut wrong: Vec<_> = observed
        .pods
        .iter()
        .filter(|(node, pod)| pod.unlabelled || leader.is_some() && pod.role.as_deref() != Some(role(**node)))
        // Of those that go, only who led needs to lose its label.
        .filter(|(_, pod)| !pod.deleting || pod.role.as_deref() == Some(LEADER))
        .collect();
    wrong.sort_by_key(|(node, _)| Some(**node) != leader);
    wrong
        .into_iter()
        .map(|(node, pod)| Step::Label {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            role: role(*node),
            selector: selector(desired.cluster, Component::Node),
        })
        .collect()
}
