//! Taking snapshots: the replicator is asked for the state of its executor, at whatever operation it chooses; meanwhile the fold
//! is brought to the same place, entry by entry from disk, and both are stored.
//!
//! A second fold is kept for this, at the newest snapshot, so that no snapshot has to be read back to make the next. What is
//! done at once is bounded: a batch of entries, or as much of the fold as may wait for the disk.

use std::time::Duration;

use bytes::Bytes;
use raftlog_raft::entry::Entry;
use raftlog_raft::fold::{Encoded, Fold};
use raftlog_raft::ids::{LogIndex, OperationIndex, Term};
use raftlog_raft::log::Log;
use raftlog_raft::message::LogPosition;
use raftlog_raft::planted::{Bug, Planted};
use raftlog_raft::time::Time;
use raftlog_storage::snapshots::{Manifest, Refused, Snapshots, Whole};

use super::api::{
    Place, RequestId, SnapshotChunk, SnapshotRefusal, StateSnapshot, TakenSnapshot, ToReplicator,
};
use super::snapshot::{Contents, Origin};
use super::weights::Weights;

/// Entries that are taken into the fold at once, in bytes on disk.
const FOLD_BYTES: usize = 256 << 10;
/// The fold is encoded in pieces of so many bytes, or a session more.
const PIECE_BYTES: usize = 128 << 10;
/// Who may wait for one snapshot.
const ASKED_MAX: usize = 64;
/// After a snapshot that came to nothing.
const RETRY: Duration = Duration::from_secs(10);

/// Why a snapshot came to nothing that the storage does not take.
const NOT_TAKEN: &str = "another snapshot took its place";

/// What it takes to take snapshots.
#[derive(Debug)]
pub(super) struct Taking {
    every_operations: u64,
    every_bytes: u64,
    origin: Origin,
    /// What the log adds up to, up to `folded`.
    fold: Fold,
    folded: LogIndex,
    /// Entries from there on are being read back from disk.
    reading_from: Option<LogIndex>,
    state: State,
    last_order: u64,
    /// Nothing is ordered before, after one that came to nothing.
    not_before: Option<Time>,
    planted: Planted,
    asked: Vec<Asked>,
    /// Those who asked in vain.
    refused: Vec<(RequestId, SnapshotRefusal)>,
}

/// Somebody wants a snapshot.
#[derive(Debug)]
struct Asked {
    id: RequestId,
    /// With all that was executed then.
    executed: OperationIndex,
    until: Time,
}

#[derive(Debug)]
enum State {
    Idle,
    /// The replicator was asked, under that number.
    Ordered(u64),
    Storing(Storing),
}

/// A snapshot on its way to disk.
#[derive(Debug)]
struct Storing {
    order: u64,
    at: LogPosition,
    contents: Contents,
    /// Bytes of the replicator's state that came.
    state_received: u64,
    /// A piece of it that the disk has no time for yet, and its offset. No other comes before that is taken.
    held: Option<(u64, Bytes)>,
    encoded: Encoded,
    /// A piece of the fold that the disk has no time for yet.
    piece: Vec<u8>,
    /// Where in the snapshot that goes.
    offset: u64,
    finished: bool,
    began: Time,
}

/// What taking looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress<'a> {
    pub(super) log: &'a Log,
    pub(super) weights: &'a Weights,
    /// min(commit index, own persisted index).
    pub(super) committed: LogIndex,
    /// What the replicator has executed and would still know after a crash; absent while it is not fed.
    pub(super) executed: Option<OperationIndex>,
    /// A snapshot that nobody has asked for would do harm now.
    pub(super) may_wait: bool,
}

impl Progress<'_> {
    fn has_committed(&self, operation: OperationIndex) -> bool {
        operation <= self.log.operation_index_at(self.committed)
    }

    /// The last committed entry up to which there are no further operations than that one, which the log holds or begins behind.
    fn covered_by(&self, operation: OperationIndex) -> LogIndex {
        let next = self.log.log_index_of(operation + 1);
        next.map_or(self.committed, |next| (next - 1).min(self.committed))
    }
}

/// The term of the operation at that place in the log; where the log begins behind it, the hash has to be the same, which is over
/// the term, too.
fn term_of(place: Place, log: &Log) -> Option<Term> {
    let base = log.base();
    match log.log_index_of(place.index) {
        Some(at) => log.term_at(at),
        None => (place.index == base.operation_index && place.running_hash == base.running_hash)
            .then_some(place.term),
    }
}

/// What taking wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Say(ToReplicator),
    /// Read entries back, from the first log index through the second; then [`Taking::entries_read`].
    Read(LogIndex, LogIndex, usize),
    /// The replicator's state is not what this log adds up to: why, for people.
    Refuse(String),
}

