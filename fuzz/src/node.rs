//! A node between other members, its replicator and clients, all of which say anything. Headers are those of members: what
//! is refused by its header never gets further.
//!
//! The kind of a chunk says, by its lower four bits, what happens, and by the next two which other member says it. The first
//! byte of the input says how many voters there are, 1 to 3.

use bytes::Bytes;
use raftlog_raft::ids::{ClusterId, MemberId};
use raftlog_raft::membership::Member;
use raftlog_raft::feature::Supports;
use raftlog_raft::planted::Planted;
use raftlog_raft::time::Time;
use raftlog_server::fuzzing::{self, PeerMessage};
use raftlog_server::node::{
    Bounds, FromReplicator, Input, Node, NodeConfig, Output, PeerReport, Proposal, Proposed, Query,
    SnapshotPolicy,
};
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{Disk, Op, OpId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::{Chunk, chunks};

/// The kinds of chunks, by their lower four bits; others let time pass.
pub mod kind {
    /// `RequestVoteRequest`.
    pub const REQUEST_VOTE: u8 = 0;
    /// `RequestVoteResponse`.
    pub const VOTE: u8 = 1;
    /// `AppendEntriesRequest`.
    pub const APPEND_ENTRIES: u8 = 2;
    /// `AppendEntriesResponse`.
    pub const APPEND_ENTRIES_RESPONSE: u8 = 3;
    /// `TimeoutNowRequest`.
    pub const TIMEOUT_NOW: u8 = 4;
    /// `SubmitClientRequestRequest`.
    pub const SUBMIT: u8 = 5;
    /// `ReplicateLogResponse`.
    pub const REPLICATOR: u8 = 6;
    /// The replicator's stream opens or, where there are bytes, closes.
    pub const REPLICATOR_STREAM: u8 = 7;
    /// `BootstrapRequest`.
    pub const BOOTSTRAP: u8 = 8;
    /// `NodeStatus` of a peer.
    pub const PEER_REPORT: u8 = 9;
    /// OpenSession; where there are bytes, a transfer to the member of this number.
    pub const SESSION_OR_TRANSFER: u8 = 10;
    /// A client asks the executor.
    pub const QUERY: u8 = 11;
    /// A stream to another member broke.
    pub const STREAM_BROKEN: u8 = 12;
    /// Waits until the deadline.
    pub const DEADLINE: u8 = 13;
}

const VOLUME_BYTES: u64 = 64 << 20;
const MEMBER_ME: u32 = 1;

/// A node, its disk, and what of it is under way.
struct Rig {
    node: Node,
    disk: MemoryDisk,
    under_way: VecDeque<(OpId, Op)>,
    now: Time,
    next_id: u64,
}

/// The target.
pub fn node(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let Some(mut rig) = Rig::start(u32::from(first % 3) + 1, first & 0x80 == 0) else {
        return;
    };
    for chunk in chunks(rest) {
        rig.take(&chunk);
        rig.carry_out(chunk.kind & 0x40 == 0);
    }
    rig.carry_out(true);
    rig.reopens();
}

fn id(node: u32) -> MemberId {
    MemberId::new(u64::from(node) + 100).expect("it is not 0")
}

fn address(node: u32) -> String {
    format!("node{node}:5001")
}

fn config() -> NodeConfig {
    NodeConfig {
        node: MEMBER_ME,
        peer_address: address(MEMBER_ME),
        client_address: address(MEMBER_ME),
        initial_peers: BTreeMap::new(),
        was_removed: false,
        election_timeout_min: Duration::from_millis(1_500),
        election_timeout_max: Duration::from_secs(3),
        heartbeat_interval: Duration::from_secs(1),
        snapshots: SnapshotPolicy {
            every_operations: 2,
            every_bytes: None,
        },
        lease_reads: true,
        supports: Supports::default(),
        bounds: Bounds::default(),
        planted: Planted::default(),
    }
}

impl Rig {
    /// A node; `formed`: with so many voters.
    fn start(voters: u32, formed: bool) -> Option<Self> {
        let now = Time(1_000_000);
        let mut disk = MemoryDisk::new(VOLUME_BYTES);
        let node = Node::open(config(), &mut disk, now, ChaCha8Rng::seed_from_u64(1)).ok()?;
        let mut rig = Self {
            node,
            disk,
            under_way: VecDeque::new(),
            now,
            next_id: 0,
        };
        if formed {
            let me = rig.node.member_id();
            let member = |node| Member {
                id: if node == MEMBER_ME { me } else { id(node) },
                node,
                peer_address: address(node),
                client_address: address(node),
                voter: true,
            };
            let bootstrap = Input::Bootstrap {
                id: 0,
                cluster_id: ClusterId::new(9)?,
                to_member: me,
                members: (1..=voters).map(member).collect(),
            };
            rig.node.handle(now, bootstrap);
            rig.carry_out(true);
        }
        Some(rig)
    }

    fn take(&mut self, chunk: &Chunk) {
        let input = match chunk.kind & 0x0f {
            kind::DEADLINE => {
                self.now = self
                    .now
                    .max(self.node.deadline().min(self.now + Duration::from_secs(60)));
                Some(Input::Tick)
            }
            14..=15 => {
                self.now = self.now + Duration::from_millis(u64::from(first_byte(chunk)));
                Some(Input::Tick)
            }
            _ => self.input(chunk),
        };
        if let Some(input) = input {
            self.node.handle(self.now, input);
        }
    }

    fn input(&mut self, chunk: &Chunk) -> Option<Input> {
        let from = id(2 + u32::from(chunk.kind >> 4 & 0x03));
        let bytes = chunk.bytes.clone();
        self.next_id += 1;
        let id = self.next_id;
        Some(match chunk.kind & 0x0f {
            kind::REQUEST_VOTE => self.message(PeerMessage::RequestVote, from, bytes)?,
            kind::VOTE => self.message(PeerMessage::Vote, from, bytes)?,
            kind::APPEND_ENTRIES => self.message(PeerMessage::AppendEntries, from, bytes)?,
            kind::APPEND_ENTRIES_RESPONSE => self.message(PeerMessage::AppendEntriesResponse, from, bytes)?,
            kind::TIMEOUT_NOW => self.message(PeerMessage::TimeoutNow, from, bytes)?,
            kind::SUBMIT => {
                let proposed = Proposed::Operation(fuzzing::operation(bytes)?);
                let stream = (chunk.kind & 0x80 != 0).then_some(1);
                Input::Submit(vec![Proposal { id, stream, proposed }])
            }
            kind::REPLICATOR => Input::Replicator(fuzzing::from_replicator(bytes)?),
            kind::REPLICATOR_STREAM if bytes.is_empty() => Input::Replicator(FromReplicator::Opened),
            kind::REPLICATOR_STREAM => Input::Replicator(FromReplicator::Closed),
            kind::BOOTSTRAP => {
                let (cluster_id, to_member, members) = fuzzing::bootstrap(bytes)?;
                Input::Bootstrap {
                    id,
                    cluster_id,
                    to_member,
                    members,
                }
            }
            kind::PEER_REPORT => {
                let report = fuzzing::peer_report(bytes).unwrap_or(PeerReport::Unreachable);
                Input::PeerReport { node: 2, report }
            }
            kind::SESSION_OR_TRANSFER if bytes.is_empty() => {
                let proposed = Proposed::OpenSession;
                Input::Submit(vec![Proposal {
                    id,
                    stream: None,
                    proposed,
                }])
            }
            kind::SESSION_OR_TRANSFER => {
                let target = Some(u32::from(first_byte(chunk))).filter(|&target| target > 0);
                Input::TransferLeadership { id, target }
            }
            kind::QUERY => Input::Query(Query {
                id,
                query: bytes,
                allow_stale: chunk.kind & 0x80 != 0,
                until: self.now + Duration::from_secs(1),
            }),
            kind::STREAM_BROKEN => Input::PeerStreamBroken(from),
            _ => return None,
        })
    }

    fn message(&self, kind: PeerMessage, from: MemberId, bytes: Bytes) -> Option<Input> {
        // A node that belongs to no cluster refuses every header.
        self.node.cluster_id()?;
        fuzzing::peer_message(kind, from, self.node.member_id(), bytes).map(Input::Message)
    }

    /// Does what the node asks for; what it asks of its disk only where `disk` says so.
    fn carry_out(&mut self, disk: bool) {
        loop {
            for output in self.node.outputs(self.now) {
                if let Output::Disk(id, op) = output {
                    self.under_way.push_back((id, op));
                }
            }
            let Some((id, op)) = (if disk { self.under_way.pop_front() } else { None }) else {
                break;
            };
            let result = self.disk.execute(&op);
            self.node.handle(self.now, Input::Disk(id, result));
        }
        let _ = self.node.status(self.now);
    }

    /// Whatever the others made it write, it can read.
    fn reopens(mut self) {
        let opened = Node::open(config(), &mut self.disk, self.now, ChaCha8Rng::seed_from_u64(2));
        if let Err(error) = opened {
            panic!("a node's own folder can be opened again: {error}");
        }
    }
}

fn first_byte(chunk: &Chunk) -> u8 {
    chunk.bytes.first().copied().unwrap_or_default()
}
