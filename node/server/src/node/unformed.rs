//! A node that belongs to no cluster yet: it neither votes, campaigns nor acknowledges. It asks around, or is bootstrapped,
//! and then writes down that it belongs before it does anything as a member.

use raftlog_raft::effect::RequestId;
use raftlog_raft::ids::{ClusterId, MemberId};
use raftlog_raft::membership::{Configuration, Member};
use raftlog_raft::time::Time;

use super::api::BootstrapRefusal;
use super::formation::Formation;

/// A node without a cluster.
#[derive(Debug)]
pub(super) struct Unformed {
    pub(super) formation: Formation,
    /// The place it is about to take.
    pub(super) joining: Option<Joining>,
    /// Why it does not follow an invitation.
    pub(super) declined: Option<String>,
    /// When a full disk is asked for room again.
    pub(super) retry_full_disk: Time,
    /// The log has its first batch, and the disk had no room for the identity.
    pub(super) identity_waits: bool,
}

/// A place in a cluster, not yet on disk.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) cluster: ClusterId,
    pub(super) members: Vec<Member>,
    /// This node forms the cluster: it tells the others once it is on disk.
    pub(super) forms: bool,
    /// Bootstrap calls to answer once it is on disk.
    pub(super) asked_by: Vec<RequestId>,
}

impl Unformed {
    /// When time is what happens next. On the way into a cluster there is nobody left to ask, and it is the disk.
    pub(super) fn deadline(&self) -> Time {
        if self.joining.is_some() {
            self.retry_full_disk
        } else {
            self.formation.due()
        }
    }

    /// What keeps it from joining, for people.
    pub(super) fn waiting_for(&self) -> String {
        let declined = self.declined.clone();
        declined.unwrap_or_else(|| self.formation.waiting_for())
    }

    /// Judges a bootstrap call; what was accepted before decides like what is on disk.
    pub(super) fn bootstrap(
        &mut self,
        me: MemberId,
        id: RequestId,
        cluster: ClusterId,
        members: Vec<Member>,
    ) -> Result<Option<Joining>, BootstrapRefusal> {
        check_members(me, &members)?;
        match &mut self.joining {
            Some(joining) if same_cluster(joining.cluster, &joining.members, cluster, &members) => {
                joining.asked_by.push(id);
                Ok(None)
            }
            Some(joining) => Err(BootstrapRefusal::AlreadyFormed(joining.cluster)),
            None => Ok(Some(Joining {
                cluster,
                members,
                forms: false,
                asked_by: vec![id],
            })),
        }
    }
}

/// Whether two bootstraps are the same call, whatever the order of their members.
pub(super) fn same_cluster(
    cluster: ClusterId,
    members: &[Member],
    other: ClusterId,
    others: &[Member],
) -> bool {
    let sorted = |members: &[Member]| Configuration::new(0, members.to_vec());
    cluster == other && sorted(members) == sorted(others)
}

fn check_members(me: MemberId, members: &[Member]) -> Result<(), BootstrapRefusal> {
    let invalid = |why: String| Err(BootstrapRefusal::Invalid(why));
    let configuration = Configuration::new(0, members.to_vec());
    if configuration.members().len() != members.len() {
        return invalid("two members have the same identity".to_owned());
    }
    if members
        .iter()
        .any(|member| members.iter().filter(|other| other.node == member.node).count() > 1)
    {
        return invalid("two members have the same node number".to_owned());
    }
    match configuration.member(me) {
        Some(member) if member.voter => Ok(()),
        Some(_) => invalid(format!(
            "member {me} is listed as a learner; the first members are voters"
        )),
        None => invalid(format!("this node is member {me}, which is not listed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, node: u32) -> Member {
        let address = format!("node{node}:5001");
        let id = MemberId::new(id).unwrap();
        Member {
            id,
            node,
            peer_address: address.clone(),
            client_address: address,
            voter: true,
        }
    }

    #[test]
    fn what_is_no_list_of_first_members_is_refused() {
        let me = MemberId::new(1).unwrap();
        let learner = Member {
            voter: false,
            ..member(1, 1)
        };
        let cases = [
            ("good", vec![member(2, 2), member(1, 1)], true),
            ("not listed", vec![member(2, 2)], false),
            ("empty", vec![], false),
            ("a learner", vec![learner, member(2, 2)], false),
            ("an identity twice", vec![member(1, 1), member(1, 2)], false),
            ("a number twice", vec![member(1, 1), member(2, 1)], false),
        ];
        for (name, members, good) in cases {
            assert_eq!(check_members(me, &members).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn the_order_of_members_makes_no_other_cluster() {
        let (one, two) = (ClusterId::new(1).unwrap(), ClusterId::new(2).unwrap());
        let (ab, ba) = ([member(1, 1), member(2, 2)], [member(2, 2), member(1, 1)]);
        assert!(same_cluster(one, &ab, one, &ba));
        assert!(!same_cluster(one, &ab, two, &ab));
        assert!(!same_cluster(one, &ab, one, &ab[..1]));
    }
}
