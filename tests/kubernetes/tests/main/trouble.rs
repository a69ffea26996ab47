//! What is wrong is named, with the way out, and nothing else suffers from it.

use kubernetes_tests::command::{run, try_run};
use kubernetes_tests::installation::Installation;
use kubernetes_tests::raft_cluster::RaftCluster;
use kubernetes_tests::requirements;
use kubernetes_tests::wait::eventually;
use serde_json::{Value, json};

#[test]
fn specs_that_make_no_sense_are_refused_with_what_to_change() {
    const TEST: &str = "specs_that_make_no_sense_are_refused_with_what_to_change";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("refused", &images);
    for (name, spec, says) in [
        ("demo", json!({"replicas": 4}), "replicas must be odd"),
        ("demo", json!({"replicas": 11}), "less than or equal to 9"),
        (
            "demo",
            json!({"raft": {"heartbeatInterval": "2s"}}),
            "shorten it or raise the minimum",
        ),
        (
            "demo",
            json!({"raft": {"electionTimeout": {"min": "3s"}}}),
            "lower min or raise max",
        ),
        (
            "demo",
            json!({"raft": {"heartbeatInterval": "soon"}}),
            "heartbeatInterval",
        ),
        ("demo", json!({"storage": {"size": "1Mi"}}), "at least 32Mi"),
        ("demo", json!({"storage": {"size": "much"}}), "storage.size"),
        ("demo", json!({"log": {"format": "xml"}}), "log.format"),
        ("demo", json!({"replicas": "three"}), "spec.replicas"),
        ("demo", json!({"podLabels": labels(65)}), "podLabels"),
        (
            "demo",
            json!({"replicator": {"executor": {"log": {}, "http": {"url": "http://receiver"}}}}),
            "keep one of log, http, exec and stateMachine",
        ),
        (
            "demo",
            json!({"replicator": {"executor": {"stateMachine": {"image": "a"}}, "executeOn": "leader"}}),
            "write everyNode",
        ),
        (
            "demo",
            json!({"replicator": {"executor": {"http": {"url": "ftp://receiver"}}}}),
            "http://HOST[:PORT][/PATH]",
        ),
        (
            "demo",
            json!({"replicator": {"executor": {"stateMachine": {"image": "a", "readinessProbe": {"exec": {"command": ["a"]}}}}}}),
            "unknown field",
        ),
        ("demo-leader", json!({}), "may not end in -leader"),
        (
            "a-name-of-more-than-forty-characters-is-too-long",
            json!({}),
            "choose a shorter one",
        ),
    ] {
        let refused = RaftCluster::try_create(&installed, name, &spec);
        let why = refused.map(|_| ()).unwrap_err();
        assert!(why.contains(says), "{name} {spec}: {why}");
    }
    let paused = json!({"paused": true, "replicas": 3, "storage": {"storageClassName": "a", "size": "64Mi"}});
    let cluster = RaftCluster::create(&installed, "demo", &paused);
    for (patch, says) in [
        (json!({"storage": {"size": "32Mi"}}), "may not shrink"),
        (json!({"storage": {"storageClassName": "b"}}), "cannot change"),
    ] {
        let why = cluster.try_patch(&patch).unwrap_err();
        assert!(why.contains(says), "{patch}: {why}");
    }
    let why = installed
        .try_kubectl(&["scale", "raft/demo", "--replicas=4"])
        .unwrap_err();
    assert!(why.contains("replicas must be odd"), "{why}");
}

#[test]
fn what_a_cluster_lacks_is_named_and_it_goes_on_once_it_has_it() {
    const TEST: &str = "what_a_cluster_lacks_is_named_and_it_goes_on_once_it_has_it";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("trouble", &images);
    let fine = RaftCluster::create(&installed, "fine", &spec());
    fine.until_ready(1);
    // All the while, the other one is served.
    let served = |by: &str| {
        fine.patch(&json!({"service": {"annotations": {"served": by}}}));
        eventually("the other one to be served", || {
            let service = installed.object("service", "fine")?;
            let seen = service.pointer("/metadata/annotations/served") == Some(&json!(by));
            seen.then_some(()).ok_or_else(|| "it is not".into())
        });
    };
    an_unknown_class(&installed, &served);
    an_image_that_does_not_exist(&installed, &served);
    a_service_of_somebody_else(&installed, &served);
    a_quota(&installed, &served);
    rights_that_were_taken_away(&installed, &served);
}

