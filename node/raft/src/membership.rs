//! Who belongs to the cluster, and what a quorum of it is.

pub mod change;

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

/// A voter of the configuration that a joint one replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldVoter {
    /// Its identity.
    pub id: MemberId,
    /// It is no member any more once the joint configuration is left.
    pub leaves: bool,
}

/// A configuration: in force from its append (Raft 6).
///
/// When voters change, a joint configuration comes first, in which a majority of the old voters and one of the new ones
/// are needed for everything. So no two quorums of successive configurations miss one another, whatever changes at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// Log index of the entry that brought it in; 0 for the one of bootstrap.
    pub version: LogIndex,
    /// In ascending order of identity, which [`Configuration::new`] sees to. Those that leave are still among them, and
    /// [`Member::voter`] says what each is after the change.
    members: Vec<Member>,
    /// In ascending order of identity; empty unless it is joint.
    old_voters: Vec<OldVoter>,
}

impl Configuration {
    /// Members in any order; of two with one identity the first is kept.
    pub fn new(version: LogIndex, mut members: Vec<Member>) -> Self {
        members.sort_by_key(|member| member.id);
        members.dedup_by_key(|member| member.id);
        Self {
            version,
            members,
            old_voters: Vec::new(),
        }
    }

    /// A joint configuration (Raft 6); `None` unless there are old voters, all of them are listed as members, and those that
    /// leave are no voters after the change.
    pub fn joint(version: LogIndex, members: Vec<Member>, mut old_voters: Vec<OldVoter>) -> Option<Self> {
        old_voters.sort_by_key(|voter| voter.id);
        old_voters.dedup_by_key(|voter| voter.id);
        let mut joint = Self::new(version, members);
        let fits = |voter: &OldVoter| {
            joint
                .member(voter.id)
                .is_some_and(|member| !(voter.leaves && member.voter))
        };
        if old_voters.is_empty() || !old_voters.iter().all(fits) {
            return None;
        }
        joint.old_voters = old_voters;
        Some(joint)
    }

    /// Whether the voters of two configurations decide together.
    pub fn is_joint(&self) -> bool {
        !self.old_voters.is_empty()
    }

    /// While joint: the voters of the configuration before, in ascending order of identity; empty otherwise.
    pub fn old_voters(&self) -> &[OldVoter] {
        &self.old_voters
    }

    /// The configuration in which the open change ends, under that version; the same one unless this is joint.
    #[must_use]
    pub fn left(&self, version: LogIndex) -> Self {
        Self::new(version, self.lasting_members().cloned().collect())
    }

    /// All members, in ascending order of identity; in a joint configuration those that leave included.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The members that stay when a joint configuration is left.
    pub fn lasting_members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !self.leaves(member.id))
    }

    /// Who votes: in a joint configuration the voters of either half.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|member| member.voter || self.old_voter(member.id).is_some())
    }

    /// The member of that identity.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members
            .binary_search_by_key(&id, |member| member.id)
            .ok()
            .and_then(|at| self.members.get(at))
    }

    /// The voter of that node number that stays, or else a learner of that number: while a node that lost its disk is
    /// replaced, it is a member twice.
    pub fn node(&self, node: NodeNumber) -> Option<&Member> {
        self.lasting_members()
            .filter(|member| member.node == node)
            .max_by_key(|member| member.voter)
    }

    /// Whether that identity is a voter, in either half of a joint configuration.
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.member(id).is_some_and(|member| member.voter) || self.old_voter(id).is_some()
    }

    /// Whether the voters for whom `yes` holds are a majority; of both halves, in a joint configuration.
    pub fn is_quorum(&self, mut yes: impl FnMut(MemberId) -> bool) -> bool {
        self.quorum_value(|member| u64::from(yes(member.id))) == 1
    }

    /// The highest value that a majority of voters has reached, of both halves in a joint configuration; 0 without voters.
    pub fn quorum_value(&self, mut value: impl FnMut(&Member) -> u64) -> u64 {
        let new = majority_value(self.members.iter().filter(|member| member.voter).map(&mut value));
        if !self.is_joint() {
            return new;
        }
        let old = self.old_voters.iter().filter_map(|voter| self.member(voter.id));
        new.min(majority_value(old.map(value)))
    }

    fn old_voter(&self, id: MemberId) -> Option<OldVoter> {
        let at = self.old_voters.binary_search_by_key(&id, |voter| voter.id).ok()?;
        self.old_voters.get(at).copied()
    }

    fn leaves(&self, id: MemberId) -> bool {
        self.old_voter(id).is_some_and(|voter| voter.leaves)
    }
}

