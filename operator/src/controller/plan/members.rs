//! Who belongs to the cluster: pods join as learners, and those that hold the log become voters in one change; who is to
//! go hands over first and leaves in one change.

use std::time::Duration;

use raftlog_proto::v1::{
    ChangeMembershipRequest, Member, MembershipChange, NodeStatus, membership_change::Change,
};

use super::super::raft::Raft;
use super::super::step::Step;
use super::super::view::{Observed, PodView};
use super::{Desired, Trouble, Verdict};
use crate::resources::names;
use kube::ResourceExt as _;

/// A node that was removed starts and hears of it within this time and two elections, if ever. A version that does not tell is taken
/// to know by then.
const LEARNS_OF_REMOVAL: Duration = Duration::from_secs(15);
/// Nobody tells a learner that was away when it was removed, however often it starts.
const STRAYS_DELETED_MAX: u32 = 2;

/// What people have to do about a member that was removed and does not begin anew by itself.
pub(super) fn stray_trouble(desired: &Desired<'_>, observed: &Observed, raft: &Raft<'_>) -> Option<Trouble> {
    let (_, leader) = raft.leader?;
    let scene = Scene {
        replicas: desired.replicas(),
        patience: desired.patience(),
        observed,
        raft,
        leader,
    };
    let (node, pod, status) = scene
        .strays()
        .find(|(node, _, _)| scene.was_deleted_in_vain(*node))?;
    Some(Trouble {
        reason: "RemovedMember",
        message: format!(
            "pod {} holds the data of member {:016x}, which was removed, and does not move it aside: delete claim {} and then the pod, and \
             it joins with an empty volume",
            pod.name,
            status.member_id,
            names::claim(&desired.cluster.name_any(), node)
        ),
    })
}

pub(super) fn change(desired: &Desired<'_>, observed: &Observed, raft: &Raft<'_>) -> Verdict {
    let Some((_, leader)) = raft.leader else {
        return Verdict::Wait("waits until a leader is elected".into());
    };
    if raft.is_changing() {
        return Verdict::Wait("waits until the change of members that is under way is complete".into());
    }
    let scene = Scene {
        replicas: desired.replicas(),
        patience: desired.patience(),
        observed,
        raft,
        leader,
    };
    scene
        .forget_lost_learners()
        .or_else(|| scene.add_learner())
        .or_else(|| scene.promote())
        .or_else(|| scene.shrink())
        .or_else(|| scene.restart_strays())
        .or_else(|| scene.wait_for_learners())
}

struct Scene<'a> {
    replicas: u32,
    /// The longest election timeout.
    patience: Duration,
    observed: &'a Observed,
    raft: &'a Raft<'a>,
    leader: &'a NodeStatus,
}

