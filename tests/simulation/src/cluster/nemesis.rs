//! What goes wrong, and how all that ends.

use std::time::Duration;

use raftlog_raft::feature::Supports;
use raftlog_raft::ids::NodeNumber;
use raftlog_server::node::Input;
use rand::RngExt;
use rand::seq::SliceRandom as _;

use super::Cluster;
use super::processes::Process;
use crate::coverage::Seen;
use crate::disk::Damage;
use crate::fault::Fault;
use crate::happening::{Happening, Target};

impl Cluster {
    /// The next fault of that kind comes about its mean time from now.
    pub(super) fn expect_fault(&mut self, fault: Fault) {
        let Some(&mean) = self
            .options
            .faults
            .get(&fault)
            .filter(|_| fault != Fault::FreshLeader)
        else {
            return;
        };
        let at = self.soon(mean * 2);
        self.agenda.add(at, Target::World, Happening::Fault(fault));
    }

    pub(super) fn bring_about(&mut self, fault: Fault) {
        if self.has_healed() {
            return;
        }
        self.expect_fault(fault);
        let number = self.any_victim();
        self.tell(|| format!("FAULT {} (pod {number})", fault.name()));
        match fault {
            Fault::PowerFailure => self.fail_power(number, Duration::from_secs(20)),
            Fault::PowerFailureOfAll => self.fail_power_of_all(),
            Fault::NodeKill => self.kill_and_restart(number, Process::Node),
            Fault::ReplicatorKill => self.kill_and_restart(number, Process::Replicator),
            Fault::CrashLoop => {
                self.count(Seen::CrashLooped);
                self.pod(number).crash_loops_until = self.soon(Duration::from_mins(1));
                self.fail_power(number, Duration::from_secs(2));
            }
            Fault::Partition => self.partition(number),
            Fault::LinkBreak => {
                let other = self.any_pod();
                if other != number {
                    self.count(Seen::LinkBroken);
                    self.break_link(number, other);
                }
            }
            Fault::Suspension => self.suspend(number),
            Fault::ClockJump => self.jump_clock(number),
            Fault::ClockDrift => {
                self.count(Seen::ClockDrifted);
                let (now, rate) = (self.now, self.any_rate());
                self.pod(number).clock.drift(now, rate);
                self.settle(number);
            }
            Fault::DiskStall => self.stall_disk(number),
            Fault::DiskFull => self.fill_disk(number),
            Fault::WriteError => {
                self.count(Seen::WriteFailed);
                self.a_disk(number).fail_next();
            }
            // What its replicator lacks, it would get from a forged log; and that must not be mended by less than a majority.
            Fault::Rot | Fault::Wipe if self.pods[&number].forged.is_some() => {}
            Fault::Rot => self.rot(number),
            Fault::Wipe => self.wipe(number),
            Fault::SlowExecutor => {
                self.count(Seen::ReplicatorSlowed);
                self.pod(number).executor_slow_until = self.soon(Duration::from_mins(1));
            }
            Fault::Transfer => self.transfer(number),
            Fault::LogLoss => self.lose_log(number),
            Fault::Forgery => self.begin_forgery(number),
            Fault::Membership => self.change_membership(),
            Fault::Upgrade => self.change_version(number),
            Fault::Ambush => self.begin_ambush(),
            Fault::MachineKill => self.kill_machine(number, false),
            Fault::MachineWipe => self.kill_machine(number, true),
            // It comes about by elections.
            Fault::FreshLeader => {}
        }
    }

    pub(super) fn happen_to_pod(&mut self, number: NodeNumber, happening: &Happening) {
        match happening {
            Happening::PowerFails => self.fail_power(number, Duration::from_secs(2)),
            Happening::Resume => {
                let later = self.pod(number).suspended.take();
                for entry in later.into_iter().flatten() {
                    self.happen(entry);
                }
            }
            Happening::Upgrade => self.install(number, Supports::REHEARSAL),
            Happening::Room => {
                let volume = self.options.volume_bytes;
                let pod = self.pod(number);
                pod.node_disk.content.limit_to(volume);
                pod.replicator_disk.content.limit_to(volume);
            }
            _ => {}
        }
    }

    /// Upgrades go forward, but for some that somebody takes back.
    fn change_version(&mut self, number: NodeNumber) {
        let back = self.pods[&number].supports == Supports::REHEARSAL && self.one_in(4);
        let supports = if back {
            Supports::default()
        } else {
            Supports::REHEARSAL
        };
        self.install(number, supports);
    }

