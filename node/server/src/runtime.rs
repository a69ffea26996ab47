//! Puts a node together, runs it, and stops it gracefully.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus_client::registry::Registry;
use raftlog_raft::ids::OperationIndex;
use raftlog_raft::planted::Planted;
use raftlog_storage::{FileDisk, IN_USE_MAX, OpenError, aside};
use raftlog_telemetry::listener::{BoundedListener, Connections};
use raftlog_telemetry::logging::Logging;
use raftlog_telemetry::signals::Signals;
use raftlog_telemetry::story::Suppressed;
use raftlog_telemetry::{clock, http, listener, process};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle as Task;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use crate::cluster_service::ClusterService;
use crate::config::Config;
use crate::core::{Core, Edges};
use crate::disk_thread;
use crate::download::DOWNLOADS_MAX;
use crate::formation::Formation;
use crate::forward::Forwarder;
use crate::handle::{COMMANDS_MAX, Handle};
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::lines::Stories;
use crate::metrics::Metrics;
use crate::node::{Bounds, Node, NodeConfig, Role};
use crate::operations_service::OperationsService;
use crate::peers::Peers;
use crate::probe::NodeProbe;
use crate::raft_service::RaftService;
use crate::replicator_link::ReplicatorLink;
use crate::results::Results;
use crate::serve::{self, Services};

/// A stopping node still forwards for so long: clients and load balancers take a while to notice.
const FORWARDING_AFTER_SIGNAL: Duration = Duration::from_secs(2);
/// Calls under way at the end may take so long.
const DRAIN_MAX: Duration = Duration::from_secs(1);

struct Listeners {
    clients: BoundedListener,
    peers: Option<BoundedListener>,
    http: BoundedListener,
    connections: Connections,
}

/// Runs until a signal; the error is one line for people.
pub(crate) async fn run(config: Config, logging: &Logging) -> Result<(), String> {
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let config = Arc::new(config);
    let (node, disk) = tokio::select! {
        opened = open(Arc::clone(&config)) => opened?,
        // Recovery only reads, and repairs what the next start would repair again.
        _ = signals.next() => return Ok(()),
    };
    // A process before this one, which may still be stopping, has let go of its ports when it lets go of its folder.
    let listeners = bind(&config).await?;
    let mut running = start(&config, node, disk, listeners, logging)?;
    let stopped = tokio::select! {
        signal = signals.next() => Ok(signal),
        ended = running.ended() => Err(ended),
    };
    let result = match stopped {
        Err(why) => Err(why),
        Ok(signal) => {
            tracing::info!("Node {} stops: {signal}", config.node);
            tokio::select! {
                stopped = running.stop_gracefully() => stopped,
                // In a hurry.
                _ = signals.next() => Ok(()),
            }
        }
    };
    running.finish().await;
    result
}

async fn bind(config: &Config) -> Result<Listeners, String> {
    let connections = Connections::new(listener::connections_max(listener::raise_descriptor_limit()));
    let clients = connections.bound("clients", http::bind("--listen", config.listen).await?);
    let peers = match config.peer_listen {
        None => None,
        Some(address) => Some(connections.bound("peers", http::bind("--peer-listen", address).await?)),
    };
    let http = connections.bound("http", http::bind("--http-listen", config.http_listen).await?);
    Ok(Listeners {
        clients,
        peers,
        http,
        connections,
    })
}

/// Opens folder and node on a thread for blocking work: recovery reads the whole log.
async fn open(config: Arc<Config>) -> Result<(Node, FileDisk), String> {
    let opening = tokio::task::spawn_blocking(move || {
        let node_config = NodeConfig {
            node: config.node,
            peer_address: config.peer_address.clone(),
            client_address: config.client_address.clone(),
            initial_peers: config.peers.clone(),
            was_removed: false,
            election_timeout_min: config.election_timeout_min,
            election_timeout_max: config.election_timeout_max,
            heartbeat_interval: config.heartbeat_interval,
            snapshots: config.snapshots,
            lease_reads: config.lease_reads,
            bounds: Bounds::default(),
            supports: config.supports,
            planted: Planted::default(),
        };
        open_folder(&config.data_dir, &node_config)
    });
    opening
        .await
        .map_err(|error| format!("opening the data folder failed: {error}"))?
}

