//! Exactly-once submission: one `client_id`, a sequence for each operation.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::{
    client::{Client, Committed, Submission, WaitFor},
    error::Error,
    stream::{self, OperationReceiver, OperationSender},
};

/// A cluster remembers the answers to a session's highest 1,024 sequences: no more than that are ever under way, so that
/// each can be asked for again.
pub const SEQUENCES_MAX: u64 = 1024;

/// Which sequences are under way: pure.
#[derive(Clone, Debug)]
pub(crate) struct Sequences {
    next: u64,
    under_way: BTreeSet<u64>,
}

impl Sequences {
    pub(crate) fn new(next: u64) -> Self {
        Self {
            next,
            under_way: BTreeSet::new(),
        }
    }

    /// The next sequence, unless the oldest one under way is [`SEQUENCES_MAX`] behind it.
    pub(crate) fn begin(&mut self) -> Option<u64> {
        let oldest = self.under_way.first().copied().unwrap_or(self.next);
        if self.next - oldest >= SEQUENCES_MAX {
            return None;
        }
        let sequence = self.next;
        self.next = self.next.checked_add(1)?;
        self.under_way.insert(sequence);
        Some(sequence)
    }

    /// The caller has its answer, or no more interest in it.
    pub(crate) fn end(&mut self, sequence: u64) {
        self.under_way.remove(&sequence);
    }

    /// No answer up to this sequence is needed any more.
    pub(crate) fn acknowledged_through(&self) -> u64 {
        self.under_way
            .first()
            .copied()
            .unwrap_or(self.next)
            .saturating_sub(1)
    }
}

/// A session: each operation that goes through it is appended at most once, whatever retries it takes.
///
/// Any number of submissions may be under way at once, in no particular order among each other; for order, and for
/// speed, make a stream of it with [`Session::into_stream`].
#[derive(Debug)]
pub struct Session {
    client: Client,
    client_id: String,
    sequences: Mutex<Sequences>,
    ended: Notify,
}

impl Session {
    pub(crate) fn new(client: Client, client_id: String, first_sequence: u64) -> Self {
        Self {
            client,
            client_id,
            sequences: Mutex::new(Sequences::new(first_sequence)),
            ended: Notify::new(),
        }
    }

    /// The `client_id` that every operation of this session carries.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The sequence that the next operation gets.
    pub fn next_sequence(&self) -> u64 {
        self.sequences().next
    }

    /// Submits one operation and waits until it is committed. Waits first while [`SEQUENCES_MAX`] are under way.
    ///
    /// After [`Error::Unknown`] the same operation may be given to [`Client::submit`] again under this session's
    /// `client_id` and its sequence, to find out.
    pub async fn submit(&self, operation: impl Into<Bytes>) -> Result<Committed, Error> {
        self.submit_and_wait(operation, WaitFor::Committed).await
    }

    /// As [`Session::submit`], with a choice of what to wait for.
    pub async fn submit_and_wait(
        &self,
        operation: impl Into<Bytes>,
        wait_for: WaitFor,
    ) -> Result<Committed, Error> {
        let under_way = self.begin().await;
        let submission = Submission {
            operation: operation.into(),
            client_id: self.client_id.clone(),
            sequence: under_way.sequence,
            acknowledged_through: self.sequences().acknowledged_through(),
            wait_for,
        };
        self.client.submit(submission).await
    }

    /// Makes an ordered, pipelined stream of this session: what is sent is appended in that order, answers arrive in that
    /// order. The sender and the receiver have to be driven at the same time; each holds the other back.
    pub fn into_stream(self) -> (OperationSender, OperationReceiver) {
        let next = self.next_sequence();
        stream::open(self.client, self.client_id, next)
    }

    async fn begin(&self) -> UnderWay<'_> {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let begun = self.sequences().begin();
            match begun {
                Some(sequence) => {
                    return UnderWay {
                        session: self,
                        sequence,
                    };
                }
                None => ended.await,
            }
        }
    }

    fn sequences(&self) -> MutexGuard<'_, Sequences> {
        self.sequences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sequence under way; ends when dropped, so also when its future is.
struct UnderWay<'a> {
    session: &'a Session,
    sequence: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.session.sequences().end(self.sequence);
        self.session.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_in_turn_and_acknowledged_from_the_oldest() {
        let mut sequences = Sequences::new(1);
        assert_eq!(sequences.acknowledged_through(), 0);
        assert_eq!(
            [sequences.begin(), sequences.begin(), sequences.begin()],
            [Some(1), Some(2), Some(3)]
        );
        for (ended, acknowledged) in [(2, 0), (1, 2), (3, 3)] {
            sequences.end(ended);
            assert_eq!(sequences.acknowledged_through(), acknowledged, "after {ended}");
        }
    }

    #[test]
    fn no_more_than_the_cluster_remembers_are_under_way() {
        let mut sequences = Sequences::new(1);
        for expected in 1..=SEQUENCES_MAX {
            assert_eq!(sequences.begin(), Some(expected));
        }
        assert_eq!(sequences.begin(), None);
        sequences.end(2);
        assert_eq!(sequences.begin(), None, "the oldest one still needs its answer");
        sequences.end(1);
        assert_eq!(sequences.begin(), Some(SEQUENCES_MAX + 1));
        assert_eq!(sequences.begin(), Some(SEQUENCES_MAX + 2));
        assert_eq!(sequences.begin(), None);
    }

    #[test]
    fn the_last_sequence_of_all() {
        let mut sequences = Sequences::new(u64::MAX);
        assert_eq!(sequences.begin(), None);
        assert_eq!(sequences.acknowledged_through(), u64::MAX - 1);
    }
}