    /// Restarts a node as that version, unless it is one.
    fn install(&mut self, number: NodeNumber, supports: Supports) {
        if self.pods[&number].supports == supports {
            return;
        }
        self.count(if supports == Supports::REHEARSAL {
            Seen::Upgraded
        } else {
            Seen::RolledBack
        });
        self.tell(|| format!("node {number} is installed as a version that supports {supports}"));
        self.kill_node(number, false);
        self.pod(number).supports = supports;
        self.start_one_soon(number, Process::Node, Duration::from_secs(1));
    }

    /// A node says that it is too old: whoever reads that installs the later version.
    pub(super) fn upgrade_soon(&mut self, number: NodeNumber) {
        let at = self.soon(Duration::from_secs(5));
        self.agenda.add(at, Target::Pod(number), Happening::Upgrade);
    }

    /// The entry that raises the level is in this leader's log only.
    pub(super) fn raised_level(&mut self, number: NodeNumber) {
        self.count(Seen::LevelRaised);
        if self.one_in(2) {
            // Before anybody has heard of it, so that the next leader's log has something else there.
            let happening = Happening::Isolate(number, self.options.election_timeout * 6);
            self.agenda.add(self.now, Target::World, happening);
        } else {
            self.began_to_lead(number);
        }
    }

    fn a_disk(&mut self, number: NodeNumber) -> &mut crate::disk::QueuedDisk {
        let of_node = self.random.random_bool(0.7);
        let pod = self.pod(number);
        if of_node {
            &mut pod.node_disk
        } else {
            &mut pod.replicator_disk
        }
    }

    fn fail_power(&mut self, number: NodeNumber, away_max: Duration) {
        self.count(Seen::PowerFailed);
        self.power_fails(number);
        self.start_soon(number, away_max);
    }

    fn fail_power_of_all(&mut self) {
        self.count(Seen::AllPowerFailed);
        for number in self.numbers() {
            self.power_fails(number);
            self.start_soon(number, Duration::from_secs(3));
        }
    }

    /// A pod in a crash loop does not stay up for long.
    pub(super) fn crash_again(&mut self, number: NodeNumber) {
        if self.now < self.pods[&number].crash_loops_until {
            let at = self.soon(Duration::from_secs(2));
            self.agenda.add(at, Target::Pod(number), Happening::PowerFails);
        }
    }

    fn kill_and_restart(&mut self, number: NodeNumber, process: Process) {
        let away_max = Duration::from_secs([1, 10, 60][self.random.random_range(0..3)]);
        match process {
            Process::Node => {
                self.count(Seen::NodeKilled);
                self.kill_node(number, false);
            }
            Process::Replicator => {
                self.count(Seen::ReplicatorKilled);
                self.kill_replicator(number, false);
            }
        }
        self.start_one_soon(number, process, away_max);
    }

    fn partition(&mut self, number: NodeNumber) {
        let pods: Vec<NodeNumber> = self.numbers().collect();
        let alone = if self.leader() == Some(number) { 0.8 } else { 0.5 };
        let (kind, side): (_, Vec<NodeNumber>) = if self.random.random_bool(alone) {
            (Seen::Isolated, vec![number])
        } else {
            let mut shuffled = pods.clone();
            shuffled.shuffle(&mut self.random);
            shuffled.truncate(pods.len() / 2);
            (Seen::Partitioned, shuffled)
        };
        let ways = self.random.random_range(0..3);
        let mut cut = Vec::new();
        for &inside in &side {
            for &outside in pods.iter().filter(|pod| !side.contains(pod)) {
                cut.extend((ways != 1).then_some((inside, outside)));
                cut.extend((ways != 2).then_some((outside, inside)));
            }
        }
        self.count(kind);
        if ways > 0 {
            self.count(Seen::OneWay);
        }
        self.tell(|| format!("cut {cut:?}"));
        self.network.cut(&cut);
        let at = self.soon(Duration::from_secs(40));
        self.agenda.add(at, Target::World, Happening::Mend(cut));
    }

