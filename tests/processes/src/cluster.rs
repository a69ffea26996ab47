//! Nodes and replicators side by side on loopback.

use crate::address::Address;
use crate::api;
use crate::binaries;
use crate::history::{self, Acknowledged, Logged};
use crate::http::{self, Answer};
use crate::linearizability::{self, History};
use crate::load::Load;
use crate::ports::Ports;
use crate::process::{self, Finished, Process};
use crate::story;
use crate::wait::eventually;
use bytes::Bytes;
use raftlog_proto::v1::{NodeStatus, Role, SubmitClientRequestResponse};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

/// A cluster is ten processes: more than two at a time only slow each other down.
static TURNS: Semaphore = Semaphore::const_new(2);

/// What a cluster is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes, 1 to 9, each with a replicator.
    pub nodes: u32,
    /// More flags for every node.
    pub node_flags: Vec<String>,
    /// More flags for every replicator; `{node}` in them is its node's number.
    pub replicator_flags: Vec<String>,
    /// Node numbers whose data, the replicator's included, live elsewhere.
    pub volumes: BTreeMap<u32, PathBuf>,
    /// Node numbers that run, with their replicators, on machines of their own.
    pub hosts: BTreeMap<u32, Host>,
}

/// A machine, as far as this kernel can tell one from another.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where clients reach it.
    pub address: Ipv4Addr,
    /// Where its peers do.
    pub peer_address: Ipv4Addr,
    /// The command that runs a program there.
    pub launcher: Vec<String>,
}

impl Options {
    /// The protocol's own timings.
    pub fn with_default_timings() -> Self {
        Self {
            nodes: 5,
            node_flags: vec![],
            replicator_flags: vec![],
            volumes: BTreeMap::new(),
            hosts: BTreeMap::new(),
        }
    }

    /// Timings that make elections quick, where their length is not what is tested.
    pub fn quick() -> Self {
        Self::with_timings("300ms..600ms", "100ms")
    }

    /// The same with another number of nodes.
    #[must_use]
    pub fn of(self, nodes: u32) -> Self {
        Self { nodes, ..self }
    }

    /// These timings.
    pub fn with_timings(election_timeout: &str, heartbeat_interval: &str) -> Self {
        let flags = [
            "--election-timeout",
            election_timeout,
            "--heartbeat-interval",
            heartbeat_interval,
        ];
        Self {
            node_flags: flags.map(str::to_owned).to_vec(),
            ..Self::with_default_timings()
        }
    }
}

/// A program that can be started again with the same flags, ports and data.
#[derive(Debug)]
pub struct Program {
    name: String,
    binary: PathBuf,
    launcher: Vec<String>,
    arguments: Vec<String>,
    folder: PathBuf,
    runs: Vec<Process>,
    /// The first run with the data that it has now.
    first_run: usize,
}

/// Five nodes (or another number), their replicators, and their data.
#[derive(Debug)]
pub struct Cluster {
    nodes: BTreeMap<u32, Program>,
    replicators: BTreeMap<u32, Program>,
    ports: Ports,
    options: Options,
    // Dropped after the programs that write into it.
    folder: TempDir,
    _turn: SemaphorePermit<'static>,
}

impl Program {
    /// A program that is not running yet. It is given its data folder with `--data-dir`.
    pub fn new(name: String, binary: &'static str, folder: PathBuf, mut arguments: Vec<String>) -> Self {
        arguments.extend(["--data-dir".into(), folder.display().to_string()]);
        Self {
            name,
            binary: binaries::path(binary).to_owned(),
            launcher: vec![],
            arguments,
            folder,
            runs: vec![],
            first_run: 0,
        }
    }

    /// The same of any program: `binary` by `launcher`, which tells it where its data folder is.
    pub fn launched(name: String, launcher: Vec<String>, binary: PathBuf, folder: PathBuf) -> Self {
        Self {
            name,
            binary,
            launcher,
            arguments: vec![],
            folder,
            runs: vec![],
            first_run: 0,
        }
    }

    /// From its next start on it is that program, which takes the same flags.
    pub fn install(&mut self, binary: &'static str) {
        binaries::path(binary).clone_into(&mut self.binary);
    }

    /// Has it run on a machine of its own.
    #[must_use]
    pub fn on(mut self, host: Option<&Host>) -> Self {
        self.launcher = host.map(|host| host.launcher.clone()).unwrap_or_default();
        self
    }

