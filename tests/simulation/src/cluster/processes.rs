//! Processes start, die, and are connected with each other.

use std::time::Duration;

use raftlog_raft::feature::FeatureLevel;
use raftlog_raft::ids::NodeNumber;
use raftlog_raft::time::Time;
use raftlog_replicator::core::{
    Config as ReplicatorConfig, Event, ExecuteOn, ExecutorKind, Replicator, StreamId,
};
use raftlog_server::node::{FromReplicator, Input, Node, NodeConfig, ReadCounts, SnapshotPolicy};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::observe::came_back;
use super::{Cluster, violation};
use crate::coverage::Seen;
use crate::disk::Damage;
use crate::happening::{Happening, Target};
use crate::pod::{NodeProcess, Stream};

/// Who is started, killed or stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    Node,
    Replicator,
}

pub(super) fn address(number: NodeNumber) -> String {
    format!("node{number}:5001")
}

impl Cluster {
    /// Both processes of a pod start, each in its own time.
    pub(super) fn start_soon(&mut self, number: NodeNumber, max: Duration) {
        for process in [Process::Node, Process::Replicator] {
            self.start_one_soon(number, process, max);
        }
    }

    pub(super) fn start_one_soon(&mut self, number: NodeNumber, process: Process, max: Duration) {
        let at = self.soon(max);
        let target = match process {
            Process::Node => Target::Node(number, None),
            Process::Replicator => Target::Replicator(number, None),
        };
        self.agenda.add(at, target, Happening::Start);
    }

    pub(super) fn start_node(&mut self, number: NodeNumber) {
        let now = self.shown(number);
        if self.pods[&number].node.is_some() || self.pods[&number].is_given_up {
            return;
        }
        self.forge(number);
        let config = self.node_config(number);
        let random = ChaCha8Rng::from_rng(&mut self.random);
        let pod = self.pod(number);
        let damage = pod.node_disk.damage;
        let forged = pod.forged.is_some();
        match Node::open(config, &mut pod.node_disk.content, now, random) {
            Ok(node) => {
                if let Some(version) = node.removed_by() {
                    return self.moves_aside(number, version);
                }
                pod.node_life += 1;
                let suspect = node.raft().is_some_and(raftlog_raft::Raft::is_suspect);
                let member = node.member_id();
                let waits = node.raft().is_none() && pod.has_formed;
                pod.member = Some(member);
                pod.node = Some(NodeProcess {
                    node,
                    tick_at: Time::NEVER,
                    was_suspect: suspect,
                    reads: ReadCounts::default(),
                });
                self.count(Seen::NodeStarted);
                if suspect {
                    self.count(Seen::NodeSuspect);
                }
                if waits {
                    self.count(Seen::NodeWaits);
                }
                self.tell(|| {
                    format!(
                        "node {number} starts as member {member}{}",
                        if suspect { ", suspect" } else { "" }
                    )
                });
                self.members.insert(member, number);
                let supports = self.pods[&number].supports;
                self.invariants.runs_version(member, supports);
                let is_aware = match damage {
                    Damage::None => false,
                    Damage::Evident => suspect,
                    Damage::LooksUnwritten => true,
                };
                if self.pods[&number].forged.is_none() {
                    self.node_came_back(number, is_aware);
                }
                self.settle(number);
                self.crash_again(number);
            }
            Err(error) if self.is_too_old(number, &error.to_string()) => {
                self.tell(|| format!("node {number} refuses its folder: {error}"));
                self.upgrade_soon(number);
            }
            // A forged log may contradict a snapshot beside it.
            Err(error) if damage > Damage::None || forged => self.node_refused(number, &error.to_string()),
            Err(error) => self.could_not_start(number, Process::Node, &error.to_string()),
        }
    }

    fn node_config(&mut self, number: NodeNumber) -> NodeConfig {
        let mut timeout = self.options.election_timeout;
        if self.options.uneven_timeouts && self.one_in(2) {
            timeout = timeout * 2 / 3;
        }
        // Whoever is to be added later is told of nobody; and whoever starts anew later, of all that there are by then.
        let is_initial = number <= self.options.nodes;
        let all = if self.pods[&number].has_formed {
            self.numbers()
        } else {
            1..=self.options.nodes
        };
        let peers = all.filter(|_| is_initial);
        NodeConfig {
            node: number,
            peer_address: address(number),
            client_address: address(number),
            initial_peers: peers.map(|number| (number, address(number))).collect(),
            was_removed: self.pods[&number].removed.is_some(),
            election_timeout_min: timeout,
            election_timeout_max: if self.options.narrow_timeouts {
                timeout * 5 / 4
            } else {
                timeout * 2
            },
            heartbeat_interval: timeout * 2 / 3,
            snapshots: SnapshotPolicy {
                every_operations: self.options.snapshot_every,
                every_bytes: Some(self.options.snapshot_bytes).filter(|bytes| *bytes > 0),
            },
            lease_reads: self.options.lease_reads,
            supports: self.pods[&number].supports,
            bounds: self.options.bounds,
            planted: self.options.planted,
        }
    }

