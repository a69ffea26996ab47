//! `member list|add|promote|remove|replace`.

mod cluster;
mod list;
mod named;
mod plan;

use std::time::{Duration, Instant};

use raftlog_client::{Client, Endpoint, Options};
use raftlog_proto::v1::{self, MembershipChange, NodeStatus, membership_change::Change};

use crate::{
    args::{Common, MemberChange, MemberCommand},
    failure::{Failure, REFUSED},
    output::Output,
    text,
};
use cluster::{leader_status, status_of};
pub(crate) use named::Named;
use plan::{Changed, configuration_of};

/// How often the leader is asked whether a new member has caught up.
const POLL_EVERY: Duration = Duration::from_millis(200);

/// Looks at or changes who belongs to the cluster.
pub(crate) async fn run(common: &Common, command: MemberCommand) -> Result<(), Failure> {
    match command {
        MemberCommand::List { timeout } => {
            let status = leader_status(&client(common, timeout)?, timeout).await?;
            list::print(common, &status)
        }
        MemberCommand::Add { node, change } => {
            let work = Work::begin(common, change).await?;
            let new = work.new_member(&node).await?;
            work.change(vec![Change::AddLearner(new)]).await
        }
        MemberCommand::Promote { member, change } => {
            let work = Work::begin(common, change).await?;
            let id = member.find(work.members(), |member| !member.voter)?.member_id;
            work.change(vec![Change::Promote(id)]).await
        }
        MemberCommand::Remove { member, change } => {
            let work = Work::begin(common, change).await?;
            let id = member.find(work.members(), |_| true)?.member_id;
            work.change(vec![Change::Remove(id)]).await
        }
        MemberCommand::Replace { member, with, change } => {
            let work = Work::begin(common, change).await?;
            work.replace(&member, with).await
        }
    }
}

fn client(common: &Common, timeout: Duration) -> Result<Client, Failure> {
    let options = Options {
        timeout,
        ..Options::default()
    };
    Ok(Client::new(common.endpoints.to_vec(), options)?)
}

/// A node that does not support the cluster's feature level could never follow it.
fn check_levels(cluster: u32, at: &Endpoint, node: &NodeStatus) -> Result<(), Failure> {
    // Nodes that knew no levels yet say 0, and mean 1.
    let level = cluster.max(1);
    let (min, max) = (node.feature_level_min.max(1), node.feature_level_max.max(1));
    if (min..=max).contains(&level) {
        return Ok(());
    }
    Err(Failure::Exit {
        code: REFUSED,
        message: format!(
            "node {} at {at} supports feature level {}, and the cluster is at {level}: start a version there that supports \
             level {level}",
            node.node,
            text::levels(min, max)
        ),
    })
}

/// One command that changes the membership: what the leader said when it began, and until when it may take.
struct Work<'a> {
    common: &'a Common,
    arguments: MemberChange,
    client: Client,
    status: NodeStatus,
    deadline: Instant,
}

impl<'a> Work<'a> {
    async fn begin(common: &'a Common, arguments: MemberChange) -> Result<Self, Failure> {
        let client = client(common, arguments.timeout)?;
        let deadline = Instant::now() + arguments.timeout;
        let status = leader_status(&client, arguments.timeout).await?;
        Ok(Self {
            common,
            arguments,
            client,
            status,
            deadline,
        })
    }

    fn members(&self) -> &[v1::Member] {
        self.status
            .configuration
            .as_ref()
            .map_or(&[], |configuration| &configuration.members)
    }

    /// The member that the node there would be.
    async fn new_member(&self, node: &Endpoint) -> Result<v1::Member, Failure> {
        let nothing_changed = "nothing was changed; give the client address of a node that runs";
        let status = status_of(&self.client, node).await;
        let status = status.map_err(|failure| failure.adding(nothing_changed))?;
        let ours = status.cluster_id == self.status.cluster_id;
        if status.cluster_id != 0 && !ours {
            return Err(Failure::failed(format!(
                "node {} at {node} belongs to cluster {:016x}, not to this one: start it with an empty data folder",
                status.node, status.cluster_id
            )));
        }
        check_levels(self.status.feature_level, node, &status)?;
        let is_earlier = |member: &&v1::Member| {
            !member.voter && member.node == status.node && member.member_id != status.member_id
        };
        if let Some(earlier) = self.members().iter().find(is_earlier) {
            return Err(Failure::failed(format!(
                "node {} at {node} has lost the data of learner {:016x}: run `raftctl member remove {:016x}` first",
                status.node, earlier.member_id, earlier.member_id
            )));
        }
        Ok(v1::Member {
            member_id: status.member_id,
            node: status.node,
            peer_address: status.peer_address,
            client_address: status.client_address,
            voter: false,
        })
    }

