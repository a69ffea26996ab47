//! A node between other members, its replicator and clients, all of which say anything. Headers are those of members: what
//! is refused by its header never gets further.
//!
//! The kind of a chunk says, by its lower five bits, what happens, and by the next one which other member says it; 0x40 leaves what
//! the disk is to do for later. The first byte of the input says how many voters there are, 1 to 3.

use bytes::Bytes;
use prost::Message as _;
use raftlog_proto::v1;
use raftlog_raft::feature::Supports;
use raftlog_raft::fold::running_hash;
use raftlog_raft::ids::{ClusterId, MemberId};
use raftlog_raft::membership::Member;
use raftlog_raft::planted::Planted;
use raftlog_raft::time::Time;
use raftlog_raft::{Raft, RoleName};
use raftlog_server::fuzzing::{self, PeerMessage};
use raftlog_server::node::{
    Bounds, FromReplicator, Input, InstallSnapshot, Node, NodeConfig, Output, PeerReport, Proposal, Proposed,
    Query, SnapshotId, SnapshotPart, SnapshotPolicy, ToReplicator,
};
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{Disk, Op, OpId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::{Chunk, chunks};

/// The kinds of chunks, by their lower five bits; others let time pass.
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
    /// `InstallSnapshotRequest`.
    pub const INSTALL_SNAPSHOT: u8 = 14;
    /// `InstallSnapshotResponse`; without 0x80 it is about the snapshot that was offered last, whose CRC nobody could guess.
    pub const INSTALL_SNAPSHOT_RESPONSE: u8 = 15;
    /// A snapshot behind the log's end, whole and with good CRCs: how far behind as the first byte, then the replicator's state. With
    /// 0x80 the bytes behind the first are all of its data, with nothing of the state.
    pub const SNAPSHOT: u8 = 16;
    /// An `Entry` that, whatever it says of its place, follows the log, from the leader; and all before it is committed.
    pub const FOLLOWS: u8 = 17;
    /// `ChangeMembershipRequest`.
    pub const CHANGE_MEMBERSHIP: u8 = 18;
    /// `AppendEntriesRequest` to a node that belongs to no cluster.
    pub const INVITATION: u8 = 19;
    /// A voter's configuration of the version in these bytes, little-endian, does not list this node.
    pub const REMOVED: u8 = 20;
    /// The replicator has executed all that is committed and, where it was ordered, gives the snapshot of that, of these bytes.
    pub const REPLICATOR_SNAPSHOT: u8 = 21;
    /// What is under way of a snapshot to another member is lost.
    pub const SNAPSHOT_STREAM_BROKEN: u8 = 22;
    /// The stream of a client ends.
    pub const STREAM_CLOSED: u8 = 23;
    /// The process is killed and started again.
    pub const RESTART: u8 = 24;
    /// `CompareHashRequest`.
    pub const COMPARE_HASH: u8 = 25;
    /// `CompareHashResponse`.
    pub const COMPARED: u8 = 26;
    /// An operator wants a snapshot, within so many milliseconds as the first byte says.
    pub const TAKE_SNAPSHOT: u8 = 27;
    /// `DownloadSnapshotRequest`.
    pub const DOWNLOAD_SNAPSHOT: u8 = 28;
}

const VOLUME_BYTES: u64 = 16 << 20;
const MEMBER_ME: u32 = 1;
const CLIENT_STREAM: u64 = 1;

/// A node, its disk, and what of it is under way.
struct Rig {
    node: Node,
    disk: MemoryDisk,
    under_way: VecDeque<(OpId, Op)>,
    now: Time,
    next_id: u64,
    /// The replicator's latest order of a snapshot.
    order: Option<u64>,
    /// The snapshot that it offered last.
    offered: Option<SnapshotId>,
    /// It said that it must not go on.
    stopped: bool,
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
    rig.restart();
}

fn id(node: u32) -> MemberId {
    MemberId::new(u64::from(node) + 100).expect("it is not 0")
}

