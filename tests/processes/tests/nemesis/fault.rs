//! What can go wrong, and the drawing of it from a seed.

use processes::links::{Link, between};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::time::Duration;

/// Node numbers.
pub(crate) type Group = BTreeSet<u32>;

/// One thing that goes wrong for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes between these pods and the others.
    Partition(Group),
    /// Nothing that these pods say to the others arrives.
    Mute(Group),
    /// Nothing that the others say to these pods arrives.
    Deaf(Group),
    /// So many percent of the packets from and to these pods are lost.
    Loss(Group, u32),
    /// What goes from and to these pods takes that many milliseconds, each way.
    Delay(Group, u64),
    /// kill -9 of these nodes.
    KillNodes(Group),
    /// kill -9 of these replicators.
    KillReplicators(Group),
    /// kill -9 of the state machines beside these replicators.
    KillMachines(Group),
    /// kill -9 of these nodes, their replicators and their state machines.
    KillPods(Group),
    /// SIGSTOP of these nodes.
    FreezeNodes(Group),
    /// SIGSTOP of these replicators.
    FreezeReplicators(Group),
    /// SIGSTOP of these state machines.
    FreezeMachines(Group),
    /// No room on the disks of these pods.
    FullDisks(Group),
    /// kill -9 of this node, its replicator and its state machine, whose folders are gone: it comes back as a new member, by `member replace`.
    LosePod(u32),
}

/// What goes wrong at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Round {
    /// All of it.
    pub(crate) faults: Vec<Fault>,
    /// For how long.
    pub(crate) lasts: Duration,
    /// And how long nothing goes wrong after it.
    pub(crate) peace: Duration,
}

const KINDS: usize = 12;
/// With those of state machines, where there are some.
const KINDS_WITH_MACHINES: usize = 14;
/// The one of them that is [`Fault::LosePod`].
const LOSE_POD: usize = 11;
/// A log fills up what it has ahead before it needs more of its disk.
const FULL_DISK_MORE: Duration = Duration::from_secs(4);

/// Draws rounds. All kinds of faults have occurred when as many were drawn, and then again.
#[derive(Debug)]
pub(crate) struct Drawing {
    kinds: usize,
    random: ChaCha8Rng,
    nodes: Vec<u32>,
    deck: Vec<usize>,
}

impl Drawing {
    pub(crate) fn new(nodes: &[u32], random: ChaCha8Rng) -> Self {
        Self {
            kinds: KINDS,
            random,
            nodes: nodes.to_vec(),
            deck: vec![],
        }
    }

    /// There is a state machine beside each replicator, to which something happens as well.
    pub(crate) fn with_machines(self) -> Self {
        Self {
            kinds: KINDS_WITH_MACHINES,
            ..self
        }
    }

    /// The next round. Every other fault hits the leader, if one is known. While a lost pod `is_replaced`, no other is lost: more lost
    /// disks than a minority has are more than is promised.
    pub(crate) fn round(&mut self, leader: Option<u32>, is_replaced: bool) -> Round {
        let count = if self.random.random_bool(0.4) { 2 } else { 1 };
        let mut faults: Vec<Fault> = (0..count).map(|_| self.fault(leader, is_replaced)).collect();
        // Where one deck ends and the next begins.
        faults.dedup_by_key(|fault| std::mem::discriminant(fault));
        let mut lasts = Duration::from_millis(self.random.random_range(500..4_000));
        if faults.iter().any(|fault| matches!(fault, Fault::FullDisks(_))) {
            lasts += FULL_DISK_MORE;
        }
        let peace = Duration::from_millis(self.random.random_range(0..2_000));
        Round { faults, lasts, peace }
    }

    fn fault(&mut self, leader: Option<u32>, is_replaced: bool) -> Fault {
        let mut kind = self.draw();
        if kind == LOSE_POD && is_replaced {
            while kind == LOSE_POD {
                kind = self.draw();
            }
            // It is only put off.
            self.deck.insert(0, LOSE_POD);
        }
        let group = self.group(leader);
        match kind {
            0 => Fault::Partition(group),
            1 => Fault::Mute(group),
            2 => Fault::Deaf(group),
            3 => Fault::Loss(group, self.random.random_range(5..60)),
            4 => Fault::Delay(group, self.random.random_range(5..400)),
            5 => Fault::KillNodes(group),
            6 => Fault::KillReplicators(group),
            7 => Fault::KillPods(group),
            8 => Fault::FreezeNodes(group),
            9 => Fault::FreezeReplicators(group),
            LOSE_POD => Fault::LosePod(self.one_of(&group, leader)),
            12 => Fault::KillMachines(group),
            13 => Fault::FreezeMachines(group),
            _ => Fault::FullDisks(group),
        }
    }

    fn draw(&mut self) -> usize {
        if self.deck.is_empty() {
            self.deck = (0..self.kinds).collect();
            self.deck.shuffle(&mut self.random);
        }
        self.deck.pop().expect("the deck was just filled")
    }

    /// The leader, if it is one of them.
    fn one_of(&mut self, group: &Group, leader: Option<u32>) -> u32 {
        let all: Vec<u32> = group.iter().copied().collect();
        let any = *all.choose(&mut self.random).expect("a group has somebody");
        leader.filter(|leader| group.contains(leader)).unwrap_or(any)
    }

