//! `/livez`, `/readyz`, `/metrics` and `/status` over plain HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::listener::BoundedListener;

/// A caller sends a whole request header in so long, or is hung up on; also how long it may stay without a request.
const HEADER_MAX: Duration = Duration::from_secs(10);

/// Yes or no, and why, in one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 or 503.
    pub yes: bool,
    /// The body, without its newline.
    pub why: String,
}

/// What a program tells over HTTP. The methods are called per request and must not block.
pub trait Probe: Send + Sync + 'static {
    /// Whether restarting it would help (`/livez`).
    fn live(&self) -> Answer {
        Answer {
            yes: true,
            why: "ok".into(),
        }
    }

    /// Whether it can serve (`/readyz`).
    fn ready(&self) -> Answer;

    /// Everything about it (`/status`).
    fn status(&self) -> Value;

    /// Its metrics (`/metrics`).
    fn registry(&self) -> &Registry;

    /// Called before the metrics are written, for gauges that are read rather than kept.
    fn refresh_metrics(&self) {}
}

/// Binds `address`; the error names the flag that it came from, and what to do.
pub async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "stop what listens there, or give another address",
            io::ErrorKind::PermissionDenied => "give a port above 1023",
            _ => "give an address of this machine",
        };
        format!("cannot listen on {address} ({flag}): {error}; {hint}")
    })
}

/// Serves until it is dropped.
pub async fn serve(mut listener: BoundedListener, probe: Arc<dyn Probe>) {
    let router = router(probe);
    let mut server = Builder::new(TokioExecutor::new()).http1_only();
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_MAX);
    loop {
        let connection = TokioIo::new(listener.accept().await);
        let (server, router) = (server.clone(), router.clone());
        tokio::spawn(async move {
            // How a caller's connection ends is its own affair.
            let _ = server
                .serve_connection(connection, TowerToHyperService::new(router))
                .await;
        });
    }
}

fn router(probe: Arc<dyn Probe>) -> Router {
    Router::new()
        .route(
            "/livez",
            get(|State(probe): Shared| async move { answer(&probe.live()) }),
        )
        .route(
            "/readyz",
            get(|State(probe): Shared| async move { answer(&probe.ready()) }),
        )
        .route(
            "/status",
            get(|State(probe): Shared| async move { Json(probe.status()) }),
        )
        .route(
            "/metrics",
            get(|State(probe): Shared| async move { metrics(&*probe) }),
        )
        .with_state(probe)
}

type Shared = State<Arc<dyn Probe>>;

fn answer(answer: &Answer) -> Response {
    let code = if answer.yes {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, format!("{}\n", answer.why)).into_response()
}

fn metrics(probe: &dyn Probe) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    probe.refresh_metrics();
    let mut out = String::new();
    match text::encode(&mut out, probe.registry()) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], out).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::listener::Connections;

    struct Fixed {
        registry: Registry,
    }

    impl Probe for Fixed {
        fn ready(&self) -> Answer {
            Answer {
                yes: false,
                why: "no leader".into(),
            }
        }

        fn status(&self) -> Value {
            json!({"term": 3})
        }

        fn registry(&self) -> &Registry {
            &self.registry
        }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn it_tells_health_status_and_metrics() {
        let mut registry = Registry::default();
        registry.register("turns", "Turns", Counter::<u64>::default());
        let listener = bind("--http-listen", "127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Connections::new(8).bound("http", listener);
        tokio::spawn(serve(listener, Arc::new(Fixed { registry })));
        for (path, code, body) in [
            ("/livez", 200, "ok\n"),
            ("/readyz", 503, "no leader\n"),
            ("/status", 200, "{\"term\":3}"),
            ("/metrics", 200, "turns_total 0\n"),
            ("/nothing", 404, ""),
        ] {
            let answer = ask(
                address,
                &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
            )
            .await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {code} ")),
                "{path}: {answer}"
            );
            assert!(answer.contains(body), "{path}: {answer}");
        }
        // Garbage gets an error or nothing, and the next one is served.
        ask(address, "\0\x01garbage\r\n\r\n").await;
        assert!(ask(address, "GET /livez HTTP/1.0\r\n\r\n").await.contains("ok\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_end_is_hung_up_on() {
        let listener = bind("--http-listen", "127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Registry::default();
        let listener = Connections::new(1).bound("http", listener);
        tokio::spawn(serve(listener, Arc::new(Fixed { registry })));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
        let mut answer = Vec::new();
        // Ends only when the other side closes.
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(ask(address, "GET /livez HTTP/1.0\r\n\r\n").await.contains("ok\n"));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let listener = bind("--listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let error = bind("--listen", address).await.unwrap_err();
        assert!(
            error.contains(&address.to_string()) && error.contains("--listen"),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
}
