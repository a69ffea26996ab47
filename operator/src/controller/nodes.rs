//! What the nodes of one cluster say: one stream of `WatchStatus` a pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use raftlog_proto::v1::cluster_client::ClusterClient;
use raftlog_proto::v1::{ExecutorFailure, ExecutorStatus, NodeStatus, ReplicatorStatus, WatchStatusRequest};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tonic::transport::{Channel, Endpoint};

use super::view::Heard;
use crate::resources::names::PEER_PORT;

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A connection is asked whether it is alive this often, and has as long to answer.
const PING_EVERY: Duration = Duration::from_secs(2);
/// A node that did not answer for so long is silent.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// Between two attempts at first, and at most.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_LONGEST: Duration = Duration::from_secs(5);
/// Where nothing but indexes change, nodes say so this often.
const INDEXES_EVERY_MILLISECONDS: u64 = 1_000;
/// A member that the leader has not heard of for so long is about to be given up.
const LATE_MILLISECONDS: u64 = 2_000;
/// An executor that fails this often in a row is news; what fails once and then works is none.
const FAILS_FROM: u64 = 3;

type Statuses = Arc<Mutex<BTreeMap<u32, Heard>>>;

/// The streams of one cluster.
#[derive(Debug)]
pub struct Nodes {
    heard: Statuses,
    wake: Arc<Notify>,
    streams: BTreeMap<u32, Stream>,
}

