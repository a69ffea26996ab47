//! What there is to apply passes, and does what its comments say.

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use super::RaftCluster;

const SAMPLES: [(&str, &str); 7] = [
    ("minimal", include_str!("../../../deploy/samples/minimal.yaml")),
    ("demo", include_str!("../../../deploy/samples/demo.yaml")),
    (
        "production",
        include_str!("../../../deploy/samples/production.yaml"),
    ),
    ("http", include_str!("../../../deploy/samples/http.yaml")),
    ("exec", include_str!("../../../deploy/samples/exec.yaml")),
    (
        "key-value",
        include_str!("../../../deploy/samples/key-value.yaml"),
    ),
    ("ledger", include_str!("../../../deploy/samples/ledger.yaml")),
];

/// Its RaftCluster: the first document.
fn sample(name: &str) -> RaftCluster {
    let (_, yaml) = SAMPLES.iter().find(|(known, _)| *known == name).unwrap();
    let first = yaml.split("\n---\n").next().unwrap();
    serde_saphyr::from_str(first).unwrap()
}

#[test]
fn every_sample_passes() {
    for (name, _) in SAMPLES {
        let refusal = sample(name).validate_cel();
        assert!(refusal.is_ok(), "{name}: {refusal:?}");
    }
}

/// Puts a pod on one of the machines, which have so many already, as the scheduler does where the constraint has to be satisfied: a
/// machine that is cordoned is not among them. Says whether there is a place.
fn place(constraint: &TopologySpreadConstraint, machines: &mut [i32]) -> bool {
    let enough = i32::try_from(machines.len()).unwrap() >= constraint.min_domains.unwrap_or(1);
    let least = machines.iter().min().copied().unwrap();
    let lowest = if enough { least } else { 0 };
    let fits = least + 1 - lowest <= constraint.max_skew;
    if fits {
        *machines.iter_mut().min().unwrap() += 1;
    }
    fits
}

#[test]
fn production_survives_a_machine_and_lets_one_be_drained() {
    let spec = sample("production").spec;
    let majority = spec.replicas / 2 + 1;
    let constraints = spec.topology_spread_constraints.unwrap();
    let hosts = constraints
        .iter()
        .find(|constraint| constraint.topology_key == "kubernetes.io/hostname")
        .unwrap();
    assert_eq!(hosts.when_unsatisfiable, "DoNotSchedule");
    assert_eq!(hosts.node_taints_policy.as_deref(), Some("Honor"));
    for count in 3..=5 {
        let mut machines = vec![0; count];
        for _ in 0..spec.replicas {
            assert!(place(hosts, &mut machines), "{count} machines: {machines:?}");
        }
        assert!(
            machines.iter().all(|pods| *pods < majority),
            "{count} machines: {machines:?}"
        );
        let evicted = machines.remove(0);
        for _ in 0..evicted {
            assert!(
                place(hosts, &mut machines),
                "a drain of one of {count} machines does not end: {machines:?}"
            );
        }
    }
}
