//! Observe, plan, act: one task for each RaftCluster, woken by what changes.

pub mod act;
pub mod api;
pub mod cache;
pub mod cluster;
pub mod clusters;
pub mod conditions;
pub mod drift;
pub mod events;
pub mod executors;
pub mod expectations;
pub mod failures;
pub mod lag;
pub mod lasting;
pub mod metrics;
pub mod missing;
pub mod news;
pub mod nodes;
pub mod plan;
mod quantity;
pub mod raft;
pub mod state_machine;
pub mod status;
pub mod step;
pub mod stored;
pub mod turns;
pub mod view;
pub mod waiting;
pub mod watches;

use std::sync::Arc;
use std::time::Instant;

use kube::Client;
use tokio::task::JoinSet;

use self::cache::{Cache, Listener};
use self::cluster::Shared;
use self::clusters::Clusters;
use self::events::Events;
use self::metrics::Metrics;
use self::turns::Turns;
use self::watches::Watches;
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
pub async fn run(client: Client, options: Options, metrics: Metrics, watches: Watches) {
    let mut tasks = JoinSet::new();
    let scopes: Vec<Option<String>> = match options.namespaces.as_slice() {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    let turns = Turns::new(Instant::now());
    let events = Events::new(client.clone());
    for scope in scopes {
        let clusters = Arc::new(Clusters::new(metrics.clusters.clone()));
        let listener: Arc<dyn Listener> = Arc::clone(&clusters) as Arc<dyn Listener>;
        let cache = Cache::watch(&client, scope.as_deref(), &watches, &listener, &mut tasks);
        let shared = Shared {
            client: client.clone(),
            events: events.clone(),
            cache: Arc::new(cache),
            metrics: metrics.clone(),
            default_images: options.default_images.clone(),
            turns: turns.clone(),
        };
        tasks.spawn(async move {
            // Nobody decides on half a view.
            shared.cache.is_settled().await;
            clusters.begin(shared);
            std::future::pending::<()>().await;
        });
    }
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;
