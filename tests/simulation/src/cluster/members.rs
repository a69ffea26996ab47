//! Who belongs to the cluster: an operator who changes that, and whose disks may be lost meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use raftlog_raft::ids::{LogIndex, MemberId, NodeNumber};
use raftlog_raft::membership::{Configuration, Member};
use raftlog_server::node::{Change, Input, MembershipChange};
use rand::RngExt;
use rand::seq::IndexedRandom as _;

use super::processes::{Process, address};
use super::{Cluster, violation};
use crate::coverage::Seen;
use crate::happening::{Happening, Target};

impl Cluster {
    /// An operator changes something about the members, as the leader sees them.
    pub(super) fn change_membership(&mut self) {
        if self.has_healed() {
            return;
        }
        // Also one that does not know yet that it leads no more.
        let leaders: Vec<NodeNumber> = self.numbers().filter(|&number| self.leads(number)).collect();
        let Some(&leader) = leaders.choose(&mut self.random) else {
            return;
        };
        let asked = if self.one_in(10) { self.any_pod() } else { leader };
        let Some(configuration) = self.configuration_of(leader).cloned() else {
            return;
        };
        let changes = self.wished_changes(&configuration);
        if !self.is_reasonable(&configuration, &changes) {
            return;
        }
        let stale = u64::from(self.one_in(10) && configuration.version > 0);
        let change = MembershipChange {
            id: 0,
            expected_version: configuration.version - stale,
            changes,
            force: self.one_in(4),
            dry_run: self.one_in(10),
        };
        let now = self.shown(asked);
        if let Some(process) = &mut self.pod(asked).node {
            process.node.handle(now, Input::ChangeMembership(change));
            self.count(Seen::ChangeAsked);
            self.settle(asked);
            self.disturb_change(asked);
        }
    }

    /// Another operator does not wait for the end of it; or whoever was asked is cut off with what it has appended.
    fn disturb_change(&mut self, asked: NodeNumber) {
        let at = self.soon(self.options.delay_max * 4);
        if self.one_in(3) {
            self.agenda.add(at, Target::World, Happening::ChangeMembership);
        } else if self.one_in(2) {
            let happening = Happening::Isolate(asked, self.options.election_timeout * 6);
            self.agenda.add(at, Target::World, happening);
        }
    }

    /// The configuration in force at that node.
    fn configuration_of(&self, number: NodeNumber) -> Option<&Configuration> {
        let raft = self.pods[&number].node.as_ref()?.node.raft()?;
        Some(raft.configuration())
    }

    fn wished_changes(&mut self, configuration: &Configuration) -> Vec<Change> {
        let strangers = self.strangers(configuration);
        let learners: Vec<Member> = of_role(configuration, false);
        let voters: Vec<Member> = of_role(configuration, true);
        let mut changes = Vec::new();
        // Whoever lost its disk is to be replaced; and there may be several changes at once.
        for learner in &learners {
            if let Some(old) = voters.iter().find(|voter| voter.node == learner.node) {
                changes.push(Change::Promote(learner.id));
                changes.push(Change::Remove(old.id));
            }
        }
        if !changes.is_empty() && self.random.random_bool(0.7) {
            return changes;
        }
        changes.clear();
        for _ in 0..self.random.random_range(1..=2) {
            let some_learner = learners.choose(&mut self.random).map(|member| member.id);
            let some_voter = voters.choose(&mut self.random).map(|member| member.id);
            changes.extend(match self.random.random_range(0..6) {
                0 | 1 => strangers
                    .choose(&mut self.random)
                    .map(|member| Change::AddLearner(member.clone())),
                2 | 3 => some_learner.map(Change::Promote),
                4 => some_voter.map(Change::Demote),
                _ if self.one_in(3) => some_learner.map(Change::Remove),
                _ => some_voter.map(Change::Remove),
            });
        }
        changes
    }

    /// Nodes that are there and do not belong.
    fn strangers(&self, configuration: &Configuration) -> Vec<Member> {
        let stranger = |(&node, pod): (&NodeNumber, &crate::pod::Pod)| {
            let id = pod.node.as_ref()?.node.member_id();
            configuration.member(id).is_none().then(|| Member {
                id,
                node,
                peer_address: address(node),
                client_address: address(node),
                voter: false,
            })
        };
        self.pods.iter().filter_map(stranger).collect()
    }

    /// Whether a majority will be left that has lost nothing.
    fn is_reasonable(&self, configuration: &Configuration, changes: &[Change]) -> bool {
        let Ok(target) = configuration.changed(changes) else {
            return false;
        };
        let enough = if self.options.nodes > 1 { 2 } else { 1 };
        !changes.is_empty() && target.voters().count() >= enough && target.is_quorum(|id| self.is_sound(id))
    }

