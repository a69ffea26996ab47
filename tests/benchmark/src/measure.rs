//! One measurement: a load on a cluster that runs, and what both use meanwhile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raftlog_load::{Outcome, Span, closed, latency::Summary, open, streamed};
use serde::Serialize;

use crate::{
    arguments::Settings,
    disturbance::Disturbance,
    failure::Failure,
    plan::{Load, Point},
    server::Servers,
    system::{Clients, Cluster},
    usage::{self, Usage},
};

/// What came of it.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub(crate) struct Sample {
    pub(crate) operations_per_second: f64,
    pub(crate) latency_microseconds: Summary,
    pub(crate) errors: u64,
    /// Of an open loop: due, and never answered.
    pub(crate) unanswered: u64,
    pub(crate) first_error: Option<String>,
    /// Processor time of all servers per operation.
    pub(crate) server_cpu_microseconds: f64,
    /// And of this process, which brings the load.
    pub(crate) generator_cpu_microseconds: f64,
    /// What part of the machine all else had meanwhile: above some hundredths, the numbers are those of a busy machine.
    pub(crate) others_share: f64,
    /// The most resident memory that a server had meanwhile.
    pub(crate) peak_bytes_largest: u64,
    /// And all of them together.
    pub(crate) peak_bytes_all: u64,
    /// Snapshots that nodes took since the load began.
    pub(crate) snapshots_taken: u64,
    /// And what followers were sent of them.
    pub(crate) snapshot_bytes_installed: u64,
}

/// Measures once. `payload` bytes go into each operation.
pub(crate) async fn measure(
    cluster: &mut dyn Cluster,
    point: Point,
    settings: &Settings,
) -> Result<Sample, Failure> {
    if let Some(length) = point.log_length {
        cluster.fill(length, point.payload).await?;
    }
    let clients = match point.load {
        Load::Clients(clients) => clients,
        Load::Rate(_) => settings.under_way,
    };
    let connected = cluster.connect(settings.connections, clients).await?;
    let disturbance = cluster.disturb(point.follower).await?;
    let before = cluster.snapshots().await?;
    let servers = cluster.servers();
    servers.check()?;
    let span = Span::from_now(settings.warm_up, settings.duration);
    let measuring = async { tokio::join!(bring(connected, point, settings, span), watch(servers, &span)) };
    let (outcome, used) = tokio::select! {
        measured = measuring => measured,
        () = go_on(disturbance.as_ref(), settings.warm_up / 2) => unreachable!("a disturbance never ends by itself"),
    };
    drop(disturbance);
    cluster.servers().check()?;
    let after = cluster.snapshots().await?;
    Ok(Sample {
        snapshots_taken: after.taken.saturating_sub(before.taken),
        snapshot_bytes_installed: after.installed_bytes.saturating_sub(before.installed_bytes),
        ..sample(outcome?, &span, &used?)?
    })
}

/// Not at once: whoever has connected to a follower has to come to the leader first.
async fn go_on(disturbance: Option<&Disturbance>, after: Duration) {
    tokio::time::sleep(after).await;
    match disturbance {
        Some(disturbance) => disturbance.go_on().await,
        None => std::future::pending().await,
    }
}

async fn bring(clients: Clients, point: Point, settings: &Settings, span: Span) -> Result<Outcome, Failure> {
    let operation = Bytes::from(vec![b'x'; point.payload]);
    match (clients, point.load) {
        (Clients::Shared(connections), Load::Clients(clients)) => {
            Ok(closed::run(&connections, clients.into(), &operation, span, |_| {}).await)
        }
        (Clients::Shared(connections), Load::Rate(rate)) => {
            let pace = open::Pace {
                rate,
                under_way: settings.under_way.into(),
            };
            let brought = open::run(&connections, pace, &operation, span, |_| {}).await;
            brought.map_err(|error| Failure::new(format!("cannot start a thread: {error}; see ulimit -u")))
        }
        (Clients::Streams(sessions), _) => Ok(streamed::run(sessions, &operation, span, |_| {}).await),
    }
}

/// What was used during the measured time.
struct Used {
    servers: Usage,
    servers_cpu: Duration,
    generator_cpu: Duration,
    /// By all else on this machine.
    others_cpu: Duration,
    /// All that there was of it.
    cpu: Duration,
}

/// Processor time so far, of the servers, of this process, and of everything.
struct Moment {
    at: Instant,
    servers: Usage,
    generator: Duration,
    machine: Duration,
}

impl Moment {
    fn now(servers: &Servers) -> Result<Self, Failure> {
        let unknown = |why| Failure::new(format!("cannot tell what is used: {why}; is there a /proc?"));
        Ok(Self {
            at: Instant::now(),
            servers: servers.usage()?,
            generator: Usage::of_process("self").map_err(unknown)?.cpu,
            machine: usage::of_machine().map_err(unknown)?,
        })
    }
}

