//! Killed or without power at any point: nothing executed is skipped, nothing is executed out of order, and what is repeated
//! is the contiguous run after the last durable executed index.

use std::env;

use rand::Rng as _;
use rand::RngExt as _;

use super::rig::{NODE, Rig, follows};
use crate::core::{Config, Event, Operation, Place, StartAction, StreamId};

const SEED: &str = "REPLICATOR_SEED";

/// What the cluster has: the node's log, of which `commit` is committed, and up to `fed` was fed on the open stream.
struct Cluster {
    log: Vec<Operation>,
    commit: u64,
    fed: u64,
    term: u64,
    stream: Option<StreamId>,
}

impl Cluster {
    fn place(&self, index: u64) -> Place {
        match index {
            0 => Place::default(),
            index => self.log[usize::try_from(index).unwrap() - 1].place(),
        }
    }

    fn last(&self) -> u64 {
        self.log.len() as u64
    }

    fn grow(&mut self, rig: &mut Rig) {
        for _ in 0..rig.random.random_range(1..20) {
            let bytes = if rig.random.random_ratio(1, 30) {
                60_000
            } else {
                rig.random.random_range(1..400)
            };
            let mut data = vec![0; bytes];
            rig.random.fill_bytes(&mut data);
            self.log.push(follows(self.place(self.last()), self.term, data));
        }
    }

    /// A new leader: the tail that is not committed is replaced.
    fn change_leader(&mut self, rig: &mut Rig) {
        self.term += 1;
        let keep = rig.random.random_range(self.commit..=self.last());
        self.log.truncate(usize::try_from(keep).unwrap());
        self.fed = self.fed.min(keep);
        self.grow(rig);
    }

    /// As a node does: compares the places it is told with its own log.
    fn connect(&mut self, rig: &mut Rig) {
        let stream = rig.opened();
        let position = rig.core.position();
        let agrees = |place: Place| place.index <= self.last() && self.place(place.index) == place;
        assert!(agrees(position.commit), "what it says is committed is committed");
        assert!(position.commit.index <= self.commit);
        let action = if agrees(position.last) {
            self.fed = position.last.index;
            StartAction::ResumeFrom(position.last.index + 1)
        } else {
            self.fed = position.commit.index;
            StartAction::CutTo(position.commit.index)
        };
        rig.handle(Event::Start {
            stream,
            action,
            commit: self.commit,
        });
        self.stream = Some(stream);
    }

    fn feed(&mut self, rig: &mut Rig) {
        let Some(stream) = self.stream.filter(|_| rig.core.takes_feed()) else {
            return;
        };
        let to = rig.random.random_range(self.fed..=self.last());
        let range = usize::try_from(self.fed).unwrap()..usize::try_from(to).unwrap();
        // Never beyond what was fed: what the replicator holds there may be another tail.
        rig.feed(stream, &self.log[range], self.commit.min(to));
        self.fed = to;
    }
}

/// One history of crashes.
fn run(seed: u64) {
    let config = Config {
        cache_bytes: 8 << 10,
        unpersisted_bytes_max: 256 << 10,
        write_bytes: 16 << 10,
        executing_bytes_max: 16 << 10,
        segment_bytes: Some(2 << 20),
        ..Config::new(NODE)
    };
    let mut rig = Rig::with(config, seed);
    let mut cluster = Cluster {
        log: Vec::new(),
        commit: 0,
        fed: 0,
        term: 1,
        stream: None,
    };
    let mut lives = Vec::new();
    for _ in 0..600 {
        match rig.random.random_range(0..100) {
            0..10 => cluster.grow(&mut rig),
            10..13 => cluster.change_leader(&mut rig),
            13..20 => cluster.commit = rig.random.random_range(cluster.commit..=cluster.last()),
            20..25 if cluster.stream.is_none() => cluster.connect(&mut rig),
            25..28 => {
                if let Some(stream) = cluster.stream.take() {
                    rig.handle(Event::NodeClosed { stream });
                }
            }
            28..48 => cluster.feed(&mut rig),
            48..68 => drop(rig.disk_step()),
            68..88 => drop(rig.execute_step()),
            88..97 => drop(rig.wake_step()),
            97.. => {
                let told = rig.core.progress();
                let power_failure = rig.random.random_bool(0.5);
                rig.restart(power_failure);
                cluster.stream = None;
                let now = rig.core.progress();
                assert!(told.durable_executed <= now.executed, "{told:?} {now:?}");
                assert!(
                    now.executed <= told.executed,
                    "nothing counts as executed that was not: {told:?} {now:?}"
                );
                lives.push((std::mem::take(&mut rig.printed), now.executed));
            }
            _ => {}
        }
    }
    // In the end everything is committed, and everything is executed.
    cluster.commit = cluster.last();
    if let Some(stream) = cluster.stream.take() {
        rig.handle(Event::NodeClosed { stream });
    }
    cluster.connect(&mut rig);
    while cluster.fed < cluster.last() || rig.progress.durable_executed < cluster.last() {
        cluster.feed(&mut rig);
        rig.settle();
    }
    assert_eq!(rig.core.position().executed, cluster.place(cluster.last()));
    check(&lives, &rig.printed, cluster.last());
}

/// Each life printed a contiguous run that begins right after the executed index it came up with.
fn check(lives: &[(Vec<u64>, u64)], last_life: &[u64], end: u64) {
    let mut began_at = 1;
    let runs = lives
        .iter()
        .map(|(printed, executed)| (printed.as_slice(), *executed))
        .chain([(last_life, end)]);
    for (printed, executed_at_next_start) in runs {
        let through = began_at + printed.len() as u64 - 1;
        assert_eq!(printed, (began_at..=through).collect::<Vec<_>>());
        assert!(executed_at_next_start <= through, "nothing is skipped");
        began_at = executed_at_next_start + 1;
    }
    assert_eq!(began_at, end + 1);
}

#[test]
fn a_crash_at_any_point_repeats_only_the_run_after_the_durable_executed_index() {
    let given = env::var(SEED).ok().map(|seed| seed.parse().expect("a number"));
    let seeds = given.map_or(1..=30_u64, |seed| seed..=seed);
    for seed in seeds {
        eprintln!("seed {seed}; again: {SEED}={seed} cargo test -p raftlog-replicator a_crash_at_any_point");
        run(seed);
    }
}
