//! What stays of clusters that are deleted or scaled down, and what is made of it.

use std::collections::BTreeSet;

use kubernetes_tests::cordon::Cordon;
use kubernetes_tests::installation::Installation;
use kubernetes_tests::raft_cluster::{RaftCluster, small};
use kubernetes_tests::requirements;
use kubernetes_tests::toolbox::Toolbox;
use kubernetes_tests::wait::eventually;
use kubernetes_tests::writer::Writer;
use serde_json::{Value, json};

#[test]
fn kept_volumes_are_adopted_and_others_go_even_without_an_operator() {
    const TEST: &str = "kept_volumes_are_adopted_and_others_go_even_without_an_operator";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("deletion", &images);
    let toolbox = Toolbox::new(&installed, None);
    let cluster = RaftCluster::create(&installed, "kept", &spec(3, "Retain", "Delete"));
    cluster.until_ready(3);
    let id = cluster.text("/status/clusterId").unwrap();
    let told = Writer::start(&toolbox, &cluster).check(&[], 3);

    cluster.delete();
    let claims = claims(&installed);
    assert_eq!(claims.len(), 3, "{claims:?}");
    // Asked for with one replica: first there are as many as the adopted cluster has, and then one.
    let again = RaftCluster::create(&installed, "kept", &spec(1, "Delete", "Delete"));
    again.until_ready(1);
    assert_eq!(again.text("/status/clusterId").unwrap(), id);
    Writer::start(&toolbox, &again).check(&told, 1);

    installed.kubectl(&["scale", "deployment/raft-operator", "--replicas=0"]);
    again.delete();
    eventually("its volumes and all else to go", || {
        let left = objects_of(&installed, "kept")?;
        left.is_empty().then_some(()).ok_or_else(|| left.join(", "))
    });
}

#[test]
fn volumes_that_were_kept_when_scaled_down_revive_no_member() {
    const TEST: &str = "volumes_that_were_kept_when_scaled_down_revive_no_member";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("scaled", &images);
    let toolbox = Toolbox::new(&installed, None);
    let cluster = RaftCluster::create(&installed, "demo", &spec(3, "Delete", "Retain"));
    cluster.until_ready(3);
    let before = members(&cluster);
    let writer = Writer::start(&toolbox, &cluster);
    cluster.patch(&json!({"replicas": 1}));
    cluster.until_ready(1);
    assert_eq!(claims(&installed).len(), 3);
    writer.goes_on();
    cluster.patch(&json!({"replicas": 3}));
    cluster.until_ready(3);
    let after = members(&cluster);
    let stayed: BTreeSet<_> = before.intersection(&after).collect();
    assert_eq!((stayed.len(), after.len()), (1, 3), "{before:?} {after:?}");
    writer.check(&[], 3);
}

#[test]
fn a_member_that_was_removed_while_it_was_away_comes_back_as_a_new_one() {
    const TEST: &str = "a_member_that_was_removed_while_it_was_away_comes_back_as_a_new_one";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("away", &images);
    let toolbox = Toolbox::new(&installed, None);
    let cluster = RaftCluster::create(&installed, "demo", &spec(3, "Delete", "Retain"));
    cluster.until_ready(3);
    let before = members(&cluster);
    let writer = Writer::start(&toolbox, &cluster);
    let cordon = Cordon::of_all(&installed);
    installed.kubectl(&["delete", "pod", &cluster.pod(3), "--wait=true"]);
    cluster.patch(&json!({"replicas": 1}));
    cluster.until_ready(1);
    writer.goes_on();
    drop(cordon);
    cluster.patch(&json!({"replicas": 3}));
    cluster.until_ready(3);
    let after = members(&cluster);
    let stayed: BTreeSet<_> = before.intersection(&after).collect();
    assert_eq!((stayed.len(), after.len()), (1, 3), "{before:?} {after:?}");
    assert!(!cluster.until("Degraded", false).is);
    writer.check(&[], 3);
}

