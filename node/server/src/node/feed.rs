//! What a node tells its own replicator: where to start, then the operations that are on this node's disk, and how far they
//! are committed: min(commit index, own persisted index), so that nothing is executed that this node could still lose.
//! What is not committed goes along with what is, and never has a message of its own: the replicator could do nothing with
//! it, and the commit that follows at once would take a second one.
//!
//! A replicator that lacks operations which are only in a snapshot gets the state of the newest one, piece by piece: the next is
//! read from disk when the stream has taken the one before. Should that snapshot be removed meanwhile, as newer ones came, all starts
//! over.
//!
//! A replicator that executes on the leader only is also told whether this node leads, and how far the log says that leaders' replicators
//! have executed (design 6.6); behind what it was fed, so that it knows of everything which that speaks of.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use raftlog_proto::v1::ExecutorStatus;
use raftlog_raft::entry::{Entry, Payload};
use raftlog_raft::ids::{ClusterId, LogIndex, OperationIndex, Term};
use raftlog_raft::log::Log;
use raftlog_raft::planted::{Bug, Planted};

use super::api::{
    Leading, Place, Position, Progress, ReplicatedOperation, ReplicatorView, StartAction, StateSnapshot,
    ToReplicator,
};
use super::snapshot::Contents;

/// Operations fed and not yet reported as held, in bytes of [`Entry::weight`].
const IN_FLIGHT_BYTES_MAX: usize = 4 << 20;
/// Operations in one message, likewise; a single larger one goes alone.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The feed to one replicator.
#[derive(Debug)]
pub(super) struct Feed {
    cluster: ClusterId,
    state: State,
    progress: Progress,
    executor: Option<Arc<ExecutorStatus>>,
    /// What a replicator that executes on the leader was told last on this stream; absent where it executes anyway.
    leading: Option<Leading>,
    /// Entries are being read back from disk.
    reading: bool,
    /// What was read back, until it is used.
    read: Vec<Entry>,
}

#[derive(Debug)]
enum State {
    /// No stream is open, or it was told to close.
    Closed,
    /// A stream is open; the replicator has not said what it has.
    Greeting,
    /// What the replicator has is compared with the own log; once told to wait, that is not said again.
    Comparing {
        position: Position,
        told_to_wait: bool,
    },
    Restoring(Restoring),
    Feeding(Feeding),
}

/// A snapshot's state on its way to the replicator.
#[derive(Debug)]
struct Restoring {
    /// The snapshot's.
    at: LogIndex,
    contents: Contents,
    /// Bytes that were read.
    offset: u64,
    piece: Piece,
}

/// The piece that is under way.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// None: the next has to be read.
    Next,
    Reading,
    Read(Bytes),
    /// On its way into the stream.
    Said,
    /// The snapshot is no more.
    Gone,
    /// That was the last; the replicator has to report that it has taken it all in.
    Last,
}

#[derive(Debug)]
struct Feeding {
    next: OperationIndex,
    commit_sent: OperationIndex,
    /// Last operation and bytes of each message that is not reported as held.
    in_flight: VecDeque<(OperationIndex, usize)>,
    in_flight_bytes: usize,
}

/// What a feed wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Tell the replicator.
    Say(ToReplicator),
    /// Read entries back, from the first log index through the second at most; then [`Feed::entries_read`].
    Read(LogIndex, LogIndex, usize),
    /// Read the snapshot at that log index from that offset on; then [`Feed::state_read`].
    ReadState(LogIndex, u64),
}

/// How far the log may be shown to a replicator.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) log: &'a Log,
    pub(super) commit: LogIndex,
    pub(super) persisted: LogIndex,
    /// The newest snapshot: its log index, and what is in it.
    pub(super) snapshot: Option<(LogIndex, Contents)>,
    /// Operations go with those that come later.
    pub(super) may_wait: bool,
    pub(super) planted: Planted,
    /// The term in which this node leads and its replicator may execute for all.
    pub(super) executes_in: Option<Term>,
    /// What leaders' replicators have executed, as is committed.
    pub(super) mark: OperationIndex,
}

impl View<'_> {
    /// Operations on the own disk.
    fn held(&self) -> OperationIndex {
        self.log.operation_index_at(self.persisted)
    }

    /// Operations that may be executed.
    pub(super) fn committed(&self) -> OperationIndex {
        self.log.operation_index_at(self.commit.min(self.persisted))
    }
}

/// What comparing one place comes to.
enum Comparison {
    Equal,
    Different,
    /// The entry has to be read back first.
    Unread(LogIndex),
    /// It is before the beginning of the log.
    Before,
}

