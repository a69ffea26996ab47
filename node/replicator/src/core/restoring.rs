//! A snapshot in the place of the log: what a node sends whose own log begins after what this replicator needs (design 6.5).
//!
//! Until the snapshot is on disk as a whole, what was here before stands. It becomes durable in one write, which drops
//! what is not committed and says that the log begins, and everything is executed, at the snapshot's place; only when that is
//! on disk does the log drop its segments. A start that finds the write and not the drop does the latter again.

use bytes::Bytes;
use raftlog_raft::ids::OperationIndex;
use raftlog_storage::{Append, Ticket};

use super::durable::Durable;
use super::effect::{Effect, Notice, Refusal};
use super::event::StreamId;
use super::execution::Execution;
use super::executor_state::{self, STATE_BYTES_MAX};
use super::held::Held;
use super::operation::Place;
use super::replicator::{Phase, Replicator};

/// A snapshot that a node is sending.
#[derive(Debug)]
pub(super) struct Incoming {
    place: Place,
    size: usize,
    state: Vec<u8>,
    /// All of it is there and was checked.
    complete: bool,
}

/// A snapshot on its way to the disk.
#[derive(Debug)]
pub(super) struct Installing {
    stream: StreamId,
    place: Place,
    ticket: Ticket,
}

impl Incoming {
    /// Refuses what does not replace what is here; the error is a phrase.
    pub(super) fn new(place: Place, size: u64, commit: OperationIndex) -> Result<Self, String> {
        if place.index <= commit {
            return Err(format!(
                "it restores a snapshot at index {}, but this replicator has committed {commit}",
                place.index
            ));
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= STATE_BYTES_MAX);
        let Some(size) = size else {
            return Err(format!(
                "it announces more than the {STATE_BYTES_MAX} bytes that a snapshot of the log executor may have"
            ));
        };
        Ok(Self {
            place,
            size,
            state: Vec::new(),
            complete: false,
        })
    }

    /// The next piece; the error is a phrase.
    fn take(&mut self, offset: u64, data: &[u8]) -> Result<(), String> {
        let have = self.state.len();
        let (fits, follows) = (data.len() <= self.size - have, offset == have as u64);
        if self.complete || !follows || !fits || (data.is_empty() && self.size > 0) {
            return Err(format!(
                "it sent {} bytes at offset {offset} of a snapshot of {}, of which {have} are here",
                data.len(),
                self.size
            ));
        }
        self.state.extend_from_slice(data);
        if self.state.len() == self.size {
            let problem = |why| {
                format!(
                    "the snapshot's state at index {} is of no use: {why}",
                    self.place.index
                )
            };
            executor_state::check(&self.state).map_err(problem)?;
            self.complete = true;
        }
        Ok(())
    }
}

impl Replicator {
    /// A snapshot is complete and on its way to replace what is here: nothing more is executed or written before.
    pub(super) fn is_restoring(&self) -> bool {
        let incoming = self.stream.as_ref().and_then(|stream| stream.incoming.as_ref());
        self.installing.is_some() || incoming.is_some_and(|incoming| incoming.complete)
    }

    pub(super) fn restore_piece(&mut self, id: StreamId, offset: u64, data: &Bytes) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.id == id) else {
            return;
        };
        let node = stream.node;
        let taken = match &mut stream.incoming {
            Some(incoming) => incoming.take(offset, data),
            None => Err("it sent a piece of a snapshot that it did not announce".to_owned()),
        };
        if let Err(what) = taken {
            self.refuse_stream(Refusal::Protocol { node, what });
        }
    }

    /// Hands a complete snapshot to the disk, once the executor has done what it has.
    pub(super) fn install_when_quiet(&mut self) {
        let ready = self.phase == Phase::Running && self.installing.is_none() && self.execution.is_quiet();
        let Some(stream) = self.stream.as_mut().filter(|_| ready) else {
            return;
        };
        let Some(incoming) = stream.incoming.take_if(|incoming| incoming.complete) else {
            return;
        };
        let (stream, place) = (stream.id, incoming.place);
        self.cut(self.commit.index + 1);
        let state = Durable {
            base: place,
            commit: place,
            executed: place,
            ..self.durable()
        };
        // In one write, which is there as a whole or not at all.
        let ticket = self.wal.append(Append {
            truncate_from: self.writing.take_truncation(),
            records: Vec::new(),
            state: Some(state.encode()),
        });
        self.installing = Some(Installing {
            stream,
            place,
            ticket,
        });
    }

    /// Everything up to `ticket` is on disk: perhaps the snapshot, too.
    pub(super) fn installed(&mut self, ticket: Ticket) {
        let Some(Installing { stream, place, .. }) = self.installing.take_if(|it| it.ticket <= ticket) else {
            return;
        };
        let state = Durable {
            base: place,
            commit: place,
            executed: place,
            ..self.durable()
        };
        self.held = Held::at(place);
        (self.commit, self.base) = (place, place);
        self.execution = Execution::new(place);
        self.writing.restored(state);
        self.wal.compact(place.index);
        self.notice(Notice::Restored {
            node: self.config.node,
            index: place.index,
        });
        self.tell_commit();
        self.answer_read_indexes();
        let position = self.position();
        match &mut self.stream {
            Some(open) if open.id == stream => open.agreed = Some(place.index),
            // It was opened meanwhile, and has to be told what is here now.
            Some(open) => self.effects.push(Effect::Position(open.id, position)),
            None => {}
        }
    }
}
