//! The wiring of the parts, with a disk in memory.

mod marks;
mod queries;
mod saved;
mod snapshots;
mod survivors;
mod transfer;
mod versions;

use std::collections::BTreeMap;

use bytes::Bytes;
use raftlog_raft::entry::{Operation, Payload, SessionStamp};
use raftlog_raft::feature::{FeatureLevel, Supports};
use raftlog_raft::message::{AppendEntries, Body, LogPosition, Message};
use raftlog_raft::planted::Planted;
use raftlog_storage::simulated::MemoryDisk;
use rand::SeedableRng;

use super::*;

/// A node that is a cluster by itself, and its disk.
struct Alone {
    node: Node,
    disk: MemoryDisk,
    now: Time,
    /// What it said to its replicator, and to others.
    said: Vec<ToReplicator>,
    answers: BTreeMap<RequestId, Result<Committed, Refusal>>,
    taken: BTreeMap<RequestId, Result<TakenSnapshot, SnapshotRefusal>>,
    read: BTreeMap<RequestId, Option<Bytes>>,
    queried: BTreeMap<RequestId, Result<QueryResult, QueryRefusal>>,
    notices: Vec<String>,
    stopped: Option<String>,
}

impl Alone {
    /// The voters of a cluster of three, of which this is the first.
    fn one_of_three(&self) -> Vec<Member> {
        (1..=3)
            .map(|node| Member {
                id: if node == 1 {
                    self.node.member_id()
                } else {
                    MemberId::new(u64::from(node)).unwrap()
                },
                node,
                peer_address: format!("node{node}:5001"),
                client_address: format!("node{node}:5001"),
                voter: true,
            })
            .collect()
    }

    fn start(disk: MemoryDisk) -> Self {
        Self::start_with(disk, BTreeMap::from([(1, "node1:5001".to_owned())]))
    }

    fn start_with(disk: MemoryDisk, initial_peers: BTreeMap<u32, String>) -> Self {
        Self::open(disk, initial_peers, SnapshotPolicy::default()).unwrap()
    }

    fn open(
        disk: MemoryDisk,
        initial_peers: BTreeMap<u32, String>,
        snapshots: SnapshotPolicy,
    ) -> Result<Self, OpenError> {
        Self::open_version(disk, initial_peers, snapshots, Supports::default())
    }

    fn open_version(
        mut disk: MemoryDisk,
        initial_peers: BTreeMap<u32, String>,
        snapshots: SnapshotPolicy,
        supports: Supports,
    ) -> Result<Self, OpenError> {
        let address = "node1:5001".to_owned();
        let config = NodeConfig {
            node: 1,
            peer_address: address.clone(),
            client_address: address,
            initial_peers,
            was_removed: false,
            election_timeout_min: Duration::from_millis(1_500),
            election_timeout_max: Duration::from_secs(3),
            heartbeat_interval: Duration::from_secs(1),
            snapshots,
            lease_reads: true,
            supports,
            bounds: Bounds::default(),
            planted: Planted::default(),
        };
        let now = Time(1_000_000);
        let node = Node::open(config, &mut disk, now, ChaCha8Rng::seed_from_u64(1))?;
        Ok(Self {
            node,
            disk,
            now,
            said: Vec::new(),
            answers: BTreeMap::new(),
            taken: BTreeMap::new(),
            read: BTreeMap::new(),
            queried: BTreeMap::new(),
            notices: Vec::new(),
            stopped: None,
        })
    }

    /// Lets time pass, and the disk do what it is told.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let outputs = self.node.outputs(self.now);
            if outputs.is_empty() {
                if self.node.deadline() > end {
                    break;
                }
                self.now = self.now.max(self.node.deadline());
                self.node.handle(self.now, Input::Tick);
            }
            for output in outputs {
                match output {
                    Output::Disk(id, op) => {
                        let result = self.disk.execute(&op);
                        self.node.handle(self.now, Input::Disk(id, result));
                    }
                    Output::Replicator(said) => self.said.push(said),
                    Output::Answer { id, result } => {
                        self.answers.insert(id, result);
                    }
                    Output::SnapshotTaken { id, result } => {
                        self.taken.insert(id, result);
                    }
                    Output::SnapshotRead { id, data } => {
                        self.read.insert(id, data);
                    }
                    Output::QueryAnswered { id, result } => {
                        self.queried.insert(id, result);
                    }
                    Output::Notice(notice) => self.notices.push(notice.to_string()),
                    Output::Stop(why) => self.stopped = Some(why),
                    _ => {}
                }
            }
        }
        self.now = end;
    }
}

const MOMENT: Duration = Duration::from_millis(10);