impl Feed {
    pub(super) fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            state: State::Closed,
            progress: Progress::default(),
            executor: None,
            leading: None,
            reading: false,
            read: Vec::new(),
        }
    }

    pub(super) fn opened(&mut self) {
        self.read.clear();
        self.state = State::Greeting;
    }

    pub(super) fn closed(&mut self) {
        self.state = State::Closed;
    }

    /// What the replicator has; once more where it has restored a snapshot and its own log went on beyond that.
    pub(super) fn position(&mut self, position: Position) {
        if matches!(self.state, State::Greeting | State::Restoring(_)) {
            self.progress = Progress {
                last_index: position.last.index,
                commit_index: position.commit.index,
                executed_index: position.executed.index,
                durable_executed_index: position.executed.index,
                leading_term: None,
            };
            self.leading = position.on_leader.then(Leading::default);
            self.state = State::Comparing {
                position,
                told_to_wait: false,
            };
        }
    }

    /// How its executor is doing.
    pub(super) fn executor(&mut self, status: Arc<ExecutorStatus>) {
        self.executor = Some(status);
    }

    pub(super) fn progress(&mut self, progress: Progress) {
        self.progress = progress;
        match &mut self.state {
            State::Feeding(feeding) => feeding.held(progress.last_index),
            State::Restoring(Restoring {
                contents,
                piece: Piece::Last,
                ..
            }) if progress.executed_index >= contents.place.index => {
                self.state = State::Feeding(Feeding::after(contents.place.index, contents.place.index));
            }
            _ => {}
        }
    }

    fn is_fed(&self) -> bool {
        matches!(self.state, State::Feeding(_))
    }

    /// What is executed whatever happens, while the replicator is fed: it would still know after a crash, and so would whoever leads next.
    pub(super) fn executed(&self) -> Option<OperationIndex> {
        let durable = self.progress.durable_executed_index;
        let executed = self
            .leading
            .map_or(durable, |told| durable.min(told.execute_after));
        self.is_fed().then_some(executed)
    }

    /// What it has executed, durably or not.
    pub(super) fn executed_by_now(&self) -> Option<OperationIndex> {
        let executed = self.progress.executed_index;
        let executed = match self.leading {
            // What it said before it knew that it executes may be more than what it goes on behind.
            Some(told) if told.leads != self.progress.leading_term => executed.min(told.execute_after),
            _ => executed,
        };
        self.is_fed().then_some(executed)
    }

    /// Whether its replicator executes on the leader only.
    pub(super) fn is_on_leader(&self) -> bool {
        self.leading.is_some()
    }

    /// What this leader's replicator has executed in this leader's term, and the log may say of it.
    pub(super) fn executed_for_all(&self, view: View<'_>) -> Option<OperationIndex> {
        let term = view.executes_in?;
        let told = self.leading.filter(|_| self.is_fed())?;
        if told.leads != Some(term) || self.progress.leading_term != Some(term) {
            return None;
        }
        let early = view.planted.has(Bug::MarkedBeforeExecuted);
        let executed = if early {
            self.progress.commit_index
        } else {
            self.progress.durable_executed_index
        };
        Some(executed.min(view.committed()))
    }

    /// The stream has taken a piece of a state.
    pub(super) fn restore_taken(&mut self) {
        if let State::Restoring(restoring) = &mut self.state
            && restoring.piece == Piece::Said
        {
            restoring.piece = if restoring.offset < restoring.contents.state_bytes {
                Piece::Next
            } else {
                Piece::Last
            };
        }
    }

    /// Data of the snapshot that is being restored; `None` where it is no more.
    pub(super) fn state_read(&mut self, data: Option<Bytes>) {
        let State::Restoring(restoring) = &mut self.state else {
            return;
        };
        if restoring.piece != Piece::Reading {
            return;
        }
        let Some(data) = data else {
            restoring.piece = Piece::Gone;
            return;
        };
        // Behind the state comes the fold.
        let left = restoring.contents.state_bytes - restoring.offset;
        let length = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        restoring.piece = Piece::Read(data.slice(..length));
    }

    pub(super) fn view(&self) -> ReplicatorView {
        ReplicatorView {
            connected: matches!(self.state, State::Feeding(_) | State::Restoring(_)),
            progress: self.progress,
            executor: self.executor.clone(),
        }
    }

    /// The operation index that the replicator has committed and this node's log has to reach.
    pub(super) fn waits_for(&self) -> Option<OperationIndex> {
        match &self.state {
            State::Comparing {
                position,
                told_to_wait: true,
                ..
            } => Some(position.commit.index),
            _ => None,
        }
    }

    /// Whether it needs a state that no snapshot here is new enough for.
    pub(super) fn waits_for_snapshot(&self) -> bool {
        matches!(&self.state, State::Comparing { position, told_to_wait: true } if position.needs_state)
    }

    /// The log was cut: what was fed beyond will be fed anew and replaces what the replicator has.
    pub(super) fn truncated(&mut self, kept: OperationIndex) {
        self.read.clear();
        if let State::Feeding(feeding) = &mut self.state {
            feeding.next = feeding.next.min(kept + 1);
            while let Some((_, bytes)) = feeding.in_flight.pop_back_if(|(last, _)| *last > kept) {
                feeding.in_flight_bytes -= bytes;
            }
        }
    }

    pub(super) fn entries_read(&mut self, entries: Vec<Entry>) {
        self.reading = false;
        // Two places may have to be compared: the second must not displace the first, or both would be read for ever.
        if !matches!(self.state, State::Comparing { .. }) {
            self.read.clear();
        }
        self.read.extend(entries);
    }

    /// Whatever there is to say now.
    pub(super) fn poll(&mut self, view: View<'_>) -> Vec<Step> {
        let mut steps = Vec::new();
        if let State::Comparing { .. } = self.state {
            self.compare(view, &mut steps);
        }
        if let State::Restoring(_) = self.state {
            self.restore_next(&mut steps);
        }
        if let State::Feeding(_) = self.state {
            while !view.may_wait && self.feed_next(view, &mut steps) {}
            self.tell_leading(view, &mut steps);
        }
        steps
    }

    /// Whether the replicator was not told of all that may be executed.
    pub(super) fn has_news(&self, view: View<'_>) -> bool {
        self.commit_said().is_some_and(|said| said < view.committed())
    }

    /// How far the replicator was told that operations are committed, while it is fed.
    pub(super) fn commit_said(&self) -> Option<OperationIndex> {
        match &self.state {
            State::Feeding(feeding) => Some(feeding.commit_sent),
            _ => None,
        }
    }

    /// Says who leads at once, and where the mark is when the replicator has taken in the one before: so what waits for a replicator that
    /// takes nothing does not grow with time.
    fn tell_leading(&mut self, view: View<'_>, steps: &mut Vec<Step>) {
        let State::Feeding(feeding) = &self.state else {
            return;
        };
        let Some(told) = self.leading else { return };
        let known = feeding.commit_sent;
        let now = Leading {
            // Whoever begins has to know all that is marked.
            leads: view.executes_in.filter(|_| view.mark <= known),
            execute_after: view.mark.min(known),
        };
        let is_taken_in = self.progress.executed_index >= told.execute_after;
        if now.leads != told.leads || (now.execute_after > told.execute_after && is_taken_in) {
            self.leading = Some(now);
            steps.push(Step::Say(ToReplicator::Leading(now)));
        }
    }

    fn compare(&mut self, view: View<'_>, steps: &mut Vec<Step>) {
        let State::Comparing {
            position,
            told_to_wait,
        } = self.state
        else {
            return;
        };
        let parent = view.log.fold().parent;
        let shared = parent.filter(|parent| position.commit.index <= parent.operation_index);
        let is_ours =
            |cluster| cluster == self.cluster || shared.is_some_and(|parent| parent.cluster == cluster);
        if position.cluster_id.is_some_and(|cluster| !is_ours(cluster)) {
            let why = format!(
                "the replicator's data belongs to cluster {}, this node to cluster {}; give it the right folder or an empty one",
                position.cluster_id.map_or_else(String::new, |id| id.to_string()),
                self.cluster
            );
            return self.close(why, steps);
        }
        match self.find_start(&position, view) {
            Ok(Some(action @ StartAction::WaitUntil(_))) => {
                if !told_to_wait {
                    self.state = State::Comparing {
                        position,
                        told_to_wait: true,
                    };
                    steps.push(Step::Say(ToReplicator::Start {
                        action,
                        commit: view.committed(),
                    }));
                }
            }
            Ok(Some(action)) => {
                // Read to compare places: it need not be what comes next.
                self.read.clear();
                let commit = view.committed();
                self.state = match (action, view.snapshot) {
                    (StartAction::Restore(_), Some((at, contents))) => State::Restoring(Restoring {
                        at,
                        contents,
                        offset: 0,
                        piece: Piece::Next,
                    }),
                    (StartAction::CutTo(index), _) => State::Feeding(Feeding::after(index, commit)),
                    (StartAction::ResumeFrom(next), _) => State::Feeding(Feeding::after(next - 1, commit)),
                    (StartAction::WaitUntil(_) | StartAction::Restore(_), _) => {
                        unreachable!("a replicator waits above, and restores what there is")
                    }
                };
                steps.push(Step::Say(ToReplicator::Start { action, commit }));
            }
            Ok(None) => {}
            Err(Unread(at)) => self.read_back(at, at, steps),
            Err(Differs(place)) => {
                let why = self.difference(place, view);
                self.close(why, steps);
            }
            Err(NoSnapshot) => {
                let why = "it lacks operations that this node's log no longer holds, and the snapshots that do are damaged, or of \
                           another member's log; replace this member with 'raftctl member replace'";
                self.close(why.to_owned(), steps);
            }
        }
    }

    /// Where the replicator goes on; `None` until the log has caught up with an answer.
    fn find_start(&mut self, position: &Position, view: View<'_>) -> Result<Option<StartAction>, Obstacle> {
        let Position { last, commit, .. } = *position;
        if position.needs_state {
            return match view.snapshot {
                // A new member beside an old replicator: what it is still to be sent begins with a snapshot.
                None if commit.index > view.held() => Ok(Some(StartAction::WaitUntil(commit.index))),
                // The same, with one that ends before the replicator's log begins: a leader's newer one has to come.
                Some((_, contents)) if contents.place.index < position.log_begins_after() => {
                    Ok(Some(StartAction::WaitUntil(commit.index)))
                }
                _ => restore(view),
            };
        }
        if last.index <= view.held() {
            match self.compare_place(last, view) {
                Comparison::Equal => return Ok(Some(StartAction::ResumeFrom(last.index + 1))),
                Comparison::Before => return restore(view),
                Comparison::Unread(at) => return Err(Unread(at)),
                Comparison::Different => {}
            }
        }
        if commit.index > view.held() {
            if view.planted.has(Bug::CutBelowCommit) {
                return Ok(Some(StartAction::CutTo(view.held())));
            }
            return Ok(Some(StartAction::WaitUntil(commit.index)));
        }
        match self.compare_place(commit, view) {
            Comparison::Equal => return Ok(Some(StartAction::CutTo(commit.index))),
            Comparison::Before => return restore(view),
            Comparison::Unread(at) => return Err(Unread(at)),
            Comparison::Different => {}
        }
        if commit.index <= view.committed() {
            return Err(Differs(commit));
        }
        // The own log holds something else there that is not committed: it will give way.
        Ok(Some(StartAction::WaitUntil(commit.index)))
    }

    fn compare_place(&self, place: Place, view: View<'_>) -> Comparison {
        let base = view.log.base();
        if place.index < base.operation_index {
            return Comparison::Before;
        }
        if place.index == base.operation_index {
            // The hash is over the term, too.
            return if place.running_hash == base.running_hash {
                Comparison::Equal
            } else {
                Comparison::Different
            };
        }
        let Some(at) = view.log.log_index_of(place.index) else {
            return Comparison::Different;
        };
        let read = self.read.iter().find(|entry| entry.log_index == at);
        match view.log.entry(at).or(read) {
            Some(entry) if (entry.term, entry.running_hash) == (place.term, place.running_hash) => {
                Comparison::Equal
            }
            Some(_) => Comparison::Different,
            None => Comparison::Unread(at),
        }
    }

    /// What is to be said of a replicator that holds something else there than is committed.
    fn difference(&self, place: Place, view: View<'_>) -> String {
        let Place {
            index, running_hash, ..
        } = place;
        let at = view.log.log_index_of(index);
        let read = self.read.iter().find(|entry| Some(entry.log_index) == at);
        let own = read.map(|entry| entry.running_hash);
        let own = own.or_else(|| at.and_then(|at| view.log.running_hash_at(at)));
        let own = own.unwrap_or(view.log.base().running_hash);
        format!(
            "the replicator has executed or may execute other operations up to index {index} than the cluster committed: its \
             running hash there is {running_hash:016x}, this node's {own:016x}; 'raftctl verify' names the first operation \
             that differs; empty its data folder so that it receives them anew"
        )
    }

    fn close(&mut self, why: String, steps: &mut Vec<Step>) {
        self.state = State::Closed;
        steps.push(Step::Say(ToReplicator::Close { why }));
    }

    /// Ends the stream so that another begins at once.
    fn start_over(&mut self, why: &str, steps: &mut Vec<Step>) {
        self.state = State::Closed;
        let why = why.to_owned();
        steps.push(Step::Say(ToReplicator::StartOver { why }));
    }

    fn restore_next(&mut self, steps: &mut Vec<Step>) {
        let State::Restoring(restoring) = &mut self.state else {
            return;
        };
        if restoring.piece == Piece::Gone {
            return self.start_over("newer snapshots took the place of the one being restored", steps);
        }
        let whole = restoring.contents.state_bytes;
        if restoring.piece == Piece::Next && whole > 0 {
            restoring.piece = Piece::Reading;
            steps.push(Step::ReadState(restoring.at, restoring.offset));
            return;
        }
        let data = match std::mem::replace(&mut restoring.piece, Piece::Said) {
            Piece::Read(data) => data,
            // An empty state is one empty piece.
            Piece::Next => Bytes::new(),
            other => {
                restoring.piece = other;
                return;
            }
        };
        let offset = restoring.offset;
        restoring.offset += data.len() as u64;
        steps.push(Step::Say(ToReplicator::Restore { offset, data }));
    }

    fn read_back(&mut self, first: LogIndex, last: LogIndex, steps: &mut Vec<Step>) {
        if !self.reading {
            self.reading = true;
            steps.push(Step::Read(first, last, BATCH_BYTES_MAX));
        }
    }

    /// Feeds one message; whether there may be another.
    fn feed_next(&mut self, view: View<'_>, steps: &mut Vec<Step>) -> bool {
        let State::Feeding(feeding) = &mut self.state else {
            return false;
        };
        let mut operations = Vec::new();
        let mut bytes = 0;
        if feeding.next <= view.committed() && feeding.in_flight_bytes < IN_FLIGHT_BYTES_MAX {
            let Some(first) = view.log.log_index_of(feeding.next) else {
                self.start_over(
                    "a snapshot took the place of operations that are still to be fed",
                    steps,
                );
                return false;
            };
            let read = std::mem::take(&mut self.read);
            let entries = if read.first().is_some_and(|entry| entry.log_index == first) {
                Some(read)
            } else {
                view.log.entries(first, view.persisted, BATCH_BYTES_MAX)
            };
            let Some(entries) = entries else {
                let last = view.log.settled().min(view.persisted);
                self.read_back(first, last, steps);
                return false;
            };
            bytes = entries.iter().map(Entry::weight).sum();
            operations = entries.into_iter().filter_map(replicated).collect();
        }
        let end = operations
            .last()
            .map_or(feeding.next - 1, |operation| operation.index);
        let commit = view.committed().min(end);
        if operations.is_empty() && commit <= feeding.commit_sent {
            return false;
        }
        let more = !operations.is_empty();
        if more {
            feeding.next = end + 1;
            feeding.in_flight.push_back((end, bytes));
            feeding.in_flight_bytes += bytes;
        }
        feeding.commit_sent = feeding.commit_sent.max(commit);
        steps.push(Step::Say(ToReplicator::Feed { operations, commit }));
        more
    }
}