    /// Starts it, for the first time or again.
    pub fn start(&mut self) {
        assert!(!self.is_running(), "{} runs already", self.name);
        self.spawn();
    }

    /// SIGTERM, and starts it again before it has ended; answers how it ended.
    pub async fn restart_in_haste(&mut self) -> ExitStatus {
        self.process().signal(Signal::TERM);
        self.spawn();
        let before = self.runs.iter_mut().rev().nth(1);
        before.expect("it was running").wait().await
    }

    fn spawn(&mut self) {
        let mut command = self.launcher.clone();
        command.push(self.binary.display().to_string());
        command.extend(self.arguments.iter().cloned());
        let (program, arguments) = command.split_first().expect("it has at least the binary");
        self.runs
            .push(Process::spawn(&self.name, Path::new(program), arguments));
    }

    /// Starts it behind a reader that never reads: `PROGRAM | sleep`.
    pub fn start_unread(&mut self) {
        self.start_by(r#""$@" | sleep 3600"#);
    }

    /// Starts it where nobody keeps what it says: `PROGRAM > /dev/null`.
    pub fn start_unheard(&mut self) {
        self.start_by(r#"exec "$@" > /dev/null"#);
    }

    /// Starts it with what it says at the end of that file: `PROGRAM >> FILE`.
    pub fn start_logging_to(&mut self, file: &Path) {
        self.start_by(&format!(r#"exec "$@" >> {}"#, file.display()));
    }

    /// Starts it by a shell that does this with it as `"$@"`.
    fn start_by(&mut self, script: &str) {
        assert!(!self.is_running(), "{} runs already", self.name);
        let mut arguments = vec!["-c".to_owned(), script.to_owned(), "sh".into()];
        arguments.push(self.binary.display().to_string());
        arguments.extend(self.arguments.iter().cloned());
        self.runs
            .push(Process::spawn(&self.name, Path::new("/bin/sh"), &arguments));
    }

    /// Its latest run.
    ///
    /// # Panics
    /// Before the first one.
    pub fn process(&mut self) -> &mut Process {
        self.runs
            .last_mut()
            .unwrap_or_else(|| panic!("{} was never started", self.name))
    }

    /// Whether it was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.runs.last_mut().is_some_and(Process::is_running)
    }

    /// kill -9, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.process().kill().await;
    }

    /// SIGTERM, and waits until it is gone.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.process().signal(Signal::TERM);
        self.process().wait().await
    }

    /// stdout, run by run, since it began with an empty folder.
    pub fn stories(&self) -> Vec<Vec<String>> {
        self.runs
            .iter()
            .skip(self.first_run)
            .map(Process::stdout)
            .collect()
    }

    /// The flags it is started with.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Where its data are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Deletes its data.
    ///
    /// # Panics
    /// While it runs.
    pub fn delete_folder(&mut self) {
        let folder = self.folder.clone();
        self.delete_folder_at(&folder);
    }

    /// The same where its folder is elsewhere for this process.
    ///
    /// # Panics
    /// While it runs.
    pub fn delete_folder_at(&mut self, folder: &Path) {
        assert!(!self.is_running(), "{} still writes into its folder", self.name);
        match fs::remove_dir_all(folder) {
            // It was killed before it made one.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.expect("a data folder can be removed"),
        }
        self.first_run = self.runs.len();
    }
}

impl Cluster {
    /// Starts a cluster and waits until all of it is ready.
    pub async fn start(options: Options) -> Self {
        let mut cluster = Self::prepare(options).await;
        cluster.start_all();
        cluster.wait_until_ready().await;
        cluster
    }

    /// A cluster of which nothing runs yet. Waits for its turn among the tests of this process.
    pub async fn prepare(options: Options) -> Self {
        binaries::path("raft-node");
        let turn = TURNS.acquire().await.expect("the semaphore is never closed");
        let ports = Ports::claim();
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        let peers: Vec<String> = (1..=options.nodes)
            .map(|node| {
                let address = reached_by_peers(options.hosts.get(&node), client_port(&ports, node));
                format!("{node}={address}")
            })
            .collect();
        let peers = peers.join(",");
        let (mut nodes, mut replicators) = (BTreeMap::new(), BTreeMap::new());
        for node in 1..=options.nodes {
            let place = options.volumes.get(&node).map_or(folder.path(), PathBuf::as_path);
            let host = options.hosts.get(&node);
            let program = node_program(&ports, node, ["--peer", &peers], place, host, &options.node_flags);
            nodes.insert(node, program);
            let program = replicator_program(&ports, node, place, host, &options.replicator_flags);
            replicators.insert(node, program);
        }
        Self {
            nodes,
            replicators,
            ports,
            options,
            folder,
            _turn: turn,
        }
    }

