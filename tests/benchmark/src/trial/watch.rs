//! Do all watchers of one replicator see every operation, and do clients write as much meanwhile as without any?

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use raftlog_client::{Endpoint, OperationLog, Options};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{Stage, publish};
use crate::{
    arguments::{WatchArgs, Watched},
    failure::Failure,
    measure::{Sample, measure},
    plan::{Load, Point},
    statistics::Spread,
    system::{
        Kind,
        raftlog::{Raftlog, Running},
    },
    wait,
};

/// How often watchers are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// One measurement with watchers.
#[derive(Clone, Debug, Serialize)]
struct Watching {
    written: Sample,
    /// Operations a second that the slowest of them saw, until it had seen all.
    slowest_per_second: f64,
    /// What the slowest had still to see when the clients ended.
    behind: u64,
    /// How long that took.
    caught_up_milliseconds: f64,
    /// That there were, each of which every one of them saw.
    operations: u64,
}

#[derive(Debug, Serialize)]
struct Found {
    members: u16,
    clients: u16,
    payload: usize,
    watchers: u16,
    without: Vec<Sample>,
    with: Vec<Watching>,
}

/// Measures without watchers and with them, by turns.
pub(crate) async fn run(arguments: &WatchArgs) -> Result<(), Failure> {
    let load = &arguments.load;
    let folders = &load.settings.folders;
    let stage = Stage::new(folders, load.members)?;
    let programs = load.own.programs.as_deref();
    let raftlog = Raftlog::find(Kind::Raftlog, programs, load.settings.executor_output);
    let mut running = raftlog.map_err(Failure::new)?.run(&stage.place()).await?;
    let mut found = Found {
        members: load.members,
        clients: load.clients,
        payload: load.payload,
        watchers: arguments.watchers,
        without: Vec::new(),
        with: Vec::new(),
    };
    for round in 1..=arguments.rounds {
        let without = measure(&mut running, point(arguments), &load.settings).await?;
        let with = watched(&mut running, arguments).await?;
        eprintln!(
            "round {round} of {}: {:.0}/s without watchers, {:.0}/s with {}",
            arguments.rounds,
            without.operations_per_second,
            with.written.operations_per_second,
            arguments.watchers
        );
        found.without.push(without);
        found.with.push(with);
    }
    drop(running);
    publish("watch", folders, &table(&found), &found, &[])?;
    stage.end(folders);
    Ok(())
}

fn point(arguments: &WatchArgs) -> Point {
    Point {
        load: Load::Clients(arguments.load.clients),
        payload: arguments.load.payload,
        ..Point::default()
    }
}

async fn watched(running: &mut Running, arguments: &WatchArgs) -> Result<Watching, Failure> {
    let member = watched_member(running, arguments.of).await?;
    let port = running.replicator_of(member);
    let port = port.ok_or_else(|| Failure::new(format!("there is no replicator {member}")))?;
    let first = running.committed().await? + 1;
    let mut watchers = Watchers::start(port, arguments.watchers, first)?;
    let began = Instant::now();
    let written = measure(running, point(arguments), &arguments.load.settings).await?;
    let (ended, seen) = (Instant::now(), watchers.least_seen());
    let last = running.committed().await?;
    watchers.wait_for(last).await?;
    let operations = last + 1 - first;
    Ok(Watching {
        written,
        slowest_per_second: per_second(operations, began.elapsed()),
        behind: last.saturating_sub(seen),
        caught_up_milliseconds: ended.elapsed().as_secs_f64() * 1e3,
        operations,
    })
}

