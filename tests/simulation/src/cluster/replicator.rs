//! What happens to a replicator, and what comes of it.

use std::time::Duration;

use bytes::Bytes;
use raftlog_raft::ids::{NodeNumber, OperationIndex};
use raftlog_replicator::core::{
    Effect, Event, FetchId, Notice, Operation, Position, Progress as ReplicatorProgress, ReadIndexId,
    Refusal, Run, Snapshot, SnapshotState, StartAction as ReplicatorStart, StreamId,
};
use raftlog_server::node::{
    FromReplicator, Leading, Place, Progress, SnapshotChunk, StartAction, StateSnapshot, ToReplicator,
};

use rand::RngExt;

use super::processes::Process;
use super::{Cluster, violation};
use crate::coverage::Seen;
use crate::disk::Completion;
use crate::happening::{Happening, Target};

impl Cluster {
    pub(super) fn happen_to_replicator(&mut self, number: NodeNumber, happening: &Happening) {
        if matches!(happening, Happening::Start) {
            return self.start_replicator(number);
        }
        let Some(replicator) = &mut self.pod(number).replicator else {
            return;
        };
        match happening {
            Happening::Disk => self.replicator_disk_done(number),
            Happening::Said => self.node_said(number),
            Happening::Executed(through) => self.execution_done(number, *through),
            Happening::Machine(epoch, step) => self.happen_to_machine(number, *epoch, *step),
            Happening::TakenBack => self.execution_taken_back(number),
            Happening::Wake => replicator.handle(Event::Wake),
            Happening::Read(id) => replicator.handle(Event::ReadIndex { id: ReadIndexId(*id) }),
            _ => {}
        }
        self.settle(number);
    }

    fn replicator_disk_done(&mut self, number: NodeNumber) {
        let now = self.now;
        let Some(pod) = self.pods.get_mut(&number) else {
            return;
        };
        match pod.replicator_disk.complete(now, &mut self.random) {
            Completion::Done(id, result) => {
                if let Some(replicator) = &mut pod.replicator {
                    replicator.handle(Event::Disk(id, result));
                }
            }
            Completion::Later(at) => {
                let target = Target::Replicator(number, Some(pod.replicator_life));
                self.agenda.add(at, target, Happening::Disk);
            }
            Completion::Nothing => {}
        }
    }

    /// Flow control leaves what the replicator does not take in the stream.
    fn node_said(&mut self, number: NodeNumber) {
        let again = self.now + Duration::from_millis(20);
        let pod = self.pod(number);
        let (Some(stream), Some(replicator)) = (pod.stream.id, &mut pod.replicator) else {
            return;
        };
        if !replicator.takes_feed() && !pod.stream.to_replicator.is_empty() {
            let target = Target::Replicator(number, Some(pod.replicator_life));
            self.agenda.add(again, target, Happening::Said);
            return self.count(Seen::FeedHeldBack);
        }
        let Some(said) = pod.stream.to_replicator.pop_front() else {
            return;
        };
        let (life, executed) = (pod.replicator_life, replicator.progress().executed);
        let leading = match &said {
            ToReplicator::Leading(leading) => Some(*leading),
            ToReplicator::StartOver { .. } | ToReplicator::Close { .. } => {
                self.invariants.leads_no_more(number);
                None
            }
            _ => None,
        };
        if let Some(Leading { leads, execute_after }) = leading {
            let verdict = self.invariants.hears_leading(number, life, leads, execute_after);
            self.judge(verdict);
        }
        if let Some(replicator) = &mut self.pod(number).replicator {
            replicator.handle(heard(stream, said));
            if leading.is_some() && replicator.progress().executed < executed {
                self.count(Seen::WentBack);
            }
        }
    }

