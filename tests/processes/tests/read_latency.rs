//! What a lease saves: two clusters on the same machines, whose nodes are some milliseconds from each other, one that reads
//! under leases and one that asks a majority for every read, are queried by turns.
//!
//! A test binary of its own, since its threads live in another network namespace.

use processes::api;
use processes::binaries;
use processes::cluster::{Cluster, Options};
use processes::links::between;
use processes::network::Network;
use raftlog_proto::v1::operations_client::OperationsClient;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

const TEST: &str = "a_lease_saves_a_round_trip";
const NODES: u32 = 3;
const DISK_MEBIBYTES: u32 = 200;
/// From one node to another, one way.
const DELAY: Duration = Duration::from_millis(5);
const QUERIES: usize = 300;

async fn prepare(network: &Network, lease_reads: &str) -> Cluster {
    let mut options = Options {
        hosts: network.hosts(),
        volumes: network.disks(),
        ..Options::quick().of(NODES)
    };
    for place in options.volumes.values_mut() {
        place.push(format!("lease-reads-{lease_reads}"));
    }
    options
        .node_flags
        .extend(["--lease-reads", lease_reads].map(str::to_owned));
    Cluster::prepare(options).await
}

/// Starts it, and connects to its leader and to a follower.
async fn begin(cluster: &mut Cluster) -> [OperationsClient<Channel>; 2] {
    cluster.start_all();
    cluster.wait_until_ready().await;
    let leader = cluster.leader().await;
    let follower = cluster.others(&[leader])[0];
    cluster.submit(leader, "to be read").await.expect("all is well");
    let mut nodes = [leader, follower].map(|node| api::operations(cluster.address(node)));
    for node in &mut nodes {
        api::query(node, "last", false).await.expect("all is well");
    }
    nodes
}

/// How long each of many took, from the fastest.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    async fn take(&mut self, node: &mut OperationsClient<Channel>) {
        let since = Instant::now();
        let answer = api::query(node, "last", false).await.expect("all is well");
        self.0.push(since.elapsed());
        assert_eq!(answer.result, "to be read");
    }

    fn percentile(&mut self, percent: usize) -> Duration {
        self.0.sort_unstable();
        *self.0.get(self.0.len() * percent / 100).expect("there are many")
    }
}

#[test]
fn a_lease_saves_a_round_trip() {
    // Before there is no network any more.
    binaries::path("raft-node");
    let Some(network) = Network::make(TEST, NODES, DISK_MEBIBYTES) else {
        return;
    };
    // Its threads are where this one is now.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be started");
    runtime.block_on(measure(network));
}

async fn measure(mut network: Network) {
    let mut lease = prepare(&network, "true").await;
    let mut round = prepare(&network, "false").await;
    let mut ports = Vec::new();
    for node in 1..=NODES {
        ports.extend([&lease, &round].map(|cluster| (node, cluster.port(node))));
    }
    network.relay(&ports).await;
    let all: BTreeSet<u32> = (1..=NODES).collect();
    for link in between(&all, &all) {
        network.delays().set(link, DELAY);
    }
    let (lease_nodes, round_nodes) = (begin(&mut lease).await, begin(&mut round).await);
    let nodes = lease_nodes.into_iter().zip(round_nodes);
    for (at, (mut lease, mut round)) in ["leader", "follower"].into_iter().zip(nodes) {
        let (mut by_lease, mut by_round) = (Times::default(), Times::default());
        for _ in 0..QUERIES {
            by_lease.take(&mut lease).await;
            by_round.take(&mut round).await;
        }
        println!("{QUERIES} queries through a {at}, nodes {DELAY:?} from each other");
        for percent in [50, 99] {
            let (lease, round) = (by_lease.percentile(percent), by_round.percentile(percent));
            let ratio = round.as_secs_f64() / lease.as_secs_f64();
            println!(
                "  p{percent}: {lease:.1?} by lease, {round:.1?} by round, which is {ratio:.1} times as long"
            );
        }
        let (lease, round) = (by_lease.percentile(50), by_round.percentile(50));
        // A round trip between nodes, and half of it for whatever else the machine does.
        assert!(round > lease + DELAY, "{round:?} by round, {lease:?} by lease");
    }
}
