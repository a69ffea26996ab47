//! What an operator costs that looks after many clusters. Not part of `.ci/run`: it takes minutes, and a quiet cluster.

use std::thread;
use std::time::Duration;

use kubernetes_tests::installation::{Installation, OPERATOR};
use kubernetes_tests::raft_cluster::is_true;
use kubernetes_tests::report::report;
use kubernetes_tests::requirements;
use kubernetes_tests::toolbox::pod;
use kubernetes_tests::wait::eventually;
use serde_json::{Value, json};

/// Ten run a replica each; no machine takes the pods of the others, which are given a stub's address: one node, of which the operator
/// takes a stream for each of them.
const RUNNING: usize = 10;
const ALL: usize = 200;
/// Indexes are told every ten seconds, and what failed is tried again within five minutes.
const IDLE: Duration = Duration::from_mins(2);
const MEMORY_MAX_BYTES: f64 = 64.0 * 1024.0 * 1024.0;
const CALLS_PER_SECOND_MAX: f64 = 1.0;

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
    let address = stub(&installed);
    for number in RUNNING..ALL {
        let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}}).to_string();
        let pod = format!("many-{number}-0");
        installed.kubectl(&[
            "patch",
            "pod",
            &pod,
            "--subresource",
            "status",
            "--patch",
            &status,
        ]);
    }
    eventually("the operator to hear the stub in place of all others", || {
        let all = installed.objects("raft", "")?;
        let heard = |object: &&Value| object.pointer("/status/leader").is_some();
        let count = all.iter().filter(heard).count();
        (count == ALL)
            .then_some(())
            .ok_or_else(|| format!("{count} of {ALL} are heard"))
    });
    let before = Metrics::scrape(&installed);
    thread::sleep(IDLE);
    let after = Metrics::scrape(&installed);
    assert!(
        before.memory > 0.0 && before.calls > 0.0,
        "the operator tells its metrics"
    );
    let calls_per_second = (after.calls - before.calls) / IDLE.as_secs_f64();
    report(&format!(
        "{ALL} RaftClusters, {RUNNING} of them running and a stub in place of the others: {:.1} MiB resident, {calls_per_second:.2} API calls a second over {} s",
        after.memory / 1024.0 / 1024.0,
        IDLE.as_secs()
    ));
    assert!(after.memory < MEMORY_MAX_BYTES && calls_per_second < CALLS_PER_SECOND_MAX);
}

/// The address of a node that leads a cluster of its own.
fn stub(installed: &Installation) -> String {
    let arguments = [
        "--id",
        "1",
        "--peer",
        "1=127.0.0.1:5002",
        "--peer-listen",
        "0.0.0.0:5002",
    ];
    installed
        .apply(&pod("stub", &installed.images().node, None, &arguments))
        .unwrap();
    eventually("the stub's address", || {
        let pod = installed.object("pod", "stub")?;
        let address = pod.pointer("/status/podIP").and_then(Value::as_str);
        address.map(str::to_owned).ok_or_else(|| "it has none".into())
    })
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
