//! What executes operations fails, hangs and crashes: clusters serve, people are told, and what is repaired goes on where it was.

use kubernetes_tests::containers;
use kubernetes_tests::installation::Installation;
use kubernetes_tests::raft_cluster::{RaftCluster, is_true, small};
use kubernetes_tests::receiver::Receiver;
use kubernetes_tests::requirements;
use kubernetes_tests::toolbox::Toolbox;
use kubernetes_tests::wait::eventually;
use serde_json::{Value, json};

const REPLICAS: u32 = 3;
/// In the environment of state machines, to know them by.
const MARK: &str = "RAFT_TEST_RUN";
const STATE_MACHINE: &str = "state-machine";

#[test]
fn an_endpoint_that_hangs_takes_no_pod_out_of_its_service() {
    const TEST: &str = "an_endpoint_that_hangs_takes_no_pod_out_of_its_service";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let Some(python) = requirements::image(TEST, "ledger", images.ledger.as_deref()) else {
        return;
    };
    let installed = Installation::new("http", &images);
    let receiver = Receiver::hanging(&installed, python);
    let http = json!({
        "url": Receiver::url(), "timeout": "1s", "retry": {"backoff": {"min": "100ms", "max": "1s"}},
    });
    let cluster = RaftCluster::create(&installed, "demo", &spec(&json!({ "http": http })));
    cluster.until_ready(REPLICAS);
    let toolbox = Toolbox::new(&installed, None);
    let operations: Vec<String> = (1..=20).map(|number| format!("operation-{number}")).collect();
    submit(&toolbox, &operations[..10]);

    let failing = cluster.until("ExecutorFailing", true);
    assert_eq!(failing.reason, "Failing", "{failing:?}");
    for part in ["demo-", "at operation 1 since", "see to the endpoint"] {
        assert!(failing.message.contains(part), "{part}: {failing:?}");
    }
    cluster.until_event("ExecutorFailing", "at operation 1");
    let failure = eventually("a member's failure", || {
        cluster.text("/status/members/0/executor/failure/message")
    });
    assert!(!failure.is_empty());
    for condition in ["Ready", "Available"] {
        assert!(cluster.condition(condition).unwrap().is, "{condition}");
    }
    assert_eq!(served(&installed, "demo"), Ok(3), "pods stay in their Service");
    submit(&toolbox, &operations[10..]);

    receiver.repair();
    eventually(
        "all operations to be taken from each replicator, in order",
        || {
            let taken = receiver.taken()?;
            let all = taken.len() == 3
                && taken.values().all(|of_client| {
                    let in_order = of_client.iter().map(|(_, operation)| operation.as_str());
                    without_repeats(in_order) == operations
                });
            all.then_some(()).ok_or_else(|| format!("{taken:#?}"))
        },
    );
    until_fine(&cluster);
    until_applied(&cluster, 20);
}

#[test]
fn a_state_machine_that_crashes_is_named_and_repaired_by_the_spec() {
    const TEST: &str = "a_state_machine_that_crashes_is_named_and_repaired_by_the_spec";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("crashes", &images);
    // It says what is wrong with it, and ends with 2.
    let broken = json!({"image": images.node, "command": ["/raft-node", "--no-such-flag"]});
    let cluster = RaftCluster::create(&installed, "demo", &spec(&json!({ "stateMachine": broken })));
    cluster.until("Available", true);
    let toolbox = Toolbox::new(&installed, None);
    // What it wrote last is the kubelet's to tell, which cannot read it each time: another end of it tells.
    eventually("the condition to say how it ended", || {
        let failing = cluster.condition("ExecutorFailing")?;
        let told = failing.is
            && failing.reason == "CrashLoopBackOff"
            && [
                "exit code 2",
                "no-such-flag",
                "--container state-machine --previous",
            ]
            .iter()
            .all(|part| failing.message.contains(part));
        told.then_some(()).ok_or_else(|| format!("{failing:?}"))
    });
    cluster.until_event("ExecutorFailing", "exit code 2");
    let ready = cluster.until("Ready", false);
    assert!(ready.message.contains("container state-machine"), "{ready:?}");
    eventually(
        "pods to be reached although Kubernetes takes them for unready",
        || match served(&installed, "demo")? {
            3 => Ok(()),
            other => Err(format!("{other} addresses")),
        },
    );
    submit(&toolbox, &["put a 1".to_owned()]);
    eventually("the condition to name the operation", || {
        let failing = cluster.condition("ExecutorFailing")?;
        let named = failing.message.contains("at operation 1 since");
        named.then_some(()).ok_or_else(|| format!("{failing:?}"))
    });

    let repaired = match images.key_value.as_deref() {
        Some(image) => json!({"stateMachine": {"image": image, "command": null}}),
        None => json!({"stateMachine": null, "log": {}}),
    };
    cluster.patch(&json!({"replicator": {"executor": repaired}}));
    cluster.until_ready(REPLICAS);
    until_fine(&cluster);
    until_applied(&cluster, 1);
    eventually("Services to reach ready pods only, as ever", || {
        let service = installed.object("service", "demo")?;
        let all = service.pointer("/spec/publishNotReadyAddresses") == Some(&json!(true));
        (!all).then_some(()).ok_or_else(|| "they reach all".to_owned())
    });
}

