//! Status, as clients and peers see it.

use raftlog_proto::v1;
use raftlog_raft::ids::{ClusterId, MemberId};

use super::Malformed;
use super::member::{configuration_from_wire, configuration_to_wire, leader_to_wire, members_from_wire};
use crate::config::Config;
use crate::node::{PeerReport, Role, Status};
use crate::readiness;

/// A status with what only the runtime knows: names, addresses, readiness.
pub(crate) fn status_to_wire(status: &Status, config: &Config, stopping: bool) -> v1::NodeStatus {
    let ready = readiness::readiness(status, &config.replicator_name, stopping);
    let progress = status.progress.iter().map(|member| v1::MemberProgress {
        member_id: member.member_id.get(),
        node: member.node,
        match_log_index: member.match_log_index,
        last_contact_milliseconds: u64::try_from(member.last_contact.as_millis()).unwrap_or(u64::MAX),
        in_flight_bytes: member.in_flight_bytes,
        caught_up: member.caught_up,
        feature_level_min: member.supports.map_or(0, |supports| supports.min().get().into()),
        feature_level_max: member.supports.map_or(0, |supports| supports.max().get().into()),
    });
    let replicator = v1::ReplicatorStatus {
        connected: status.replicator.connected,
        name: config.replicator_name.clone(),
        last_index: status.replicator.progress.last_index,
        commit_index: status.replicator.progress.commit_index,
        executed_index: status.replicator.progress.executed_index,
        executor: status.replicator.executor.as_deref().cloned(),
    };
    v1::NodeStatus {
        cluster_id: status.cluster_id.map_or(0, ClusterId::get),
        member_id: status.member_id.get(),
        node: status.node,
        role: role_to_wire(status.role).into(),
        term: status.term,
        leader: status.leader.as_ref().map(leader_to_wire),
        commit_index: status.commit_index,
        last_index: status.last_index,
        persisted_index: status.persisted_index,
        commit_log_index: status.commit_log_index,
        last_log_index: status.last_log_index,
        running_hash: status.running_hash,
        configuration: status
            .cluster_id
            .is_some()
            .then(|| configuration_to_wire(&status.configuration)),
        progress: progress.collect(),
        replicator: Some(replicator),
        ready: ready.yes,
        reason: ready.why,
        version: env!("CARGO_PKG_VERSION").into(),
        bootstrap: status.bootstrap.as_deref().map(configuration_to_wire),
        elected_by: status.elected_by.map(|by| by.to_string()).unwrap_or_default(),
        disk_full: status.disks.full,
        first_index: status.kept.first_index,
        snapshot_index: status.kept.snapshot_index,
        snapshot_bytes: status.kept.snapshot_bytes,
        log_full: status.kept.log_full,
        peer_address: config.peer_address.clone(),
        client_address: config.client_address.clone(),
        disk_stalled: status.disks.stalled,
        commit_hash: status.commit_hash,
        was_removed: status.was_removed,
        feature_level: status.feature_level.map_or(0, |level| level.get().into()),
        feature_level_min: status.supports.min().get().into(),
        feature_level_max: status.supports.max().get().into(),
    }
}

fn role_to_wire(role: Role) -> v1::Role {
    match role {
        Role::Unformed => v1::Role::Unformed,
        Role::Follower => v1::Role::Follower,
        Role::PreCandidate => v1::Role::PreCandidate,
        Role::Candidate => v1::Role::Candidate,
        Role::Leader => v1::Role::Leader,
        Role::Learner => v1::Role::Learner,
    }
}

/// What formation needs of a peer's status.
pub(crate) fn peer_report(status: v1::NodeStatus) -> Result<PeerReport, Malformed> {
    let member_id = MemberId::new(status.member_id).ok_or(Malformed("status: member_id"))?;
    let Some(cluster_id) = ClusterId::new(status.cluster_id) else {
        if status.was_removed {
            return Ok(PeerReport::WasRemoved);
        }
        return Ok(PeerReport::Unformed {
            member_id,
            peer_address: status.peer_address,
            client_address: status.client_address,
        });
    };
    let configuration = configuration_from_wire(status.configuration.unwrap_or_default())?;
    Ok(PeerReport::Formed {
        cluster_id,
        member_ids: configuration.members().iter().map(|member| member.id).collect(),
        bootstrap: members_from_wire(status.bootstrap.unwrap_or_default().members)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_formed_or_not_or_talks_nonsense() {
        let unformed = v1::NodeStatus {
            member_id: 7,
            peer_address: "p:1".into(),
            client_address: "c:1".into(),
            ..Default::default()
        };
        let member_id = MemberId::new(7).unwrap();
        let expected = PeerReport::Unformed {
            member_id,
            peer_address: "p:1".into(),
            client_address: "c:1".into(),
        };
        assert_eq!(peer_report(unformed.clone()), Ok(expected));
        let removed = v1::NodeStatus {
            was_removed: true,
            ..unformed.clone()
        };
        assert_eq!(peer_report(removed), Ok(PeerReport::WasRemoved));
        let member = v1::Member {
            member_id: 7,
            node: 1,
            peer_address: "p:1".into(),
            client_address: "c:1".into(),
            voter: true,
        };
        let configuration = v1::Configuration {
            version: 0,
            members: vec![member],
            old_voters: Vec::new(),
        };
        let formed = v1::NodeStatus {
            cluster_id: 5,
            configuration: Some(configuration.clone()),
            bootstrap: Some(configuration),
            ..unformed.clone()
        };
        let Ok(PeerReport::Formed {
            cluster_id,
            member_ids,
            bootstrap,
        }) = peer_report(formed)
        else {
            panic!("a formed peer")
        };
        assert_eq!(
            (cluster_id.get(), member_ids, bootstrap.len()),
            (5, vec![member_id], 1)
        );
        assert!(
            peer_report(v1::NodeStatus {
                member_id: 0,
                ..unformed
            })
            .is_err()
        );
    }
}