    /// Starts one more node, with its replicator, which belongs to nothing and waits to be added. Gives its number.
    pub fn start_another(&mut self) -> u32 {
        let node = self.nodes.keys().max().map_or(1, |last| last + 1);
        let (place, options) = (self.folder.path(), &self.options);
        let host = options.hosts.get(&node);
        let address = reached_by_peers(host, self.port(node));
        let flags = ["--advertise", &address];
        let program = node_program(&self.ports, node, flags, place, host, &options.node_flags);
        let replicator = replicator_program(&self.ports, node, place, host, &options.replicator_flags);
        self.nodes.insert(node, program);
        self.replicators.insert(node, replicator);
        self.start_all();
        node
    }

    /// Starts whatever is not running.
    pub fn start_all(&mut self) {
        for program in self.replicators.values_mut().chain(self.nodes.values_mut()) {
            if !program.is_running() {
                program.start();
            }
        }
    }

    /// Starts everything where nobody keeps what it says: it may be more than memory holds.
    pub fn start_all_unheard(&mut self) {
        for program in self.replicators.values_mut().chain(self.nodes.values_mut()) {
            program.start_unheard();
        }
    }

    /// kill -9 of everything, all at once.
    pub async fn kill_all(&mut self) {
        let mut programs: Vec<&mut Program> = self
            .nodes
            .values_mut()
            .chain(self.replicators.values_mut())
            .collect();
        for program in &mut programs {
            program.process().strike();
        }
        for program in programs {
            program.process().wait().await;
        }
    }

    /// Waits until every node and every replicator is ready.
    pub async fn wait_until_ready(&mut self) {
        let everybody: Vec<u32> = self.numbers();
        self.wait_until_these_are_ready(&everybody).await;
    }

    /// Waits until these nodes and their replicators are ready.
    pub async fn wait_until_these_are_ready(&mut self, nodes: &[u32]) {
        for &node in nodes {
            eventually(&format!("replicator {node} to be ready"), async || {
                self.assert_running(node);
                expect_ready(self.replicator_readiness(node).await)
            })
            .await;
            eventually(&format!("node {node} to be ready"), async || {
                self.assert_running(node);
                expect_ready(self.readiness(node).await)
            })
            .await;
        }
    }

    fn assert_running(&mut self, node: u32) {
        assert!(self.node(node).is_running(), "node {node} ended");
        assert!(self.replicator(node).is_running(), "replicator {node} ended");
    }

    /// All node numbers.
    pub fn numbers(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    /// All node numbers but these.
    pub fn others(&self, but: &[u32]) -> Vec<u32> {
        self.numbers()
            .into_iter()
            .filter(|node| !but.contains(node))
            .collect()
    }

    /// A node.
    pub fn node(&mut self, node: u32) -> &mut Program {
        self.nodes.get_mut(&node).expect("a node number of this cluster")
    }

    /// A node's replicator.
    pub fn replicator(&mut self, node: u32) -> &mut Program {
        self.replicators
            .get_mut(&node)
            .expect("a node number of this cluster")
    }

    /// Several nodes.
    pub fn nodes_of(&mut self, numbers: &BTreeSet<u32>) -> Vec<&mut Program> {
        of(&mut self.nodes, numbers)
    }

    /// Several replicators.
    pub fn replicators_of(&mut self, numbers: &BTreeSet<u32>) -> Vec<&mut Program> {
        of(&mut self.replicators, numbers)
    }

    /// The folder that all data folders are in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where clients reach a node.
    pub fn address(&self, node: u32) -> Address {
        self.at(node, self.port(node))
    }

    /// Where clients reach a replicator.
    pub fn replicator_address(&self, node: u32) -> Address {
        self.at(node, self.replicator_port(node))
    }

    fn at(&self, node: u32, port: u16) -> Address {
        let host = self.options.hosts.get(&node);
        (host.map_or(Ipv4Addr::LOCALHOST, |host| host.address), port).into()
    }

    /// Where clients (and peers) reach a node.
    pub fn port(&self, node: u32) -> u16 {
        client_port(&self.ports, node)
    }

    /// Where clients (and its node) reach a replicator.
    pub fn replicator_port(&self, node: u32) -> u16 {
        replicator_port(&self.ports, node)
    }

    /// A node's HTTP port.
    pub fn http_port(&self, node: u32) -> u16 {
        http_port(&self.ports, node)
    }

    /// A replicator's HTTP port.
    pub fn replicator_http_port(&self, node: u32) -> u16 {
        replicator_http_port(&self.ports, node)
    }

    /// A port of the cluster's block that none of it uses, 0 to 9.
    pub fn spare_port(&self, number: u16) -> u16 {
        assert!(number < 10, "there are ten spare ports");
        self.ports.at(40 + number)
    }

    /// Clients' ports of these nodes.
    pub fn ports(&self, nodes: &[u32]) -> Vec<u16> {
        nodes.iter().map(|&node| self.port(node)).collect()
    }

    /// Waits until all replicators have executed what there is up to that operation.
    ///
    /// # Panics
    /// When they do not in time.
    pub async fn wait_until_executed(&self, index: u64) {
        eventually("all operations to be executed everywhere", async || {
            for node in self.numbers() {
                let status = self.status(node).await.map_err(|error| error.to_string())?;
                let executed = status
                    .replicator
                    .map_or(0, |replicator| replicator.executed_index);
                if executed < index {
                    return Err(format!("replicator {node} executed {executed} of {index}"));
                }
            }
            Ok(())
        })
        .await;
    }

    /// `/readyz` of a node.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn readiness(&self, node: u32) -> Result<Answer, String> {
        http::get(self.at(node, self.http_port(node)), "/readyz").await
    }

