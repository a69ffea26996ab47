//! What the executor was given. Where only the leader's replicator executes it may be taken back: then nothing of it is begun any more, and
//! what comes next waits until the executor has let go of all.

use std::convert::Infallible;

use raftlog_raft::ids::Term;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::core::{self, Operation};

/// What an executor is to do, in order, one at a time.
#[derive(Debug)]
pub(in crate::runtime) struct Run {
    /// At least one.
    pub(super) operations: Vec<Operation>,
    /// The term that the node leads, where only the leader's replicator executes; goes with every call to an endpoint.
    pub(super) leader_term: Option<Term>,
    revoked: CancellationToken,
    /// Until it is dropped, the executor has the run. What is done of it is reported before.
    _held: mpsc::Sender<Infallible>,
}

impl Run {
    /// Cancelled once nothing more of it is to be done: what is under way is broken off where that can be.
    pub(super) fn revoked(&self) -> &CancellationToken {
        &self.revoked
    }
}

/// The driver's side of the runs that an executor has.
#[derive(Debug)]
pub(in crate::runtime) struct Given {
    revoked: CancellationToken,
    /// Absent while the executor is to let go of all.
    held: Option<mpsc::Sender<Infallible>>,
    runs: mpsc::Receiver<Infallible>,
}

impl Default for Given {
    fn default() -> Self {
        let (held, runs) = mpsc::channel(1);
        Self {
            revoked: CancellationToken::new(),
            held: Some(held),
            runs,
        }
    }
}

impl Given {
    /// What the executor gets of a run; nothing while it is to let go of what it has.
    pub(in crate::runtime) fn give(&self, run: core::Run) -> Option<Run> {
        let core::Run {
            operations,
            leader_term,
        } = run;
        Some(Run {
            operations,
            leader_term,
            revoked: self.revoked.clone(),
            _held: self.held.clone()?,
        })
    }

    pub(in crate::runtime) fn take_back(&mut self) {
        self.held = None;
        self.revoked.cancel();
    }

    pub(in crate::runtime) fn is_taken_back(&self) -> bool {
        self.held.is_none()
    }

    /// Waits until the executor has nothing of what was taken back.
    pub(in crate::runtime) async fn let_go(&mut self) {
        // Nothing is ever sent: the last run that is dropped closes it.
        let _ = self.runs.recv().await;
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn run(index: u64) -> core::Run {
        let operation = Operation {
            index,
            term: 1,
            running_hash: 0,
            data: "op".into(),
        };
        core::Run {
            operations: vec![operation],
            leader_term: Some(7),
        }
    }

    #[test]
    fn what_is_taken_back_is_gone_once_the_last_run_is() {
        let mut given = Given::default();
        let (first, second) = (given.give(run(1)).unwrap(), given.give(run(2)).unwrap());
        assert!(!first.revoked().is_cancelled());
        given.take_back();
        assert!(first.revoked().is_cancelled() && second.revoked().is_cancelled());
        assert!(given.is_taken_back() && given.give(run(3)).is_none());
        let mut cx = Context::from_waker(Waker::noop());
        {
            let mut let_go = pin!(given.let_go());
            assert!(let_go.as_mut().poll(&mut cx).is_pending());
            drop(first);
            assert!(let_go.as_mut().poll(&mut cx).is_pending());
            drop(second);
            assert!(let_go.as_mut().poll(&mut cx).is_ready());
        }
        let third = given.give(run(3)).unwrap();
        assert!(!given.is_taken_back() && !third.revoked().is_cancelled());
    }
}