    pub(super) fn carry_out_of_replicator(&mut self, number: NodeNumber, effect: Effect) {
        match effect {
            Effect::Disk(id, op) => {
                let takes = self.disk_takes();
                let now = self.now;
                let pod = self.pod(number);
                let at = pod.replicator_disk.submit(id, op, now, takes);
                let target = Target::Replicator(number, Some(pod.replicator_life));
                self.agenda.add(at, target, Happening::Disk);
            }
            Effect::Position(stream, position) => {
                self.say_to_node(number, stream, FromReplicator::Position(node_position(&position)));
            }
            Effect::Progress(stream, progress) => {
                if self.options.execute_on_leader {
                    let durable = (progress.leading_term, progress.durable_executed);
                    let verdict = self.invariants.progressed(number, progress.executed, durable);
                    self.judge(verdict);
                }
                self.say_to_node(number, stream, FromReplicator::Progress(node_progress(progress)));
            }
            Effect::AskReadIndex(stream, id) => {
                self.say_to_node(number, stream, FromReplicator::ReadIndex { id: id.0 });
            }
            Effect::Execute(run) => self.execute(number, run),
            Effect::TakeBack => self.take_execution_back(number),
            Effect::Query {
                stream, id, executed, ..
            } => self.answer_query(number, stream, id, (executed.index, executed.term)),
            Effect::WakeIn(span) => {
                let target = Target::Replicator(number, Some(self.pods[&number].replicator_life));
                self.agenda.add(self.now + span, target, Happening::Wake);
            }
            Effect::ReadIndexReady(id, result) => self.may_fetch(number, id, result.ok()),
            Effect::Fetched { id, result, .. } => self.fetched(id, result.unwrap_or_default().first()),
            Effect::Close(stream, Refusal::NeedsState { .. } | Refusal::NotRestored { .. }) => {
                if self.pods[&number].stream.id == Some(stream) {
                    self.close_stream(number);
                }
            }
            Effect::Close(_, refusal) if !matches!(refusal, Refusal::Replaced { .. }) => {
                let what = format!("replicator {number} refuses its node: {refusal}");
                self.judge(violation("node and replicator belong together", what));
            }
            Effect::Notice(notice) => {
                if let Notice::ExecutesForAll { .. } = notice {
                    self.count(Seen::ExecutesForAll);
                }
                self.tell(|| notice.to_string());
            }
            // No cluster is recovered here, so nothing is ever given up.
            Effect::Fatal(why) | Effect::GivenUp { why, .. } => self.replicator_stops(number, &why),
            Effect::Snapshot(stream, snapshot) if self.options.state_machine => {
                self.say_copy(number, stream, &snapshot);
            }
            Effect::Snapshot(stream, snapshot) => {
                self.say_to_node(number, stream, FromReplicator::Snapshot(node_snapshot(snapshot)));
            }
            Effect::Close(..) | Effect::Story(_) | Effect::Stopped => {}
            Effect::Reattach
            | Effect::RefuseExecutor(_)
            | Effect::CopyState
            | Effect::RestoreBegin { .. }
            | Effect::RestorePiece(_)
            | Effect::RestoreAbort(_) => self.tell_machine(number, effect),
        }
    }

    pub(super) fn say_to_node(&mut self, number: NodeNumber, stream: StreamId, said: FromReplicator) {
        let at = self.soon(Duration::from_millis(1));
        let pod = self.pod(number);
        if pod.stream.id == Some(stream) {
            pod.stream.to_node.push_back(said);
            let target = Target::Node(number, Some(pod.node_life));
            self.agenda.add(at, target, Happening::Said);
        }
    }

    /// The executor takes its time, and reports when it is done with all.
    fn execute(&mut self, number: NodeNumber, run: Run) {
        let Run {
            operations,
            leader_term,
        } = run;
        let (Some(first), Some(last)) = (operations.first(), operations.last()) else {
            return;
        };
        let (first, last) = (first.index, last.index);
        if self.options.execute_on_leader {
            let verdict = self.invariants.given(number, leader_term, first, last);
            self.judge(verdict);
        }
        let is_slow = self.now < self.pods[&number].executor_slow_until;
        let takes = Duration::from_millis(if is_slow { 3_000 } else { 5 });
        let given = operations.into_iter().map(|operation| (operation, leader_term));
        self.pod(number).executing.extend(given);
        if self.options.state_machine {
            return self.send_to_machine(number, last, takes);
        }
        let at = self.soon(takes);
        let pod = self.pod(number);
        let target = Target::Replicator(number, Some(pod.replicator_life));
        self.agenda.add(at, target, Happening::Executed(last));
    }

