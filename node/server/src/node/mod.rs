//! The pure node: consensus, log, formation and the replicator's feed glued together. No I/O, no clock, no threads; the
//! runtime beside it drives it, and so does the simulator.

mod api;
mod notice;

pub use api::{
    BootstrapRefusal, Committed, ElectedBy, FromReplicator, Input, Leader, MemberProgress, NodeConfig,
    Output, PeerReport, Place, Position, Progress, Proposal, Proposed, Refusal, ReplicatedOperation,
    ReplicatorView, RequestId, Role, StartAction, Status, StreamId, ToReplicator, TransferRefusal,
    Transferred,
};
pub use notice::Notice;
