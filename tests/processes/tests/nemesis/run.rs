//! A cluster, its clients, and what is done to it.

use crate::fault::{Drawing, Fault, Group, Round};
use crate::replacement::Replacement;
use processes::api;
use processes::cluster::{Cluster, Options, Program};
use processes::history::Logged;
use processes::key_value::{self, Askers, Writes, Written};
use processes::linearizability::{self, History};
use processes::links::Losses;
use processes::load::Load;
use processes::machines::{Kind, Machines};
use processes::network::Network;
use processes::readers::Readers;
use processes::wait::eventually_within;
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SUBMITTERS: u64 = 8;
const READERS: u64 = 4;
/// A follower waits for MAX of the election timeout (600 ms here), a few times where votes are split; packets that were lost
/// are sent again by TCP after a time that grows with the fault's length, unless the connection is given up before.
const PROGRESS_WITHIN: Duration = Duration::from_secs(10);
/// A replicator tries again every 5 s at most whether its state machine is there, and may have taken a dead one for alive as long.
const EXECUTES_WITHIN: Duration = Duration::from_secs(20);
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What becomes of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Executor {
    /// They are told.
    Log,
    /// They go into a key-value store beside each replicator.
    KeyValue,
}

/// Field order is drop order: programs end before their network does.
#[derive(Debug)]
pub(crate) struct Run {
    cluster: Cluster,
    stores: Option<Stores>,
    load: Load,
    readers: Readers,
    network: Network,
    all: Group,
    /// Of the pod that was lost.
    replacement: Option<Replacement>,
    coverage: Coverage,
}

/// Beside the replicators, and who asks them.
#[derive(Debug)]
struct Stores {
    machines: Machines,
    askers: Askers,
}

impl Stores {
    /// Checks what clients were told of stores, and what is in each of them. Gives the log.
    async fn check(self, cluster: &mut Cluster, history: &History) -> Vec<Logged> {
        let asked = self.askers.finish().await;
        let logs = cluster.settled_logs(&cluster.numbers()).await;
        if let Err(violation) = linearizability::check(history, &logs) {
            panic!("{violation:#?}");
        }
        let log = logs.into_values().next().expect("a cluster has a replicator");
        let written = Written {
            acknowledged: history.acknowledged.clone(),
            unanswered: history.unanswered.clone(),
        };
        if let Err(violation) = key_value::check(&log, &written, &asked) {
            panic!("{violation:#?}");
        }
        for node in cluster.numbers() {
            let mut client = api::operations(cluster.address(node));
            for (key, expected) in key_value::values(&log) {
                let answer = api::query(&mut client, &format!("get {key}"), true).await;
                let answer = answer.unwrap_or_else(|status| panic!("store {node}: {status}"));
                let expected = expected.map_or("none".to_owned(), |value| format!("value {value}"));
                assert_eq!(answer.result, expected, "{key} in store {node}");
            }
        }
        let results = written.acknowledged.iter().filter(|told| told.result.is_some());
        println!(
            "{} results and {} answers of stores",
            results.count(),
            asked.len()
        );
        log
    }
}

/// How often faults occurred, and what they brought about: one that never fires is to be seen.
#[derive(Debug, Default)]
struct Coverage {
    faults: BTreeMap<&'static str, u64>,
    packets_lost: u64,
    disks_full: u64,
    members_replaced: u64,
}

impl Run {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(
        mut network: Network,
        all: Group,
        executor: Executor,
        seed: u64,
        pause_max: Duration,
    ) -> Self {
        let mut options = Options {
            hosts: network.hosts(),
            volumes: network.disks(),
            ..Options::quick()
        };
        // Everybody's whole log is checked in the end: none is let go of for a snapshot.
        let rarely = ["--snapshot-every-bytes", "64MiB"];
        options.node_flags.extend(rarely.map(str::to_owned));
        let mut machines =
            (executor == Executor::KeyValue).then(|| Machines::beside(&mut options, Kind::KeyValue));
        let mut cluster = Cluster::prepare(options).await;
        let ports: Vec<(u32, u16)> = all.iter().map(|&node| (node, cluster.port(node))).collect();
        network.relay(&ports).await;
        if let Some(machines) = &mut machines {
            machines.start_all();
        }
        cluster.start_all();
        cluster.wait_until_ready().await;
        let nodes = cluster.addresses();
        let load = match executor {
            Executor::Log => Load::start_with_pauses("nemesis", &nodes, SUBMITTERS, seed, pause_max),
            Executor::KeyValue => {
                Load::start_commanding("nemesis", &nodes, SUBMITTERS, seed, pause_max, Writes::default)
            }
        };
        let pods: Vec<_> = all
            .iter()
            .map(|&node| (node, cluster.address(node), cluster.replicator_address(node)))
            .collect();
        let readers = Readers::start(&pods, READERS, load.began(), seed);
        let nodes: Vec<_> = pods.iter().map(|&(node, at, _)| (node, at)).collect();
        let stores = machines.map(|machines| Stores {
            machines,
            askers: Askers::start(&nodes, READERS, load.began(), seed),
        });
        Self {
            cluster,
            stores,
            load,
            readers,
            network,
            all,
            replacement: None,
            coverage: Coverage::default(),
        }
    }

