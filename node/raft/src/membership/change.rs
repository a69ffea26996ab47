//! Membership changes: what is asked for, and the configuration that it leads to.

use std::collections::BTreeSet;

use super::{Configuration, Member, OldVoter};
use crate::effect::RequestId;
use crate::ids::{LogIndex, MemberId};

/// Most members of a configuration, those that leave included.
pub const MEMBERS_MAX: usize = 64;

/// One change; a call makes several at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a member that receives the log and does not count; [`Member::voter`] is not looked at.
    AddLearner(Member),
    /// Makes a learner a voter.
    Promote(MemberId),
    /// Makes a voter a learner.
    Demote(MemberId),
    /// Removes a voter or a learner.
    Remove(MemberId),
}

/// A call that changes the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipChange {
    /// Its answer's number.
    pub id: RequestId,
    /// The version of the configuration that the caller has seen.
    pub expected_version: LogIndex,
    /// In this order.
    pub changes: Vec<Change>,
    /// Also promote who is not caught up, and make voters of whom no majority answers; but never of one that does not hold the
    /// configuration in force: it may not know that it is a member.
    pub force: bool,
    /// Only judge it, and answer the configuration that it would lead to.
    pub dry_run: bool,
}

/// Why a change was not made. Only after `LeadershipLost` may it have been: the same call again finds out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// Ask the leader, if one is known.
    NotLeader {
        /// The leader's identity.
        leader: Option<MemberId>,
    },
    /// For that reason it cannot be made now; it may be later.
    NotNow(&'static str),
    /// Another configuration is in force than the caller has seen: its version.
    OtherVersion(LogIndex),
    /// It makes no sense; why, for people.
    Invalid(String),
    /// That member does not hold enough of the log to count; when forced, not even the configuration in force.
    NotCaughtUp(MemberId),
    /// So few of the new voters answer the leader that nothing could be committed; not when forced.
    WouldLoseQuorum {
        /// New voters that answered within the maximum election timeout.
        responsive: usize,
        /// New voters.
        voters: usize,
    },
    /// It was begun, and then this member ceased to lead.
    LeadershipLost,
}

impl Configuration {
    /// The configuration in which these changes end, of this one's version. Where they change nothing it equals
    /// [`Configuration::left`]: what was changed already is no error, so that a call can be repeated.
    pub fn changed(&self, changes: &[Change]) -> Result<Self, String> {
        let mut members = self.left(self.version).members;
        for change in changes {
            match change {
                Change::AddLearner(member) => add_learner(&mut members, member)?,
                Change::Promote(id) => set_voter(&mut members, *id, true)?,
                Change::Demote(id) => set_voter(&mut members, *id, false)?,
                Change::Remove(id) => members.retain(|member| member.id != *id),
            }
        }
        check(&members)?;
        Ok(Self::new(self.version, members))
    }

    /// The entry that comes first on the way from this configuration to that one: a joint configuration where voters
    /// change, otherwise that one itself.
    #[must_use]
    pub fn toward(&self, target: &Self, version: LogIndex) -> Self {
        assert!(!self.is_joint(), "one change after the other");
        let voters = |of: &Self| -> BTreeSet<MemberId> { of.voters().map(|member| member.id).collect() };
        if voters(self) == voters(target) {
            return Self::new(version, target.members.clone());
        }
        let old_voters = self.voters().map(|member| OldVoter {
            id: member.id,
            leaves: target.member(member.id).is_none(),
        });
        let leaving = self
            .voters()
            .filter(|member| target.member(member.id).is_none())
            .map(|member| Member {
                voter: false,
                ..member.clone()
            });
        let members = target.members.iter().cloned().chain(leaving).collect();
        Self::joint(version, members, old_voters.collect()).expect("the old voters are among the members")
    }
}

fn add_learner(members: &mut Vec<Member>, new: &Member) -> Result<(), String> {
    match members.iter().find(|member| member.id == new.id) {
        None => {
            members.push(Member {
                voter: false,
                ..new.clone()
            });
            Ok(())
        }
        Some(known) => {
            let same = Member {
                voter: known.voter,
                ..new.clone()
            };
            if same == *known {
                Ok(())
            } else {
                Err(format!(
                    "member {} is Node {} at {} already",
                    known.id, known.node, known.peer_address
                ))
            }
        }
    }
}

fn set_voter(members: &mut [Member], id: MemberId, voter: bool) -> Result<(), String> {
    match members.iter_mut().find(|member| member.id == id) {
        Some(member) => {
            member.voter = voter;
            Ok(())
        }
        None => Err(format!("{id} is no member: add it as a learner first")),
    }
}

