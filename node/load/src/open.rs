//! An open loop: operations are due at a fixed rate, and nobody waits for answers before the next one. What a system that
//! stalls keeps waiting is counted from when it was due, not from when somebody got round to it: a closed loop asks less of a
//! system the slower it is, and so omits what would have waited.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    connection::Connection,
    recorder::{Outcome, Recorder, join},
    span::Span,
};

/// The shortest time between two looks at the clock, and so what a latency may be too long by.
const PACE_MIN: Duration = Duration::from_micros(100);
/// After the last operation was due, answers are waited for this long.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// No operation.
const NONE: u64 = u64::MAX;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Operations a second.
    pub rate: u32,
    /// Operations under way at most: beyond, they wait for others to be answered, which counts.
    pub under_way: usize,
}

/// Operation `number` is due at `begin` + `number` / rate; there are `total` of them.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    begin: Instant,
    rate: u32,
    total: u64,
}

impl Schedule {
    fn new(span: &Span, rate: u32) -> Self {
        let nanoseconds = span.whole().as_nanos() * u128::from(rate);
        Self {
            begin: span.begin,
            rate,
            total: u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX),
        }
    }

    fn due(&self, number: u64) -> Instant {
        let rate = u64::from(self.rate);
        let (seconds, rest) = (number / rate, number % rate);
        self.begin + Duration::from_secs(seconds) + Duration::from_nanos(rest * 1_000_000_000 / rate)
    }

    /// How many are due by then.
    fn due_by(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.begin).as_nanos();
        let whole = elapsed * u128::from(self.rate) / 1_000_000_000;
        u64::try_from(whole)
            .unwrap_or(u64::MAX)
            .saturating_add(1)
            .min(self.total)
    }
}

/// What the writers share.
struct Shared {
    recorder: Recorder,
    schedule: Schedule,
    /// A permit for every operation that is due and that nobody has begun.
    due: Semaphore,
    next: AtomicU64,
}

/// Writes at that rate. `tick` is called about ten times a second with the time that has gone by. Fails where no thread can be
/// started.
///
/// # Panics
/// Without connections, or at a rate of 0.
pub async fn run(
    connections: &[Arc<dyn Connection>],
    pace: Pace,
    operation: &Bytes,
    span: Span,
    tick: impl FnMut(Duration),
) -> io::Result<Outcome> {
    assert!(
        !connections.is_empty(),
        "writers need a connection to write through"
    );
    assert!(pace.rate > 0, "nothing would ever be due");
    let shared = Arc::new(Shared {
        recorder: Recorder::new(span),
        schedule: Schedule::new(&span, pace.rate),
        due: Semaphore::new(0),
        next: AtomicU64::new(0),
    });
    let pacer = Pacer::start(Arc::clone(&shared), pace.under_way)?;
    let under_way: Arc<Vec<AtomicU64>> =
        Arc::new((0..pace.under_way).map(|_| AtomicU64::new(NONE)).collect());
    let mut writers = JoinSet::new();
    for (place, connection) in connections.iter().cycle().take(pace.under_way).enumerate() {
        writers.spawn(write(
            Arc::clone(connection),
            operation.clone(),
            Arc::clone(&shared),
            Arc::clone(&under_way),
            place,
        ));
    }
    let give_up = tokio::time::Instant::from_std(span.until + DRAIN_MAX);
    // Writers that are not done by then are ended, as their set is dropped.
    let _ = tokio::time::timeout_at(give_up, join(writers, span.begin, tick)).await;
    pacer.stop();
    give_up_rest(&shared, &under_way);
    Ok(until_last(shared).await.recorder.into_outcome())
}

