//! A snapshot in the place of the log: what a node sends whose own log begins after what this replicator needs (design 6.5).
//!
//! Until the snapshot is on disk as a whole, what was here before stands. It becomes durable in one write, which drops
//! what is not committed and says that the log begins, and everything is executed, at the snapshot's place; only when that is
//! on disk does the log drop its segments. A start that finds the write and not the drop does the latter again.
//!
//! The state of an executor that has one is passed on as it comes, and the write waits until the executor holds it for good. A crash in
//! between leaves an executor that is ahead of this replicator, which it tells when it comes back. An executor that has lost its
//! state is given a snapshot though the log here goes beyond: then the log stays, and execution goes back.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use raftlog_storage::{Append, Ticket};

use super::attachment::Attachment;
use super::durable::Durable;
use super::effect::{Effect, Notice, Refusal};
use super::event::StreamId;
use super::executor_state::STATE_HEADER_BYTES;
use super::held::Held;
use super::incoming::{Incoming, Target};
use super::operation::Place;
use super::replicator::{Phase, Replicator};

/// Of a snapshot, so many bytes may be on their way to the executor.
const UNTAKEN_BYTES_MAX: usize = 2 << 20;

/// A snapshot on its way to the disk.
#[derive(Debug)]
pub(super) struct Installing {
    stream: StreamId,
    place: Place,
    ticket: Ticket,
}

impl Replicator {
    fn incoming(&self) -> Option<&Incoming> {
        self.stream.as_ref()?.incoming.as_ref()
    }

    fn incoming_mut(&mut self) -> Option<&mut Incoming> {
        self.stream.as_mut()?.incoming.as_mut()
    }

    /// A snapshot is on its way to the executor, or complete and on its way to replace what is here: nothing more is executed or
    /// written before.
    pub(super) fn is_restoring(&self) -> bool {
        let is_taken =
            |incoming: &Incoming| incoming.complete || matches!(incoming.state, Target::Executor { .. });
        self.installing.is_some() || self.incoming().is_some_and(is_taken)
    }

    /// Whether a piece of a snapshot could be passed on now, if one came.
    pub(super) fn takes_restore(&self) -> bool {
        let Some(incoming) = self.incoming() else {
            return true;
        };
        match incoming.state {
            _ if incoming.complete => false,
            Target::Undecided => !matches!(self.attachment, Attachment::Away | Attachment::Unchecked(_)),
            Target::Executor { untaken, .. } => untaken < UNTAKEN_BYTES_MAX,
            Target::Header(_) | Target::Nowhere => true,
        }
    }

