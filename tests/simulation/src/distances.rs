//! How far nodes are from each other.

use std::time::Duration;

use raftlog_raft::ids::NodeNumber;

/// Round trips between all nodes, and what a sync takes at each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distances {
    /// By the node from which, and the node to which, in the order of their numbers.
    round_trips: Vec<Vec<Duration>>,
    sync: Duration,
}

impl Distances {
    /// `round_trips` has a row for each node, with a place for each.
    ///
    /// # Panics
    /// Where rows differ in length from the number of rows.
    pub fn new(round_trips: Vec<Vec<Duration>>, sync: Duration) -> Self {
        assert!(
            round_trips.iter().all(|row| row.len() == round_trips.len()),
            "each node has a distance to each"
        );
        Self { round_trips, sync }
    }

    /// How long a message takes.
    pub fn one_way(&self, from: NodeNumber, to: NodeNumber) -> Duration {
        self.round_trip(from, to) / 2
    }

    /// How long a disk takes for one operation.
    pub fn sync(&self) -> Duration {
        self.sync
    }

    /// No leader there can commit sooner: the nearest majority has to be reached, has to sync, and has to be heard. Its own
    /// sync goes on meanwhile.
    pub fn best(&self, leader: NodeNumber) -> Duration {
        self.majority(leader) + self.sync
    }

    /// The round trip to the last of the nearest that are a majority with the leader: the median of all, the leader's own 0
    /// among them.
    pub fn majority(&self, leader: NodeNumber) -> Duration {
        let nodes = 1..=NodeNumber::try_from(self.round_trips.len()).unwrap_or(0);
        let mut all: Vec<Duration> = nodes.map(|node| self.round_trip(leader, node)).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    fn round_trip(&self, from: NodeNumber, to: NodeNumber) -> Duration {
        let place = |node: NodeNumber| usize::try_from(node.saturating_sub(1)).unwrap_or(usize::MAX);
        let row = self.round_trips.get(place(from));
        row.and_then(|row| row.get(place(to)))
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_median_round_trip_and_a_sync() {
        let milliseconds = |row: &[u64]| row.iter().map(|&each| Duration::from_millis(each)).collect();
        let rows = [
            [0, 10, 20, 30, 40],
            [10, 0, 5, 7, 9],
            [20, 5, 0, 1, 1],
            [30, 7, 1, 0, 1],
            [40, 9, 1, 1, 0],
        ];
        let round_trips = rows.iter().map(|row| milliseconds(row)).collect();
        let distances = Distances::new(round_trips, Duration::from_millis(2));
        let best: Vec<u128> = (1..=5).map(|node| distances.best(node).as_millis()).collect();
        assert_eq!(best, [22, 9, 3, 3, 3]);
        assert_eq!(distances.one_way(1, 4), Duration::from_millis(15));
    }
}
