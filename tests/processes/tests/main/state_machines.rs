//! A key-value store behind each replicator: exactly once, with results, whatever is killed and when.

use processes::cluster::{Cluster, Options, Program};
use processes::machines::{Kind, Machines};
use processes::seed;
use processes::volume::Volume;
use processes::wait::eventually;
use raftlog_client::{Client, Endpoint, Options as ClientOptions, WaitFor};
use rand::RngExt as _;

const NODES: u32 = 3;

/// Three nodes, replicators and stores.
struct Stores {
    cluster: Cluster,
    machines: Machines,
}

impl Stores {
    async fn start(node_flags: &[&str]) -> Self {
        let mut options = Options::quick().of(NODES);
        options
            .node_flags
            .extend(node_flags.iter().map(|&flag| flag.to_owned()));
        let mut machines = Machines::beside(&mut options, Kind::KeyValue);
        let cluster = Cluster::start(options).await;
        machines.start_all();
        Self { cluster, machines }
    }

    fn client(&self) -> Client {
        let endpoints = self.cluster.addresses();
        let endpoints = endpoints
            .iter()
            .map(|at| Endpoint::parse(&at.to_string()).expect("an endpoint"));
        Client::new(endpoints.collect(), ClientOptions::default()).expect("a client")
    }

    fn store(&mut self, node: u32) -> &mut Program {
        self.machines.of(node)
    }

    /// What a node's own store answers, however far it is.
    async fn ask(&self, node: u32, query: &str) -> Result<String, String> {
        let mut client = processes::api::operations(self.cluster.address(node));
        let answer = processes::api::query(&mut client, query, true).await;
        let answer = answer.map_err(|status| status.to_string())?;
        Ok(String::from_utf8_lossy(&answer.result).into_owned())
    }

    async fn wait_until_all_answer(&self, query: &str, expected: &str) {
        for node in 1..=NODES {
            eventually(&format!("store {node} to answer {expected}"), async || {
                let found = self.ask(node, query).await?;
                (found == expected).then_some(()).ok_or(found)
            })
            .await;
        }
    }
}