    /// Has things go wrong for `length`, sees to it that all is well soon after, and checks what clients were told.
    pub(crate) async fn finish(mut self, random: ChaCha8Rng, length: Duration) {
        self.load.progresses_by(50).await;
        let mut drawing = Drawing::new(&self.cluster.numbers(), random);
        if self.stores.is_some() {
            drawing = drawing.with_machines();
        }
        let began = Instant::now();
        while began.elapsed() < length {
            self.replace().await;
            let round = drawing.round(self.readers.leader(), self.replacement.is_some());
            println!("{:6.2} s: {round:?}", began.elapsed().as_secs_f64());
            self.suffer(&round).await;
        }
        self.recover().await;
        self.show_coverage();
        let told = self.load.finish().await;
        let seen = self.readers.finish().await;
        let queries = seen.queries.len();
        let history = History {
            acknowledged: told.acknowledged,
            unanswered: told.unanswered,
            reads: [seen.reads, seen.queries].concat(),
            views: seen.views,
        };
        let log = match self.stores.take() {
            Some(stores) => stores.check(&mut self.cluster, &history).await,
            None => self.cluster.check_linearizability(&history).await,
        };
        let terms = log.last().map_or(0, |last| last.term);
        println!(
            "{} operations in the log, {} of them acknowledged; {} reads, {queries} of them queries, {} views; the last term is {terms}",
            log.len(),
            history.acknowledged.len(),
            history.reads.len(),
            history.views.len(),
        );
    }

    async fn suffer(&mut self, round: &Round) {
        let mut losses = Losses::default();
        for fault in &round.faults {
            for (link, percent) in fault.losses(&self.all) {
                losses.lose(link, percent);
            }
            for (link, delay) in fault.delays(&self.all) {
                self.network.delays().set(link, delay);
            }
        }
        self.network.set(&losses);
        for fault in &round.faults {
            self.strike(fault).await;
        }
        tokio::time::sleep(round.lasts).await;
        self.count(round).await;
        self.network.delays().clear();
        self.network.set(&Losses::default());
        for fault in &round.faults {
            self.heal(fault);
        }
        self.start_what_was_killed(round);
        tokio::time::sleep(round.peace).await;
    }

    async fn count(&mut self, round: &Round) {
        self.coverage.packets_lost += self.network.dropped();
        for fault in &round.faults {
            *self.coverage.faults.entry(fault.name()).or_default() += 1;
            if let Fault::FullDisks(group) = fault {
                for &node in group {
                    let status = self.cluster.status(node).await;
                    self.coverage.disks_full += u64::from(status.is_ok_and(|status| status.disk_full));
                }
            }
        }
    }

    /// Prints what happened, and sees to it that faults were more than words.
    fn show_coverage(&self) {
        let Coverage {
            faults,
            packets_lost,
            disks_full,
            members_replaced,
        } = &self.coverage;
        let late = self.network.delays().late();
        println!(
            "{faults:?}; {packets_lost} packets lost, {late} pieces late, {disks_full} disks said to be full, \
             {members_replaced} members replaced"
        );
        let of = |names: &[&str]| names.iter().any(|name| faults.contains_key(name));
        assert!(
            !of(&["partition", "mute", "deaf", "loss"]) || *packets_lost > 0,
            "links were cut, and nothing was lost"
        );
        assert!(
            !of(&["delay"]) || late > 0,
            "links were slow, and nothing was late"
        );
        let lost = faults.get("lose pod").copied().unwrap_or_default();
        assert_eq!(*members_replaced, lost, "a pod that is lost is replaced");
    }

    async fn strike(&mut self, fault: &Fault) {
        match fault {
            Fault::KillNodes(group) => kill(self.nodes(group)).await,
            Fault::KillReplicators(group) => kill(self.replicators(group)).await,
            Fault::KillMachines(group) => kill(self.machines(group)).await,
            Fault::KillPods(group) => {
                kill(self.nodes(group)).await;
                kill(self.replicators(group)).await;
                kill(self.machines(group)).await;
            }
            Fault::LosePod(node) => self.lose(*node).await,
            Fault::FreezeNodes(group) => signal(self.nodes(group), Signal::STOP),
            Fault::FreezeReplicators(group) => signal(self.replicators(group), Signal::STOP),
            Fault::FreezeMachines(group) => signal(self.machines(group), Signal::STOP),
            Fault::FullDisks(group) => group.iter().for_each(|&node| self.network.fill_disk(node)),
            Fault::Partition(_) | Fault::Mute(_) | Fault::Deaf(_) | Fault::Loss(..) | Fault::Delay(..) => {}
        }
    }

