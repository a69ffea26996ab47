//! The gRPC servers.

use std::time::Duration;

use raftlog_proto::v1::operation_log_server::{OperationLogServer, SERVICE_NAME as OPERATION_LOG};
use raftlog_proto::v1::replicator_server::{ReplicatorServer, SERVICE_NAME as REPLICATOR};
use raftlog_proto::{DESCRIPTORS, MESSAGE_BYTES_MAX};
use raftlog_telemetry::listener::Connections;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::handle::Handle;
use super::listen::Listener;
use super::operation_log::OperationLogService;
use super::replicate_log::ReplicatorService;
use super::watchers::Watchers;

/// A connection that says nothing for so long is asked whether it is alive, so that a dead client's place gets free.
const KEEPALIVE_INTERVAL: Duration = Duration::from_mins(1);
/// And is closed without an answer for so long.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls at once on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// Which services a port has, health and reflection aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Services {
    pub(super) operation_log: bool,
    pub(super) replicator: bool,
}

impl Services {
    /// What the port is called in metrics and lines.
    pub(super) fn port(self) -> &'static str {
        if self.operation_log { "clients" } else { "node" }
    }
}

/// Serves until `stop`; open calls are to end by themselves then.
pub(super) async fn serve(
    listener: Listener,
    port: &'static str,
    connections: Connections,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_routes(routes);
    match listener {
        Listener::Tcp(listener) => {
            let incoming = connections.bound(port, listener);
            server
                .serve_with_incoming_shutdown(incoming, stop.cancelled())
                .await
        }
        Listener::Unix(listener, _file) => {
            let incoming = UnixListenerStream::new(listener);
            server
                .serve_with_incoming_shutdown(incoming, stop.cancelled())
                .await
        }
    }
}

/// The services of one port.
pub(super) fn routes(
    services: Services,
    handle: &Handle,
    watchers: &Watchers,
    health: &HealthReporter,
) -> Result<Routes, tonic_reflection::server::Error> {
    let mut reflection =
        tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let health = HealthServer::new(HealthService::from_health_reporter(health.clone()));
    let mut routes = Routes::new(health);
    if services.operation_log {
        reflection = reflection.with_service_name(OPERATION_LOG);
        let service = OperationLogService::new(handle.clone(), watchers.clone());
        routes = routes.add_service(OperationLogServer::new(service));
    }
    if services.replicator {
        reflection = reflection.with_service_name(REPLICATOR);
        let service = ReplicatorServer::new(ReplicatorService::new(handle.clone()));
        routes = routes.add_service(service.max_decoding_message_size(MESSAGE_BYTES_MAX));
    }
    Ok(routes.add_service(reflection.build_v1()?))
}

/// Keeps `grpc.health.v1` in step with readiness: the whole server and `OperationLog` serve while ready, `Replicator`
/// always, as it is what makes the others ready.
pub(super) async fn report_health(health: HealthReporter, mut ready: tokio::sync::watch::Receiver<bool>) {
    health
        .set_service_status(REPLICATOR, ServingStatus::Serving)
        .await;
    loop {
        let status = if *ready.borrow_and_update() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in ["", OPERATION_LOG] {
            health.set_service_status(service, status).await;
        }
        if ready.changed().await.is_err() {
            return;
        }
    }
}
