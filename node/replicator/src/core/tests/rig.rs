//! A core on a simulated disk, driven by hand.

use std::collections::VecDeque;

use bytes::Bytes;
use raftlog_raft::fold::running_hash;
use raftlog_raft::ids::{ClusterId, MemberId};
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{Disk as _, Op, OpId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::core::{
    Config, Effect, Event, Operation, Parent, Place, Progress, Replicator, StartAction, StreamId,
};

pub(super) const NODE: u32 = 1;

pub(super) fn cluster(raw: u64) -> ClusterId {
    ClusterId::new(raw).unwrap()
}

pub(super) fn member(raw: u64) -> MemberId {
    MemberId::new(raw).unwrap()
}

/// The operation that follows `previous` in a log.
pub(super) fn follows(previous: Place, term: u64, data: impl Into<Bytes>) -> Operation {
    let (index, data) = (previous.index + 1, data.into());
    let running_hash = running_hash(previous.running_hash, index, term, &data);
    Operation {
        index,
        term,
        running_hash,
        data,
    }
}

/// A log with one operation for each term given.
pub(super) fn log(terms: &[u64]) -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::new();
    for term in terms {
        let previous = operations.last().map_or(Place::default(), Operation::place);
        operations.push(follows(
            previous,
            *term,
            format!("operation-{}", previous.index + 1),
        ));
    }
    operations
}

