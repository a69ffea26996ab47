//! Metrics of the process itself, under Prometheus' usual names.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Adds `process_resident_memory_bytes`, read from the kernel at each scrape where there is a `/proc`.
pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Memory));
}

/// Resident memory in bytes, where the kernel tells.
pub fn resident_memory_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()?
        .split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()?;
    let page_bytes = u64::try_from(rustix::param::page_size()).ok()?;
    pages.checked_mul(page_bytes)
}

#[derive(Debug)]
struct Memory;

impl Collector for Memory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(bytes) = resident_memory_bytes() else {
            return Ok(());
        };
        let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        let metric = encoder.encode_descriptor(
            "process_resident_memory_bytes",
            "Resident memory size in bytes",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(metric)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory() {
        assert!(resident_memory_bytes().is_some_and(|bytes| bytes > 100_000));
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    }
}
