//! Entries of the log.

use raftlog_proto::v1::{self, entry::Kind};
use raftlog_raft::entry::{
    CLIENT_ID_BYTES_MAX, Entry, OPERATION_BYTES_MAX, Operation, Payload, SessionStamp,
};
use raftlog_raft::ids::ClusterId;

use super::Malformed;
use super::member::{configuration_from_wire, configuration_to_wire};
use super::raft::feature_level;

pub(super) fn entry_to_wire(entry: Entry) -> v1::Entry {
    let kind = match entry.payload {
        Payload::Noop => Kind::Noop(v1::Noop {}),
        Payload::Operation(operation) => Kind::Operation(operation_to_wire(operation)),
        Payload::Configuration(configuration) if configuration.is_joint() => {
            Kind::JointConfiguration(configuration_to_wire(&configuration))
        }
        Payload::Configuration(configuration) => Kind::Configuration(configuration_to_wire(&configuration)),
        Payload::SessionOpened => Kind::SessionOpened(v1::SessionOpened {}),
        Payload::ExecutionProgress { executed_through } => {
            Kind::ExecutionProgress(v1::ExecutionProgress { executed_through })
        }
        Payload::Recovered {
            parent,
            configuration,
        } => Kind::Recovered(v1::Recovered {
            parent_cluster_id: parent.get(),
            configuration: Some(configuration_to_wire(&configuration)),
        }),
        Payload::FeatureLevel(level) => Kind::FeatureLevel(v1::FeatureLevel {
            level: level.get().into(),
        }),
    };
    v1::Entry {
        log_index: entry.log_index,
        term: entry.term,
        operation_index: entry.operation_index,
        running_hash: entry.running_hash,
        kind: Some(kind),
    }
}

pub(super) fn entry_from_wire(entry: v1::Entry) -> Result<Entry, Malformed> {
    let payload = match entry.kind.ok_or(Malformed("entry: kind"))? {
        Kind::Noop(v1::Noop {}) => Payload::Noop,
        Kind::Operation(operation) => Payload::Operation(operation_from_wire(operation)?),
        Kind::Configuration(configuration) | Kind::JointConfiguration(configuration) => {
            Payload::Configuration(configuration_from_wire(configuration)?)
        }
        Kind::SessionOpened(v1::SessionOpened {}) => Payload::SessionOpened,
        Kind::ExecutionProgress(progress) => Payload::ExecutionProgress {
            executed_through: progress.executed_through,
        },
        Kind::Recovered(recovered) => Payload::Recovered {
            parent: ClusterId::new(recovered.parent_cluster_id).ok_or(Malformed("recovered: parent"))?,
            configuration: recovered
                .configuration
                .ok_or(Malformed("recovered: configuration"))
                .and_then(configuration_from_wire)
                .ok()
                .filter(|configuration| !configuration.is_joint())
                .ok_or(Malformed("recovered: configuration"))?,
        },
        Kind::FeatureLevel(raised) => Payload::FeatureLevel(feature_level(raised.level)?),
    };
    if entry.log_index == 0 {
        return Err(Malformed("entry: log_index"));
    }
    Ok(Entry {
        log_index: entry.log_index,
        term: entry.term,
        operation_index: entry.operation_index,
        running_hash: entry.running_hash,
        payload,
    })
}

fn operation_to_wire(operation: Operation) -> v1::Operation {
    let (client_id, sequence, acknowledged_through) = match operation.session {
        None => (String::new(), 0, 0),
        Some(stamp) => (
            stamp.client_id.as_ref().to_owned(),
            stamp.sequence,
            stamp.acknowledged_through,
        ),
    };
    v1::Operation {
        data: operation.data,
        client_id,
        sequence,
        acknowledged_through,
    }
}

fn operation_from_wire(operation: v1::Operation) -> Result<Operation, Malformed> {
    if operation.data.is_empty() || operation.data.len() > OPERATION_BYTES_MAX {
        return Err(Malformed("operation: length"));
    }
    if operation.client_id.len() > CLIENT_ID_BYTES_MAX {
        return Err(Malformed("operation: client_id"));
    }
    let session = (!operation.client_id.is_empty()).then(|| SessionStamp {
        client_id: operation.client_id.into(),
        sequence: operation.sequence,
        acknowledged_through: operation.acknowledged_through,
    });
    Ok(Operation {
        data: operation.data,
        session,
    })
}