    fn execution_done(&mut self, number: NodeNumber, through: OperationIndex) {
        let executing = &self.pods[&number].executing;
        let done = executing.partition_point(|(operation, _)| operation.index <= through);
        self.executes(number, done);
        if let Some(replicator) = &mut self.pod(number).replicator {
            replicator.handle(Event::Executed { through });
        }
    }

    /// The executor breaks off what it can: it takes its time, and some of it is done all the same.
    fn take_execution_back(&mut self, number: NodeNumber) {
        self.count(Seen::TakenBack);
        let is_slow = self.now < self.pods[&number].executor_slow_until;
        let at = self.soon(Duration::from_millis(if is_slow { 3_000 } else { 5 }));
        let target = Target::Replicator(number, Some(self.pods[&number].replicator_life));
        self.agenda.add(at, target, Happening::TakenBack);
    }

    fn execution_taken_back(&mut self, number: NodeNumber) {
        self.execution_breaks_off(number);
        if let Some(replicator) = &mut self.pod(number).replicator {
            replicator.handle(Event::TakenBack);
        }
    }

    /// Of what the executor has under way some is done when its replicator dies, and nobody hears of it.
    pub(super) fn execution_breaks_off(&mut self, number: NodeNumber) {
        if self.options.state_machine {
            return self.detach_machine(number, false);
        }
        let under_way = self.pods[&number].executing.len();
        let done = self.random.random_range(0..=under_way);
        self.executes(number, done);
        self.pod(number).executing.clear();
    }

    fn executes(&mut self, number: NodeNumber, count: usize) {
        let life = self.pods[&number].replicator_life;
        let operations: Vec<_> = self.pod(number).executing.drain(..count).collect();
        for (operation, leader_term) in operations {
            let again = operation.index <= self.invariants.executed_through(number);
            self.count(if again {
                Seen::ExecutedAgain
            } else {
                Seen::Executed
            });
            let (index, data) = (operation.index, &operation.data);
            let verdict = match leader_term {
                Some(term) => self.invariants.executed_for_all(number, term, index, data),
                None => self.invariants.executed(number, life, index, data),
            };
            self.judge(verdict);
        }
    }

    /// Of the answer only the place matters to who asks: what it says is judged here.
    fn answer_query(
        &mut self,
        number: NodeNumber,
        stream: StreamId,
        id: u64,
        executed: (OperationIndex, u64),
    ) {
        let (index, term) = executed;
        let result = if self.options.state_machine {
            self.query_machine(number, index)
        } else {
            let verdict = self.invariants.queried(number, index);
            self.judge(verdict);
            Ok(Bytes::new())
        };
        let answer = FromReplicator::QueryAnswer {
            id,
            index,
            term,
            result,
        };
        self.say_to_node(number, stream, answer);
    }

    /// What the read has to see is committed there: the client reads the last of it.
    fn may_fetch(&mut self, number: NodeNumber, id: ReadIndexId, index: Option<u64>) {
        self.read_ready(id.0, index, Seen::ReadByReplicator);
        if let (Some(index @ 1..), Some(replicator)) = (index, &mut self.pod(number).replicator) {
            let fetch = Event::Fetch {
                id: FetchId(index),
                from: index,
                to: index,
                bytes_max: 1,
            };
            replicator.handle(fetch);
        }
    }

    fn fetched(&mut self, id: FetchId, first: Option<&Operation>) {
        if let Some(operation) = first {
            let verdict = self.invariants.acknowledged(&operation.data, id.0);
            self.judge(verdict);
        }
    }