/// A writer that was ended goes at its next wait, which may be a moment later.
async fn until_last(mut shared: Arc<Shared>) -> Shared {
    loop {
        match Arc::try_unwrap(shared) {
            Ok(last) => return last,
            Err(not_last) => shared = not_last,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Takes what is due, one after the other, until nothing more will be.
async fn write(
    connection: Arc<dyn Connection>,
    operation: Bytes,
    shared: Arc<Shared>,
    under_way: Arc<Vec<AtomicU64>>,
    place: usize,
) {
    let Some(mine) = under_way.get(place) else { return };
    while let Ok(permit) = shared.due.acquire().await {
        permit.forget();
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= shared.schedule.total {
            return;
        }
        mine.store(number, Ordering::Relaxed);
        match connection.write(operation.clone()).await {
            Ok(()) => shared.recorder.answered_due(shared.schedule.due(number)),
            Err(error) => shared.recorder.failed(error),
        }
        mine.store(NONE, Ordering::Relaxed);
    }
}

/// Records what is under way, and what was not even begun.
fn give_up_rest(shared: &Shared, under_way: &[AtomicU64]) {
    let begun = under_way
        .iter()
        .map(|number| number.load(Ordering::Relaxed))
        .filter(|&number| number != NONE);
    let total = shared.schedule.total;
    let not_begun = shared.next.load(Ordering::Relaxed).min(total)..total;
    for number in begun.chain(not_begun) {
        shared.recorder.given_up(shared.schedule.due(number));
    }
}

/// A thread that says when operations are due: more precisely than timers of the runtime, which know milliseconds.
struct Pacer {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Pacer {
    fn start(shared: Arc<Shared>, writers: usize) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || release(&shared, writers, &stopped))?;
        Ok(Self { thread, stop })
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Err(panicked) = self.thread.join() {
            std::panic::resume_unwind(panicked);
        }
    }
}

/// Adds a permit for every operation when it is due, and at last one for every writer, which so learns that it is over.
fn release(shared: &Shared, writers: usize, stop: &AtomicBool) {
    let Schedule { total, .. } = shared.schedule;
    let mut released = 0;
    while released < total && !stop.load(Ordering::Relaxed) {
        let due = shared.schedule.due_by(Instant::now());
        shared
            .due
            .add_permits(usize::try_from(due.saturating_sub(released)).unwrap_or_default());
        released = released.max(due);
        let next = shared
            .schedule
            .due(released)
            .saturating_duration_since(Instant::now());
        thread::sleep(next.clamp(PACE_MIN, Duration::from_millis(100)));
    }
    shared.due.add_permits(writers);
}

#[cfg(test)]
mod tests {
    use futures::future::{BoxFuture, FutureExt as _};

    use super::*;

    #[test]
    fn operations_are_due_at_a_fixed_rate() {
        let span = Span::from_now(Duration::from_secs(1), Duration::from_millis(500));
        for (rate, total) in [(1, 1), (2, 3), (1000, 1500), (3, 4)] {
            let schedule = Schedule::new(&span, rate);
            assert_eq!(schedule.total, total, "{rate}");
            for number in 0..total {
                let due = schedule.due(number);
                assert!(
                    schedule.due_by(due + Duration::from_nanos(1)) > number,
                    "{rate} {number}"
                );
            }
            assert_eq!(schedule.due_by(span.until + Duration::from_secs(5)), total);
        }
        let schedule = Schedule::new(&span, 1000);
        assert_eq!(schedule.due_by(span.begin), 1);
        assert_eq!(
            schedule.due(1001).duration_since(span.begin),
            Duration::from_millis(1001)
        );
    }

    /// Stands still for a while once, then answers at once.
    struct Stalls {
        begin: Instant,
        until: Duration,
    }

    impl Connection for Stalls {
        fn write(&self, _: Bytes) -> BoxFuture<'_, Result<(), String>> {
            async move {
                tokio::time::sleep(self.until.saturating_sub(self.begin.elapsed())).await;
                Ok(())
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn what_a_stall_keeps_waiting_is_counted_from_when_it_was_due() {
        let span = Span::from_now(Duration::ZERO, Duration::from_millis(400));
        let stalls: Arc<dyn Connection> = Arc::new(Stalls {
            begin: span.begin,
            until: Duration::from_millis(300),
        });
        let pace = Pace {
            rate: 500,
            under_way: 2,
        };
        let outcome = run(&[stalls], pace, &Bytes::from_static(b"x"), span, |_| {})
            .await
            .unwrap();
        assert_eq!(
            (outcome.latencies.count(), outcome.unanswered, outcome.errors),
            (200, 0, 0)
        );
        // Two writers alone would have measured two slow operations of 200. Three quarters were due during the stall, half of
        // these in its first half.
        let p50 = outcome.latencies.summary().p50;
        assert!((50_000.0..250_000.0).contains(&p50), "{p50} us");
    }

    /// Never answers.
    struct Silent;

    impl Connection for Silent {
        fn write(&self, _: Bytes) -> BoxFuture<'_, Result<(), String>> {
            std::future::pending().boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_answered_counts_as_well() {
        let span = Span::from_now(Duration::ZERO, Duration::from_millis(100));
        let pace = Pace {
            rate: 100,
            under_way: 3,
        };
        let outcome = run(
            &[Arc::new(Silent) as Arc<dyn Connection>],
            pace,
            &Bytes::from_static(b"x"),
            span,
            |_| {},
        )
        .await
        .unwrap();
        assert_eq!(
            (outcome.answered, outcome.unanswered, outcome.latencies.count()),
            (0, 10, 10)
        );
    }
}
