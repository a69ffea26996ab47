//! The running operator: its endpoints, its signals, and the controller between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::registry::Registry;
use raftlog_telemetry::http::{self, Answer, Probe};
use raftlog_telemetry::listener::{self, Connections};
use raftlog_telemetry::logging::Logging;
use raftlog_telemetry::process;
use raftlog_telemetry::signals::Signals;
use serde_json::{Value, json};

use crate::controller::metrics::Metrics;
use crate::controller::{self, Options, api};
use crate::crd::status::Images;
use crate::flags::Flags;
use crate::lease::Election;

/// Until a signal; what ends it otherwise is the error: one line.
pub(crate) async fn run(flags: Flags, logging: &Logging) -> Result<(), String> {
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen to signals: {error}"))?;
    // Of the providers that are linked, this one is meant.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let metrics = Metrics::default();
    let client = api::client(&metrics.calls).await?;
    let leads = Arc::new(AtomicBool::new(false));
    let http = serve_http(&flags, logging, &metrics, Arc::clone(&leads)).await?;
    let namespace = flags.lease_namespace.as_deref();
    let election = flags
        .leader_elect
        .then(|| Election::new(client.clone(), namespace));
    let mut election = election.transpose()?;
    tracing::info!("raft-operator {} runs", env!("CARGO_PKG_VERSION"));
    let ended = tokio::select! {
        () = http => Err("the HTTP server ended".into()),
        ended = lead(client, flags, metrics, &leads, election.as_mut()) => ended,
        signal = signals.next() => {
            tracing::info!("raft-operator stops on {signal}");
            Ok(())
        }
    };
    if let Some(election) = election {
        election.release().await;
    }
    ended
}

/// Acts, once it is this process's turn; only the loss of that ends it.
async fn lead(
    client: kube::Client,
    flags: Flags,
    metrics: Metrics,
    leads: &AtomicBool,
    mut election: Option<&mut Election>,
) -> Result<(), String> {
    if let Some(election) = &mut election {
        election.win().await;
    }
    leads.store(true, Ordering::Relaxed);
    metrics.leads.set(1);
    let options = Options {
        namespaces: flags
            .watch_namespaces
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect(),
        default_images: Images {
            node: flags.default_node_image,
            replicator: flags.default_replicator_image,
        },
    };
    let lost = async {
        match election {
            Some(election) => election.hold().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = controller::run(client, options, metrics) => Err("all watches ended".into()),
        why = lost => Err(why),
    }
}

async fn serve_http(
    flags: &Flags,
    logging: &Logging,
    metrics: &Metrics,
    leads: Arc<AtomicBool>,
) -> Result<impl Future<Output = ()> + use<>, String> {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    logging.lines().register(&mut registry);
    process::register(&mut registry);
    let connections = Connections::new(listener::connections_max(listener::raise_descriptor_limit()));
    connections.register(&mut registry);
    let bound = http::bind("--http-listen", flags.http_listen).await?;
    let probe = OperatorProbe { registry, leads };
    Ok(http::serve(connections.bound("http", bound), Arc::new(probe)))
}

struct OperatorProbe {
    registry: Registry,
    leads: Arc<AtomicBool>,
}

impl Probe for OperatorProbe {
    /// One that waits for its turn is as ready as it can be.
    fn ready(&self) -> Answer {
        let why = if self.leads.load(Ordering::Relaxed) {
            "ready: acts"
        } else {
            "ready: waits until it holds the Lease"
        };
        Answer {
            yes: true,
            why: why.into(),
        }
    }

    fn status(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "leads": self.leads.load(Ordering::Relaxed),
        })
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}
