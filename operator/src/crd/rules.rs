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
        "replicator: {executor: {http: {url: 'http://a'}}}",
        "replicator: {executor: {http: {url: 'https://a-b.c:8443/d/?e=f&g=$h', timeout: 1h, retry: {maxAttempts: 1, onFailure: Skip}}}}",
        "replicator: {executor: {http: {url: 'http://[fd00::1]:80/'}}, executeOn: leader}",
        "replicator: {executor: {http: {url: 'http://a', retry: {backoff: {min: 1s, max: 1s}, onFailure: Skip}}}}",
        "replicator: {executor: {exec: {command: [/a, '', b], mode: Lines}}, executeOn: leader}",
        "replicator: {executor: {stateMachine: {image: kv}}, executeOn: everyNode}",
        "replicator: {executor: {stateMachine: {image: kv, port: 7001, env: [{name: A}], livenessProbe: {exec: {command: [/kv]}}}}}",
        "replicator: {executeOn: leader, retention: {operations: 1, age: 24h, bytes: 1Gi}}",
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
            "replicator: {executor: {log: {}, http: {url: 'http://a'}}}",
            "keep one of log, http, exec and stateMachine",
        ),
        (
            "replicator: {executor: {exec: {command: [a]}, stateMachine: {image: kv}}}",
            "remove the others (in a merge patch by null)",
        ),
        (
            "replicator: {executor: {stateMachine: {image: kv}}, executeOn: leader}",
            "write everyNode, or leave it out",
        ),
        (
            "replicator: {executor: {http: {url: 'ftp://a'}}}",
            "http://HOST[:PORT][/PATH]",
        ),
        (
            "replicator: {executor: {http: {url: 'http:///a'}}}",
            "http://HOST[:PORT][/PATH]",
        ),
        (
            "replicator: {executor: {http: {url: 'http://u:p@a/'}}}",
            "without user",
        ),
        (
            "replicator: {executor: {http: {url: 'http://a/#b'}}}",
            "and fragment",
        ),
        (
            "replicator: {executor: {http: {url: 'http://a/b c'}}}",
            "write for example",
        ),
        (
            "replicator: {executor: {http: {url: 'http://a', timeout: 5ms}}}",
            "between 10ms and 60m",
        ),
        (
            "replicator: {executor: {exec: {command: [a], timeout: 2h}}}",
            "between 10ms and 60m",
        ),
        (
            "replicator: {executor: {http: {url: 'http://a', retry: {backoff: {min: 1m}}}}}",
            "lower min or raise max",
        ),
        (
            "replicator: {executor: {exec: {command: [a], retry: {backoff: {max: 2h}}}}}",
            "nor max above 60m",
        ),
        (
            "replicator: {executor: {exec: {command: ['', b]}}}",
            "begins with the program",
        ),
        (
            "replicator: {executor: {stateMachine: {image: kv, port: 6001}}}",
            "write 7001",
        ),
        (
            "replicator: {executor: {stateMachine: {image: kv, env: [{name: STATE_MACHINE_LISTEN, value: x}]}}}",
            "which the operator does: remove",
        ),
        (
            "replicator: {executor: {stateMachine: {image: kv, livenessProbe: {periodSeconds: 5}}}}",
            "livenessProbe must have exactly one of",
        ),
        (
            "replicator: {executor: {stateMachine: {image: kv, startupProbe: {exec: {command: [a]}, grpc: {port: 1}}}}}",
            "startupProbe must have exactly one of",
        ),
        ("replicator: {retention: {age: 10ms}}", "at least 1s"),
        (
            "replicator: {retention: {bytes: 1.5Gi}}",
            "write 1536Mi instead of 1.5Gi",
        ),
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
