//! The wiring of the parts, with a disk in memory.

use std::collections::BTreeMap;

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
    fn start(mut disk: MemoryDisk) -> Self {
        let address = "node1:5001".to_owned();
        let config = NodeConfig {
            node: 1,
            peer_address: address.clone(),
            client_address: address.clone(),
            initial_peers: BTreeMap::from([(1, address)]),
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
