//! What becomes of a cluster whose leader goes, under a client that writes and checks.

use kubernetes_tests::installation::Installation;
use kubernetes_tests::machines::{Fault, Machines};
use kubernetes_tests::raft_cluster::{RaftCluster, small};
use kubernetes_tests::report::{distribution, now_ms};
use kubernetes_tests::requirements;
use kubernetes_tests::sight::Sight;
use kubernetes_tests::toolbox::Toolbox;
use kubernetes_tests::wait::eventually;
use kubernetes_tests::writer::Writer;
use serde_json::Value;

const REPLICAS: u32 = 5;
/// The longest election timeout, which is that of all samples.
const ELECTION_TIMEOUT_MAX_MS: i64 = 3_000;
/// The Service of the leader follows a new one within this time.
const SERVICE_FOLLOWS_MS: i64 = 2_000;
/// What is seen of it is late: nodes are looked at every 20 ms, and to cut a cable takes a moment.
const SEEN_LATE_MS: i64 = 100;
/// What looks at nodes.
const LOOK: &str = env!("CARGO_BIN_EXE_look-at-nodes");

#[test]
fn a_leader_that_is_deleted_hands_over_and_loses_nothing() {
    let Some(images) = requirements::cluster("a_leader_that_is_deleted_hands_over_and_loses_nothing") else {
        return;
    };
    let installed = Installation::new("handover", &images);
    let cluster = RaftCluster::create(&installed, "demo", &small(REPLICAS));
    cluster.until_ready(REPLICAS);
    let toolbox = Toolbox::new(&installed, None);
    let writer = Writer::start(&toolbox, &cluster);
    let (mut gaps, mut services) = (Vec::new(), Vec::new());
    for _ in 0..requirements::rounds(5) {
        let old = leading(&cluster);
        let deleted = uid(&installed, &old).unwrap();
        let began = now_ms();
        installed.kubectl(&["delete", "pod", &old, "--wait=false"]);
        let (new, moved_at) = eventually("the Service to move to a new leader", || {
            let pod = leading(&cluster);
            (pod != old)
                .then(|| (pod, now_ms()))
                .ok_or_else(|| format!("it is at {old}"))
        });
        let took_over = eventually("an operation that the new leader accepted", || {
            let told = writer.told();
            let mut since = told.iter().filter(|told| told.at_ms >= began);
            let found = since.find(|told| cluster.pod(told.leader) == new);
            found
                .map(|told| told.at_ms)
                .ok_or_else(|| format!("none by {new}"))
        });
        // Leadership may move before the operator has seen anything: three pods that go in one breath are a majority.
        eventually("another pod in its place", || match uid(&installed, &old)? {
            now if now == deleted => Err("it stops".to_owned()),
            _ => Ok(()),
        });
        cluster.until_ready(REPLICAS);
        gaps.push(writer.longest_gap_ms(began));
        services.push(moved_at.saturating_sub(took_over));
    }
    distribution(
        "leader pod deleted: longest time without an acknowledgement",
        &gaps,
    );
    distribution(
        "leader pod deleted: demo-leader after the new leader's first acknowledgement",
        &services,
    );
    writer.check(&[], REPLICAS);
    for (gap, service) in gaps.iter().zip(&services) {
        assert!(*gap <= 2 * ELECTION_TIMEOUT_MAX_MS, "{gaps:?}");
        assert!(*service <= SERVICE_FOLLOWS_MS, "{services:?}");
    }
}

#[test]
fn the_machine_of_a_leader_is_cut_off_or_crashes() {
    const TEST: &str = "the_machine_of_a_leader_is_cut_off_or_crashes";
    let (Some(images), Some(machines)) = (requirements::cluster(TEST), Machines::given(TEST)) else {
        return;
    };
    let installed = Installation::new("machines", &images);
    let cluster = RaftCluster::create(&installed, "demo", &small(REPLICAS));
    cluster.until_ready(REPLICAS);
    // The writer's machine stays whole.
    let spared = machine_of(&installed, "demo-0");
    let toolbox = Toolbox::new(&installed, Some(&spared));
    let writer = Writer::start(&toolbox, &cluster);
    let mut all = Vec::new();
    for (fault, name) in [(Fault::Isolation, "cut off"), (Fault::Crash, "crashed")] {
        let mut times = Times::default();
        for _ in 0..requirements::rounds(3) {
            let round = Round {
                machines: &machines,
                cluster: &cluster,
                toolbox: &toolbox,
                spared: &spared,
            };
            let term = round.run(fault, &mut times);
            cluster.until_term(term);
            cluster.until_ready(REPLICAS);
            toolbox.until_verified(&cluster, REPLICAS);
            writer.goes_on();
        }
        times.tell(name);
        all.push(times);
    }
    writer.check(&[], REPLICAS);
    for times in all {
        times.judge();
    }
}

#[derive(Default)]
struct Times {
    elections: Vec<i64>,
    leader_unready: Vec<i64>,
    followers_unready: Vec<i64>,
}

impl Times {
    fn tell(&self, name: &str) {
        distribution(
            &format!("leader's machine {name}: until a new leader"),
            &self.elections,
        );
        if !self.leader_unready.is_empty() {
            distribution(
                "/readyz of the leader that is cut off: until 503",
                &self.leader_unready,
            );
        }
        if !self.followers_unready.is_empty() {
            distribution(
                "/readyz of a follower beside it: until 503",
                &self.followers_unready,
            );
        }
    }