/// Each step is right only once: it compares what is there with the step before. So a step that is lost, done twice or out of order is
/// found by the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_counts_each_operation_once_while_everything_is_killed() {
    const STEPS: u64 = 300;
    let (_, mut random) =
        seed::announce("state_machines::a_counter_counts_each_operation_once_while_everything_is_killed");
    let mut stores = Stores::start(&["--snapshot-every-operations", "60"]).await;
    let session = stores.client().session("counter", 1).expect("a session");
    let put = session.submit_and_wait("put n 0", WaitFor::Executed).await;
    assert_eq!(put.expect("it is committed").result.as_deref(), Some(&b"ok"[..]));
    let mut unknown = 0;
    for step in 1..=STEPS {
        if step % 12 == 0 {
            let node = random.random_range(1..=NODES);
            let program = match random.random_range(0..3) {
                0 => stores.cluster.node(node),
                1 => stores.cluster.replicator(node),
                _ => stores.store(node),
            };
            program.kill().await;
            program.start();
        }
        let operation = format!("cas n {} {step}", step - 1);
        let done = session.submit_and_wait(operation, WaitFor::Executed).await;
        match done.unwrap_or_else(|error| panic!("step {step}: {error}")).result {
            Some(result) => assert_eq!(result, "ok", "step {step}"),
            // Its replicator was killed between the two: what is executed is not executed again for its result.
            None => unknown += 1,
        }
    }
    assert!(
        unknown <= STEPS / 10,
        "{unknown} results were lost with their replicators"
    );
    let query = stores.client().query("get n", false).await.expect("an answer");
    assert_eq!(query.result, format!("value {STEPS}"));
    stores
        .wait_until_all_answer("get n", &format!("value {STEPS}"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_lost_everything_gets_the_state_with_a_snapshot() {
    let mut stores = Stores::start(&["--snapshot-every-operations", "100"]).await;
    let session = stores.client().session("writer", 1).expect("a session");
    for number in 1..=350 {
        let put = session
            .submit_and_wait(format!("put key-{number} {number}"), WaitFor::Committed)
            .await;
        put.expect("it is committed");
    }
    stores.wait_until_all_answer("count", "350").await;
    eventually("node 1 to drop its first operations", async || {
        let status = stores
            .cluster
            .status(1)
            .await
            .map_err(|error| error.to_string())?;
        (status.first_index > 1)
            .then_some(())
            .ok_or(format!("{}", status.first_index))
    })
    .await;
    // The store alone, then the store with its replicator.
    for with_replicator in [false, true] {
        stores.store(1).kill().await;
        stores.store(1).delete_folder();
        if with_replicator {
            stores.cluster.replicator(1).kill().await;
            stores.cluster.replicator(1).delete_folder();
            stores.cluster.replicator(1).start();
        }
        stores.store(1).start();
        stores.wait_until_all_answer("count", "350").await;
        stores.wait_until_all_answer("get key-7", "value 7").await;
    }
    let put = session.submit_and_wait("put more 1", WaitFor::Executed).await;
    assert_eq!(put.expect("it is committed").result.as_deref(), Some(&b"ok"[..]));
    stores.wait_until_all_answer("count", "351").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raftctl_shows_results_and_what_an_executor_fails_at() {
    let mut stores = Stores::start(&[]).await;
    let raftctl = |arguments: &'static [&'static str]| {
        let cluster = &stores.cluster;
        async move { cluster.raftctl(arguments).await }
    };
    let submitted = raftctl(&["submit", "--wait-for", "executed", "put a 1", "get a"]).await;
    submitted.expect(0, &["RESULT", "ok", "value 1"]);
    let raw = raftctl(&["-o", "raw", "submit", "--wait-for", "executed", "get a"]).await;
    assert_eq!(raw.text(), "value 1\n");
    raftctl(&["query", "get a"]).await.expect(0, &["value 1"]);
    let json = raftctl(&["-o", "json", "status"]).await;
    json.expect(0, &["\"kind\":\"state-machine\"", "\"connected\":true"]);
    stores.store(2).kill().await;
    let cluster = &stores.cluster;
    eventually("raftctl to say what fails", async || {
        let told = cluster.raftctl(&["status"]).await.text();
        told.contains("executor fails after").then_some(()).ok_or(told)
    })
    .await;
    // Execution never counts.
    let ready = cluster.readiness(2).await.expect("an answer");
    assert_eq!(ready.status, 200, "{ready:?}");
}

/// A database that has seen an error takes nothing until it is opened anew: the store failed for ever, with room on its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_disk_was_full_goes_on_when_there_is_room() {
    let test = "state_machines::a_store_whose_disk_was_full_goes_on_when_there_is_room";
    let Some(volume) = Volume::mount(test, 64) else {
        return;
    };
    let mut options = Options::quick().of(NODES);
    options.volumes.insert(1, volume.path().to_owned());
    let mut machines = Machines::beside(&mut options, Kind::KeyValue);
    // Nothing but the store is there.
    options.volumes.clear();
    machines.start_all();
    let cluster = Cluster::start(options).await;
    let stores = Stores { cluster, machines };
    let session = stores.client().session("writer", 1).expect("a session");
    let put = session.submit_and_wait("put first 1", WaitFor::Executed).await;
    put.expect("it is committed");
    stores.wait_until_all_answer("count", "1").await;
    volume.fill(0);
    let mut count = 1;
    let told = eventually("the store to say that its disk is full", async || {
        let value = "x".repeat(100_000);
        let put = session
            .submit_and_wait(format!("put key-{count} {value}"), WaitFor::Committed)
            .await;
        put.map_err(|error| error.to_string())?;
        count += 1;
        let status = stores
            .cluster
            .status(1)
            .await
            .map_err(|error| error.to_string())?;
        let executor = status.replicator.and_then(|replicator| replicator.executor);
        let failure = executor.and_then(|executor| executor.failure);
        failure.ok_or(format!("it took {count}"))
    })
    .await;
    assert!(told.index > 1, "{told:?}");
    volume.make_room();
    stores.wait_until_all_answer("count", &count.to_string()).await;
}
