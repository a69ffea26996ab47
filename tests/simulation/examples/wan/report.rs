//! What was measured, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use raftlog_raft::ids::NodeNumber;
use serde_json::{Value, json};

/// Everything.
#[derive(Debug)]
pub(crate) struct Report {
    /// That it comes from.
    pub(crate) command: String,
    pub(crate) seed: u64,
    pub(crate) sync_milliseconds: f64,
    pub(crate) rows: Vec<Row>,
}

/// One region leads a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) members: NodeNumber,
    pub(crate) leader: &'static str,
    /// To the last of the nearest majority.
    pub(crate) majority_round_trip: Duration,
    /// That, and a sync.
    pub(crate) best: Duration,
    /// One operation at a time.
    pub(crate) alone: Latency,
    /// Many under way.
    pub(crate) many: Latency,
}

/// From when a leader had operations until it would answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Latency {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl Latency {
    /// All 0 where there are none.
    pub(crate) fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        // The least that so many hundredths are not above.
        let percentile = |hundredths: usize| {
            let place = (latencies.len() * hundredths).div_ceil(100).max(1) - 1;
            latencies.get(place).copied().unwrap_or_default()
        };
        Self {
            p50: percentile(50),
            p99: percentile(99),
            max: percentile(100),
        }
    }

    fn json(self) -> Value {
        json!({
            "p50": milliseconds(self.p50),
            "p99": milliseconds(self.p99),
            "max": milliseconds(self.max),
        })
    }

    fn in_words(self) -> String {
        let [p50, p99, max] = [self.p50, self.p99, self.max].map(|each| format!("{:.2}", milliseconds(each)));
        format!("{p50} | {p99} | {max}")
    }
}

/// As a number.
pub(crate) fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

impl Report {
    /// As Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |told: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{told}");
        };
        line("Milliseconds; best: the round trip to the nearest majority, and a sync.".to_owned());
        line(String::new());
        line(
            "| members | leader | round trip | best | p50, one at a time | p99 | max | p50, many | p99 | max | p50 / best |"
                .to_owned(),
        );
        line("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |".to_owned());
        for row in &self.rows {
            let over = row.alone.p50.as_secs_f64() / row.best.as_secs_f64().max(f64::MIN_POSITIVE);
            line(format!(
                "| {} | {} | {:.0} | {:.2} | {} | {} | {over:.3} |",
                row.members,
                row.leader,
                milliseconds(row.majority_round_trip),
                milliseconds(row.best),
                row.alone.in_words(),
                row.many.in_words(),
            ));
        }
        line(String::new());
        line(self.command.clone());
        text
    }

    /// For programs, in milliseconds.
    pub(crate) fn json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            json!({
                "members": row.members,
                "leader": row.leader,
                "majority_round_trip": milliseconds(row.majority_round_trip),
                "best": milliseconds(row.best),
                "one_at_a_time": row.alone.json(),
                "many": row.many.json(),
            })
        });
        let whole = json!({
            "command": self.command,
            "seed": self.seed,
            "unit": "milliseconds",
            "sync": self.sync_milliseconds,
            "rows": rows.collect::<Vec<_>>(),
        });
        format!("{whole:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let latency = Latency::of((1..=200).rev().map(Duration::from_millis).collect());
        let expected = [100, 198, 200].map(Duration::from_millis);
        assert_eq!([latency.p50, latency.p99, latency.max], expected);
        assert_eq!(Latency::of(vec![]).max, Duration::ZERO);
    }
}