/// The member ID of the node itself, which its randomness makes the same in every run.
pub fn own_id() -> u64 {
    Rig::start(1, false).map_or(0, |rig| rig.node.member_id().get())
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
            order: None,
            offered: None,
            stopped: false,
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
        match chunk.kind & 0x1f {
            kind::DEADLINE => {
                self.now = self
                    .now
                    .max(self.node.deadline().min(self.now + Duration::from_secs(60)));
                self.node.handle(self.now, Input::Tick);
            }
            kind::SNAPSHOT => self.take_snapshot(chunk),
            kind::REPLICATOR_SNAPSHOT => self.replicator_snapshot(&chunk.bytes),
            kind::RESTART => self.restart(),
            29.. => {
                self.now = self.now + Duration::from_millis(u64::from(first_byte(chunk)));
                self.node.handle(self.now, Input::Tick);
            }
            _ => {
                if let Some(input) = self.input(chunk) {
                    self.node.handle(self.now, input);
                }
            }
        }
    }

    fn input(&mut self, chunk: &Chunk) -> Option<Input> {
        let from = sender(chunk);
        let bytes = chunk.bytes.clone();
        self.next_id += 1;
        let id = self.next_id;
        Some(match chunk.kind & 0x1f {
            kind::REQUEST_VOTE => self.message(PeerMessage::RequestVote, from, bytes)?,
            kind::VOTE => self.message(PeerMessage::Vote, from, bytes)?,
            kind::APPEND_ENTRIES => self.message(PeerMessage::AppendEntries, from, bytes)?,
            kind::APPEND_ENTRIES_RESPONSE => self.message(PeerMessage::AppendEntriesResponse, from, bytes)?,
            kind::TIMEOUT_NOW => self.message(PeerMessage::TimeoutNow, from, bytes)?,
            kind::SUBMIT => {
                let proposed = Proposed::Operation(fuzzing::operation(bytes)?);
                let stream = (chunk.kind & 0x80 != 0).then_some(CLIENT_STREAM);
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
            kind::COMPARE_HASH => self.message(PeerMessage::CompareHash, from, bytes)?,
            kind::COMPARED => self.message(PeerMessage::Compared, from, bytes)?,
            kind::TAKE_SNAPSHOT => {
                let within = Duration::from_millis(u64::from(first_byte(chunk)));
                Input::TakeSnapshot { id, within }
            }
            kind::DOWNLOAD_SNAPSHOT => {
                let (snapshot, offset) = fuzzing::download_snapshot(bytes)?;
                Input::ReadSnapshot { id, snapshot, offset }
            }
            kind::INSTALL_SNAPSHOT => self.message(PeerMessage::InstallSnapshot, from, bytes)?,
            kind::INSTALL_SNAPSHOT_RESPONSE => self.message(
                PeerMessage::InstallSnapshotResponse,
                from,
                self.about_offered(chunk)?,
            )?,
            kind::FOLLOWS => self.message(PeerMessage::AppendEntries, from, self.follows(bytes)?)?,
            kind::CHANGE_MEMBERSHIP => Input::ChangeMembership(fuzzing::change_membership(id, bytes)?),
            kind::INVITATION => fuzzing::invitation(self.node.member_id(), bytes)?,
            kind::REMOVED => Input::Removed {
                version: number(&bytes),
            },
            kind::SNAPSHOT_STREAM_BROKEN => Input::SnapshotStreamBroken(from),
            kind::STREAM_CLOSED => Input::StreamClosed(CLIENT_STREAM),
            _ => return None,
        })
    }

    fn message(&self, kind: PeerMessage, from: MemberId, bytes: Bytes) -> Option<Input> {
        // A node that belongs to no cluster refuses every header.
        self.node.cluster_id()?;
        fuzzing::peer_message(kind, from, self.node.member_id(), bytes)
    }

    fn about_offered(&self, chunk: &Chunk) -> Option<Bytes> {
        let mut response = v1::InstallSnapshotResponse::decode(chunk.bytes.clone()).ok()?;
        if let Some(offered) = self.offered.filter(|_| chunk.kind & 0x80 == 0) {
            (response.last_log_index, response.crc) = (offered.index, offered.crc);
        }
        Some(response.encode_to_vec().into())
    }

    /// The term of which another member may say that it leads it.
    fn leaders_term(&self, raft: &Raft) -> u64 {
        let more = u64::from(raft.role() == RoleName::Leader);
        raft.term().saturating_add(more).max(1)
    }

    /// An `AppendEntriesRequest` with an entry whose place is the next one.
    fn follows(&self, entry: Bytes) -> Option<Bytes> {
        use v1::entry::Kind;
        let raft = self.node.raft()?;
        let (last, fold, term) = (raft.log().last(), raft.log().fold(), self.leaders_term(raft));
        let log_index = last.index.checked_add(1)?;
        let mut entry = v1::Entry {
            log_index,
            term,
            operation_index: fold.operation_index,
            running_hash: fold.running_hash,
            ..v1::Entry::decode(entry).ok()?
        };
        match entry.kind.as_mut()? {
            Kind::Operation(operation) => {
                entry.operation_index = fold.operation_index.checked_add(1)?;
                let index = entry.operation_index;
                entry.running_hash = running_hash(fold.running_hash, index, term, &operation.data);
            }
            Kind::Configuration(configuration) | Kind::JointConfiguration(configuration) => {
                configuration.version = log_index;
            }
            Kind::Recovered(recovered) => recovered.configuration.as_mut()?.version = log_index,
            _ => {}
        }
        let request = v1::AppendEntriesRequest {
            term,
            previous_log_index: last.index,
            previous_log_term: last.term,
            entries: vec![entry],
            commit_log_index: last.index,
            round: log_index,
            ..Default::default()
        };
        Some(request.encode_to_vec().into())
    }

    /// A leader's snapshot, offered and sent.
    fn take_snapshot(&mut self, chunk: &Chunk) {
        let from = sender(chunk);
        for request in self.snapshot(chunk).into_iter().flatten() {
            let bytes = request.encode_to_vec().into();
            if let Some(input) = self.message(PeerMessage::InstallSnapshot, from, bytes) {
                self.node.handle(self.now, input);
                self.carry_out(chunk.kind & 0x40 == 0);
            }
        }
    }

    fn snapshot(&self, chunk: &Chunk) -> Option<[v1::InstallSnapshotRequest; 2]> {
        use v1::install_snapshot_request::Part;
        let raft = self.node.raft()?;
        let (term, ahead) = (self.leaders_term(raft), u64::from(first_byte(chunk)));
        let state = chunk.bytes.slice(1.min(chunk.bytes.len())..);
        let index = raft.log().last().index.checked_add(ahead)?;
        let mut fold = raft.log().fold().clone();
        fold.operation_index = fold.operation_index.checked_add(ahead)?;
        let mut data = state.to_vec();
        if chunk.kind & 0x80 == 0 {
            fold.encode(&mut data);
        }
        let state_bytes = if chunk.kind & 0x80 == 0 { state.len() } else { 0 };
        let state_bytes = u64::try_from(state_bytes).ok()?;
        let mut metadata = vec![1];
        for number in [fold.operation_index, term, fold.running_hash, state_bytes] {
            metadata.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&data);
        let request = |part| v1::InstallSnapshotRequest {
            term,
            part: Some(part),
            ..Default::default()
        };
        let offer = request(Part::Offer(v1::SnapshotManifest {
            last_log_index: index,
            last_log_term: term,
            metadata: metadata.into(),
            bytes: u64::try_from(data.len()).ok()?,
            crc,
        }));
        let piece = request(Part::Data(v1::SnapshotPart {
            last_log_index: index,
            crc,
            offset: 0,
            data: data.into(),
        }));
        Some([offer, piece])
    }

    fn replicator_snapshot(&mut self, state: &Bytes) {
        for message in self.snapshot_of_replicator(state).into_iter().flatten() {
            let message = Some(message);
            let bytes = v1::ReplicateLogResponse { message }.encode_to_vec();
            if let Some(said) = fuzzing::from_replicator(bytes.into()) {
                self.node.handle(self.now, Input::Replicator(said));
                self.carry_out(true);
            }
        }
    }

    /// Its progress, and the snapshot.
    fn snapshot_of_replicator(&self, state: &Bytes) -> Option<Vec<v1::replicate_log_response::Message>> {
        use v1::replicate_log_response::Message as Said;
        let raft = self.node.raft()?;
        let log = raft.log();
        let index = log.operation_index_at(raft.commit().min(raft.persisted_index()));
        let mut said = vec![Said::Progress(v1::Progress {
            last_index: index,
            commit_index: index,
            executed_index: index,
            durable_executed_index: index,
            leading_term: raft.executes_in().unwrap_or(0),
        })];
        let at = log.log_index_of(index);
        if let (Some(id), Some(at)) = (self.order, at) {
            let place = v1::Place {
                index,
                term: log.term_at(at)?,
                running_hash: log.running_hash_at(at)?,
            };
            said.push(Said::Snapshot(v1::SnapshotChunk {
                id,
                snapshot: Some(v1::Snapshot {
                    place: Some(place),
                    size: u64::try_from(state.len()).ok()?,
                }),
                offset: 0,
                data: state.clone(),
            }));
        }
        Some(said)
    }

    /// Does what the node asks for; what it asks of its disk only where `disk` says so.
    fn carry_out(&mut self, disk: bool) {
        loop {
            for output in self.node.outputs(self.now) {
                match output {
                    Output::Disk(id, op) => self.under_way.push_back((id, op)),
                    Output::Replicator(ToReplicator::TakeSnapshot { id }) => self.order = Some(id),
                    Output::InstallSnapshot(InstallSnapshot {
                        part: SnapshotPart::Offer(manifest),
                        ..
                    }) => self.offered = Some(SnapshotId::of(&manifest)),
                    Output::Stop(_) => self.stopped = true,
                    _ => {}
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

    /// Whatever the others made it write, it can read, unless it stopped because of that.
    fn restart(&mut self) {
        self.under_way.clear();
        match Node::open(config(), &mut self.disk, self.now, ChaCha8Rng::seed_from_u64(2)) {
            Ok(opened) => self.node = opened,
            Err(error) => assert!(self.stopped, "a node's own folder can be opened again: {error}"),
        }
    }
}

fn sender(chunk: &Chunk) -> MemberId {
    id(2 + u32::from(chunk.kind >> 5 & 1))
}

fn number(bytes: &Bytes) -> u64 {
    let mut number = [0; 8];
    for (to, from) in number.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(number)
}

fn first_byte(chunk: &Chunk) -> u8 {
    chunk.bytes.first().copied().unwrap_or_default()
}
