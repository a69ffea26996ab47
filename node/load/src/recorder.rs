//! What all clients of a load record.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{latency::Latencies, span::Span};

/// How often whoever waits is told how far it is.
const TICK: Duration = Duration::from_millis(100);

/// What came of a load.
#[derive(Debug)]
pub struct Outcome {
    /// In a closed loop, of operations that were answered within the measured time; in an open one, of those that were due in it.
    pub latencies: Latencies,
    /// Operations that were answered within the measured time.
    pub answered: u64,
    /// Operations that failed, at any time.
    pub errors: u64,
    /// Operations that were due within the measured time, and had no answer when it was not waited for any longer. Their
    /// latencies are among the others, as if the answer had come then.
    pub unanswered: u64,
    /// The first thing that went wrong.
    pub first_error: Option<String>,
}

impl Outcome {
    /// Answers per second, of a load over this span.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate for people needs no more than 53 bits"
    )]
    pub fn per_second(&self, span: &Span) -> f64 {
        self.answered as f64 / span.measured().as_secs_f64()
    }
}

/// Shared by the clients of a load.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) span: Span,
    latencies: Latencies,
    answered: AtomicU64,
    errors: AtomicU64,
    unanswered: AtomicU64,
    first_error: Mutex<Option<String>>,
}

impl Recorder {
    pub(crate) fn new(span: Span) -> Self {
        Self {
            span,
            latencies: Latencies::new(),
            answered: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            first_error: Mutex::new(None),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.span.until
    }

    /// An operation of a closed loop was answered now.
    pub(crate) fn answered(&self, sent: Instant) {
        let now = Instant::now();
        if self.span.measures(now) {
            self.answered.fetch_add(1, Ordering::Relaxed);
            self.latencies.record(now.duration_since(sent));
        }
    }

    /// An operation of an open loop was answered now.
    pub(crate) fn answered_due(&self, due: Instant) {
        let now = Instant::now();
        if self.span.measures(now) {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        if self.span.measures(due) {
            self.latencies.record(now.duration_since(due));
        }
    }

    /// Nobody waits any longer for an operation of an open loop.
    pub(crate) fn given_up(&self, due: Instant) {
        if self.span.measures(due) {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            self.latencies.record(due.elapsed());
        }
    }

    pub(crate) fn failed(&self, error: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        let first_error = self.first_error.into_inner();
        Outcome {
            latencies: self.latencies,
            answered: self.answered.into_inner(),
            errors: self.errors.into_inner(),
            unanswered: self.unanswered.into_inner(),
            first_error: first_error.unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Waits until all clients have ended, and calls `tick` about ten times a second with the time that has gone by. A panic of a
/// client goes on here.
pub(crate) async fn join(mut clients: JoinSet<()>, begin: Instant, mut tick: impl FnMut(Duration)) {
    while !clients.is_empty() {
        tokio::select! {
            ended = clients.join_next() => if let Some(Err(error)) = ended && error.is_panic() {
                std::panic::resume_unwind(error.into_panic());
            },
            () = tokio::time::sleep(TICK) => tick(begin.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_depends_on_when_it_was_answered_or_due() {
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        let span = Span {
            begin: ago(20),
            from: ago(10),
            until: now + Duration::from_secs(1000),
        };
        let closed = Recorder::new(span);
        closed.answered(ago(15));
        let outcome = closed.into_outcome();
        assert_eq!((outcome.answered, outcome.latencies.count()), (1, 1));

        let open = Recorder::new(span);
        open.answered_due(ago(15));
        open.answered_due(ago(5));
        open.given_up(ago(15));
        open.given_up(ago(5));
        let outcome = open.into_outcome();
        assert_eq!((outcome.answered, outcome.unanswered), (2, 1));
        assert_eq!(
            outcome.latencies.count(),
            2,
            "what was due before the measured time is not in it"
        );
    }

    #[test]
    fn the_first_error_is_kept() {
        let now = Instant::now();
        let recorder = Recorder::new(Span {
            begin: now,
            from: now,
            until: now,
        });
        assert!(recorder.is_over());
        recorder.answered(now);
        recorder.failed("one".to_owned());
        recorder.failed("two".to_owned());
        let outcome = recorder.into_outcome();
        assert_eq!(
            (outcome.answered, outcome.errors, outcome.first_error.as_deref()),
            (0, 2, Some("one"))
        );
    }
}
