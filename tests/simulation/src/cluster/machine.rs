//! What happens between a replicator's driver and the user's program beside it, in runs whose executor is `state-machine`.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use raftlog_raft::ids::{NodeNumber, OperationIndex};
use raftlog_replicator::core::{Effect, Event, Snapshot, SnapshotState, StreamId};
use raftlog_server::node::{FromReplicator, QueryRefused, SnapshotChunk, StateSnapshot, WhyRefused};
use rand::RngExt;

use super::replicator::node_place;
use super::{Cluster, violation};
use crate::coverage::Seen;
use crate::happening::{Happening, MachineStep, Target};
use crate::machine::{Link, REGISTERS, Restoring, State};

impl Cluster {
    /// The driver connects to the program soon.
    pub(super) fn attach_soon(&mut self, number: NodeNumber, max: Duration) {
        if self.options.state_machine {
            self.machine_step(number, max, MachineStep::Attach);
        }
    }

    fn machine_step(&mut self, number: NodeNumber, max: Duration, step: MachineStep) {
        let at = self.soon(max).max(self.pods[&number].machine.down_until);
        let pod = &self.pods[&number];
        let target = Target::Replicator(number, Some(pod.replicator_life));
        self.agenda
            .add(at, target, Happening::Machine(pod.machine.epoch, step));
    }

    pub(super) fn happen_to_machine(&mut self, number: NodeNumber, epoch: u64, step: MachineStep) {
        if epoch != self.pods[&number].machine.epoch {
            return;
        }
        match step {
            MachineStep::Attach => self.attach(number),
            MachineStep::Apply(through) => self.apply_through(number, through),
            MachineStep::BeginCopy => self.begin_copy_when_due(number),
            MachineStep::EndCopy => self.end_copy(number),
            MachineStep::TakePiece => self.take_piece(number),
            MachineStep::EndRestore => self.end_restore(number),
        }
    }

    fn attach(&mut self, number: NodeNumber) {
        let pod = self.pod(number);
        let (Link::Away, Some(replicator)) = (&pod.machine.link, &mut pod.replicator) else {
            return;
        };
        // The driver has to know which cluster to tell it.
        if replicator.position().cluster.is_none() {
            return self.attach_soon(number, Duration::from_millis(500));
        }
        pod.machine.link = Link::Attached;
        let applied = pod.machine.state.applied;
        let cluster = pod.machine.cluster;
        replicator.handle(Event::ExecutorAttached { applied, cluster });
        self.count(Seen::MachineAttached);
        self.tell(|| format!("machine {number} attaches at index {applied}"));
    }

    /// The connection ends. Some of what was sent is applied all the same, and nobody hears of it.
    pub(super) fn detach_machine(&mut self, number: NodeNumber, tells: bool) {
        let under_way = self.pods[&number].executing.len();
        let done = self.random.random_range(0..=under_way);
        self.apply_operations(number, done);
        let half = self.one_in(2);
        let pod = self.pod(number);
        pod.executing.clear();
        pod.machine.epoch += 1;
        (pod.machine.copy_wanted, pod.machine.copying) = (None, None);
        let event = match std::mem::take(&mut pod.machine.link) {
            Link::Away => None,
            Link::Attached => Some(Event::ExecutorDetached),
            Link::Restoring(restoring) => {
                let restore = restoring.restore;
                if restoring.is_whole() && half {
                    self.restore(number, &restoring);
                }
                let result = Err("it is gone".to_owned());
                Some(Event::Restored { restore, result })
            }
        };
        if let (Some(event), Some(replicator), true) = (event, &mut self.pod(number).replicator, tells) {
            replicator.handle(event);
        }
    }

    /// The program dies, and may lose its state with it.
    pub(super) fn kill_machine(&mut self, number: NodeNumber, loses_state: bool) {
        if !self.options.state_machine {
            return;
        }
        self.count(Seen::MachineKilled);
        self.detach_machine(number, true);
        let away_max = Duration::from_secs([1, 10, 60][self.random.random_range(0..3)]);
        let down_until = self.soon(away_max);
        let pod = self.pod(number);
        pod.machine.down_until = down_until;
        if loses_state {
            pod.machine.state = State::default();
            pod.machine.cluster = None;
            self.count(Seen::MachineWiped);
        }
        self.settle(number);
        self.attach_soon(number, Duration::from_millis(100));
    }

