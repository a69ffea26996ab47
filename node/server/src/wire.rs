//! Between what goes over the wire and what the core understands. Strict: what is malformed is refused here, so that the
//! core never meets it.

mod entry;
mod member;
mod raft;
mod replicator;
mod snapshot;
mod status;

pub(crate) use member::{
    configuration_to_wire, leader_to_wire, members_from_wire, members_to_wire, membership_change_from_wire,
};
pub(crate) use raft::{
    Envelope, append_entries_from_wire, append_entries_to_wire, append_response_from_wire,
    append_response_to_wire, compare_hash_from_wire, compare_hash_to_wire, compared_from_wire,
    compared_to_wire, level_from_wire, request_vote_from_wire, request_vote_to_wire, timeout_now_from_wire,
    timeout_now_to_wire, vote_from_wire, vote_to_wire,
};
pub(crate) use replicator::{End, from_replicator, hello, result, results_wanted, to_replicator};
pub(crate) use snapshot::{
    download_from_wire, install_snapshot_from_wire, install_snapshot_to_wire, manifest_to_wire,
    snapshot_response_from_wire, snapshot_response_to_wire,
};
pub(crate) use status::{peer_report, status_to_wire};

use thiserror::Error;

/// What came over the wire breaks the contract: the field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("bad {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}
