//! The tasks of clusters, by key: each RaftCluster that was seen has one, until it is gone.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::cache::{Key, Listener};

/// A task that ended by a bug begins again after this time: it may well do so again.
const AFTER_PANIC: Duration = Duration::from_secs(10);

/// What is done for each cluster.
pub trait Work: Send + Sync + 'static {
    /// Looks after that one until it is gone; is woken by that one.
    fn run(&self, key: Key, wake: Arc<Notify>) -> impl Future<Output = ()> + Send;
    /// Whether it is there.
    fn is_there(&self, key: &Key) -> bool;
}

/// The tasks. They end with it.
pub struct Clusters<W> {
    known: Arc<Mutex<Known<W>>>,
    tasks: Mutex<JoinSet<()>>,
    count: Gauge,
}

/// Under one lock: a cluster that is seen while work begins must not fall in between.
struct Known<W> {
    work: Option<Arc<W>>,
    wakes: BTreeMap<Key, Arc<Notify>>,
}

impl<W: Work> Clusters<W> {
    /// Counts those that are looked after there.
    pub fn new(count: Gauge) -> Self {
        Self {
            known: Arc::new(Mutex::new(Known {
                work: None,
                wakes: BTreeMap::new(),
            })),
            tasks: Mutex::default(),
            count,
        }
    }

    /// Clusters that were seen so far, and those to come, get their tasks.
    pub fn begin(&self, work: W) {
        let mut known = lock(&self.known);
        let work = Arc::clone(known.work.insert(Arc::new(work)));
        for (key, wake) in &known.wakes {
            self.start(&work, key.clone(), Arc::clone(wake));
        }
    }

    fn start(&self, work: &Arc<W>, key: Key, wake: Arc<Notify>) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        let (work, known, count) = (Arc::clone(work), Arc::clone(&self.known), self.count.clone());
        tasks.spawn(async move {
            count.inc();
            look_after(&*work, &key, &wake, &known).await;
            count.dec();
        });
    }
}

async fn look_after<W: Work>(work: &W, key: &Key, wake: &Arc<Notify>, known: &Mutex<Known<W>>) {
    loop {
        let run = work.run(key.clone(), Arc::clone(wake));
        if let Err(panic) = AssertUnwindSafe(run).catch_unwind().await {
            let Key { namespace, name } = key;
            tracing::error!(
                "RaftCluster {namespace}/{name}: its task ended by a bug, and begins again in {} s: {}",
                AFTER_PANIC.as_secs(),
                said(&*panic)
            );
            tokio::time::sleep(AFTER_PANIC).await;
        }
        let mut known = lock(known);
        // One of the same name may have come in the meantime.
        if !work.is_there(key) {
            known.wakes.remove(key);
            return;
        }
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it did not say why")
}

impl<W: Work> Listener for Clusters<W> {
    fn asked(&self, key: Key) {
        let mut known = lock(&self.known);
        if let Some(wake) = known.wakes.get(&key) {
            wake.notify_one();
            return;
        }
        let wake = Arc::new(Notify::new());
        known.wakes.insert(key.clone(), Arc::clone(&wake));
        if let Some(work) = &known.work {
            self.start(work, key, wake);
        }
    }

    fn changed(&self, key: Key) {
        if let Some(wake) = lock(&self.known).wakes.get(&key) {
            wake.notify_one();
        }
    }

    fn all_changed(&self) {
        for wake in lock(&self.known).wakes.values() {
            wake.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Notes who was looked after, and how often; panics the first time, if it is to.
    #[derive(Clone, Default)]
    struct Notes {
        runs: Arc<Mutex<Vec<Key>>>,
        panics: bool,
    }

    impl Work for Notes {
        async fn run(&self, key: Key, wake: Arc<Notify>) {
            lock(&self.runs).push(key);
            assert!(!self.panics || lock(&self.runs).len() > 1, "planted");
            wake.notified().await;
        }

        fn is_there(&self, _: &Key) -> bool {
            lock(&self.runs).len() < 2
        }
    }

    fn key(number: u32) -> Key {
        Key {
            namespace: "shop".into(),
            name: format!("demo-{number}"),
        }
    }

    async fn until(what: impl Fn() -> bool) {
        let began = tokio::time::Instant::now();
        while !what() {
            assert!(began.elapsed() < AFTER_PANIC * 2, "it does not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One that came in between had a wake, and no task for good: that is why there is one lock.
    #[tokio::test(start_paused = true)]
    async fn what_was_seen_before_the_beginning_and_after_it_is_looked_after() {
        let clusters = Clusters::new(Gauge::default());
        let notes = Notes::default();
        clusters.asked(key(1));
        clusters.asked(key(2));
        clusters.begin(notes.clone());
        clusters.asked(key(3));
        until(|| lock(&notes.runs).len() == 3).await;
        assert_eq!(clusters.count.get(), 3);
        let seen: BTreeSet<Key> = lock(&notes.runs).iter().cloned().collect();
        assert_eq!(seen, (1..=3).map(key).collect());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ended_by_a_bug_begins_again() {
        let count = Gauge::default();
        let clusters = Clusters::new(count.clone());
        let notes = Notes {
            panics: true,
            ..Notes::default()
        };
        let began = tokio::time::Instant::now();
        clusters.begin(notes.clone());
        clusters.asked(key(1));
        until(|| lock(&notes.runs).len() == 2).await;
        assert!(began.elapsed() >= AFTER_PANIC, "it does not spin");
        assert_eq!(count.get(), 1);
        clusters.changed(key(1));
        until(|| count.get() == 0).await;
        assert!(lock(&clusters.known).wakes.is_empty(), "it is gone");
    }
}