    /// That node has just begun to lead. Its first moments matter most: what it has sent to some and not to others, and what
    /// was promised to it and not to anybody else.
    pub(super) fn began_to_lead(&mut self, number: NodeNumber) {
        self.ambush_succeeds(number);
        let is_hit = self.options.faults.contains_key(&Fault::FreshLeader) && !self.has_healed();
        if is_hit && !self.one_in(4) {
            let (delay, disk) = (self.options.delay_max, self.options.disk_max);
            let none = Duration::ZERO;
            let longest = [none, delay / 2, delay * 2, delay * 6 + disk * 4][self.random.random_range(0..4)];
            let at = self.soon(longest);
            self.agenda.add(at, Target::World, Happening::HitLeader(number));
        }
    }

    pub(super) fn hit_leader(&mut self, number: NodeNumber) {
        if self.has_healed() {
            return;
        }
        self.count(Seen::FreshLeaderHit);
        self.tell(|| format!("FAULT fresh-leader (pod {number})"));
        if self.one_in(4) {
            return self.fail_power(number, self.options.election_timeout * 4);
        }
        // The one before is back: what it has that nobody else has now meets what this one has.
        self.leader_is_back();
        let cut = self.all_around(number);
        self.network.cut(&cut);
        self.leader_cut.clone_from(&cut);
        let at = self.soon(self.options.election_timeout * 6);
        self.agenda.add(at, Target::World, Happening::MendLeader(cut));
        if self.one_in(3) {
            // What it was fed and is not committed gives way while it is not there to hear of it.
            self.count(Seen::ReplicatorKilled);
            self.kill_replicator(number, false);
            self.start_one_soon(number, Process::Replicator, self.options.election_timeout * 20);
        }
        let other = self.any_pod();
        if other != number && self.one_in(2) {
            self.fail_power(other, self.options.election_timeout);
        }
    }

    pub(super) fn leader_is_back(&mut self) {
        let cut = std::mem::take(&mut self.leader_cut);
        self.network.mend(&cut);
    }

    fn all_around(&self, number: NodeNumber) -> Vec<(NodeNumber, NodeNumber)> {
        let others = self.numbers().filter(|&other| other != number);
        others
            .flat_map(|other| [(other, number), (number, other)])
            .collect()
    }

    /// Nobody hears that pod, nor does it hear anybody, for up to so long.
    pub(super) fn isolate(&mut self, number: NodeNumber, longest: Duration) {
        if self.has_healed() {
            return;
        }
        self.count(Seen::Isolated);
        self.tell(|| format!("cut around pod {number}"));
        let cut = self.all_around(number);
        self.network.cut(&cut);
        let at = self.soon(longest);
        self.agenda.add(at, Target::World, Happening::Mend(cut));
    }

    fn suspend(&mut self, number: NodeNumber) {
        let longest = [1, 5, 30][self.random.random_range(0..3)];
        let at = self.soon(Duration::from_secs(longest));
        if self.pods[&number].suspended.is_none() {
            self.count(Seen::Suspended);
            self.pod(number).suspended = Some(std::collections::VecDeque::new());
            self.agenda.add(at, Target::Pod(number), Happening::Resume);
        }
    }

    fn jump_clock(&mut self, number: NodeNumber) {
        // Of the clocks of voters a lease expects that they do not jump; a leader's own only makes it shorter.
        let leader = self.numbers().find(|&number| self.leads(number));
        let number = leader.filter(|_| self.options.lease_reads).unwrap_or(number);
        self.count(Seen::ClockJumped);
        let ahead = self.span(Duration::from_secs(10));
        let now = self.now;
        self.pod(number).clock.jump(now, ahead);
        self.settle(number);
    }

    fn stall_disk(&mut self, number: NodeNumber) {
        self.count(Seen::DiskStalled);
        let until = self.soon(self.options.election_timeout * 6);
        self.a_disk(number).stall(until);
    }

    fn fill_disk(&mut self, number: NodeNumber) {
        self.count(Seen::DiskFilled);
        let disk = self.a_disk(number);
        let used = disk.content.used_bytes();
        disk.content.limit_to(used);
        let at = self.soon(Duration::from_mins(1));
        self.agenda.add(at, Target::Pod(number), Happening::Room);
    }

    /// Somebody deletes the files of a node's log.
    fn lose_log(&mut self, number: NodeNumber) {
        if !self.may_be_impaired(number) {
            return;
        }
        self.count(Seen::LogLost);
        self.power_fails(number);
        let disk = &mut self.pod(number).node_disk;
        disk.damage(Damage::Evident);
        for file in disk.content.names() {
            if file.to_string().starts_with("log-") {
                disk.content.remove(file);
            }
        }
        self.start_soon(number, Duration::from_secs(5));
    }