type Served<'a> = &'a dyn Fn(&str);

fn an_unknown_class(installed: &Installation, served: Served<'_>) {
    let spec = json!({"replicas": 1, "storage": {"size": "64Mi", "storageClassName": "no-such-class"}});
    let cluster = RaftCluster::create(installed, "class", &spec);
    let degraded = cluster.until("Degraded", true);
    assert!(
        degraded.message.contains("storage class no-such-class"),
        "{degraded:?}"
    );
    cluster.until_event("Degraded", "no-such-class");
    served("beside an unknown class");
    cluster.delete();
}

/// It never had a quorum, and is repaired by its spec alone.
fn an_image_that_does_not_exist(installed: &Installation, served: Served<'_>) {
    let mut spec = spec();
    spec["replicas"] = json!(3);
    spec["image"] = json!({"node": "localhost/raft-node:no-such-version"});
    let cluster = RaftCluster::create(installed, "image", &spec);
    let degraded = cluster.until("Degraded", true);
    assert!(degraded.message.contains("no-such-version"), "{degraded:?}");
    cluster.until_event("Degraded", "correct the spec");
    served("beside an unknown image");
    cluster.patch(&json!({"image": {"node": null}}));
    cluster.until_ready(3);
    cluster.delete();
}

fn a_service_of_somebody_else(installed: &Installation, served: Served<'_>) {
    let theirs = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    });
    installed.apply(&theirs).unwrap();
    let cluster = RaftCluster::create(installed, "taken", &spec());
    let degraded = cluster.until("Degraded", true);
    assert_eq!(degraded.reason, "NameTaken", "{degraded:?}");
    assert!(degraded.message.contains("Service taken"), "{degraded:?}");
    cluster.until_event("NameTaken", "rename or delete it");
    served("beside a name that is taken");
    let service = installed.object("service", "taken").unwrap();
    assert_eq!(
        service["spec"]["selector"],
        json!({"app": "theirs"}),
        "it was left alone"
    );
    installed.kubectl(&["delete", "service", "taken"]);
    cluster.until_ready(1);
    cluster.delete();
}

fn a_quota(installed: &Installation, served: Served<'_>) {
    let quota = |pods: usize| {
        json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": {"hard": {"pods": pods.to_string()}},
        })
    };
    let running = installed
        .kubectl(&["get", "pods", "--output", "name"])
        .lines()
        .count();
    installed.apply(&quota(running)).unwrap();
    let cluster = RaftCluster::create(installed, "quota", &spec());
    let degraded = cluster.until("Degraded", true);
    assert!(degraded.message.contains("exceeded quota"), "{degraded:?}");
    cluster.until_event("Degraded", "exceeded quota");
    served("beside an exceeded quota");
    installed.apply(&quota(running + 5)).unwrap();
    cluster.until_ready(1);
    cluster.delete();
    installed.kubectl(&["delete", "resourcequota", "quota"]);
}

/// Without one right the operator says which, and goes on by itself once it has it again.
fn rights_that_were_taken_away(installed: &Installation, served: Served<'_>) {
    let before = installed.object("role", "raft-operator").unwrap();
    let mut without = before.clone();
    for rule in without["rules"].as_array_mut().into_iter().flatten() {
        if let Some(resources) = rule["resources"].as_array_mut() {
            resources.retain(|resource| resource != "serviceaccounts");
            if resources.is_empty() {
                resources.push(json!("none"));
            }
        }
    }
    replace(installed, &without);
    let cluster = RaftCluster::create(installed, "rights", &spec());
    let degraded = cluster.until("Degraded", true);
    assert_eq!(degraded.reason, "Forbidden", "{degraded:?}");
    assert!(degraded.message.contains("serviceaccounts"), "{degraded:?}");
    cluster.until_event("Forbidden", "serviceaccounts");
    served("beside missing rights");
    replace(installed, &before);
    cluster.until_ready(1);
    cluster.delete();
}