/// A node that was removed from its cluster starts as a new member: its data are moved aside first.
fn open_folder(folder: &Path, config: &NodeConfig) -> Result<(Node, FileDisk), String> {
    let cannot_move = |error| {
        format!(
            "cannot move the data of a removed member aside in {}: {error}; move them away by hand and start it again",
            folder.display()
        )
    };
    let lock = || {
        let waits = |error: &OpenError| {
            let seconds = IN_USE_MAX.as_secs();
            tracing::info!("Node {} waits {seconds} s at most: {error}", config.node);
        };
        FileDisk::open_within(folder, IN_USE_MAX, waits).map_err(|error| error.to_string())
    };
    let open_in = |mut disk: FileDisk| {
        let random = ChaCha8Rng::from_rng(&mut rand::rng());
        let was_removed = aside::holds_removed(folder)
            .map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
        let config = NodeConfig {
            was_removed,
            ..config.clone()
        };
        let node = Node::open(config, &mut disk, clock::now(), random);
        node.map(|node| (node, disk)).map_err(|error| error.to_string())
    };
    let disk = lock()?;
    aside::resume(folder).map_err(cannot_move)?;
    let (node, disk) = open_in(disk)?;
    if node.removed_by().is_none() {
        return Ok((node, disk));
    }
    let member = node.member_id();
    drop((node, disk));
    // With no file open.
    let disk = lock()?;
    let place = aside::move_aside(folder, &member).map_err(cannot_move)?;
    tracing::info!(
        "Node {} was removed from its cluster as member {member}: its data are in {} now",
        config.node,
        place.display()
    );
    open_in(disk)
}

/// The tasks of a running node.
struct Running {
    shared: Shared,
    engine: Engine,
    serving: Task<Result<(), String>>,
    others: Vec<Task<()>>,
}

/// What almost every part needs. Clones share it.
#[derive(Clone)]
struct Shared {
    config: Arc<Config>,
    core: Handle,
    lifecycle: Lifecycle,
    metrics: Metrics,
    stories: Stories,
}

/// The core task and the disk thread.
struct Engine {
    task: Task<Result<(), String>>,
    stop: CancellationToken,
    disk_thread: JoinHandle<()>,
}

fn start(
    config: &Arc<Config>,
    node: Node,
    disk: FileDisk,
    listeners: Listeners,
    logging: &Logging,
) -> Result<Running, String> {
    let mut registry = Registry::default();
    process::register(&mut registry);
    logging.lines().register(&mut registry);
    listeners.connections.register(&mut registry);
    let suppressed = Suppressed::default();
    suppressed.register(&mut registry);
    let metrics = Metrics::new(&mut registry);

    let (engine, core) = start_engine(config, node, disk, &metrics)?;
    let shared = Shared {
        config: Arc::clone(config),
        core,
        lifecycle: Lifecycle::default(),
        metrics,
        stories: Stories::new(&suppressed, &Runtime::current()),
    };
    let (executed, executed_watch) = watch::channel(0);
    let health = HealthReporter::new();
    let results = Results::new(shared.metrics.results_waiting.clone());
    let services = services(&shared, executed_watch, results.clone(), health.clone());
    let drain = shared.lifecycle.drain.clone();
    let serving = tokio::spawn(serve::serve(services, listeners.clients, listeners.peers, drain));
    let others = vec![
        tokio::spawn(replicator_link(&shared, executed, results).run()),
        tokio::spawn(serve::report_health(
            health,
            shared.core.clone(),
            shared.lifecycle.clone(),
            config.replicator_name.clone(),
        )),
        tokio::spawn(http::serve(listeners.http, Arc::new(probe(&shared, registry)))),
    ];
    Ok(Running {
        shared,
        engine,
        serving,
        others,
    })
}

fn start_engine(
    config: &Config,
    node: Node,
    disk: FileDisk,
    metrics: &Metrics,
) -> Result<(Engine, Handle), String> {
    let disk = disk_thread::start(disk, metrics.clone())
        .map_err(|error| format!("cannot start the disk thread: {error}"))?;
    let (commands, inputs) = mpsc::channel(COMMANDS_MAX);
    let status = Arc::new(node.status(clock::now()));
    let (published, watch) = watch::channel(Arc::clone(&status));
    let core = Handle::new(commands, watch);
    let edges = Edges {
        disk: disk.operations,
        peers: Peers::new(core.clone(), metrics.clone(), config.election_timeout_min),
        formation: Formation::new(core.clone()),
        published,
        metrics: metrics.clone(),
    };
    let stop = CancellationToken::new();
    let run = Core::new(node, status, edges).run(inputs, disk.completions, stop.clone());
    Ok((
        Engine {
            task: tokio::spawn(run),
            stop,
            disk_thread: disk.thread,
        },
        core,
    ))
}

