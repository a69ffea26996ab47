//! `member list`.

use raftlog_proto::v1::{self, NodeStatus};
use serde::Serialize;

use super::plan::{Roster, configuration_of};
use crate::{
    args::Common,
    failure::Failure,
    output::{Output, table},
    text,
};

#[derive(Serialize)]
struct Listing {
    cluster_id: String,
    configuration_version: u64,
    /// Whether the voters of two configurations decide together at the moment.
    joint: bool,
    voters: Vec<u32>,
    learners: Vec<u32>,
    quorum: usize,
    feature_level: u32,
    members: Vec<Listed>,
}

/// One member, as the leader sees it.
#[derive(Serialize, Debug, PartialEq, Eq)]
struct Listed {
    node: u32,
    member_id: String,
    role: &'static str,
    peer_address: String,
    client_address: String,
    /// Highest log index known to be on its disk.
    match_log_index: u64,
    /// Since it last answered; none of the leader itself.
    last_contact_milliseconds: Option<u64>,
    caught_up: bool,
    /// The feature levels that it supports; 0 while it has not told the leader.
    feature_level_min: u32,
    feature_level_max: u32,
}

/// Prints all members as the leader sees them.
pub(super) fn print(common: &Common, status: &NodeStatus) -> Result<(), Failure> {
    let configuration = configuration_of(status);
    let Roster {
        version,
        voters,
        learners,
        quorum,
    } = Roster::new(&configuration);
    let members = Listing {
        cluster_id: text::id(status.cluster_id),
        configuration_version: version,
        joint: !configuration.old_voters.is_empty(),
        voters,
        learners,
        quorum,
        feature_level: status.feature_level,
        members: members(status, &configuration),
    };
    Output::stdout().whole(common.output, &members, || render(&members), || raw(&members))
}

fn members(status: &NodeStatus, configuration: &v1::Configuration) -> Vec<Listed> {
    let mut members: Vec<Listed> = configuration
        .members
        .iter()
        .map(|member| view(status, configuration, member))
        .collect();
    members.sort_by(|one, other| (one.node, &one.member_id).cmp(&(other.node, &other.member_id)));
    members
}

fn view(status: &NodeStatus, configuration: &v1::Configuration, member: &v1::Member) -> Listed {
    let id = member.member_id;
    let progress = status.progress.iter().find(|progress| progress.member_id == id);
    let itself = id == status.member_id;
    let (feature_level_min, feature_level_max) = match progress {
        Some(progress) => (progress.feature_level_min, progress.feature_level_max),
        None if itself => (status.feature_level_min, status.feature_level_max),
        None => (0, 0),
    };
    Listed {
        node: member.node,
        member_id: text::id(id),
        role: role(itself, configuration, member),
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
        match_log_index: match progress {
            Some(progress) => progress.match_log_index,
            None if itself => status.last_log_index,
            None => 0,
        },
        last_contact_milliseconds: progress.map(|progress| progress.last_contact_milliseconds),
        caught_up: itself || progress.is_some_and(|progress| progress.caught_up),
        feature_level_min,
        feature_level_max,
    }
}

fn role(leads: bool, configuration: &v1::Configuration, member: &v1::Member) -> &'static str {
    let mut old = configuration.old_voters.iter();
    let old = old.find(|old| old.member_id == member.member_id);
    match (old.map(|old| old.leaves), member.voter) {
        (Some(true), _) => "leaving",
        (Some(false), false) => "voter, becomes learner",
        (None, true) if !configuration.old_voters.is_empty() => "learner, becomes voter",
        (_, true) if leads => "leader",
        (_, true) => "voter",
        (None, false) => "learner",
    }
}

fn render(members: &Listing) -> String {
    let titles = [
        "NODE",
        "MEMBER",
        "ROLE",
        "PEERS",
        "CLIENTS",
        "MATCH",
        "CONTACT",
        "CAUGHT-UP",
        "SUPPORTS",
    ];
    let rows = members.members.iter().map(|member| {
        let contact = member.last_contact_milliseconds;
        vec![
            member.node.to_string(),
            member.member_id.clone(),
            member.role.to_owned(),
            member.peer_address.clone(),
            member.client_address.clone(),
            member.match_log_index.to_string(),
            contact.map_or_else(|| "-".to_owned(), |contact| format!("{contact} ms")),
            if member.caught_up { "yes" } else { "no" }.to_owned(),
            text::levels(member.feature_level_min, member.feature_level_max),
        ]
    });
    table(&titles, rows.collect())
}

/// Node number, identity and role of each.
fn raw(members: &Listing) -> String {
    let lines: Vec<String> = members
        .members
        .iter()
        .map(|member| format!("{} {} {}", member.node, member.member_id, member.role))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use raftlog_proto::v1::{Configuration, MemberProgress, OldVoter};

    use super::*;

    fn status(old_voters: Vec<OldVoter>) -> NodeStatus {
        let member = |member_id: u64, node, voter| v1::Member {
            member_id,
            node,
            voter,
            ..v1::Member::default()
        };
        let progress = |member_id, caught_up| MemberProgress {
            member_id,
            caught_up,
            match_log_index: member_id * 10,
            feature_level_min: u32::from(caught_up),
            feature_level_max: u32::from(caught_up) * 2,
            ..MemberProgress::default()
        };
        NodeStatus {
            member_id: 1,
            last_log_index: 100,
            feature_level: 1,
            feature_level_min: 1,
            feature_level_max: 3,
            progress: vec![progress(2, true), progress(9, false)],
            configuration: Some(Configuration {
                version: 4,
                members: vec![member(1, 1, true), member(2, 2, true), member(9, 3, false)],
                old_voters,
            }),
            ..NodeStatus::default()
        }
    }

    #[test]
    fn members_are_what_the_leader_knows_of_them() {
        let status = status(Vec::new());
        let members = members(&status, &configuration_of(&status));
        let told: Vec<(u32, &str, u64, bool, String)> = members
            .iter()
            .map(|m| {
                let levels = text::levels(m.feature_level_min, m.feature_level_max);
                (m.node, m.role, m.match_log_index, m.caught_up, levels)
            })
            .collect();
        assert_eq!(
            told,
            [
                (1, "leader", 100, true, "1-3".to_owned()),
                (2, "voter", 20, true, "1-2".to_owned()),
                (3, "learner", 90, false, "-".to_owned())
            ]
        );
    }

    #[test]
    fn a_joint_configuration_says_who_becomes_what() {
        let old = |member_id, leaves| OldVoter { member_id, leaves };
        let status = status(vec![old(1, false), old(9, true)]);
        let roles: Vec<&str> = members(&status, &configuration_of(&status))
            .iter()
            .map(|member| member.role)
            .collect();
        assert_eq!(roles, ["leader", "learner, becomes voter", "leaving"]);
    }
}