fn hears(alone: &mut Alone, said: FromReplicator) {
    alone.node.handle(alone.now, Input::Replicator(said));
    alone.run(MOMENT);
}

fn submits(alone: &mut Alone, ids: std::ops::RangeInclusive<u64>) {
    for id in ids {
        let operation = Operation {
            data: "op".into(),
            session: None,
        };
        let proposal = Proposal {
            id,
            stream: None,
            proposed: Proposed::Operation(operation),
        };
        alone.node.handle(alone.now, Input::Submit(vec![proposal]));
    }
    alone.run(MOMENT);
}

/// An empty replicator is there.
fn connects(alone: &mut Alone, on_leader: bool) {
    hears(alone, FromReplicator::Opened);
    let empty = Position {
        cluster_id: None,
        member_id: None,
        first_index: 0,
        last: Place::default(),
        commit: Place::default(),
        executed: Place::default(),
        needs_state: false,
        on_leader,
    };
    hears(alone, FromReplicator::Position(empty));
}

#[test]
fn a_disk_that_is_full_at_formation_is_asked_again() {
    // Not even a first segment fits; or that, but no further piece of it.
    for volume in [64 << 10, 200 << 10] {
        let mut alone = Alone::start(MemoryDisk::new(volume));
        alone.run(Duration::from_secs(10));
        assert!(alone.node.status(alone.now).disks.full, "{volume}");
        alone.disk.limit_to(1 << 30);
        alone.run(Duration::from_secs(10));
        let status = alone.node.status(alone.now);
        assert_eq!(
            (
                status.role,
                status.disks.full,
                alone.node.store.wal.is_full_disk()
            ),
            (Role::Leader, false, false),
            "{volume}"
        );
    }
}

/// The process stopped, though the log, which was written just before, waits for room.
#[test]
fn an_identity_that_finds_no_room_at_formation_is_stored_later() {
    let mut alone = Alone::start(MemoryDisk::new(1 << 30));
    let mut refused = 0;
    while alone.node.cluster_id().is_none() {
        let outputs = alone.node.outputs(alone.now);
        if outputs.is_empty() {
            alone.now = alone.now.max(alone.node.deadline());
            alone.node.handle(alone.now, Input::Tick);
        }
        for output in outputs {
            match output {
                Output::Disk(id, op) => {
                    if id == STORE_IDENTITY && refused < 3 {
                        refused += 1;
                        alone.disk.fail_next(DiskErrorKind::Full);
                    }
                    let result = alone.disk.execute(&op);
                    alone.node.handle(alone.now, Input::Disk(id, result));
                }
                Output::Stop(why) => panic!("it stopped: {why}"),
                _ => {}
            }
        }
    }
    assert_eq!(refused, 3);
    alone.run(Duration::from_secs(10));
    assert_eq!(alone.node.status(alone.now).role, Role::Leader);
}

/// The name was once looked for in the entry, which may leave memory before the answer to it is made.
#[test]
fn a_session_is_named_whatever_memory_holds() {
    let mut alone = Alone::start(MemoryDisk::new(1 << 30));
    alone.node.config.bounds.recent_bytes_max = 0;
    alone.run(Duration::from_secs(10));
    let mut submit = |id, proposed| {
        let proposal = Proposal {
            id,
            stream: None,
            proposed,
        };
        alone.node.handle(alone.now, Input::Submit(vec![proposal]));
        alone.run(Duration::from_secs(1));
        alone.answers[&id].clone().unwrap()
    };
    let opened = submit(1, Proposed::OpenSession);
    let session = SessionStamp {
        client_id: opened.session_id().into(),
        sequence: 1,
        acknowledged_through: 0,
    };
    let operation = Operation {
        data: "op".into(),
        session: Some(session),
    };
    assert_eq!(submit(2, Proposed::Operation(operation)).operation_index, 1);
}