    /// Whether that node may lose what it has on disk: all have formed the cluster, and a majority keeps what it has, of every
    /// configuration that anybody may act by.
    pub(super) fn may_be_impaired(&mut self, number: NodeNumber) -> bool {
        let Some(member) = self.pods[&number].member else {
            return false;
        };
        let initial = 1..=self.options.nodes;
        let has_formed = self
            .pods
            .iter()
            .all(|(number, pod)| pod.has_formed || !initial.contains(number));
        let keeps =
            |configuration: &&Configuration| configuration.is_quorum(|id| id != member && self.is_sound(id));
        let may = has_formed && (self.lost.contains(&member) || self.configurations().all(|c| keeps(&c)));
        if may {
            self.lost.insert(member);
        }
        may
    }

    /// Who has lost nothing, and has ever had something: a new member that has not heard of the cluster yet votes for nobody.
    fn is_sound(&self, id: MemberId) -> bool {
        !self.lost.contains(&id) && self.invariants.configuration(id).is_some()
    }

    /// By which the members act, as far as is known.
    fn configurations(&self) -> impl Iterator<Item = &Configuration> {
        let members = self.pods.values().filter_map(|pod| pod.member);
        members
            .filter(|member| !self.lost.contains(member))
            .filter_map(|member| self.invariants.configuration(member))
    }

    /// Pods that are needed once faults have ended: those that lost nothing, less some where a majority remains of every
    /// configuration. Until all have formed the cluster nobody can be spared.
    pub(super) fn choose_core(&mut self) {
        let is_sound = |pod: &crate::pod::Pod| {
            !pod.is_given_up && pod.member.is_none_or(|member| !self.lost.contains(&member))
        };
        let pods = self.pods.iter().filter(|(_, pod)| is_sound(pod));
        let mut core: Vec<NodeNumber> = pods.map(|(&number, _)| number).collect();
        let initial = 1..=self.options.nodes;
        let has_formed = self
            .pods
            .iter()
            .all(|(number, pod)| pod.has_formed || !initial.contains(number));
        if has_formed {
            let spared = self.random.random_range(0..=core.len());
            for _ in 0..spared {
                let at = self.random.random_range(0..core.len());
                let number = core.swap_remove(at);
                if core.is_empty() || !self.is_majority(&core) {
                    core.push(number);
                    break;
                }
            }
        }
        self.core = core.into_iter().collect();
    }

    fn is_majority(&self, core: &[NodeNumber]) -> bool {
        let there: BTreeSet<MemberId> = core
            .iter()
            .filter_map(|number| self.pods[number].member)
            .filter(|&member| self.is_sound(member))
            .collect();
        self.configurations()
            .all(|configuration| configuration.is_quorum(|id| there.contains(&id)))
    }

    /// Whether that pod belongs to the cluster as it was last committed.
    pub(super) fn belongs(&self, number: NodeNumber) -> bool {
        let (Some(latest), Some(member)) = (self.latest_configuration(), self.pods[&number].member) else {
            return true;
        };
        latest.member(member).is_some()
    }

    /// The cluster's configuration as it was last committed.
    fn latest_configuration(&self) -> Option<&Configuration> {
        let rafts = self.core.iter().filter_map(|number| {
            let process = self.pods[number].node.as_ref()?;
            process.node.raft()
        });
        let latest = rafts.max_by_key(|raft| raft.commit())?;
        Some(latest.committed_configuration())
    }

    /// A voter whose committed configuration does not list the candidate says so.
    pub(super) fn tell_removed(&mut self, voter: NodeNumber, candidate: NodeNumber, member: MemberId) {
        let Some(raft) = self.pods[&voter]
            .node
            .as_ref()
            .and_then(|process| process.node.raft())
        else {
            return;
        };
        let version = raft.configuration().version;
        if version <= raft.commit() && raft.configuration().member(member).is_none() {
            self.call(voter, candidate, None, Happening::Removed(member, version));
        }
    }

    /// Who counts in a majority keeps its log.
    fn judge_removal(&mut self, number: NodeNumber, version: LogIndex) {
        let (Some(latest), Some(member)) = (self.latest_configuration(), self.pods[&number].member) else {
            return;
        };
        if latest.version > version && latest.is_voter(member) {
            let what = format!(
                "node {number} gives up member {member}, removed by configuration {version}, of which {} makes a voter",
                latest.version
            );
            self.judge(violation("removal", what));
        }
    }

    /// A node that was removed by that configuration, as its disk says, starts with an empty folder.
    pub(super) fn moves_aside(&mut self, number: NodeNumber, version: LogIndex) {
        self.judge_removal(number, version);
        self.count(Seen::MovedAside);
        self.tell(|| format!("node {number} was removed and starts as a new member"));
        self.lost.extend(self.pods[&number].member);
        let pod = self.pod(number);
        pod.node_disk.wipe();
        pod.forged = None;
        let pod = self.pod(number);
        pod.removed = pod.member;
        self.start_one_soon(number, Process::Node, Duration::from_secs(1));
    }
}

fn of_role(configuration: &Configuration, voter: bool) -> Vec<Member> {
    let members = configuration.lasting_members();
    members.filter(|member| member.voter == voter).cloned().collect()
}
