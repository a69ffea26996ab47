//! Puts it together, and takes it down in order.

use std::future::Future;
use std::io;
use std::time::Duration;

use raftlog_proto::v1::state_machine_server::{SERVICE_NAME, StateMachineServer};
use raftlog_proto::{DESCRIPTORS, MESSAGE_BYTES_MAX};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;

use crate::listen::{Listen, Listener};
use crate::service::Service;
use crate::worker::Worker;
use crate::{Failed, StateMachine};

/// How long calls may take to end.
const END_MAX: Duration = Duration::from_secs(2);

/// Why it could not be served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The state machine does not know where it is.
    #[error("the state machine cannot be started: {0}")]
    Machine(Failed),
    /// Nobody could reach it.
    #[error("cannot listen at {at}: {error}")]
    Listen {
        /// Where.
        at: Listen,
        /// Why not.
        error: io::Error,
    },
    /// There are no threads or signals to be had.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// Serving ended.
    #[error("cannot serve: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// Serves a state machine until SIGTERM or SIGINT. Needs no async runtime.
pub fn serve(listen: &Listen, machine: impl StateMachine) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let signals = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        serve_until(listen, machine, signals).await
    });
    runtime.shutdown_timeout(END_MAX);
    served
}

/// Serves a state machine until `end`, on the runtime that this is called on.
pub async fn serve_until(
    listen: &Listen,
    machine: impl StateMachine,
    end: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let worker = Worker::start(machine).map_err(ServeError::Machine)?;
    let at = |error| ServeError::Listen {
        at: listen.clone(),
        error,
    };
    let listener = listen.bind().await.map_err(at)?;
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status(SERVICE_NAME, tonic_health::ServingStatus::Serving)
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .with_service_name(SERVICE_NAME)
        .build_v1()
        .expect("the descriptors are this package's own");
    let service = StateMachineServer::new(Service(worker)).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let server = Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(service)
        .add_service(health_service)
        .add_service(reflection);
    // The replicator's Apply stream does not end by itself.
    let serving = async {
        match listener {
            Listener::Tcp(listener) => server.serve_with_incoming(TcpListenerStream::new(listener)).await,
            Listener::Unix(listener) => {
                server
                    .serve_with_incoming(UnixListenerStream::new(listener))
                    .await
            }
        }
    };
    tokio::select! {
        result = serving => Ok(result?),
        () = end => Ok(()),
    }
}
