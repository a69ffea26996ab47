//! A majority that is lost for good: what is told, and the way back that operator/README.md describes.

use std::fs;

use kubernetes_tests::command::{root, try_run_with};
use kubernetes_tests::history::faults;
use kubernetes_tests::installation::Installation;
use kubernetes_tests::raft_cluster::{RaftCluster, small};
use kubernetes_tests::requirements;
use kubernetes_tests::toolbox::Toolbox;
use kubernetes_tests::wait::eventually;
use kubernetes_tests::writer::{CLIENTS, Writer};
use serde_json::{Value, json};

#[test]
fn a_majority_that_is_lost_is_named_and_what_is_left_goes_on() {
    let Some(images) = requirements::cluster("a_majority_that_is_lost_is_named_and_what_is_left_goes_on")
    else {
        return;
    };
    let installed = Installation::new("majority", &images);
    let cluster = RaftCluster::create(&installed, "demo", &small(3));
    cluster.until_ready(3);
    let toolbox = Toolbox::new(&installed, None);
    let told = Writer::start(&toolbox, &cluster).check(&[], 3);
    let before = cluster.text("/status/clusterId").unwrap();

    let lost = ["data-demo-1", "data-demo-2"];
    for claim in lost {
        installed.kubectl(&["delete", "persistentvolumeclaim", claim, "--wait=false"]);
    }
    installed.kubectl(&["delete", "pod", "demo-1", "demo-2", "--wait=false"]);
    let degraded = eventually("the loss of the majority to be told", || {
        let degraded = cluster.condition("Degraded")?;
        let lost = degraded.is && degraded.reason == "QuorumLost";
        lost.then_some(degraded.clone())
            .ok_or_else(|| format!("{degraded:?}"))
    });
    for part in [
        "node 2 has lost its data",
        "node 3 has lost its data",
        "When a majority is lost",
    ] {
        assert!(degraded.message.contains(part), "{degraded:?}");
    }
    cluster.until_event("Degraded", "no leader without a majority");

    cluster.patch(&json!({"paused": true}));
    cluster.until("ReconciliationPaused", true);
    installed.kubectl(&["scale", "statefulset", "demo", "--replicas=0"]);
    eventually("no pod", || {
        let pods = cluster.pods()?;
        pods.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{} pods", pods.len()))
    });
    // The kubelet cannot read each time what an ended pod said; to look again changes nothing.
    eventually("what would be done to be told", || {
        let looked = recover(&installed, false);
        looked.contains("cluster").then_some(()).ok_or(looked)
    });
    recover(&installed, true);
    for claim in lost {
        installed.kubectl(&["delete", "persistentvolumeclaim", claim]);
    }
    cluster.patch(&json!({"paused": false}));
    cluster.until_ready(3);
    assert_ne!(cluster.text("/status/clusterId").unwrap(), before);
    toolbox.until_verified(&cluster, 3);
    for node in 1..=3 {
        let wrong = faults(CLIENTS, &told, &toolbox.held(&cluster, node));
        assert!(wrong.is_empty(), "node {node}: {wrong:#?}");
    }
}

/// What the manifest's pod says, once it has ended.
fn recover(installed: &Installation, yes: bool) -> String {
    let manifest = fs::read_to_string(root().join("deploy/recover.yaml")).unwrap();
    let mut manifest = manifest.replace("raft-node:0.1.0", &installed.images().node);
    if yes {
        manifest = manifest.replace("--as-single-voter]", "--as-single-voter, --yes]");
    }
    let apply = ["--namespace", installed.namespace(), "apply", "--filename", "-"];
    try_run_with("kubectl", &apply, &manifest).unwrap();
    let said = eventually("the pod to end", || {
        let pod = installed.object("pod", "recover")?;
        let ended = pod
            .pointer("/status/containerStatuses/0/state/terminated/exitCode")
            .and_then(Value::as_u64);
        let code = ended.ok_or_else(|| "it runs".to_owned())?;
        let said = installed.try_kubectl(&["logs", "recover"])?;
        assert_eq!(code, if yes { 0 } else { 2 }, "{said}");
        Ok(said)
    });
    installed.kubectl(&["delete", "pod", "recover"]);
    said
}
