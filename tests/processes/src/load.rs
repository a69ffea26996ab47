//! Clients with sessions that submit until they are told to stop, and remember every acknowledgement.

use crate::api;
use crate::history::Acknowledged;
use crate::wait::eventually;
use bytes::Bytes;
use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use raftlog_proto::v1::SubmitClientRequestRequest;
use raftlog_proto::v1::operations_client::OperationsClient;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// A running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Vec<Acknowledged>>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// One client: one session, one operation at a time, retried with the same sequence until it is acknowledged.
struct Client {
    id: String,
    endpoints: Vec<OperationsClient<Channel>>,
    random: ChaCha8Rng,
    shared: Arc<Shared>,
}

impl Load {
    /// Starts `clients` clients named `NAME-1`, `NAME-2`, ..., each of which submits to the nodes at `ports` in random order.
    /// Every operation of a name is unique.
    pub fn start(name: &str, ports: &[u16], clients: u64, seed: u64) -> Self {
        let began = Instant::now();
        let shared = Arc::new(Shared {
            began,
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let endpoints: Vec<_> = ports.iter().map(|&port| api::operations(port)).collect();
        let mut tasks = JoinSet::new();
        for number in 1..=clients {
            let client = Client {
                id: format!("{name}-{number}"),
                endpoints: endpoints.clone(),
                random: ChaCha8Rng::seed_from_u64(seed.wrapping_add(number)),
                shared: Arc::clone(&shared),
            };
            tasks.spawn(client.run());
        }
        Self {
            shared,
            clients: tasks,
        }
    }

    /// Acknowledgements so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for `count` acknowledgements from now on.
    pub async fn progresses_by(&self, count: u64) {
        let goal = self.acknowledged() + count;
        eventually(
            &format!("{count} more operations to be acknowledged"),
            async || {
                let now = self.acknowledged();
                if now >= goal {
                    Ok(())
                } else {
                    Err(format!("{now} of {goal} so far"))
                }
            },
        )
        .await;
    }

    /// Ends the load. Each client gives up what it is not told about at its current attempt.
    ///
    /// # Panics
    /// When a client was answered in a way that breaks the contract.
    pub async fn stop(mut self) -> Vec<Acknowledged> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut history = Vec::new();
        while let Some(answers) = self.clients.join_next().await {
            history.extend(answers.expect("a client of the load failed"));
        }
        history
    }
}

impl Client {
    async fn run(mut self) -> Vec<Acknowledged> {
        let mut answers = Vec::new();
        for sequence in 1.. {
            let Some(answer) = self.submit(sequence).await else {
                break;
            };
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            answers.push(answer);
        }
        answers
    }

    async fn submit(&mut self, sequence: u64) -> Option<Acknowledged> {
        let data = Bytes::from(format!("{}/{sequence}", self.id));
        let submitted_micros = self.now_micros();
        while !self.shared.stop.load(Ordering::Relaxed) {
            match self.attempt(sequence, data.clone()).await {
                Ok(index) => {
                    let acknowledged_micros = self.now_micros();
                    let client = self.id.clone();
                    return Some(Acknowledged {
                        client,
                        sequence,
                        data,
                        index,
                        submitted_micros,
                        acknowledged_micros,
                    });
                }
                Err(status) => assert_worth_a_retry(&self.id, sequence, &status),
            }
            let pause = self.random.random_range(10..50);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        None
    }

    async fn attempt(&mut self, sequence: u64, operation: Bytes) -> Result<u64, Status> {
        let request = SubmitClientRequestRequest {
            operation,
            client_id: self.id.clone(),
            sequence,
            acknowledged_through: sequence - 1,
            ..Default::default()
        };
        let endpoint = self.random.random_range(0..self.endpoints.len());
        let endpoint = self.endpoints.get_mut(endpoint).expect("the index is in range");
        let answer = api::call(endpoint.submit_client_request(Request::new(request))).await?;
        Ok(answer.index)
    }

    fn now_micros(&self) -> u64 {
        u64::try_from(self.shared.began.elapsed().as_micros()).expect("a test takes less than an age")
    }
}

/// Crashes, partitions and overload explain these answers to a well-formed request; nothing explains any other.
fn assert_worth_a_retry(client: &str, sequence: u64, status: &Status) {
    let reason = reason_of(status);
    let explained = match reason.as_deref() {
        Some(reason) => [
            reason::NO_LEADER,
            reason::NOT_APPENDED,
            reason::BACKPRESSURE,
            reason::DISK_FULL,
            reason::LEADERSHIP_LOST,
            reason::FORWARD_BROKEN,
            reason::UNFORMED,
        ]
        .contains(&reason),
        // A connection that failed, which tonic tells with a code of its choice.
        None if status.source().is_some() => true,
        None => matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal
        ),
    };
    assert!(
        explained,
        "{client}'s operation {sequence} was answered with {reason:?}: {status:?}"
    );
}
