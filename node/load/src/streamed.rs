//! Clients that pipeline: each has a stream, with as many operations under way as a session can have.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use raftlog_client::{SEQUENCES_MAX, Session};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    recorder::{Outcome, Recorder, join},
    span::Span,
};

/// Runs a stream for each session. `tick` is called about ten times a second with the time that has gone by.
pub async fn run(
    sessions: Vec<Session>,
    operation: &Bytes,
    span: Span,
    tick: impl FnMut(Duration),
) -> Outcome {
    let recorder = Arc::new(Recorder::new(span));
    let mut tasks = JoinSet::new();
    for session in sessions {
        tasks.spawn(stream(session, operation.clone(), Arc::clone(&recorder)));
    }
    join(tasks, span.begin, tick).await;
    Arc::into_inner(recorder)
        .expect("all clients have ended")
        .into_outcome()
}

/// Keeps as many operations under way as a stream can have.
async fn stream(session: Session, operation: Bytes, recorder: Arc<Recorder>) {
    let (sender, mut receiver) = session.into_stream();
    let (times, mut sent_at) = mpsc::channel(usize::try_from(SEQUENCES_MAX).unwrap_or(1));
    let recorder = &*recorder;
    // Ends the stream, and so the answers, when it is done.
    let sending = async move {
        while !recorder.is_over() {
            // The queue of times bounds what is under way.
            if times.send(Instant::now()).await.is_err() {
                return;
            }
            if !matches!(sender.send(operation.clone()).await, Ok(true)) {
                return;
            }
        }
    };
    let receiving = async {
        while let Some(answered) = receiver.next().await {
            match answered {
                Ok(answered) => {
                    for _ in 0..answered.count {
                        if let Some(sent) = sent_at.recv().await {
                            recorder.answered(sent);
                        }
                    }
                }
                Err(error) => recorder.failed(error.to_string()),
            }
            if recorder.is_over() {
                return;
            }
        }
    };
    tokio::pin!(sending, receiving);
    tokio::select! {
        () = &mut receiving => {}
        () = &mut sending => receiving.await,
    }
}
