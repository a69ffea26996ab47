//! What an operator costs that looks after many clusters. Not part of `.ci/run`: it takes minutes, and a quiet cluster.

use std::thread;
use std::time::Duration;

use kubernetes_tests::installation::Installation;
use kubernetes_tests::report::report;
use kubernetes_tests::requirements;
use kubernetes_tests::wait::eventually;
use serde_json::{Value, json};

/// Ten run a replica each; no machine takes the pods of the others.
const RUNNING: usize = 10;
const ALL: usize = 200;
/// Indexes are told every ten seconds, and what failed is tried again within five minutes.
const IDLE: Duration = Duration::from_mins(2);
const MEMORY_MAX_BYTES: f64 = 64.0 * 1024.0 * 1024.0;
const CALLS_PER_SECOND_MAX: f64 = 1.0;
const OPERATOR: &str = "app.kubernetes.io/name=raft-operator,app.kubernetes.io/component=operator";

#[test]
#[ignore = "takes minutes: cargo test -p kubernetes-tests --test main -- --ignored --nocapture two_hundred"]
fn two_hundred_clusters_cost_little() {
    let Some(images) = requirements::cluster("two_hundred_clusters_cost_little") else {
        return;
    };
    let installed = Installation::new("many", &images);
    for number in 0..ALL {
        let mut spec =
            json!({"replicas": 1, "storage": {"size": "32Mi", "retention": {"whenDeleted": "Delete"}}});
        if number >= RUNNING {
            spec["nodeSelector"] = json!({"no-such": "machine"});
        }
        let name = format!("many-{number}");
        let kind = json!({"apiVersion": "raftlog.io/v1alpha1", "kind": "RaftCluster", "metadata": {"name": name}, "spec": spec});
        installed.apply(&kind).unwrap();
    }
    eventually("ten to be Ready and the others to say why they are not", || {
        let all = installed.objects("raft", "")?;
        let count = |kind: &str| all.iter().filter(|object| is_true(object, kind)).count();
        let counts = (count("Ready"), count("Degraded"));
        (counts == (RUNNING, ALL - RUNNING))
            .then_some(())
            .ok_or_else(|| format!("{counts:?}"))
    });
    let before = Metrics::scrape(&installed);
    thread::sleep(IDLE);
    let after = Metrics::scrape(&installed);
    let calls_per_second = (after.calls - before.calls) / IDLE.as_secs_f64();
    report(&format!(
        "{ALL} RaftClusters, {RUNNING} of them running: {:.1} MiB resident, {calls_per_second:.2} API calls a second over {} s",
        after.memory / 1024.0 / 1024.0,
        IDLE.as_secs()
    ));
    assert!(after.memory < MEMORY_MAX_BYTES && calls_per_second < CALLS_PER_SECOND_MAX);
}

fn is_true(object: &Value, kind: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// By the operator itself.
struct Metrics {
    /// Bytes.
    memory: f64,
    /// Calls to the API server so far, watches aside.
    calls: f64,
}

impl Metrics {
    fn scrape(installed: &Installation) -> Self {
        let pods = installed.objects("pods", OPERATOR).unwrap();
        let name = pods
            .first()
            .and_then(|pod| pod["metadata"]["name"].as_str())
            .unwrap_or_default();
        let path = format!(
            "/api/v1/namespaces/{}/pods/{name}:8080/proxy/metrics",
            installed.namespace()
        );
        let text = installed.kubectl(&["get", "--raw", &path]);
        let sum = |name: &str, without: &str| {
            let lines = text
                .lines()
                .filter(|line| line.starts_with(name) && !line.contains(without));
            lines
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        Self {
            memory: sum("process_resident_memory_bytes", "no such label"),
            calls: sum("raftlog_operator_api_calls_total", "verb=\"watch\""),
        }
    }
}
