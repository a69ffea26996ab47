//! Snapshots that the node orders: where this replicator stands, with the executor's state there (design 6.5).

use raftlog_raft::ids::OperationIndex;

use super::effect::{Effect, Snapshot};
use super::event::StreamId;
use super::executor_state;
use super::replicator::Replicator;

impl Replicator {
    /// The node wants a snapshot. A later order replaces an earlier one.
    pub(super) fn take_snapshot(&mut self, stream: StreamId, id: u64) {
        if let Some(stream) = self.stream.as_mut().filter(|open| open.id == stream) {
            stream.order = Some(id);
        }
    }

    /// Answers the order, once something is executed durably.
    ///
    /// A snapshot says "executed up to here, with this state". That pair is true for ever, and whoever loses everything
    /// but the snapshot goes on right behind it, for three reasons:
    ///
    /// - The place is the executed one on this disk, written behind the operations that it speaks of and only after the executor
    ///   had done them. So a crash right after the answer never leaves a replicator that has executed less than the
    ///   snapshot says, while the node drops operations that it would have to execute again.
    /// - Place and state go out together, in one effect of one step, in which nothing is executed: neither can be newer
    ///   than the other. The state of `log` is a function of the place; one that changes as operations are executed has
    ///   to be copied where the executor stands, and go with the place of that copy, not with this one.
    /// - The place has the running hash and the term of its operation, so a node takes it only if its own log says the same
    ///   there.
    pub(super) fn answer_order(&mut self) {
        let place = self.writing.durable_executed;
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.agreed.is_some()) else {
            return;
        };
        if place.index == 0 {
            return;
        }
        if let Some(id) = stream.order.take() {
            let state = executor_state::encode();
            let snapshot = Snapshot { id, place, state };
            self.effects.push(Effect::Snapshot(stream.id, snapshot));
        }
    }

    /// The node holds snapshots durably: for its sake, nothing at or below `index` has to stay.
    pub(super) fn snapshot_kept(&mut self, stream: StreamId, index: OperationIndex) {
        if self.stream.as_ref().is_some_and(|open| open.id == stream) {
            self.compaction.kept = index;
        }
    }
}