#[test]
fn a_key_value_store_outlives_its_containers_and_pods() {
    const TEST: &str = "a_key_value_store_outlives_its_containers_and_pods";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let Some(image) = requirements::image(TEST, "key-value", images.key_value.as_deref()) else {
        return;
    };
    let installed = Installation::new("kv", &images);
    let machines = Machines::new(TEST, &installed, image);
    machines.executed(&["put greeting hello", "cas greeting hello goodbye", "get greeting"]);
    machines.all_answer("get greeting", "value goodbye");
    for (node, from, to) in [(1, "goodbye", "one"), (2, "one", "two"), (3, "two", "three")] {
        machines.crash(node, STATE_MACHINE);
        machines.executed(&[&format!("cas greeting {from} {to}")]);
        machines.all_answer("get greeting", &format!("value {to}"));
    }
    machines.restart_pods();
    machines.all_answer("get greeting", "value three");
}

#[test]
fn a_ledger_in_another_language_loses_and_doubles_nothing() {
    const TEST: &str = "a_ledger_in_another_language_loses_and_doubles_nothing";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let Some(image) = requirements::image(TEST, "ledger", images.ledger.as_deref()) else {
        return;
    };
    let installed = Installation::new("ledger", &images);
    let machines = Machines::new(TEST, &installed, image);
    let rounds = requirements::rounds(12);
    machines.executed(&[&format!("open alice {}", 1_000 * rounds), "open bob 0"]);
    // Each container and each pod in turn; transfers go on meanwhile.
    let victims = [Some(STATE_MACHINE), Some("replicator"), Some("node"), None];
    for ((round, victim), node) in (1..=rounds)
        .zip(victims.into_iter().cycle())
        .zip((1..=REPLICAS).cycle())
    {
        let transfers: Vec<String> = (1..=5)
            .map(|number| format!("transfer t-{round}-{number} alice bob 10"))
            .collect();
        let transfers: Vec<&str> = transfers.iter().map(String::as_str).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| machines.executed(&transfers));
            match victim {
                Some(container) => machines.crash(node, container),
                None => machines.delete_pod(node),
            }
        });
    }
    let whole = |machines: &Machines<'_>| {
        machines.all_answer("balance bob", &(50 * rounds).to_string());
        machines.all_answer("total", &(1_000 * rounds).to_string());
        machines.all_answer("transfers", &(5 * rounds).to_string());
    };
    whole(&machines);
    machines.restart_pods();
    whole(&machines);
}

/// A cluster whose operations are applied by containers.
struct Machines<'a> {
    test: &'static str,
    cluster: RaftCluster<'a>,
    toolbox: Toolbox<'a>,
}

impl<'a> Machines<'a> {
    fn new(test: &'static str, installed: &'a Installation, image: &str) -> Self {
        let env = json!([{"name": MARK, "value": installed.namespace()}]);
        let machine = json!({"image": image, "env": env});
        let cluster = RaftCluster::create(installed, "demo", &spec(&json!({ "stateMachine": machine })));
        cluster.until_ready(REPLICAS);
        let toolbox = Toolbox::new(installed, None);
        Self {
            test,
            cluster,
            toolbox,
        }
    }

    /// Submits, and waits until it is executed. A client asks again where it was not told what came of it; the same session makes it the same
    /// operation.
    fn executed(&self, operations: &[&str]) {
        let endpoints = self.cluster.endpoints(REPLICAS);
        let flags = [
            "--endpoints",
            &endpoints,
            "submit",
            "--wait-for",
            "executed",
            "--timeout",
            "2m",
        ];
        let said = self.toolbox.raftctl(&[&flags[..], operations].concat());
        let said = said.unwrap_or_else(|why| panic!("{why}"));
        assert!(!said.contains("invalid"), "{said}");
    }

    /// Waits until each of them says so, by itself.
    fn all_answer(&self, query: &str, expected: &str) {
        for node in 1..=REPLICAS {
            let (pod, name) = (self.cluster.pod(node), self.cluster.name());
            let endpoint = format!("{pod}.{name}-peers:5001");
            eventually(&format!("'{expected}' from {pod}"), || {
                let flags = [
                    "--endpoints",
                    &endpoint,
                    "--output",
                    "raw",
                    "query",
                    "--stale",
                    query,
                ];
                let said = self.toolbox.raftctl(&flags)?;
                (said.trim() == expected).then_some(()).ok_or(said)
            });
        }
    }