    fn judge(&self) {
        let within = |times: &[i64], bound: i64| times.iter().all(|time| *time <= bound + SEEN_LATE_MS);
        assert!(
            within(&self.elections, 2 * ELECTION_TIMEOUT_MAX_MS),
            "{:?}",
            self.elections
        );
        assert!(
            within(&self.leader_unready, ELECTION_TIMEOUT_MAX_MS),
            "{:?}",
            self.leader_unready
        );
        assert!(
            within(&self.followers_unready, 2 * ELECTION_TIMEOUT_MAX_MS),
            "{:?}",
            self.followers_unready
        );
    }
}

/// One machine with the leader is broken and mended.
struct Round<'a> {
    machines: &'a Machines,
    cluster: &'a RaftCluster<'a>,
    toolbox: &'a Toolbox<'a>,
    spared: &'a str,
}

impl Round<'_> {
    /// Gives the new leader's term.
    fn run(&self, fault: Fault, times: &mut Times) -> u64 {
        let installed = self.cluster.installation();
        let (leader, machine) = self.leader_elsewhere();
        let placed: Vec<Placed> = (1..=REPLICAS)
            .map(|node| placed(installed, &self.cluster.pod(node)))
            .collect();
        let (inside, outside): (Vec<_>, Vec<_>) = placed.iter().partition(|pod| pod.machine == machine);
        let look = |machine: &str, pods: &[&Placed]| {
            let pods: Vec<String> = pods
                .iter()
                .map(|pod| format!("{}={}:8001", pod.name, pod.ip))
                .collect();
            Sight::new(self.machines, machine, LOOK, &pods)
        };
        let from_outside = look(self.spared, &outside);
        let from_inside = look(&machine, &inside);
        let term = eventually("the leader's term", || {
            from_inside.first(0, |seen| seen.pod == leader && seen.role == "leader")
        })
        .term;
        let began = now_ms();
        let broken = self.machines.break_it(&machine, fault);
        let elected = eventually("a new leader", || {
            from_outside.first(began, |seen| seen.role == "leader" && seen.term > term)
        });
        times.elections.push(elected.at_ms.saturating_sub(began));
        if fault == Fault::Isolation {
            for pod in &inside {
                let unready = eventually("503 inside the machine", || {
                    from_inside.first(began, |seen| seen.pod == pod.name && seen.code == 503)
                });
                let after = unready.at_ms.saturating_sub(began);
                if pod.name == leader {
                    times.leader_unready.push(after);
                } else {
                    times.followers_unready.push(after);
                }
            }
        }
        drop(broken);
        elected.term
    }

    /// A leader on a machine that may be broken: not the writer's, and without a majority on it.
    fn leader_elsewhere(&self) -> (String, String) {
        let installed = self.cluster.installation();
        let placed: Vec<Placed> = (1..=REPLICAS)
            .map(|node| placed(installed, &self.cluster.pod(node)))
            .collect();
        let may_lead = |pod: &&Placed| {
            let beside = placed.iter().filter(|other| other.machine == pod.machine);
            pod.machine != self.spared && beside.count() < 3
        };
        let heirs: Vec<&Placed> = placed.iter().filter(may_lead).collect();
        assert!(!heirs.is_empty(), "no machine can be broken: {placed:?}");
        eventually("a leader on a machine that may be broken", || {
            let leader = self.toolbox.leader(self.cluster, REPLICAS)?;
            if let Some(pod) = heirs.iter().find(|pod| pod.name == leader) {
                return Ok((leader, pod.machine.clone()));
            }
            let to = heirs
                .iter()
                .find_map(|pod| pod.name.rsplit_once('-')?.1.parse::<u32>().ok());
            let to = to.unwrap_or_default().saturating_add(1).to_string();
            let endpoints = self.cluster.endpoints(REPLICAS);
            self.toolbox
                .raftctl(&["--endpoints", &endpoints, "leader", "transfer", &to])?;
            Err(format!("{leader} leads"))
        })
    }
}

#[derive(Debug)]
struct Placed {
    name: String,
    machine: String,
    ip: String,
}

fn uid(installed: &Installation, pod: &str) -> Result<String, String> {
    let pod = installed.object("pod", pod)?;
    let uid = pod.pointer("/metadata/uid").and_then(Value::as_str);
    uid.map(str::to_owned).ok_or_else(|| "it has no UID".to_owned())
}

fn placed(installed: &Installation, pod: &str) -> Placed {
    eventually(&format!("the place of {pod}"), || {
        let object = installed.object("pod", pod)?;
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let place = text("/spec/nodeName").zip(text("/status/podIP"));
        let (machine, ip) = place.ok_or_else(|| format!("{pod} has none"))?;
        Ok(Placed {
            name: pod.to_owned(),
            machine,
            ip,
        })
    })
}

fn machine_of(installed: &Installation, pod: &str) -> String {
    placed(installed, pod).machine
}

/// The pod behind the leader's Service.
fn leading(cluster: &RaftCluster<'_>) -> String {
    let selector = format!("kubernetes.io/service-name={}-leader", cluster.name());
    eventually("one pod behind the leader's Service", || {
        let slices = cluster.installation().objects("endpointslices", &selector)?;
        let endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array());
        let names: Vec<&str> = endpoints
            .flatten()
            .filter_map(|endpoint| endpoint.pointer("/targetRef/name")?.as_str())
            .collect();
        match names.as_slice() {
            [name] => Ok((*name).to_owned()),
            others => Err(format!("{others:?}")),
        }
    })
}
