//! A log that says something else than was written, of which all checksums are right: nothing but the running hashes of the
//! others tells. Whose it is has to stop, and nobody else has to.
//!
//! It befalls a member that lacks something committed, so that it is not elected, in an operation that its replicator has
//! executed: what a quorum repairs, and no more.

use std::time::Duration;

use bytes::Bytes;
use raftlog_raft::entry::{Entry, Payload};
use raftlog_raft::fold::running_hash;
use raftlog_raft::ids::{NodeNumber, OperationIndex};
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
        pod.node_disk.content.resize(self.options.volume_bytes);
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
        if raft.log().base().position.index >= through {
            // A snapshot, its own or a leader's, stands in the place of all of it.
            self.pod(number).forged = None;
            return false;
        }
        let last = raft.log().last().index;
        if last > through {
            let what =
                format!("the log of node {number} was forged up to entry {through} and goes on to {last}");
            self.judge(violation("who differs stops", what));
        }
        true
    }

    /// A forged node that still runs though its cluster's leader could reach it.
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
            .find(|&number| hears(number) && self.belongs(number))
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