    /// `/readyz` of a replicator.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn replicator_readiness(&self, node: u32) -> Result<Answer, String> {
        http::get(self.at(node, self.replicator_http_port(node)), "/readyz").await
    }

    /// Makes a member a voter by raftctl, once it has caught up.
    pub async fn promote(&self, node: u32) {
        let number = node.to_string();
        eventually(&format!("node {node} to be promoted"), async || {
            let promoted = self.raftctl(&["member", "promote", &number]).await;
            if promoted.code == 0 {
                Ok(())
            } else {
                Err(promoted.stderr.join(" "))
            }
        })
        .await;
    }

    /// Waits until a node says on `/readyz` that it is unready, with each of `words` in its reason.
    pub async fn wait_until_unready(&self, node: u32, words: &[&str]) -> String {
        eventually(
            &format!("node {node} to be unready and name {words:?}"),
            async || {
                let answer = self.readiness(node).await?;
                let told = answer.status == 503 && words.iter().all(|word| answer.body.contains(word));
                if told {
                    Ok(answer.body)
                } else {
                    Err(format!("{answer:?}"))
                }
            },
        )
        .await
    }

    /// A node's own view.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, node: u32) -> Result<NodeStatus, Status> {
        api::status(self.address(node)).await
    }

    /// Waits until one of `nodes` leads and all of `nodes` agree on it; gives its status.
    pub async fn leader_among(&self, nodes: &[u32]) -> NodeStatus {
        eventually(&format!("nodes {nodes:?} to agree on a leader"), async || {
            let mut views = Vec::new();
            for &node in nodes {
                views.push(
                    self.status(node)
                        .await
                        .map_err(|error| format!("node {node}: {error}"))?,
                );
            }
            let leader = views
                .iter()
                .find(|view| view.role() == Role::Leader)
                .ok_or("none leads")?;
            let agreed = views.iter().all(|view| {
                view.term == leader.term
                    && view
                        .leader
                        .as_ref()
                        .is_some_and(|named| named.node == leader.node)
            });
            if agreed {
                Ok(leader.clone())
            } else {
                Err(format!("they disagree: {}", brief(&views)))
            }
        })
        .await
    }

    /// Waits until all nodes agree on a leader, and gives its node number.
    pub async fn leader(&self) -> u32 {
        self.leader_among(&self.numbers()).await.node
    }

    /// Submits one operation to a node, without a session and without retries.
    ///
    /// # Errors
    /// What the node answers.
    pub async fn submit(
        &self,
        node: u32,
        operation: impl Into<Bytes>,
    ) -> Result<SubmitClientRequestResponse, Status> {
        api::submit(self.address(node), operation).await
    }

    /// Where clients reach the nodes.
    pub fn addresses(&self) -> Vec<Address> {
        self.nodes.keys().map(|&node| self.address(node)).collect()
    }

    /// Starts clients with sessions against all nodes.
    pub fn load(&self, name: &str, clients: u64, seed: u64) -> Load {
        Load::start(name, &self.addresses(), clients, seed)
    }

    /// Runs raftctl to its end against this cluster.
    pub async fn raftctl(&self, arguments: &[&str]) -> Finished {
        self.raftctl_with(arguments, &[]).await
    }

    /// Runs raftctl to its end against this cluster, with a standard input.
    pub async fn raftctl_with(&self, arguments: &[&str], stdin: &[u8]) -> Finished {
        process::run(binaries::path("raftctl"), &self.with_addresses(arguments), stdin).await
    }

    /// Runs raftctl where nothing that it prints finds room.
    pub async fn raftctl_to_a_full_disk(&self, arguments: &[&str]) -> Finished {
        let mut all = vec!["-c".to_owned(), r#"exec "$@" > /dev/full"#.into(), "sh".into()];
        all.push(binaries::path("raftctl").display().to_string());
        all.extend(self.with_addresses(arguments));
        process::run(Path::new("/bin/sh"), &all, &[]).await
    }

    /// Starts raftctl against this cluster.
    pub fn start_raftctl(&self, name: &str, arguments: &[&str]) -> Process {
        Process::spawn(name, binaries::path("raftctl"), &self.with_addresses(arguments))
    }

    /// Starts raftctl against this cluster, with a file as its standard input.
    pub fn start_raftctl_reading(&self, name: &str, arguments: &[&str], file: &Path) -> Process {
        let file = File::open(file).expect("the input can be read");
        Process::spawn_with(
            name,
            binaries::path("raftctl"),
            &self.with_addresses(arguments),
            &[],
            file.into(),
        )
    }

    fn with_addresses(&self, arguments: &[&str]) -> Vec<String> {
        let addresses = |address: &dyn Fn(u32) -> Address| {
            let all: Vec<String> = self.nodes.keys().map(|&node| address(node).to_string()).collect();
            all.join(",")
        };
        let mut all = vec!["--endpoints".into(), addresses(&|node| self.address(node))];
        all.extend([
            "--replicators".into(),
            addresses(&|node| self.replicator_address(node)),
        ]);
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        all
    }

    /// Waits until these replicators hold and have executed everything committed, and gives their logs.
    pub async fn settled_logs(&self, nodes: &[u32]) -> BTreeMap<u32, Vec<Logged>> {
        eventually(
            &format!("the replicators of nodes {nodes:?} to hold and execute all that is committed"),
            async || {
                let leader = self.leader_among(nodes).await;
                let goal = leader.commit_index;
                if leader.last_index != goal {
                    return Err(format!(
                        "the leader's log goes to {}, committed is {goal}",
                        leader.last_index
                    ));
                }
                let mut logs = BTreeMap::new();
                for &node in nodes {
                    let status = self
                        .status(node)
                        .await
                        .map_err(|error| format!("node {node}: {error}"))?;
                    let executed = status
                        .replicator
                        .map_or(0, |replicator| replicator.executed_index);
                    let log = api::read_log(self.replicator_address(node)).await;
                    let log = log.map_err(|error| format!("replicator {node}: {error}"))?;
                    if executed != goal || log.last().map_or(0, |last| last.index) != goal {
                        let held = log.len();
                        return Err(format!(
                            "replicator {node} executed {executed} and holds {held} of {goal}"
                        ));
                    }
                    logs.insert(node, log);
                }
                Ok(logs)
            },
        )
        .await
    }

    /// Waits until all is settled, and checks what clients were told against all logs and all `executes` lines. Gives
    /// the log.
    ///
    /// # Panics
    /// At a violation.
    pub async fn check_history(&mut self, acknowledged: &[Acknowledged]) -> Vec<Logged> {
        let logs = self.settled_logs(&self.numbers()).await;
        if let Err(violation) = history::check(acknowledged, &logs) {
            panic!("{violation:#?}");
        }
        self.check_stories(logs).await
    }

    /// The same for everything that clients saw.
    ///
    /// # Panics
    /// At a violation.
    pub async fn check_linearizability(&mut self, history: &History) -> Vec<Logged> {
        let logs = self.settled_logs(&self.numbers()).await;
        if let Err(violation) = linearizability::check(history, &logs) {
            panic!("{violation:#?}");
        }
        self.check_stories(logs).await
    }

    async fn check_stories(&self, logs: BTreeMap<u32, Vec<Logged>>) -> Vec<Logged> {
        for (node, log) in &logs {
            self.check_story(*node, log).await;
        }
        logs.into_values().next().expect("a cluster has a replicator")
    }

    /// Lines pass through a pipe: the last ones are waited for, everything else must be right at once.
    async fn check_story(&self, node: u32, log: &[Logged]) {
        let program = self
            .replicators
            .get(&node)
            .expect("a node number of this cluster");
        eventually(
            &format!("replicator {node} to have said all it executed"),
            async || match story::check_executes(node, &program.stories(), log) {
                Ok(()) => Ok(()),
                Err(unfinished @ story::Violation::Unfinished { .. }) => Err(format!("{unfinished:?}")),
                Err(violation) => panic!("replicator {node}: {violation:?}"),
            },
        )
        .await;
    }
}