    /// Makes the changes, in one step, and says from what to what.
    async fn change(self, changes: Vec<Change>) -> Result<(), Failure> {
        let before = configuration_of(&self.status);
        let force = self.arguments.force;
        let after = self.call(before.version, changes, force).await?;
        self.print(&before, &after)
    }

    async fn call(
        &self,
        expected_version: u64,
        changes: Vec<Change>,
        force: bool,
    ) -> Result<v1::Configuration, Failure> {
        self.ask(expected_version, changes, force, self.arguments.dry_run)
            .await
    }

    async fn ask(
        &self,
        expected_version: u64,
        changes: Vec<Change>,
        force: bool,
        dry_run: bool,
    ) -> Result<v1::Configuration, Failure> {
        let wrapped = changes
            .into_iter()
            .map(|change| MembershipChange { change: Some(change) });
        let request = v1::ChangeMembershipRequest {
            expected_version,
            changes: wrapped.collect(),
            force,
            dry_run,
        };
        Ok(self.client.change_membership(request).await?)
    }

    fn print(&self, before: &v1::Configuration, after: &v1::Configuration) -> Result<(), Failure> {
        let changed = Changed::new(before, after, self.arguments.dry_run);
        Output::stdout().whole(
            self.common.output,
            &changed,
            || changed.text(),
            || changed.after.version.to_string(),
        )
    }

    /// Adds the new member, waits until it holds the log, and lets it take the old one's place in one step.
    async fn replace(self, member: &Named, with: Option<Endpoint>) -> Result<(), Failure> {
        let before = configuration_of(&self.status);
        let old = member.find(self.members(), |member| member.voter)?.clone();
        let at = match with {
            Some(endpoint) => endpoint,
            None => Endpoint::parse(&old.client_address).map_err(Failure::failed)?,
        };
        let new = self.new_member(&at).await?;
        if new.member_id == old.member_id {
            return Err(Failure::failed(format!(
                "node {} at {at} still is member {:016x} itself: empty its data folder and start it, or name the node \
                 that replaces it",
                old.node, old.member_id
            )));
        }
        let is_voter = |member: &&v1::Member| member.voter && member.member_id == new.member_id;
        if let Some(voter) = self.members().iter().find(is_voter) {
            return Err(Failure::failed(format!(
                "node {} at {at} is a voter already: name a node that is none yet, or only remove node {}",
                voter.node, old.node
            )));
        }
        let (new_id, old_id) = (new.member_id, old.member_id);
        let add = Change::AddLearner(new);
        let take_place = vec![Change::Promote(new_id), Change::Remove(old_id)];
        // Looked at as a whole before anything is changed; nobody can have caught up who is not added yet.
        let all = std::iter::once(add.clone()).chain(take_place.clone()).collect();
        let after = self.ask(before.version, all, true, true).await?;
        if self.arguments.dry_run {
            return self.print(&before, &after);
        }
        let added = self.call(before.version, vec![add], self.arguments.force).await?;
        if !self.arguments.force {
            self.wait_until_caught_up(new_id).await?;
        }
        let after = self.call(added.version, take_place, self.arguments.force).await?;
        self.print(&before, &after)
    }

    async fn wait_until_caught_up(&self, id: u64) -> Result<(), Failure> {
        loop {
            let remaining = self.deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Err(Failure::failed(format!(
                    "member {id:016x} was added as a learner and has not caught up in time: look at `raftctl member list`, \
                     and run this again or take it back with `raftctl member remove {id:016x}`"
                )));
            }
            let status = leader_status(&self.client, remaining).await?;
            let progress = status.progress.iter().find(|progress| progress.member_id == id);
            if progress.is_some_and(|progress| progress.caught_up) {
                return Ok(());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_could_not_follow_is_not_added() {
        let at = Endpoint::parse("127.0.0.1:5006").unwrap();
        let node = |min, max| NodeStatus {
            node: 6,
            feature_level_min: min,
            feature_level_max: max,
            ..NodeStatus::default()
        };
        for (cluster, min, max, good) in [
            (0, 0, 0, true),
            (1, 0, 0, true),
            (1, 1, 2, true),
            (2, 1, 2, true),
            (2, 0, 0, false),
            (2, 1, 1, false),
            (1, 2, 3, false),
        ] {
            let checked = check_levels(cluster, &at, &node(min, max));
            assert_eq!(checked.is_ok(), good, "{min} to {max} in a cluster at {cluster}");
        }
        let Err(Failure::Exit { code, message }) = check_levels(2, &at, &node(1, 1)) else {
            panic!("it is refused")
        };
        assert_eq!(code, REFUSED);
        assert_eq!(
            message,
            "node 6 at 127.0.0.1:5006 supports feature level 1, and the cluster is at 2: start a version there that supports \
             level 2"
        );
    }
}