/// A node that lost its disk is a new member of the same number, and may be so beside the voter that it was.
fn check(members: &[Member]) -> Result<(), String> {
    if !members.iter().any(|member| member.voter) {
        return Err("no voter would be left".to_owned());
    }
    let mut seen = BTreeSet::new();
    for member in members {
        if !seen.insert((member.node, member.voter)) {
            let role = if member.voter { "voters" } else { "learners" };
            return Err(format!(
                "two {role} would be Node {}: remove one in the same call",
                member.node
            ));
        }
    }
    // Voters that leave are members until the joint configuration is left.
    if members.len() > MEMBERS_MAX / 2 {
        return Err(format!("a cluster has at most {} members", MEMBERS_MAX / 2));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u64) -> MemberId {
        MemberId::new(n).unwrap()
    }

    fn member(n: u64, voter: bool) -> Member {
        let address = format!("node{n}:5001");
        Member {
            id: id(n),
            node: u32::try_from(n).unwrap(),
            peer_address: address.clone(),
            client_address: address,
            voter,
        }
    }

    /// Voters 1, 2, 3 and learner 4.
    fn start() -> Configuration {
        Configuration::new(5, (1..=4).map(|n| member(n, n < 4)).collect())
    }

    fn text(of: &Configuration) -> String {
        let role = |member: &Member| if member.voter { "v" } else { "l" };
        let members: Vec<String> = of
            .members()
            .iter()
            .map(|m| format!("{}{}", m.id.get(), role(m)))
            .collect();
        members.join(" ")
    }

    #[test]
    fn changes_are_made_in_order() {
        use Change::{AddLearner, Demote, Promote, Remove};
        for (changes, expected) in [
            (vec![], "1v 2v 3v 4l"),
            (vec![AddLearner(member(5, true))], "1v 2v 3v 4l 5l"),
            (vec![Promote(id(4))], "1v 2v 3v 4v"),
            (vec![Demote(id(1))], "1l 2v 3v 4l"),
            (vec![Remove(id(4))], "1v 2v 3v"),
            (vec![Remove(id(3)), Promote(id(4))], "1v 2v 4v"),
            (
                vec![AddLearner(member(5, false)), Promote(id(5))],
                "1v 2v 3v 4l 5v",
            ),
        ] {
            assert_eq!(text(&start().changed(&changes).unwrap()), expected, "{changes:?}");
        }
    }

    #[test]
    fn what_was_changed_already_is_no_error() {
        use Change::{AddLearner, Demote, Promote, Remove};
        for change in [
            AddLearner(member(4, false)),
            AddLearner(member(1, false)),
            Promote(id(1)),
            Demote(id(4)),
            Remove(id(9)),
        ] {
            let name = format!("{change:?}");
            assert_eq!(start().changed(&[change]), Ok(start()), "{name}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        use Change::{AddLearner, Demote, Promote, Remove};
        let moved = Member {
            peer_address: "elsewhere:1".into(),
            ..member(4, false)
        };
        let third_again = |n| Member {
            id: id(n),
            ..member(3, false)
        };
        let many = (10..60).map(|n| AddLearner(member(n, false))).collect();
        for (changes, says) in [
            (vec![Promote(id(9))], "is no member"),
            (vec![Demote(id(9))], "is no member"),
            (vec![AddLearner(moved)], "is Node 4 at node4:5001 already"),
            (
                vec![AddLearner(third_again(9)), Promote(id(9))],
                "two voters would be Node 3",
            ),
            (
                vec![AddLearner(third_again(9)), AddLearner(third_again(10))],
                "two learners would be Node 3",
            ),
            ((1..=3).map(|n| Remove(id(n))).collect(), "no voter"),
            ((1..=3).map(|n| Demote(id(n))).collect(), "no voter"),
            (many, "at most 32"),
        ] {
            let said = start().changed(&changes).unwrap_err();
            assert!(said.contains(says), "{said} should say {says}");
        }
        let replaced = [AddLearner(third_again(9)), Remove(id(3)), Promote(id(9))];
        assert_eq!(text(&start().changed(&replaced).unwrap()), "1v 2v 4l 9v");
    }

    #[test]
    fn only_a_change_of_voters_is_joint() {
        use Change::{AddLearner, Demote, Promote, Remove};
        for (change, joint) in [
            (AddLearner(member(5, false)), false),
            (Remove(id(4)), false),
            (Promote(id(4)), true),
            (Demote(id(3)), true),
            (Remove(id(3)), true),
        ] {
            let name = format!("{change:?}");
            let target = start().changed(&[change]).unwrap();
            let first = start().toward(&target, 8);
            assert_eq!((first.version, first.is_joint()), (8, joint), "{name}");
            assert_eq!(first.left(9).members(), target.members(), "{name}");
        }
    }

    fn change() -> impl Strategy<Value = Change> {
        (0..4u8, 1..7u64).prop_map(|(kind, n)| match kind {
            0 => Change::AddLearner(member(n, false)),
            1 => Change::Promote(id(n)),
            2 => Change::Demote(id(n)),
            _ => Change::Remove(id(n)),
        })
    }

    /// Whether every quorum of the one shares a member with every quorum of the other.
    fn quorums_meet(one: &Configuration, other: &Configuration) -> bool {
        (0..1u32 << 7).all(|set| {
            let within = |id: MemberId| set & (1 << id.get()) != 0;
            !(one.is_quorum(within) && other.is_quorum(|id| !within(id)))
        })
    }

    proptest! {
        #[test]
        fn quorums_of_successive_configurations_meet(
            calls in proptest::collection::vec(proptest::collection::vec(change(), 1..5), 1..12),
        ) {
            let mut now = start();
            for (version, changes) in (6..).zip(calls) {
                let Ok(target) = now.changed(&changes) else { continue };
                let first = now.toward(&target, version);
                prop_assert!(quorums_meet(&now, &first), "{now:?} and {first:?}");
                let last = first.left(version);
                prop_assert!(quorums_meet(&first, &last), "{first:?} and {last:?}");
                prop_assert_eq!(last.members(), target.members());
                now = last;
            }
        }
    }

    #[test]
    fn without_a_joint_configuration_quorums_may_miss_one_another() {
        let target = start()
            .changed(&[
                Change::Remove(id(1)),
                Change::Remove(id(2)),
                Change::Promote(id(4)),
            ])
            .unwrap();
        assert!(
            !quorums_meet(&start(), &target),
            "or the test above could not fail"
        );
    }
}
