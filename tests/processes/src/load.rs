//! Clients with sessions that submit until they are told to stop, and remember every acknowledgement.

use crate::address::Address;
use crate::api;
use crate::history::{Acknowledged, Unanswered};
use crate::wait::eventually;
use bytes::Bytes;
use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use raftlog_proto::v1::operations_client::OperationsClient;
use raftlog_proto::v1::{SubmitClientRequestRequest, SubmitClientRequestResponse, WaitFor};
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
    clients: JoinSet<Told>,
}

/// What the clients of a load know at its end.
#[derive(Debug, Default)]
pub struct Told {
    /// What they were told to be committed.
    pub acknowledged: Vec<Acknowledged>,
    /// What they gave up without an answer.
    pub unanswered: Vec<Unanswered>,
}

#[derive(Debug)]
struct Shared {
    pause_max: Duration,
    began: Instant,
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// What one client submits to a state machine, whose results it waits for.
pub trait Commands: Send {
    /// The next operation, which nobody else may ever submit.
    fn next(&mut self, client: &str, sequence: u64, random: &mut ChaCha8Rng) -> Bytes;
    /// What came of it.
    fn told(&mut self, result: &Bytes);
}

/// One client: one session, one operation at a time, retried with the same sequence until it is acknowledged.
struct Client {
    id: String,
    commands: Option<Box<dyn Commands>>,
    endpoints: Vec<OperationsClient<Channel>>,
    random: ChaCha8Rng,
    shared: Arc<Shared>,
}

impl Load {
    /// Starts `clients` clients named `NAME-1`, `NAME-2`, ..., each of which submits to these nodes in random order.
    /// Every operation of a name is unique.
    pub fn start(name: &str, nodes: &[Address], clients: u64, seed: u64) -> Self {
        Self::start_with_pauses(name, nodes, clients, seed, Duration::ZERO)
    }

    /// The same, where each client waits for up to `pause_max` after each answer.
    pub fn start_with_pauses(
        name: &str,
        nodes: &[Address],
        clients: u64,
        seed: u64,
        pause_max: Duration,
    ) -> Self {
        Self::start_clients(name, nodes, clients, seed, pause_max, || None)
    }

    /// The same, where each client submits commands of its own to a state machine.
    pub fn start_commanding<C: Commands + 'static>(
        name: &str,
        nodes: &[Address],
        clients: u64,
        seed: u64,
        pause_max: Duration,
        commands: impl Fn() -> C,
    ) -> Self {
        Self::start_clients(name, nodes, clients, seed, pause_max, || {
            Some(Box::new(commands()))
        })
    }

    fn start_clients(
        name: &str,
        nodes: &[Address],
        clients: u64,
        seed: u64,
        pause_max: Duration,
        commands: impl Fn() -> Option<Box<dyn Commands>>,
    ) -> Self {
        let began = Instant::now();
        let shared = Arc::new(Shared {
            pause_max,
            began,
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        });
        let endpoints: Vec<_> = nodes.iter().map(|&node| api::operations(node)).collect();
        let mut tasks = JoinSet::new();
        for number in 1..=clients {
            let client = Client {
                id: format!("{name}-{number}"),
                commands: commands(),
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

    /// When it began: what the times of its history count from.
    pub fn began(&self) -> Instant {
        self.shared.began
    }

    /// Ends the load. Each client gives up what it is not told about at its current attempt.
    ///
    /// # Panics
    /// When a client was answered in a way that breaks the contract.
    pub async fn stop(self) -> Vec<Acknowledged> {
        self.finish().await.acknowledged
    }

    /// The same, and tells also what was given up.
    ///
    /// # Panics
    /// When a client was answered in a way that breaks the contract.
    pub async fn finish(mut self) -> Told {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        while let Some(told) = self.clients.join_next().await {
            let told = told.expect("a client of the load failed");
            all.acknowledged.extend(told.acknowledged);
            all.unanswered.extend(told.unanswered);
        }
        all
    }
}

impl Client {
    async fn run(mut self) -> Told {
        let mut told = Told::default();
        for sequence in 1.. {
            match self.submit(sequence).await {
                Ok(answer) => told.acknowledged.push(answer),
                Err(unanswered) => {
                    told.unanswered.push(unanswered);
                    break;
                }
            }
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            if !self.shared.pause_max.is_zero() {
                let pause = self.random.random_range(Duration::ZERO..=self.shared.pause_max);
                tokio::time::sleep(pause).await;
            }
        }
        told
    }

    async fn submit(&mut self, sequence: u64) -> Result<Acknowledged, Unanswered> {
        let data = match &mut self.commands {
            Some(commands) => commands.next(&self.id, sequence, &mut self.random),
            None => Bytes::from(format!("{}/{sequence}", self.id)),
        };
        let submitted_micros = self.now_micros();
        while !self.shared.stop.load(Ordering::Relaxed) {
            match self.attempt(sequence, data.clone()).await {
                Ok(answer) => {
                    let acknowledged_micros = self.now_micros();
                    let client = self.id.clone();
                    let result = answer.result_available.then_some(answer.result);
                    if let (Some(commands), Some(result)) = (&mut self.commands, &result) {
                        commands.told(result);
                    }
                    return Ok(Acknowledged {
                        client,
                        sequence,
                        data,
                        index: answer.index,
                        submitted_micros,
                        acknowledged_micros,
                        result,
                    });
                }
                Err(status) => assert_worth_a_retry(&self.id, sequence, &status),
            }
            let pause = self.random.random_range(10..50);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Err(Unanswered {
            data,
            submitted_micros,
        })
    }

    async fn attempt(
        &mut self,
        sequence: u64,
        operation: Bytes,
    ) -> Result<SubmitClientRequestResponse, Status> {
        let wait_for = match self.commands {
            Some(_) => WaitFor::Executed,
            None => WaitFor::Committed,
        };
        let request = SubmitClientRequestRequest {
            operation,
            client_id: self.id.clone(),
            sequence,
            acknowledged_through: sequence - 1,
            wait_for: wait_for.into(),
        };
        let endpoint = self.random.random_range(0..self.endpoints.len());
        let endpoint = self.endpoints.get_mut(endpoint).expect("the index is in range");
        api::call(endpoint.submit_client_request(Request::new(request))).await
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
