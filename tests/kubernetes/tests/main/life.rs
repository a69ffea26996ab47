//! Everything that is asked of a cluster in its life, step by step, under a client that writes and checks.

use std::time::Instant;

use kubernetes_tests::cordon::Cordon;
use kubernetes_tests::installation::Installation;
use kubernetes_tests::raft_cluster::{RaftCluster, small};
use kubernetes_tests::report::{now_ms, report};
use kubernetes_tests::requirements;
use kubernetes_tests::toolbox::Toolbox;
use kubernetes_tests::wait::eventually;
use kubernetes_tests::writer::Writer;
use serde_json::{Value, json};

/// So long it is looked whether anything is changed that may not be.
const PAUSED_MS: i64 = 5_000;
/// An image that nobody has.
const BROKEN_IMAGE: &str = "localhost/raft-node:no-such-version";

#[test]
fn a_cluster_grows_shrinks_restarts_and_is_repaired_while_a_client_writes() {
    const TEST: &str = "a_cluster_grows_shrinks_restarts_and_is_repaired_while_a_client_writes";
    let Some(images) = requirements::cluster(TEST) else {
        return;
    };
    let installed = Installation::new("life", &images);
    let cluster = RaftCluster::create(&installed, "demo", &small(1));
    cluster.until_ready(1);
    let toolbox = Toolbox::new(&installed, None);
    let writer = Writer::start(&toolbox, &cluster);
    let life = Life {
        cluster: &cluster,
        writer: &writer,
    };
    for replicas in [3, 5, 3, 5] {
        life.step(&format!("scaled to {replicas}"), || {
            let replicas = format!("--replicas={replicas}");
            installed.kubectl(&["scale", "raft/demo", &replicas]);
        });
        cluster.until_ready(replicas);
        toolbox.until_verified(&cluster, replicas);
    }
    life.restarts();
    life.changes_its_image();
    life.is_paused();
    life.stops_a_broken_rollout();
    life.replaces_a_lost_volume();
    life.cannot_grow_a_volume();
    life.is_drained();
    let last = life.cluster.pod(5);
    assert!(installed.object("pod", &last).is_ok(), "{last} is there");
    writer.check(&[], 5);
}

struct Life<'a> {
    cluster: &'a RaftCluster<'a>,
    writer: &'a Writer<'a>,
}

