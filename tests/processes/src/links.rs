//! What is wrong with the network between pods at the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// From one node number to another: what the first one sends, whoever opened the connection.
pub type Link = (u32, u32);

/// The address of a pod.
pub fn pod_address(node: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host_byte(node))
}

/// The address under which the other pods know it.
pub fn peer_address(node: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 1, host_byte(node))
}

/// The node number of a [`pod_address`].
pub fn node_at(address: Ipv4Addr) -> Option<u32> {
    match address.octets() {
        [10, 77, 0, node @ 1..=9] => Some(node.into()),
        _ => None,
    }
}

fn host_byte(node: u32) -> u8 {
    assert!((1..10).contains(&node), "node numbers go from 1 to 9, not {node}");
    u8::try_from(node).expect("at most 9")
}

/// All links from any of `from` to any of `to`.
pub fn between(from: &BTreeSet<u32>, to: &BTreeSet<u32>) -> Vec<Link> {
    let links = from
        .iter()
        .flat_map(|&one| to.iter().map(move |&other| (one, other)));
    links.filter(|(one, other)| one != other).collect()
}

/// Links that lose packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    percent: BTreeMap<Link, u32>,
}

impl Losses {
    /// From now on a link loses so many percent; 100 is a cut.
    pub fn lose(&mut self, link: Link, percent: u32) {
        assert!(percent <= 100, "{percent} percent are more than all");
        let lost = self.percent.entry(link).or_default();
        *lost = percent.max(*lost);
    }

    /// The rules for `iptables-restore` where all packets between pods pass: those of a sender come from its own address and
    /// are for the address under which it knows the receiver.
    pub fn rules(&self) -> String {
        let mut rules = "*filter\n:INPUT ACCEPT [0:0]\n".to_owned();
        for (&(from, to), &percent) in &self.percent {
            let (source, destination) = (pod_address(from), peer_address(to));
            let chance = match percent {
                100 => String::new(),
                _ => format!(" -m statistic --mode random --probability 0.{percent:02}"),
            };
            writeln!(rules, "-A INPUT -s {source} -d {destination}{chance} -j DROP")
                .expect("a string takes everything");
        }
        rules + "COMMIT\n"
    }
}

/// Packets that were dropped, as `iptables-save --counters` tells: `[PACKETS:BYTES] -A INPUT ... -j DROP`.
pub fn dropped(saved: &str) -> u64 {
    let drops = saved.lines().filter(|line| line.ends_with("-j DROP"));
    let packets = drops.filter_map(|line| line.strip_prefix('[')?.split_once(':')?.0.parse::<u64>().ok());
    packets.sum()
}

/// How long each link takes, at the moment; shared with what carries the bytes.
#[derive(Debug, Clone, Default)]
pub struct Delays {
    links: Arc<Mutex<BTreeMap<Link, Duration>>>,
    late: Arc<AtomicU64>,
}

impl Delays {
    /// From now on, that long.
    pub fn set(&self, link: Link, delay: Duration) {
        self.lock().insert(link, delay);
    }

    /// Nothing is delayed any more, but for what is under way.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// How many pieces were made late so far.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// The delay of one piece on a link.
    pub(crate) fn next(&self, link: Link) -> Duration {
        let delay = self.of(link);
        if !delay.is_zero() {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        delay
    }

    fn of(&self, link: Link) -> Duration {
        self.lock().get(&link).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Link, Duration>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_tell_who_it_is() {
        for node in 1..10 {
            assert_eq!(node_at(pod_address(node)), Some(node));
            assert_eq!(node_at(peer_address(node)), None);
        }
        assert_eq!(node_at(Ipv4Addr::new(10, 77, 0, 254)), None);
    }

    #[test]
    fn links_between_groups_go_one_way_and_never_to_oneself() {
        let group = |nodes: &[u32]| nodes.iter().copied().collect::<BTreeSet<u32>>();
        assert_eq!(between(&group(&[1, 2]), &group(&[3])), vec![(1, 3), (2, 3)]);
        assert_eq!(between(&group(&[1]), &group(&[1, 2])), vec![(1, 2)]);
    }

    #[test]
    fn the_worst_loss_of_a_link_counts() {
        let mut losses = Losses::default();
        losses.lose((1, 2), 100);
        losses.lose((1, 2), 7);
        losses.lose((3, 1), 7);
        let expected = "*filter\n:INPUT ACCEPT [0:0]\n\
            -A INPUT -s 10.77.0.1 -d 10.77.1.2 -j DROP\n\
            -A INPUT -s 10.77.0.3 -d 10.77.1.1 -m statistic --mode random --probability 0.07 -j DROP\n\
            COMMIT\n";
        assert_eq!(losses.rules(), expected);
        assert_eq!(
            Losses::default().rules(),
            "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"
        );
    }
}