    pub(super) fn restore_piece(&mut self, id: StreamId, offset: u64, data: Bytes) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.id == id) else {
            return;
        };
        let node = stream.node;
        let taken = match &mut stream.incoming {
            Some(incoming) => incoming.count(offset, data.len()),
            None => Err("it sent a piece of a snapshot that it did not announce".to_owned()),
        };
        if let Err(what) = taken.and_then(|()| self.pass_on(data)) {
            self.refuse_stream(Refusal::Protocol { node, what });
        }
    }

    fn pass_on(&mut self, mut data: Bytes) -> Result<(), String> {
        let executor = self.config.executor;
        if self.incoming().is_some_and(|it| it.state == Target::Undecided) {
            let checked = executor.check_header(&data);
            if let (Err(why), Some(incoming)) = (checked, self.incoming()) {
                return Err(incoming.problem(&why));
            }
            data.advance(STATE_HEADER_BYTES);
            self.decide_target();
        }
        let Some(incoming) = self.incoming_mut() else {
            return Ok(());
        };
        match &mut incoming.state {
            Target::Header(header) => {
                header.extend_from_slice(&data);
                if incoming.is_whole() {
                    let Target::Header(header) = &incoming.state else {
                        return Ok(());
                    };
                    executor
                        .check_empty_state(header)
                        .map_err(|why| incoming.problem(&why))?;
                    incoming.complete = true;
                }
            }
            Target::Executor { untaken, .. } => {
                *untaken += data.len();
                if !data.is_empty() {
                    self.effects.push(Effect::RestorePiece(data));
                }
            }
            Target::Undecided | Target::Nowhere => incoming.complete = incoming.is_whole(),
        }
        Ok(())
    }

    /// An executor that has all that the snapshot has keeps what it has.
    fn decide_target(&mut self) {
        let applied = match self.attachment {
            Attachment::Adopting(applied) => Some(applied),
            Attachment::Agreed => Some(self.execution.executed().index),
            Attachment::Away | Attachment::Unchecked(_) | Attachment::NeedsState(_) => None,
        };
        let (restore, cluster) = (self.next_restore, self.cluster);
        let Some(incoming) = self.incoming_mut() else {
            return;
        };
        if applied.is_some_and(|applied| applied >= incoming.place.index) {
            incoming.state = Target::Nowhere;
            return;
        }
        incoming.state = Target::Executor { restore, untaken: 0 };
        let begin = Effect::RestoreBegin {
            restore,
            place: incoming.place,
            cluster,
            bytes: incoming.state_bytes(),
        };
        self.next_restore += 1;
        self.effects.push(begin);
        // What it was given it will not need, and what it has done will not count.
        self.executor_detached();
    }

    /// The executor has taken some of the state.
    pub(super) fn restore_taken(&mut self, id: u64, bytes: usize) {
        if let Some(Target::Executor { restore, untaken }) = self.incoming_mut().map(|it| &mut it.state)
            && *restore == id
        {
            *untaken = untaken.saturating_sub(bytes);
        }
    }

    /// The executor holds the snapshot's state for good, or why it does not.
    pub(super) fn restored(&mut self, id: u64, result: Result<(), String>) {
        let Some(incoming) = self.incoming_mut() else {
            return;
        };
        if !matches!(incoming.state, Target::Executor { restore, .. } if restore == id) {
            return;
        }
        match result {
            Ok(()) if incoming.is_whole() => incoming.complete = true,
            Ok(()) => self.end_restore("it says that it has taken what was not sent yet".to_owned()),
            Err(why) => self.end_restore(why),
        }
    }

    pub(super) fn end_restore(&mut self, why: String) {
        if let Some(stream) = self.take_stream() {
            let refusal = Refusal::NotRestored { why };
            self.notice(Notice::Refused(refusal.clone()));
            self.effects.push(Effect::Close(stream.id, refusal));
        }
    }

    /// Tells the executor that no more of a snapshot will come.
    pub(super) fn abort_restore(&mut self, incoming: Option<&Incoming>) {
        if let Some(Incoming {
            state: Target::Executor { restore, .. },
            complete: false,
            ..
        }) = incoming
        {
            self.effects.push(Effect::RestoreAbort(*restore));
        }
    }

    /// A complete snapshot waits until the executor has done what it has.
    pub(super) fn snapshot_waits_for_executor(&self) -> bool {
        self.incoming().is_some_and(|incoming| incoming.complete) && !self.execution.is_quiet()
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
        if incoming.place.index <= self.commit.index {
            return self.restored_behind_the_log(&incoming);
        }
        let (stream, place) = (stream.id, incoming.place);
        self.cut(self.commit.index + 1);
        let state = Durable {
            base: place,
            commit: place,
            executed: place,
            ages: Arc::default(),
            mark: self.mark().map(|_| place),
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

    /// The executor has what it lacked; the log here, which goes beyond, stays.
    fn restored_behind_the_log(&mut self, incoming: &Incoming) {
        if let Target::Executor { .. } = incoming.state {
            self.execution.go_on_after(incoming.place);
            self.notice(Notice::Restored {
                node: self.config.node,
                index: incoming.place.index,
            });
        }
        let position = self.position();
        if let Some(stream) = &mut self.stream {
            stream.agreed = None;
            self.effects.push(Effect::Position(stream.id, position));
        }
    }

    /// Everything up to `ticket` is on disk: perhaps the snapshot, too.
    pub(super) fn installed(&mut self, ticket: Ticket) {
        let Some(Installing { stream, place, .. }) = self.installing.take_if(|it| it.ticket <= ticket) else {
            return;
        };
        self.compaction.ages.begin_anew();
        let state = Durable {
            base: place,
            commit: place,
            executed: place,
            mark: self.mark().map(|_| place),
            ..self.durable()
        };
        self.held = Held::at(place);
        (self.commit, self.base) = (place, place);
        self.execution.go_on_after(place);
        self.leadership.restored(place);
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
