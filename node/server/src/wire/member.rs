//! Members and configurations.

use raftlog_proto::v1;
use raftlog_raft::ids::MemberId;
use raftlog_raft::membership::{Configuration, Member};

use super::Malformed;
use crate::node::Leader;

/// Most members of a configuration.
const MEMBERS_MAX: usize = 64;
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

pub(crate) fn members_from_wire(members: Vec<v1::Member>) -> Result<Vec<Member>, Malformed> {
    if members.len() > MEMBERS_MAX {
        return Err(Malformed("members: too many"));
    }
    let members: Vec<Member> = members
        .into_iter()
        .map(member_from_wire)
        .collect::<Result<_, _>>()?;
    for (at, member) in members.iter().enumerate() {
        if members
            .iter()
            .skip(at + 1)
            .any(|other| other.id == member.id || other.node == member.node)
        {
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
    }
}

pub(crate) fn configuration_from_wire(configuration: v1::Configuration) -> Result<Configuration, Malformed> {
    Ok(Configuration::new(
        configuration.version,
        members_from_wire(configuration.members)?,
    ))
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
