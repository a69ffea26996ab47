//! What users type first.

use std::collections::BTreeSet;

use kubernetes_tests::command::run;
use kubernetes_tests::installation::{Installation, RELEASE};
use kubernetes_tests::lines::{CLIENT, ELECTION, NODES, REPLICATOR, missing};
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
    for condition in ["Available", "Ready"] {
        let condition = format!("--for=condition={condition}");
        installed.kubectl(&["wait", "raft/demo", &condition, "--timeout=3m"]);
    }
    columns_tell(&installed);
    logs_tell(&installed);
    any_address_takes_operations(&installed);
    run("helm", &["test", RELEASE, "--namespace", installed.namespace()]);
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

/// Every line of the story, by those who have to say it.
fn logs_tell(installed: &Installation) {
    let mut nodes = PODS.map(|pod| Log::new(format!("pod/{pod}"), "node"));
    eventually("the lines of an election", || {
        let missing = missing(&ELECTION, &together(&mut nodes, installed));
        if !missing.is_empty() {
            // A log that was cut since does not hold the first one: here is another.
            let _ = installed.try_kubectl(&raftctl("demo:5001", &["leader", "transfer"]));
        }
        nothing(&missing)
    });
    eventually("the lines of the nodes", || {
        nothing(&missing(&NODES, &together(&mut nodes, installed)))
    });
    let mut client = Log::new("deployment/demo-client".to_owned(), "client");
    eventually("the lines of the client", || {
        nothing(&missing(&CLIENT, client.look(installed)))
    });
    for pod in PODS {
        let mut replicator = Log::new(format!("pod/{pod}"), "replicator");
        eventually(&format!("the lines of the replicator of {pod}"), || {
            nothing(&missing(&REPLICATOR, replicator.look(installed)))
        });
    }
}

fn together(logs: &mut [Log], installed: &Installation) -> BTreeSet<String> {
    logs.iter_mut()
        .flat_map(|log| log.look(installed).clone())
        .collect()
}

fn nothing(missing: &[&str]) -> Result<(), String> {
    let all = missing.is_empty().then_some(());
    all.ok_or_else(|| format!("not said yet: {missing:#?}"))
}

/// Every pod, ready pods as a Service, and the leader's Service.
fn any_address_takes_operations(installed: &Installation) {
    let pods = PODS.map(|pod| format!("{pod}.demo-peers:5001"));
    let services = ["demo:5001", "demo-leader:5001"].map(str::to_owned);
    for address in pods.iter().chain(&services) {
        installed.kubectl(&raftctl(address, &["submit", "through any address"]));
    }
}

/// Arguments of `kubectl` that run `raftctl` where it reaches everything.
fn raftctl<'a>(address: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
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
    [&raftctl, arguments].concat()
}
