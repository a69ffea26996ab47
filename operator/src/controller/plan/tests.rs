//! A world in which everything is well, to be changed by each test, and tables of what is done about it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use raftlog_proto::v1::{
    Configuration, Leader, Member, MemberProgress, NodeStatus, OldVoter, Role, membership_change::Change,
};

use super::super::raft::hex;
use super::super::state_machine::StateMachineView;
use super::super::view::{ClaimView, PodView, Problem, StatefulSetView};
use super::*;
use crate::crd::status::MemberStatus;
use crate::resources::Kind;
use crate::resources::record::Formation;
use crate::resources::tests::{cluster, images};

pub(crate) const CLUSTER_ID: u64 = 0xc1;

/// Member ID of the member that was in that pod first.
pub(crate) fn member(node: u32) -> u64 {
    100 + u64::from(node)
}

/// Nothing but which images were chosen.
fn first_record() -> Record {
    Record {
        default_images: images(),
        ..Record::default()
    }
}

pub(crate) struct World {
    pub(crate) cluster: RaftCluster,
    pub(crate) images: Images,
    pub(crate) turn_of: Option<String>,
    pub(crate) observed: Observed,
}

impl World {
    /// Nothing is there yet.
    pub(crate) fn new(spec: &str) -> Self {
        Self {
            cluster: cluster(spec),
            images: images(),
            turn_of: None,
            observed: Observed {
                record: first_record(),
                ..Observed::default()
            },
        }
    }

    /// Pods run, and their nodes belong to nothing.
    pub(crate) fn unformed(replicas: u32) -> Self {
        let mut world = Self::new(&format!("replicas: {replicas}"));
        world.has_stateful_set(replicas);
        for node in 1..=replicas {
            world.has_pod(node);
        }
        world
    }

    /// Node 1 leads, all are ready and have caught up.
    pub(crate) fn formed(replicas: u32) -> Self {
        let mut world = Self::unformed(replicas);
        let members = (1..=replicas).map(|node| (node, format!("{:016x}", member(node))));
        world.observed.record = Record {
            default_images: images(),
            formation: Some(Formation {
                cluster_id: format!("{CLUSTER_ID:016x}"),
                members: members.collect(),
            }),
            good_template: Some(world.template()),
            failed: None,
        };
        for node in 1..=replicas {
            world.pod(node).ready = true;
            world.status(node, |status| {
                status.ready = true;
                status.cluster_id = CLUSTER_ID;
                status.term = 2;
                status.set_role(Role::Follower);
            });
        }
        world.leads(1);
        for node in 1..=replicas {
            world.joins(node, member(node), true);
            world.pod(node).role = Some(if node == 1 { "leader" } else { "follower" }.into());
        }
        world
    }

    pub(crate) fn template(&self) -> Value {
        pod::template(&self.cluster, &self.images)
    }

    pub(crate) fn spec(&mut self, spec: &str) {
        self.cluster = cluster(spec);
        self.cluster.metadata.generation = Some(2);
    }

    fn has_stateful_set(&mut self, replicas: u32) {
        self.observed.stateful_set = Some(StatefulSetView {
            replicas,
            revision: pod::revision(&self.template()).map(str::to_owned),
            size: Some("1Gi".into()),
            origin: Origin {
                generation: Some(1),
                ..Origin::default()
            },
        });
    }

    pub(crate) fn has_pod(&mut self, node: u32) {
        let revision = pod::revision(&self.template()).map(str::to_owned);
        self.observed.pods.insert(
            node,
            PodView {
                name: format!("demo-{}", node - 1),
                uid: format!("uid-{node}"),
                revision,
                age_seconds: 100,
                node: Some(NodeStatus {
                    member_id: member(node),
                    node,
                    role: Role::Unformed.into(),
                    peer_address: format!("demo-{}.demo-peers.shop.svc:5002", node - 1),
                    client_address: format!("demo-{}.demo-peers.shop.svc:5001", node - 1),
                    ..NodeStatus::default()
                }),
                ..PodView::default()
            },
        );
        let claim = ClaimView {
            name: format!("data-demo-{}", node - 1),
            size: Some("1Gi".into()),
            ..ClaimView::default()
        };
        self.observed.claims.insert(node, claim);
    }

    pub(crate) fn pod(&mut self, node: u32) -> &mut PodView {
        self.observed.pods.get_mut(&node).unwrap()
    }

    pub(crate) fn status(&mut self, node: u32, change: impl FnOnce(&mut NodeStatus)) {
        change(self.pod(node).node.as_mut().unwrap());
    }

    /// Its node does not answer, neither the operator nor the leader.
    pub(crate) fn silent(&mut self, node: u32) {
        self.pod(node).node = None;
        self.pod(node).silent = true;
        self.pod(node).ready = false;
        if let Some(leader) = self.leader() {
            for progress in &mut leader.progress {
                if progress.node == node {
                    progress.last_contact_milliseconds = 60_000;
                    progress.caught_up = false;
                }
            }
        }
    }

    fn leader(&mut self) -> Option<&mut NodeStatus> {
        let mut statuses = self
            .observed
            .pods
            .values_mut()
            .filter_map(|pod| pod.node.as_mut());
        statuses.find(|status| status.role() == Role::Leader)
    }

    /// The leader's configuration lists those nodes only.
    fn leaves_only(&mut self, nodes: RangeInclusive<u32>) {
        let configuration = self.leader().unwrap().configuration.as_mut().unwrap();
        configuration
            .members
            .retain(|member| nodes.contains(&member.node));
    }