    /// A replicator ends itself only when a disk has failed it.
    fn replicator_stops(&mut self, number: NodeNumber, why: &str) {
        self.tell(|| format!("replicator {number} stops: {why}"));
        let disk = &self.pods[&number].replicator_disk;
        if disk.has_failed || disk.is_damaged() {
            self.count(Seen::ReplicatorStopped);
            self.kill_replicator(number, false);
            self.start_one_soon(number, Process::Replicator, Duration::from_secs(5));
        } else {
            let what = format!("replicator {number} stops: {why}");
            self.judge(violation("nothing stops without a cause", what));
        }
    }
}

/// What a node says, as its replicator hears it.
fn heard(stream: StreamId, said: ToReplicator) -> Event {
    match said {
        ToReplicator::Start { action, commit } => {
            let action = match action {
                StartAction::ResumeFrom(index) => ReplicatorStart::ResumeFrom(index),
                StartAction::CutTo(index) => ReplicatorStart::CutTo(index),
                StartAction::WaitUntil(index) => ReplicatorStart::WaitUntil(index),
                StartAction::Restore(of) => ReplicatorStart::Restore {
                    place: replicator_place(of.place),
                    size: of.size,
                },
            };
            Event::Start {
                stream,
                action,
                commit,
            }
        }
        ToReplicator::Feed { operations, commit } => {
            let operations = operations
                .into_iter()
                .map(|fed| Operation {
                    index: fed.index,
                    term: fed.term,
                    running_hash: fed.running_hash,
                    data: fed.data,
                })
                .collect();
            Event::Feed {
                stream,
                operations,
                commit,
            }
        }
        ToReplicator::ReadAnswer { id, index } => Event::ReadIndexAnswer {
            stream,
            id: ReadIndexId(id),
            index,
        },
        ToReplicator::Query { id, query } => Event::Query { stream, id, query },
        ToReplicator::Leading(Leading { leads, execute_after }) => Event::Leading {
            stream,
            leads,
            execute_after,
        },
        ToReplicator::TakeSnapshot { id } => Event::TakeSnapshot { stream, id },
        ToReplicator::Restore { offset, data } => Event::RestorePiece { stream, offset, data },
        ToReplicator::SnapshotKept { index } => Event::SnapshotKept { stream, index },
        ToReplicator::StartOver { .. } | ToReplicator::Close { .. } => Event::NodeClosed { stream },
    }
}

fn replicator_place(place: Place) -> raftlog_replicator::core::Place {
    raftlog_replicator::core::Place {
        index: place.index,
        term: place.term,
        running_hash: place.running_hash,
    }
}

pub(super) fn node_place(place: raftlog_replicator::core::Place) -> Place {
    Place {
        index: place.index,
        term: place.term,
        running_hash: place.running_hash,
    }
}

/// The state of `log` is one piece.
fn node_snapshot(snapshot: Snapshot) -> SnapshotChunk {
    let SnapshotState::Whole(state) = snapshot.state else {
        unreachable!("the executor is log")
    };
    let of = StateSnapshot {
        place: node_place(snapshot.place),
        size: state.len() as u64,
    };
    SnapshotChunk {
        id: snapshot.id,
        snapshot: Some(of),
        offset: 0,
        data: state,
    }
}

fn node_position(position: &Position) -> raftlog_server::node::Position {
    raftlog_server::node::Position {
        cluster_id: position.cluster,
        member_id: position.member,
        first_index: position.first_index,
        last: node_place(position.last),
        commit: node_place(position.commit),
        executed: node_place(position.executed),
        needs_state: position.needs_state,
        on_leader: position.on_leader,
    }
}

fn node_progress(progress: ReplicatorProgress) -> Progress {
    Progress {
        last_index: progress.last,
        commit_index: progress.commit,
        executed_index: progress.executed,
        durable_executed_index: progress.durable_executed,
        leading_term: progress.leading_term,
    }
}
