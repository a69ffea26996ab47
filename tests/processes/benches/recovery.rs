//! How long does a node take to come back with a long log? A cluster of one is written to by streams, killed and started
//! again, with the log in the page cache and, as root, without; beside it, what it takes to read the same files. It fails where
//! opening the folder takes longer than 3 s.
//!
//! `cargo bench -p processes --bench recovery`

use clap::Parser;
use processes::cluster::{Cluster, Options};
use processes::http;
use processes::streams::Streams;
use processes::wait::eventually;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const MEBIBYTE: u64 = 1 << 20;
/// Opening a folder may take so long, for 1 GiB.
const OPENED_WITHIN: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Writes a long log, and starts its node again.
#[derive(Debug, Parser)]
struct Arguments {
    /// MiB of operations in the log
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// Bytes of each
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Streams that submit at the same time
    #[arg(long, default_value_t = 8)]
    streams: u64,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

/// One start.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// Reading all files.
    floor: Duration,
    /// From the start of the process until its folder is open, and it answers.
    opened: Duration,
    /// Until it has been elected, and is ready.
    ready: Duration,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut options = Options::with_default_timings().of(1);
    let never = ["--snapshot-every-operations", "0"];
    options.node_flags.extend(never.map(str::to_owned));
    let mut cluster = Cluster::prepare(options).await;
    cluster.start_all_unheard();
    cluster.wait_until_ready().await;
    let operations = write(&cluster, &arguments).await;
    cluster.node(1).kill().await;
    let folder = cluster.node(1).folder().to_owned();
    let (bytes, _) = read_all(&folder);
    println!(
        "{operations} operations of {} bytes, {} MiB of files; seconds:",
        arguments.bytes,
        bytes / MEBIBYTE
    );
    println!(
        "{:12} {:>12} {:>12} {:>12}",
        "page cache", "reading them", "open again", "ready"
    );
    let mut slowest = Duration::ZERO;
    for cold in [true, false] {
        for _ in 0..ROUNDS {
            let Some(start) = restart(&mut cluster, cold).await else {
                println!("{:12} {DROP_CACHES} cannot be written: not root?", "cold");
                break;
            };
            show(cold, start);
            slowest = slowest.max(start.opened);
        }
    }
    if slowest > OPENED_WITHIN {
        eprintln!("opening the folder took {slowest:.2?}, longer than {OPENED_WITHIN:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Submits everything, and waits until it is executed. Gives how many operations there are.
async fn write(cluster: &Cluster, arguments: &Arguments) -> u64 {
    let bytes = u64::try_from(arguments.bytes).unwrap_or(u64::MAX).max(1);
    let operations = arguments.mebibytes * MEBIBYTE / bytes;
    let mut streams = Streams::start(
        &cluster.addresses(),
        arguments.streams,
        operations,
        arguments.bytes,
    )
    .await;
    while streams.acknowledged() < operations {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eventually("all operations to be executed", async || {
        let status = cluster.status(1).await.map_err(|error| error.to_string())?;
        let executed = status
            .replicator
            .map_or(0, |replicator| replicator.executed_index);
        if executed < operations {
            return Err(format!("{executed} of {operations}"));
        }
        Ok(())
    })
    .await;
    operations
}

/// Starts the node, sees when it is there, and kills it; `None` where the page cache cannot be dropped.
async fn restart(cluster: &mut Cluster, cold: bool) -> Option<Start> {
    let drop_cache = || !cold || forget_files();
    drop_cache().then_some(())?;
    let (_, floor) = read_all(cluster.node(1).folder());
    drop_cache().then_some(())?;
    let began = Instant::now();
    cluster.node(1).start_unheard();
    let at = cluster.http_port(1);
    let told = async |path| {
        while http::get(at, path).await.map_or(0, |answer| answer.status) != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    };
    let opened = told("/livez").await;
    let ready = told("/readyz").await;
    cluster.node(1).kill().await;
    Some(Start { floor, opened, ready })
}

/// Whether what is in the page cache could be dropped.
fn forget_files() -> bool {
    rustix::fs::sync();
    fs::write(DROP_CACHES, "3").is_ok()
}

/// Reads all files of a folder from beginning to end. Gives their bytes, and how long it took.
fn read_all(folder: &Path) -> (u64, Duration) {
    let (began, mut bytes) = (Instant::now(), 0);
    let mut buffer = vec![0; 1 << 20];
    for file in fs::read_dir(folder).expect("the folder is there") {
        let path = file.expect("the folder can be listed").path();
        let mut file = File::open(&path).expect("its files can be read");
        loop {
            match file.read(&mut buffer).expect("its files can be read") {
                0 => break,
                read => bytes += u64::try_from(read).expect("a buffer is small"),
            }
        }
    }
    (bytes, began.elapsed())
}

fn show(cold: bool, start: Start) {
    let Start { floor, opened, ready } = start;
    println!(
        "{:12} {:>12.2} {:>12.2} {:>12.2}",
        if cold { "cold" } else { "warm" },
        floor.as_secs_f64(),
        opened.as_secs_f64(),
        ready.as_secs_f64()
    );
}
