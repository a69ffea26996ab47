//! Members and configurations.

use raftlog_proto::v1;
use raftlog_raft::ids::MemberId;
use raftlog_raft::membership::change::{Change, MEMBERS_MAX};
use raftlog_raft::membership::{Configuration, Member, OldVoter};

use super::Malformed;
use crate::node::{Leader, MembershipChange, RequestId};

/// Longest address.
const ADDRESS_BYTES_MAX: usize = 512;

pub(crate) fn members_to_wire(members: &[Member]) -> Vec<v1::Member> {
    members
        .iter()
        .map(|member| v1::Member {
            member_id: member.id.get(),
            node: member.node,
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            voter: member.voter,
        })
        .collect()
}

/// The members that a cluster is formed with.
pub(crate) fn members_from_wire(members: Vec<v1::Member>) -> Result<Vec<Member>, Malformed> {
    distinct_members(members, |one, other| one.id == other.id || one.node == other.node)
}

fn distinct_members(
    members: Vec<v1::Member>,
    same: impl Fn(&Member, &Member) -> bool,
) -> Result<Vec<Member>, Malformed> {
    if members.len() > MEMBERS_MAX {
        return Err(Malformed("members: too many"));
    }
    let members: Vec<Member> = members
        .into_iter()
        .map(member_from_wire)
        .collect::<Result<_, _>>()?;
    for (at, member) in members.iter().enumerate() {
        if members.iter().skip(at + 1).any(|other| same(member, other)) {
            return Err(Malformed("members: one is listed twice"));
        }
    }
    Ok(members)
}

fn member_from_wire(member: v1::Member) -> Result<Member, Malformed> {
    let bad_address = |address: &str| address.is_empty() || address.len() > ADDRESS_BYTES_MAX;
    if member.node == 0 {
        return Err(Malformed("member: node number"));
    }
    if bad_address(&member.peer_address) || bad_address(&member.client_address) {
        return Err(Malformed("member: address"));
    }
    Ok(Member {
        id: MemberId::new(member.member_id).ok_or(Malformed("member: member_id"))?,
        node: member.node,
        peer_address: member.peer_address,
        client_address: member.client_address,
        voter: member.voter,
    })
}

pub(crate) fn configuration_to_wire(configuration: &Configuration) -> v1::Configuration {
    v1::Configuration {
        version: configuration.version,
        members: members_to_wire(configuration.members()),
        old_voters: configuration
            .old_voters()
            .iter()
            .map(|voter| v1::OldVoter {
                member_id: voter.id.get(),
                leaves: voter.leaves,
            })
            .collect(),
    }
}

pub(crate) fn configuration_from_wire(configuration: v1::Configuration) -> Result<Configuration, Malformed> {
    let v1::Configuration {
        version,
        members,
        old_voters,
    } = configuration;
    // While a node that lost its disk is replaced, its number is there twice.
    let members = distinct_members(members, |one, other| one.id == other.id)?;
    if old_voters.is_empty() {
        return Ok(Configuration::new(version, members));
    }
    let bad = Malformed("configuration: old_voters");
    let old_voters = old_voters
        .into_iter()
        .map(|voter| MemberId::new(voter.member_id).map(|id| (id, voter.leaves)))
        .map(|voter| voter.map(|(id, leaves)| OldVoter { id, leaves }))
        .collect::<Option<Vec<OldVoter>>>()
        .ok_or(bad.clone())?;
    Configuration::joint(version, members, old_voters).ok_or(bad)
}

/// What a call of `ChangeMembership` asks for, under that number.
pub(crate) fn membership_change_from_wire(
    id: RequestId,
    request: v1::ChangeMembershipRequest,
) -> Result<MembershipChange, Malformed> {
    Ok(MembershipChange {
        id,
        expected_version: request.expected_version,
        changes: changes_from_wire(request.changes)?,
        force: request.force,
        dry_run: request.dry_run,
    })
}

fn changes_from_wire(changes: Vec<v1::MembershipChange>) -> Result<Vec<Change>, Malformed> {
    if changes.is_empty() || changes.len() > MEMBERS_MAX {
        return Err(Malformed("changes: 1 to 64 of them"));
    }
    changes.into_iter().map(change_from_wire).collect()
}

