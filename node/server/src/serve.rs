//! The gRPC ports: services, health and reflection on each.

use std::time::Duration;

use raftlog_proto::v1::cluster_server::{ClusterServer, SERVICE_NAME as CLUSTER};
use raftlog_proto::v1::operations_server::{OperationsServer, SERVICE_NAME as OPERATIONS};
use raftlog_proto::v1::raft_server::{RaftServer, SERVICE_NAME as RAFT};
use raftlog_proto::{DESCRIPTORS, MESSAGE_BYTES_MAX};
use raftlog_telemetry::listener::BoundedListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
use tonic::transport::{Error, Server};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::Builder as Reflection;

use crate::cluster_service::ClusterService;
use crate::connect::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::handle::Handle;
use crate::lifecycle::Lifecycle;
use crate::operations_service::OperationsService;
use crate::raft_service::RaftService;
use crate::readiness::readiness;

/// Calls under way on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 4_096;
/// Calls that were cancelled before this node saw them, on one connection.
const CANCELLED_CALLS_MAX: usize = 4_096;
/// A client that does not answer a ping for so long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are pinged this often.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// What is served.
pub(crate) struct Services {
    pub(crate) operations: OperationsService,
    pub(crate) cluster: ClusterService,
    pub(crate) raft: RaftService,
    pub(crate) health: HealthReporter,
}

/// Serves until `drain`, and then until every call has ended. One listener serves all; with two, the second serves what is
/// for nodes and the first what is for clients.
pub(crate) async fn serve(
    services: Services,
    clients: BoundedListener,
    peers: Option<BoundedListener>,
    drain: CancellationToken,
) -> Result<(), String> {
    let names: &[&str] = if peers.is_some() {
        &[OPERATIONS]
    } else {
        &[OPERATIONS, RAFT, CLUSTER]
    };
    let router = base(&services.health, names)?.add_service(limited(services.operations));
    let for_peers = |router: Router| {
        let raft = RaftServer::new(services.raft.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        router
            .add_service(raft)
            .add_service(ClusterServer::new(services.cluster.clone()))
    };
    let served = match peers {
        None => run(for_peers(router), clients, &drain).await,
        Some(peers) => {
            let second = for_peers(base(&services.health, &[RAFT, CLUSTER])?);
            tokio::try_join!(run(router, clients, &drain), run(second, peers, &drain)).map(|_| ())
        }
    };
    served.map_err(|error| format!("serving gRPC failed: {}", crate::connect::root_cause(&error)))
}

fn limited(operations: OperationsService) -> OperationsServer<OperationsService> {
    OperationsServer::new(operations)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// Health and reflection, which lists the services with these names.
fn base(health: &HealthReporter, names: &[&str]) -> Result<Router, String> {
    let reflection = || {
        let reflection = Reflection::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(tonic_health::pb::health_server::SERVICE_NAME);
        names
            .iter()
            .fold(reflection, |reflection, name| reflection.with_service_name(*name))
    };
    let broken = |error: tonic_reflection::server::Error| {
        format!("the descriptors for reflection are broken: {error}")
    };
    Ok(Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        // A node that was frozen finds all its callers' cancelled calls at once: no reason to hang up on them.
        .http2_max_pending_accept_reset_streams(Some(CANCELLED_CALLS_MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(HealthServer::new(HealthService::from_health_reporter(
            health.clone(),
        )))
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?))
}

async fn run(router: Router, listener: BoundedListener, drain: &CancellationToken) -> Result<(), Error> {
    router
        .serve_with_incoming_shutdown(listener, drain.clone().cancelled_owned())
        .await
}

/// Keeps the health of service "" equal to readiness.
pub(crate) async fn report_health(
    reporter: HealthReporter,
    core: Handle,
    lifecycle: Lifecycle,
    replicator_name: String,
) {
    let mut watch = core.watch();
    let mut last = None;
    loop {
        let stopping = lifecycle.is_stopping();
        let ready = readiness(&watch.borrow_and_update(), &replicator_name, stopping).yes;
        let status = if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        if last.replace(ready) != Some(ready) {
            reporter.set_service_status("", status).await;
        }
        tokio::select! {
            changed = watch.changed() => if changed.is_err() { return },
            () = lifecycle.stopping.cancelled(), if !stopping => {}
        }
    }
}