/// Why it is not known yet, or never will be, where a replicator goes on.
enum Obstacle {
    Unread(LogIndex),
    Differs(Place),
    /// There is no snapshot to restore.
    NoSnapshot,
}
use Obstacle::{Differs, NoSnapshot, Unread};

fn restore(view: View<'_>) -> Result<Option<StartAction>, Obstacle> {
    let (_, contents) = view.snapshot.ok_or(NoSnapshot)?;
    Ok(Some(StartAction::Restore(StateSnapshot {
        place: contents.place,
        size: contents.state_bytes,
    })))
}

impl Feeding {
    /// Goes on behind that operation, up to which both agree, and which may be told to be committed as far as `commit`.
    fn after(agreed: OperationIndex, commit: OperationIndex) -> Self {
        Self {
            next: agreed + 1,
            commit_sent: commit.min(agreed),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    fn held(&mut self, last: OperationIndex) {
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(end, _)| *end <= last) {
            self.in_flight_bytes -= bytes;
        }
    }
}

fn replicated(entry: Entry) -> Option<ReplicatedOperation> {
    let Entry {
        term,
        operation_index: index,
        running_hash,
        payload,
        ..
    } = entry;
    match payload {
        Payload::Operation(operation) => Some(ReplicatedOperation {
            index,
            term,
            running_hash,
            data: operation.data,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use raftlog_raft::entry::Operation;
    use raftlog_raft::fold::Fold;

    use super::super::snapshot::Origin;
    use super::*;

    /// A log of term 1 with a no-op and that many operations, all on disk.
    fn log(operations: u64) -> Log {
        let mut log = Log::new(Fold::default(), 1 << 20);
        let noop = log.fold().next_entry(1, 1, Payload::Noop);
        log.push(noop);
        for _ in 0..operations {
            let payload = Payload::Operation(Operation {
                data: "op".into(),
                session: None,
            });
            log.push(log.fold().next_entry(log.last().index + 1, 1, payload));
        }
        log
    }

    fn view(log: &Log, committed: OperationIndex) -> View<'_> {
        let commit = if committed == 0 {
            0
        } else {
            log.log_index_of(committed).unwrap()
        };
        View {
            log,
            commit,
            persisted: log.last().index,
            snapshot: None,
            may_wait: false,
            planted: Planted::default(),
            executes_in: None,
            mark: 0,
        }
    }

    fn place(log: &Log, index: OperationIndex) -> Place {
        let entry = log.log_index_of(index).and_then(|at| log.entry(at));
        entry.map_or(Place::default(), |entry| Place {
            index,
            term: entry.term,
            running_hash: entry.running_hash,
        })
    }

    fn cluster(raw: u64) -> ClusterId {
        ClusterId::new(raw).unwrap()
    }

    fn started(position: Position, log: &Log, committed: OperationIndex) -> (Feed, Vec<Step>) {
        let mut feed = Feed::new(cluster(1));
        feed.opened();
        feed.position(position);
        let steps = feed.poll(view(log, committed));
        (feed, steps)
    }

    fn position(last: Place, commit: Place) -> Position {
        Position {
            cluster_id: Some(cluster(1)),
            member_id: None,
            first_index: 1,
            last,
            commit,
            executed: commit,
            needs_state: false,
            on_leader: false,
        }
    }

    #[test]
    fn where_a_replicator_goes_on() {
        let log = log(5);
        let other = |index| Place {
            index,
            term: 1,
            running_hash: 7,
        };
        let cases = [
            (
                "new",
                position(Place::default(), Place::default()),
                StartAction::ResumeFrom(1),
            ),
            (
                "behind",
                position(place(&log, 3), place(&log, 2)),
                StartAction::ResumeFrom(4),
            ),
            (
                "equal",
                position(place(&log, 5), place(&log, 5)),
                StartAction::ResumeFrom(6),
            ),
            (
                "another tail",
                position(other(4), place(&log, 2)),
                StartAction::CutTo(2),
            ),
            (
                "a longer tail",
                position(other(9), place(&log, 2)),
                StartAction::CutTo(2),
            ),
            (
                "ahead of this node",
                position(other(9), other(8)),
                StartAction::WaitUntil(8),
            ),
            (
                "in need of a state that a new member is still to be sent",
                Position {
                    needs_state: true,
                    ..position(other(9), other(8))
                },
                StartAction::WaitUntil(8),
            ),
        ];
        for (name, position, expected) in cases {
            let (_, steps) = started(position, &log, 5);
            let start = Step::Say(ToReplicator::Start {
                action: expected,
                commit: 5,
            });
            assert_eq!(steps.first(), Some(&start), "{name}");
        }
    }

    /// Of a snapshot up to that operation.
    fn contents(log: &Log, index: u64) -> Contents {
        Contents {
            place: place(log, index),
            state_bytes: 4,
            origin: Origin {
                cluster: cluster(1),
                member: raftlog_raft::ids::MemberId::new(1).unwrap(),
            },
        }
    }

    /// What was read back to compare places was once taken for the beginning of what to feed, where the first place that was
    /// compared is the operation with which feeding begins.
    #[test]
    fn an_executor_that_lost_its_state_gets_a_snapshot_and_the_log_goes_on_where_it_was() {
        let log = log(5);
        let lost = Position {
            needs_state: true,
            ..position(place(&log, 5), place(&log, 5))
        };
        let contents = contents(&log, 3);
        let with_snapshot = View {
            snapshot: Some((log.log_index_of(3).unwrap(), contents)),
            ..view(&log, 5)
        };
        let mut feed = Feed::new(cluster(1));
        feed.opened();
        feed.position(lost);
        let restore = StartAction::Restore(StateSnapshot {
            place: place(&log, 3),
            size: 4,
        });
        let says = |steps: Vec<Step>| {
            steps.into_iter().find_map(|step| match step {
                Step::Say(ToReplicator::Start { action, .. }) => Some(action),
                _ => None,
            })
        };
        assert_eq!(says(feed.poll(with_snapshot)), Some(restore));
        feed.state_read(Some(Bytes::from_static(b"1234")));
        feed.poll(with_snapshot);
        feed.restore_taken();
        // Its log has all that the node's has: nothing is fed again.
        feed.position(position(place(&log, 5), place(&log, 5)));
        assert_eq!(says(feed.poll(with_snapshot)), Some(StartAction::ResumeFrom(6)));
        // Without a snapshot there is no way.
        let mut feed = Feed::new(cluster(1));
        feed.opened();
        feed.position(lost);
        let steps = feed.poll(view(&log, 5));
        assert!(
            matches!(&steps[..], [Step::Say(ToReplicator::Close { why })] if why.contains("member replace")),
            "{steps:?}"
        );
    }

    #[test]
    fn a_state_that_is_older_than_the_replicators_log_is_not_restored() {
        let log = log(5);
        let lost = |first_index| Position {
            needs_state: true,
            first_index,
            ..position(place(&log, 5), place(&log, 5))
        };
        for (snapshot, first_index, waits) in [
            (3, 4, false),
            (3, 5, true),
            (4, 5, false),
            (4, 0, true),
            (5, 0, false),
        ] {
            let mut feed = Feed::new(cluster(1));
            feed.opened();
            feed.position(lost(first_index));
            let steps = feed.poll(View {
                snapshot: Some((log.log_index_of(snapshot).unwrap(), contents(&log, snapshot))),
                ..view(&log, 5)
            });
            let Some(Step::Say(ToReplicator::Start { action, .. })) = steps.first() else {
                panic!("{steps:?}");
            };
            let told = matches!(action, StartAction::WaitUntil(5));
            assert_eq!(
                (told, feed.waits_for_snapshot()),
                (waits, waits),
                "{snapshot} {first_index}"
            );
        }
    }

    #[test]
    fn what_was_read_to_compare_is_not_fed() {
        let whole = log(5);
        let mut settled = Log::new(Fold::default(), 1);
        for index in 1..=whole.last().index {
            settled.push(whole.entry(index).unwrap().clone());
        }
        settled.settle(settled.last().index);
        settled.evict(settled.last().index);
        let other = Place {
            running_hash: 7,
            ..place(&whole, 4)
        };
        let (mut feed, mut steps) = started(position(other, place(&whole, 3)), &settled, 5);
        let mut indexes = Vec::new();
        while let Some(step) = steps.pop() {
            match step {
                Step::Read(first, last, _) => {
                    assert!(steps.is_empty());
                    feed.entries_read(whole.entries(first, last, 1 << 20).unwrap());
                    steps = feed.poll(view(&settled, 5));
                    steps.reverse();
                }
                Step::Say(ToReplicator::Feed { operations, .. }) => {
                    indexes.extend(operations.iter().map(|operation| operation.index));
                }
                Step::Say(ToReplicator::Start { action, .. }) => {
                    assert_eq!(action, StartAction::CutTo(3));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(indexes, [4, 5]);
    }

    #[test]
    fn what_does_not_belong_together_is_closed() {
        let log = log(5);
        let other = Place {
            index: 3,
            term: 1,
            running_hash: 7,
        };
        let foreign = Position {
            cluster_id: Some(cluster(2)),
            ..position(Place::default(), Place::default())
        };
        let own = format!("{:016x}", place(&log, 3).running_hash);
        for (name, position, says) in [
            ("another cluster", foreign, ["cluster 0000000000000002", "folder"]),
            (
                "other commits",
                position(other, other),
                ["0000000000000007", &own],
            ),
        ] {
            let (_, steps) = started(position, &log, 5);
            let [Step::Say(ToReplicator::Close { why })] = &steps[..] else {
                panic!("{name}: {steps:?}");
            };
            for part in says {
                assert!(why.contains(part), "{name}: {why} should say {part}");
            }
        }
    }

    #[test]
    fn an_uncommitted_difference_is_waited_out() {
        let log = log(5);
        let other = Place {
            index: 3,
            term: 1,
            running_hash: 7,
        };
        let (feed, steps) = started(position(other, other), &log, 2);
        assert_eq!(
            steps,
            [Step::Say(ToReplicator::Start {
                action: StartAction::WaitUntil(3),
                commit: 2
            })]
        );
        assert_eq!(feed.waits_for(), Some(3));
    }

    #[test]
    fn only_what_is_committed_and_on_disk_may_be_executed() {
        let log = log(5);
        let (mut feed, steps) = started(position(Place::default(), Place::default()), &log, 0);
        assert_eq!(steps.len(), 1, "only where to start: {steps:?}");
        let half = View {
            log: &log,
            commit: 6,
            persisted: 3,
            snapshot: None,
            may_wait: false,
            planted: Planted::default(),
            executes_in: None,
            mark: 0,
        };
        let (mut other, steps) = {
            let mut feed = Feed::new(cluster(1));
            feed.opened();
            feed.position(position(Place::default(), Place::default()));
            let steps = feed.poll(half);
            (feed, steps)
        };
        let Some(Step::Say(ToReplicator::Feed { operations, commit })) = steps.last() else {
            panic!("{steps:?}")
        };
        assert_eq!((operations.len(), *commit), (2, 2));
        assert!(other.poll(half).is_empty(), "nothing new");
        let steps = feed.poll(view(&log, 4));
        let [
            Step::Say(ToReplicator::Feed {
                operations,
                commit: 4,
            }),
        ] = &steps[..]
        else {
            panic!("{steps:?}")
        };
        assert_eq!(operations.len(), 5, "the uncommitted one goes along");
        assert_eq!(
            feed.poll(view(&log, 5)),
            [Step::Say(ToReplicator::Feed {
                operations: Vec::new(),
                commit: 5
            })]
        );
    }

    #[test]
    fn a_tail_and_a_commit_that_both_left_memory_are_compared_and_cut() {
        let mut log = log(5);
        let other = Place {
            index: 4,
            term: 1,
            running_hash: 7,
        };
        let commit = place(&log, 2);
        let entries = log.entries(1, 6, usize::MAX).unwrap();
        log.settle(6);
        while log.entry(6).is_some() {
            let payload = Payload::Operation(Operation {
                data: vec![0; 1 << 20].into(),
                session: None,
            });
            log.push(log.fold().next_entry(log.last().index + 1, 1, payload));
            log.settle(log.last().index);
            log.evict(log.last().index);
        }
        let (mut feed, mut steps) = started(position(other, commit), &log, 5);
        for _ in 0..4 {
            if let [Step::Read(first, last, _)] = steps[..] {
                let read = entries.iter().filter(|e| (first..=last).contains(&e.log_index));
                feed.entries_read(read.cloned().collect());
                steps = feed.poll(view(&log, 5));
            }
        }
        let start = Step::Say(ToReplicator::Start {
            action: StartAction::CutTo(2),
            commit: 5,
        });
        assert_eq!(steps.first(), Some(&start));
    }

    #[test]
    fn what_was_cut_is_fed_anew() {
        let mut log = log(5);
        let (mut feed, _) = started(position(Place::default(), Place::default()), &log, 2);
        log.settle(3);
        log.truncate(5);
        let payload = Payload::Operation(Operation {
            data: "new".into(),
            session: None,
        });
        log.push(log.fold().next_entry(5, 2, payload));
        feed.truncated(3);
        let steps = feed.poll(view(&log, 4));
        let [
            Step::Say(ToReplicator::Feed {
                operations,
                commit: 4,
            }),
        ] = &steps[..]
        else {
            panic!("{steps:?}")
        };
        assert_eq!((operations[0].index, operations[0].term), (4, 2));
    }

    #[test]
    fn what_is_under_way_is_bounded_and_goes_on() {
        let mut log = log(0);
        for _ in 0..12 {
            let payload = Payload::Operation(Operation {
                data: vec![0; 1 << 20].into(),
                session: None,
            });
            log.push(log.fold().next_entry(log.last().index + 1, 1, payload));
        }
        let (mut feed, steps) = started(position(Place::default(), Place::default()), &log, 12);
        assert_eq!(steps.len(), 1 + 4, "start, and four messages of 1 MiB");
        feed.progress(Progress {
            last_index: 2,
            ..Progress::default()
        });
        assert_eq!(feed.poll(view(&log, 12)).len(), 2);
    }

    /// What is said of leaders and marks.
    fn told(steps: &[Step]) -> Vec<(Option<Term>, OperationIndex)> {
        let told = |step: &Step| match step {
            Step::Say(ToReplicator::Leading(told)) => Some((told.leads, told.execute_after)),
            _ => None,
        };
        steps.iter().filter_map(told).collect()
    }

    #[test]
    fn a_replicator_on_the_leader_is_told_who_leads_and_one_mark_after_the_other() {
        let log = log(5);
        let on_leader = Position {
            on_leader: true,
            ..position(Place::default(), Place::default())
        };
        let at = |committed, mark, executes_in| View {
            executes_in,
            mark,
            ..view(&log, committed)
        };
        let (mut feed, steps) = started(on_leader, &log, 0);
        assert!(
            told(&steps).is_empty(),
            "until it is told, its node does not lead"
        );
        // Never of more than it knows to be committed: what is marked is not on this node's disk yet.
        assert_eq!(told(&feed.poll(at(2, 3, None))), [(None, 2)]);
        assert!(
            told(&feed.poll(at(3, 3, None))).is_empty(),
            "it has not taken in the one before"
        );
        let executed = |executed_index, leading_term| Progress {
            last_index: 5,
            commit_index: 5,
            executed_index,
            durable_executed_index: executed_index,
            leading_term,
        };
        feed.progress(executed(2, None));
        assert_eq!(told(&feed.poll(at(3, 3, None))), [(None, 3)]);
        // Who leads is said at once.
        assert_eq!(told(&feed.poll(at(5, 4, Some(2)))), [(Some(2), 4)]);
        assert_eq!(told(&feed.poll(at(5, 4, None))), [(None, 4)]);
        assert_eq!(told(&feed.poll(at(5, 4, Some(3)))), [(Some(3), 4)]);
        // One that executes anyway is told nothing.
        let (mut feed, _) = started(position(Place::default(), Place::default()), &log, 0);
        assert!(told(&feed.poll(at(5, 3, Some(2)))).is_empty());
        assert_eq!(feed.executed_for_all(at(5, 3, Some(2))), None);
    }

    #[test]
    fn only_what_was_executed_in_the_own_term_is_marked() {
        let log = log(5);
        let on_leader = Position {
            on_leader: true,
            ..position(place(&log, 5), place(&log, 5))
        };
        let (mut feed, _) = started(on_leader, &log, 5);
        let at = |executes_in| View {
            executes_in,
            mark: 2,
            ..view(&log, 5)
        };
        let says = |executed_index, leading_term| Progress {
            last_index: 5,
            commit_index: 5,
            executed_index,
            durable_executed_index: executed_index,
            leading_term,
        };
        // It has executed up to 4 under an earlier leadership, and said so.
        feed.progress(says(4, None));
        feed.poll(at(Some(7)));
        assert_eq!(feed.executed_for_all(at(Some(7))), None);
        assert_eq!((feed.executed(), feed.executed_by_now()), (Some(2), Some(2)));
        feed.progress(says(3, Some(7)));
        assert_eq!(feed.executed_for_all(at(Some(7))), Some(3));
        assert_eq!((feed.executed(), feed.executed_by_now()), (Some(2), Some(3)));
        assert_eq!(
            feed.executed_for_all(at(Some(8))),
            None,
            "it has not heard of that term"
        );
        assert_eq!(feed.executed_for_all(at(None)), None);
        feed.closed();
        assert_eq!(feed.executed_for_all(at(Some(7))), None);
    }
}