    /// The status told that these nodes vote, with the members that were in their pods first.
    fn told_voters(&mut self, nodes: RangeInclusive<u32>) {
        let voter = |node| MemberStatus {
            node,
            member_id: hex(member(node)),
            voter: true,
            ..MemberStatus::default()
        };
        self.observed.told.members = nodes.map(voter).collect();
    }

    fn leads(&mut self, node: u32) {
        self.status(node, |status| {
            status.set_role(Role::Leader);
            status.leader = Some(Leader {
                member_id: member(node),
                node,
                client_address: String::new(),
            });
            status.commit_log_index = 9;
            status.configuration = Some(Configuration {
                version: 7,
                ..Configuration::default()
            });
        });
    }

    /// A member that the leader knows and that has caught up.
    pub(crate) fn joins(&mut self, node: u32, member_id: u64, voter: bool) {
        let leader = self.leader().unwrap();
        let itself = leader.member_id == member_id;
        leader.configuration.as_mut().unwrap().members.push(Member {
            member_id,
            node,
            voter,
            ..Member::default()
        });
        if !itself {
            leader.progress.push(MemberProgress {
                member_id,
                node,
                match_log_index: 9,
                last_contact_milliseconds: 500,
                caught_up: true,
                ..MemberProgress::default()
            });
        }
    }

    pub(crate) fn desired(&self) -> Desired<'_> {
        Desired {
            cluster: &self.cluster,
            default_images: &self.images,
            turn_of: self.turn_of.clone(),
            fresh_cluster_id: CLUSTER_ID,
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.desired(), &self.observed)
    }

    fn stateful_set_of(plan: &Plan) -> &Value {
        let set = plan
            .objects
            .iter()
            .find(|object| object.kind == Kind::StatefulSet);
        set.unwrap().body.as_ref().unwrap()
    }

    pub(crate) fn replicas(&self) -> u64 {
        Self::stateful_set_of(&self.plan())["spec"]["replicas"]
            .as_u64()
            .unwrap()
    }

    fn revision(&self) -> String {
        pod::revision(&Self::stateful_set_of(&self.plan())["spec"]["template"])
            .unwrap()
            .to_owned()
    }

    fn record(&self) -> Record {
        let plan = self.plan();
        let record = plan.objects.iter().find(|object| object.kind == Kind::ConfigMap);
        record.map_or_else(Record::default, |record| {
            Record::parse(record.body.as_ref().unwrap()).unwrap()
        })
    }

    /// What is done, in short.
    pub(crate) fn does(&self) -> String {
        let plan = self.plan();
        match &plan.step {
            None => format!("waits: {}", plan.waits.unwrap_or_default()),
            Some(Step::Bootstrap { node, .. }) => format!("bootstrap {node}"),
            Some(Step::Transfer { to, .. }) => format!("transfer to {to}"),
            Some(Step::DeletePod { pod, .. }) => format!("delete {pod}"),
            Some(Step::EvictPod { pod, .. }) => format!("evict {pod}"),
            Some(Step::ChangeMembership { request, .. }) => {
                let changes = request
                    .changes
                    .iter()
                    .map(|change| match change.change.as_ref().unwrap() {
                        Change::AddLearner(member) => format!("add {}", member.member_id),
                        Change::Promote(id) => format!("promote {id}"),
                        Change::Demote(id) => format!("demote {id}"),
                        Change::Remove(id) => format!("remove {id}"),
                    });
                assert_eq!(request.expected_version, 7);
                changes.collect::<Vec<_>>().join(", ")
            }
            Some(other) => panic!("no step of a plan: {other:?}"),
        }
    }
}

#[test]
fn a_cluster_begins_with_its_objects() {
    let world = World::new("replicas: 3");
    let plan = world.plan();
    let there: Vec<Kind> = plan
        .objects
        .iter()
        .filter(|object| object.body.is_some())
        .map(|object| object.kind)
        .collect();
    assert_eq!(
        there,
        [
            Kind::ServiceAccount,
            Kind::Service,
            Kind::Service,
            Kind::Service,
            Kind::PodDisruptionBudget,
            Kind::ConfigMap,
            Kind::StatefulSet
        ]
    );
    assert_eq!(plan.step, None);
    assert_eq!(world.replicas(), 3);
}

#[test]
fn it_is_formed_once_all_answer_and_what_was_recorded_is_kept() {
    let mut world = World::unformed(3);
    world.pod(3).node = None;
    assert_eq!(world.does(), "waits: waits for the nodes of demo-2");
    assert_eq!(world.record(), first_record());

    let mut world = World::unformed(3);
    assert_eq!(world.does(), "waits: waits until what it decided is recorded");
    let record = world.record();
    let formation = record.formation.clone().unwrap();
    assert_eq!(formation.cluster_id, "00000000000000c1");
    assert_eq!(formation.members.len(), 3);
    world.observed.record = record;
    assert_eq!(world.does(), "bootstrap 1");
    world.status(1, |status| status.cluster_id = CLUSTER_ID);
    assert_eq!(world.does(), "bootstrap 2");

    // A volume lost in between: who was not told must not be taken for who was listed.
    world.status(2, |status| status.member_id = 999);
    assert_eq!(world.does(), "bootstrap 3");
    assert_eq!(world.record().formation.unwrap(), formation, "somebody is formed");
    world.status(3, |status| status.cluster_id = CLUSTER_ID);
    assert_eq!(world.does(), "waits: waits until a leader is elected");
}

