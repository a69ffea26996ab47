//! Every rule of the schema, broken once. The API server applies the same ones.

use super::RaftCluster;
use crate::resources::tests::cluster;

fn refusal(cluster: &RaftCluster, before: Option<&RaftCluster>) -> String {
    let checked = match before {
        Some(before) => cluster.validate_cel_update(before),
        None => cluster.validate_cel(),
    };
    checked.map_or_else(|errors| errors.to_string(), |()| String::new())
}

#[test]
fn what_makes_sense_passes() {
    for spec in [
        "{}",
        "replicas: 1",
        "replicas: 9",
        "storage: {size: 32Mi}",
        "raft: {electionTimeout: {min: 300ms, max: 600ms}, heartbeatInterval: 100ms, snapshot: {everyBytes: 4Mi}}",
        "storage: {size: 999999999999999Ti}",
        "replicator: {}",
        "replicator: {executor: {log: {}}}",
        "podLabels: {team: blue, example.com/raftlog.io: a}\npodAnnotations: {raftlog.iota/a: b}",
        "service: {annotations: {lb: internal}}",
    ] {
        assert_eq!(refusal(&cluster(spec), None), "", "{spec}");
    }
}

#[test]
fn what_makes_none_is_refused_with_a_way_out() {
    for (spec, says) in [
        ("replicas: 4", "replicas must be odd (1, 3, 5, 7 or 9)"),
        (
            "raft: {heartbeatInterval: 1500ms}",
            "shorten it or raise the minimum",
        ),
        ("raft: {heartbeatInterval: 5ms}", "at least 10ms"),
        (
            "raft: {electionTimeout: {min: 3s, max: 3s}}",
            "lower min or raise max",
        ),
        (
            "raft: {electionTimeout: {min: 3s, max: 61m}}",
            "between 20ms and 60m",
        ),
        ("storage: {size: 1Mi}", "at least 32Mi"),
        ("storage: {size: 1.5Gi}", "write 1536Mi instead of 1.5Gi"),
        ("storage: {size: 1Pi}", "1024Ti instead of 1Pi"),
        ("storage: {size: much}", "must be a whole number of bytes"),
        ("raft: {snapshot: {everyBytes: 1Mi}}", "at least 4Mi"),
        (
            "raft: {snapshot: {everyBytes: 1.5Gi}}",
            "write 1536Mi instead of 1.5Gi",
        ),
        ("replicator: {executor: {}}", "must name exactly one executor"),
        (
            "podLabels: {raftlog.io/role: leader}",
            "podLabels may not begin with raftlog.io/",
        ),
        (
            "podAnnotations: {raftlog.io/revision: x}",
            "podAnnotations may not begin with raftlog.io/",
        ),
        (
            "service: {annotations: {raftlog.io/applied: x}}",
            "service.annotations may not begin with raftlog.io/",
        ),
    ] {
        let refusal = refusal(&cluster(spec), None);
        assert!(refusal.contains(says), "{spec}: {refusal}");
    }
}

#[test]
fn names_are_those_of_services_and_of_nobody_else() {
    for (name, says) in [
        ("demo", ""),
        ("a-2", ""),
        ("2demo", "must start with a letter"),
        ("de.mo", "lower case letters, digits and '-' only"),
        ("demo-", "lower case letters, digits and '-' only"),
        ("demo-leader", "may not end in -leader"),
        ("demo-peers", "may not end in -leader"),
        ("demo-client", "may not end in -leader"),
        (
            "a2345678901234567890123456789012345678901",
            "more than 40 characters",
        ),
    ] {
        let mut cluster = cluster("replicas: 1");
        cluster.metadata.name = Some(name.into());
        let refusal = refusal(&cluster, None);
        assert!(
            refusal.contains(says) && refusal.is_empty() == says.is_empty(),
            "{name}: {refusal}"
        );
    }
}

#[test]
fn volumes_neither_shrink_nor_move() {
    for (before, after, says) in [
        ("storage: {size: 1Gi}", "storage: {size: 2Gi}", ""),
        ("storage: {size: 1Gi}", "storage: {size: 1024Mi}", ""),
        (
            "storage: {size: 1Gi}",
            "storage: {size: 1023Mi}",
            "may not shrink",
        ),
        ("storage: {size: 1Gi}", "storage: {size: 1.5Gi}", "whole number"),
        ("{}", "storage: {storageClassName: fast}", "cannot change"),
        (
            "storage: {storageClassName: slow}",
            "storage: {storageClassName: fast}",
            "cannot change",
        ),
    ] {
        let refusal = refusal(&cluster(after), Some(&cluster(before)));
        assert!(
            refusal.contains(says) && refusal.is_empty() == says.is_empty(),
            "{before} to {after}: {refusal}"
        );
    }
}