#[derive(Debug)]
struct Stream {
    pod_uid: String,
    ip: String,
    task: AbortHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Nodes {
    /// Wakes that one when a node says something new.
    pub fn new(wake: Arc<Notify>) -> Self {
        Self {
            heard: Statuses::default(),
            wake,
            streams: BTreeMap::new(),
        }
    }

    /// Listens to the node of that pod from now on; to nobody, where it has no address.
    pub fn listen(&mut self, node: u32, pod: Option<(&str, &str)>) {
        let same = match (self.streams.get(&node), pod) {
            (Some(stream), Some((uid, ip))) => stream.pod_uid == uid && stream.ip == ip,
            (None, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        self.streams.remove(&node);
        hear(&self.heard, node, Heard::Nothing);
        if let Some((uid, ip)) = pod {
            let listener = listen(
                node,
                ip.to_owned(),
                Arc::clone(&self.heard),
                Arc::clone(&self.wake),
            );
            let stream = Stream {
                pod_uid: uid.to_owned(),
                ip: ip.to_owned(),
                task: tokio::spawn(listener).abort_handle(),
            };
            self.streams.insert(node, stream);
        }
    }

    /// What that node said last.
    pub fn heard(&self, node: u32) -> Heard {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&node).cloned().unwrap_or_default()
    }
}

/// Says whether that is news.
fn hear(heard: &Statuses, node: u32, what: Heard) -> bool {
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    let news = heard.get(&node).is_none_or(|before| is_news(before, &what));
    heard.insert(node, what);
    news
}

async fn listen(node: u32, ip: String, heard: Statuses, wake: Arc<Notify>) {
    let mut pause = AGAIN_FIRST;
    let mut failing_since = Instant::now();
    loop {
        let told = follow(node, &ip, &heard, &wake).await;
        if told {
            pause = AGAIN_FIRST;
            failing_since = Instant::now();
        }
        let silent = failing_since.elapsed() >= SILENT_AFTER;
        let nothing = if silent { Heard::Silence } else { Heard::Nothing };
        if hear(&heard, node, nothing) {
            wake.notify_one();
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(AGAIN_LONGEST);
    }
}

/// Until the stream breaks; says whether anything came.
async fn follow(node: u32, ip: &str, heard: &Statuses, wake: &Notify) -> bool {
    let mut told = false;
    let Ok(channel) = connect(ip).await else {
        return told;
    };
    let request = WatchStatusRequest {
        minimum_interval_milliseconds: INDEXES_EVERY_MILLISECONDS,
    };
    let mut client = ClusterClient::new(channel);
    let Ok(Ok(response)) = tokio::time::timeout(SILENT_AFTER, client.watch_status(request)).await else {
        return told;
    };
    let mut statuses = response.into_inner();
    while let Ok(Some(response)) = statuses.message().await {
        let Some(status) = response.status else {
            continue;
        };
        told = true;
        if hear(heard, node, Heard::Status(Box::new(status))) {
            wake.notify_one();
        }
    }
    told
}

/// A connection to the port for nodes of the pod there.
pub async fn connect(ip: &str) -> Result<Channel, String> {
    let address: IpAddr = ip
        .parse()
        .map_err(|error| format!("'{ip}' is no address: {error}"))?;
    let host = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let endpoint =
        Endpoint::from_shared(format!("http://{host}:{PEER_PORT}")).map_err(|error| error.to_string())?;
    endpoint
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(|error| format!("{host}:{PEER_PORT} cannot be reached: {error}"))
}

/// More than indexes.
fn is_news(before: &Heard, now: &Heard) -> bool {
    match (before, now) {
        (Heard::Status(before), Heard::Status(now)) => essence(before) != essence(now),
        (before, now) => before != now,
    }
}

fn essence(status: &NodeStatus) -> NodeStatus {
    let mut progress = status.progress.clone();
    for member in &mut progress {
        member.match_log_index = member.match_log_index.min(1);
        member.last_contact_milliseconds = u64::from(member.last_contact_milliseconds > LATE_MILLISECONDS);
        member.in_flight_bytes = 0;
    }
    let connected = status
        .replicator
        .as_ref()
        .is_some_and(|replicator| replicator.connected);
    let executor = status
        .replicator
        .as_ref()
        .and_then(|replicator| replicator.executor.as_ref());
    let executor = executor.map(|executor| ExecutorStatus {
        failure: executor
            .failure
            .as_ref()
            .filter(|failure| failure.attempts >= FAILS_FROM)
            .map(|_| ExecutorFailure::default()),
        stopped: executor.stopped,
        ..ExecutorStatus::default()
    });
    NodeStatus {
        replicator: Some(ReplicatorStatus {
            executor,
            ..ReplicatorStatus::default()
        }),
        cluster_id: status.cluster_id,
        member_id: status.member_id,
        role: status.role,
        term: status.term,
        leader: status.leader.clone(),
        configuration: status.configuration.clone(),
        ready: status.ready && connected,
        was_removed: status.was_removed,
        disk_full: status.disk_full,
        disk_stalled: status.disk_stalled,
        progress,
        ..NodeStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use raftlog_proto::v1::MemberProgress;

    use super::*;

    #[test]
    fn indexes_are_no_news() {
        let told = |commit_index, term, contact| {
            Heard::Status(Box::new(NodeStatus {
                commit_index,
                term,
                progress: vec![MemberProgress {
                    match_log_index: commit_index,
                    last_contact_milliseconds: contact,
                    ..MemberProgress::default()
                }],
                ..NodeStatus::default()
            }))
        };
        assert!(!is_news(&told(5, 1, 10), &told(6, 1, 900)));
        assert!(is_news(&told(5, 1, 10), &told(5, 2, 10)));
        assert!(is_news(&told(5, 1, 10), &told(5, 1, 9_000)));
        assert!(is_news(&told(5, 1, 10), &Heard::Silence));
        assert!(!is_news(&Heard::Silence, &Heard::Silence));
    }

    /// Under load an executor may fail at every other operation for a moment.
    #[test]
    fn an_executor_that_goes_on_failing_is_news_once() {
        let told = |attempts, stopped| {
            let failure = (attempts > 0).then(|| ExecutorFailure {
                index: attempts,
                attempts,
                ..ExecutorFailure::default()
            });
            Heard::Status(Box::new(NodeStatus {
                replicator: Some(ReplicatorStatus {
                    connected: true,
                    executor: Some(ExecutorStatus {
                        failure,
                        stopped,
                        ..ExecutorStatus::default()
                    }),
                    ..ReplicatorStatus::default()
                }),
                ..NodeStatus::default()
            }))
        };
        for (before, now, news) in [
            (told(0, false), told(2, false), false),
            (told(2, false), told(3, false), true),
            (told(3, false), told(4, false), false),
            (told(3, false), told(0, false), true),
            (told(1, false), told(1, true), true),
        ] {
            assert_eq!(is_news(&before, &now), news, "{before:?} {now:?}");
        }
    }
}
