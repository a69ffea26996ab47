//! Lines of the story that pass a token bucket: a burst of 20, then 10 a second, and always the latest in the end.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use crate::bucket::Gate;
use crate::clock;

/// Lines of one kind that come out at once.
const BURST: u32 = 20;
/// Lines of one kind a second after that.
const PER_SECOND: u32 = 10;

/// How many lines the buckets held back for good, over all kinds that share it.
#[derive(Debug, Clone, Default)]
pub struct Suppressed(Counter);

impl Suppressed {
    /// Adds `story_lines_suppressed_total` to the registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "story_lines_suppressed",
            "Log lines of the story replaced by a later one of their kind before their turn came",
            self.0.clone(),
        );
    }
}

/// One kind of line, `T` being what a line of it says. Clones share one bucket.
#[derive(Debug)]
pub struct Story<T> {
    gate: Arc<Mutex<Gate<T>>>,
    suppressed: Suppressed,
    runtime: Handle,
}

impl<T> Clone for Story<T> {
    fn clone(&self) -> Self {
        Self {
            gate: Arc::clone(&self.gate),
            suppressed: self.suppressed.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

impl<T: Display + Send + 'static> Story<T> {
    /// A kind of its own. Held lines are released on `runtime`.
    pub fn new(suppressed: &Suppressed, runtime: Handle) -> Self {
        let gate = Arc::new(Mutex::new(Gate::new(BURST, PER_SECOND)));
        Self {
            gate,
            suppressed: suppressed.clone(),
            runtime,
        }
    }

    /// Logs the line now, or holds it until its turn comes or a later one replaces it. Whether it came out now.
    pub fn say(&self, line: T) -> bool {
        let now = clock::now();
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let (held_before, suppressed_before) = (gate.due(now).is_some(), gate.suppressed());
        let passed = gate.offer(now, line);
        self.suppressed.0.inc_by(gate.suppressed() - suppressed_before);
        // Logged under the lock, so that lines of one kind come out in order.
        let said = passed.is_some();
        log(passed);
        let due = gate.due(now);
        drop(gate);
        // A line that was held before has its timer already.
        if let (Some(due), false) = (due, held_before) {
            let gate = Arc::clone(&self.gate);
            self.runtime.spawn(release_at(gate, due - now));
        }
        said
    }

    /// Logs what is held at once: for the end.
    pub fn flush(&self) {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        log(gate.flush());
    }
}

async fn release_at<T: Display>(gate: Arc<Mutex<Gate<T>>>, mut wait: Duration) {
    loop {
        tokio::time::sleep(wait).await;
        let now = clock::now();
        let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
        log(gate.release(now));
        match gate.due(now) {
            Some(due) => wait = due - now,
            None => return,
        }
    }
}

fn log(line: Option<impl Display>) {
    if let Some(line) = line {
        tracing::info!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Reports when it is printed.
    struct Line(u32, Sender<u32>);

    impl fmt::Display for Line {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let _ = self.1.send(self.0);
            write!(f, "{}", self.0)
        }
    }

    struct Prints;

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Prints {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            struct Show;
            impl tracing::field::Visit for Show {
                fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
                    let _ = format!("{value:?}");
                }
            }
            event.record(&mut Show);
        }
    }

    #[tokio::test]
    async fn a_flood_comes_out_as_a_burst_and_the_latest() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(Prints));
        let suppressed = Suppressed::default();
        let story = Story::new(&suppressed, Handle::current());
        let (printed, seen) = channel();
        for i in 1..=1_000 {
            story.say(Line(i, printed.clone()));
        }
        drop(printed);
        let lines = tokio::time::timeout(Duration::from_secs(10), async {
            let mut lines = Vec::new();
            // The channel closes once the last line is printed and gone.
            loop {
                match seen.try_recv() {
                    Ok(line) => lines.push(line),
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return lines,
                    Err(std::sync::mpsc::TryRecvError::Empty) => tokio::task::yield_now().await,
                }
            }
        })
        .await
        .expect("the latest line is printed in the end");
        assert_eq!(lines[..20], (1..=20).collect::<Vec<_>>());
        assert_eq!(lines.last(), Some(&1_000));
        assert_eq!(suppressed.0.get() + lines.len() as u64, 1_000);
    }
}
