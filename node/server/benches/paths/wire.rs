//! Entries on their way between members.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use raftlog_raft::feature::FeatureLevel;
use raftlog_raft::ids::ClusterId;
use raftlog_raft::message::{AppendEntries, LogPosition};
use raftlog_server::fuzzing::{self, PeerMessage};

use super::Path;
use super::entries::{Entries, LEADER, TERM, id};

const ENTRIES: usize = 16;
const FOLLOWER: u64 = 2;

fn request() -> AppendEntries {
    AppendEntries {
        previous: LogPosition::default(),
        previous_hash: None,
        entries: Entries::new().some(ENTRIES),
        commit: 0,
        round: 1,
        heartbeat: false,
        minimum_election_timeout: Duration::from_millis(1_500),
        read_answers: Vec::new(),
    }
}

fn encode(request: AppendEntries) -> Vec<u8> {
    let cluster = ClusterId::new(1).expect("it is not 0");
    let level = FeatureLevel::FIRST;
    fuzzing::append_entries_bytes(cluster, (id(LEADER), id(FOLLOWER)), TERM, level, request)
}

/// From the core's message to bytes.
pub(super) struct Encoding {
    request: AppendEntries,
    prepared: Vec<AppendEntries>,
}

impl Encoding {
    pub(super) fn new() -> Self {
        Self {
            request: request(),
            prepared: Vec::new(),
        }
    }
}

impl Path for Encoding {
    fn prepare(&mut self, times: usize) {
        self.prepared = vec![self.request.clone(); times];
    }

    fn run(&mut self) {
        for request in self.prepared.drain(..) {
            black_box(encode(request));
        }
    }
}

/// From bytes to the core's message.
pub(super) struct Decoding {
    bytes: Bytes,
    prepared: usize,
}

impl Decoding {
    pub(super) fn new() -> Self {
        Self {
            bytes: encode(request()).into(),
            prepared: 0,
        }
    }
}

impl Path for Decoding {
    fn prepare(&mut self, times: usize) {
        self.prepared = times;
    }

    fn run(&mut self) {
        for _ in 0..self.prepared {
            let bytes = black_box(self.bytes.clone());
            let input = fuzzing::peer_message(PeerMessage::AppendEntries, id(LEADER), id(FOLLOWER), bytes);
            black_box(input).expect("what was encoded decodes");
        }
    }
}
