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
use tokio::time::Instant;

use crate::controller::metrics::Metrics;
use crate::controller::watches::Watches;
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
    let duty = Arc::new(Duty {
        waits: AtomicBool::new(false),
        leads: AtomicBool::new(false),
        watches: Watches::new(metrics.clone()),
    });
    let http = serve_http(&flags, logging, &metrics, Arc::clone(&duty)).await?;
    let namespace = flags.lease_namespace.as_deref();
    let election = flags
        .leader_elect
        .then(|| Election::new(client.clone(), namespace));
    let mut election = election.transpose()?;
    tracing::info!("raft-operator {} runs", env!("CARGO_PKG_VERSION"));
    let ended = tokio::select! {
        () = http => Err("the HTTP server ended".into()),
        ended = lead(client, flags, metrics, &duty, election.as_mut()) => ended,
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

/// What this process is about.
struct Duty {
    /// Another one was seen to hold the Lease.
    waits: AtomicBool,
    /// It is this process's turn.
    leads: AtomicBool,
    /// Those by which it sees, once it acts.
    watches: Watches,
}

impl Duty {
    /// One that waits for its turn is as ready as it can be; one that acts has to see what it acts on.
    fn answer(&self, now: Instant) -> Answer {
        let waits = self.waits.load(Ordering::Relaxed);
        let ready = match (self.leads.load(Ordering::Relaxed), waits) {
            (true, _) => self.watches.all_work(now).map(|()| "acts"),
            (false, true) => Ok("waits until it holds the Lease"),
            (false, false) => Err("begins: has not seen who holds the Lease".into()),
        };
        match ready {
            Ok(what) => Answer {
                yes: true,
                why: format!("ready: {what}"),
            },
            Err(why) => Answer {
                yes: false,
                why: format!("not ready: {why}"),
            },
        }
    }
}

/// Acts, once it is this process's turn; only the loss of that ends it.
async fn lead(
    client: kube::Client,
    flags: Flags,
    metrics: Metrics,
    duty: &Duty,
    mut election: Option<&mut Election>,
) -> Result<(), String> {
    if let Some(election) = &mut election {
        election.win(&duty.waits).await;
    }
    duty.leads.store(true, Ordering::Relaxed);
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
        () = controller::run(client, options, metrics, duty.watches.clone()) => Err("all watches ended".into()),
        why = lost => Err(why),
    }
}

async fn serve_http(
    flags: &Flags,
    logging: &Logging,
    metrics: &Metrics,
    duty: Arc<Duty>,
) -> Result<impl Future<Output = ()> + use<>, String> {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    logging.lines().register(&mut registry);
    process::register(&mut registry);
    let connections = Connections::new(listener::connections_max(listener::raise_descriptor_limit()));
    connections.register(&mut registry);
    let bound = http::bind("--http-listen", flags.http_listen).await?;
    let probe = OperatorProbe { registry, duty };
    Ok(http::serve(connections.bound("http", bound), Arc::new(probe)))
}

struct OperatorProbe {
    registry: Registry,
    duty: Arc<Duty>,
}

impl Probe for OperatorProbe {
    fn ready(&self) -> Answer {
        self.duty.answer(Instant::now())
    }

    fn status(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "leads": self.duty.leads.load(Ordering::Relaxed),
            "ready": self.duty.answer(Instant::now()).why,
        })
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::controller::cache::{Key, Listener};
    use crate::resources::Kind;

    struct Nobody;

    impl Listener for Nobody {
        fn asked(&self, _: Key) {}
        fn changed(&self, _: Key) {}
        fn all_changed(&self) {}
    }

    #[test]
    fn it_is_ready_once_it_sees_or_waits_for_another_one() {
        let duty = Duty {
            waits: AtomicBool::new(false),
            leads: AtomicBool::new(false),
            watches: Watches::default(),
        };
        let answer = || {
            let answer = duty.answer(Instant::now());
            (answer.yes, answer.why)
        };
        assert_eq!(
            answer(),
            (
                false,
                "not ready: begins: has not seen who holds the Lease".into()
            )
        );
        duty.waits.store(true, Ordering::Relaxed);
        assert_eq!(answer(), (true, "ready: waits until it holds the Lease".into()));
        duty.leads.store(true, Ordering::Relaxed);
        assert_eq!(answer(), (false, "not ready: begins to watch".into()));
        let nobody: Arc<dyn Listener> = Arc::new(Nobody);
        let watch = duty.watches.add(&Kind::Service.api(), None, &nobody);
        assert_eq!(answer(), (false, "not ready: lists Service objects".into()));
        watch.came(&Event::<()>::InitDone);
        assert_eq!(answer(), (true, "ready: acts".into()));
    }
}
