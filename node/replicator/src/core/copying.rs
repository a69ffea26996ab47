//! Copies of an executor's state for snapshots. The executor is asked for one, says what it is of before it is given more operations,
//! and then takes its time; what it has copied waits at the driver until the node can be given it.

use raftlog_raft::planted::Bug;

use super::attachment::Attachment;
use super::effect::{Effect, Snapshot, SnapshotState};
use super::executor_state::STATE_HEADER_BYTES;
use super::operation::Place;
use super::replicator::Replicator;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Copying {
    #[default]
    Idle,
    Asked,
    /// Of the state there.
    Begun(Place),
    /// With so many bytes.
    Copied(Place, u64),
}

impl Copying {
    /// What it was copying is lost, what is copied is not.
    pub(super) fn executor_gone(&mut self) {
        if !matches!(self, Self::Copied(..)) {
            *self = Self::Idle;
        }
    }
}

impl Replicator {
    /// The executor copies what it has applied by now.
    pub(super) fn copy_begun(&mut self) {
        if self.copying == Copying::Asked {
            self.copying = Copying::Begun(self.execution.executed());
        }
    }

    /// The copy is complete, or came to nothing.
    pub(super) fn copied(&mut self, bytes: Option<u64>) {
        self.copying = match (self.copying, bytes) {
            (Copying::Begun(_), Some(bytes)) if self.config.planted.has(Bug::CopyPlacedLate) => {
                Copying::Copied(self.execution.executed(), bytes)
            }
            (Copying::Begun(place), Some(bytes)) => Copying::Copied(place, bytes),
            _ => Copying::Idle,
        };
    }

    /// Asks for a copy, or answers the node's order with the one that is there. It goes with the place that the executor was at, once a
    /// crash here would not make this replicator forget that place.
    pub(super) fn answer_order_by_copy(&mut self) {
        let ordered =
            |stream: &&mut super::replicator::NodeStream| stream.agreed.is_some() && stream.order.is_some();
        let durable = self.durable_executed().index;
        let Some(stream) = self.stream.as_mut().filter(ordered) else {
            return;
        };
        match self.copying {
            // Perhaps as of the place of the snapshot that the node has: entries without operations fill its log, too, and the
            // same state lets it drop them.
            Copying::Copied(place, bytes)
                if place.index <= durable && place.index >= self.compaction.kept =>
            {
                if let Some(id) = stream.order.take() {
                    let header = self.config.executor.header();
                    let bytes = bytes.saturating_add(STATE_HEADER_BYTES as u64);
                    let state = SnapshotState::Copied { header, bytes };
                    self.effects
                        .push(Effect::Snapshot(stream.id, Snapshot { id, place, state }));
                    self.copying = Copying::Idle;
                }
            }
            // Older than what the node has by now.
            Copying::Copied(place, _) if place.index < self.compaction.kept => self.copying = Copying::Idle,
            Copying::Idle if self.attachment == Attachment::Agreed && self.execution.executed().index > 0 => {
                self.copying = Copying::Asked;
                self.effects.push(Effect::CopyState);
            }
            _ => {}
        }
    }
}
