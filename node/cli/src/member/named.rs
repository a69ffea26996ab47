//! How a command names a member: by node number or by identity.

use std::{fmt, str::FromStr};

use raftlog_proto::v1::Member;

use crate::failure::Failure;

/// A member's name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Its node number.
    Node(u32),
    /// Its member ID.
    Id(u64),
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "a node number such as 3, or a member ID of 16 hex digits".to_owned();
        let number = if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            u64::from_str_radix(text, 16).map(Self::Id)
        } else {
            text.parse().map(Self::Node)
        };
        match number {
            Ok(Self::Node(0) | Self::Id(0)) | Err(_) => Err(bad()),
            Ok(named) => Ok(named),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Id(id) => write!(f, "member {id:016x}"),
        }
    }
}

impl Named {
    /// The one member of that name. Of two with one node number it is the one that fits; a node that lost its disk is there
    /// twice while it is replaced.
    pub(crate) fn find<'a>(
        &self,
        members: &'a [Member],
        fits: impl Fn(&Member) -> bool,
    ) -> Result<&'a Member, Failure> {
        let named: Vec<&Member> = members
            .iter()
            .filter(|member| match self {
                Self::Node(node) => member.node == *node,
                Self::Id(id) => member.member_id == *id,
            })
            .collect();
        let fitting: Vec<&Member> = named.iter().copied().filter(|member| fits(member)).collect();
        match (named.as_slice(), fitting.as_slice()) {
            ([only], _) | (_, [only]) => Ok(only),
            ([], _) => Err(Failure::failed(format!(
                "{self} does not belong to the cluster: see `raftctl member list`"
            ))),
            _ => {
                let ids: Vec<String> = named
                    .iter()
                    .map(|member| format!("{:016x}", member.member_id))
                    .collect();
                Err(Failure::failed(format!(
                    "{self} is {} members: name one of {}",
                    ids.len(),
                    ids.join(", ")
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers_or_identities() {
        for (text, named) in [
            ("3", Some(Named::Node(3))),
            ("00000000000000ab", Some(Named::Id(0xab))),
            ("1234567812345678", Some(Named::Id(0x1234_5678_1234_5678))),
            ("0", None),
            ("0000000000000000", None),
            ("-1", None),
            ("node3", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Named>().ok(), named, "{text}");
        }
    }

    #[test]
    fn one_member_is_found_or_none() {
        let member = |member_id, node, voter| Member {
            member_id,
            node,
            voter,
            ..Member::default()
        };
        let members = [member(1, 1, true), member(3, 3, true), member(9, 3, false)];
        let find = |named: Named, voter: Option<bool>| {
            let fits = |member: &Member| voter.is_none_or(|voter| member.voter == voter);
            named.find(&members, fits).map(|member| member.member_id)
        };
        assert_eq!(find(Named::Node(1), Some(false)), Ok(1), "the cluster judges it");
        assert_eq!(find(Named::Node(3), Some(false)), Ok(9));
        assert_eq!(find(Named::Node(3), Some(true)), Ok(3));
        assert_eq!(find(Named::Id(9), None), Ok(9));
        for (named, says) in [
            (Named::Node(2), "node 2 does not belong"),
            (Named::Id(7), "member 0000000000000007 does not belong"),
            (Named::Node(3), "0000000000000003, 0000000000000009"),
        ] {
            let Err(Failure::Exit { message, .. }) = find(named, None) else {
                panic!("{named} was found")
            };
            assert!(message.contains(says), "{message}");
        }
    }
}