    /// The driver sends what the core hands out; the program takes its time.
    pub(super) fn send_to_machine(&mut self, number: NodeNumber, last: OperationIndex, takes: Duration) {
        self.machine_step(number, takes, MachineStep::Apply(last));
    }

    /// What was sent up to there is applied, and the core hears of it. Where a copy is wanted it begins at its place and not later.
    fn apply_through(&mut self, number: NodeNumber, through: OperationIndex) {
        let wanted = self.pods[&number].machine.copy_wanted;
        if let Some(at) = wanted.filter(|at| *at < through) {
            self.apply_and_report(number, at);
            self.begin_copy_when_due(number);
        }
        self.apply_and_report(number, through);
        self.begin_copy_when_due(number);
    }

    fn apply_and_report(&mut self, number: NodeNumber, through: OperationIndex) {
        let executing = &self.pods[&number].executing;
        let done = executing.partition_point(|(operation, _)| operation.index <= through);
        self.apply_operations(number, done);
        if let (1.., Some(replicator)) = (done, &mut self.pod(number).replicator) {
            replicator.handle(Event::Executed { through });
        }
    }

    fn apply_operations(&mut self, number: NodeNumber, count: usize) {
        let pod = self.pod(number);
        let operations: Vec<_> = pod.executing.drain(..count).collect();
        let cluster = pod.replicator.as_ref().and_then(|it| it.position().cluster);
        for (operation, _) in operations {
            self.count(Seen::Applied);
            let machine = &mut self.pod(number).machine;
            let before = machine.state.applied;
            machine.cluster = machine.cluster.or(cluster);
            machine.state.apply(operation.index, &operation.data);
            let state = machine.state.clone();
            let verdict = self
                .invariants
                .applied(number, before, operation.index, &operation.data)
                .and_then(|()| self.invariants.has_state(number, &state));
            self.judge(verdict);
        }
    }

    /// The core wants a copy, of what was sent by now.
    pub(super) fn copy_state(&mut self, number: NodeNumber) {
        let pod = self.pod(number);
        let sent = pod
            .executing
            .back()
            .map_or(pod.machine.state.applied, |(last, _)| last.index);
        pod.machine.copy_wanted = Some(sent);
        self.machine_step(number, Duration::from_millis(5), MachineStep::BeginCopy);
    }

    fn begin_copy_when_due(&mut self, number: NodeNumber) {
        let pod = self.pod(number);
        let state = &pod.machine.state;
        let (Some(at), Some(replicator)) = (pod.machine.copy_wanted, &mut pod.replicator) else {
            return;
        };
        // What is applied is reported at the same moment.
        if state.applied == at {
            pod.machine.copying = Some(state.encode());
            pod.machine.copy_wanted = None;
            replicator.handle(Event::CopyBegun);
            self.machine_step(number, Duration::from_millis(300), MachineStep::EndCopy);
        }
    }

    fn end_copy(&mut self, number: NodeNumber) {
        let fails = self.one_in(8);
        let pod = self.pod(number);
        let (Some(copy), Some(replicator)) = (pod.machine.copying.take(), &mut pod.replicator) else {
            return;
        };
        if fails {
            return replicator.handle(Event::Copied { bytes: None });
        }
        let bytes = Some(copy.len() as u64);
        pod.machine.spool = copy;
        replicator.handle(Event::Copied { bytes });
        self.count(Seen::Copied);
    }

    /// The node is given what was copied, in two pieces.
    pub(super) fn say_copy(&mut self, number: NodeNumber, stream: StreamId, snapshot: &Snapshot) {
        let SnapshotState::Copied { header, bytes } = &snapshot.state else {
            unreachable!("the executor has a state")
        };
        let mut state = BytesMut::from(&header[..]);
        state.put(self.pods[&number].machine.spool.clone());
        assert_eq!(state.len() as u64, *bytes, "the core knows what was copied");
        let mut state = state.freeze();
        let second = state.split_off(self.random.random_range(1..state.len()));
        let of = StateSnapshot {
            place: node_place(snapshot.place),
            size: *bytes,
        };
        let first_bytes = state.len() as u64;
        for (snapshot_of, offset, data) in [(Some(of), 0, state), (None, first_bytes, second)] {
            let chunk = SnapshotChunk {
                id: snapshot.id,
                snapshot: snapshot_of,
                offset,
                data,
            };
            self.say_to_node(number, stream, FromReplicator::Snapshot(chunk));
        }
    }

