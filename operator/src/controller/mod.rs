//! Observe, plan, act: one task for each RaftCluster, woken by what changes.

pub mod act;
pub mod api;
pub mod cache;
pub mod cluster;
pub mod conditions;
pub mod drift;
pub mod events;
pub mod failures;
pub mod metrics;
pub mod missing;
pub mod nodes;
pub mod plan;
mod quantity;
pub mod raft;
pub mod status;
pub mod step;
pub mod turns;
pub mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kube::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::cache::{Cache, Key, Listener};
use self::cluster::{Shared, Task};
use self::events::Events;
use self::metrics::Metrics;
use self::turns::Turns;
use crate::crd::status::Images;

/// How the controller is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespaces to look after; all, where there is none.
    pub namespaces: Vec<String>,
    /// Images for clusters that name none.
    pub default_images: Images,
}

/// Looks after all clusters, until it is dropped.
pub async fn run(client: Client, options: Options, metrics: Metrics) {
    let mut tasks = JoinSet::new();
    let scopes: Vec<Option<String>> = match options.namespaces.as_slice() {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    let turns = Turns::default();
    let events = Events::new(client.clone());
    for scope in scopes {
        let clusters = Arc::new(Clusters::default());
        let listener: Arc<dyn Listener> = Arc::clone(&clusters) as Arc<dyn Listener>;
        let cache = Arc::new(Cache::watch(&client, scope.as_deref(), &listener, &mut tasks));
        let shared = Shared {
            client: client.clone(),
            events: events.clone(),
            cache: Arc::clone(&cache),
            metrics: metrics.clone(),
            default_images: options.default_images.clone(),
            turns: turns.clone(),
        };
        tasks.spawn(async move {
            // Nobody decides on half a view.
            cache.is_complete().await;
            clusters.begin(shared);
            std::future::pending::<()>().await;
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// The tasks of clusters, by key. They end with it.
#[derive(Default)]
struct Clusters {
    shared: OnceLock<Shared>,
    wakes: Arc<Mutex<BTreeMap<Key, Arc<Notify>>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Clusters {
    /// The view is complete: clusters that were seen so far get their tasks.
    fn begin(&self, shared: Shared) {
        let known = lock(&self.wakes).clone();
        // It is begun once.
        let _ = self.shared.set(shared);
        for (key, wake) in known {
            self.start(key, wake);
        }
    }

    fn start(&self, key: Key, wake: Arc<Notify>) {
        let Some(shared) = self.shared.get().cloned() else {
            return;
        };
        let wakes = Arc::clone(&self.wakes);
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            shared.metrics.clusters.inc();
            loop {
                Task::new(shared.clone(), key.clone(), Arc::clone(&wake))
                    .run()
                    .await;
                let mut wakes = lock(&wakes);
                // One of the same name may have come in the meantime.
                if shared.cache.cluster(&key).is_none() {
                    wakes.remove(&key);
                    break;
                }
            }
            shared.metrics.clusters.dec();
        });
    }
}

impl Listener for Clusters {
    fn asked(&self, key: Key) {
        let mut wakes = lock(&self.wakes);
        if let Some(wake) = wakes.get(&key) {
            wake.notify_one();
            return;
        }
        let wake = Arc::new(Notify::new());
        wakes.insert(key.clone(), Arc::clone(&wake));
        drop(wakes);
        self.start(key, wake);
    }

    fn changed(&self, key: Key) {
        if let Some(wake) = lock(&self.wakes).get(&key) {
            wake.notify_one();
        }
    }

    fn all_changed(&self) {
        for wake in lock(&self.wakes).values() {
            wake.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
