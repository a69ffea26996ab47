//! A ledger in Python behind each replicator: no money is lost or made, and each transfer is done once, whatever is killed and when.

use processes::api;
use processes::cluster::{Cluster, Options, Program};
use processes::ledger::{self, ACCOUNTS, Entry, OPENED, Python, Transfers};
use processes::load::{Load, Told};
use processes::machines::{Kind, Machines};
use processes::process;
use processes::seed;
use processes::wait::eventually;
use raftlog_client::{Client, Endpoint, Options as ClientOptions, WaitFor};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const NODES: u32 = 3;
const CLIENTS: u64 = 6;
/// A client waits so long between two transfers, at most.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// How many seconds things are killed for.
const SECONDS: &str = "RAFT_TEST_LEDGER_SECONDS";
const SECONDS_DEFAULT: u64 = 45;

/// What is killed at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Ledger(u32),
    Replicator(u32),
    Node(u32),
    /// All three.
    Pod(u32),
    AllLedgers,
    Everything,
    /// A ledger whose folder is gone when it comes back.
    LedgerWithData(u32),
}

impl Victim {
    fn draw(random: &mut ChaCha8Rng) -> Self {
        let node = random.random_range(1..=NODES);
        let victims = [
            Self::Ledger(node),
            Self::Ledger(node),
            Self::Replicator(node),
            Self::Replicator(node),
            Self::Node(node),
            Self::Pod(node),
            Self::AllLedgers,
            Self::Everything,
            Self::LedgerWithData(node),
        ];
        *victims.choose(random).expect("there are some")
    }

    fn ledgers(self) -> BTreeSet<u32> {
        match self {
            Self::Ledger(node) | Self::Pod(node) | Self::LedgerWithData(node) => [node].into(),
            Self::AllLedgers | Self::Everything => (1..=NODES).collect(),
            Self::Replicator(_) | Self::Node(_) => BTreeSet::new(),
        }
    }

    fn replicators(self) -> BTreeSet<u32> {
        match self {
            Self::Replicator(node) | Self::Pod(node) => [node].into(),
            Self::Everything => (1..=NODES).collect(),
            _ => BTreeSet::new(),
        }
    }

    fn nodes(self) -> BTreeSet<u32> {
        match self {
            Self::Node(node) | Self::Pod(node) => [node].into(),
            Self::Everything => (1..=NODES).collect(),
            _ => BTreeSet::new(),
        }
    }
}

/// Three nodes, replicators and ledgers.
struct Ledgers {
    cluster: Cluster,
    machines: Machines,
}

impl Ledgers {
    async fn start(python: Python) -> Self {
        let mut options = Options::quick().of(NODES);
        // Snapshots are taken of it all the time, and what lost its data is restored.
        let often = ["--snapshot-every-operations", "400"];
        options.node_flags.extend(often.map(str::to_owned));
        let mut machines = Machines::beside(&mut options, Kind::Ledger(python));
        machines.start_all();
        let cluster = Cluster::start(options).await;
        Self { cluster, machines }
    }

    fn client(&self) -> Client {
        let endpoints = self.cluster.addresses().into_iter();
        let endpoints = endpoints.map(|at| Endpoint::parse(&at.to_string()).expect("an endpoint"));
        let options = ClientOptions {
            timeout: Duration::from_mins(1),
            ..ClientOptions::default()
        };
        Client::new(endpoints.collect(), options).expect("a client")
    }

    async fn open_accounts(&self) {
        let session = self.client().session("bank", 1).expect("a session");
        for number in 0..ACCOUNTS {
            let operation = format!("open {} {OPENED}", ledger::account(number));
            let opened = session.submit_and_wait(operation, WaitFor::Executed).await;
            let result = opened.expect("it is committed").result;
            assert_eq!(result.as_deref(), Some(&b"done"[..]));
        }
    }

    /// All the money, as any node answers.
    async fn assert_total(&self, client: &Client) {
        let total = client.query("total", false).await;
        let total = total.expect("a majority is there again, and so are ledgers");
        assert_eq!(total.result, (ACCOUNTS * OPENED).to_string());
    }

