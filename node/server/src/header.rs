//! Every Raft message carries the cluster ID and both member IDs; a mismatch is refused.

use raftlog_proto::{error, reason, v1};
use raftlog_raft::ids::{ClusterId, MemberId};
use tonic::{Code, Status};

/// Why a message is not for this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// It has no header, or one with zeros.
    Missing,
    /// This node belongs to no cluster yet.
    Unformed,
    /// It is for another cluster.
    Cluster(ClusterId),
    /// It is for another member than this one, which is given.
    Member(MemberId),
}

/// The sender, if the message is for the member `own` of the cluster `cluster`.
pub(crate) fn check(
    header: Option<&v1::Header>,
    cluster: Option<ClusterId>,
    own: MemberId,
) -> Result<MemberId, Mismatch> {
    let header = header.ok_or(Mismatch::Missing)?;
    let from = MemberId::new(header.from_member).ok_or(Mismatch::Missing)?;
    let to_cluster = ClusterId::new(header.cluster_id).ok_or(Mismatch::Missing)?;
    let cluster = cluster.ok_or(Mismatch::Unformed)?;
    if to_cluster != cluster {
        return Err(Mismatch::Cluster(cluster));
    }
    if header.to_member != own.get() || from == own {
        return Err(Mismatch::Member(own));
    }
    Ok(from)
}

/// The cluster whose leader sends this to the member `own`, which belongs to none yet; `None` if it is for another member.
pub(crate) fn inviting_cluster(header: Option<&v1::Header>, own: MemberId) -> Option<ClusterId> {
    let header = header.filter(|header| header.to_member == own.get())?;
    ClusterId::new(header.cluster_id)
}

impl Mismatch {
    /// The label of the metric, and the reason in the error.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Missing => "NO_HEADER",
            Self::Unformed => reason::UNFORMED,
            Self::Cluster(_) => reason::WRONG_CLUSTER,
            Self::Member(_) => reason::WRONG_MEMBER,
        }
    }
}

impl From<Mismatch> for Status {
    fn from(mismatch: Mismatch) -> Self {
        let message = match mismatch {
            Mismatch::Missing => {
                return Self::invalid_argument("a Raft message carries cluster ID and both member IDs");
            }
            Mismatch::Unformed => "this node belongs to no cluster yet".to_owned(),
            Mismatch::Cluster(cluster) => format!("this node belongs to cluster {cluster}"),
            Mismatch::Member(own) => format!("this node is member {own}"),
        };
        error::status(Code::FailedPrecondition, mismatch.reason(), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_for_this_member_of_this_cluster_passes() {
        let (cluster, own) = (ClusterId::new(5).unwrap(), MemberId::new(2).unwrap());
        let header = |cluster_id, from_member, to_member| v1::Header {
            cluster_id,
            from_member,
            to_member,
            feature_level: 0,
        };
        for (given, formed, expected) in [
            (Some(header(5, 1, 2)), true, Ok(MemberId::new(1).unwrap())),
            (Some(header(6, 1, 2)), true, Err(Mismatch::Cluster(cluster))),
            (Some(header(5, 1, 3)), true, Err(Mismatch::Member(own))),
            (Some(header(5, 2, 2)), true, Err(Mismatch::Member(own))),
            (Some(header(5, 1, 2)), false, Err(Mismatch::Unformed)),
            (Some(header(0, 1, 2)), true, Err(Mismatch::Missing)),
            (Some(header(5, 0, 2)), true, Err(Mismatch::Missing)),
            (None, true, Err(Mismatch::Missing)),
        ] {
            assert_eq!(
                check(given.as_ref(), formed.then_some(cluster), own),
                expected,
                "{given:?}"
            );
        }
    }

    #[test]
    fn the_error_says_which() {
        let status = Status::from(Mismatch::Cluster(ClusterId::new(5).unwrap()));
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(error::reason_of(&status).as_deref(), Some(reason::WRONG_CLUSTER));
        assert_eq!(Status::from(Mismatch::Missing).code(), Code::InvalidArgument);
    }
}
