//! What users type first.

use kubernetes_tests::installation::{Installation, RELEASE};
use kubernetes_tests::lines::{CLIENT, NODES, REPLICATOR, missing};
use kubernetes_tests::logs::Log;
use kubernetes_tests::requirements;
use kubernetes_tests::wait::eventually;

const PODS: [&str; 5] = ["demo-0", "demo-1", "demo-2", "demo-3", "demo-4"];

#[test]
fn five_replicas_and_a_client_tell_their_story() {
    let Some(images) = requirements::cluster("five_replicas_and_a_client_tell_their_story") else {
        return;
    };
    let installed = Installation::new("first", &images);
    installed.kubectl(&["apply", "--filename", "deploy/samples/demo.yaml"]);
    let namespace = installed.namespace();
    let follow = |container: &str| PODS.map(|pod| Log::follow(namespace, &format!("pod/{pod}"), container));
    let nodes = follow("node");
    let replicators = follow("replicator");
    let client = Log::follow(namespace, "deployment/demo-client", "client");

    for condition in ["Available", "Ready"] {
        let condition = format!("--for=condition={condition}");
        installed.kubectl(&["wait", "raft/demo", &condition, "--timeout=3m"]);
    }
    columns_tell(&installed);
    says(&CLIENT, client.name(), || client.lines());
    says(&NODES, "the nodes together", || {
        nodes.iter().flat_map(Log::lines).collect()
    });
    for replicator in &replicators {
        says(&REPLICATOR, replicator.name(), || replicator.lines());
    }
    any_address_takes_operations(&installed);
    kubernetes_tests::command::run("helm", &["test", RELEASE, "--namespace", namespace]);
}

/// Ready pods, leader, term and commit index.
fn columns_tell(installed: &Installation) {
    eventually("the columns of kubectl get raft", || {
        let table = installed.try_kubectl(&["get", "raft", "demo"])?;
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let [head, row] = rows.as_slice() else {
            return Err(format!("not two lines:\n{table}"));
        };
        assert_eq!(
            head.as_slice(),
            ["NAME", "READY", "LEADER", "TERM", "COMMIT", "AGE"]
        );
        let [name, ready, leader, term, commit, _age] = row.as_slice() else {
            return Err(format!("not complete:\n{table}"));
        };
        let positive = |number: &str| number.parse::<u64>().is_ok_and(|number| number > 0);
        let told =
            (*name, *ready) == ("demo", "5/5") && PODS.contains(leader) && positive(term) && positive(commit);
        told.then_some(()).ok_or(table)
    });
}

fn says(wanted: &[&str], who: &str, lines: impl Fn() -> Vec<String>) {
    eventually(&format!("what {who} has to say"), || {
        let missing = missing(wanted, &lines());
        missing
            .is_empty()
            .then_some(())
            .ok_or_else(|| format!("not said yet: {missing:#?}"))
    });
}

/// Every pod, ready pods as a Service, and the leader's Service.
fn any_address_takes_operations(installed: &Installation) {
    let pods = PODS.map(|pod| format!("{pod}.demo-peers:5001"));
    let services = ["demo:5001", "demo-leader:5001"].map(str::to_owned);
    for address in pods.iter().chain(&services) {
        let raftctl = [
            "exec",
            "demo-0",
            "--container",
            "node",
            "--",
            "/raftctl",
            "--endpoints",
            address,
        ];
        let submit = [&raftctl[..], &["submit", "through any address"]].concat();
        installed.kubectl(&submit);
    }
}