    async fn strike(&mut self, victim: Victim, away: Duration) {
        let (ledgers, replicators, nodes) = (victim.ledgers(), victim.replicators(), victim.nodes());
        let mut programs = self.machines.of_all(&ledgers);
        programs.extend(self.cluster.nodes_of(&nodes));
        kill(programs).await;
        kill(self.cluster.replicators_of(&replicators)).await;
        if let Victim::LedgerWithData(node) = victim {
            self.machines.of(node).delete_folder();
        }
        sleep(away).await;
        for node in 1..=NODES {
            let running = [
                self.machines.of(node).is_running() != ledgers.contains(&node),
                self.cluster.replicator(node).is_running() != replicators.contains(&node),
                self.cluster.node(node).is_running() != nodes.contains(&node),
            ];
            assert_eq!(
                running, [true; 3],
                "something of pod {node} ended by itself: {victim:?}"
            );
        }
        self.machines.start_all();
        self.cluster.start_all();
    }

    /// What a node's own ledger answers, however far it is.
    async fn ask(&self, node: u32, query: &str) -> Result<(String, u64), String> {
        let mut client = api::operations(self.cluster.address(node));
        let answer = api::query(&mut client, query, true).await;
        let answer = answer.map_err(|status| format!("node {node}: {status}"))?;
        Ok((String::from_utf8_lossy(&answer.result).into_owned(), answer.index))
    }

    /// Waits until all have executed all there is.
    async fn settle(&self) {
        let session = self.client().session("last", 1).expect("a session");
        let last = session.submit_and_wait("nothing", WaitFor::Executed).await;
        let index = last.expect("it is committed").index;
        self.cluster.wait_until_executed(index).await;
    }

    async fn journal(&self, node: u32) -> Vec<Entry> {
        let mut journal: Vec<Entry> = Vec::new();
        loop {
            let from = journal.last().map_or(0, |last| last.operation + 1);
            let (page, _) = self.ask(node, &format!("journal {from}")).await.expect("a page");
            let entries = page.lines().map(|line| Entry::parse(line).expect("an entry"));
            let before = journal.len();
            journal.extend(entries);
            if journal.len() == before {
                return journal;
            }
        }
    }

    async fn balances(&self, node: u32) -> BTreeMap<String, u64> {
        let mut balances = BTreeMap::new();
        for number in 0..ACCOUNTS {
            let account = ledger::account(number);
            let (balance, _) = self
                .ask(node, &format!("balance {account}"))
                .await
                .expect("a balance");
            balances.insert(account, balance.parse().expect("a number"));
        }
        balances
    }

    async fn check(&self, told: &Told) {
        self.settle().await;
        let mut journals = Vec::new();
        for node in 1..=NODES {
            let (journal, balances) = (self.journal(node).await, self.balances(node).await);
            if let Err(violation) = ledger::check(&told.acknowledged, &told.unanswered, &journal, &balances) {
                panic!("ledger {node}: {violation:#?}");
            }
            assert_eq!(balances.values().sum::<u64>(), ACCOUNTS * OPENED);
            journals.push(journal);
        }
        assert!(
            journals.windows(2).all(|pair| pair[0] == pair[1]),
            "ledgers differ in their journals"
        );
        let of = |result: &str| {
            let answers = told.acknowledged.iter();
            let results = answers.filter_map(|answer| answer.result.as_ref());
            results
                .filter(|found| found.starts_with(result.as_bytes()))
                .count()
        };
        println!(
            "{} transfers acknowledged: {} done, {} refused, the others' results lost; {} in the journal",
            told.acknowledged.len(),
            of("done"),
            of("refused"),
            journals[0].len(),
        );
        assert!(of("done") > 0 && of("refused") > 0, "both are to be tested");
    }
}

/// All at once.
async fn kill(mut programs: Vec<&mut Program>) {
    for program in &mut programs {
        program.process().strike();
    }
    for program in programs {
        program.process().wait().await;
    }
}

