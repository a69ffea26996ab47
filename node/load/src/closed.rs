//! Clients in closed loops: each writes its next operation once the last one is answered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    connection::Connection,
    recorder::{Outcome, Recorder, join},
    span::Span,
};

/// After a failure a client rests this long, as what fails at once would otherwise be asked again without end.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs so many clients, which share the connections evenly. `tick` is called about ten times a second with the time that has
/// gone by.
///
/// # Panics
/// Without connections.
pub async fn run(
    connections: &[Arc<dyn Connection>],
    clients: usize,
    operation: &Bytes,
    span: Span,
    tick: impl FnMut(Duration),
) -> Outcome {
    assert!(
        !connections.is_empty(),
        "clients need a connection to write through"
    );
    let recorder = Arc::new(Recorder::new(span));
    let mut tasks = JoinSet::new();
    for connection in connections.iter().cycle().take(clients) {
        tasks.spawn(one_by_one(
            Arc::clone(connection),
            operation.clone(),
            Arc::clone(&recorder),
        ));
    }
    join(tasks, span.begin, tick).await;
    Arc::into_inner(recorder)
        .expect("all clients have ended")
        .into_outcome()
}

async fn one_by_one(connection: Arc<dyn Connection>, operation: Bytes, recorder: Arc<Recorder>) {
    while !recorder.is_over() {
        let sent = Instant::now();
        match connection.write(operation.clone()).await {
            Ok(()) => recorder.answered(sent),
            Err(error) => {
                recorder.failed(error);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::{BoxFuture, FutureExt as _};

    use super::*;

    /// Counts how many clients are at it at the same time.
    #[derive(Default)]
    struct Crowd {
        now: AtomicUsize,
        most: AtomicUsize,
        fails: bool,
    }

    impl Connection for Crowd {
        fn write(&self, _: Bytes) -> BoxFuture<'_, Result<(), String>> {
            async move {
                let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                self.now.fetch_sub(1, Ordering::SeqCst);
                if self.fails {
                    Err("full".to_owned())
                } else {
                    Ok(())
                }
            }
            .boxed()
        }
    }

    async fn run_against(crowds: &[Arc<Crowd>], clients: usize) -> Outcome {
        let connections: Vec<Arc<dyn Connection>> = crowds
            .iter()
            .map(|crowd| Arc::clone(crowd) as Arc<dyn Connection>)
            .collect();
        let span = Span::from_now(Duration::from_millis(20), Duration::from_millis(200));
        run(&connections, clients, &Bytes::from_static(b"x"), span, |_| {}).await
    }

    #[tokio::test]
    async fn clients_share_connections_evenly_and_have_one_operation_each() {
        let crowds = [Arc::new(Crowd::default()), Arc::new(Crowd::default())];
        let outcome = run_against(&crowds, 5).await;
        let most = crowds.each_ref().map(|crowd| crowd.most.load(Ordering::SeqCst));
        assert_eq!(most, [3, 2]);
        assert!(outcome.answered > 0 && outcome.answered == outcome.latencies.count());
        assert!(outcome.latencies.summary().p50 >= 5000.0, "microseconds");
    }

    #[tokio::test]
    async fn failures_are_counted_and_not_repeated_at_once() {
        let crowd = Arc::new(Crowd {
            fails: true,
            ..Crowd::default()
        });
        let outcome = run_against(&[crowd], 1).await;
        assert_eq!(
            (outcome.answered, outcome.first_error.as_deref()),
            (0, Some("full"))
        );
        assert!((1..=15).contains(&outcome.errors), "{}", outcome.errors);
    }
}
