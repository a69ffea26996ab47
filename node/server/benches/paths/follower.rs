//! What a follower does for one entry.

use std::hint::black_box;
use std::time::Duration;

use raftlog_raft::effect::Effect;
use raftlog_raft::entry::HardState;
use raftlog_raft::feature::FeatureLevel;
use raftlog_raft::message::{AppendEntries, Body, Message};
use raftlog_raft::time::Time;
use raftlog_raft::{Config, Raft};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::Path;
use super::entries::{Entries, LEADER, TERM, empty_log, id};

const FOLLOWER: u64 = 2;

/// From a message with one entry, by the write of it, to the acknowledgement.
pub(super) struct Appends {
    raft: Raft,
    now: Time,
    entries: Entries,
    running_hash: u64,
    round: u64,
    prepared: Vec<Message>,
}

impl Appends {
    pub(super) fn new() -> Self {
        let random = ChaCha8Rng::seed_from_u64(FOLLOWER);
        let config = Config::new(id(FOLLOWER));
        Self {
            raft: Raft::new(config, HardState::default(), empty_log(), random, Time(0)),
            now: Time(0),
            entries: Entries::new(),
            running_hash: 0,
            round: 0,
            prepared: Vec::new(),
        }
    }

    /// What was sent before is committed by then.
    fn next_message(&mut self) -> Message {
        let previous = self.entries.last();
        let entry = self.entries.next();
        self.round += 1;
        let request = AppendEntries {
            previous,
            previous_hash: (previous.index > 0).then_some(self.running_hash),
            commit: previous.index,
            round: self.round,
            heartbeat: false,
            minimum_election_timeout: Duration::from_millis(1_500),
            read_answers: Vec::new(),
            entries: vec![entry.clone()],
        };
        self.running_hash = entry.running_hash;
        Message {
            from: id(LEADER),
            to: id(FOLLOWER),
            term: TERM,
            level: FeatureLevel::FIRST,
            body: Body::AppendEntries(request),
        }
    }

    /// Whether it was acknowledged.
    fn take(&mut self, message: Message) -> bool {
        self.raft.message(self.now, message);
        for effect in self.raft.flush(self.now) {
            if let Effect::Persist(persist) = black_box(effect) {
                self.raft.persisted(self.now, persist.ticket);
            }
        }
        let answers = self.raft.flush(self.now);
        black_box(answers)
            .iter()
            .any(|effect| matches!(effect, Effect::Send(_)))
    }
}

impl Path for Appends {
    fn prepare(&mut self, times: usize) {
        self.prepared = (0..times).map(|_| self.next_message()).collect();
    }

    fn run(&mut self) {
        for message in std::mem::take(&mut self.prepared) {
            assert!(self.take(message), "every entry is acknowledged");
        }
    }
}