fn length() -> Duration {
    let seconds = match std::env::var(SECONDS) {
        Ok(given) => given
            .parse()
            .unwrap_or_else(|_| panic!("{SECONDS} is not a number: {given}")),
        Err(_) => SECONDS_DEFAULT,
    };
    Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_transfer_is_done_once_while_everything_is_killed() {
    const TEST: &str = "ledger::each_transfer_is_done_once_while_everything_is_killed";
    let Some(python) = Python::find(TEST) else {
        return;
    };
    let (seed, mut random) = seed::announce(TEST);
    let mut ledgers = Ledgers::start(python).await;
    ledgers.open_accounts().await;
    let client = ledgers.client();
    let nodes = ledgers.cluster.addresses();
    let load = Load::start_commanding("payer", &nodes, CLIENTS, seed, PAUSE_MAX, || Transfers);
    let began = Instant::now();
    let mut struck: BTreeMap<String, u64> = BTreeMap::new();
    while began.elapsed() < length() {
        load.progresses_by(random.random_range(1..40)).await;
        let victim = Victim::draw(&mut random);
        let away = Duration::from_millis(random.random_range(0..1_200));
        println!("{:6.2} s: {victim:?} for {away:?}", began.elapsed().as_secs_f64());
        ledgers.strike(victim, away).await;
        *struck.entry(format!("{victim:?}")).or_default() += 1;
        if random.random_bool(0.3) {
            ledgers.assert_total(&client).await;
        }
    }
    ledgers.cluster.wait_until_ready().await;
    load.progresses_by(2 * CLIENTS).await;
    let told = load.finish().await;
    println!("killed: {struck:?}");
    ledgers.assert_total(&client).await;
    ledgers.check(&told).await;
}

/// What its own tests say, which need what the ledger needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_s_own_tests_pass() {
    let Some(python) = Python::find("ledger::the_ledger_s_own_tests_pass") else {
        return;
    };
    let mut arguments = python.launcher();
    arguments.push(python.tests().display().to_string());
    let finished = process::run(Path::new("/usr/bin/env"), &arguments[1..], b"").await;
    assert_eq!(finished.code, 0, "{:#?}", finished.stderr);
    let ran = finished
        .stderr
        .iter()
        .any(|line| line.starts_with("Ran ") && !line.starts_with("Ran 0 "));
    assert!(ran, "{:#?}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raftctl_is_all_that_a_ledger_needs() {
    let Some(python) = Python::find("ledger::raftctl_is_all_that_a_ledger_needs") else {
        return;
    };
    let ledgers = Ledgers::start(python).await;
    let raftctl = async |arguments: &[&str]| ledgers.cluster.raftctl(arguments).await;
    let submit = ["-o", "raw", "submit", "--wait-for", "executed"];
    let operations = [
        "open alice 100",
        "open bob 0",
        "transfer rent-11 alice bob 30",
        "transfer rent-12 bob alice 31",
    ];
    let submitted = raftctl(&[&submit[..], &operations].concat()).await;
    assert_eq!(
        submitted.expect(0, &[]).text(),
        "done\ndone\ndone\nrefused: bob has 30\n"
    );
    raftctl(&["query", "balance bob"]).await.expect(0, &[]);
    assert_eq!(
        raftctl(&["-o", "raw", "query", "total"]).await.text().trim(),
        "100"
    );
    assert_eq!(
        raftctl(&["-o", "raw", "query", "journal 1"]).await.text().trim(),
        "3 rent-11 alice bob 30"
    );
    raftctl(&["query", "balance carol"])
        .await
        .expect(1, &["there is no account carol"]);
    let unknown = raftctl(&["query", "steal alice"]).await;
    assert!(
        unknown.code != 0 && unknown.stderr[0].contains("the ledger knows the queries"),
        "{unknown:?}"
    );
    eventually("the last of it to be executed everywhere", async || {
        let count = async |node| ledgers.ask(node, "transfers").await.map(|(count, _)| count);
        let counts = [count(1).await?, count(2).await?, count(3).await?];
        counts
            .iter()
            .all(|count| count == "1")
            .then_some(())
            .ok_or(format!("{counts:?}"))
    })
    .await;
}
