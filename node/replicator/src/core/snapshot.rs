//! Snapshots that the node orders: where this replicator stands, with the executor's state there (design 6.5).

use raftlog_raft::ids::OperationIndex;

use super::effect::{Effect, Snapshot, SnapshotState};
use super::event::StreamId;
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
    /// but the snapshot goes on right behind it, for these reasons:
    ///
    /// - The place is at most the executed one on this disk, written behind the operations that it speaks of and only after the executor
    ///   had done them. So a crash right after the answer never leaves a replicator that has executed less than the
    ///   snapshot says, while the node drops operations that it would have to execute again.
    /// - Place and state belong together. An executor without a state has the same for every place. One with a state copies it between two
    ///   operations, and the copy goes with the place of the first of the two, however long it takes and whatever is executed meanwhile.
    /// - Where only the leader's replicator executes, the place is at most the mark: whoever leads next goes on behind that, and needs
    ///   all that follows.
    /// - The place has the running hash and the term of its operation, so a node takes it only if its own log says the same
    ///   there.
    pub(super) fn answer_order(&mut self) {
        if self.config.executor.has_state() {
            return self.answer_order_by_copy();
        }
        let place = self.executed_for_good();
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.agreed.is_some()) else {
            return;
        };
        if place.index == 0 {
            return;
        }
        if let Some(id) = stream.order.take() {
            let state = SnapshotState::Whole(self.config.executor.empty_state());
            let snapshot = Snapshot { id, place, state };
            self.effects.push(Effect::Snapshot(stream.id, snapshot));
        }
    }

    /// The node holds snapshots durably: for its sake, nothing at or below `index` has to stay.
    pub(super) fn snapshot_kept(&mut self, stream: StreamId, index: OperationIndex) {
        if self.stream.as_ref().is_some_and(|open| open.id == stream) {
            self.compaction.kept = index;
            self.is_in_snapshots(index);
        }
    }
}
