//! The thread that a state machine has for itself.

use std::thread;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::restore::Pieces;
use crate::{Batch, Failed, Position, QueryError, Snapshot, StateMachine};

/// Calls that wait for the thread; each connection has a few at most.
const CALLS_MAX: usize = 64;

/// What it is asked to do.
pub(crate) enum Call {
    /// An Apply stream begins: what comes on earlier ones is refused from now on.
    Begin(oneshot::Sender<Result<(u64, Position), Failed>>),
    Apply {
        stream: u64,
        batch: Batch,
        answer: oneshot::Sender<Applied>,
    },
    Query(Bytes, oneshot::Sender<(Position, Result<Vec<u8>, QueryError>)>),
    Snapshot(oneshot::Sender<Result<(Position, Snapshot), Failed>>),
    Restore {
        position: Position,
        pieces: Pieces,
        answer: oneshot::Sender<Result<(), Failed>>,
    },
}

/// What came of a batch.
#[derive(Default)]
pub(crate) struct Applied {
    /// The last one that was; absent where none was.
    pub(crate) last: Option<u64>,
    /// As many as operations were applied, or none.
    pub(crate) results: Vec<Vec<u8>>,
    /// Why not all were.
    pub(crate) failed: Option<Failed>,
}

impl Applied {
    fn failed(failed: Failed) -> Self {
        let failed = Some(failed);
        Self {
            failed,
            ..Self::default()
        }
    }
}

/// The way to the thread. It ends when all of these are gone.
#[derive(Clone)]
pub(crate) struct Worker(mpsc::Sender<Call>);

/// The thread is no more.
pub(crate) struct Gone;

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The state machine does not know where it is, or there is no thread to be had.
    pub(crate) fn start(mut machine: impl StateMachine) -> Result<Self, Failed> {
        let position = machine.position()?;
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let serving = Serving {
            machine,
            position,
            stream: 0,
        };
        let thread = thread::Builder::new().name("state-machine".into());
        thread.spawn(move || {
            let _exit = ExitOnPanic;
            serving.run(queue);
        })?;
        Ok(Self(calls))
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, Gone> {
        let (answer, answered) = oneshot::channel();
        self.0.send(call(answer)).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }
}

/// A state machine that panicked may have done half of something: only a new start knows what is stored.
struct ExitOnPanic;

impl Drop for ExitOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            // The panic has said what it is.
            std::process::exit(101);
        }
    }
}

struct Serving<M> {
    machine: M,
    position: Position,
    stream: u64,
}

impl<M: StateMachine> Serving<M> {
    fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        // Whoever asked may have left: then nobody hears the answer.
        while let Some(call) = calls.blocking_recv() {
            match call {
                Call::Begin(answer) => drop(answer.send(self.begin())),
                Call::Apply {
                    stream,
                    batch,
                    answer,
                } => drop(answer.send(self.apply(stream, batch))),
                Call::Query(query, answer) => {
                    let result = self.machine.query(&query);
                    drop(answer.send((self.position, result)));
                }
                Call::Snapshot(answer) => {
                    let position = self.position;
                    let snapshot = self.machine.snapshot();
                    drop(answer.send(snapshot.map(|snapshot| (position, snapshot))));
                }
                Call::Restore {
                    position,
                    pieces,
                    answer,
                } => drop(answer.send(self.restore(position, pieces))),
            }
        }
    }

    fn begin(&mut self) -> Result<(u64, Position), Failed> {
        self.position = self.machine.position()?;
        self.stream += 1;
        Ok((self.stream, self.position))
    }

    fn apply(&mut self, stream: u64, batch: Batch) -> Applied {
        if stream != self.stream {
            return Applied::failed(Failed::new("another Apply stream has begun, or a restore"));
        }
        if batch.operations().is_empty() {
            return Applied::default();
        }
        match self.machine.apply(&batch) {
            Ok(mut results) => {
                self.position = batch.position();
                let count = batch.operations().len();
                if !results.is_empty() && results.len() != count {
                    error!(
                        "the state machine answers {} results to {count} operations: none is kept",
                        results.len()
                    );
                    results.clear();
                }
                Applied {
                    last: Some(self.position.applied_index),
                    results,
                    failed: None,
                }
            }
            Err(failed) => self.apply_before(stream, batch, failed),
        }
    }

    /// What comes before the operation that failed is not held up by it.
    fn apply_before(&mut self, stream: u64, mut batch: Batch, failed: Failed) -> Applied {
        let first = self.position.applied_index.saturating_add(1);
        let index = failed.operation().filter(|index| *index > first);
        let Some(index) = index.filter(|index| *index <= batch.position().applied_index) else {
            return Applied::failed(failed);
        };
        batch.cut_at(index);
        let before = self.apply(stream, batch);
        Applied {
            failed: before.failed.or(Some(failed)),
            ..before
        }
    }

    fn restore(&mut self, position: Position, mut pieces: Pieces) -> Result<(), Failed> {
        // Whatever is on its way on an Apply stream is of the state before.
        self.stream += 1;
        let restored = self.machine.restore(position, &mut pieces);
        self.position = self.machine.position()?;
        restored?;
        pieces.must_end()?;
        if self.position != position {
            return Err(Failed::new(format!(
                "the state machine is at operation {} after a restore of operation {}",
                self.position.applied_index, position.applied_index
            )));
        }
        Ok(())
    }
}