async fn watched_member(running: &Running, of: Watched) -> Result<u16, Failure> {
    match of {
        Watched::Leader => Ok(running.leader().await.map_err(Failure::new)?.member),
        Watched::Follower => running.follower().await,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people needs no more than 53 bits"
)]
fn per_second(operations: u64, span: Duration) -> f64 {
    operations as f64 / span.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Tasks that watch, each with a connection of its own.
struct Watchers {
    tasks: JoinSet<Result<(), String>>,
    /// The last index that each has seen. All before it from the first on it has seen, too: what is missing in between is an error.
    seen: Vec<Arc<AtomicU64>>,
}

impl Watchers {
    fn start(port: u16, count: u16, first: u64) -> Result<Self, Failure> {
        let mut watchers = Self {
            tasks: JoinSet::new(),
            seen: Vec::new(),
        };
        for _ in 0..count {
            let endpoint = Endpoint::parse(&format!("127.0.0.1:{port}")).map_err(Failure::new)?;
            let log = OperationLog::new(vec![endpoint], Options::default()).map_err(Failure::new)?;
            let seen = Arc::new(AtomicU64::new(first - 1));
            watchers.tasks.spawn(follow(log, first, Arc::clone(&seen)));
            watchers.seen.push(seen);
        }
        Ok(watchers)
    }

    fn least_seen(&self) -> u64 {
        let seen = self.seen.iter().map(|seen| seen.load(Ordering::Relaxed));
        seen.min().unwrap_or_default()
    }

    async fn wait_for(&mut self, last: u64) -> Result<(), Failure> {
        let deadline = Instant::now() + wait::PATIENCE;
        while self.least_seen() < last {
            if let Some(ended) = self.tasks.try_join_next() {
                return Err(Failure::new(format!("a watcher ended: {ended:?}")));
            }
            if Instant::now() > deadline {
                let seen = self.least_seen();
                return Err(Failure::new(format!("a watcher saw {seen} of {last} operations")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }
}

async fn follow(log: OperationLog, first: u64, seen: Arc<AtomicU64>) -> Result<(), String> {
    let mut watch = log.watch(first, false, true);
    let mut next = first;
    while let Some(batch) = watch.next().await.map_err(|error| error.to_string())? {
        for operation in batch.operations {
            if operation.index != next {
                return Err(format!("operation {} came where {next} was due", operation.index));
            }
            next += 1;
        }
        seen.store(next - 1, Ordering::Relaxed);
    }
    Err("the replicator ended the stream".to_owned())
}

fn table(found: &Found) -> String {
    let Found {
        members,
        clients,
        payload,
        watchers,
        without,
        with,
    } = found;
    let mut text = format!(
        "{members} members, {clients} clients, {payload} bytes; {watchers} watchers of one replicator, each of which saw every \
         operation\n\n\
         | watchers | operations/s | min..max | slowest watcher/s | behind at the end | caught up after ms | CPU of others |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    let spread = |values: Vec<f64>| Spread::of(values).unwrap_or_default();
    let rate = |samples: &[Sample]| {
        spread(
            samples
                .iter()
                .map(|sample| sample.operations_per_second)
                .collect(),
        )
    };
    let others = |samples: &[Sample]| {
        let most = samples
            .iter()
            .map(|sample| sample.others_share)
            .fold(0.0, f64::max);
        format!("{:.1}%", 100.0 * most)
    };
    let written: Vec<Sample> = with.iter().map(|watching| watching.written.clone()).collect();
    let (alone, watched) = (rate(without), rate(&written));
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "| 0 | {:.0} | {:.0}..{:.0} | - | - | - | {} |",
        alone.median,
        alone.min,
        alone.max,
        others(without)
    );
    let slowest = spread(with.iter().map(|watching| watching.slowest_per_second).collect());
    let caught_up = spread(
        with.iter()
            .map(|watching| watching.caught_up_milliseconds)
            .collect(),
    );
    let behind = with
        .iter()
        .map(|watching| watching.behind)
        .max()
        .unwrap_or_default();
    let _ = writeln!(
        text,
        "| {watchers} | {:.0} | {:.0}..{:.0} | {:.0} | {behind} | {:.0} | {} |",
        watched.median,
        watched.min,
        watched.max,
        slowest.median,
        caught_up.max,
        others(&written)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn both_are_told() {
        let text = table(&Found {
            members: 5,
            clients: 256,
            payload: 256,
            watchers: 10,
            without: vec![sample(9000.0, 1.0), sample(11_000.0, 1.0)],
            with: vec![Watching {
                written: sample(8000.0, 1.0),
                slowest_per_second: 7990.0,
                behind: 12,
                caught_up_milliseconds: 3.4,
                operations: 80_000,
            }],
        });
        assert!(text.contains("| 0 | 10000 | 9000..11000 |"), "{text}");
        assert!(
            text.contains("| 10 | 8000 | 8000..8000 | 7990 | 12 | 3 |"),
            "{text}"
        );
    }
}
