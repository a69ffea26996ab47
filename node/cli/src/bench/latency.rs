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
pub(super) struct Latencies {
    nanoseconds: Mutex<Histogram<u64>>,
}

/// What is told of latencies, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub(super) struct Summary {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, nanoseconds(LATENCY_MAX), 3).expect("the bounds are sound");
        Self {
            nanoseconds: Mutex::new(histogram),
        }
    }

    pub(super) fn record(&self, latency: Duration) {
        self.histogram().saturating_record(nanoseconds(latency).max(1));
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram().len()
    }

    pub(super) fn summary(&self) -> Summary {
        let histogram = self.histogram();
        Summary {
            p50: microseconds(histogram.value_at_quantile(0.5)),
            p99: microseconds(histogram.value_at_quantile(0.99)),
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
        let Summary { p50, p99, max } = latencies.summary();
        assert!(
            close(p50, 500.0) && close(p99, 990.0) && close(max, 1000.0),
            "{p50} {p99} {max}"
        );
        assert_eq!(latencies.count(), 1000);
    }

    #[test]
    fn nothing_and_too_much_are_told_as_well() {
        assert_eq!(
            Latencies::new().summary(),
            Summary {
                p50: 0.0,
                p99: 0.0,
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