    /// A minority mostly; one in five times any number.
    fn group(&mut self, leader: Option<u32>) -> Group {
        let all = self.nodes.len();
        let most = if self.random.random_bool(0.2) {
            all
        } else {
            all / 2
        };
        let size = self.random.random_range(1..=most);
        self.nodes.shuffle(&mut self.random);
        let mut group: Group = self.nodes.iter().copied().take(size).collect();
        if let Some(leader) = leader.filter(|_| self.random.random_bool(0.5))
            && !group.contains(&leader)
        {
            group.pop_first();
            group.insert(leader);
        }
        self.nodes.sort_unstable();
        group
    }
}

impl Fault {
    /// What is counted of it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Partition(_) => "partition",
            Self::Mute(_) => "mute",
            Self::Deaf(_) => "deaf",
            Self::Loss(..) => "loss",
            Self::Delay(..) => "delay",
            Self::KillNodes(_) => "kill nodes",
            Self::KillReplicators(_) => "kill replicators",
            Self::KillMachines(_) => "kill machines",
            Self::KillPods(_) => "kill pods",
            Self::FreezeNodes(_) => "freeze nodes",
            Self::FreezeReplicators(_) => "freeze replicators",
            Self::FreezeMachines(_) => "freeze machines",
            Self::FullDisks(_) => "full disks",
            Self::LosePod(_) => "lose pod",
        }
    }

    /// The links that lose packets by it, and how many percent.
    pub(crate) fn losses(&self, all: &Group) -> Vec<(Link, u32)> {
        let (out, back, percent) = match self {
            Self::Partition(group) => (Some(group), Some(group), 100),
            Self::Mute(group) => (Some(group), None, 100),
            Self::Deaf(group) => (None, Some(group), 100),
            Self::Loss(group, percent) => (Some(group), Some(group), *percent),
            _ => return vec![],
        };
        let others = |group: &Group| all - group;
        let mut links = Vec::new();
        if let Some(group) = out {
            links.extend(between(group, &others(group)));
        }
        if let Some(group) = back {
            links.extend(between(&others(group), group));
        }
        links.into_iter().map(|link| (link, percent)).collect()
    }

    /// The links that are slow by it, and how slow.
    pub(crate) fn delays(&self, all: &Group) -> Vec<(Link, Duration)> {
        let Self::Delay(group, millis) = self else {
            return vec![];
        };
        let mut links = between(group, all);
        links.extend(between(all, group));
        let delay = Duration::from_millis(*millis);
        links.into_iter().map(|link| (link, delay)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::HashSet;

    fn group(nodes: &[u32]) -> Group {
        nodes.iter().copied().collect()
    }

    fn drawn(seed: u64, rounds: usize) -> Vec<Round> {
        let mut drawing = Drawing::new(&[1, 2, 3, 4, 5], ChaCha8Rng::seed_from_u64(seed));
        (0..rounds).map(|_| drawing.round(Some(3), false)).collect()
    }

    #[test]
    fn a_seed_fixes_the_rounds() {
        assert_eq!(drawn(1, 50), drawn(1, 50));
        assert_ne!(drawn(1, 50), drawn(2, 50));
    }

    #[test]
    fn every_kind_comes_up_soon_and_none_twice_in_a_round() {
        for seed in 0..20 {
            let drawing = || Drawing::new(&[1, 2, 3, 4, 5], ChaCha8Rng::seed_from_u64(seed));
            check_kinds(drawing(), KINDS);
            check_kinds(drawing().with_machines(), KINDS_WITH_MACHINES);
        }
    }

    fn check_kinds(mut drawing: Drawing, all: usize) {
        let rounds: Vec<Round> = (0..2 * all).map(|_| drawing.round(Some(3), false)).collect();
        let faults = rounds.iter().flat_map(|round| &round.faults);
        let kinds: HashSet<_> = faults.take(all).map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), all, "{rounds:?}");
        for round in &rounds {
            let kinds: HashSet<_> = round.faults.iter().map(std::mem::discriminant).collect();
            assert_eq!(kinds.len(), round.faults.len(), "{round:?}");
        }
    }

    #[test]
    fn one_pod_is_lost_at_a_time() {
        let mut drawing = Drawing::new(&[1, 2, 3, 4, 5], ChaCha8Rng::seed_from_u64(1));
        let mut lost = |is_replaced| {
            let rounds: Vec<Round> = (0..2 * KINDS)
                .map(|_| drawing.round(Some(3), is_replaced))
                .collect();
            let faults = rounds.iter().flat_map(|round| &round.faults);
            faults.filter(|fault| matches!(fault, Fault::LosePod(_))).count()
        };
        assert_eq!(lost(true), 0);
        assert!(lost(false) > 0, "it was only put off");
    }

    #[test]
    fn a_cut_has_two_ways_and_a_mute_pod_one() {
        let all = group(&[1, 2, 3]);
        let links =
            |fault: Fault| -> Vec<Link> { fault.losses(&all).into_iter().map(|(link, _)| link).collect() };
        assert_eq!(
            links(Fault::Partition(group(&[1]))),
            [(1, 2), (1, 3), (2, 1), (3, 1)]
        );
        assert_eq!(links(Fault::Mute(group(&[1]))), [(1, 2), (1, 3)]);
        assert_eq!(links(Fault::Deaf(group(&[1]))), [(2, 1), (3, 1)]);
        assert_eq!(links(Fault::KillPods(group(&[1]))), []);
    }
}