#[test]
fn the_record_is_rewritten_only_while_all_say_that_they_are_unformed() {
    let mut world = World::unformed(3);
    world.observed.record = world.record();
    world.status(2, |status| status.member_id = 999);
    let rewritten = world.record().formation.unwrap();
    assert_eq!(rewritten.members[&2], format!("{:016x}", 999));
    world.pod(1).node = None;
    assert_ne!(
        world.record().formation.unwrap(),
        rewritten,
        "node 1 may be formed"
    );
}

#[test]
fn volumes_that_were_kept_are_adopted_and_never_overwritten() {
    let mut world = World::new("replicas: 5");
    for node in 1..=3 {
        world.observed.claims.insert(
            node,
            ClaimView {
                name: format!("data-demo-{}", node - 1),
                cluster_id: Some("00000000000000c1".into()),
                ..ClaimView::default()
            },
        );
    }
    assert_eq!(world.replicas(), 3, "first as many as there were");
    world.has_stateful_set(3);
    let claims = world.observed.claims.clone();
    for node in 1..=3 {
        world.has_pod(node);
    }
    world.observed.claims = claims;
    assert!(
        world.does().contains("restore them, or delete the claims"),
        "{}",
        world.does()
    );
    assert_eq!(world.record(), first_record());

    let mut world = World::formed(3);
    world.observed.record.formation = None;
    world.spec("replicas: 5");
    assert_eq!(world.replicas(), 5, "there is a leader");
    assert_eq!(world.plan().step, None);
}

#[test]
fn data_of_different_clusters_are_named_and_no_advice_costs_the_leaders() {
    // The one survivor was recovered, and leads a new cluster.
    let mut world = World::formed(3);
    world.status(1, |status| status.cluster_id = 0xd2);
    let trouble = world.plan().trouble.unwrap();
    assert_eq!(trouble.reason, "ForeignData");
    assert!(
        trouble.message.contains("00000000000000d2 has a leader")
            && trouble.message.contains("demo-1 and demo-2 of cluster"),
        "{trouble:?}"
    );
    // Without a leader nobody knows which one is meant.
    world.status(1, |status| status.set_role(Role::Follower));
    let trouble = world.plan().trouble.unwrap();
    assert!(
        trouble.message.contains("before anything is deleted"),
        "{trouble:?}"
    );
    assert_eq!(world.plan().step, None);
}

#[test]
fn nobody_forms_another_cluster_than_somebody_belongs_to() {
    let mut world = World::unformed(3);
    world.observed.record = world.record();
    world.status(1, |status| status.cluster_id = 0xd2);
    assert!(world.does().starts_with("waits"), "{}", world.does());
}

#[test]
fn a_cluster_whose_data_are_gone_is_not_begun_anew_in_silence() {
    let mut world = World::unformed(3);
    world.observed.told.cluster_id = Some("00000000000000c1".into());
    let plan = world.plan();
    assert_eq!(plan.trouble.unwrap().reason, "DataLost");
    assert_eq!(world.record(), first_record());
}

#[test]
fn a_lost_quorum_is_told_with_who_is_missing_and_the_way_back() {
    let mut world = World::formed(3);
    world.told_voters(1..=3);
    world.status(1, |status| {
        status.set_role(Role::Follower);
    });
    world.status(2, |status| (status.member_id, status.cluster_id) = (999, 0));
    world.observed.pods.remove(&3);
    world.observed.leaderless_seconds = 29;
    assert_eq!(world.plan().trouble, None);
    world.observed.leaderless_seconds = 30;
    let trouble = world.plan().trouble.unwrap();
    assert_eq!(trouble.reason, "QuorumLost");
    for part in [
        "node 2 has lost its data",
        "node 3 has no pod",
        "operator/README.md",
    ] {
        assert!(trouble.message.contains(part), "{trouble:?}");
    }
    world.status(2, |status| {
        (status.member_id, status.cluster_id) = (member(2), CLUSTER_ID);
    });
    assert_eq!(world.plan().trouble.unwrap().reason, "NoLeader");
}

#[test]
fn without_a_leader_there_are_as_many_pods_as_were_counted_on() {
    let mut world = World::formed(3);
    world.status(1, |status| status.set_role(Role::Follower));
    world.observed.stateful_set.as_mut().unwrap().replicas = 0;
    assert_eq!(world.replicas(), 1, "at least somebody to ask");
    world.told_voters(3..=3);
    assert_eq!(world.replicas(), 3);
}

#[test]
fn pods_stay_until_the_change_that_leaves_them_out_is_committed() {
    let mut world = World::formed(5);
    world.spec("replicas: 3");
    world.leaves_only(1..=3);
    world.leader().unwrap().commit_log_index = 6;
    assert_eq!(world.replicas(), 5);
    world.leader().unwrap().commit_log_index = 7;
    assert_eq!(world.replicas(), 3);
}