/// The core, its disk, and what became of its effects.
pub(super) struct Rig {
    pub(super) core: Replicator,
    pub(super) config: Config,
    pub(super) disk: MemoryDisk,
    pub(super) random: ChaCha8Rng,
    /// Operations handed to the disk and not carried out.
    pub(super) disk_queue: VecDeque<(OpId, Op)>,
    /// Runs handed to the executor and not executed.
    pub(super) runs: VecDeque<Vec<Operation>>,
    /// With the term that the node leads, as the executor was told last.
    pub(super) leader_term: Option<u64>,
    /// The executor is to let go of what it was given.
    pub(super) take_back: bool,
    /// Indexes executed, by all lives of the process.
    pub(super) printed: Vec<u64>,
    /// The core asked to be woken.
    pub(super) wake: bool,
    /// What else came out since it was last taken, in order.
    pub(super) others: Vec<Effect>,
    /// What the node was told last.
    pub(super) progress: Progress,
    streams: u64,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(
            Config {
                segment_bytes: Some(2 << 20),
                ..Config::new(NODE)
            },
            1,
        )
    }

    pub(super) fn with(config: Config, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut disk = MemoryDisk::new(64 << 20);
        let core = Replicator::open(config.clone(), &mut disk, &mut random).unwrap();
        let mut rig = Self {
            core,
            config,
            disk,
            random,
            disk_queue: VecDeque::new(),
            runs: VecDeque::new(),
            leader_term: None,
            take_back: false,
            printed: Vec::new(),
            wake: false,
            others: Vec::new(),
            progress: Progress::default(),
            streams: 0,
        };
        rig.collect();
        rig
    }

    /// A rig that holds `operations`, of which `commit` are committed, all executed and on disk, with its node's stream.
    pub(super) fn holding(operations: &[Operation], commit: u64) -> (Self, StreamId) {
        let mut rig = Self::new();
        let stream = rig.started(StartAction::ResumeFrom(1), 0);
        rig.feed(stream, operations, commit);
        rig.settle();
        rig.others.clear();
        (rig, stream)
    }

    /// Hands in an event and sorts what comes out.
    pub(super) fn handle(&mut self, event: Event) {
        self.core.handle(event);
        self.collect();
    }

    pub(super) fn collect(&mut self) {
        for effect in self.core.effects() {
            match effect {
                Effect::Disk(id, op) => self.disk_queue.push_back((id, op)),
                Effect::Execute(run) => {
                    assert!(!run.operations.is_empty());
                    assert!(
                        !self.take_back,
                        "nothing is given before all that was taken back is let go of"
                    );
                    self.leader_term = run.leader_term;
                    self.runs.push_back(run.operations);
                }
                Effect::TakeBack => {
                    assert!(
                        !self.take_back && !self.runs.is_empty(),
                        "there is something to take back"
                    );
                    self.take_back = true;
                }
                Effect::WakeIn(_) => {
                    assert!(!self.wake, "one wake at a time");
                    self.wake = true;
                }
                Effect::Progress(_, progress) => self.progress = progress,
                other => self.others.push(other),
            }
        }
        self.check();
    }

    /// What holds at any time.
    fn check(&self) {
        let (progress, status) = (self.core.progress(), self.core.status());
        assert!(progress.durable_executed <= progress.executed, "{progress:?}");
        assert!(
            progress.executed <= progress.commit && progress.commit <= progress.last,
            "{progress:?}"
        );
        assert!(
            status.persisted <= progress.last && progress.durable_executed <= status.persisted,
            "{status:?}"
        );
    }

    /// The disk carries out one operation; whether there was one.
    pub(super) fn disk_step(&mut self) -> bool {
        let Some((id, op)) = self.disk_queue.pop_front() else {
            return false;
        };
        let outcome = self.disk.execute(&op);
        self.handle(Event::Disk(id, outcome));
        true
    }

    /// The executor executes one run; whether there was one.
    pub(super) fn execute_step(&mut self) -> bool {
        let Some(run) = self.runs.pop_front() else {
            return false;
        };
        self.printed.extend(run.iter().map(|operation| operation.index));
        let through = run.last().unwrap().index;
        self.handle(Event::Executed { through });
        true
    }

    /// The executor lets go of what it was given; whether it was to.
    pub(super) fn take_back_step(&mut self) -> bool {
        let take_back = std::mem::take(&mut self.take_back);
        if take_back {
            self.runs.clear();
            self.handle(Event::TakenBack);
        }
        take_back
    }

    /// The time that the core asked for passes; whether it did.
    pub(super) fn wake_step(&mut self) -> bool {
        let wake = std::mem::take(&mut self.wake);
        if wake {
            self.handle(Event::Wake);
        }
        wake
    }

    /// Disk, executor and clock go on until nothing moves any more.
    pub(super) fn settle(&mut self) {
        while self.disk_step() || self.take_back_step() || self.execute_step() || self.wake_step() {}
    }

    pub(super) fn next_stream(&mut self) -> StreamId {
        self.streams += 1;
        StreamId(self.streams)
    }

    /// Node 1, member 11 of cluster 1, opens a stream.
    pub(super) fn opened(&mut self) -> StreamId {
        self.opened_by(cluster(1), member(11), NODE)
    }

    pub(super) fn opened_by(&mut self, cluster: ClusterId, member: MemberId, node: u32) -> StreamId {
        self.opened_with(cluster, member, node, None)
    }

    pub(super) fn opened_with(
        &mut self,
        cluster: ClusterId,
        member: MemberId,
        node: u32,
        parent: Option<Parent>,
    ) -> StreamId {
        let stream = self.next_stream();
        self.handle(Event::NodeOpened {
            stream,
            cluster,
            member,
            node,
            parent,
        });
        stream
    }

    /// And says how to start.
    pub(super) fn started(&mut self, action: StartAction, commit: u64) -> StreamId {
        let stream = self.opened();
        self.handle(Event::Start {
            stream,
            action,
            commit,
        });
        stream
    }

    pub(super) fn feed(&mut self, stream: StreamId, operations: &[Operation], commit: u64) {
        self.handle(Event::Feed {
            stream,
            operations: operations.to_vec(),
            commit,
        });
    }

    pub(super) fn take_others(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.others)
    }

    /// The process is gone and starts again on what is left on the disk. Disk operations under way may have happened in
    /// part; with `power_failure` only what was synced is sure.
    pub(super) fn restart(&mut self, power_failure: bool) {
        let under_way: Vec<Op> = self.disk_queue.drain(..).map(|(_, op)| op).collect();
        if power_failure {
            self.disk.power_failure(&under_way, &mut self.random);
        } else {
            self.disk.kill(&under_way, &mut self.random);
        }
        self.runs.clear();
        self.take_back = false;
        self.wake = false;
        self.others.clear();
        self.core = Replicator::open(self.config.clone(), &mut self.disk, &mut self.random).unwrap();
        self.collect();
    }
}

/// The error that ended it, if one did.
pub(super) fn fatal(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::Fatal(why) => Some(why.as_str()),
        _ => None,
    })
}