impl Scene<'_> {
    /// Pods that are asked for and whose node answers.
    fn answering(&self) -> impl Iterator<Item = (u32, &PodView, &NodeStatus)> {
        let asked_for = self.observed.pods.range(..=self.replicas);
        asked_for
            .filter(|(_, pod)| !pod.deleting)
            .filter_map(|(node, pod)| Some((*node, pod, pod.node.as_ref()?)))
    }

    /// Whether another member than that one is now in the member's pod: its volume was lost.
    fn is_lost(&self, member: &Member) -> bool {
        self.answering()
            .any(|(node, _, status)| node == member.node && status.member_id != member.member_id)
    }

    fn learners(&self) -> impl Iterator<Item = &Member> {
        let members = self.raft.members().iter();
        members.filter(|member| !member.voter && member.node <= self.replicas)
    }

    fn ask(&self, changes: Vec<Change>, why: String) -> Verdict {
        let Some((leader, configuration)) = self
            .raft
            .leader
            .and_then(|(node, status)| Some((node, status.configuration.as_ref()?)))
        else {
            return Verdict::Pass;
        };
        let changes = changes
            .into_iter()
            .map(|change| MembershipChange { change: Some(change) });
        Verdict::Do(Step::ChangeMembership {
            leader,
            request: ChangeMembershipRequest {
                expected_version: configuration.version,
                changes: changes.collect(),
                force: false,
                dry_run: false,
            },
            why,
        })
    }

    fn forget_lost_learners(&self) -> Verdict {
        let lost = self.learners().find(|member| self.is_lost(member));
        lost.map_or(Verdict::Pass, |member| {
            let why = format!(
                "removed learner {:016x} of node {}, whose volume was lost",
                member.member_id, member.node
            );
            self.ask(vec![Change::Remove(member.member_id)], why)
        })
    }

    /// The next pod that belongs to no cluster begins to receive the log.
    fn add_learner(&self) -> Verdict {
        let new = self
            .answering()
            .find(|(_, _, status)| status.cluster_id == 0 && self.raft.member(status.member_id).is_none());
        let Some((node, pod, status)) = new else {
            return Verdict::Pass;
        };
        let level = self.leader.feature_level.max(1);
        if !(status.feature_level_min.max(1)..=status.feature_level_max.max(1)).contains(&level) {
            return Verdict::Wait(format!(
                "pod {} does not support the cluster's feature level {level}: give it an image that does",
                pod.name
            ));
        }
        let learner = Member {
            member_id: status.member_id,
            node,
            peer_address: status.peer_address.clone(),
            client_address: status.client_address.clone(),
            voter: false,
        };
        let why = format!("node {node} joins as learner {:016x}", status.member_id);
        self.ask(vec![Change::AddLearner(learner)], why)
    }

    /// Learners that hold the log become voters. One whose volume was lost takes its own old place at once; new ones come in
    /// together, so that there is no even number of voters in between.
    fn promote(&self) -> Verdict {
        let lost: Vec<&Member> = self.raft.voters().filter(|member| self.is_lost(member)).collect();
        let ready: Vec<&Member> = self
            .learners()
            .filter(|member| self.raft.is_caught_up(member.member_id))
            .collect();
        let replacement = |old: &&Member| ready.iter().find(|new| new.node == old.node).copied();
        if let Some((old, new)) = lost.iter().find_map(|old| Some((*old, replacement(old)?))) {
            let why = format!(
                "node {}: member {:016x} takes the place of {:016x}, whose volume was lost",
                new.node, new.member_id, old.member_id
            );
            return self.ask(
                vec![Change::Promote(new.member_id), Change::Remove(old.member_id)],
                why,
            );
        }
        let missing = (1..=self.replicas).filter(|node| self.raft.voter_of(*node).is_none());
        let all_ready = missing
            .map(|node| ready.iter().find(|member| member.node == node))
            .collect::<Option<Vec<_>>>();
        match all_ready {
            Some(new) if !new.is_empty() => {
                let nodes: Vec<String> = new.iter().map(|member| member.node.to_string()).collect();
                let why = format!("nodes {} hold the log and vote", nodes.join(", "));
                self.ask(
                    new.iter()
                        .map(|member| Change::Promote(member.member_id))
                        .collect(),
                    why,
                )
            }
            _ => Verdict::Pass,
        }
    }

    /// Members beyond what is asked for leave together, the leader among them only after it has handed over.
    fn shrink(&self) -> Verdict {
        let surplus: Vec<&Member> = self
            .raft
            .members()
            .iter()
            .filter(|member| member.node > self.replicas)
            .collect();
        if surplus.is_empty() {
            return Verdict::Pass;
        }
        if surplus
            .iter()
            .any(|member| member.member_id == self.leader.member_id)
        {
            return self.hand_over();
        }
        let mut nodes: Vec<u32> = surplus.iter().map(|member| member.node).collect();
        nodes.sort_unstable();
        let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let why = format!(
            "nodes {} leave, as {} are asked for",
            nodes.join(", "),
            self.replicas
        );
        self.ask(
            surplus
                .iter()
                .map(|member| Change::Remove(member.member_id))
                .collect(),
            why,
        )
    }

    fn hand_over(&self) -> Verdict {
        let heir = self
            .raft
            .voters()
            .find(|member| member.node <= self.replicas && self.raft.is_caught_up(member.member_id));
        match (heir, self.raft.leader) {
            (Some(heir), Some((leader, _))) => Verdict::Do(Step::Transfer {
                leader,
                to: heir.node,
                why: format!("node {} leads, as node {leader} leaves", heir.node),
            }),
            _ => Verdict::Wait("waits until a voter that stays has caught up and can lead".into()),
        }
    }

    /// Pods with a member of this cluster that was removed, and that knows it or has had the time to hear of it.
    fn strays(&self) -> impl Iterator<Item = (u32, &PodView, &NodeStatus)> {
        let learns = (LEARNS_OF_REMOVAL + self.patience * 2).as_secs();
        self.answering().filter(move |(_, pod, status)| {
            let has_heard = u64::try_from(pod.age_seconds).is_ok_and(|age| age >= learns);
            status.cluster_id == self.leader.cluster_id
                && self.raft.member(status.member_id).is_none()
                && (status.was_removed || has_heard)
        })
    }

    fn was_deleted_in_vain(&self, node: u32) -> bool {
        self.observed
            .strays_deleted
            .get(&node)
            .is_some_and(|count| *count >= STRAYS_DELETED_MAX)
    }

    /// It comes back as a new one: its node moves the old data aside when it starts and has been told that it was removed.
    fn restart_strays(&self) -> Verdict {
        let stray = self
            .strays()
            .find(|(node, _, _)| !self.was_deleted_in_vain(*node));
        stray.map_or(Verdict::Pass, |(_, pod, status)| {
            Verdict::Do(Step::DeletePod {
                pod: pod.name.clone(),
                uid: pod.uid.clone(),
                stray: true,
                why: format!(
                    "its member {:016x} was removed, and it is to come back as a new one",
                    status.member_id
                ),
            })
        })
    }

    /// Nothing else happens while somebody catches up: only then is it known how many may fail.
    fn wait_for_learners(&self) -> Verdict {
        let late = self
            .learners()
            .find(|member| self.raft.is_live(member.member_id) && !self.raft.is_caught_up(member.member_id));
        if let Some(member) = late {
            return Verdict::Wait(format!("waits until node {} has caught up", member.node));
        }
        let learners = self
            .learners()
            .filter(|member| self.raft.is_live(member.member_id));
        let missing =
            (1..=self.replicas).find(|node| self.raft.members().iter().all(|member| member.node != *node));
        match (learners.count(), missing) {
            (count @ 1.., Some(node)) => Verdict::Wait(format!(
                "waits with {count} new members until node {node} is there, too: all vote from the same change on"
            )),
            _ => Verdict::Pass,
        }
    }
}
