//! `bench`: operations per second and latency of a cluster, beside what this machine cannot go below.

mod sessions;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use raftlog_load::{
    Connection, Outcome, Span, closed,
    floor::{self, Floor},
    latency::Summary,
    streamed,
};
use serde::Serialize;

use crate::{
    args::{BenchArgs, Common},
    failure::Failure,
    output::Output,
    text,
};

/// Nodes of the cluster whose floor is told.
const MEMBERS: usize = 5;

#[derive(Debug, Serialize, PartialEq)]
struct Report {
    clients: u16,
    size: usize,
    stream: bool,
    seconds: f64,
    operations: u64,
    errors: u64,
    operations_per_second: f64,
    latency_microseconds: Summary,
    floor_microseconds: Floor,
    /// The median latency in units of the floor.
    p50_over_floor: f64,
}

/// Measures the floor, then the cluster, and prints both.
pub(crate) async fn run(common: &Common, arguments: &BenchArgs) -> Result<(), Failure> {
    let bar = progress_bar(arguments.warm_up + arguments.duration);
    bar.set_message("measuring the floor");
    let floor = measure_floor(arguments).await?;
    bar.set_message(format!(
        "{} of {} bytes",
        text::count(arguments.clients.into(), "client"),
        arguments.size
    ));
    let outcome = measure(common, arguments, |elapsed| {
        bar.set_position(milliseconds(elapsed));
    })
    .await?;
    bar.finish_and_clear();
    let report = report(arguments, &outcome, floor);
    Output::stdout().whole(
        common.output,
        &report,
        || render(&report),
        || format!("{:.0}", report.operations_per_second),
    )?;
    match outcome.first_error {
        None => Ok(()),
        Some(error) => Err(Failure::failed(format!(
            "{} failed, the first one: {error}",
            text::count(outcome.errors, "operation")
        ))),
    }
}

async fn measure_floor(arguments: &BenchArgs) -> Result<Floor, Failure> {
    let folder = arguments.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let measured = floor::measure(arguments.size, MEMBERS, &folder).await;
    measured.map_err(|error| match error {
        floor::Error::Echo(_) => Failure::failed(error.to_string()),
        floor::Error::Sync(_) => Failure::failed(format!("{error}; choose a folder with --data-dir")),
    })
}

/// Runs the load; all clients have a session before the time begins.
async fn measure(
    common: &Common,
    arguments: &BenchArgs,
    tick: impl FnMut(Duration),
) -> Result<Outcome, Failure> {
    let sessions = sessions::open(&common.endpoints, arguments.clients).await?;
    let operation = Bytes::from(vec![b'x'; arguments.size]);
    let span = Span::from_now(arguments.warm_up, arguments.duration);
    if arguments.stream {
        return Ok(streamed::run(sessions, &operation, span, tick).await);
    }
    let connections: Vec<Arc<dyn Connection>> = sessions
        .into_iter()
        .map(|session| Arc::new(session) as Arc<dyn Connection>)
        .collect();
    Ok(closed::run(&connections, connections.len(), &operation, span, tick).await)
}

fn report(arguments: &BenchArgs, outcome: &Outcome, floor: Floor) -> Report {
    let (operations, seconds) = (outcome.answered, arguments.duration.as_secs_f64());
    let latency = outcome.latencies.summary();
    Report {
        clients: arguments.clients,
        size: arguments.size,
        stream: arguments.stream,
        seconds,
        operations,
        errors: outcome.errors,
        operations_per_second: rate(operations, seconds),
        latency_microseconds: latency,
        floor_microseconds: floor,
        p50_over_floor: (latency.p50 / floor.sum * 100.0).round() / 100.0,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people needs no more than 53 bits"
)]
fn rate(operations: u64, seconds: f64) -> f64 {
    (operations as f64 / seconds * 10.0).round() / 10.0
}

fn render(report: &Report) -> String {
    let Report {
        latency_microseconds: latency,
        floor_microseconds: floor,
        ..
    } = report;
    let clients = text::count(
        report.clients.into(),
        if report.stream { "stream" } else { "client" },
    );
    [
        format!(
            "{clients}, {} bytes an operation, {} s",
            report.size, report.seconds
        ),
        format!(
            "  {:.0} operations/s ({} answered, {} failed)",
            report.operations_per_second, report.operations, report.errors
        ),
        format!(
            "  latency   p50 {:.0} us   p99 {:.0} us   max {:.0} us",
            latency.p50, latency.p99, latency.max
        ),
        format!(
            "  floor     {:.0} us = gRPC echo {:.0} us + echo between nodes {:.0} us + {} {:.0} us",
            floor.sum,
            floor.client_echo,
            floor.node_echo,
            floor::name_of_sync(MEMBERS),
            floor.majority_sync
        ),
        format!("  p50 is {:.2} x the floor", report.p50_over_floor),
    ]
    .join("\n")
}

/// On stderr, and only if that is a terminal.
fn progress_bar(whole: Duration) -> ProgressBar {
    let bar = ProgressBar::new(milliseconds(whole));
    match ProgressStyle::with_template("{bar:40} {msg}, {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use raftlog_load::latency::Latencies;

    use super::*;

    #[test]
    fn a_report_puts_the_median_beside_the_floor() {
        let latencies = Latencies::new();
        for _ in 0..5000 {
            latencies.record(Duration::from_micros(900));
        }
        let arguments = BenchArgs {
            clients: 1,
            size: 256,
            duration: Duration::from_secs(5),
            warm_up: Duration::ZERO,
            stream: false,
            data_dir: None,
        };
        let floor = Floor {
            client_echo: 100.0,
            node_echo: 100.0,
            majority_sync: 250.0,
            sum: 450.0,
        };
        let outcome = Outcome {
            latencies,
            answered: 5000,
            errors: 0,
            unanswered: 0,
            first_error: None,
        };
        assert_eq!(
            render(&report(&arguments, &outcome, floor)),
            "1 client, 256 bytes an operation, 5 s\n  1000 operations/s (5000 answered, 0 failed)\n  \
             latency   p50 900 us   p99 900 us   max 900 us\n  \
             floor     450 us = gRPC echo 100 us + echo between nodes 100 us + 3rd of 5 fdatasyncs 250 us\n  \
             p50 is 2.00 x the floor"
        );
    }
}
