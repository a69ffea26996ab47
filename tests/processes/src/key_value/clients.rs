//! Clients of a key-value store: some write, as a load; others ask.

use super::Asked;
use crate::address::Address;
use crate::api;
use crate::load::Commands;
use bytes::Bytes;
use raftlog_proto::v1::operations_client::OperationsClient;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::transport::Channel;

/// Few, so that clients get in each other's way.
const KEYS: u64 = 5;

/// The name of a key, 0 to `KEYS` - 1.
pub fn key(number: u64) -> String {
    format!("key-{number}")
}

/// Puts, and compares with what it saw last and swaps.
#[derive(Debug, Default)]
pub struct Writes {
    seen: BTreeMap<String, String>,
    /// The key and the value of what it waits for.
    pending: Option<(String, String)>,
}

impl Commands for Writes {
    fn next(&mut self, client: &str, sequence: u64, random: &mut ChaCha8Rng) -> Bytes {
        let key = key(random.random_range(0..KEYS));
        let value = format!("{client}/{sequence}");
        let command = match self.seen.get(&key) {
            Some(seen) if random.random_bool(0.6) => format!("cas {key} {seen} {value}"),
            _ => format!("put {key} {value}"),
        };
        self.pending = Some((key, value));
        command.into()
    }

    fn told(&mut self, result: &Bytes) {
        let Some((key, written)) = self.pending.take() else {
            return;
        };
        let result = String::from_utf8_lossy(result);
        let now = match result.strip_prefix("value ") {
            Some(found) => found.to_owned(),
            None => written,
        };
        self.seen.insert(key, now);
    }
}

/// Clients that ask any node for the value of any key, one after the other.
#[derive(Debug)]
pub struct Askers {
    stop: Arc<AtomicBool>,
    askers: JoinSet<Vec<Asked>>,
}

struct Asker {
    nodes: Vec<(u32, OperationsClient<Channel>)>,
    random: ChaCha8Rng,
    began: Instant,
    stop: Arc<AtomicBool>,
}

impl Askers {
    /// Starts `count` of them. Times count from `began`.
    pub fn start(nodes: &[(u32, Address)], count: u64, began: Instant, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut askers = JoinSet::new();
        for number in 1..=count {
            let nodes = nodes.iter().map(|&(node, at)| (node, api::operations(at)));
            let asker = Asker {
                nodes: nodes.collect(),
                random: ChaCha8Rng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number)),
                began,
                stop: Arc::clone(&stop),
            };
            askers.spawn(asker.run());
        }
        Self { stop, askers }
    }

    /// Ends them.
    ///
    /// # Panics
    /// When one was answered something that is no value.
    pub async fn finish(mut self) -> Vec<Asked> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(asked) = self.askers.join_next().await {
            all.extend(asked.expect("an asker failed"));
        }
        all
    }
}

impl Asker {
    async fn run(mut self) -> Vec<Asked> {
        let mut all = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            // What is refused or takes too long tells nothing.
            all.extend(self.ask().await);
            let pause = self.random.random_range(2..30);
            sleep(Duration::from_millis(pause)).await;
        }
        all
    }

    async fn ask(&mut self) -> Option<Asked> {
        let key = key(self.random.random_range(0..KEYS));
        let at = self.random.random_range(0..self.nodes.len());
        let (node, client) = self.nodes.get_mut(at).expect("the index is in range");
        let began_micros = micros(self.began);
        let answer = api::query(client, &format!("get {key}"), false).await.ok()?;
        let text = String::from_utf8_lossy(&answer.result).into_owned();
        let value = text.strip_prefix("value ").map(str::to_owned);
        assert!(
            value.is_some() || text == "none",
            "an answer to 'get {key}': {text}"
        );
        Some(Asked {
            node: *node,
            key,
            value,
            index: answer.index,
            began_micros,
            ended_micros: micros(self.began),
        })
    }
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).expect("a test takes less than an age")
}