impl Life<'_> {
    /// Does something, waits until the cluster has settled, and tells how long that took and how long nothing was acknowledged.
    fn step(&self, what: &str, act: impl FnOnce()) {
        let (began, clock) = (now_ms(), Instant::now());
        act();
        let replicas = self.asked_for();
        self.cluster.until_ready(replicas);
        let took = clock.elapsed().as_secs_f64();
        let gap = self.writer.longest_gap_ms(began);
        report(&format!(
            "{what}: took {took:.1} s, longest time without an acknowledgement {gap} ms"
        ));
    }

    fn asked_for(&self) -> u32 {
        let object = self.cluster.object().unwrap_or_default();
        let replicas = object.pointer("/spec/replicas").and_then(Value::as_u64);
        replicas
            .and_then(|replicas| u32::try_from(replicas).ok())
            .unwrap_or(1)
    }

    /// Settings of Raft and resources: every pod is made anew, one at a time.
    fn restarts(&self) {
        let before = self.uids();
        self.step("restarted with other settings", || {
            self.cluster.patch(&json!({
                "raft": {"heartbeatInterval": "500ms"},
                "resources": {"node": {"requests": {"cpu": "20m"}}},
            }));
        });
        let after = self.uids();
        assert!(
            before.iter().all(|uid| !after.contains(uid)) && after.len() == before.len(),
            "{before:?} {after:?}"
        );
    }

    /// An image that works: every pod runs it, the test client's too.
    fn changes_its_image(&self) {
        let Some(image) = &self.cluster.installation().images().node_next else {
            requirements::skip("a change of image", "RAFT_TEST_IMAGES has no node-next=IMAGE");
            return;
        };
        self.step("restarted with another image", || {
            self.cluster.patch(&json!({"image": {"node": image}}));
        });
        let told = self.cluster.text("/status/images/node");
        assert_eq!(told.as_ref(), Ok(image));
    }

    /// While it is paused, nothing is changed; then it is.
    fn is_paused(&self) {
        let installed = self.cluster.installation();
        let template = || {
            let set = installed.object("statefulset", self.cluster.name());
            set.unwrap_or_default()["spec"]["template"].clone()
        };
        let before = (self.uids(), template());
        self.cluster
            .patch(&json!({"paused": true, "podAnnotations": {"paused": "yes"}}));
        self.cluster.until("ReconciliationPaused", true);
        // What it would have done by now, it does at once.
        let until = now_ms() + PAUSED_MS;
        while now_ms() < until {
            assert_eq!((self.uids(), template()), before);
        }
        self.step("paused, and went on", || {
            self.cluster.patch(&json!({"paused": false}));
        });
        assert!(!self.uids().iter().any(|uid| before.0.contains(uid)));
    }

    /// One pod gets the image that does not exist; then the last template that worked is back, and the spec is repaired.
    fn stops_a_broken_rollout(&self) {
        let before = self.uids();
        self.cluster.patch(&json!({"image": {"node": BROKEN_IMAGE}}));
        let degraded = eventually("the rollout to stop", || {
            let degraded = self.cluster.condition("Degraded")?;
            let stopped = degraded.is && degraded.reason == "RolloutStopped";
            stopped
                .then_some(degraded.clone())
                .ok_or_else(|| format!("{degraded:?}"))
        });
        assert!(degraded.message.contains("correct the spec"), "{degraded:?}");
        self.cluster.until_event("Degraded", "the rollout stopped");
        eventually("all five pods to be ready again", || {
            let ready = self.cluster.text("/status/ready")?;
            (ready == "5/5").then_some(()).ok_or(ready)
        });
        let after = self.uids();
        let replaced = before.iter().filter(|uid| !after.contains(uid)).count();
        assert_eq!(replaced, 1, "pods that the broken image reached");
        self.writer.goes_on();
        self.step("broken rollout repaired", || {
            self.cluster.patch(&json!({"image": {"node": null}}));
        });
        assert_eq!(
            self.cluster.text("/status/images/node").as_ref(),
            Ok(&self.cluster.installation().images().node)
        );
    }

    /// A claim and its pod go; a new member takes their place by itself.
    fn replaces_a_lost_volume(&self) {
        let installed = self.cluster.installation();
        let pod = self.cluster.pod(3);
        let member = || {
            let object = self.cluster.object()?;
            let members = object.pointer("/status/members").and_then(Value::as_array);
            let mut members = members.into_iter().flatten();
            let found = members.find(|member| member["pod"] == pod.as_str() && member["voter"] == true);
            let id = found.and_then(|member| member["memberId"].as_str());
            id.map(str::to_owned).ok_or_else(|| format!("{pod} is no voter"))
        };
        let before = eventually("the member that loses its volume", member);
        self.step("lost volume replaced", || {
            let claim = format!("data-{pod}");
            installed.kubectl(&["delete", "persistentvolumeclaim", &claim, "--wait=false"]);
            installed.kubectl(&["delete", "pod", &pod, "--wait=false"]);
            eventually("another member in its place", || {
                let now = member()?;
                (now != before)
                    .then_some(())
                    .ok_or_else(|| format!("it is still {now}"))
            });
        });
    }

    /// The class refuses that, other changes still apply, and what was asked for can be taken back only by another class. So it
    /// is asked for last, as sizes cannot shrink.
    fn cannot_grow_a_volume(&self) {
        let installed = self.cluster.installation();
        let claim = format!("data-{}", self.cluster.pod(1));
        let class = installed
            .object("persistentvolumeclaim", &claim)
            .unwrap_or_default();
        let class = class
            .pointer("/spec/storageClassName")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let grows = installed.object("storageclass", &class).unwrap_or_default();
        if grows["allowVolumeExpansion"] == true {
            report(&format!(
                "volumes of class {class} grow, so nothing is refused here"
            ));
            return;
        }
        let before = self.uids();
        self.cluster
            .patch(&json!({"storage": {"size": "512Mi"}, "podAnnotations": {"besides": "growth"}}));
        let refused = self.cluster.until("StorageResizeUnsupported", true);
        assert!(!refused.message.is_empty(), "{refused:?}");
        self.cluster.until_event("StorageResizeUnsupported", "");
        self.cluster.until_ready(5);
        assert!(
            !self.uids().iter().any(|uid| before.contains(uid)),
            "the other change applied"
        );
        assert!(self.cluster.until("StorageResizeUnsupported", true).is);
    }

    /// A machine is emptied for maintenance, as far as the budget allows, and comes back.
    fn is_drained(&self) {
        let installed = self.cluster.installation();
        let pod = self.cluster.pod(1);
        let object = installed.object("pod", &pod).unwrap_or_default();
        let machine = object
            .pointer("/spec/nodeName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let selector =
            "--pod-selector=app.kubernetes.io/name=raft-log-replicator,app.kubernetes.io/component=node";
        self.step("machine drained and given back", || {
            let cordon = Cordon::of(installed, vec![machine.to_owned()]);
            let drained = installed.try_kubectl(&[
                "drain",
                machine,
                "--ignore-daemonsets",
                "--delete-emptydir-data",
                selector,
                "--timeout=20s",
            ]);
            // Where volumes are bound to machines, the first pod waits for this one, and the budget keeps a second.
            report(&format!(
                "kubectl drain: {}",
                if drained.is_ok() {
                    "done"
                } else {
                    "kept by the budget"
                }
            ));
            self.writer.goes_on();
            drop(cordon);
        });
    }

    /// The pods' identities.
    fn uids(&self) -> Vec<String> {
        let pods = eventually("the pods", || self.cluster.pods());
        let uid = |pod: &Value| {
            pod.pointer("/metadata/uid")
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        pods.iter().filter_map(uid).collect()
    }
}
