//! The pod that leads is labelled, for the Service of the leader.

use super::super::raft::Raft;
use super::super::step::Step;
use super::super::view::Observed;
use crate::resources::meta::{FOLLOWER, LEADER};

/// The new leader's label first, so that there is always one. Without a leader labels stay: any pod forwards.
pub(super) fn labels(observed: &Observed, raft: &Raft<'_>) -> Vec<Step> {
    let Some((leader, _)) = raft.leader else {
        return Vec::new();
    };
    let role = |node: u32| if node == leader { LEADER } else { FOLLOWER };
    let mut wrong: Vec<_> = observed
        .pods
        .iter()
        .filter(|(node, pod)| pod.role.as_deref() != Some(role(**node)))
        // Of those that go, only who led needs to lose its label.
        .filter(|(_, pod)| !pod.deleting || pod.role.as_deref() == Some(LEADER))
        .collect();
    wrong.sort_by_key(|(node, _)| **node != leader);
    wrong
        .into_iter()
        .map(|(node, pod)| Step::Label {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            role: role(*node),
        })
        .collect()
}
