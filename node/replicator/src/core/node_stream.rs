//! What comes from the node: who it is, where to start, operations and the commit index (design 6.4).

use raftlog_raft::entry::OPERATION_BYTES_MAX;
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber, OperationIndex};
use raftlog_raft::planted::Bug;

use super::effect::{Effect, Notice, Refusal, Story};
use super::event::{Parent, StartAction, StreamId};
use super::incoming::{Incoming, check_place};
use super::operation::{Operation, Place};
use super::replicator::{NodeStream, Phase, Replicator};

/// Why an operation was not taken.
enum Untaken {
    /// The stream is not to be trusted any more, the log is.
    Protocol(String),
    /// The logs of node and replicator contradict each other.
    Fatal(String),
}

impl Replicator {
    pub(super) fn node_opened(
        &mut self,
        id: StreamId,
        cluster: ClusterId,
        member: MemberId,
        node: NodeNumber,
        parent: Option<Parent>,
    ) {
        if let Some((cluster, why)) = self.is_given_up(cluster, node, parent) {
            return self.give_up(cluster, why);
        }
        if let Some(refusal) = self.refusal_of(cluster, node, parent) {
            if !matches!(refusal, Refusal::Stopping) {
                self.notice(Notice::Refused(refusal.clone()));
                if self.stream.is_none() {
                    self.refused = Some(refusal.clone());
                }
            }
            self.effects.push(Effect::Close(id, refusal));
            return;
        }
        if let Some(old) = self.take_stream() {
            // The node was restarted, and its old connection lingers.
            self.effects
                .push(Effect::Close(old.id, Refusal::Replaced { node }));
        }
        self.refused = None;
        self.parent = parent;
        self.stream = Some(NodeStream {
            id,
            cluster,
            member,
            node,
            agreed: None,
            incoming: None,
            order: None,
            told: None,
        });
        self.check_claim();
        // What is here is about to be another thing, and is told then.
        if self.installing.is_none() {
            self.effects.push(Effect::Position(id, self.position()));
        }
    }

    fn refusal_of(&self, theirs: ClusterId, node: NodeNumber, parent: Option<Parent>) -> Option<Refusal> {
        if self.phase == Phase::Stopping {
            return Some(Refusal::Stopping);
        }
        if node != self.config.node {
            return Some(Refusal::WrongNode {
                node,
                ours: self.config.node,
            });
        }
        let ours = self.cluster.filter(|ours| *ours != theirs)?;
        let Some(parent) = parent.filter(|parent| parent.cluster == ours) else {
            return Some(Refusal::WrongCluster { node, theirs, ours });
        };
        let Place {
            index: commit,
            running_hash,
            ..
        } = self.commit;
        let is_past = commit < parent.index || commit == parent.index && running_hash == parent.running_hash;
        (!is_past).then_some(Refusal::OtherPast {
            node,
            theirs,
            ours,
            commit,
        })
    }

    /// Why all that is here is of no use: this replicator's own node is of a cluster now that was recovered from this one with less
    /// than is committed here. What was executed beyond cannot be taken back, so it begins anew. As long as a node of this cluster is
    /// connected, that one is not gone, and the other is refused.
    fn is_given_up(
        &self,
        theirs: ClusterId,
        node: NodeNumber,
        parent: Option<Parent>,
    ) -> Option<(ClusterId, String)> {
        let ours = self
            .cluster
            .filter(|ours| *ours != theirs && node == self.config.node)?;
        if self.stream.as_ref().is_some_and(|open| open.cluster == ours) {
            return None;
        }
        let commit = self.commit.index;
        let parent = parent.filter(|parent| parent.cluster == ours && commit > parent.index)?;
        let why = format!(
            "node {node} is of cluster {theirs} now, which was recovered from cluster {ours} with operations up to index {}: what \
             this replicator has beyond, up to index {commit}, is lost to the cluster; start it again, and it moves its data \
             aside, into removed-{ours}, and receives and executes what the cluster has",
            parent.index
        );
        Some((ours, why))
    }

