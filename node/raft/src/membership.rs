//! Who belongs to the cluster, and what a quorum of it is.

use std::cmp::Reverse;

use crate::ids::{LogIndex, MemberId, NodeNumber};

/// One member as configurations carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub id: MemberId,
    /// Its node number.
    pub node: NodeNumber,
    /// `HOST:PORT` of the services for nodes.
    pub peer_address: String,
    /// `HOST:PORT` of the services for clients.
    pub client_address: String,
    /// Counts for quorums; otherwise a learner.
    pub voter: bool,
}

/// A configuration: in force from its append (Raft 6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// Log index of the entry that brought it in; 0 for the one of bootstrap.
    pub version: LogIndex,
    /// In ascending order of identity, which [`Configuration::new`] sees to.
    members: Vec<Member>,
}

impl Configuration {
    /// Members in any order; of two with one identity the first is kept.
    pub fn new(version: LogIndex, mut members: Vec<Member>) -> Self {
        members.sort_by_key(|member| member.id);
        members.dedup_by_key(|member| member.id);
        Self { version, members }
    }

    /// All members, in ascending order of identity.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The voters, in ascending order of identity.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.voter)
    }

    /// The member of that identity.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members
            .binary_search_by_key(&id, |member| member.id)
            .ok()
            .and_then(|at| self.members.get(at))
    }

    /// The member of that node number.
    pub fn node(&self, node: NodeNumber) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// Whether that identity is a voter.
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.member(id).is_some_and(|member| member.voter)
    }

    /// Voters in a majority.
    pub fn quorum(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    /// Whether the voters for whom `yes` holds are a majority.
    pub fn is_quorum(&self, mut yes: impl FnMut(MemberId) -> bool) -> bool {
        let voters = self.voters().count();
        voters > 0 && self.voters().filter(|member| yes(member.id)).count() * 2 > voters
    }

    /// The highest value that a majority of voters has reached; 0 without voters.
    pub fn quorum_value(&self, value: impl FnMut(&Member) -> u64) -> u64 {
        let mut values: Vec<u64> = self.voters().map(value).collect();
        values.sort_unstable_by_key(|&value| Reverse(value));
        values.get(self.quorum() - 1).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(voters: u64, learners: u64) -> Configuration {
        let member = |id: u64, voter| Member {
            id: MemberId::new(id).unwrap(),
            node: NodeNumber::try_from(id).unwrap(),
            peer_address: format!("node{id}:5001"),
            client_address: format!("node{id}:5001"),
            voter,
        };
        let members = (1..=voters + learners)
            .rev()
            .map(|id| member(id, id <= voters))
            .collect();
        Configuration::new(0, members)
    }

    #[test]
    fn a_majority_of_voters_is_a_quorum() {
        for (voters, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (9, 5)] {
            let c = cluster(voters, 2);
            assert_eq!(c.quorum(), quorum, "of {voters}");
            assert!(c.is_quorum(|id| id.get() <= quorum as u64));
            assert!(
                !c.is_quorum(|id| id.get() < quorum as u64 || id.get() > voters),
                "learners do not count"
            );
        }
        assert!(!cluster(0, 3).is_quorum(|_| true));
    }

    #[test]
    fn quorum_value_is_what_a_majority_has_reached() {
        assert_eq!(cluster(5, 1).quorum_value(|m| m.id.get() * 10), 30);
        assert_eq!(cluster(4, 0).quorum_value(|m| m.id.get() * 10), 20);
        assert_eq!(cluster(0, 1).quorum_value(|_| 7), 0);
    }
}
