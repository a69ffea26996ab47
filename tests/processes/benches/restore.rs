//! What does it take to bring a large state back? Key-value stores of 1 GiB behind three replicators; one pod loses its node, replicator and
//! store with all their data, is replaced, and gets a snapshot. Prints the most memory of each process before and meanwhile, the progress that
//! `raftctl status` tells, and how long commits take that do not need the pod. Fails where a process needs much more memory than the state
//! has pieces, or where no progress is told.
//!
//! `cargo bench -p processes --bench restore`

use bytes::Bytes;
use clap::Parser;
use processes::api;
use processes::cluster::{Cluster, Options, Program};
use processes::machines::{Kind, Machines};
use processes::wait::eventually_within;
use raftlog_client::{Client, Endpoint, Options as ClientOptions, WaitFor};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

const MEBIBYTE: u64 = 1 << 20;
const NODES: u32 = 3;
/// The pod that loses everything.
const LOST: u32 = 3;
/// Clients that fill the stores.
const WRITERS: u64 = 8;
/// Any step may take so long, on a slow disk without optimization.
const PATIENCE: Duration = Duration::from_mins(30);
/// No process may have more memory: what is in flight, a store's cache, and what an allocator keeps.
const MEMORY_MAX: u64 = 320 * MEBIBYTE;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Fills stores, loses one, and watches it come back.
#[derive(Debug, Parser)]
struct Arguments {
    /// MiB of values in each store
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// KiB of each value; it takes twice the room where it is a power of two, as there is something beside it
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    kibibytes: u64,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

/// The most memory of each process, in bytes.
type Memory = BTreeMap<String, u64>;

/// What one phase looked like.
#[derive(Debug, Default)]
struct Seen {
    memory: Memory,
    /// How long commits took, in order of time.
    latencies: Vec<Duration>,
    /// Percents, as told.
    progress: BTreeSet<String>,
}

struct Pods {
    cluster: Cluster,
    machines: Machines,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut options = Options::quick().of(NODES);
    let flags = ["--snapshot-every-bytes", "256MiB"];
    options.node_flags.extend(flags.map(str::to_owned));
    let mut machines = Machines::beside(&mut options, Kind::KeyValue);
    machines.start_all();
    let mut pods = Pods {
        cluster: Cluster::start(options).await,
        machines,
    };
    let values = fill(&pods.cluster, &arguments).await;
    pods.wait_until_all_hold(values).await;
    let index = take_snapshot(&pods.cluster).await;
    println!(
        "{values} values of {} KiB; a snapshot of operation {index}",
        arguments.kibibytes
    );
    let before = pods.watch(async |_| sleep(Duration::from_secs(10)).await).await;
    let began = Instant::now();
    pods.lose().await;
    let meanwhile = pods
        .watch(async |cluster| {
            replace(cluster).await;
            wait_until_it_holds(cluster, LOST, values).await;
        })
        .await;
    println!("restored after {:.1?}", began.elapsed());
    show(&before, &meanwhile);
    judge(&meanwhile)
}

fn client(cluster: &Cluster) -> Client {
    let endpoints = cluster.addresses().into_iter();
    let endpoints = endpoints.map(|at| Endpoint::parse(&at.to_string()).expect("addresses are endpoints"));
    let options = ClientOptions {
        timeout: PATIENCE,
        ..ClientOptions::default()
    };
    Client::new(endpoints.collect(), options).expect("there are endpoints")
}

/// Puts all values; gives how many there are.
async fn fill(cluster: &Cluster, arguments: &Arguments) -> u64 {
    let values = arguments.mebibytes * 1024 / arguments.kibibytes;
    let value = vec![b'.'; usize::try_from(arguments.kibibytes * 1024).expect("it fits an operation")];
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let session = client(cluster).open_session().await.expect("a session");
        let value = value.clone();
        writers.spawn(async move {
            for number in (writer..values).step_by(usize::try_from(WRITERS).expect("they are few")) {
                let mut operation = format!("put key-{number} ").into_bytes();
                operation.extend_from_slice(&value);
                // No faster than it is executed.
                let done = session
                    .submit_and_wait(Bytes::from(operation), WaitFor::Executed)
                    .await;
                done.expect("it is executed");
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.expect("a writer failed");
    }
    values
}

/// Has one taken, and waits until no log holds what is in it.
async fn take_snapshot(cluster: &Cluster) -> u64 {
    eventually_within(PATIENCE, "a snapshot of all nodes", async || {
        let mut least = u64::MAX;
        for node in 1..=NODES {
            let status = cluster.status(node).await.map_err(|error| error.to_string())?;
            let endpoint = Endpoint::parse(&cluster.address(node).to_string()).expect("an endpoint");
            if status.snapshot_index < status.commit_index / 2 || status.first_index <= 1 {
                let client = Client::new(vec![endpoint], ClientOptions::default()).expect("an endpoint");
                let taken = client.take_snapshot().await;
                return Err(format!("node {node}: {:?}", taken.map(|_| ())));
            }
            least = least.min(status.snapshot_index);
        }
        Ok(least)
    })
    .await
}

/// By raftctl, again and again until it says that it is done, as a user would.
async fn replace(cluster: &Cluster) {
    let number = LOST.to_string();
    eventually_within(PATIENCE, "the member to be replaced", async || {
        let replaced = cluster
            .raftctl(&["member", "replace", &number, "--timeout", "60s"])
            .await;
        (replaced.code == 0)
            .then_some(())
            .ok_or(replaced.stderr.join(" "))
    })
    .await;
}

async fn wait_until_it_holds(cluster: &Cluster, node: u32, values: u64) {
    eventually_within(
        PATIENCE,
        &format!("store {node} to hold {values} values"),
        async || {
            let mut client = api::operations(cluster.address(node));
            let answer = api::query(&mut client, "count", true).await;
            let answer = answer.map_err(|status| status.to_string())?;
            let found = String::from_utf8_lossy(&answer.result).into_owned();
            // And what is measured by.
            let count: u64 = found.parse().map_err(|_| found.clone())?;
            (count >= values).then_some(()).ok_or(found)
        },
    )
    .await;
}

impl Pods {
    async fn wait_until_all_hold(&self, values: u64) {
        for node in 1..=NODES {
            wait_until_it_holds(&self.cluster, node, values).await;
        }
    }

    async fn lose(&mut self) {
        lose(self.machines.of(LOST)).await;
        lose(self.cluster.replicator(LOST)).await;
        lose(self.cluster.node(LOST)).await;
    }

    /// Looks at everything while `meanwhile` goes on.
    async fn watch(&mut self, meanwhile: impl AsyncFnOnce(&Cluster)) -> Seen {
        let processes = self.processes();
        let submitting = Submitting::start(client(&self.cluster));
        let mut seen = Seen::default();
        {
            let cluster = &self.cluster;
            let mut ending = std::pin::pin!(meanwhile(cluster));
            loop {
                tokio::select! {
                    () = &mut ending => break,
                    () = sleep(LOOK_EVERY) => {}
                }
                for (name, id) in &processes {
                    let most = seen.memory.entry(name.clone()).or_default();
                    *most = anonymous_bytes(*id).max(*most);
                }
                let told = cluster.raftctl(&["status"]).await.text();
                let percents = told
                    .lines()
                    .filter_map(|line| line.split_once("executor restores index "));
                seen.progress
                    .extend(percents.map(|(_, rest)| rest.trim().to_owned()));
            }
        }
        seen.latencies = submitting.finish().await;
        seen
    }

    fn processes(&mut self) -> Vec<(String, i32)> {
        let of = |program: &mut Program| (program.process().name().to_owned(), program.process().id());
        let mut all = Vec::new();
        for node in 1..=NODES {
            all.push(of(self.cluster.node(node)));
            all.push(of(self.cluster.replicator(node)));
            all.push(of(self.machines.of(node)));
        }
        all
    }
}

async fn lose(program: &mut Program) {
    program.kill().await;
    program.delete_folder();
    program.start();
}

/// Memory that is not a file's; 0 of a process that is not there.
fn anonymous_bytes(process: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = anonymous.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() << 10
}

/// One small operation after the other.
struct Submitting {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Duration>>,
}

impl Submitting {
    fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let session = client.open_session().await.expect("a session");
            let mut latencies = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let done = session.submit_and_wait("put small 1", WaitFor::Committed).await;
                done.expect("it is committed");
                latencies.push(began.elapsed());
                sleep(Duration::from_millis(5)).await;
            }
            latencies
        });
        Self { stop, task }
    }

    async fn finish(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the client failed")
    }
}