    pub(super) fn start(&mut self, id: StreamId, action: StartAction, commit: OperationIndex) {
        let Some(stream) = self.stream.as_ref().filter(|stream| stream.id == id) else {
            return;
        };
        let (node, member, cluster) = (stream.node, stream.member, stream.cluster);
        if self.is_restoring() {
            let what = "it said how to start while a snapshot is being restored".to_owned();
            return self.refuse_stream(Refusal::Protocol { node, what });
        }
        let (agreed, incoming) = match self.agree(node, action) {
            Ok(agreed) => agreed,
            Err(Untaken::Protocol(what)) => return self.refuse_stream(Refusal::Protocol { node, what }),
            Err(Untaken::Fatal(why)) => return self.fail(why),
        };
        let adopts = self.cluster.filter(|before| *before != cluster);
        // A node that is behind does not know yet whether the two agree.
        let is_sure = adopts.is_none() || !matches!(action, StartAction::WaitUntil(_));
        if is_sure && (self.cluster != Some(cluster) || self.member != Some(member)) {
            if let Some(before) = adopts {
                self.notice(Notice::Adopted {
                    node,
                    before,
                    cluster,
                    index: self.commit.index,
                });
                // It is to know the cluster that its state is of from now on, before it is given anything of it.
                if self.config.executor.has_state() {
                    self.executor_away();
                    self.effects.push(Effect::Reattach);
                }
            }
            let before = self.member.filter(|before| *before != member);
            self.notice(Notice::Paired {
                node,
                member,
                cluster,
                before,
            });
            self.cluster = Some(cluster);
            self.member = Some(member);
        }
        if let StartAction::WaitUntil(until) = action {
            self.notice(Notice::Waiting { node, until });
        }
        if let Some(stream) = &mut self.stream {
            (stream.agreed, stream.incoming) = (agreed, incoming);
        }
        self.check_claim();
        self.ready_at.get_or_insert(commit);
        self.commit_to(commit.min(agreed.unwrap_or(0)));
    }

    /// Up to where the logs agree, after dropping what the node says to drop; or else what is to replace it all.
    fn agree(
        &mut self,
        node: NodeNumber,
        action: StartAction,
    ) -> Result<(Option<OperationIndex>, Option<Incoming>), Untaken> {
        let (last, commit) = (self.held.last().index, self.commit.index);
        match action {
            // What is committed is on all that can lead: a node that has caught up agrees up to there.
            StartAction::WaitUntil(_) => Ok((Some(commit), None)),
            StartAction::Restore { place, size } => {
                let lacks_from = self.attachment.needs_state().then_some(self.base.index);
                check_place(place, commit, lacks_from)
                    .and_then(|()| Incoming::new(place, size, self.config.executor))
                    .map(|incoming| (None, Some(incoming)))
                    .map_err(Untaken::Protocol)
            }
            StartAction::ResumeFrom(from) if from > commit && from <= last + 1 => Ok((Some(from - 1), None)),
            StartAction::ResumeFrom(from) => Err(Untaken::Protocol(format!(
                "it resumes from index {from}, but this replicator has committed {commit} and holds {last}"
            ))),
            StartAction::CutTo(to) if to < commit && !self.config.planted.has(Bug::CutBelowCommit) => {
                Err(Untaken::Fatal(format!(
                    "node {node} wants index {} dropped, which is committed here (commit index {commit}): one of the two data \
                 folders is not of this cluster's past; nothing was dropped. Find out which with GetStatus of the other \
                 nodes, then start its owner with an empty folder",
                    to + 1
                )))
            }
            StartAction::CutTo(to) if to > last => Err(Untaken::Protocol(format!(
                "it cuts to index {to}, but this replicator holds {last} only"
            ))),
            StartAction::CutTo(to) => {
                self.cut(to + 1);
                Ok((Some(to), None))
            }
        }
    }

