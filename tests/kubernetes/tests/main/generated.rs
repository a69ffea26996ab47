//! What is generated and checked in is what it is generated from.

use std::fs;

use kubernetes_tests::command::{root, run};
use kubernetes_tests::requirements;

#[test]
fn the_chart_has_the_operators_definition() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    assert!(
        read("operator/crd.yaml") == read("charts/raft-operator/files/crd.yaml"),
        "run: deploy/generate"
    );
}

/// Images and charts are versioned together with the programs.
#[test]
fn there_is_one_version() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("deploy/Dockerfile", format!("ARG VERSION={version}\n")),
        (
            "charts/raft-operator/Chart.yaml",
            format!("\nversion: {version}\n"),
        ),
        (
            "charts/raft-operator/Chart.yaml",
            format!("\nappVersion: {version}\n"),
        ),
        ("deploy/kind.md", format!("-t $image:{version} ")),
    ] {
        assert!(read(file).contains(&line), "{file} has no {line:?}");
    }
}

#[test]
fn install_yaml_is_what_the_chart_says() {
    if requirements::has("install_yaml_is_what_the_chart_says", "helm") {
        run("deploy/generate", &["--check"]);
    }
}

/// The options that no test cluster has a use for; and what the schema refuses.
#[test]
fn the_chart_takes_what_it_documents_and_nothing_else() {
    const TEST: &str = "the_chart_takes_what_it_documents_and_nothing_else";
    if !requirements::has(TEST, "helm") {
        return;
    }
    run(
        "helm",
        &[
            "lint",
            "--strict",
            "--kube-version",
            "1.34.0",
            "charts/raft-operator",
        ],
    );
    let template = |values: &str| {
        let arguments = [
            "template",
            "x",
            "charts/raft-operator",
            "--kube-version",
            "1.34.0",
            "--set",
            values,
        ];
        kubernetes_tests::command::try_run("helm", &arguments)
    };
    for (values, there, absent) in [
        ("replicas=1", "kind: ClusterRole\n", "kind: PodDisruptionBudget"),
        (
            "replicas=2",
            "kind: PodDisruptionBudget\n",
            "kind: ServiceMonitor",
        ),
        (
            "watchNamespaces={a}",
            "--watch-namespaces=a\n",
            "kind: ClusterRole\n",
        ),
        (
            "serviceMonitor.enabled=true",
            "kind: ServiceMonitor\n",
            "kind: NetworkPolicy",
        ),
        (
            "networkPolicy.enabled=true",
            "kind: NetworkPolicy\n",
            "kind: ServiceMonitor",
        ),
        (
            "crds.keep=false",
            "kind: CustomResourceDefinition\n",
            "helm.sh/resource-policy",
        ),
        (
            "crds.install=false",
            "kind: Deployment\n",
            "kind: CustomResourceDefinition",
        ),
    ] {
        let manifests = template(values).unwrap();
        assert!(manifests.contains(there), "{values}: no {there}");
        assert!(!manifests.contains(absent), "{values}: {absent}");
    }
    for (values, named) in [
        ("replicas=two", "/replicas"),
        ("watchNamespaces=a", "/watchNamespaces"),
        ("image.tag=a b", "/image/tag"),
        ("crds.kept=true", "'kept'"),
        ("image.digest=sha256:a", "/image/digest"),
    ] {
        let error = template(values).unwrap_err();
        assert!(error.contains(named), "{values}: {error}");
    }
}
