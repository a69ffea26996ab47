//! Latencies in a histogram, and what is told of them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies above this are counted as this.
const LATENCY_MAX: Duration = Duration::from_mins(2);

/// Latencies that many tasks record.
#[derive(Debug)]
pub struct Latencies {
    nanoseconds: Mutex<Histogram<u64>>,
}

/// What is told of latencies, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct Summary {
    /// The median.
    pub p50: f64,
    /// Of ten, nine are not above it.
    pub p90: f64,
    /// Of a hundred, one is above it.
    pub p99: f64,
    /// Of a thousand, one is above it.
    pub p999: f64,
    /// None is above it.
    pub max: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, nanoseconds(LATENCY_MAX), 3).expect("the bounds are sound");
        Self {
            nanoseconds: Mutex::new(histogram),
        }
    }

    /// One more. Beyond two minutes it counts as that.
    pub fn record(&self, latency: Duration) {
        self.histogram().saturating_record(nanoseconds(latency).max(1));
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.histogram().len()
    }

    /// What is told of them; zeros where there are none.
    pub fn summary(&self) -> Summary {
        let histogram = self.histogram();
        let at = |quantile| microseconds(histogram.value_at_quantile(quantile));
        Summary {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: microseconds(histogram.max()),
        }
    }

    fn histogram(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.nanoseconds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the histogram's own precision is three digits"
)]
fn microseconds(nanoseconds: u64) -> f64 {
    // To a tenth: more is not known.
    (nanoseconds as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected * 0.002
    }

    #[test]
    fn summaries_are_within_the_histogram_s_precision() {
        let latencies = Latencies::new();
        for microseconds in 1..=1000 {
            latencies.record(Duration::from_micros(microseconds));
        }
        let summary = latencies.summary();
        let Summary {
            p50,
            p90,
            p99,
            p999,
            max,
        } = summary;
        for (value, expected) in [
            (p50, 500.0),
            (p90, 900.0),
            (p99, 990.0),
            (p999, 999.0),
            (max, 1000.0),
        ] {
            assert!(close(value, expected), "{expected}: {summary:?}");
        }
        assert_eq!(latencies.count(), 1000);
    }

    #[test]
    fn nothing_and_too_much_are_told_as_well() {
        assert_eq!(
            Latencies::new().summary(),
            Summary {
                p50: 0.0,
                p90: 0.0,
                p99: 0.0,
                p999: 0.0,
                max: 0.0
            }
        );
        let latencies = Latencies::new();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_hours(1));
        assert_eq!(latencies.count(), 2);
        assert!(close(latencies.summary().max, 120e6));
    }
}