#[test]
fn a_repaired_member_is_no_longer_suspect_at_its_next_start() {
    let mut alone = Alone::start_with(MemoryDisk::new(1 << 30), BTreeMap::new());
    let members = alone.one_of_three();
    let (to, from) = (alone.node.member_id(), members[1].id);
    let entry = Fold::new(Configuration::new(0, members.clone())).next_entry(1, 1, Payload::Noop);
    let append = || AppendEntries {
        previous: LogPosition::default(),
        entries: vec![entry.clone()],
        commit: 1,
        round: 1,
        heartbeat: false,
        minimum_election_timeout: Duration::from_millis(1_500),
        read_answers: Vec::new(),
        previous_hash: None,
    };
    let hear = |alone: &mut Alone| {
        let body = Body::AppendEntries(append());
        let message = Message {
            from,
            to,
            term: 1,
            level: FeatureLevel::FIRST,
            body,
        };
        alone.node.handle(alone.now, Input::Message(message));
        alone.run(Duration::from_millis(100));
    };
    let bootstrap = Input::Bootstrap {
        id: 1,
        cluster_id: ClusterId::new(9).unwrap(),
        to_member: to,
        members,
    };
    alone.node.handle(alone.now, bootstrap);
    alone.run(Duration::from_millis(100));
    hear(&mut alone);
    let disk = with_rotten_end(alone.disk);
    let suspect = |alone: &Alone| alone.node.status(alone.now).waiting_for.is_some();
    let mut alone = Alone::start_with(disk, BTreeMap::new());
    assert!(suspect(&alone));
    hear(&mut alone);
    assert!(!suspect(&alone));
    assert!(!suspect(&Alone::start_with(alone.disk, BTreeMap::new())));
}

/// The payload of the log's last batch rots.
fn with_rotten_end(mut disk: MemoryDisk) -> MemoryDisk {
    let log = disk
        .names()
        .into_iter()
        .find(|name| name.to_string().starts_with("log-"));
    let content = disk.content(log.unwrap()).unwrap();
    let last = content.chunks(512).rposition(|sector| sector[0] != 0).unwrap();
    assert!(disk.rot(log.unwrap(), last * 512 + 40));
    disk
}

fn others() -> Vec<Member> {
    let member = |node| Member {
        id: MemberId::new(u64::from(node)).unwrap(),
        node,
        peer_address: format!("node{node}:5001"),
        client_address: format!("node{node}:5001"),
        voter: true,
    };
    vec![member(2), member(3)]
}

/// A node that waits, and hears from the leader of a cluster of nodes 2 and 3.
struct Added {
    alone: Alone,
    log: Log,
}

impl Added {
    fn invited() -> Self {
        let mut alone = Alone::start_with(MemoryDisk::new(1 << 30), BTreeMap::new());
        let invitation = Input::Invited {
            cluster_id: ClusterId::new(9).unwrap(),
            bootstrap: others(),
            level: FeatureLevel::FIRST,
        };
        alone.node.handle(alone.now, invitation);
        alone.run(Duration::from_millis(100));
        let log = Log::new(Fold::new(Configuration::new(0, others())), 1 << 20);
        Self { alone, log }
    }

    /// The leader appends and commits a configuration of these members.
    fn hear(&mut self, members: Vec<Member>) {
        let configuration = Configuration::new(self.log.last().index + 1, members);
        self.hear_entry(Payload::Configuration(configuration));
        self.alone.run(Duration::from_millis(100));
    }

    fn hear_entry(&mut self, payload: Payload) {
        let previous = self.log.last();
        let entry = self.log.fold().next_entry(previous.index + 1, 1, payload);
        self.log.push(entry.clone());
        let append = AppendEntries {
            previous,
            commit: entry.log_index,
            round: entry.log_index,
            entries: vec![entry],
            heartbeat: false,
            minimum_election_timeout: Duration::from_millis(1_500),
            read_answers: Vec::new(),
            previous_hash: None,
        };
        let message = Message {
            from: others()[0].id,
            to: self.alone.node.member_id(),
            term: 1,
            level: FeatureLevel::FIRST,
            body: Body::AppendEntries(append),
        };
        self.alone.node.handle(self.alone.now, Input::Message(message));
        self.alone.run(Duration::from_millis(1));
    }

    /// The leader appends and commits an operation.
    fn hear_operation(&mut self) {
        self.hear_entry(Payload::Operation(Operation {
            data: "op".into(),
            session: None,
        }));
    }

    /// How far the replicator was told that operations are committed, each time.
    fn commits_said(&mut self) -> Vec<u64> {
        let commit = |said| match said {
            ToReplicator::Feed { commit, .. } => Some(commit),
            _ => None,
        };
        let said = std::mem::take(&mut self.alone.said);
        said.into_iter().filter_map(commit).collect()
    }

    fn status(&self) -> Status {
        self.alone.node.status(self.alone.now)
    }
}

#[test]
fn a_node_that_was_added_takes_its_place_as_soon_as_it_hears_of_it() {
    let mut added = Added::invited();
    let status = added.status();
    assert_eq!(status.cluster_id, ClusterId::new(9));
    assert_eq!((status.role, status.is_member), (Role::Learner, false));
    let mut me = own_member(&added.alone.node.config, status.member_id);
    me.voter = false;
    added.hear(others().into_iter().chain([me]).collect());
    assert!(added.status().is_member);
    assert_eq!(added.status().waiting_for, None);
    let again = Alone::start_with(added.alone.disk, BTreeMap::new());
    assert!(again.node.status(again.now).is_member, "it is on its disk");
}