fn show(before: &Seen, meanwhile: &Seen) {
    println!("{:12} {:>14} {:>14}", "most MiB", "before", "restoring");
    for (name, most) in &meanwhile.memory {
        let before = before.memory.get(name).copied().unwrap_or_default();
        println!("{name:12} {:>14} {:>14}", before / MEBIBYTE, most / MEBIBYTE);
    }
    println!("{:12} {:>14} {:>14}", "commits", "before", "restoring");
    for (name, thousandths) in [("p50", 500), ("p99", 990), ("p99.9", 999), ("longest", 1_000)] {
        let (before, meanwhile) = (
            quantile(&before.latencies, thousandths),
            quantile(&meanwhile.latencies, thousandths),
        );
        println!("{name:12} {before:>14.2?} {meanwhile:>14.2?}");
    }
    println!(
        "{:12} {:>14} {:>14}",
        "count",
        before.latencies.len(),
        meanwhile.latencies.len()
    );
    println!(
        "raftctl status told of it {} times: {:?}",
        meanwhile.progress.len(),
        meanwhile.progress
    );
}

fn quantile(latencies: &[Duration], thousandths: usize) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * thousandths / 1_000)
        .copied()
        .unwrap_or_default()
}

fn judge(meanwhile: &Seen) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (name, most) in meanwhile.memory.iter().filter(|(_, most)| **most > MEMORY_MAX) {
        eprintln!(
            "{name} took {} MiB, more than {} MiB",
            most / MEBIBYTE,
            MEMORY_MAX / MEBIBYTE
        );
        code = ExitCode::FAILURE;
    }
    if meanwhile.progress.is_empty() {
        eprintln!("raftctl status told no progress");
        code = ExitCode::FAILURE;
    }
    code
}
