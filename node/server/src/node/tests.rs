//! The wiring of the parts, with a disk in memory.

use std::collections::BTreeMap;

use raftlog_raft::entry::Payload;
use raftlog_raft::message::{AppendEntries, Body, LogPosition, Message};
use raftlog_storage::simulated::MemoryDisk;
use rand::SeedableRng;

use super::*;

/// A node that is a cluster by itself, and its disk.
struct Alone {
    node: Node,
    disk: MemoryDisk,
    now: Time,
}

impl Alone {
    fn start(disk: MemoryDisk) -> Self {
        Self::start_with(disk, BTreeMap::from([(1, "node1:5001".to_owned())]))
    }

    fn start_with(mut disk: MemoryDisk, initial_peers: BTreeMap<u32, String>) -> Self {
        let address = "node1:5001".to_owned();
        let config = NodeConfig {
            node: 1,
            peer_address: address.clone(),
            client_address: address,
            initial_peers,
            election_timeout_min: Duration::from_millis(1_500),
            election_timeout_max: Duration::from_secs(3),
            heartbeat_interval: Duration::from_secs(1),
        };
        let now = Time(1_000_000);
        let node = Node::open(config, &mut disk, now, ChaCha8Rng::seed_from_u64(1)).unwrap();
        Self { node, disk, now }
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
                if let Output::Disk(id, op) = output {
                    let result = self.disk.execute(&op);
                    self.node.handle(self.now, Input::Disk(id, result));
                }
            }
        }
        self.now = end;
    }
}

#[test]
fn a_disk_that_is_full_at_formation_is_asked_again() {
    // Not even a first segment fits; or that, but no further piece of it.
    for volume in [64 << 10, 200 << 10] {
        let mut alone = Alone::start(MemoryDisk::new(volume));
        alone.run(Duration::from_secs(10));
        assert!(alone.node.status(alone.now).disk_full, "{volume}");
        alone.disk.resize(1 << 30);
        alone.run(Duration::from_secs(10));
        let status = alone.node.status(alone.now);
        assert_eq!(
            (status.role, status.disk_full, alone.node.wal.is_full_disk()),
            (Role::Leader, false, false),
            "{volume}"
        );
    }
}

#[test]
fn a_repaired_member_is_no_longer_suspect_at_its_next_start() {
    let mut alone = Alone::start_with(MemoryDisk::new(1 << 30), BTreeMap::new());
    let members: Vec<Member> = (1..=3)
        .map(|node| Member {
            id: if node == 1 {
                alone.node.member_id()
            } else {
                MemberId::new(u64::from(node)).unwrap()
            },
            node,
            peer_address: format!("node{node}:5001"),
            client_address: format!("node{node}:5001"),
            voter: true,
        })
        .collect();
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
    };
    let hear = |alone: &mut Alone| {
        let body = Body::AppendEntries(append());
        let message = Message {
            from,
            to,
            term: 1,
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
    // The payload of the last batch rots.
    let mut disk = alone.disk;
    let log = disk
        .names()
        .into_iter()
        .find(|name| name.to_string().starts_with("log-"));
    let content = disk.content(log.unwrap()).unwrap();
    let last = content.chunks(512).rposition(|sector| sector[0] != 0).unwrap();
    assert!(disk.rot(log.unwrap(), last * 512 + 40));
    let suspect = |alone: &Alone| alone.node.status(alone.now).waiting_for.is_some();
    let mut alone = Alone::start_with(disk, BTreeMap::new());
    assert!(suspect(&alone));
    hear(&mut alone);
    assert!(!suspect(&alone));
    assert!(!suspect(&Alone::start_with(alone.disk, BTreeMap::new())));
}