fn change_from_wire(change: v1::MembershipChange) -> Result<Change, Malformed> {
    use v1::membership_change::Change as Wire;
    let id = |id| MemberId::new(id).ok_or(Malformed("change: member_id"));
    Ok(match change.change.ok_or(Malformed("change: kind"))? {
        Wire::AddLearner(member) => Change::AddLearner(member_from_wire(member)?),
        Wire::Promote(member) => Change::Promote(id(member)?),
        Wire::Demote(member) => Change::Demote(id(member)?),
        Wire::Remove(member) => Change::Remove(id(member)?),
    })
}

pub(crate) fn leader_to_wire(leader: &Leader) -> v1::Leader {
    v1::Leader {
        member_id: leader.member_id.get(),
        node: leader.node,
        client_address: leader.client_address.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, node: u32) -> v1::Member {
        v1::Member {
            member_id: id,
            node,
            peer_address: "a:1".into(),
            client_address: "a:2".into(),
            voter: true,
        }
    }

    #[test]
    fn members_survive_the_wire() {
        let wire = vec![member(1, 1), member(9, 2)];
        let core = members_from_wire(wire.clone()).unwrap();
        assert_eq!(members_to_wire(&core), wire);
    }

    #[test]
    fn a_joint_configuration_survives_the_wire_or_is_refused() {
        let old = |member_id, leaves| v1::OldVoter { member_id, leaves };
        let wire = v1::Configuration {
            version: 7,
            // Node 1 is replaced.
            members: vec![
                v1::Member {
                    voter: false,
                    ..member(1, 1)
                },
                member(2, 2),
                member(9, 1),
            ],
            old_voters: vec![old(1, true), old(2, false)],
        };
        let core = configuration_from_wire(wire.clone()).unwrap();
        assert!(core.is_joint());
        assert_eq!(configuration_to_wire(&core), wire);
        for old_voters in [vec![old(0, false)], vec![old(3, true)], vec![old(2, true)]] {
            let bad = v1::Configuration {
                old_voters,
                ..wire.clone()
            };
            assert!(configuration_from_wire(bad).is_err());
        }
    }

    #[test]
    fn changes_are_read_or_refused() {
        use v1::membership_change::Change as Wire;
        let id = MemberId::new(5).unwrap();
        let one = |change| vec![v1::MembershipChange { change }];
        for (wire, core) in [
            (Wire::Promote(5), Change::Promote(id)),
            (Wire::Demote(5), Change::Demote(id)),
            (Wire::Remove(5), Change::Remove(id)),
            (
                Wire::AddLearner(member(5, 5)),
                Change::AddLearner(member_from_wire(member(5, 5)).unwrap()),
            ),
        ] {
            assert_eq!(changes_from_wire(one(Some(wire))), Ok(vec![core]));
        }
        for bad in [
            vec![],
            one(None),
            one(Some(Wire::Remove(0))),
            one(Some(Wire::AddLearner(member(0, 5)))),
            vec![v1::MembershipChange::default(); 65],
        ] {
            assert!(changes_from_wire(bad).is_err());
        }
    }

    #[test]
    fn malformed_members_are_refused() {
        let long = "x".repeat(ADDRESS_BYTES_MAX + 1);
        for (members, field) in [
            (vec![member(0, 1)], "member_id"),
            (vec![member(1, 0)], "node number"),
            (vec![member(1, 1), member(1, 2)], "twice"),
            (vec![member(1, 1), member(2, 1)], "twice"),
            (
                vec![v1::Member {
                    peer_address: String::new(),
                    ..member(1, 1)
                }],
                "address",
            ),
            (
                vec![v1::Member {
                    client_address: long,
                    ..member(1, 1)
                }],
                "address",
            ),
            ((1..=65).map(|id| member(u64::from(id), id)).collect(), "too many"),
        ] {
            let error = members_from_wire(members).unwrap_err().to_string();
            assert!(error.contains(field), "{error} should name {field}");
        }
    }
}
