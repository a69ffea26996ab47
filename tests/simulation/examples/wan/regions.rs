//! Round trips between regions of a public cloud, as its operator has measured and published them.
//!
//! The averages of 10 January to 8 February 2026 between regions of IBM Cloud VPC, in milliseconds, from
//! <https://github.com/ibm-cloud-docs/vpc>, `_include-segments/network-latency.md`, table "8 Feb 2026, Inter-region latency".
//! What it says for one direction and for the other differs by a few hundredths; here the first in the order of its rows counts
//! for both.

use std::time::Duration;

use raftlog_raft::ids::NodeNumber;
use simulation::Distances;

/// Where nodes are, in the order of their numbers: a cluster of three is in the first three.
pub(crate) const REGIONS: [&str; 7] = [
    "Washington DC",
    "Frankfurt",
    "Tokyo",
    "London",
    "Dallas",
    "Sydney",
    "Sao Paulo",
];

/// From each region to those behind it.
const ROUND_TRIPS: [&[u64]; 7] = [
    &[86, 139, 76, 32, 214, 128],
    &[239, 13, 123, 251, 200],
    &[247, 143, 115, 284],
    &[112, 260, 192],
    &[183, 143],
    &[324],
    &[],
];

/// The first so many regions.
pub(crate) fn distances(members: NodeNumber, sync: Duration) -> Distances {
    let members = usize::try_from(members).map_or(REGIONS.len(), |members| members.min(REGIONS.len()));
    let row = |from| (0..members).map(|to| round_trip(from, to)).collect();
    Distances::new((0..members).map(row).collect(), sync)
}

fn round_trip(one: usize, other: usize) -> Duration {
    let (first, second) = (one.min(other), one.max(other));
    let row = ROUND_TRIPS.get(first).copied().unwrap_or_default();
    let behind = second.checked_sub(first + 1).and_then(|place| row.get(place));
    Duration::from_millis(behind.copied().unwrap_or_default())
}

/// As its region is called.
pub(crate) fn name(node: NodeNumber) -> &'static str {
    let place = usize::try_from(node).ok().and_then(|node| node.checked_sub(1));
    place
        .and_then(|place| REGIONS.get(place))
        .copied()
        .unwrap_or("nowhere")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_two_regions_have_a_distance() {
        for one in 0..REGIONS.len() {
            for other in 0..REGIONS.len() {
                let there = round_trip(one, other);
                assert_eq!(there, round_trip(other, one));
                assert_eq!(there.is_zero(), one == other, "{one} to {other}");
            }
        }
        assert_eq!(round_trip(2, 3), Duration::from_millis(247), "Tokyo to London");
        let five = distances(5, Duration::from_millis(1));
        assert_eq!(
            five.majority(1),
            Duration::from_millis(76),
            "Dallas and London are nearest"
        );
    }
}