#[test]
fn claims_of_members_that_left_go_after_their_pods() {
    let mut world = World::formed(3);
    world.spec("replicas: 1");
    world.leaves_only(1..=1);
    for claim in world.observed.claims.values_mut() {
        claim.cluster_id = Some("00000000000000c1".into());
    }
    let deleted = |world: &World| -> Vec<String> {
        let chores = world.plan().chores.into_iter();
        chores
            .filter_map(|step| match step {
                Step::DeleteClaim { claim, .. } => Some(claim),
                _ => None,
            })
            .collect()
    };
    assert!(deleted(&world).is_empty(), "the pods are there");
    world.observed.stateful_set.as_mut().unwrap().replicas = 1;
    world.observed.pods.retain(|node, _| *node == 1);
    assert_eq!(deleted(&world), ["data-demo-1", "data-demo-2"]);
    world.leader().unwrap().commit_log_index = 6;
    assert!(deleted(&world).is_empty(), "it is not committed");
    world.leader().unwrap().commit_log_index = 7;
    world.observed.claims.get_mut(&3).unwrap().cluster_id = Some("0000000000000001".into());
    assert_eq!(
        deleted(&world),
        ["data-demo-1"],
        "the other one holds another cluster's data"
    );
    world.spec("replicas: 1\nstorage: {retention: {whenScaled: Retain}}");
    assert!(deleted(&world).is_empty());
    let kept = |world: &World| {
        let chores = world.plan().chores.into_iter();
        chores
            .filter_map(|step| match step {
                Step::KeepClaim { claim, kept, .. } => Some((claim, kept)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&world), [("data-demo-1".to_owned(), true)]);
    // Kept once, it stays when the spec no longer says so.
    world.observed.claims.get_mut(&2).unwrap().kept = true;
    world.spec("replicas: 1");
    assert!(deleted(&world).is_empty() && kept(&world).is_empty());
    world.has_pod(2);
    world.observed.claims.get_mut(&2).unwrap().kept = true;
    assert_eq!(
        kept(&world),
        [("data-demo-1".to_owned(), false)],
        "it is in use again"
    );
}

/// Somebody's `kubectl delete statefulset` took all volumes with it.
#[test]
fn claims_go_with_the_raft_cluster_where_they_are_to() {
    let owned = |world: &World| -> Vec<(String, bool)> {
        let chores = world.plan().chores.into_iter();
        chores
            .filter_map(|step| match step {
                Step::OwnClaim { claim, owner, .. } => Some((claim, owner.is_some())),
                _ => None,
            })
            .collect()
    };
    let mut world = World::formed(3);
    assert_eq!(owned(&world), []);
    world.spec("replicas: 3\nstorage: {retention: {whenDeleted: Delete}}");
    world.observed.claims.get_mut(&3).unwrap().kept = true;
    world.observed.pods.remove(&3);
    assert_eq!(
        owned(&world),
        [("data-demo-0".to_owned(), true), ("data-demo-1".to_owned(), true)]
    );
    for claim in world.observed.claims.values_mut() {
        claim.owners = vec![("RaftCluster".to_owned(), "u-1".to_owned())];
    }
    assert_eq!(
        owned(&world),
        [("data-demo-2".to_owned(), false)],
        "what was kept stays"
    );
    world.spec("replicas: 3");
    assert_eq!(owned(&world).len(), 3);
}

/// They were started, so that they counted as in use again, and went with the members that left.
#[test]
fn kept_claims_bring_no_pods_to_a_new_cluster() {
    let mut world = World::formed(5);
    for claim in world.observed.claims.values_mut() {
        claim.cluster_id = Some("00000000000000c1".into());
    }
    world.observed.pods.clear();
    world.observed.stateful_set = None;
    world.observed.told = super::super::view::Told::default();
    world.spec("replicas: 3");
    assert_eq!(world.replicas(), 5);
    for node in [4, 5] {
        world.observed.claims.get_mut(&node).unwrap().kept = true;
    }
    assert_eq!(world.replicas(), 3);
}

#[test]
fn new_pods_learn_and_then_vote_together() {
    let mut world = World::formed(1);
    world.spec("replicas: 3");
    assert_eq!(world.replicas(), 3);
    world.has_pod(2);
    assert_eq!(world.does(), "add 102");
    world.joins(2, 102, false);
    world.has_pod(3);
    assert_eq!(world.does(), "add 103");
    world.joins(3, 103, false);
    assert_eq!(world.does(), "promote 102, promote 103");
    for node in [2, 3] {
        world.status(node, |status| status.cluster_id = CLUSTER_ID);
    }
    world.leader().unwrap().progress[1].caught_up = false;
    assert_eq!(world.does(), "waits: waits until node 3 has caught up");
    world.leader().unwrap().progress[1].caught_up = true;
    world.spec("replicas: 5");
    assert_eq!(
        world.does(),
        "waits: waits with 2 new members until node 4 is there, too: all vote from the same change on"
    );
}

#[test]
fn who_leaves_hands_over_and_goes_in_one_change_before_its_pod() {
    let mut world = World::formed(5);
    world.spec("replicas: 3");
    assert_eq!(world.does(), "remove 104, remove 105");
    assert_eq!(world.replicas(), 5, "they still count");
    world.leader().unwrap().set_role(Role::Follower);
    let configuration = world.pod(1).node.as_ref().unwrap().configuration.clone();
    let progress = world.pod(1).node.as_ref().unwrap().progress.clone();
    world.status(5, |status| {
        status.set_role(Role::Leader);
        status.configuration = configuration;
        status.commit_log_index = 9;
        status.progress = progress;
        for progress in &mut status.progress {
            // What the new leader knows of the old one.
            if progress.node == 5 {
                (progress.node, progress.member_id) = (1, member(1));
            }
        }
    });
    assert_eq!(world.does(), "transfer to 1");

    let mut world = World::formed(5);
    world.spec("replicas: 3");
    world.leaves_only(1..=3);
    assert_eq!(world.replicas(), 3);
}

#[test]
fn nothing_is_decided_in_the_middle_of_a_change_or_without_a_leader() {
    let mut world = World::formed(3);
    world.spec("replicas: 1");
    world.leader().unwrap().configuration.as_mut().unwrap().old_voters = vec![OldVoter::default()];
    assert!(world.does().contains("under way"));
    let mut world = World::formed(3);
    world.spec("replicas: 1");
    world.status(1, |status| status.set_role(Role::Follower));
    assert_eq!(world.does(), "waits: waits until a leader is elected");
    assert_eq!(world.replicas(), 3);
}

#[test]
fn a_lost_volume_comes_back_as_a_new_member() {
    let mut world = World::formed(3);
    world.status(2, |status| {
        status.member_id = 202;
        status.cluster_id = 0;
    });
    assert_eq!(world.does(), "add 202");
    world.joins(2, 202, false);
    assert_eq!(world.does(), "promote 202, remove 102");
    // And lost again before it was a voter.
    world.status(2, |status| status.member_id = 302);
    assert_eq!(world.does(), "remove 202");
}

#[test]
fn a_removed_member_is_never_revived() {
    let mut world = World::formed(3);
    world.spec("replicas: 5");
    world.has_pod(4);
    world.status(4, |status| status.cluster_id = CLUSTER_ID);
    assert_eq!(world.does(), "delete demo-3");
    world.pod(4).age_seconds = 20;
    assert_eq!(world.does(), "waits: ", "it may still hear of it");
    world.status(4, |status| status.was_removed = true);
    assert_eq!(world.does(), "delete demo-3", "it has");
    world.status(4, |status| {
        (status.cluster_id, status.was_removed, status.member_id) = (0, true, 204);
    });
    assert_eq!(world.does(), "add 204");

    // A learner that was away when it was removed never finds out by itself.
    world.status(4, |status| {
        (status.cluster_id, status.was_removed) = (CLUSTER_ID, false);
    });
    world.pod(4).age_seconds = 100;
    world.observed.strays_deleted.insert(4, 1);
    assert_eq!(world.does(), "delete demo-3");
    world.observed.strays_deleted.insert(4, 2);
    assert_eq!(world.plan().step, None);
    let trouble = world.plan().trouble.unwrap();
    assert!(
        trouble.message.contains("delete claim data-demo-3"),
        "{trouble:?}"
    );
}

#[test]
fn a_rollout_goes_from_the_last_follower_to_the_leader() {
    let mut world = World::formed(3);
    world.spec("replicas: 3\nlog: {level: debug}");
    world.has_stateful_set(3);
    let revision = pod::revision(&world.template()).map(str::to_owned);
    assert_eq!(world.does(), "evict demo-2");
    world.pod(3).deleting = true;
    assert!(
        world.does().contains("until the pod of node 3 is back"),
        "{}",
        world.does()
    );
    world.pod(3).deleting = false;
    world.pod(3).revision.clone_from(&revision);
    world.leader().unwrap().progress[1].caught_up = false;
    assert!(world.does().contains("until node 3 is ready"), "{}", world.does());
    world.leader().unwrap().progress[1].caught_up = true;
    assert_eq!(world.does(), "evict demo-1");
    world.pod(2).revision.clone_from(&revision);
    assert_eq!(world.does(), "transfer to 2");
}

#[test]
fn a_single_replica_restarts_at_once() {
    let mut world = World::formed(1);
    world.spec("replicas: 1\nlog: {level: debug}");
    world.has_stateful_set(1);
    assert_eq!(world.does(), "evict demo-0");
}

#[test]
fn who_does_not_vote_restarts_at_once_and_who_is_unready_only_with_a_quorum() {
    let mut world = World::formed(3);
    world.spec("replicas: 3\nlog: {level: debug}");
    world.has_stateful_set(3);
    world.silent(2);
    assert_eq!(world.does(), "delete demo-1");
    world.silent(3);
    assert_eq!(world.does(), "delete demo-2");

    let mut world = World::formed(3);
    world.spec("replicas: 3\nlog: {level: debug}");
    world.has_stateful_set(3);
    world.pod(2).ready = false;
    assert!(
        world.does().contains("whether demo-1 becomes ready"),
        "{}",
        world.does()
    );
    world.pod(2).unready_seconds = 10;
    assert_eq!(world.does(), "delete demo-1");
    world.pod(2).node = None;
    assert_eq!(world.does(), "delete demo-1", "the leader knows whose pod it is");
    world.pod(3).node = None;
    world.leader().unwrap().progress[1].last_contact_milliseconds = 60_000;
    world.pod(3).revision = pod::revision(&world.template()).map(str::to_owned);
    assert!(world.does().contains("no quorum without it"), "{}", world.does());
}

#[test]
fn a_rollout_that_fails_stops_and_the_last_good_template_is_back() {
    let mut world = World::formed(3);
    let good = world.revision();
    world.spec("replicas: 3\nimage: {pullPolicy: Never}");
    world.has_stateful_set(3);
    let bad = world.revision();
    assert_ne!(good, bad);
    world.silent(3);
    world.pod(3).revision = Some(bad.clone());
    world.pod(3).problem = Some(Problem {
        reason: "ErrImageNeverPull".into(),
        message: "no such image".into(),
        of_container: true,
    });
    world.pod(3).unready_seconds = 5;
    assert!(world.does().contains("until node 3 is ready"), "{}", world.does());
    world.pod(3).unready_seconds = 40;
    let plan = world.plan();
    assert_eq!(plan.trouble.as_ref().unwrap().reason, "RolloutStopped");
    assert_eq!(world.revision(), good);
    assert_eq!(world.record().failed.unwrap().revision, bad);
    world.observed.record = world.record();
    assert_eq!(world.plan().step, None, "the StatefulSet has it not yet");
    world.observed.stateful_set.as_mut().unwrap().revision = Some(good.clone());
    assert_eq!(
        world.does(),
        "delete demo-2",
        "what failed goes back to what worked"
    );
    world.pod(3).problem = None;
    world.pod(3).revision = Some(good.clone());
    assert_eq!(world.revision(), good, "it is not tried again");

    world.spec("replicas: 5\nimage: {pullPolicy: Never}");
    world.cluster.metadata.generation = Some(3);
    assert_eq!(
        world.revision(),
        good,
        "not for a change of something else either"
    );
    world.spec("replicas: 3\nimage: {pullPolicy: Never}\npodAnnotations: {try: again}");
    assert_ne!(
        world.revision(),
        good,
        "until the spec says something else about pods"
    );
    assert_eq!(world.record().failed, None);
}

#[test]
fn a_pod_that_no_machine_takes_is_no_fault_of_its_template() {
    let mut world = World::formed(3);
    world.spec("replicas: 3\nimage: {pullPolicy: Never}");
    world.has_stateful_set(3);
    let new = world.revision();
    world.observed.stateful_set.as_mut().unwrap().origin.generation = Some(2);
    world.silent(3);
    world.pod(3).revision = Some(new.clone());
    world.pod(3).unready_seconds = 3_600;
    world.pod(3).problem = Some(Problem {
        reason: "Unschedulable".into(),
        message: "no machine".into(),
        of_container: false,
    });
    assert_eq!(world.plan().trouble, None);
    assert_eq!(world.revision(), new);

    world.pod(3).problem = None;
    world.pod(3).started = true;
    let trouble = world.plan().trouble.unwrap();
    assert!(
        trouble.message.contains("its node does not answer"),
        "{trouble:?}"
    );
}

/// As while the network between the operator and the pods is down.
#[test]
fn an_operator_that_hears_nobody_restarts_nobody() {
    let mut world = World::formed(3);
    world.spec("replicas: 3\nlog: {level: debug}");
    world.has_stateful_set(3);
    for node in 1..=3 {
        world.pod(node).node = None;
        world.pod(node).silent = true;
        world.pod(node).started = true;
    }
    world.told_voters(1..=1);
    world.observed.leaderless_seconds = 3_600;
    assert_eq!(world.plan().step, None, "{}", world.does());
    assert_eq!(world.plan().trouble.unwrap().reason, "NodesUnreachable");
}

#[test]
fn a_new_leader_that_has_heard_of_nobody_yet_costs_nobody_their_pod() {
    let mut world = World::formed(5);
    world.spec("replicas: 5\nlog: {level: debug}");
    world.has_stateful_set(5);
    for progress in &mut world.leader().unwrap().progress {
        (progress.match_log_index, progress.caught_up) = (0, false);
    }
    assert!(world.does().starts_with("waits"), "{}", world.does());
}

#[test]
fn unready_pods_go_one_at_a_time() {
    let mut world = World::formed(5);
    world.spec("replicas: 5\nlog: {level: debug}");
    world.has_stateful_set(5);
    for node in 1..=5 {
        world.pod(node).ready = false;
        world.pod(node).unready_seconds = 100;
    }
    assert_eq!(world.does(), "delete demo-4");
    world.pod(5).deleting = true;
    assert!(
        world.does().contains("until the pod of node 5 is back"),
        "{}",
        world.does()
    );
    world.observed.pods.remove(&5);
    assert!(
        world.does().contains("until the pod of node 5 is back"),
        "{}",
        world.does()
    );
}

#[test]
fn nodes_that_all_answer_and_elect_nobody_get_the_template_that_is_asked_for() {
    let mut world = World::formed(3);
    world.spec("replicas: 3\nraft: {electionTimeout: {min: 1s, max: 2s}, heartbeatInterval: 300ms}");
    world.has_stateful_set(3);
    world.status(1, |status| status.set_role(Role::Candidate));
    world.observed.leaderless_seconds = 59;
    assert!(world.does().contains("until a leader"), "{}", world.does());
    world.observed.leaderless_seconds = 60;
    assert_eq!(world.does(), "delete demo-2");
    let gone = world.observed.pods.remove(&3).unwrap();
    assert!(
        world.does().starts_with("waits"),
        "one at a time: {}",
        world.does()
    );
    world.observed.pods.insert(3, gone);
    world.pod(3).age_seconds = 59;
    assert!(
        world.does().starts_with("waits"),
        "it may still be elected: {}",
        world.does()
    );
    world.pod(3).age_seconds = 60;
    world.pod(2).node = None;
    world.pod(2).started = true;
    assert!(world.does().starts_with("waits"), "{}", world.does());
}

#[test]
fn a_cluster_that_was_created_broken_is_repaired_by_its_spec() {
    let mut world = World::unformed(3);
    for node in 1..=3 {
        world.silent(node);
        world.pod(node).problem = Some(Problem {
            reason: "ImagePullBackOff".into(),
            message: "no such image".into(),
            of_container: true,
        });
    }
    assert_eq!(
        world.does(),
        "waits: waits for the nodes of demo-0, demo-1, demo-2"
    );
    world.spec("replicas: 3\nimage: {pullPolicy: Always}");
    world.has_stateful_set(3);
    assert_eq!(world.does(), "delete demo-2");
}

#[test]
fn a_template_that_worked_is_remembered() {
    let mut world = World::formed(3);
    world.observed.record.good_template = None;
    assert!(world.record().good_template.is_some());
    world.pod(2).ready = false;
    assert!(world.record().good_template.is_none());
}

#[test]
fn a_new_operator_rolls_only_when_it_is_the_clusters_turn() {
    let mut world = World::formed(3);
    // What a new version changes in templates, seen from the clusters that it finds.
    world.observed.record.good_template.as_mut().unwrap()["metadata"]["annotations"]["raftlog.io/revision"] =
        json!("old");
    world.observed.stateful_set.as_mut().unwrap().revision = Some("old".into());
    for node in 1..=3 {
        world.pod(node).revision = Some("old".into());
    }
    world.turn_of = Some("other".into());
    let plan = world.plan();
    assert!(plan.wants_to_roll);
    assert_eq!(plan.step, None);
    world.turn_of = None;
    assert!(world.plan().wants_to_roll, "it keeps its turn until it is done");
    world.has_stateful_set(3);
    world.observed.stateful_set.as_mut().unwrap().origin.by_operator = true;
    assert_eq!(world.does(), "evict demo-2");
    world.turn_of = Some("other".into());
    assert_eq!(world.plan().step, None, "another one has its turn");
    // What the spec asks for waits for nobody.
    world.spec("replicas: 3\nlog: {level: debug}");
    world.has_stateful_set(3);
    assert_eq!(world.does(), "evict demo-2");
    assert!(!world.plan().wants_to_roll);
}

#[test]
fn images_move_only_when_the_spec_says_so() {
    let mut world = World::formed(3);
    let before = world.revision();
    world.images.node = "raft-node:2".into();
    assert_eq!(world.revision(), before, "another operator's choice");
    world.spec("image: {node: 'raft-node:3'}");
    assert_ne!(world.revision(), before);
    world.spec("replicas: 3");
    assert_eq!(world.revision(), before, "what was chosen first is back");
}

#[test]
fn the_leaders_label_comes_before_the_others_go() {
    let mut world = World::formed(3);
    world.pod(1).role = Some("follower".into());
    world.pod(2).role = Some("leader".into());
    assert_eq!(
        labelled(&world),
        [("demo-0".to_owned(), "leader"), ("demo-1".to_owned(), "follower")]
    );
}

fn labelled(world: &World) -> Vec<(String, &'static str)> {
    let chores = world.plan().chores.into_iter();
    chores
        .filter_map(|step| match step {
            Step::Label { pod, role, .. } => Some((pod, role)),
            _ => None,
        })
        .collect()
}

/// Services and the StatefulSet lost sight of a pod that somebody took a label from, and nobody said so.
#[test]
fn labels_that_pods_are_known_by_are_put_back() {
    let mut world = World::formed(3);
    assert_eq!(labelled(&world), []);
    world.pod(3).unlabelled = true;
    assert_eq!(labelled(&world), [("demo-2".to_owned(), "follower")]);
}

#[test]
fn claims_say_whose_data_they_hold_and_grow() {
    let mut world = World::formed(1);
    world.spec("replicas: 1\nstorage: {size: 2Gi}");
    let chores: BTreeMap<&str, Step> = world
        .plan()
        .chores
        .into_iter()
        .map(|step| (step.label(), step))
        .collect();
    assert!(
        matches!(&chores["annotate"], Step::AnnotateClaim { cluster_id, .. } if cluster_id == "00000000000000c1")
    );
    assert!(matches!(&chores["grow"], Step::GrowClaim { size, .. } if size == "2Gi"));
    let set = World::stateful_set_of(&world.plan()).clone();
    let claim = &set["spec"]["volumeClaimTemplates"][0];
    assert_eq!(
        claim["spec"]["resources"]["requests"]["storage"], "1Gi",
        "it cannot be changed"
    );
}

const MACHINE: &str = "replicas: 3\nreplicator: {executor: {stateMachine: {image: kv}}}";

/// Operations are applied by containers of the user's, which run.
fn with_machines(replicas: u32) -> World {
    let mut world = World::formed(replicas);
    world.cluster = cluster(&MACHINE.replace("replicas: 3", &format!("replicas: {replicas}")));
    world.observed.record.good_template = Some(world.template());
    world.has_stateful_set(replicas);
    let revision = world.revision();
    for node in 1..=replicas {
        world.pod(node).revision = Some(revision.clone());
        world.pod(node).state_machine = Some(StateMachineView {
            ready: true,
            others_ready: true,
            runs_seconds: Some(100),
            ..StateMachineView::default()
        });
    }
    world
}

/// That container ends again and again.
fn crashes(world: &mut World, node: u32) {
    let pod = world.pod(node);
    (pod.ready, pod.unready_seconds) = (false, 40);
    pod.state_machine = Some(StateMachineView {
        ready: false,
        others_ready: true,
        restarts: 4,
        ended_seconds: Some(40),
        problem: Some(Problem {
            reason: "CrashLoopBackOff".into(),
            message: "container state-machine: ended with exit code 3".into(),
            of_container: true,
        }),
        runs_seconds: None,
    });
}

#[test]
fn a_state_machine_is_part_of_the_template() {
    let world = with_machines(3);
    let before = world.revision();
    for spec in [
        "replicator: {executor: {stateMachine: {image: 'kv:2'}}}",
        "replicator: {executor: {stateMachine: {image: kv, resources: {limits: {memory: 1Gi}}}}}",
        "replicator: {executor: {log: {}}}",
    ] {
        let mut other = with_machines(3);
        other.spec(spec);
        assert_ne!(other.revision(), before, "{spec}");
    }
}

/// All of them end at the same operation.
#[test]
fn state_machines_that_crash_are_repaired_by_the_spec() {
    let mut world = with_machines(3);
    for node in 1..=3 {
        crashes(&mut world, node);
    }
    assert_eq!(world.plan().step, None);
    assert_eq!(world.plan().trouble, None, "nodes serve");
    world.spec(&MACHINE.replace("kv", "'kv:2'"));
    world.has_stateful_set(3);
    assert_eq!(world.does(), "delete demo-2");
    let revision = world.revision();
    let pod = world.pod(3);
    (pod.ready, pod.unready_seconds, pod.revision) = (true, 0, Some(revision));
    pod.state_machine = Some(StateMachineView {
        ready: true,
        others_ready: true,
        runs_seconds: Some(1),
        ..StateMachineView::default()
    });
    assert_eq!(world.does(), "delete demo-1", "it serves as badly as it can");
}

#[test]
fn a_single_state_machine_that_crashes_is_repaired_too() {
    let mut world = with_machines(1);
    crashes(&mut world, 1);
    world.spec(
        &MACHINE
            .replace("kv", "'kv:2'")
            .replace("replicas: 3", "replicas: 1"),
    );
    world.has_stateful_set(1);
    assert_eq!(world.does(), "delete demo-0");
    world.pod(1).unready_seconds = 1;
    assert!(
        world.does().contains("whether demo-0 becomes ready"),
        "{}",
        world.does()
    );
}

/// Kubernetes takes it for ready as soon as it runs.
#[test]
fn the_next_pod_restarts_when_the_state_machine_before_has_run_for_a_while() {
    let mut world = with_machines(3);
    let good = world.revision();
    world.spec(&MACHINE.replace("kv", "'kv:2'"));
    world.has_stateful_set(3);
    let new = world.revision();
    assert_eq!(world.does(), "evict demo-2");
    world.pod(3).revision = Some(new.clone());
    world.pod(3).state_machine.as_mut().unwrap().runs_seconds = Some(3);
    assert!(
        world
            .does()
            .contains("until the state machine of demo-2 has run for a while"),
        "{}",
        world.does()
    );
    world.pod(3).state_machine.as_mut().unwrap().runs_seconds = Some(10);
    assert_eq!(world.does(), "evict demo-1");
    // It does not, for long: nobody else gets it.
    crashes(&mut world, 3);
    let trouble = world.plan().trouble.unwrap();
    assert!(
        trouble.reason == "RolloutStopped" && trouble.message.contains("exit code 3"),
        "{trouble:?}"
    );
    assert_eq!(world.revision(), good);

    let mut world = with_machines(3);
    world.observed.record.good_template = None;
    assert!(world.record().good_template.is_some());
    world.pod(2).state_machine.as_mut().unwrap().runs_seconds = Some(3);
    assert!(world.record().good_template.is_none(), "it may end at once");
}

#[test]
fn services_reach_pods_that_wait_for_nothing_but_their_state_machine() {
    // demo-peers, demo and demo-leader.
    const READY: [bool; 3] = [true, false, false];
    const ALL: [bool; 3] = [true, true, true];
    let published = |world: &World| -> Vec<bool> {
        let plan = world.plan();
        let services = plan.objects.iter().filter(|object| object.kind == Kind::Service);
        services
            .map(|service| service.body.as_ref().unwrap()["spec"]["publishNotReadyAddresses"] == true)
            .collect()
    };
    let mut world = with_machines(3);
    assert_eq!(published(&world), READY);
    crashes(&mut world, 2);
    assert_eq!(published(&world), ALL);
    world.pod(2).deleting = true;
    assert_eq!(published(&world), READY, "it goes");
    world.pod(2).deleting = false;
    // It runs, until it ends again.
    let runs = |world: &mut World, restarts, ended_seconds| {
        world.pod(2).ready = true;
        let machine = world.pod(2).state_machine.as_mut().unwrap();
        machine.ready = true;
        (machine.restarts, machine.ended_seconds) = (restarts, Some(ended_seconds));
    };
    for (restarts, ended_seconds, expected) in [(1, 5, READY), (2, 5, ALL), (2, 599, ALL), (9, 600, READY)] {
        runs(&mut world, restarts, ended_seconds);
        assert_eq!(
            published(&world),
            expected,
            "{restarts} restarts, {ended_seconds} s"
        );
    }
    // Another container is not ready either.
    crashes(&mut world, 2);
    let machine = world.pod(2).state_machine.as_mut().unwrap();
    (machine.others_ready, machine.restarts) = (false, 1);
    assert_eq!(published(&world), READY);
}

/// There are no others that it would have to wait for.
#[test]
fn a_single_replica_that_is_not_ready_restarts() {
    let mut world = World::formed(1);
    world.spec("replicas: 1\nlog: {level: debug}");
    world.has_stateful_set(1);
    world.pod(1).ready = false;
    world.pod(1).unready_seconds = 10;
    world.status(1, |status| status.ready = false);
    assert_eq!(world.does(), "delete demo-0");
}