    fn wipe(&mut self, number: NodeNumber) {
        if self.random.random_bool(0.5) {
            self.kill_replicator(number, true);
            self.wipe_replicator(number);
            self.start_one_soon(number, Process::Replicator, Duration::from_secs(5));
        } else if self.may_be_impaired(number) {
            self.kill_node(number, true);
            self.wipe_node(number);
            self.start_one_soon(number, Process::Node, Duration::from_secs(5));
        }
    }

    /// The folder is empty from now on: who starts there is somebody else.
    pub(super) fn wipe_node(&mut self, number: NodeNumber) {
        self.count(Seen::NodeWiped);
        let pod = self.pod(number);
        let member = pod.member;
        pod.node_disk.wipe();
        pod.forged = None;
        pod.removed = None;
        self.lost.extend(member);
    }

    pub(super) fn wipe_replicator(&mut self, number: NodeNumber) {
        self.count(Seen::ReplicatorWiped);
        self.pod(number).replicator_disk.wipe();
    }

    /// Somebody asks a node to hand leadership over; mostly it is the one that leads.
    fn transfer(&mut self, number: NodeNumber) {
        let leader = self.leader().unwrap_or(number);
        let target = if self.random.random_bool(0.7) {
            Some(self.any_pod())
        } else {
            None
        };
        self.ask_to_hand_over(leader, target);
        if self.one_in(2) {
            // It does not hear that it was followed.
            let at = self.soon(self.options.delay_max * 4);
            let happening = Happening::Isolate(leader, self.options.election_timeout);
            self.agenda.add(at, Target::World, happening);
        }
    }

    pub(super) fn ask_to_hand_over(&mut self, leader: NodeNumber, target: Option<NodeNumber>) {
        let now = self.shown(leader);
        if let Some(process) = &mut self.pod(leader).node {
            let transfer = Input::TransferLeadership { id: 0, target };
            process.node.handle(now, transfer);
            self.count(Seen::TransferAsked);
            self.settle(leader);
        }
    }

    /// Whether that node believes that it leads.
    pub(super) fn leads(&self, number: NodeNumber) -> bool {
        let raft = self.pods[&number]
            .node
            .as_ref()
            .and_then(|process| process.node.raft());
        raft.is_some_and(|raft| raft.role() == raftlog_raft::RoleName::Leader)
    }

    /// Faults end for a majority. Whoever is not part of it may stay away, cut off, or shout without hearing.
    pub(super) fn heal(&mut self) {
        self.tell(|| "faults end".to_owned());
        for number in self.numbers() {
            self.heal_pod(number);
        }
        self.choose_core();
        self.network = std::mem::take(&mut self.network).healed();
        self.leader_cut.clear();
        self.ambush = None;
        (
            self.options.lost_of,
            self.options.duplicated_of,
            self.options.late_of,
        ) = (0, 0, 0);
        let rest: Vec<NodeNumber> = self
            .pods
            .keys()
            .copied()
            .filter(|number| !self.core.contains(number))
            .collect();
        for number in rest {
            self.leave_out(number);
        }
        // And that is all.
        self.everybody_wishes();
    }

    fn heal_pod(&mut self, number: NodeNumber) {
        let volume = self.options.volume_bytes;
        let now = self.now;
        let pod = self.pod(number);
        pod.crash_loops_until = now;
        pod.executor_slow_until = now;
        if pod.machine.down_until > now {
            // What was to happen once it runs again happens now.
            pod.machine.down_until = now;
            pod.machine.epoch += 1;
            self.attach_soon(number, Duration::from_secs(1));
        }
        let pod = self.pod(number);
        pod.node_disk.heal(volume);
        pod.replicator_disk.heal(volume);
        if self.pods[&number].suspended.is_some() {
            self.happen_to_pod(number, &Happening::Resume);
        }
        self.start_soon(number, Duration::from_secs(2));
    }

    fn leave_out(&mut self, number: NodeNumber) {
        let way = self.random.random_range(0..4);
        let others = self.numbers().filter(|&other| other != number);
        let cut: Vec<_> = match way {
            0 => {
                self.power_fails(number);
                self.pod(number).is_given_up = true;
                return;
            }
            1 => others.map(|other| (other, number)).collect(),
            2 => others
                .flat_map(|other| [(other, number), (number, other)])
                .collect(),
            _ => return,
        };
        self.network.cut(&cut);
    }
}
