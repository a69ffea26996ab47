//! An API server that holds what a test puts there, takes rights away, and notes what is written. It never holds what is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// A watch that nothing happens in ends after this time, and begins again.
const WATCH: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    forbidden: BTreeSet<String>,
    objects: BTreeMap<String, Vec<Value>>,
    /// Found by kind and name only.
    unlabelled: BTreeMap<(String, String), Value>,
    written: Vec<(String, Value)>,
}

/// Clones are the same.
#[derive(Clone, Default)]
pub(super) struct ApiServer(Arc<Mutex<State>>);

impl ApiServer {
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.answer(request).await }
        });
        Client::new(service, "default")
    }

    pub(super) fn put(&self, plural: &str, object: Value) {
        self.state()
            .objects
            .entry(plural.into())
            .or_default()
            .push(object);
    }

    /// An object that is not listed, as its labels are gone.
    pub(super) fn put_unlabelled(&self, plural: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.state().unlabelled.insert((plural.into(), name), object);
    }

    /// Objects of that kind may not be listed or watched any more.
    pub(super) fn forbid(&self, plural: &str) {
        self.state().forbidden.insert(plural.into());
    }

    pub(super) fn allow_all(&self) {
        self.state().forbidden.clear();
    }

    /// What was written so far, by path.
    pub(super) fn written(&self) -> Vec<(String, Value)> {
        self.state().written.clone()
    }

    pub(super) fn forget_what_was_written(&self) {
        self.state().written.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, tower::BoxError> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        if request.method() != Method::GET {
            let body = request.into_body().collect_bytes().await?;
            let body: Value = serde_json::from_slice(&body)?;
            let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
            if self.state().unlabelled.contains_key(&(plural, name)) {
                return Ok(status(409, "AlreadyExists", "already exists"));
            }
            self.state().written.push((path, body.clone()));
            return Ok(answer(200, &body));
        }
        let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
        let watches = query.contains("watch=true");
        if !watches && !query.contains("limit=") {
            let plural = path.rsplit('/').nth(1).unwrap_or_default().to_owned();
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            if let Some(object) = self.state().unlabelled.get(&(plural, name)) {
                return Ok(answer(200, object));
            }
            return Ok(status(404, "NotFound", "not found"));
        }
        if self.state().forbidden.contains(&plural) {
            return Ok(status(403, "Forbidden", &format!("{plural} is forbidden")));
        }
        if watches {
            tokio::time::sleep(WATCH).await;
            return Ok(Response::new(Body::empty()));
        }
        let items = self.state().objects.get(&plural).cloned().unwrap_or_default();
        let list =
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
        Ok(answer(200, &list))
    }
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string().into_bytes()));
    *response.status_mut() = code.try_into().unwrap();
    response
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    answer(code, &status)
}
