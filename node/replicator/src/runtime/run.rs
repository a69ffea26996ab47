//! Puts the parts together, and takes them down in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use raftlog_storage::{FileDisk, IN_USE_MAX, OpenError, aside};
use raftlog_telemetry::listener::{self, Connections};
use raftlog_telemetry::logging::Logging;
use raftlog_telemetry::signals::Signals;
use raftlog_telemetry::story::{Story, Suppressed};
use raftlog_telemetry::{http, process};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::runtime::Handle as Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::config::Config;
use super::disk_thread::DiskThread;
use super::driver::{Driver, Stories};
use super::executor::{
    self, ByLines, CallMetrics, DeadLetters, Executor, Http, Means, OnFailure, PerOperation, StateMachine,
};
use super::executor_config::{CallingConfig, ExecutorConfig};
use super::executor_flags::ExecMode;
use super::flags::ExecuteOn;
use super::handle::{self, Handle};
use super::listen::{self, ListenAddress, Listener};
use super::metrics::Metrics;
use super::probe::ReplicatorProbe;
use super::serve::{self, Services};
use super::watchers::Watchers;
use crate::core::{self, Replicator};

/// How long servers may take to end once their calls have.
const SERVERS_END_MAX: Duration = Duration::from_secs(1);

/// Runs until a signal, or until it must not go on, which is the error: one line.
pub(super) async fn run(config: Config, logging: &Logging) -> Result<(), String> {
    // Until the folder is its own, a signal ends it at once.
    let mut disk = open_folder(&config).await?;
    // Whoever waits for it gets ports and sockets with it: it is let go of last.
    let _lock = disk.lock();
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen to signals: {error}"))?;
    finish_giving_up(&config)?;
    let core_config = core::Config {
        executor: config.executor.kind(),
        execute_on: config.execute_on.rule(),
        retention: config.retention,
        ..core::Config::new(config.node)
    };
    let runs_max = core_config.executing_operations_max;
    let core =
        Replicator::open(core_config, &mut disk, &mut rand::rng()).map_err(|error| error.to_string())?;
    let listeners = Listeners::bind(&config).await?;

    let (metrics, suppressed, mut registry) =
        (Metrics::default(), Suppressed::default(), Registry::default());
    metrics.register(&mut registry);
    let watchers = Watchers::default();
    watchers.register(&mut registry);
    suppressed.register(&mut registry);
    logging.lines().register(&mut registry);
    process::register(&mut registry);
    let connections = Connections::new(listener::connections_max(listener::raise_descriptor_limit()));
    connections.register(&mut registry);

    let stopping = CancellationToken::new();
    let (handle, inbox, ready) = handle::channels(core.status(), stopping.clone());
    listeners
        .announce(&config, &core.status())
        .map_err(|error| format!("cannot tell own addresses: {error}"))?;
    let executed = core.status().executed.index;
    let executor = start_executor(&config, logging, &handle, &mut registry, runs_max, executed)?;
    let executor_status = executor.status.clone();
    let disk = DiskThread::start(disk).map_err(|error| format!("cannot start the disk's thread: {error}"))?;
    let stories = Stories {
        replicate_log: Story::new(&suppressed, Runtime::current()),
        commit: Story::new(&suppressed, Runtime::current()),
    };
    let whose = (config.node, config.data_dir.clone());
    let driver = Driver::new(whose, core, inbox, disk, executor, stories, metrics.clone())
        .ticking(config.retention.tick_interval());
    let mut driver = tokio::spawn(driver.run(stopping.clone()));

    let reporter = tonic_health::server::HealthReporter::new();
    tokio::spawn(serve::report_health(reporter.clone(), ready));
    let mut servers = JoinSet::new();
    for (listener, services) in listeners.grpc {
        let routes = serve::routes(services, &handle, &watchers, &reporter)
            .map_err(|error| format!("cannot serve reflection: {error}"))?;
        let server = serve::serve(
            listener,
            services.port(),
            connections.clone(),
            routes,
            stopping.clone(),
        );
        servers.spawn(async { server.await.map_err(|error| error.to_string()) });
    }
    let (node, name) = (config.node, config.name);
    let probe = ReplicatorProbe {
        node,
        name,
        handle,
        executor: executor_status,
        metrics,
        watchers,
        registry,
    };
    let mut http = tokio::spawn(http::serve(
        connections.bound("http", listeners.http),
        Arc::new(probe),
    ));

    let ended = tokio::select! {
        ended = &mut driver => ended,
        // Without its ports it is of no use; a new start may get them back.
        Some(ended) = servers.join_next() => return Err(format!("a gRPC server ended: {ended:?}")),
        ended = &mut http => return Err(format!("the HTTP server ended: {ended:?}")),
        signal = signals.next() => {
            info!("Node {node}: its replicator stops on {signal}");
            stopping.cancel();
            driver.await
        }
    };
    stopping.cancel();
    // Connections that do not end are left to the end of the process.
    let all_ended = async { while servers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(SERVERS_END_MAX, all_ended).await;
    servers.shutdown().await;
    http.abort();
    let _ = http.await;
    ended.map_err(|error| format!("the core's task ended: {error}"))?
}

/// Who has the folder may be about to end.
async fn open_folder(config: &Config) -> Result<FileDisk, String> {
    let (node, folder) = (config.node, config.data_dir.clone());
    let waits = move |error: &OpenError| {
        let seconds = IN_USE_MAX.as_secs();
        info!("Node {node}: its replicator waits {seconds} s at most: {error}");
    };
    let opening = tokio::task::spawn_blocking(move || FileDisk::open_within(&folder, IN_USE_MAX, waits));
    let opened = opening
        .await
        .map_err(|error| format!("opening the data folder failed: {error}"))?;
    opened.map_err(|error| error.to_string())
}

/// What the process before found to be of no use is moved aside, before anything looks at what is left.
fn finish_giving_up(config: &Config) -> Result<(), String> {
    let folder = config.data_dir.display();
    let moved = aside::resume(&config.data_dir).map_err(|error| {
        format!("cannot move data aside in {folder}: {error}; move them away by hand and start it again")
    })?;
    if let Some(place) = moved {
        info!(
            "Node {}: its replicator begins anew, what it held of another cluster is in {} now",
            config.node,
            place.display()
        );
    }
    Ok(())
}

/// All ports, bound before anything is announced.
struct Listeners {
    grpc: Vec<(Listener, Services)>,
    http: tokio::net::TcpListener,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, String> {
        let clients = listen::bind("--listen", &ListenAddress::Tcp(config.listen)).await?;
        let own = config.replicate_listen.as_ref();
        let mut grpc = vec![(
            clients,
            Services {
                operation_log: true,
                replicator: own.is_none(),
            },
        )];
        if let Some(address) = own {
            let listener = listen::bind("--replicate-listen", address).await?;
            grpc.push((
                listener,
                Services {
                    operation_log: false,
                    replicator: true,
                },
            ));
        }
        let http = http::bind("--http-listen", config.http_listen).await?;
        Ok(Self { grpc, http })
    }

    /// One line: who this is, where it listens, and what it found.
    fn announce(&self, config: &Config, status: &core::Status) -> io::Result<()> {
        let mut serves = Vec::new();
        for (listener, services) in &self.grpc {
            let who = match (services.operation_log, services.replicator) {
                (true, true) => "clients and its node",
                (true, false) => "clients",
                (false, _) => "its node",
            };
            serves.push(format!("{who} on {}", listener.address()?));
        }
        info!(
            "Node {}: its replicator {} serves {}, HTTP on {}, from {}: total entries={}, commitIndex={}, executed={}",
            config.node,
            config.name,
            serves.join(", "),
            self.http.local_addr()?,
            config.data_dir.display(),
            status.last.index,
            status.commit.index,
            status.executed.index
        );
        Ok(())
    }
}

fn start_executor(
    config: &Config,
    logging: &Logging,
    handle: &Handle,
    registry: &mut Registry,
    runs_max: usize,
    executed: u64,
) -> Result<Executor, String> {
    let whose = (config.node, config.executor.kind());
    let (mut executor, link) = executor::link(whose, handle, runs_max, executed);
    let on_leader = config.execute_on == ExecuteOn::Leader;
    link.status.send_modify(|status| status.on_leader = on_leader);
    executor.results.register(registry);
    let mut means = |calling: &CallingConfig| means(config, calling, handle, registry);
    match &config.executor {
        ExecutorConfig::Log => {
            executor::start_log(link, logging.format(), logging.lines().clone(), handle.clone());
        }
        ExecutorConfig::Http { url, calling } => {
            executor::start_calling(Http::new(url.clone())?, link, means(calling));
        }
        ExecutorConfig::Exec {
            mode,
            command,
            calling,
        } => {
            let (command, means) = (command.clone(), means(calling));
            match mode {
                ExecMode::Operation => executor::start_calling(PerOperation::new(command), link, means),
                ExecMode::Lines => executor::start_calling(ByLines::new(command), link, means),
            }
        }
        ExecutorConfig::StateMachine { url } => {
            let (url, folder) = (url.clone(), config.data_dir.clone());
            let (task, machine) = StateMachine::new(link, url, folder, runs_max);
            executor.machine = Some(machine);
            tokio::spawn(task.run());
        }
    }
    Ok(executor)
}

/// What it takes to call something.
fn means(config: &Config, calling: &CallingConfig, handle: &Handle, registry: &mut Registry) -> Means {
    let folder = &config.data_dir;
    let dead_letters = match calling.policy.on_failure {
        OnFailure::Stop => None,
        OnFailure::Skip => {
            let letters = DeadLetters::open(folder, calling.dead_letters_bytes_max);
            // It goes on until there is something to record: what is held here is served all the same.
            letters
                .inspect_err(|error| {
                    error!(
                        "Node {}: cannot open the dead letters in {}: {error}; make them writable, or move them away, before one is to be \
                         recorded",
                        config.node,
                        folder.display()
                    );
                })
                .ok()
        }
    };
    let metrics = CallMetrics::default();
    metrics.register(registry);
    Means {
        attempt_timeout: calling.attempt_timeout,
        policy: calling.policy,
        dead_letters,
        dead_letters_at: (folder.clone(), calling.dead_letters_bytes_max),
        metrics,
        random: Box::new(StdRng::from_rng(&mut rand::rng())),
        stop: handle.stopping.clone(),
    }
}
