//! What a file holds, as it is printed.

use std::path::Path;

use raftlog_raft::membership::Member;
use raftlog_server::node::SavedSnapshot;
use serde::Serialize;

use crate::{args::Common, failure::Failure, output::Output, text};

#[derive(Serialize)]
struct Inspected {
    file: String,
    cluster_id: String,
    /// The member that took it, and its node's number; 0 where its configuration does not list it.
    member_id: String,
    node: u32,
    /// The last operation in it, and its running hash in hex digits.
    index: u64,
    term: u64,
    running_hash: String,
    last_log_index: u64,
    last_log_term: u64,
    configuration_version: u64,
    members: Vec<Listed>,
    sessions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered_from: Option<Parent>,
    /// Length of the replicator's state.
    state_bytes: u64,
    /// Length of all data, and their CRC-32 in hex digits.
    bytes: u64,
    crc: String,
    /// Whether all data match it: what does not is not printed, but an error.
    crc_valid: bool,
}

#[derive(Serialize)]
struct Listed {
    node: u32,
    member_id: String,
    role: &'static str,
    peer_address: String,
    client_address: String,
}

#[derive(Serialize)]
struct Parent {
    cluster_id: String,
    index: u64,
    running_hash: String,
}

/// Prints what a file holds that was read and checked.
pub(super) fn print(common: &Common, file: &Path, saved: &SavedSnapshot) -> Result<(), Failure> {
    let inspected = Inspected::of(file, saved);
    Output::stdout().whole(
        common.output,
        &inspected,
        || inspected.text(),
        || inspected.index.to_string(),
    )
}

impl Inspected {
    fn of(file: &Path, saved: &SavedSnapshot) -> Self {
        let members = saved.configuration.members();
        Self {
            file: file.display().to_string(),
            cluster_id: saved.cluster.to_string(),
            member_id: saved.member.to_string(),
            node: saved
                .configuration
                .member(saved.member)
                .map_or(0, |member| member.node),
            index: saved.place.index,
            term: saved.place.term,
            running_hash: format!("{:016x}", saved.place.running_hash),
            last_log_index: saved.last.index,
            last_log_term: saved.last.term,
            configuration_version: saved.configuration.version,
            members: members.iter().map(Listed::of).collect(),
            sessions: saved.sessions,
            recovered_from: saved.parent.map(|parent| Parent {
                cluster_id: parent.cluster.to_string(),
                index: parent.operation_index,
                running_hash: format!("{:016x}", parent.running_hash),
            }),
            state_bytes: saved.state_bytes,
            bytes: saved.bytes,
            crc: format!("{:08x}", saved.crc),
            crc_valid: true,
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![
            ("file", self.file.clone()),
            ("cluster", self.cluster_id.clone()),
            (
                "taken by",
                format!("node {}, member {}", self.node, self.member_id),
            ),
            (
                "operations",
                format!(
                    "1 to {}, the last of term {}, running hash {}",
                    self.index, self.term, self.running_hash
                ),
            ),
            (
                "log",
                format!(
                    "up to entry {} of term {}",
                    self.last_log_index, self.last_log_term
                ),
            ),
        ];
        for (number, member) in self.members.iter().enumerate() {
            let title = if number == 0 { "members" } else { "" };
            lines.push((title, member.text()));
        }
        lines.push(("sessions", self.sessions.to_string()));
        if let Some(parent) = &self.recovered_from {
            let parent = format!("cluster {}, behind index {}", parent.cluster_id, parent.index);
            lines.push(("recovered from", parent));
        }
        lines.push((
            "size",
            format!(
                "{}, {} of them the replicator's state",
                text::count(self.bytes, "byte"),
                self.state_bytes
            ),
        ));
        lines.push(("checksum", format!("{}, valid", self.crc)));
        let lines: Vec<String> = lines
            .iter()
            .map(|(title, value)| format!("{title:<14}  {value}"))
            .collect();
        lines.join("\n")
    }
}

impl Listed {
    fn of(member: &Member) -> Self {
        Self {
            node: member.node,
            member_id: member.id.to_string(),
            role: if member.voter { "voter" } else { "learner" },
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
        }
    }

    fn text(&self) -> String {
        let Self {
            node,
            member_id,
            role,
            peer_address,
            client_address,
        } = self;
        format!("node {node}, member {member_id}, {role}, at {peer_address}, for clients {client_address}")
    }
}
