//! What the operator can do.

use std::collections::BTreeMap;

use raftlog_proto::v1::{BootstrapRequest, ChangeMembershipRequest};

use crate::resources::Resource;

/// One thing to do. Each can be repeated, and says for itself which view it was decided on: an object's identity, or a
/// configuration's version.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make the object so, or remove it.
    Object(Box<Resource>),
    /// Label the pod with its role.
    Label {
        /// Its name.
        pod: String,
        /// Its identity.
        uid: String,
        /// leader or follower.
        role: &'static str,
        /// What Services and the StatefulSet know it by.
        selector: BTreeMap<String, String>,
    },
    /// Note on the claim whose data it holds.
    AnnotateClaim {
        /// Its name.
        claim: String,
        /// Its identity.
        uid: String,
        /// 16 hex digits.
        cluster_id: String,
    },
    /// Have the claim go with the RaftCluster, or stay.
    OwnClaim {
        /// Its name.
        claim: String,
        /// Its identity.
        uid: String,
        /// Who owns it; nobody where it is to stay.
        owner: Option<serde_json::Value>,
    },
    /// Ask for a larger volume.
    GrowClaim {
        /// Its name.
        claim: String,
        /// Its identity.
        uid: String,
        /// How large.
        size: String,
    },
    /// Note on the claim of a member that has left whether it is to stay.
    KeepClaim {
        /// Its name.
        claim: String,
        /// Its identity.
        uid: String,
        /// Whether it is; otherwise it is in use again.
        kept: bool,
    },
    /// Delete the claim of a member that has left, and with it its volume.
    DeleteClaim {
        /// Its name.
        claim: String,
        /// Its identity.
        uid: String,
    },
    /// Make an unformed node part of the new cluster.
    Bootstrap {
        /// Node number of its pod.
        node: u32,
        /// What it is told.
        request: BootstrapRequest,
    },
    /// Change who belongs.
    ChangeMembership {
        /// Node number of the leader's pod.
        leader: u32,
        /// What it is asked.
        request: ChangeMembershipRequest,
        /// In words.
        why: String,
    },
    /// Hand leadership over.
    Transfer {
        /// Node number of the leader's pod.
        leader: u32,
        /// Node number of who is to lead.
        to: u32,
        /// In words.
        why: String,
    },
    /// Delete the pod, so that the StatefulSet makes it anew.
    DeletePod {
        /// Its name.
        pod: String,
        /// Its identity.
        uid: String,
        /// It holds a member that was removed.
        stray: bool,
        /// In words.
        why: String,
    },
    /// Evict the pod, as far as its PodDisruptionBudget allows.
    EvictPod {
        /// Its name.
        pod: String,
        /// Its identity.
        uid: String,
        /// In words.
        why: String,
    },
}

impl Step {
    /// Label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Object(resource) if resource.body.is_none() => "remove",
            Self::Object(_) => "apply",
            Self::Label { .. } => "label",
            Self::AnnotateClaim { .. } | Self::KeepClaim { .. } | Self::OwnClaim { .. } => "annotate",
            Self::GrowClaim { .. } => "grow",
            Self::Bootstrap { .. } => "bootstrap",
            Self::ChangeMembership { .. } => "membership",
            Self::Transfer { .. } => "transfer",
            Self::DeletePod { .. } | Self::DeleteClaim { .. } => "delete",
            Self::EvictPod { .. } => "evict",
        }
    }

    /// What it is about: failures of one are no failures of another.
    pub fn subject(&self) -> String {
        match self {
            Self::Object(resource) => format!("{:?} {}", resource.kind, resource.name),
            Self::Label { pod, .. } | Self::DeletePod { pod, .. } | Self::EvictPod { pod, .. } => {
                format!("{} Pod {pod}", self.label())
            }
            Self::AnnotateClaim { claim, .. }
            | Self::KeepClaim { claim, .. }
            | Self::OwnClaim { claim, .. }
            | Self::GrowClaim { claim, .. }
            | Self::DeleteClaim { claim, .. } => {
                format!("{} PersistentVolumeClaim {claim}", self.label())
            }
            Self::Bootstrap { node, .. } => format!("bootstrap node {node}"),
            Self::ChangeMembership { .. } => "membership".into(),
            Self::Transfer { .. } => "leadership".into(),
        }
    }

    /// What an Event says once it is done, with its reason, where people want to know.
    pub fn event(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Bootstrap { node, request } => Some((
                "Bootstrapped",
                format!(
                    "node {node} is part of the new cluster {:016x}",
                    request.cluster_id
                ),
            )),
            Self::ChangeMembership { why, .. } => Some(("MembershipChanged", why.clone())),
            Self::Transfer { why, .. } => Some(("LeadershipTransferred", why.clone())),
            Self::DeletePod { pod, why, .. } => Some(("PodDeleted", format!("deleted pod {pod}: {why}"))),
            Self::EvictPod { pod, why, .. } => Some(("PodEvicted", format!("evicted pod {pod}: {why}"))),
            Self::GrowClaim { claim, size, .. } => {
                Some(("VolumeGrown", format!("asked for {size} for {claim}")))
            }
            Self::DeleteClaim { claim, .. } => Some((
                "VolumeDeleted",
                format!("deleted claim {claim}, whose member has left"),
            )),
            Self::Object(_)
            | Self::Label { .. }
            | Self::AnnotateClaim { .. }
            | Self::KeepClaim { .. }
            | Self::OwnClaim { .. } => None,
        }
    }
}
