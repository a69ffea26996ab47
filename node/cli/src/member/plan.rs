//! A configuration, and a change from one to another, as they are told.

use raftlog_proto::v1::{Configuration, NodeStatus};
use serde::Serialize;

/// The configuration in force, as the leader told it.
pub(super) fn configuration_of(status: &NodeStatus) -> Configuration {
    status.configuration.clone().unwrap_or_default()
}

/// Who belongs to a configuration, or to the one that a joint one leads to.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(super) struct Roster {
    pub(super) version: u64,
    /// Node numbers, in ascending order.
    pub(super) voters: Vec<u32>,
    pub(super) learners: Vec<u32>,
    /// Voters that have to hold an operation until it is committed.
    pub(super) quorum: usize,
}

impl Roster {
    pub(super) fn new(configuration: &Configuration) -> Self {
        let numbers = |voter| {
            let leaves = |id| {
                let mut old = configuration.old_voters.iter();
                old.any(|old| old.member_id == id && old.leaves)
            };
            let members = configuration.members.iter();
            let mut numbers: Vec<u32> = members
                .filter(|member| member.voter == voter && !leaves(member.member_id))
                .map(|member| member.node)
                .collect();
            numbers.sort_unstable();
            numbers
        };
        let voters = numbers(true);
        Self {
            version: configuration.version,
            quorum: voters.len() / 2 + 1,
            voters,
            learners: numbers(false),
        }
    }

    fn text(&self) -> String {
        let list = |numbers: &[u32]| {
            let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            texts.join(", ")
        };
        let Self {
            voters,
            learners,
            quorum,
            ..
        } = self;
        let failures = voters.len().saturating_sub(*quorum);
        let mut text = format!(
            "voters {}; quorum {quorum} of {}, {failures} may fail",
            list(voters),
            voters.len()
        );
        if !learners.is_empty() {
            text = format!("{text}; learners {}", list(learners));
        }
        text
    }
}

/// What a command changed, or would have.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) dry_run: bool,
    pub(super) before: Roster,
    pub(super) after: Roster,
}

impl Changed {
    pub(super) fn new(before: &Configuration, after: &Configuration, dry_run: bool) -> Self {
        Self {
            dry_run,
            before: Roster::new(before),
            after: Roster::new(after),
        }
    }

    pub(super) fn text(&self) -> String {
        let (before, after) = (self.before.text(), self.after.text());
        let heading = if self.dry_run {
            "after (not changed: dry run)"
        } else {
            "after"
        };
        format!("before: {before}\n{heading}: {after}")
    }
}

#[cfg(test)]
mod tests {
    use raftlog_proto::v1::{Member, OldVoter};

    use super::*;

    fn configuration(version: u64, members: &[(u32, bool)]) -> Configuration {
        let members = members.iter().map(|&(node, voter)| Member {
            member_id: u64::from(node),
            node,
            voter,
            ..Member::default()
        });
        Configuration {
            version,
            members: members.collect(),
            old_voters: Vec::new(),
        }
    }

    #[test]
    fn a_change_tells_both_quorums() {
        let before = configuration(0, &[(3, true), (1, true), (2, true), (6, false)]);
        let after = configuration(9, &[(1, true), (2, true), (3, true), (6, true)]);
        assert_eq!(
            Changed::new(&before, &after, true).text(),
            "before: voters 1, 2, 3; quorum 2 of 3, 1 may fail; learners 6\n\
             after (not changed: dry run): voters 1, 2, 3, 6; quorum 3 of 4, 1 may fail"
        );
    }

    #[test]
    fn who_leaves_is_not_listed() {
        let joint = Configuration {
            old_voters: vec![
                OldVoter {
                    member_id: 1,
                    leaves: true,
                },
                OldVoter {
                    member_id: 2,
                    leaves: false,
                },
            ],
            ..configuration(5, &[(1, false), (2, true), (3, true)])
        };
        let roster = Roster::new(&joint);
        assert_eq!((roster.voters, roster.learners), (vec![2, 3], vec![]));
    }
}
