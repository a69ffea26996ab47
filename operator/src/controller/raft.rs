//! The cluster in Raft's view: what its leader says, and who of the others can be counted on.

use std::collections::BTreeMap;
use std::time::Duration;

use raftlog_proto::v1::{Configuration, Member, MemberProgress, NodeStatus, Role};

use super::view::PodView;

/// An identity, as people and API objects are told it: 16 hex digits.
pub fn hex(id: u64) -> String {
    format!("{id:016x}")
}

/// The view of one moment.
#[derive(Debug, Clone, Copy)]
pub struct Raft<'a> {
    /// Node number of the leader's pod, and what it says.
    pub leader: Option<(u32, &'a NodeStatus)>,
    /// The highest term that anybody told.
    pub term: u64,
    patience: Duration,
}

impl<'a> Raft<'a> {
    /// Of what nodes say. A leader counts if nobody of its cluster knows of a later term, and if no other cluster has one; a
    /// member is live that answered it within `patience`.
    pub fn new(pods: &'a BTreeMap<u32, PodView>, patience: Duration) -> Self {
        let told = || {
            pods.iter()
                .filter_map(|(node, pod)| Some((*node, pod.node.as_ref()?)))
        };
        let term_of = |cluster: u64| {
            let of_it = told().filter(|(_, status)| status.cluster_id == cluster);
            of_it.map(|(_, status)| status.term).max().unwrap_or_default()
        };
        let mut leaders = told()
            .filter(|(_, status)| status.role() == Role::Leader && status.term == term_of(status.cluster_id));
        let leader = leaders.next().filter(|_| leaders.next().is_none());
        let highest = told().map(|(_, status)| status.term).max().unwrap_or_default();
        Self {
            leader,
            term: leader.map_or(highest, |(_, status)| status.term),
            patience,
        }
    }

    /// Who belongs, as the leader sees it.
    pub fn configuration(&self) -> Option<&'a Configuration> {
        self.leader.and_then(|(_, status)| status.configuration.as_ref())
    }

    /// All members, those that leave a joint configuration included.
    pub fn members(&self) -> &'a [Member] {
        self.configuration()
            .map_or(&[], |configuration| &configuration.members)
    }

    /// The member of that identity.
    pub fn member(&self, member_id: u64) -> Option<&'a Member> {
        self.members().iter().find(|member| member.member_id == member_id)
    }

    /// Whether a change is under way: a configuration is in force from its append on, and counts once it is committed.
    pub fn is_changing(&self) -> bool {
        let committed = self.leader.map_or(0, |(_, status)| status.commit_log_index);
        self.configuration().is_some_and(|configuration| {
            !configuration.old_voters.is_empty() || configuration.version > committed
        })
    }

    /// Members whose votes count.
    pub fn voters(&self) -> impl Iterator<Item = &'a Member> + Clone + use<'a> {
        self.members().iter().filter(|member| member.voter)
    }

    /// The voter of that node, as the leader sees it.
    pub fn voter_of(&self, node: u32) -> Option<&'a Member> {
        self.voters().find(|voter| voter.node == node)
    }

    fn leads(&self, member_id: u64) -> bool {
        self.leader
            .is_some_and(|(_, status)| status.member_id == member_id)
    }

    fn progress(&self, member_id: u64) -> Option<&'a MemberProgress> {
        let (_, status) = self.leader?;
        status
            .progress
            .iter()
            .find(|progress| progress.member_id == member_id)
    }

    /// Whether the leader can count on it.
    pub fn is_live(&self, member_id: u64) -> bool {
        let answered = |progress: &MemberProgress| {
            Duration::from_millis(progress.last_contact_milliseconds) <= self.patience
                && progress.match_log_index > 0
        };
        self.leads(member_id) || self.progress(member_id).is_some_and(answered)
    }

    /// Whether it holds the log.
    pub fn is_caught_up(&self, member_id: u64) -> bool {
        self.leads(member_id)
            || (self.is_live(member_id)
                && self
                    .progress(member_id)
                    .is_some_and(|progress| progress.caught_up))
    }

    /// Highest log index known to be on its disk; what a leader has in its log is there within moments.
    pub fn match_log_index(&self, member_id: u64) -> u64 {
        match self.leader {
            Some((_, status)) if status.member_id == member_id => status.last_log_index,
            _ => self
                .progress(member_id)
                .map_or(0, |progress| progress.match_log_index),
        }
    }

    /// Whether a majority is left when that one goes away for a while.
    pub fn keeps_quorum_without(&self, member_id: u64) -> bool {
        let live = self
            .voters()
            .filter(|voter| voter.member_id != member_id && self.is_live(voter.member_id));
        live.count() > self.voters().count() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{World, member};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    #[test]
    fn the_leader_of_the_latest_term_counts() {
        let mut world = World::formed(3);
        world.status(3, |status| status.term = 9);
        let raft = Raft::new(&world.observed.pods, PATIENCE);
        assert_eq!(
            (raft.leader.is_none(), raft.term),
            (true, 9),
            "the leader is of an earlier term"
        );
        world.status(3, |status| status.set_role(Role::Leader));
        let raft = Raft::new(&world.observed.pods, PATIENCE);
        assert_eq!(raft.leader.map(|(node, _)| node), Some(3));
    }

    #[test]
    fn clusters_do_not_share_terms_and_two_leaders_are_none() {
        let mut world = World::formed(3);
        world.status(3, |status| (status.cluster_id, status.term) = (9, 40));
        let leader = |world: &World| {
            let raft = Raft::new(&world.observed.pods, PATIENCE);
            raft.leader.map(|(node, status)| (node, status.term, raft.term))
        };
        assert_eq!(
            leader(&world),
            Some((1, 2, 2)),
            "another cluster's term says nothing"
        );
        world.status(3, |status| status.set_role(Role::Leader));
        assert_eq!(leader(&world), None, "nobody knows which one is meant");
    }

    #[test]
    fn a_configuration_that_is_not_committed_is_a_change_under_way() {
        let mut world = World::formed(3);
        assert!(!Raft::new(&world.observed.pods, PATIENCE).is_changing());
        world.status(1, |status| status.commit_log_index = 6);
        assert!(Raft::new(&world.observed.pods, PATIENCE).is_changing());
    }

    #[test]
    fn a_majority_must_be_left() {
        let mut world = World::formed(3);
        let raft = Raft::new(&world.observed.pods, PATIENCE);
        assert!(raft.keeps_quorum_without(member(2)));
        world.silent(3);
        let raft = Raft::new(&world.observed.pods, PATIENCE);
        assert!(!raft.keeps_quorum_without(member(2)), "node 3 does not answer");
        assert!(raft.keeps_quorum_without(member(3)), "it is gone already");
    }
}
