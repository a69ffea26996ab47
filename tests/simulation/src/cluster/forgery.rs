//! A log that says something else than was written, of which all checksums are right: nothing but the running hashes of the
//! others tells. Whose it is has to stop, and nobody else has to.
//!
//! It befalls a member that lacks something committed, so that it is not elected, in an operation that its replicator has
//! executed: what a quorum repairs, and no more.

use std::time::Duration;

use bytes::Bytes;
use raftlog_raft::entry::{Entry, Payload};
use raftlog_raft::fold::running_hash;
use raftlog_raft::ids::{MemberId, NodeNumber, OperationIndex};
use raftlog_storage::identity::Identity;
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{Append, Disk as _, Visit, Wal, WalOptions};
use rand::RngExt;

use super::processes::Process;
use super::{Cluster, violation};
use crate::coverage::Seen;

impl Cluster {
    /// That node is away for a while, and comes back with another log.
    pub(super) fn begin_forgery(&mut self, number: NodeNumber) {
        if self.pods[&number].forged.is_some() || !self.may_be_impaired(number) {
            return;
        }
        self.kill_node(number, false);
        self.pod(number).is_to_be_forged = true;
        self.start_one_soon(number, Process::Node, Duration::from_mins(1));
    }

    /// It is about to start.
    pub(super) fn forge(&mut self, number: NodeNumber) {
        if !std::mem::take(&mut self.pod(number).is_to_be_forged) || self.has_healed() {
            return;
        }
        let committed = self.invariants.operations();
        let pod = self.pods.get_mut(&number).expect("pods are numbered");
        let executed = pod
            .replicator
            .as_ref()
            .map(|replicator| replicator.progress().durable_executed);
        pod.node_disk.content.limit_to(self.options.volume_bytes);
        let Some((mut entries, state)) = read(&mut pod.node_disk.content) else {
            return;
        };
        let (Some(first), Some(last), Some(executed)) = (entries.first(), entries.last(), executed) else {
            return;
        };
        let last = (last.log_index, last.operation_index);
        if first.log_index != 1 || last.1 >= committed || executed == 0 || executed > last.1 {
            return;
        }
        let changed = self.random.random_range(1..=executed);
        change(&mut entries, changed);
        write(&mut pod.node_disk.content, entries, state);
        pod.forged = Some(last.0);
        self.count(Seen::Forged);
        self.tell(|| format!("operation {changed} in the log of node {number} is another one now"));
    }

    /// A node whose log was forged is looked at only for that; whether it is one.
    pub(super) fn observe_forged(&mut self, number: NodeNumber) -> bool {
        let pod = &self.pods[&number];
        let (Some(through), Some(process)) = (pod.forged, &pod.node) else {
            return false;
        };
        let Some(raft) = process.node.raft() else {
            return false;
        };
        let (log, last) = (raft.log(), raft.log().last());
        // A leader's log or snapshot may have taken the place of what was changed, as it contradicted that by its terms.
        let is_right = log
            .running_hash_at(last.index)
            .is_some_and(|hash| self.invariants.running_hash(last) == Some(hash));
        if is_right || log.base().position.index >= through {
            // Or a snapshot, its own or a leader's, stands in the place of all of it.
            self.pod(number).forged = None;
            return false;
        }
        let last = last.index;
        if last > through {
            let what =
                format!("the log of node {number} was forged up to entry {through} and goes on to {last}");
            self.judge(violation("who differs stops", what));
        }
        true
    }

    /// A forged node that still runs though its cluster's leader and a majority who could tell reach it.
    pub(super) fn goes_on_forged(&self) -> Option<NodeNumber> {
        let hears = |number| {
            let both_ways =
                |&other| !self.network.is_cut(other, number) && !self.network.is_cut(number, other);
            self.core.iter().all(both_ways)
        };
        let forged = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.forged.is_some() && pod.node.is_some());
        forged
            .map(|(&number, _)| number)
            .find(|&number| hears(number) && self.belongs(number) && self.can_be_told(number))
    }

    /// Whether a majority still holds what a forged node has in its log, and not only snapshots of it: nobody else knows the
    /// running hash there.
    fn can_be_told(&self, number: NodeNumber) -> bool {
        let pod = &self.pods[&number];
        let process = pod.node.as_ref().and_then(|process| process.node.raft());
        let Some((raft, through)) = process.zip(pod.forged) else {
            return false;
        };
        let holds = |id: MemberId| {
            let pod = self.members.get(&id).and_then(|number| self.pods.get(number));
            let process = pod.and_then(|pod| pod.node.as_ref());
            let raft = process.filter(|process| process.node.member_id() == id);
            raft.and_then(|process| process.node.raft())
                .is_some_and(|raft| raft.log().term_at(through).is_some())
        };
        let own = raft.id();
        raft.configuration().is_quorum(|id| id != own && holds(id))
    }
}

/// The entries of a log, and the last state.
fn read(disk: &mut MemoryDisk) -> Option<(Vec<Entry>, Bytes)> {
    let identity = Identity::load(disk).ok()??;
    let options = WalOptions::new(identity.log_owner().get());
    let (mut entries, mut state) = (Vec::<Entry>::new(), Bytes::new());
    let opened = Wal::open(disk, options, &mut |visit| {
        match visit {
            Visit::Truncate(from) => entries.retain(|entry: &Entry| entry.log_index < from),
            Visit::Record(entry) => entries.push(entry),
            Visit::State(last) => state = last,
        }
        Ok(())
    });
    let (_, recovery) = opened.ok()?;
    (!recovery.suspect_tail).then_some((entries, state))
}

/// All that follows goes on from the change.
fn change(entries: &mut [Entry], changed: OperationIndex) {
    let mut hash = 0;
    for entry in entries {
        if let Payload::Operation(operation) = &mut entry.payload {
            if entry.operation_index == changed {
                operation.data = "forged".into();
            }
            hash = running_hash(hash, entry.operation_index, entry.term, &operation.data);
        }
        entry.running_hash = hash;
    }
}

fn write(disk: &mut MemoryDisk, entries: Vec<Entry>, state: Bytes) {
    let identity = Identity::load(disk).ok().flatten().expect("it was read before");
    for file in disk.names() {
        if file.to_string().starts_with("log-") {
            disk.remove(file);
        }
    }
    let options = WalOptions::new(identity.log_owner().get());
    let (mut wal, _) = Wal::open(disk, options, &mut |_| Ok(())).expect("there is no log");
    wal.append(Append {
        truncate_from: None,
        records: entries,
        state: Some(state),
    });
    while let Some((id, op)) = wal.next_op() {
        let done = disk.execute(&op);
        wal.complete(id, done)
            .expect("a log was there before, so there is room");
    }
}