fn of<'a>(programs: &'a mut BTreeMap<u32, Program>, numbers: &BTreeSet<u32>) -> Vec<&'a mut Program> {
    let chosen = programs.iter_mut().filter(|(number, _)| numbers.contains(number));
    chosen.map(|(_, program)| program).collect()
}

/// `belongs` is the flag that says to which cluster, or where it is reached.
fn node_program(
    ports: &Ports,
    node: u32,
    belongs: [&str; 2],
    place: &Path,
    host: Option<&Host>,
    more: &[String],
) -> Program {
    let mut flags = vec!["--id".into(), node.to_string()];
    flags.extend(["--listen".into(), listen(host, client_port(ports, node))]);
    flags.extend(["--http-listen".into(), listen(host, http_port(ports, node))]);
    flags.extend([
        "--replicator".into(),
        format!("http://{}", Address::from(replicator_port(ports, node))),
    ]);
    flags.extend(belongs.map(str::to_owned));
    flags.extend(more.iter().cloned());
    let (name, folder) = (format!("node{node}"), place.join(format!("node{node}")));
    Program::new(name, "raft-node", folder, flags).on(host)
}

fn replicator_program(
    ports: &Ports,
    node: u32,
    place: &Path,
    host: Option<&Host>,
    more: &[String],
) -> Program {
    let mut flags = vec![
        "--id".into(),
        node.to_string(),
        "--name".into(),
        format!("q4node{node}"),
    ];
    flags.extend(["--listen".into(), listen(host, replicator_port(ports, node))]);
    flags.extend([
        "--http-listen".into(),
        listen(host, replicator_http_port(ports, node)),
    ]);
    let number = node.to_string();
    flags.extend(more.iter().map(|flag| flag.replace("{node}", &number)));
    let (name, folder) = (format!("q4node{node}"), place.join(format!("q4node{node}")));
    Program::new(name, "raft-replicator", folder, flags).on(host)
}

