//! The whole controller, before an API server that takes rights away.

mod api_server;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::api_server::ApiServer;
use super::metrics::Metrics;
use super::watches::{PATIENCE, Watches};
use super::{Options, run};
use crate::crd::status::Images;

/// Long enough for whatever is going to happen.
const WHILE: Duration = Duration::from_secs(90);

struct Controller {
    server: ApiServer,
    watches: Watches,
    task: AbortHandle,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Controller {
    fn begin(server: ApiServer) -> Self {
        let options = Options {
            namespaces: Vec::new(),
            default_images: Images::default(),
        };
        let watches = Watches::default();
        let run = run(server.client(), options, Metrics::default(), watches.clone());
        Self {
            task: tokio::spawn(run).abort_handle(),
            watches,
            server,
        }
    }

    /// Waits until such a thing is written, if it was not yet; gives it.
    async fn writes(&self, is_it: impl Fn(&str, &Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let mut written = self.server.written().into_iter();
            if let Some((_, body)) = written.find(|(path, body)| is_it(path, body)) {
                return body;
            }
            assert!(
                began.elapsed() < WHILE,
                "it was not written: {:#?}",
                self.server.written()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything that is written in a while, but for status and Events.
    async fn changes(&self) -> Vec<String> {
        self.server.forget_what_was_written();
        tokio::time::sleep(WHILE).await;
        let written = self.server.written().into_iter().map(|(path, _)| path);
        self.server.forget_what_was_written();
        written
            .filter(|path| !path.ends_with("/status") && !path.ends_with("/events"))
            .collect()
    }
}

fn server(spec: &Value) -> ApiServer {
    let server = ApiServer::default();
    server.put(
        "raftclusters",
        json!({
            "apiVersion": "raftlog.io/v1alpha1",
            "kind": "RaftCluster",
            "metadata": {"name": "demo", "namespace": "shop", "uid": "u-2", "resourceVersion": "1", "generation": 1},
            "spec": spec,
        }),
    );
    server
}

/// Whether that tells in the status that something is so, for that reason.
fn tells(kind: &str, reason: &str) -> impl Fn(&str, &Value) -> bool {
    move |path, body| {
        let conditions = body["status"]["conditions"].as_array();
        path.ends_with("/raftclusters/demo/status")
            && conditions.is_some_and(|all| {
                all.iter()
                    .any(|one| one["type"] == kind && one["reason"] == reason)
            })
    }
}

/// Whether that is an Event for that reason.
fn is_event(reason: &str) -> impl Fn(&str, &Value) -> bool {
    move |path, body| path.ends_with("/namespaces/shop/events") && body["reason"] == reason
}

fn is_service(path: &str, _: &Value) -> bool {
    path.ends_with("/services/demo")
}

/// One kind of ten that may not be listed held up all clusters for good, and nobody was told.
#[tokio::test(start_paused = true)]
async fn what_may_not_be_listed_at_first_is_told_and_then_it_goes_on() {
    let server = server(&json!({"replicas": 3}));
    server.forbid("networkpolicies");
    let began = Instant::now();
    let controller = Controller::begin(server);
    let event = controller.writes(is_event("CannotWatch")).await;
    assert!(began.elapsed() >= PATIENCE, "it may have passed");
    let note = event["note"].as_str().unwrap();
    for part in [
        "cannot list NetworkPolicy objects",
        "networkpolicies is forbidden",
        "ServiceAccount",
    ] {
        assert!(note.contains(part), "{note}");
    }
    assert_eq!(event["type"], "Warning");
    assert!(controller.watches.all_work(Instant::now()).is_err());
    assert_eq!(controller.changes().await, [""; 0]);

    controller.server.allow_all();
    controller.writes(is_service).await;
    assert_eq!(controller.watches.all_work(Instant::now()), Ok(()));
}

/// The operator went on acting on what it had seen last.
#[tokio::test(start_paused = true)]
async fn nothing_is_changed_on_a_view_of_the_past() {
    let controller = Controller::begin(server(&json!({"replicas": 3})));
    controller.writes(is_service).await;
    controller.server.forbid("pods");
    let status = controller.writes(tells("Degraded", "CannotWatch")).await;
    assert_eq!(status["status"]["ready"], "0/3", "all else is still told");
    controller.writes(is_event("Degraded")).await;
    assert!(controller.watches.all_work(Instant::now()).is_err());
    assert_eq!(controller.changes().await, [""; 0]);

    controller.server.allow_all();
    controller.writes(is_service).await;
    controller.writes(tells("Progressing", "Waiting")).await;
}

/// All clusters are served but the one that cannot be, which is told so: also by an Event.
#[tokio::test(start_paused = true)]
async fn one_that_makes_no_sense_is_told_so() {
    let controller = Controller::begin(server(&json!({"replicas": "three"})));
    let status = controller.writes(tells("QuorumAtRisk", "InvalidSpec")).await;
    assert_eq!(status["status"]["conditions"].as_array().map(Vec::len), Some(9));
    let event = controller.writes(is_event("InvalidSpec")).await;
    assert_eq!(
        (&event["regarding"]["name"], &event["regarding"]["uid"]),
        (&json!("demo"), &json!("u-2"))
    );
    assert_eq!(controller.changes().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_damaged_is_no_fault_of_the_spec() {
    let server = server(&json!({"replicas": 3}));
    server.put(
        "configmaps",
        json!({
            "metadata": {"name": "demo-record", "namespace": "shop", "resourceVersion": "1"},
            "data": {"record.json": "{"},
        }),
    );
    let controller = Controller::begin(server);
    let event = controller.writes(is_event("RecordDamaged")).await;
    assert!(
        event["note"]
            .as_str()
            .is_some_and(|note| note.contains("demo-record"))
    );
    assert_eq!(controller.changes().await, [""; 0]);
}

/// It was told that the names of its objects belong to somebody else.
#[tokio::test(start_paused = true)]
async fn the_successor_of_one_that_was_deleted_waits_until_its_objects_are_gone() {
    let server = server(&json!({"replicas": 3}));
    server.put(
        "services",
        json!({
            "metadata": {
                "name": "demo-peers", "namespace": "shop", "uid": "s", "resourceVersion": "1",
                "ownerReferences": [{"kind": "RaftCluster", "name": "demo", "uid": "u-1", "controller": true}],
            },
        }),
    );
    let controller = Controller::begin(server);
    let status = controller.writes(tells("Progressing", "Waiting")).await;
    assert!(
        tells("Degraded", "Fine")("/raftclusters/demo/status", &status),
        "{status}"
    );
    assert_eq!(controller.changes().await, [""; 0]);
}

/// Its status told the identity of the one before, for whose data it then waited for ever.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_one_left_says_nothing_of_its_successor() {
    let server = server(&json!({"replicas": 3}));
    let owned_by = |kind: &str, name: &str, uid: &str| json!([{"apiVersion": "x/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    server.put(
        "statefulsets",
        json!({
            "metadata": {
                "name": "demo", "namespace": "shop", "uid": "set", "resourceVersion": "1",
                "ownerReferences": owned_by("RaftCluster", "demo", "u-1"),
            },
            "spec": {"replicas": 5},
        }),
    );
    server.put(
        "pods",
        json!({
            "metadata": {
                "name": "demo-0", "namespace": "shop", "uid": "pod", "resourceVersion": "1",
                "ownerReferences": owned_by("StatefulSet", "demo", "set"),
            },
        }),
    );
    let controller = Controller::begin(server);
    let status = controller.writes(tells("Progressing", "Waiting")).await;
    assert_eq!(status["status"]["replicas"], 0, "{status}");
    assert_eq!(controller.changes().await, [""; 0]);
}

/// A StatefulSet and a record whose labels somebody took away were never seen again, and all that went on waited for them.
#[tokio::test(start_paused = true)]
async fn labels_that_somebody_took_away_are_put_back() {
    let server = server(&json!({"replicas": 3}));
    let owner = json!([{"apiVersion": "raftlog.io/v1alpha1", "kind": "RaftCluster", "name": "demo", "uid": "u-2", "controller": true}]);
    let metadata = |name: &str| json!({"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1", "ownerReferences": owner});
    server.put_unlabelled(
        "statefulsets",
        json!({"metadata": metadata("demo"), "spec": {"replicas": 3}}),
    );
    server.put_unlabelled("configmaps", json!({"metadata": metadata("demo-record")}));
    server.put(
        "pods",
        json!({
            "metadata": {
                "name": "demo-0", "namespace": "shop", "uid": "pod", "resourceVersion": "1",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "demo", "uid": "demo", "controller": true}],
            },
        }),
    );
    let controller = Controller::begin(server);
    for path in ["/statefulsets/demo", "/configmaps/demo-record"] {
        let labelled = |at: &str, body: &Value| {
            at.ends_with(path) && body["metadata"]["labels"]["app.kubernetes.io/managed-by"].is_string()
        };
        controller.writes(labelled).await;
    }
}

/// Claims that go with the StatefulSet that they were made for would take the data of a new one with them.
#[tokio::test(start_paused = true)]
async fn claims_that_are_about_to_be_deleted_are_waited_for() {
    let server = server(&json!({"replicas": 3}));
    server.put(
        "persistentvolumeclaims",
        json!({
            "metadata": {
                "name": "data-demo-0", "namespace": "shop", "uid": "claim", "resourceVersion": "1",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "demo", "uid": "earlier"}],
            },
        }),
    );
    let controller = Controller::begin(server);
    let status = controller.writes(tells("Progressing", "Waiting")).await;
    let text = status.to_string();
    assert!(text.contains("claim data-demo-0 is gone"), "{text}");
    assert_eq!(controller.changes().await, [""; 0]);
}
