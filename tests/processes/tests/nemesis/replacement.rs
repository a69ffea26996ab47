//! A pod that lost its folders and is replaced while other things go wrong: `raftctl member replace`, again and again until it
//! says that it is done, as a user would.

use processes::cluster::Cluster;
use processes::process::Process;

/// The pod's, and the raftctl at work.
#[derive(Debug)]
pub(crate) struct Replacement {
    node: u32,
    raftctl: Option<Process>,
}

impl Replacement {
    /// Of which nothing was done yet.
    pub(crate) fn of(node: u32) -> Self {
        Self { node, raftctl: None }
    }

    /// Goes on with it; whether it is done.
    pub(crate) async fn is_complete(&mut self, cluster: &mut Cluster) -> bool {
        if let Some(raftctl) = &mut self.raftctl {
            let Some(status) = raftctl.try_status() else {
                return false;
            };
            if status.success() {
                return true;
            }
            println!(
                "node {} is not replaced yet: {}",
                self.node,
                raftctl.stderr().join(" ")
            );
            // The answer of an attempt before may have been lost.
            if is_member(cluster, self.node).await {
                return true;
            }
        }
        let (number, address) = (self.node.to_string(), cluster.address(self.node).to_string());
        let arguments = ["member", "replace", &number, &address, "--timeout", "10s"];
        self.raftctl = Some(cluster.start_raftctl("replace", &arguments));
        false
    }
}

/// Whether the node that runs now is the voter of its number in the cluster's committed configuration, and there is no other.
async fn is_member(cluster: &Cluster, node: u32) -> bool {
    let Ok(status) = cluster.status(node).await else {
        return false;
    };
    let configuration = status.configuration.unwrap_or_default();
    let mut namesakes = configuration.members.iter().filter(|member| member.node == node);
    let is_voter = namesakes.all(|member| member.member_id == status.member_id && member.voter);
    let is_stable = configuration.old_voters.is_empty() && configuration.version <= status.commit_log_index;
    is_stable && is_voter && configuration.members.iter().any(|member| member.node == node)
}
