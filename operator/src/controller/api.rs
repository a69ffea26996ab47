//! Calls to the API server: counted, and never for ever.

use std::future::Future;
use std::time::Duration;

use http::{Method, Request};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use thiserror::Error;
use tower::util::MapRequestLayer;

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long it may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Label `verb` of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Verb {
    verb: &'static str,
}

/// Calls by verb.
pub type Calls = Family<Verb, Counter>;

/// A call that did not work.
#[derive(Debug, Error)]
pub enum CallError {
    /// The API server said no, or could not be asked.
    #[error("{}", told(.0))]
    Kube(#[from] kube::Error),
    /// It did not answer.
    #[error("the API server did not answer within {} s", CALL_MAX.as_secs())]
    Late,
}

impl CallError {
    /// The HTTP code, where there was an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// What was decided on is not so any more: look again.
    pub fn is_stale(&self) -> bool {
        matches!(self.code(), Some(404 | 409))
    }
}

/// What the server said, without the rest of its answer.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// A client for the cluster that this pod runs in, or that KUBECONFIG names.
pub async fn client(calls: &Calls) -> Result<Client, String> {
    let mut config = Config::infer().await.map_err(|error| {
        format!("knows no cluster: {error}; run it in a pod with a service account, or set KUBECONFIG")
    })?;
    config.connect_timeout = Some(CONNECT_MAX);
    // What fails is decided upon again, from a newer view.
    config.default_retry = false;
    let calls = calls.clone();
    let count = MapRequestLayer::new(move |request: Request<Body>| {
        let label = Verb {
            verb: verb(request.method(), request.uri().query()),
        };
        calls.get_or_create(&label).inc();
        request
    });
    let builder = ClientBuilder::try_from(config)
        .map_err(|error| format!("cannot make a client for the API server: {error}; check KUBECONFIG"))?;
    Ok(builder.with_layer(&count).build())
}

/// Whether that query asks for a watch.
pub(super) fn is_watch(query: Option<&str>) -> bool {
    query.is_some_and(|query| {
        query
            .split('&')
            .any(|part| matches!(part, "watch=true" | "watch=1"))
    })
}

fn verb(method: &Method, query: Option<&str>) -> &'static str {
    match *method {
        Method::GET if is_watch(query) => "watch",
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

/// Waits for the answer, but not for ever.
pub async fn call<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_MAX, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::Late),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_told_from_lists() {
        for (method, query, expected) in [
            (Method::GET, None, "get"),
            (Method::GET, Some("watch=true&a=b"), "watch"),
            (Method::GET, Some("fieldSelector=watch%3Dtrue"), "get"),
            (Method::PATCH, Some("force=true"), "patch"),
        ] {
            assert_eq!(verb(&method, query), expected, "{query:?}");
        }
    }
}