/// What somebody takes away is put back, and no volume goes with it, not even where volumes go with the RaftCluster.
#[test]
fn a_stateful_set_that_somebody_deletes_takes_no_data_with_it() {
    const TEST: &str = "a_stateful_set_that_somebody_deletes_takes_no_data_with_it";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("set", &images);
    let toolbox = Toolbox::new(&installed, None);
    let cluster = RaftCluster::create(&installed, "demo", &spec(3, "Delete", "Delete"));
    cluster.until_ready(3);
    let id = cluster.text("/status/clusterId").unwrap();
    let told = Writer::start(&toolbox, &cluster).check(&[], 3);
    eventually("the claims to be the RaftCluster's", || {
        let claims = installed.objects("persistentvolumeclaims", "")?;
        let is_owned =
            |claim: &Value| claim.pointer("/metadata/ownerReferences/0/kind") == Some(&json!("RaftCluster"));
        claims
            .iter()
            .all(is_owned)
            .then_some(())
            .ok_or_else(|| format!("{claims:?}"))
    });

    let label = "app.kubernetes.io/instance";
    installed.kubectl(&["label", "pod", &cluster.pod(2), &format!("{label}-")]);
    eventually("the label to be put back", || {
        let pods = installed.objects("pods", &format!("{label}=demo"))?;
        let owned = pods
            .iter()
            .filter(|pod| pod.pointer("/metadata/ownerReferences").is_some());
        (owned.count() == 3)
            .then_some(())
            .ok_or_else(|| format!("{} pods have it", pods.len()))
    });

    let set = || {
        installed
            .object("statefulset", "demo")
            .map(|set| set["metadata"]["uid"].clone())
    };
    let before = set().unwrap();
    installed.kubectl(&["delete", "statefulset", "demo", "--wait=false"]);
    eventually("another StatefulSet", || {
        set()
            .ok()
            .filter(|uid| *uid != before)
            .ok_or_else(|| "there is none".into())
    });
    cluster.until_ready(3);
    assert_eq!(cluster.text("/status/clusterId").unwrap(), id);
    Writer::start(&toolbox, &cluster).check(&told, 3);

    cluster.delete();
    eventually("its volumes and all else to go", || {
        let left = objects_of(&installed, "demo")?;
        left.is_empty().then_some(()).ok_or_else(|| left.join(", "))
    });
}

/// Its pods still run when the one that takes its name is made.
#[test]
fn a_cluster_that_is_replaced_at_once_begins_anew() {
    const TEST: &str = "a_cluster_that_is_replaced_at_once_begins_anew";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("replaced", &images);
    let cluster = RaftCluster::create(&installed, "demo", &small(5));
    cluster.until_ready(5);
    let id = cluster.text("/status/clusterId").unwrap();
    installed.kubectl(&["delete", "raft", "demo", "--timeout", "1m"]);
    let again = RaftCluster::create(&installed, "demo", &small(3));
    again.until_ready(3);
    assert_ne!(again.text("/status/clusterId").unwrap(), id);
    assert!(!again.until("Degraded", false).is);
}

fn members(cluster: &RaftCluster<'_>) -> BTreeSet<String> {
    let object = cluster.object().unwrap_or_default();
    let members = object.pointer("/status/members").and_then(Value::as_array);
    let ids = members
        .into_iter()
        .flatten()
        .filter_map(|member| member["memberId"].as_str());
    ids.map(str::to_owned).collect()
}

fn claims(installed: &Installation) -> Vec<String> {
    let names = installed.kubectl(&["get", "persistentvolumeclaims", "--output", "name"]);
    names.lines().map(str::to_owned).collect()
}

/// Everything that carries the cluster's label.
fn objects_of(installed: &Installation, cluster: &str) -> Result<Vec<String>, String> {
    const KINDS: &str = "pods,services,statefulsets,deployments,configmaps,serviceaccounts,poddisruptionbudgets,\
                         networkpolicies,persistentvolumeclaims";
    let selector = format!("app.kubernetes.io/instance={cluster}");
    let names = installed.try_kubectl(&["get", KINDS, "--selector", &selector, "--output", "name"])?;
    Ok(names.lines().map(str::to_owned).collect())
}

fn spec(replicas: u32, when_deleted: &str, when_scaled: &str) -> Value {
    let mut spec = small(replicas);
    spec["storage"]["retention"] = json!({"whenDeleted": when_deleted, "whenScaled": when_scaled});
    spec
}
