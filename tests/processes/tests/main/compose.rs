//! `deploy/compose.yaml` against the contract's names and ports. It is read here, not run: that takes an engine.

use processes::binaries;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

fn compose() -> Value {
    let file = binaries::workspace().join("deploy/compose.yaml");
    let text = fs::read_to_string(file).expect("deploy/compose.yaml is there");
    serde_saphyr::from_str(&text).expect("deploy/compose.yaml is YAML")
}

fn strings(list: &Value) -> BTreeSet<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[test]
fn services_ports_and_network_are_the_contracts() {
    let compose = compose();
    let services = compose["services"].as_object().expect("services");
    let mut expected: BTreeSet<String> = (1..=5)
        .flat_map(|n| [format!("node{n}"), format!("q4node{n}")])
        .collect();
    expected.insert("client".into());
    assert_eq!(services.keys().cloned().collect::<BTreeSet<_>>(), expected);
    let peers = "1=node1:5001,2=node2:5002,3=node3:5003,4=node4:5004,5=node5:5005";
    for n in 1..=5 {
        let node = &compose["services"][format!("node{n}")];
        assert!(
            strings(&node["ports"]).contains(format!("500{n}:500{n}").as_str()),
            "{node}"
        );
        assert_eq!(node["environment"]["RAFT_LISTEN"], format!("0.0.0.0:500{n}"));
        assert_eq!(node["environment"]["RAFT_ID"], n.to_string());
        assert_eq!(node["environment"]["RAFT_PEERS"], peers);
        assert_eq!(
            node["environment"]["RAFT_REPLICATOR"],
            format!("http://q4node{n}:600{n}")
        );
        assert_eq!(node["build"]["target"], "raft-node");
        let replicator = &compose["services"][format!("q4node{n}")];
        assert!(
            strings(&replicator["ports"]).contains(format!("600{n}:600{n}").as_str()),
            "{replicator}"
        );
        assert_eq!(
            replicator["environment"]["REPLICATOR_LISTEN"],
            format!("0.0.0.0:600{n}")
        );
        assert_eq!(replicator["environment"]["RAFT_ID"], n.to_string());
        assert_eq!(replicator["build"]["target"], "raft-replicator");
    }
    for (name, service) in services {
        assert_eq!(
            strings(&service["networks"]),
            BTreeSet::from(["raft-net"]),
            "{name}"
        );
    }
    assert!(compose["networks"]["raft-net"].is_object());
    assert_eq!(
        strings(&compose["services"]["client"]["command"]).first(),
        Some(&"--interval")
    );
}

/// Data survive a container: each stateful service has a named volume of its own, declared, and mounted where its image
/// keeps its data.
#[test]
fn every_node_and_replicator_has_a_volume() {
    let compose = compose();
    let declared: BTreeSet<&str> = compose["volumes"]
        .as_object()
        .expect("volumes")
        .keys()
        .map(String::as_str)
        .collect();
    let mut used = BTreeSet::new();
    for (name, service) in compose["services"].as_object().expect("services") {
        for volume in strings(&service["volumes"]) {
            let (volume, place) = volume.split_once(':').expect("VOLUME:PLACE");
            assert_eq!(place, "/var/lib/raftlog", "{name}");
            assert!(used.insert(volume), "{volume} belongs to two services");
        }
    }
    assert_eq!(used, declared);
    assert_eq!(used.len(), 10);
}
