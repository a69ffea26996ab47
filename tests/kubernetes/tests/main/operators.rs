//! What becomes of clusters whose operator goes, comes back, or is another one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kubernetes_tests::command::try_run_with;
use kubernetes_tests::installation::{Installation, OPERATOR};
use kubernetes_tests::machines::{Fault, Machines};
use kubernetes_tests::raft_cluster::{RaftCluster, is_true, small};
use kubernetes_tests::report::{now_ms, report};
use kubernetes_tests::requirements;
use kubernetes_tests::toolbox::Toolbox;
use kubernetes_tests::wait::eventually;
use kubernetes_tests::writer::Writer;
use serde_json::{Value, json};

/// Another replica acts within this time.
const FAILOVER_MS: i64 = 20_000;
/// Annotation of pods: what their template adds up to.
const REVISION: &str = "raftlog.io/revision";
const OLDER: &str = "older";

/// It ends between any two of its steps, as whoever replaces it sees it: killed while it grows, shrinks, restarts and repairs.
#[test]
fn an_operator_that_is_killed_at_any_step_carries_on() {
    const TEST: &str = "an_operator_that_is_killed_at_any_step_carries_on";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("killed", &images);
    let cluster = RaftCluster::create(&installed, "demo", &small(3));
    let done = AtomicBool::new(false);
    let mut moments = Moments::new(TEST);
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut kills = 0_usize;
            while !done.load(Ordering::Relaxed) {
                let lease = until_held(&installed);
                thread::sleep(moments.next());
                let kill = [
                    "delete",
                    "pod",
                    "--selector",
                    OPERATOR,
                    "--force",
                    "--grace-period=0",
                    "--wait=false",
                ];
                // One that is on its way out already is as good.
                let _ = installed.try_kubectl(&kill);
                kills += 1;
                until_another_holds(&installed, &lease);
            }
            kills
        });
        let _ends = Ends(&done);
        cluster.until_ready(3);
        let toolbox = Toolbox::new(&installed, None);
        let writer = Writer::start(&toolbox, &cluster);
        cluster.patch(&json!({"replicas": 5}));
        cluster.until_ready(5);
        cluster.patch(&json!({"podAnnotations": {"restarted": "once"}}));
        cluster.until_ready(5);
        installed.kubectl(&["delete", "persistentvolumeclaim", "data-demo-2", "--wait=false"]);
        installed.kubectl(&["delete", "pod", "demo-2", "--wait=false"]);
        cluster.until("Ready", false);
        cluster.until_ready(5);
        cluster.patch(&json!({"replicas": 3}));
        cluster.until_ready(3);
        done.store(true, Ordering::Relaxed);
        let kills = killer.join().unwrap();
        assert!(kills >= 5, "{kills}: too few to say anything");
        report(&format!(
            "operator killed {kills} times during create, 3 to 5, restart, lost volume, 5 to 3"
        ));
        writer.check(&[], 3);
    });
}

/// Ends the other thread, also when this one panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Moments after which to kill: a pure function of a seed.
struct Moments(u64);