async fn watch(servers: &Servers, span: &Span) -> Result<Used, Failure> {
    sleep_until(span.from).await;
    servers.forget_peaks();
    let before = Moment::now(servers)?;
    sleep_until(span.until).await;
    let after = Moment::now(servers)?;
    Ok(used(&before, &after, available_cores()))
}

fn used(before: &Moment, after: &Moment, cores: u32) -> Used {
    let servers_cpu = after.servers.cpu.saturating_sub(before.servers.cpu);
    let generator_cpu = after.generator.saturating_sub(before.generator);
    let machine = after.machine.saturating_sub(before.machine);
    Used {
        servers: after.servers,
        servers_cpu,
        generator_cpu,
        others_cpu: machine.saturating_sub(servers_cpu + generator_cpu),
        cpu: after.at.duration_since(before.at) * cores,
    }
}

fn available_cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores).unwrap_or(1)
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await;
}

fn sample(outcome: Outcome, span: &Span, used: &Used) -> Result<Sample, Failure> {
    if outcome.answered == 0 {
        let why = outcome.first_error.as_deref().unwrap_or("no answer came in time");
        return Err(Failure::new(format!("not one operation was answered: {why}")));
    }
    let per_operation = |cpu: Duration| microseconds_each(cpu, outcome.answered);
    Ok(Sample {
        operations_per_second: outcome.per_second(span),
        latency_microseconds: outcome.latencies.summary(),
        server_cpu_microseconds: per_operation(used.servers_cpu),
        generator_cpu_microseconds: per_operation(used.generator_cpu),
        others_share: used.others_cpu.as_secs_f64() / used.cpu.as_secs_f64().max(f64::MIN_POSITIVE),
        peak_bytes_largest: used.servers.peak_bytes_largest,
        peak_bytes_all: used.servers.peak_bytes_all,
        snapshots_taken: 0,
        snapshot_bytes_installed: 0,
        errors: outcome.errors,
        unanswered: outcome.unanswered,
        first_error: outcome.first_error,
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a mean for people needs no more than 53 bits"
)]
fn microseconds_each(whole: Duration, operations: u64) -> f64 {
    whole.as_secs_f64() * 1e6 / operations as f64
}

#[cfg(test)]
mod tests {
    use raftlog_load::latency::Latencies;

    use super::*;

    fn outcome(answered: u64, first_error: Option<&str>) -> Outcome {
        let latencies = Latencies::new();
        for _ in 0..answered {
            latencies.record(Duration::from_millis(2));
        }
        Outcome {
            latencies,
            answered,
            errors: u64::from(first_error.is_some()),
            unanswered: 0,
            first_error: first_error.map(str::to_owned),
        }
    }

    fn usage_of_ten_seconds() -> Used {
        Used {
            servers: Usage {
                cpu: Duration::from_secs(100),
                peak_bytes_largest: 5,
                peak_bytes_all: 7,
            },
            servers_cpu: Duration::from_millis(500),
            generator_cpu: Duration::from_millis(100),
            others_cpu: Duration::from_secs(5),
            cpu: Duration::from_secs(20),
        }
    }

    #[test]
    fn processor_time_is_told_per_operation() {
        let span = Span::from_now(Duration::from_secs(1), Duration::from_secs(4));
        let sample = sample(outcome(1000, None), &span, &usage_of_ten_seconds()).unwrap();
        assert!((sample.operations_per_second - 250.0).abs() < 1e-9);
        assert!((sample.server_cpu_microseconds - 500.0).abs() < 1e-9);
        assert!((sample.generator_cpu_microseconds - 100.0).abs() < 1e-9);
        assert!((sample.others_share - 0.25).abs() < 1e-9);
        assert_eq!((sample.peak_bytes_largest, sample.peak_bytes_all), (5, 7));
    }

    #[test]
    fn what_neither_servers_nor_generator_used_was_used_by_others() {
        let begin = Instant::now();
        let moment = |seconds, servers, generator, machine| Moment {
            at: begin + Duration::from_secs(seconds),
            servers: Usage {
                cpu: Duration::from_secs(servers),
                ..Usage::default()
            },
            generator: Duration::from_secs(generator),
            machine: Duration::from_secs(machine),
        };
        let used = used(&moment(0, 5, 1, 100), &moment(10, 13, 4, 115), 2);
        assert_eq!(used.others_cpu, Duration::from_secs(4));
        assert_eq!(used.cpu, Duration::from_secs(20));
    }

    #[test]
    fn what_answers_nothing_says_why() {
        let span = Span::from_now(Duration::ZERO, Duration::from_secs(1));
        let failure = sample(outcome(0, Some("no space")), &span, &usage_of_ten_seconds()).unwrap_err();
        assert!(failure.to_string().contains("no space"), "{failure}");
    }
}
