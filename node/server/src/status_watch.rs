//! WatchStatus: the status at once, then whenever leader, term, role, configuration or readiness change; for indexes alone
//! at most once per interval.

use std::time::Duration;

use raftlog_proto::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use crate::cluster_service::ClusterService;
use crate::wire;

/// Where the caller names no interval.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(250);

/// Feeds one watcher until it goes, or the node drains.
pub(crate) async fn run(
    service: ClusterService,
    interval_milliseconds: u64,
    responses: mpsc::Sender<Result<v1::WatchStatusResponse, Status>>,
) {
    let interval = match interval_milliseconds {
        0 => DEFAULT_INTERVAL,
        given => Duration::from_millis(given),
    };
    let mut watch = service.core.watch();
    let mut told: Option<v1::NodeStatus> = None;
    let mut told_at = Instant::now();
    let stopping = service.lifecycle.stopping.clone();
    loop {
        let stopped = service.lifecycle.is_stopping();
        let status = wire::status_to_wire(&watch.borrow_and_update(), &service.config, stopped);
        let due = match &told {
            None => Some(Instant::now()),
            Some(before) if is_urgent(before, &status) => Some(Instant::now()),
            Some(before) if *before != status => told_at.checked_add(interval),
            Some(_) => None,
        };
        if due.is_some_and(|due| due <= Instant::now()) {
            told = Some(status.clone());
            told_at = Instant::now();
            if responses
                .send(Ok(v1::WatchStatusResponse { status: Some(status) }))
                .await
                .is_err()
            {
                return;
            }
            continue;
        }
        tokio::select! {
            changed = watch.changed() => if changed.is_err() { return },
            () = sleep_until(due) => {}
            () = stopping.cancelled(), if !stopped => {}
            () = responses.closed() => return,
            () = service.lifecycle.drain.cancelled() => return,
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn is_urgent(before: &v1::NodeStatus, now: &v1::NodeStatus) -> bool {
    let key = |status: &v1::NodeStatus| {
        (
            status.cluster_id,
            status.role,
            status.term,
            status.ready,
            status.disk_full,
            status.disk_stalled,
            status.feature_level,
        )
    };
    let connected = |status: &v1::NodeStatus| {
        status
            .replicator
            .as_ref()
            .is_some_and(|replicator| replicator.connected)
    };
    // Attempts and bytes can wait.
    let executor = |status: &v1::NodeStatus| {
        let mut executor = status.replicator.as_ref()?.executor.clone()?;
        if let Some(failure) = &mut executor.failure {
            failure.attempts = 0;
        }
        if let Some(restore) = &mut executor.restore {
            restore.received_bytes = 0;
        }
        Some(executor)
    };
    key(before) != key(now)
        || before.leader != now.leader
        || before.configuration != now.configuration
        || connected(before) != connected(now)
        || executor(before) != executor(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_can_wait_and_the_rest_cannot() {
        let before = v1::NodeStatus {
            term: 3,
            commit_index: 5,
            ready: true,
            ..Default::default()
        };
        for (now, urgent) in [
            (before.clone(), false),
            (
                v1::NodeStatus {
                    commit_index: 6,
                    last_index: 7,
                    ..before.clone()
                },
                false,
            ),
            (
                v1::NodeStatus {
                    term: 4,
                    ..before.clone()
                },
                true,
            ),
            (
                v1::NodeStatus {
                    role: v1::Role::Leader.into(),
                    ..before.clone()
                },
                true,
            ),
            (
                v1::NodeStatus {
                    ready: false,
                    ..before.clone()
                },
                true,
            ),
            (
                v1::NodeStatus {
                    leader: Some(v1::Leader::default()),
                    ..before.clone()
                },
                true,
            ),
            (
                v1::NodeStatus {
                    configuration: Some(v1::Configuration::default()),
                    ..before.clone()
                },
                true,
            ),
            (
                v1::NodeStatus {
                    replicator: Some(v1::ReplicatorStatus {
                        connected: true,
                        ..Default::default()
                    }),
                    ..before.clone()
                },
                true,
            ),
        ] {
            assert_eq!(is_urgent(&before, &now), urgent, "{now:?}");
        }
    }
}