impl Moments {
    fn new(test: &str) -> Self {
        let given = std::env::var("RAFT_TEST_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| now_ms().unsigned_abs());
        println!(
            "RAFT_TEST_SEED={seed} cargo test -p kubernetes-tests --test main -- --exact operators::{test}"
        );
        Self(seed)
    }

    /// From 0 to 8 seconds: it listens for up to 4, and then takes a step each time.
    fn next(&mut self) -> Duration {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((self.0 >> 33) % 8_000)
    }
}

/// Two replicas: the machine of the one that acts crashes.
#[test]
fn another_operator_acts_within_twenty_seconds() {
    const TEST: &str = "another_operator_acts_within_twenty_seconds";
    let (Some(images), Some(machines)) = (requirements::cluster(TEST), Machines::given(TEST)) else {
        return;
    };
    let installed = Installation::new("lease", &images);
    installed.set(&["replicas=2"]);
    let cluster = RaftCluster::create(&installed, "demo", &small(1));
    cluster.until_ready(1);
    for round in 0..requirements::rounds(2) {
        let holder = until_held(&installed);
        let pod = holder
            .rsplit_once('_')
            .map_or(holder.as_str(), |(pod, _)| pod)
            .to_owned();
        let object = installed.object("pod", &pod).unwrap();
        let machine = object
            .pointer("/spec/nodeName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let broken = machines.break_it(machine, Fault::Crash);
        let began = now_ms();
        let mark = format!("round-{round}");
        cluster.patch(&json!({"service": {"annotations": {"mark": mark}}}));
        eventually("another operator to act", || {
            let service = installed.object("service", "demo")?;
            let seen = service.pointer("/metadata/annotations/mark") == Some(&json!(mark));
            seen.then_some(())
                .ok_or_else(|| "the annotation is not there".into())
        });
        let took = now_ms().saturating_sub(began);
        report(&format!(
            "machine of the active operator crashed: another one acted after {took} ms"
        ));
        drop(broken);
        assert!(took <= FAILOVER_MS, "{took} ms");
        assert_ne!(until_held(&installed), holder);
        installed.kubectl(&["rollout", "status", "deployment/raft-operator", "--timeout=2m"]);
        cluster.until_ready(1);
    }
}

/// The pods of two clusters were made by an operator whose template was another one.
#[test]
fn an_upgraded_operator_rolls_one_cluster_at_a_time() {
    const TEST: &str = "an_upgraded_operator_rolls_one_cluster_at_a_time";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("upgrade", &images);
    let clusters = ["one", "two"].map(|name| RaftCluster::create(&installed, name, &small(3)));
    for cluster in &clusters {
        cluster.until_ready(3);
    }
    installed.kubectl(&["scale", "deployment/raft-operator", "--replicas=0"]);
    eventually("no operator", || {
        let pods = installed.objects("pods", OPERATOR)?;
        pods.is_empty()
            .then_some(())
            .ok_or_else(|| "it still runs".into())
    });
    for cluster in &clusters {
        age(cluster);
    }
    installed.kubectl(&["scale", "deployment/raft-operator", "--replicas=1"]);
    let mut seen = BTreeSet::new();
    eventually("both to be rolled out, one after the other", || {
        let counts = [older(&clusters[0])?, older(&clusters[1])?];
        seen.insert(counts);
        let under_way = counts.iter().filter(|count| (1..3).contains(*count)).count();
        assert!(
            under_way <= 1,
            "both at once: {counts:?} pods are of the older template"
        );
        (counts == [0, 0])
            .then_some(())
            .ok_or_else(|| format!("{counts:?} pods are of the older template"))
    });
    let one_waits = |[one, two]: &[usize; 2]| one.max(two) == &3 && one.min(two) < &3;
    assert!(seen.iter().any(one_waits), "the other one waited: {seen:?}");
    for cluster in &clusters {
        cluster.until_ready(3);
    }
}

/// Makes a cluster, while there is no operator, one whose template an older operator made.
fn age(cluster: &RaftCluster<'_>) {
    let installed = cluster.installation();
    let name = cluster.name();
    let set = installed.object("statefulset", name).unwrap();
    let revision = set["spec"]["template"]["metadata"]["annotations"][REVISION]
        .as_str()
        .unwrap_or_default();
    let record = installed.object("configmap", &format!("{name}-record")).unwrap();
    for object in [&record, &set] {
        let aged = object.to_string().replace(revision, OLDER);
        let replace = ["--namespace", installed.namespace(), "replace", "--filename", "-"];
        try_run_with("kubectl", &replace, &aged).unwrap_or_else(|why| panic!("{why}"));
    }
    installed.kubectl(&[
        "delete",
        "pods",
        "--wait=false",
        "--selector",
        &cluster.selector(),
    ]);
    eventually("pods of the older template", || {
        let pods = cluster.pods()?;
        let count = pods.iter().filter(|pod| is_true(pod, "Ready")).count();
        (count == 3 && older(cluster)? == 3)
            .then_some(())
            .ok_or_else(|| format!("{count} are ready"))
    });
}

/// How many of its pods are of the older template.
fn older(cluster: &RaftCluster<'_>) -> Result<usize, String> {
    let pods = cluster.pods()?;
    let is_older = |pod: &&Value| pod["metadata"]["annotations"][REVISION] == OLDER;
    Ok(pods.iter().filter(is_older).count())
}

/// The holder of the Lease, once somebody is.
fn until_held(installed: &Installation) -> String {
    eventually("a holder of the Lease", || {
        let lease = installed.object("lease", "raft-operator")?;
        let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str);
        holder
            .filter(|holder| !holder.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| "nobody".into())
    })
}

fn until_another_holds(installed: &Installation, before: &str) {
    eventually("another holder of the Lease", || {
        let now = until_held(installed);
        (now != before)
            .then_some(())
            .ok_or_else(|| format!("{before} still holds it"))
    });
}