    /// Kills what runs in that container of that node's pod, and waits until it runs again.
    fn crash(&self, node: u32, container: &str) {
        let pod = self.cluster.pod(node);
        let before = self
            .restarts(&pod, container)
            .unwrap_or_else(|why| panic!("{why}"));
        if containers::processes(&[&format!("{MARK}={}", self.cluster.installation().namespace())]).is_empty()
        {
            requirements::skip(self.test, "containers do not run on this machine: none is killed");
            return;
        }
        let found = eventually(&format!("{container} of {pod} to run"), || {
            let found = self.processes(&pod, container);
            (!found.is_empty())
                .then_some(found)
                .ok_or_else(|| "it does not".to_owned())
        });
        for process in found {
            // One may end with another.
            let _ = containers::kill(process);
        }
        eventually(&format!("{container} of {pod} to run again"), || {
            let restarts = self.restarts(&pod, container)?;
            (restarts > before)
                .then_some(())
                .ok_or_else(|| format!("{restarts} restarts"))
        });
    }

    fn processes(&self, pod: &str, container: &str) -> Vec<u32> {
        let marks = [
            format!("{MARK}={}", self.cluster.installation().namespace()),
            format!("HOSTNAME={pod}"),
        ];
        let machines = containers::processes(&[&marks[0], &marks[1]]);
        match machines.first() {
            Some(&machine) if container != STATE_MACHINE => {
                containers::beside(machine, &format!("raft-{container}"))
            }
            _ => machines,
        }
    }

    fn restarts(&self, pod: &str, container: &str) -> Result<u64, String> {
        let object = self.cluster.installation().object("pod", pod)?;
        let statuses = object
            .pointer("/status/containerStatuses")
            .and_then(Value::as_array);
        let mut statuses = statuses.into_iter().flatten();
        let status = statuses.find(|status| status["name"] == container);
        let status = status.ok_or_else(|| format!("{pod} has no container {container}"))?;
        status["restartCount"].as_u64().ok_or_else(|| format!("{status}"))
    }

    /// Without grace, as what becomes of a pod whose machine is given up; and waits until all are ready again.
    fn delete_pod(&self, node: u32) {
        let installed = self.cluster.installation();
        let pod = self.cluster.pod(node);
        let uid = || Ok::<_, String>(installed.object("pod", &pod)?.pointer("/metadata/uid").cloned());
        let before = uid().unwrap_or_else(|why| panic!("{why}"));
        installed.kubectl(&["delete", "pod", &pod, "--grace-period", "0", "--force"]);
        eventually(&format!("another {pod}"), || {
            (uid()? != before)
                .then_some(())
                .ok_or_else(|| "it is the same".to_owned())
        });
        self.cluster.until_ready(REPLICAS);
    }

    /// All pods, one after the other, as for a new template.
    fn restart_pods(&self) {
        self.cluster
            .patch(&json!({"podAnnotations": {"restarted": "once"}}));
        self.cluster.until_ready(REPLICAS);
    }
}

fn spec(executor: &Value) -> Value {
    let mut spec = small(REPLICAS);
    spec["replicator"] = json!({ "executor": executor });
    spec
}

/// Through the Service, whoever is behind it.
fn submit(toolbox: &Toolbox<'_>, operations: &[String]) {
    let operations: Vec<&str> = operations.iter().map(String::as_str).collect();
    let flags = ["--endpoints", "demo:5001", "submit"];
    eventually("the operations to be submitted", || {
        toolbox.raftctl(&[&flags[..], &operations].concat())
    });
}

/// How many addresses a Service sends clients to.
fn served(installed: &Installation, service: &str) -> Result<usize, String> {
    let selector = format!("kubernetes.io/service-name={service}");
    let slices = installed.objects("endpointslices", &selector)?;
    let endpoints = slices
        .iter()
        .filter_map(|slice| slice["endpoints"].as_array())
        .flatten();
    let ready = endpoints.filter(|endpoint| endpoint.pointer("/conditions/ready") == Some(&json!(true)));
    Ok(ready.count())
}

/// Nothing fails any more, and that is told.
fn until_fine(cluster: &RaftCluster<'_>) {
    cluster.until("ExecutorFailing", false);
    cluster.until_event("ExecutorRecovered", "no executor fails");
    assert!(is_true(&cluster.object().unwrap(), "Available"));
}

/// The status tells that all have executed so many.
fn until_applied(cluster: &RaftCluster<'_>, index: u64) {
    eventually(&format!("applied index {index} of all members"), || {
        let object = cluster.object()?;
        let members = object.pointer("/status/members").and_then(Value::as_array);
        let applied: Vec<Option<u64>> = members
            .into_iter()
            .flatten()
            .map(|member| member["appliedIndex"].as_u64())
            .collect();
        let all = applied.len() == 3 && applied.iter().all(|applied| *applied >= Some(index));
        all.then_some(()).ok_or_else(|| format!("{applied:?}"))
    });
}

/// What was tried again after an answer got lost is there twice in a row.
fn without_repeats<'a>(operations: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for operation in operations {
        if seen.last().is_none_or(|last| last != operation) {
            seen.push(operation.to_owned());
        }
    }
    seen
}