    /// What the core tells the program beside operations.
    pub(super) fn tell_machine(&mut self, number: NodeNumber, effect: Effect) {
        match effect {
            Effect::Reattach => {
                self.detach_machine(number, true);
                self.attach_soon(number, Duration::from_millis(100));
            }
            Effect::RefuseExecutor(why) => {
                let what = format!("replicator {number} refuses its machine: {why}");
                self.judge(violation("replicator and machine belong together", what));
            }
            Effect::CopyState => self.copy_state(number),
            Effect::RestoreBegin {
                restore,
                place,
                cluster,
                bytes,
            } => {
                self.detach_machine(number, true);
                self.pod(number).machine.link = Link::Restoring(Restoring {
                    restore,
                    place: place.index,
                    cluster,
                    bytes,
                    pieces: VecDeque::new(),
                    taken: Vec::new(),
                });
            }
            Effect::RestorePiece(data) => self.send_piece(number, data),
            Effect::RestoreAbort(restore) => self.abort_restore(number, restore),
            _ => {}
        }
    }

    fn send_piece(&mut self, number: NodeNumber, data: Bytes) {
        if let Link::Restoring(restoring) = &mut self.pod(number).machine.link {
            restoring.pieces.push_back(data);
            self.machine_step(number, Duration::from_millis(20), MachineStep::TakePiece);
        }
    }

    fn take_piece(&mut self, number: NodeNumber) {
        let pod = self.pod(number);
        let (Link::Restoring(restoring), Some(replicator)) = (&mut pod.machine.link, &mut pod.replicator)
        else {
            return;
        };
        let Some(piece) = restoring.pieces.pop_front() else {
            return;
        };
        restoring.taken.extend_from_slice(&piece);
        replicator.handle(Event::RestoreTaken {
            restore: restoring.restore,
            bytes: piece.len(),
        });
        if restoring.is_whole() {
            self.machine_step(number, Duration::from_secs(2), MachineStep::EndRestore);
        }
    }

    /// All of a snapshot is stored in the place of what was there; the core hears of it, and the program is attached again.
    fn end_restore(&mut self, number: NodeNumber) {
        let link = std::mem::take(&mut self.pod(number).machine.link);
        let Link::Restoring(restoring) = link else { return };
        let restore = restoring.restore;
        self.restore(number, &restoring);
        let pod = self.pod(number);
        pod.machine.epoch += 1;
        if let Some(replicator) = &mut pod.replicator {
            let result = Ok(());
            replicator.handle(Event::Restored { restore, result });
        }
        self.count(Seen::MachineRestored);
        self.attach_soon(number, Duration::from_millis(100));
    }

    fn restore(&mut self, number: NodeNumber, restoring: &Restoring) {
        let Some(state) = State::decode(&restoring.taken).filter(|state| state.applied == restoring.place)
        else {
            let what = format!(
                "machine {number} is to restore what is none of its states at index {}",
                restoring.place
            );
            return self.judge(violation("a snapshot is the state at its index", what));
        };
        let verdict = self.invariants.has_state(number, &state);
        self.judge(verdict);
        self.tell(|| format!("machine {number} restores its state at index {}", state.applied));
        let machine = &mut self.pod(number).machine;
        machine.state = state;
        machine.cluster = restoring.cluster;
    }

    fn abort_restore(&mut self, number: NodeNumber, restore: u64) {
        let link = &self.pods[&number].machine.link;
        if matches!(link, Link::Restoring(restoring) if restoring.restore == restore) {
            self.detach_machine(number, false);
            self.count(Seen::MachineRestoreAborted);
            self.attach_soon(number, Duration::from_millis(100));
        }
    }

    /// The program reads a register, of all that it has applied: it sees what was written to it last.
    pub(super) fn query_machine(
        &mut self,
        number: NodeNumber,
        executed: OperationIndex,
    ) -> Result<Bytes, QueryRefused> {
        let register = self.random.random_range(0..REGISTERS);
        let machine = &self.pods[&number].machine;
        if !matches!(machine.link, Link::Attached) {
            return Err(QueryRefused {
                why: WhyRefused::Busy,
                message: "the machine is not there".to_owned(),
            });
        }
        let (applied, value) = (machine.state.applied, machine.state.register(register));
        let verdict = self
            .invariants
            .queried_machine(number, executed, applied, (register, value));
        self.judge(verdict);
        self.count(Seen::MachineQueried);
        Ok(Bytes::copy_from_slice(&value.to_le_bytes()))
    }
}
