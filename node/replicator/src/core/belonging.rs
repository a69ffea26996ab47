//! What the data folder says it belongs to: stored once the log has begun, so that a log which is gone is told from one
//! that never was.

use raftlog_storage::identity::Identity;
use raftlog_storage::{DiskError, DiskErrorKind, OpId, Outcome};

use super::effect::Effect;
use super::replicator::Replicator;

/// The operation that stores the identity; the log counts its own from 1.
pub(super) const STORE_IDENTITY: OpId = OpId(u64::MAX);

/// The identity on disk, and the one on its way there.
#[derive(Debug)]
pub(super) struct Belonging {
    stored: Identity,
    storing: Option<Identity>,
}

impl Belonging {
    pub(super) fn new(stored: Identity) -> Self {
        Self {
            stored,
            storing: None,
        }
    }

    /// Nothing is on its way to the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.storing.is_none()
    }
}

impl Replicator {
    /// A batch of the log is on disk: from now on the identity may say that there has to be a log.
    pub(super) fn store_identity(&mut self) {
        let wanted = Identity {
            cluster: self.cluster,
            paired: self.member,
            ..self.belonging.stored.clone()
        };
        if self.belonging.is_idle() && wanted != self.belonging.stored {
            self.effects.push(Effect::Disk(STORE_IDENTITY, wanted.store()));
            self.belonging.storing = Some(wanted);
        }
    }

    pub(super) fn identity_stored(&mut self, result: Result<Outcome, DiskError>) {
        let stored = self.belonging.storing.take();
        match (result, stored) {
            (Ok(_), Some(stored)) => self.belonging.stored = stored,
            // The next batch of the log tries again.
            (Err(error), _) if error.kind == DiskErrorKind::Full => {}
            (Err(error), _) => self.fail(error.to_string()),
            (Ok(_), None) => {}
        }
    }
}