/// The highest value that more than half of them have reached; 0 of none.
fn majority_value(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable_by_key(|&value| Reverse(value));
    values.get(values.len() / 2).copied().unwrap_or(0)
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

    fn id(n: u64) -> MemberId {
        MemberId::new(n).unwrap()
    }

    /// Voters 1, 2 and 3 become 3, 4 and 5: 1 leaves, and 2 stays as a learner.
    fn joint() -> Configuration {
        let all = cluster(5, 0);
        let members = all.members().iter().map(|member| Member {
            voter: member.id.get() >= 3,
            ..member.clone()
        });
        let old = (1..=3).map(|n| OldVoter {
            id: id(n),
            leaves: n == 1,
        });
        Configuration::joint(7, members.collect(), old.collect()).unwrap()
    }

    #[test]
    fn a_majority_of_voters_is_a_quorum() {
        for (voters, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (9, 5)] {
            let c = cluster(voters, 2);
            assert!(c.is_quorum(|id| id.get() <= quorum));
            assert!(
                !c.is_quorum(|id| id.get() < quorum || id.get() > voters),
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

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let quorum = |of: &[u64]| joint().is_quorum(|id| of.contains(&id.get()));
        for (of, expected) in [
            (&[1, 2][..], false),
            (&[4, 5], false),
            (&[3], false),
            (&[1, 3], false),
            (&[1, 3, 4], true),
            (&[1, 2, 4, 5], true),
            (&[1, 2, 4], false),
        ] {
            assert_eq!(quorum(of), expected, "{of:?}");
        }
        // Of 1, 2 and 3 two have reached 2, of 3, 4 and 5 two have reached 4.
        assert_eq!(joint().quorum_value(|m| m.id.get()), 2);
        assert!((1..=5).all(|n| joint().is_voter(id(n))));
        assert_eq!(joint().voters().count(), 5);
    }

    #[test]
    fn leaving_a_joint_configuration_ends_the_change() {
        let last = joint().left(9);
        assert!(!last.is_joint());
        assert_eq!(last.version, 9);
        let members: Vec<(u64, bool)> = last.members().iter().map(|m| (m.id.get(), m.voter)).collect();
        assert_eq!(members, [(2, false), (3, true), (4, true), (5, true)]);
        assert_eq!(cluster(3, 1).left(9).members(), cluster(3, 1).members());
    }

    #[test]
    fn what_is_no_joint_configuration_is_refused() {
        let old = |n, leaves| OldVoter { id: id(n), leaves };
        let members = || cluster(3, 1).members().to_vec();
        for (name, old_voters, good) in [
            ("a demotion", vec![old(1, false), old(4, false)], true),
            ("a removal", vec![old(1, false), old(4, true)], true),
            ("no old voter", vec![], false),
            ("who is not listed", vec![old(5, true)], false),
            ("leaves and votes", vec![old(1, true)], false),
        ] {
            let joint = Configuration::joint(1, members(), old_voters);
            assert_eq!(joint.is_some(), good, "{name}");
        }
    }

    #[test]
    fn a_node_number_names_the_voter_that_stays() {
        let twice = |voter, other| Member {
            id: id(other),
            voter,
            ..cluster(3, 0).member(id(3)).unwrap().clone()
        };
        let mut members = cluster(3, 0).members().to_vec();
        members.push(twice(false, 9));
        let before = Configuration::new(1, members);
        assert_eq!(before.node(3).unwrap().id, id(3), "9 only learns");
        let members = before.members().iter().map(|member| Member {
            voter: member.id != id(3),
            ..member.clone()
        });
        let old = (1..=3).map(|n| OldVoter {
            id: id(n),
            leaves: n == 3,
        });
        let during = Configuration::joint(2, members.collect(), old.collect()).unwrap();
        assert_eq!(during.node(3).unwrap().id, id(9), "3 leaves");
    }
}