fn reached_by_peers(host: Option<&Host>, port: u16) -> String {
    let address = host.map_or(Ipv4Addr::LOCALHOST, |host| host.peer_address);
    format!("{address}:{port}")
}

/// On a machine that only tests reach, it listens everywhere.
fn listen(host: Option<&Host>, port: u16) -> String {
    let address = host.map_or(Ipv4Addr::LOCALHOST, |_| Ipv4Addr::UNSPECIFIED);
    format!("{address}:{port}")
}

fn client_port(ports: &Ports, node: u32) -> u16 {
    ports.at(offset(node))
}

fn replicator_port(ports: &Ports, node: u32) -> u16 {
    ports.at(10 + offset(node))
}

fn http_port(ports: &Ports, node: u32) -> u16 {
    ports.at(20 + offset(node))
}

fn replicator_http_port(ports: &Ports, node: u32) -> u16 {
    ports.at(30 + offset(node))
}

fn offset(node: u32) -> u16 {
    assert!((1..10).contains(&node), "node numbers go from 1 to 9, not {node}");
    u16::try_from(node).expect("at most 9")
}

fn expect_ready(answer: Result<Answer, String>) -> Result<(), String> {
    let answer = answer?;
    if answer.status == 200 {
        Ok(())
    } else {
        Err(format!("{} {}", answer.status, answer.body.trim()))
    }
}

fn brief(views: &[NodeStatus]) -> String {
    let view = |view: &NodeStatus| {
        let leader = view.leader.as_ref().map_or(0, |leader| leader.node);
        format!(
            "node {} is {:?} of term {} under {leader}",
            view.node,
            view.role(),
            view.term
        )
    };
    views.iter().map(view).collect::<Vec<_>>().join("; ")
}