#[test]
fn a_follower_tells_its_replicator_of_commits_now_and_then_and_at_once_where_somebody_waits() {
    let mut added = Added::invited();
    let me = own_member(&added.alone.node.config, added.status().member_id);
    added.hear(others().into_iter().chain([me]).collect());
    connects(&mut added.alone, false);
    added.hear_operation();
    assert_eq!(added.commits_said(), [1], "for a while there was nothing");
    for _ in 0..3 {
        added.hear_operation();
    }
    assert_eq!(added.commits_said(), [0; 0], "they come together");
    added.alone.run(Duration::from_millis(5));
    assert_eq!(added.commits_said(), [4]);
    // Nothing more is to be told: time alone has it do nothing.
    added.alone.run(Duration::from_millis(100));
    assert_eq!(added.commits_said(), [0; 0]);

    added.hear_operation();
    added.hear_operation();
    assert_eq!(added.commits_said(), [5]);
    let query = Query {
        id: 1,
        query: "last".into(),
        allow_stale: true,
        until: added.alone.now + Duration::from_secs(1),
    };
    let now = added.alone.now;
    added.alone.node.handle(now, Input::Query(query));
    added.hear_operation();
    assert_eq!(added.commits_said(), [6, 7]);
}

#[test]
fn a_node_that_was_removed_says_so_also_after_a_restart() {
    let mut added = Added::invited();
    let me = own_member(&added.alone.node.config, added.status().member_id);
    added.hear(others().into_iter().chain([me]).collect());
    added.hear(others());
    let removed = |status: &Status| {
        let waits = status.waiting_for.as_deref();
        !status.is_member && waits.is_some_and(|why| why.contains("was removed"))
    };
    assert!(removed(&added.status()), "{:?}", added.status().waiting_for);
    let mut again = Alone::start_with(added.alone.disk, BTreeMap::new());
    again.run(Duration::from_mins(1));
    let status = again.node.status(again.now);
    assert!(removed(&status), "{:?}", status.waiting_for);
    assert_eq!(status.term, 1, "it does not campaign");
}

/// What it lost may be that it was added again, and counts in a majority.
#[test]
fn a_node_that_was_removed_keeps_its_data_while_the_end_of_its_log_is_in_doubt() {
    let mut added = Added::invited();
    let me = own_member(&added.alone.node.config, added.status().member_id);
    let all = || others().into_iter().chain([me.clone()]).collect();
    added.hear(all());
    added.hear(others());
    let again = Alone::start_with(added.alone.disk.clone(), BTreeMap::new());
    assert_eq!(again.node.removed_by(), Some(2));
    added.hear(all());
    let again = Alone::start_with(with_rotten_end(added.alone.disk), BTreeMap::new());
    assert!(again.node.raft().unwrap().is_suspect());
    assert_eq!(again.node.raft().unwrap().configuration().version, 2);
    assert_eq!(again.node.removed_by(), None);
}

#[test]
fn a_node_that_belongs_to_a_cluster_heeds_no_other_invitation() {
    let mut added = Added::invited();
    let invitation = Input::Invited {
        cluster_id: ClusterId::new(10).unwrap(),
        bootstrap: others(),
        level: FeatureLevel::FIRST,
    };
    added.alone.node.handle(added.alone.now, invitation);
    added.alone.run(Duration::from_millis(100));
    assert_eq!(added.status().cluster_id, ClusterId::new(9));
}

#[test]
fn a_node_that_was_removed_while_it_was_away_says_so_once_a_voter_tells() {
    let mut added = Added::invited();
    let me = own_member(&added.alone.node.config, added.status().member_id);
    let all = || others().into_iter().chain([me.clone()]).collect();
    added.hear(all());
    let told = |added: &mut Added, version| {
        added
            .alone
            .node
            .handle(added.alone.now, Input::Removed { version });
        added.alone.run(Duration::from_millis(100));
        added
            .status()
            .waiting_for
            .is_some_and(|why| why.contains("configuration 2"))
    };
    let starts_anew = |added: &mut Added| {
        added.alone.run(Duration::from_millis(100));
        let again = Alone::start_with(added.alone.disk.clone(), BTreeMap::new());
        again.node.removed_by().is_some()
    };
    assert!(!told(&mut added, 1), "the voter is not ahead of it");
    assert!(!starts_anew(&mut added));
    assert!(told(&mut added, 2));
    assert!(starts_anew(&mut added), "the next start knows");
    added.hear(all());
    assert_eq!(added.status().waiting_for, None, "it was added again");
    assert!(!starts_anew(&mut added));
}