fn replace(installed: &Installation, role: &Value) {
    let patch = json!({ "rules": role["rules"] }).to_string();
    installed.kubectl(&[
        "patch",
        "role",
        "raft-operator",
        "--type",
        "merge",
        "--patch",
        &patch,
    ]);
}

/// A schema that was more generous let it pass; now it is told what to correct, and others are served.
#[test]
fn an_object_that_slipped_through_an_older_schema_is_degraded() {
    const TEST: &str = "an_object_that_slipped_through_an_older_schema_is_degraded";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("older", &images);
    if !installed.owns_definition() {
        let why = "the definition of RaftClusters was there before, and is not the test's to change";
        requirements::skip(TEST, why);
        return;
    }
    let definition = Definition::weakened();
    let odd = RaftCluster::create(&installed, "even", &json!({"replicas": 4}));
    let strange = RaftCluster::create(
        &installed,
        "strange",
        &json!({"replicas": 1, "raft": {"heartbeatInterval": "soon"}}),
    );
    let unreadable = RaftCluster::create(
        &installed,
        "unreadable",
        &json!({"replicas": 1, "storage": "none"}),
    );
    drop(definition);
    for (cluster, says) in [
        (&odd, "give 1, 3, 5, 7 or 9"),
        (&strange, "raft.heartbeatInterval"),
        (&unreadable, "cannot be understood"),
    ] {
        let degraded = cluster.until("Degraded", true);
        assert_eq!(degraded.reason, "InvalidSpec", "{degraded:?}");
        assert!(degraded.message.contains(says), "{degraded:?}");
    }
    let fine = RaftCluster::create(&installed, "fine", &spec());
    fine.until_ready(1);
    odd.patch(&json!({"replicas": 1}));
    odd.until_ready(1);
}

/// A definition that takes anything for a spec; dropped, it is the chart's again.
struct Definition(String);

impl Definition {
    const PATH: &'static str = "/spec/versions/0/schema/openAPIV3Schema";

    fn weakened() -> Self {
        let text = run(
            "kubectl",
            &[
                "get",
                "customresourcedefinition",
                "raftclusters.raftlog.io",
                "--output",
                "json",
            ],
        );
        let definition: Value = serde_json::from_str(&text).unwrap();
        let before = definition.pointer(Self::PATH).cloned().unwrap();
        let mut after = before.clone();
        after["properties"]["spec"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        after.as_object_mut().unwrap().remove("x-kubernetes-validations");
        Self::put(&after).unwrap();
        Self(before.to_string())
    }

    fn put(schema: &Value) -> Result<String, String> {
        let patch = json!([{"op": "replace", "path": Self::PATH, "value": schema}]).to_string();
        let name = "raftclusters.raftlog.io";
        let put = [
            "patch",
            "customresourcedefinition",
            name,
            "--type",
            "json",
            "--patch",
            &patch,
        ];
        try_run("kubectl", &put)
    }
}

impl Drop for Definition {
    fn drop(&mut self) {
        let schema: Value = serde_json::from_str(&self.0).unwrap_or_default();
        if let Err(why) = Self::put(&schema) {
            println!("the definition of RaftClusters stays weakened: {why}");
        }
    }
}

fn labels(count: usize) -> Value {
    let labels = (0..count).map(|number| (format!("label-{number}"), json!("x")));
    Value::Object(labels.collect())
}

fn spec() -> Value {
    json!({"replicas": 1, "storage": {"size": "64Mi", "retention": {"whenDeleted": "Delete"}}})
}