    pub(super) fn feed(&mut self, id: StreamId, operations: Vec<Operation>, commit: OperationIndex) {
        let Some(stream) = self.stream.as_ref().filter(|stream| stream.id == id) else {
            return;
        };
        let node = stream.node;
        let Some(mut agreed) = stream.agreed else {
            let what = "it fed operations before it said where to start".to_owned();
            return self.refuse_stream(Refusal::Protocol { node, what });
        };
        if !operations.is_empty() {
            self.effects.push(Effect::Story(Story::Replicated { from: node }));
        }
        match self.take_all(node, agreed, operations) {
            Ok(now) => agreed = now,
            Err(Untaken::Protocol(what)) => return self.refuse_stream(Refusal::Protocol { node, what }),
            Err(Untaken::Fatal(why)) => return self.fail(why),
        }
        if let Some(stream) = &mut self.stream {
            stream.agreed = Some(agreed);
        }
        self.commit_to(commit.min(agreed));
    }

    /// Consecutive operations; answers up to where the logs agree then.
    fn take_all(
        &mut self,
        node: NodeNumber,
        mut agreed: OperationIndex,
        operations: Vec<Operation>,
    ) -> Result<OperationIndex, Untaken> {
        let mut next = None;
        for operation in operations {
            let index = operation.index;
            if let Some(next) = next.filter(|next| *next != index) {
                return Err(Untaken::Protocol(format!(
                    "it sent index {index} where {next} comes next"
                )));
            }
            self.take(node, agreed, operation)?;
            agreed = index;
            next = index.checked_add(1);
        }
        Ok(agreed)
    }

    /// One operation behind what the logs agree on; it may replace what lies there and is not committed.
    fn take(
        &mut self,
        node: NodeNumber,
        agreed: OperationIndex,
        operation: Operation,
    ) -> Result<(), Untaken> {
        let (index, last) = (operation.index, self.held.last().index);
        if operation.data.is_empty() || operation.data.len() > OPERATION_BYTES_MAX {
            let bytes = operation.data.len();
            return Err(Untaken::Protocol(format!("operation {index} has {bytes} bytes")));
        }
        if index <= self.commit.index {
            return Err(Untaken::Fatal(format!(
                "node {node} sent an operation for index {index}, which is committed here (commit index {}): it is never \
                 replaced; start the one of the two that has the wrong data folder with an empty one",
                self.commit.index
            )));
        }
        if index > agreed + 1 {
            return Err(Untaken::Protocol(format!(
                "it sent index {index} where {} comes next",
                agreed + 1
            )));
        }
        let previous = self
            .held
            .place(index - 1)
            .expect("places are known from the commit index on");
        let expected = operation.expected_hash(previous);
        if operation.running_hash != expected {
            return Err(Untaken::Fatal(format!(
                "operation {index} of node {node} has running hash {:016x}, after what is held here it must be {expected:016x}: \
                 the logs of node and replicator differ at or before index {index}; if the node's is the right one, start \
                 this replicator with an empty data folder",
                operation.running_hash
            )));
        }
        if self.held.place(index) == Some(operation.place()) {
            return Ok(());
        }
        if index <= last {
            self.cut(index);
        }
        self.writing.took(&operation);
        self.held.push(operation);
        Ok(())
    }

    /// Drops `from` and everything after it, none of it committed.
    pub(super) fn cut(&mut self, from: OperationIndex) {
        if from > self.held.last().index {
            return;
        }
        let dropped = self.held.truncate(from);
        self.writing.truncated(from, &dropped);
        self.notice(Notice::Cut {
            node: self.config.node,
            from,
        });
    }

    pub(super) fn refuse_stream(&mut self, refusal: Refusal) {
        let Some(stream) = self.take_stream() else { return };
        self.notice(Notice::Refused(refusal.clone()));
        self.effects.push(Effect::Close(stream.id, refusal.clone()));
        self.refused = Some(refusal);
    }

    pub(super) fn node_closed(&mut self, id: StreamId) {
        if self.stream.as_ref().is_some_and(|stream| stream.id == id) {
            self.take_stream();
        }
    }
}
