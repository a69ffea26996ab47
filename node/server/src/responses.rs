//! The streams on which leaders listen for what this node answers, of one kind of response.

use std::collections::BTreeMap;

use raftlog_raft::ids::MemberId;
use tokio::sync::mpsc;
use tonic::Status;

/// A stream's end. The stream itself keeps it open.
pub(crate) type Listener<T> = mpsc::WeakSender<Result<T, Status>>;

/// The latest stream of each leader.
#[derive(Debug)]
pub(crate) struct Responses<T> {
    listeners: BTreeMap<MemberId, Listener<T>>,
}

impl<T> Default for Responses<T> {
    fn default() -> Self {
        Self {
            listeners: BTreeMap::new(),
        }
    }
}

impl<T> Responses<T> {
    /// From now on what is said to that member goes there.
    pub(crate) fn listens(&mut self, member: MemberId, listener: Listener<T>) {
        self.listeners.retain(|_, sender| sender.strong_count() > 0);
        let before = self.listeners.insert(member, listener);
        // Whoever still sends there would wait for its answers in vain.
        if let Some(before) = before.and_then(|sender| sender.upgrade()) {
            let replaced = "a later stream of the same member took this one's place";
            let _ = before.try_send(Err(Status::aborted(replaced)));
        }
    }

    /// Says it, unless that member does not listen, or not fast enough.
    pub(crate) fn say(&self, to: MemberId, response: T) -> bool {
        let listener = self.listeners.get(&to).and_then(mpsc::WeakSender::upgrade);
        listener.is_some_and(|listener| listener.try_send(Ok(response)).is_ok())
    }
}