    /// Whether a node of the earlier version refuses for that reason what is of a later one.
    pub(super) fn is_too_old(&mut self, number: NodeNumber, why: &str) -> bool {
        let supports = self.pods[&number].supports;
        let refusal = supports.check(FeatureLevel::REHEARSED).err();
        let is_too_old = refusal.is_some_and(|refusal| why.contains(&refusal));
        if is_too_old {
            self.count(Seen::VersionRefused);
        }
        is_too_old
    }

    fn node_came_back(&mut self, number: NodeNumber, is_aware: bool) {
        let Some(process) = &self.pods[&number].node else {
            return;
        };
        let Some(raft) = process.node.raft() else { return };
        let (member, known) = (
            process.node.member_id(),
            self.invariants.known(process.node.member_id()).0,
        );
        if raft.log().last().index < known {
            self.coverage.count(Seen::LogShortened);
        }
        let verdict = came_back(&mut self.invariants, member, raft, is_aware);
        self.judge(verdict);
    }

    fn node_refused(&mut self, number: NodeNumber, why: &str) {
        self.count(Seen::NodeRefused);
        self.tell(|| format!("node {number} refuses its folder: {why}"));
        self.give_up_folder(number);
    }

    /// A damaged folder: somebody replaces it by an empty one, or lets it be.
    pub(super) fn give_up_folder(&mut self, number: NodeNumber) {
        if self.random.random_bool(0.5) && !self.has_healed() {
            self.wipe_node(number);
            self.start_one_soon(number, Process::Node, Duration::from_secs(30));
        } else {
            self.pod(number).is_given_up = true;
        }
    }

    /// Without room, or with a disk that fails, it tries again; else there is no excuse.
    fn could_not_start(&mut self, number: NodeNumber, process: Process, why: &str) {
        if why.contains("(Full)") {
            self.start_one_soon(number, process, Duration::from_secs(5));
        } else {
            let what = format!("{process:?} {number} does not start: {why}");
            self.judge(violation("every process comes back", what));
        }
    }

    pub(super) fn start_replicator(&mut self, number: NodeNumber) {
        if self.pods[&number].replicator.is_some() || self.pods[&number].is_given_up {
            return;
        }
        let mut random = ChaCha8Rng::from_rng(&mut self.random);
        let (bytes_max, planted) = (self.options.replicator_bytes_max, self.options.planted);
        let executor = if self.options.state_machine {
            ExecutorKind::StateMachine
        } else {
            ExecutorKind::Log
        };
        let execute_on = if self.options.execute_on_leader {
            ExecuteOn::Leader
        } else {
            ExecuteOn::EveryNode
        };
        let pod = self.pod(number);
        let config = ReplicatorConfig {
            cache_bytes: bytes_max / 2,
            unpersisted_bytes_max: bytes_max,
            execute_on,
            planted,
            executor,
            ..ReplicatorConfig::new(number)
        };
        let damaged = pod.replicator_disk.is_damaged();
        match Replicator::open(config, &mut pod.replicator_disk.content, &mut random) {
            Ok(replicator) => {
                pod.replicator_life += 1;
                pod.replicator = Some(replicator);
                self.count(Seen::ReplicatorStarted);
                self.settle(number);
                self.attach_soon(number, Duration::from_millis(500));
            }
            Err(error) if damaged => {
                self.count(Seen::ReplicatorRefused);
                self.tell(|| format!("replicator {number} refuses its folder: {error}"));
                self.wipe_replicator(number);
                self.start_one_soon(number, Process::Replicator, Duration::from_secs(5));
            }
            Err(error) => self.could_not_start(number, Process::Replicator, &error.to_string()),
        }
    }

    /// The process of a node dies. Whoever is connected with it finds out.
    pub(super) fn kill_node(&mut self, number: NodeNumber, power_fails: bool) {
        let Some(pod) = self.pods.get_mut(&number) else {
            return;
        };
        if pod.node.take().is_none() && !power_fails {
            return;
        }
        if pod.node_disk.abandon(power_fails, &mut self.random) {
            self.coverage.count(Seen::SectorsDisordered);
        }
        self.close_stream(number);
        for other in self.numbers().filter(|&other| other != number) {
            self.break_link(number, other);
        }
    }

    pub(super) fn kill_replicator(&mut self, number: NodeNumber, power_fails: bool) {
        let Some(pod) = self.pods.get_mut(&number) else {
            return;
        };
        if pod.replicator.take().is_none() && !power_fails {
            return;
        }
        if pod.replicator_disk.abandon(power_fails, &mut self.random) {
            self.coverage.count(Seen::SectorsDisordered);
        }
        self.execution_breaks_off(number);
        self.close_stream(number);
    }

