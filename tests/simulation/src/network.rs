//! The network between pods: who hears whom, and which streams are broken.
//!
//! Between two nodes there is a connection. It ends when either process does, and what was on its way in it is lost then;
//! until both have noticed, nothing gets through. Within a connection messages may get lost, come twice and overtake each
//! other, which is worse than what TCP does.

use std::collections::BTreeMap;

use raftlog_raft::ids::NodeNumber;
use raftlog_raft::time::Time;

/// The connection of two nodes.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    /// Counts the connections.
    epoch: u64,
    /// Nothing gets through before.
    down_until: Time,
}

/// The network.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// How many partitions keep the first from being heard by the second.
    cut: BTreeMap<(NodeNumber, NodeNumber), u32>,
    links: BTreeMap<(NodeNumber, NodeNumber), Link>,
}

fn pair(one: NodeNumber, other: NodeNumber) -> (NodeNumber, NodeNumber) {
    (one.min(other), one.max(other))
}

impl Network {
    pub(crate) fn cut(&mut self, directions: &[(NodeNumber, NodeNumber)]) {
        for &direction in directions {
            *self.cut.entry(direction).or_default() += 1;
        }
    }

    pub(crate) fn mend(&mut self, directions: &[(NodeNumber, NodeNumber)]) {
        for direction in directions {
            if let Some(cuts) = self.cut.get_mut(direction) {
                *cuts = cuts.saturating_sub(1);
            }
        }
    }

    pub(crate) fn is_cut(&self, from: NodeNumber, to: NodeNumber) -> bool {
        self.cut.get(&(from, to)).is_some_and(|cuts| *cuts > 0)
    }

    /// The same connections without any partition.
    pub(crate) fn healed(self) -> Self {
        Self {
            cut: BTreeMap::new(),
            ..self
        }
    }

    /// The connection breaks, and both ends know by then.
    pub(crate) fn break_link(&mut self, one: NodeNumber, other: NodeNumber, known_at: Time) {
        let link = self.links.entry(pair(one, other)).or_default();
        link.epoch += 1;
        link.down_until = link.down_until.max(known_at);
    }

    /// The connection that a message goes out on now; `None` while it is broken.
    pub(crate) fn epoch(&self, from: NodeNumber, to: NodeNumber, now: Time) -> Option<u64> {
        let link = self.links.get(&pair(from, to)).copied().unwrap_or_default();
        (now >= link.down_until).then_some(link.epoch)
    }

    /// Whether what went out on that connection still arrives.
    pub(crate) fn is_current(&self, from: NodeNumber, to: NodeNumber, epoch: u64) -> bool {
        self.links.get(&pair(from, to)).map_or(0, |link| link.epoch) == epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_add_up_and_have_a_direction() {
        let mut network = Network::default();
        network.cut(&[(1, 2), (1, 3)]);
        network.cut(&[(1, 2)]);
        network.mend(&[(1, 2), (1, 3)]);
        assert!(network.is_cut(1, 2) && !network.is_cut(2, 1) && !network.is_cut(1, 3));
    }

    #[test]
    fn what_was_on_its_way_in_a_broken_connection_is_lost() {
        let mut network = Network::default();
        let epoch = network.epoch(1, 2, Time(5)).unwrap();
        network.break_link(2, 1, Time(9));
        assert_eq!(network.epoch(1, 2, Time(8)), None);
        assert!(!network.is_current(1, 2, epoch));
        let next = network.epoch(2, 1, Time(9)).unwrap();
        assert!(network.is_current(2, 1, next));
    }
}
