//! Does a cluster that is written to for ever stay as small as it says? A real cluster on loopback takes operations by streams;
//! a line every so many of them tells what its processes take. It fails where a folder outgrows what its flags allow, or
//! where memory grows.
//!
//! `cargo bench -p processes --bench endurance -- --operations 10000000`

use clap::Parser;
use processes::cluster::{Cluster, Options};
use processes::streams::Streams;
use processes::volume;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const MEBIBYTE: u64 = 1 << 20;
/// A snapshot is taken after so much log, where 100,000 entries do not come first.
const SNAPSHOT_MEBIBYTES: u64 = 16;
/// The log weighs at most three times what is between two snapshots; five segments of 64 MiB need not be full; and the
/// snapshots of these few sessions are small.
const FOLDER_BYTES_MAX: u64 = (3 * SNAPSHOT_MEBIBYTES + 5 * 64 + 1) * MEBIBYTE;
/// What an allocator may keep, beside a tenth.
const MEMORY_SPARE: u64 = 16 * MEBIBYTE;

/// Writes for long, and watches memory and disks.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many operations
    #[arg(long, default_value_t = 10_000_000)]
    operations: u64,
    /// Bytes of each
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Nodes, each with a replicator
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// Streams that submit at the same time
    #[arg(long, default_value_t = 8)]
    streams: u64,
    /// Operations from line to line; 20 lines unless told
    #[arg(long)]
    every: Option<u64>,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

/// A line of the table: the most that any takes, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    node_memory: u64,
    replicator_memory: u64,
    node_disk: u64,
    replicator_disk: u64,
}

type Column = fn(&Taken) -> u64;

const MEMORY: [(&str, Column); 2] = [
    ("nodes", |taken| taken.node_memory),
    ("replicators", |taken| taken.replicator_memory),
];
const DISKS: [(&str, Column); 2] = [
    ("nodes", |taken| taken.node_disk),
    ("replicators", |taken| taken.replicator_disk),
];

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut options = Options::with_default_timings().of(arguments.nodes);
    let often = [
        "--snapshot-every-bytes".to_owned(),
        format!("{SNAPSHOT_MEBIBYTES}MiB"),
    ];
    options.node_flags.extend(often);
    let mut cluster = Cluster::prepare(options).await;
    cluster.start_all_unheard();
    cluster.wait_until_ready().await;
    let taken = write(&mut cluster, &arguments).await;
    let problems = judge(&taken);
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        println!(
            "disks are within {}, and memory is flat",
            mebibytes(FOLDER_BYTES_MAX)
        );
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn write(cluster: &mut Cluster, arguments: &Arguments) -> Vec<Taken> {
    let Arguments {
        operations,
        bytes,
        nodes,
        streams,
        ..
    } = *arguments;
    println!(
        "{nodes} nodes, {streams} streams, {bytes} bytes an operation; the most that any of them takes, in MiB:"
    );
    println!(
        "{:>12} {:>8} {:>8} {:>8} {:>11} {:>8} {:>11} {:>8}",
        "operations", "s", "each s", "node", "replicator", "disk", "replicator", "bound"
    );
    let every = arguments.every.unwrap_or(operations / 20).max(1);
    let (began, mut line) = (Instant::now(), (0, Instant::now()));
    let mut submitting = Streams::start(&cluster.addresses(), streams, operations, bytes).await;
    let mut taken = Vec::new();
    while line.0 < operations {
        let goal = (line.0 + every).min(operations);
        while submitting.acknowledged() < goal {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let now = submitting.acknowledged();
        let seconds = line.1.elapsed().as_secs_f64();
        let pace = rate(now - line.0, seconds);
        line = (now, Instant::now());
        taken.push(measure(cluster));
        show(
            now,
            began.elapsed(),
            pace,
            taken.last().copied().unwrap_or_default(),
        );
    }
    cluster.wait_until_executed(operations).await;
    taken.push(measure(cluster));
    show(
        operations,
        began.elapsed(),
        0.0,
        taken.last().copied().unwrap_or_default(),
    );
    taken
}

fn measure(cluster: &mut Cluster) -> Taken {
    let mut taken = Taken::default();
    for number in cluster.numbers() {
        let node = cluster.node(number);
        taken.node_memory = taken.node_memory.max(node.process().resident_bytes());
        taken.node_disk = taken.node_disk.max(volume::used(node.folder()));
        let replicator = cluster.replicator(number);
        taken.replicator_memory = taken.replicator_memory.max(replicator.process().resident_bytes());
        taken.replicator_disk = taken.replicator_disk.max(volume::used(replicator.folder()));
    }
    taken
}

fn show(operations: u64, elapsed: Duration, pace: f64, taken: Taken) {
    println!(
        "{operations:>12} {:>8.1} {pace:>8.0} {:>8} {:>11} {:>8} {:>11} {:>8}",
        elapsed.as_secs_f64(),
        taken.node_memory / MEBIBYTE,
        taken.replicator_memory / MEBIBYTE,
        taken.node_disk / MEBIBYTE,
        taken.replicator_disk / MEBIBYTE,
        FOLDER_BYTES_MAX / MEBIBYTE,
    );
}

/// What is not as it should be.
fn judge(taken: &[Taken]) -> Vec<String> {
    let quarter = taken.len() / 4;
    let most = |lines: &[Taken], of: Column| lines.iter().map(of).max().unwrap_or_default();
    let (second, last) = (
        taken.get(quarter..2 * quarter).unwrap_or_default(),
        taken.get(taken.len() - quarter..).unwrap_or_default(),
    );
    let mut problems = Vec::new();
    for (whose, of) in MEMORY {
        let (before, after) = (most(second, of), most(last, of));
        if after > before + before / 10 + MEMORY_SPARE {
            let (before, after) = (mebibytes(before), mebibytes(after));
            problems.push(format!(
                "memory of {whose} grows: {before} in the second quarter, {after} in the last"
            ));
        }
    }
    for (whose, of) in DISKS {
        let bytes = most(taken, of);
        if bytes > FOLDER_BYTES_MAX {
            let (bytes, bound) = (mebibytes(bytes), mebibytes(FOLDER_BYTES_MAX));
            problems.push(format!("{whose} take {bytes} of a disk, more than {bound}"));
        }
    }
    problems
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / MEBIBYTE)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people needs no more than 53 bits"
)]
fn rate(operations: u64, seconds: f64) -> f64 {
    operations as f64 / seconds
}