    /// Both processes of a pod die, and what its machine had not written is lost.
    pub(super) fn power_fails(&mut self, number: NodeNumber) {
        self.kill_node(number, true);
        self.kill_replicator(number, true);
        let shown = Time(self.random.random_range(1..10_000_000_000));
        let rate = self.any_rate();
        let now = self.now;
        let pod = self.pod(number);
        pod.suspended = None;
        // Its clock counts from when the machine starts.
        pod.clock = crate::clock::Clock::new(now, shown, rate);
    }

    /// The stream between node and replicator ends; whichever is left is told.
    pub(super) fn close_stream(&mut self, number: NodeNumber) {
        let now = self.shown(number);
        let pod = self.pod(number);
        let Stream { id, .. } = std::mem::take(&mut pod.stream);
        if let Some(stream) = id {
            self.invariants.leads_no_more(number);
            let pod = self.pod(number);
            if let Some(process) = &mut pod.node {
                process
                    .node
                    .handle(now, Input::Replicator(FromReplicator::Closed));
            }
            if let Some(replicator) = &mut pod.replicator {
                replicator.handle(Event::NodeClosed { stream });
            }
            self.settle(number);
        }
    }

    /// The connection of two nodes ends.
    pub(super) fn break_link(&mut self, one: NodeNumber, other: NodeNumber) {
        let known_at = self.soon(self.options.election_timeout / 4);
        self.network.break_link(one, other, known_at);
        for (who, of) in [(one, other), (other, one)] {
            let pod = &self.pods[&who];
            if pod.node.is_some() {
                let target = Target::Node(who, Some(pod.node_life));
                self.agenda.add(known_at, target, Happening::LinkBroken(of));
            }
        }
    }

    /// A node opens a stream to its replicator.
    pub(super) fn connect(&mut self, number: NodeNumber) {
        self.last_stream += 1;
        let stream = StreamId(self.last_stream);
        let now = self.shown(number);
        let pod = self.pod(number);
        pod.stream.connecting = false;
        let (None, Some(process), Some(replicator)) = (pod.stream.id, &mut pod.node, &mut pod.replicator)
        else {
            return;
        };
        let Some(cluster) = process.node.cluster_id() else {
            return;
        };
        let member = process.node.member_id();
        pod.stream.id = Some(stream);
        process
            .node
            .handle(now, Input::Replicator(FromReplicator::Opened));
        replicator.handle(Event::NodeOpened {
            stream,
            cluster,
            member,
            node: number,
            parent: None,
        });
    }

    /// Carries out whatever both processes of a pod want, until they want nothing at this moment.
    pub(super) fn settle(&mut self, number: NodeNumber) {
        loop {
            let now = self.shown(number);
            let pod = self.pod(number);
            let outputs = pod
                .node
                .as_mut()
                .map(|process| process.node.outputs(now))
                .unwrap_or_default();
            let effects = pod
                .replicator
                .as_mut()
                .map(Replicator::effects)
                .unwrap_or_default();
            self.observe(number);
            if outputs.is_empty() && effects.is_empty() {
                break;
            }
            // A process may end itself on the way.
            let lives = self.lives(number);
            for output in outputs {
                if self.lives(number).0 == lives.0 {
                    self.carry_out(number, output);
                }
            }
            for effect in effects {
                if self.lives(number).1 == lives.1 {
                    self.carry_out_of_replicator(number, effect);
                }
            }
        }
        self.schedule(number);
    }

    fn lives(&self, number: NodeNumber) -> (Option<u64>, Option<u64>) {
        let pod = &self.pods[&number];
        (
            pod.node.as_ref().map(|_| pod.node_life),
            pod.replicator.as_ref().map(|_| pod.replicator_life),
        )
    }

    fn schedule(&mut self, number: NodeNumber) {
        let now = self.now;
        let pod = self.pod(number);
        let Some(process) = &mut pod.node else { return };
        let target = Target::Node(number, Some(pod.node_life));
        let deadline = pod.clock.when(process.node.deadline()).max(now);
        let is_earlier = deadline < process.tick_at;
        if is_earlier {
            process.tick_at = deadline;
        }
        let repaired = process.was_suspect && process.node.raft().is_some_and(|raft| !raft.is_suspect());
        process.was_suspect &= !repaired;
        let connects = process.node.cluster_id().is_some()
            && pod.replicator.is_some()
            && pod.stream.id.is_none()
            && !pod.stream.connecting;
        pod.stream.connecting |= connects;
        if is_earlier {
            self.agenda.add(deadline, target, Happening::Tick);
        }
        if repaired {
            self.count(Seen::NodeRepaired);
        }
        if connects {
            let at = self.soon(Duration::from_millis(50));
            self.agenda.add(at, target, Happening::Connect);
        }
    }
}