impl Taking {
    /// `fold` is that of the log up to `folded`.
    pub(super) fn new(
        (every_operations, every_bytes): (u64, u64),
        origin: Origin,
        fold: Fold,
        folded: LogIndex,
        planted: Planted,
    ) -> Self {
        Self {
            every_operations,
            every_bytes,
            origin,
            fold,
            folded,
            reading_from: None,
            state: State::Idle,
            last_order: 0,
            not_before: None,
            planted,
            asked: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Somebody wants a snapshot of all that is executed by now; absent while no replicator is fed.
    pub(super) fn asked(
        &mut self,
        now: Time,
        id: RequestId,
        within: Duration,
        executed: Option<OperationIndex>,
    ) {
        let refusal = match executed {
            None => SnapshotRefusal::NoReplicator,
            Some(0) => SnapshotRefusal::NothingExecuted,
            Some(_) if self.asked.len() >= ASKED_MAX => SnapshotRefusal::Busy,
            Some(executed) => {
                let until = now + within;
                self.asked.push(Asked { id, executed, until });
                // Whoever asks wants it tried now.
                self.not_before = None;
                return;
            }
        };
        self.refused.push((id, refusal));
    }

    /// What is to be said to those who asked.
    pub(super) fn answers(
        &mut self,
        snapshots: &Snapshots,
    ) -> Vec<(RequestId, Result<TakenSnapshot, SnapshotRefusal>)> {
        let refused = self.refused.drain(..).map(|(id, refusal)| (id, Err(refusal)));
        let mut answers: Vec<_> = refused.collect();
        let newest = snapshots.newest().and_then(|manifest| {
            let Contents { place, origin, .. } = Contents::of(manifest).ok()?;
            // One of the cluster that this one was recovered from is not of this cluster.
            (origin.cluster == self.origin.cluster).then(|| TakenSnapshot {
                manifest: manifest.clone(),
                place,
            })
        });
        if let Some(newest) = newest {
            let served = self
                .asked
                .extract_if(.., |asked| asked.executed <= newest.place.index);
            answers.extend(served.map(|asked| (asked.id, Ok(newest.clone()))));
        }
        answers
    }

    /// Up to where the fold has come: what is behind is still needed from the log.
    pub(super) fn folded(&self) -> LogIndex {
        self.folded
    }

    /// When something is due though nothing happens.
    pub(super) fn deadline(&self) -> Time {
        let waiting = self.asked.iter().map(|asked| asked.until);
        waiting.chain(self.not_before).min().unwrap_or(Time::NEVER)
    }

    /// Time has come for whatever is due.
    pub(super) fn tick(&mut self, now: Time) {
        self.not_before = self.not_before.filter(|&at| now < at);
        let late = self.asked.extract_if(.., |asked| asked.until <= now);
        self.refused
            .extend(late.map(|asked| (asked.id, SnapshotRefusal::TimedOut)));
    }

    /// Whatever there is to do now.
    pub(super) fn poll(&mut self, progress: Progress<'_>, snapshots: &mut Snapshots, now: Time) -> Vec<Step> {
        // What is there of it may be what fills the disk; and while a piece is held, nothing else that the replicator says is heard.
        if matches!(self.state, State::Storing(_)) && snapshots.is_full_disk() {
            self.try_later(snapshots, now, "the disk is full");
        }
        self.store_held(snapshots, now);
        let newest = snapshots.newest().map_or(0, |manifest| manifest.index);
        let mut steps = Vec::new();
        if matches!(self.state, State::Idle) && self.not_before.is_none() && self.is_due(progress, newest) {
            self.last_order += 1;
            self.state = State::Ordered(self.last_order);
            steps.push(Step::Say(ToReplicator::TakeSnapshot { id: self.last_order }));
        }
        let wanted = match &self.state {
            State::Storing(storing) => storing.at.index,
            // One that has come from elsewhere may be beyond what is known to be committed, until the log begins behind it.
            _ => newest.min(progress.committed),
        };
        if self.folded < wanted {
            if self.reading_from.is_none() {
                self.reading_from = Some(self.folded + 1);
                steps.push(Step::Read(self.folded + 1, wanted, FOLD_BYTES));
            }
        } else if let Err(why) = self.store_fold(snapshots, now) {
            steps.push(Step::Refuse(why));
        }
        steps
    }

    fn is_due(&self, progress: Progress<'_>, newest: LogIndex) -> bool {
        let Progress { log, weights, .. } = progress;
        let executed = progress.executed.filter(|&executed| executed > 0);
        let Some(executed) = executed.filter(|&executed| progress.has_committed(executed)) else {
            return false;
        };
        if executed < log.base().operation_index {
            return false;
        }
        let at = progress.covered_by(executed);
        let beyond = at.saturating_sub(newest);
        // What was executed when somebody asked may not be durable yet.
        let is_asked_for = self.asked.iter().any(|asked| asked.executed <= executed);
        let is_due = beyond >= self.every_operations || weights.between(newest, at) >= self.every_bytes;
        beyond > 0 && (is_asked_for || is_due && !progress.may_wait)
    }

    /// Entries behind the fold came back from disk.
    pub(super) fn entries_read(&mut self, entries: &[Entry]) {
        let first = self.reading_from.take();
        assert!(
            !entries.is_empty() || first != Some(self.folded + 1),
            "entry {} is in a snapshot or on its way into one, and stays in the log until the fold has it",
            self.folded + 1
        );
        for entry in entries {
            if entry.log_index <= self.folded {
                continue;
            }
            assert_eq!(entry.log_index, self.folded + 1, "entries are read in order");
            self.fold.apply(entry);
            self.folded = entry.log_index;
        }
    }

    /// A piece of the replicator's state. The error says what is wrong with it: the stream must end.
    pub(super) fn state_came(
        &mut self,
        chunk: SnapshotChunk,
        progress: Progress<'_>,
        snapshots: &mut Snapshots,
        now: Time,
    ) -> Result<(), String> {
        let ours = match &self.state {
            State::Idle => None,
            State::Ordered(order) => Some(*order),
            State::Storing(storing) => Some(storing.order),
        };
        if ours != Some(chunk.id) {
            // Of an order that was given up.
            return Ok(());
        }
        let SnapshotChunk {
            id,
            snapshot,
            offset,
            data,
        } = chunk;
        match (&self.state, snapshot) {
            (State::Ordered(_), Some(of)) => self.begin(id, of, progress, snapshots, now)?,
            (State::Storing(_), None) => {}
            (_, None) => return Err("the first piece of its snapshot does not say of what".to_owned()),
            (_, Some(_)) => return Err("a snapshot begins within another".to_owned()),
        }
        let State::Storing(storing) = &mut self.state else {
            return Ok(());
        };
        let whole = storing.contents.state_bytes;
        let end = offset.saturating_add(data.len() as u64);
        if offset != storing.state_received || end > whole || data.is_empty() && whole > 0 {
            return Err(format!(
                "a piece of its snapshot is {} bytes at {offset}, where {} of {whole} bytes came before",
                data.len(),
                storing.state_received
            ));
        }
        storing.state_received = end;
        if storing.held.replace((offset, data)).is_some() {
            // Who did not wait is not asked to.
            self.try_later(
                snapshots,
                now,
                "the disk does not keep up with the replicator's state",
            );
        }
        self.store_held(snapshots, now);
        Ok(())
    }

    /// Whether a piece of the replicator's state may come: none is held for the disk.
    pub(super) fn takes_state(&self) -> bool {
        !matches!(&self.state, State::Storing(storing) if storing.held.is_some())
    }

    /// A piece that is held goes to the disk as soon as that has time.
    fn store_held(&mut self, snapshots: &mut Snapshots, now: Time) {
        let State::Storing(storing) = &mut self.state else {
            return;
        };
        let Some((offset, data)) = &storing.held else {
            return;
        };
        match snapshots.receive(*offset, data) {
            Ok(()) => storing.held = None,
            Err(Refused::Busy) => {}
            Err(_) => self.try_later(snapshots, now, NOT_TAKEN),
        }
    }

    /// The replicator says which operation it has chosen.
    fn begin(
        &mut self,
        order: u64,
        of: StateSnapshot,
        progress: Progress<'_>,
        snapshots: &mut Snapshots,
        now: Time,
    ) -> Result<(), String> {
        let (log, place) = (progress.log, of.place);
        let held = log.fold().operation_index;
        if place.index > held {
            return Err(format!(
                "its snapshot holds operation {}, of which there are {held} here",
                place.index
            ));
        }
        let newest = snapshots.newest().map_or(0, |manifest| manifest.index);
        let at = progress.covered_by(place.index);
        let term = term_of(place, log);
        let of_use = progress.has_committed(place.index) && at > newest && at >= self.folded;
        let Some(term) = term.filter(|_| of_use) else {
            // It went back, or a newer snapshot came from elsewhere meanwhile, or this node started again and does not know
            // yet that all of it is committed.
            self.try_later(
                snapshots,
                now,
                "the replicator's state is not of what is known to be committed here",
            );
            return Ok(());
        };
        if term != place.term {
            return Err(format!(
                "its snapshot is at operation {} of term {}, which is of term {term} here",
                place.index, place.term
            ));
        }
        let at = LogPosition {
            index: at,
            term: log.term_at(at).unwrap_or(term),
        };
        let contents = Contents {
            place,
            state_bytes: of.size,
            origin: self.origin,
        };
        let manifest = Manifest {
            index: at.index,
            term: at.term,
            metadata: contents.encode(),
            whole: Whole::default(),
        };
        match snapshots.begin(manifest, false) {
            Ok(_) => {
                self.state = State::Storing(Storing {
                    order,
                    at,
                    contents,
                    state_received: 0,
                    held: None,
                    encoded: Encoded::default(),
                    piece: Vec::new(),
                    offset: of.size,
                    finished: false,
                    began: now,
                });
                Ok(())
            }
            Err(refused) => Err(format!("its snapshot of {} bytes is refused: {refused}", of.size)),
        }
    }

    /// Once the state is there and the fold at its place: as much of the fold as may wait for the disk.
    fn store_fold(&mut self, snapshots: &mut Snapshots, now: Time) -> Result<(), String> {
        let State::Storing(storing) = &mut self.state else {
            return Ok(());
        };
        let Contents {
            place, state_bytes, ..
        } = storing.contents;
        if storing.finished || storing.held.is_some() || storing.state_received < state_bytes {
            return Ok(());
        }
        assert_eq!(
            (self.folded, self.fold.operation_index),
            (storing.at.index, place.index),
            "the fold is at the place of the state"
        );
        if self.fold.running_hash != place.running_hash {
            let why = format!(
                "it has executed other operations up to index {} than are committed here (running hash {:016x}, here \
                 {:016x})",
                place.index, place.running_hash, self.fold.running_hash
            );
            self.try_later(
                snapshots,
                now,
                "the replicator's state is not what was committed here",
            );
            return Err(why);
        }
        if self.planted.has(Bug::SessionsNotInSnapshot) {
            self.fold.sessions = self.fold.sessions.cleared();
        }
        while !storing.encoded.is_whole() || !storing.piece.is_empty() {
            if storing.piece.is_empty() {
                self.fold
                    .encode_piece(&mut storing.encoded, PIECE_BYTES, &mut storing.piece);
            }
            match snapshots.receive(storing.offset, &storing.piece) {
                Ok(()) => {
                    storing.offset += storing.piece.len() as u64;
                    storing.piece.clear();
                }
                // Again when the disk has taken some.
                Err(Refused::Busy) => return Ok(()),
                Err(_) => {
                    self.try_later(snapshots, now, NOT_TAKEN);
                    return Ok(());
                }
            }
        }
        storing.finished = true;
        if snapshots.finish().is_err() {
            self.try_later(snapshots, now, NOT_TAKEN);
        }
        Ok(())
    }

    /// A snapshot is on disk, whole: the operation at which it is and how long that took, where it was taken here.
    pub(super) fn saved(&mut self, index: LogIndex, now: Time) -> Option<(OperationIndex, Duration)> {
        let State::Storing(storing) = &self.state else {
            return None;
        };
        if storing.at.index != index || !storing.finished {
            return None;
        }
        let taken = (storing.contents.place.index, now - storing.began);
        self.state = State::Idle;
        Some(taken)
    }

    /// The stream to the replicator ended: what did not come will not.
    pub(super) fn stream_closed(&mut self, snapshots: &mut Snapshots) {
        let waits = match &self.state {
            State::Idle => false,
            State::Ordered(_) => true,
            State::Storing(storing) => storing.state_received < storing.contents.state_bytes,
        };
        if waits {
            self.give_up(snapshots);
        }
        self.refuse_all("the replicator went away");
    }

    /// A snapshot comes in from elsewhere, in the place of one that was on its way to disk.
    pub(super) fn displaced(&mut self) {
        self.state = State::Idle;
    }

    /// The log begins behind a snapshot from elsewhere, up to which it adds up to that fold.
    pub(super) fn start_from(&mut self, fold: Fold, folded: LogIndex) {
        self.fold = fold;
        self.folded = folded;
        self.reading_from = None;
    }

    fn try_later(&mut self, snapshots: &mut Snapshots, now: Time, why: &'static str) {
        self.give_up(snapshots);
        self.not_before = Some(now + RETRY);
        self.refuse_all(why);
    }

    fn refuse_all(&mut self, why: &'static str) {
        let all = self.asked.drain(..);
        self.refused
            .extend(all.map(|asked| (asked.id, SnapshotRefusal::Failed(why))));
    }

    /// Whatever is under way is not wanted any more.
    fn give_up(&mut self, snapshots: &mut Snapshots) {
        if let State::Storing(_) = std::mem::replace(&mut self.state, State::Idle) {
            snapshots.abandon();
        }
    }
}