fn services(
    shared: &Shared,
    executed: watch::Receiver<OperationIndex>,
    results: Results,
    health: HealthReporter,
) -> Services {
    let Shared {
        config,
        core,
        lifecycle,
        metrics,
        stories,
    } = shared.clone();
    let operations = OperationsService {
        config: Arc::clone(&config),
        core: core.clone(),
        forwarder: Arc::new(Forwarder::new(core.clone(), config.election_timeout_min)),
        limits: Limits::new(&metrics),
        metrics: metrics.clone(),
        stories,
        executed,
        results,
        lifecycle: lifecycle.clone(),
    };
    let cluster = ClusterService {
        config,
        core: core.clone(),
        lifecycle: lifecycle.clone(),
        metrics: metrics.clone(),
        downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
    };
    let raft = RaftService {
        core,
        metrics,
        lifecycle,
    };
    Services {
        operations,
        cluster,
        raft,
        health,
    }
}

fn replicator_link(
    shared: &Shared,
    executed: watch::Sender<OperationIndex>,
    results: Results,
) -> ReplicatorLink {
    let Shared {
        config,
        core,
        metrics,
        stories,
        ..
    } = shared.clone();
    ReplicatorLink {
        config,
        core,
        metrics,
        stories,
        executed,
        results,
    }
}

fn probe(shared: &Shared, registry: Registry) -> NodeProbe {
    let Shared {
        config,
        core,
        lifecycle,
        ..
    } = shared.clone();
    NodeProbe {
        config,
        core,
        lifecycle,
        registry,
    }
}

impl Running {
    /// Why the node ended by itself.
    async fn ended(&mut self) -> String {
        let (what, ended) = tokio::select! {
            ended = &mut self.engine.task => ("core", ended),
            ended = &mut self.serving => ("gRPC", ended),
        };
        match ended {
            Ok(Err(why)) => why,
            Ok(Ok(())) => format!("the {what} task ended by itself"),
            Err(error) => format!("the {what} task failed: {error}"),
        }
    }

    /// Hands leadership over, forwards for a while, and lets calls under way end.
    async fn stop_gracefully(&mut self) -> Result<(), String> {
        self.shared.lifecycle.stopping.cancel();
        let forwarding_until = tokio::time::Instant::now() + FORWARDING_AFTER_SIGNAL;
        if self.shared.core.published().role == Role::Leader {
            let bounded = tokio::time::timeout(
                self.shared.config.election_timeout_min,
                self.shared.core.transfer(None),
            );
            match bounded.await {
                Ok(Ok(transferred)) => tracing::info!(
                    "Node {} handed leadership over to Node {}",
                    self.shared.config.node,
                    transferred.leader.node
                ),
                Ok(Err(refused)) => {
                    let why = crate::refusal::transfer(refused);
                    tracing::info!(
                        "Node {} could not hand leadership over: {}",
                        self.shared.config.node,
                        why.message()
                    );
                }
                Err(_) => tracing::info!("Node {} found no successor in time", self.shared.config.node),
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(forwarding_until) => {}
            // Its log failed meanwhile, for example.
            why = self.ended() => return Err(why),
        }
        self.shared.lifecycle.drain.cancel();
        // Whoever keeps a call open longer than that is cut off.
        let _ = tokio::time::timeout(DRAIN_MAX, &mut self.serving).await;
        Ok(())
    }

    /// Ends everything. What the disk was given is still written.
    async fn finish(mut self) {
        self.engine.stop.cancel();
        for task in &self.others {
            task.abort();
        }
        self.serving.abort();
        if !self.engine.task.is_finished() {
            let _ = (&mut self.engine.task).await;
        }
        self.shared.stories.flush();
        let thread = self.engine.disk_thread;
        let joined = tokio::task::spawn_blocking(move || thread.join());
        let _ = tokio::time::timeout(DRAIN_MAX, joined).await;
    }
}