    /// Its data are gone from the moment that it is killed, and it is started again with what else was killed.
    async fn lose(&mut self, node: u32) {
        let group = Group::from([node]);
        kill(self.nodes(&group)).await;
        kill(self.replicators(&group)).await;
        wipe(&self.network, node, self.cluster.node(node));
        wipe(&self.network, node, self.cluster.replicator(node));
        kill(self.machines(&group)).await;
        if let Some(stores) = &mut self.stores {
            wipe(&self.network, node, stores.machines.of(node));
        }
        self.replacement = Some(Replacement::of(node));
    }

    /// Goes on with the replacement of a lost pod, if there is one.
    async fn replace(&mut self) {
        if let Some(replacement) = &mut self.replacement
            && replacement.is_complete(&mut self.cluster).await
        {
            self.replacement = None;
            self.coverage.members_replaced += 1;
        }
    }

    /// Nothing else may have ended.
    fn start_what_was_killed(&mut self, round: &Round) {
        let (mut nodes, mut replicators, mut machines) = (Group::new(), Group::new(), Group::new());
        for fault in &round.faults {
            if let Fault::KillMachines(group) | Fault::KillPods(group) = fault {
                machines.extend(group);
            }
            if let Fault::KillNodes(group) | Fault::KillPods(group) = fault {
                nodes.extend(group);
            }
            if let Fault::KillReplicators(group) | Fault::KillPods(group) = fault {
                replicators.extend(group);
            }
            if let Fault::LosePod(node) = fault {
                nodes.insert(*node);
                replicators.insert(*node);
                machines.insert(*node);
            }
        }
        for &node in &self.all {
            let ended = !self.cluster.node(node).is_running();
            assert_eq!(ended, nodes.contains(&node), "node {node} in {round:?}");
            let ended = !self.cluster.replicator(node).is_running();
            assert_eq!(
                ended,
                replicators.contains(&node),
                "replicator {node} in {round:?}"
            );
            if let Some(stores) = &mut self.stores {
                let ended = !stores.machines.of(node).is_running();
                assert_eq!(ended, machines.contains(&node), "store {node} in {round:?}");
            }
        }
        if let Some(stores) = &mut self.stores {
            stores.machines.start_all();
        }
        self.cluster.start_all();
    }

    /// What was killed is started only when all else is healed.
    fn heal(&mut self, fault: &Fault) {
        match fault {
            Fault::FreezeNodes(group) => signal(self.nodes(group), Signal::CONT),
            Fault::FreezeReplicators(group) => signal(self.replicators(group), Signal::CONT),
            Fault::FreezeMachines(group) => signal(self.machines(group), Signal::CONT),
            Fault::FullDisks(group) => group.iter().for_each(|&node| self.network.make_room(node)),
            _ => {}
        }
    }

    /// Progress, readiness, and whatever else the protocol promises once faults have ended.
    async fn recover(&mut self) {
        let healed = Instant::now();
        let goal = self.load.acknowledged() + SUBMITTERS + 1;
        let within = match self.stores {
            Some(_) => EXECUTES_WITHIN,
            None => PROGRESS_WITHIN,
        };
        eventually_within(within, "operations to be acknowledged again", async || {
            let now = self.load.acknowledged();
            if now >= goal {
                Ok(())
            } else {
                Err(format!("{now} of {goal} so far"))
            }
        })
        .await;
        println!(
            "progress {:.2} s after the last fault",
            healed.elapsed().as_secs_f64()
        );
        while self.replacement.is_some() {
            assert!(
                healed.elapsed() < READY_WITHIN,
                "{:?} was not replaced",
                self.replacement
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.replace().await;
        }
        self.cluster.wait_until_ready().await;
        let took = healed.elapsed();
        println!("all ready {:.2} s after the last fault", took.as_secs_f64());
        assert!(took < READY_WITHIN, "not all were ready before {took:?}");
    }

    fn nodes(&mut self, group: &Group) -> Vec<&mut Program> {
        self.cluster.nodes_of(group)
    }

    fn replicators(&mut self, group: &Group) -> Vec<&mut Program> {
        self.cluster.replicators_of(group)
    }

    fn machines(&mut self, group: &Group) -> Vec<&mut Program> {
        let stores = self.stores.as_mut();
        stores.map_or_else(Vec::new, |stores| stores.machines.of_all(group))
    }
}

/// All at once.
async fn kill(mut programs: Vec<&mut Program>) {
    for program in &mut programs {
        program.process().strike();
    }
    for program in programs {
        program.process().wait().await;
    }
}

fn wipe(network: &Network, node: u32, program: &mut Program) {
    let folder = network.from_outside(node, program.folder());
    program.delete_folder_at(&folder);
}

fn signal(programs: Vec<&mut Program>, signal: Signal) {
    for program in programs {
        program.process().signal(signal);
    }
}
