//! Requests from clients, as far as they are decisions: which operations, and when a read is linearizable.

use bytes::Bytes;
use raftlog_raft::ids::OperationIndex;

use super::attachment::ADOPTION_READ;
use super::compaction::COMPACTION_READ;
use super::effect::{Busy, Effect, FetchError, ReadIndexError, Refusal};
use super::event::{FetchId, ReadIndexId, StreamId};
use super::execution::EXECUTION_READ;
use super::leadership::MARK_READ;
use super::operation::Operation;
use super::replicator::{ReadIndexState, Replicator, fitting};

impl Replicator {
    pub(super) fn fetch(&mut self, id: FetchId, from: OperationIndex, to: OperationIndex, bytes_max: usize) {
        let last = to.min(self.commit.index);
        let first = self.first_index();
        if from == 0 || from > last {
            return self.fetched(id, Ok(Vec::new()));
        }
        if from < first {
            return self.fetched(id, Err(FetchError::Compacted { first }));
        }
        let in_memory = last.min(from.saturating_add(self.config.executing_operations_max as u64));
        let run = self
            .held
            .range(from, in_memory)
            .map(|operations| fitting(operations, bytes_max));
        if let Some(run) = run {
            return self.fetched(id, Ok(run));
        }
        if self.fetches.len() >= self.config.fetches_max {
            return self.fetched(id, Err(FetchError::Busy(Busy(self.fetches.len()))));
        }
        let read = self.next_read;
        self.next_read += 1;
        self.fetches.insert(read, id);
        let last = last.min(self.held.recent_from() - 1);
        if let Some(records) = self.wal.read(read, from, last, bytes_max) {
            self.read_back(read, records);
        }
    }

    /// The log was read back. Only committed operations are, so nothing can have replaced them since; but they may have been
    /// dropped.
    pub(super) fn read_back(&mut self, read: u64, records: Vec<Operation>) {
        match read {
            EXECUTION_READ => self.execute_read_back(records),
            ADOPTION_READ => self.adoption_read_back(&records),
            MARK_READ => self.mark_read_back(&records),
            COMPACTION_READ => self.base_read_back(&records),
            _ => {
                let Some(id) = self.fetches.remove(&read) else {
                    return;
                };
                let first = self.first_index();
                let result = if records.is_empty() {
                    Err(FetchError::Compacted { first })
                } else {
                    Ok(records)
                };
                self.fetched(id, result);
            }
        }
    }

    fn fetched(&mut self, id: FetchId, result: Result<Vec<Operation>, FetchError>) {
        self.effects.push(Effect::Fetched {
            id,
            result,
            commit: self.commit.index,
        });
    }

    /// The node asks the executor only once it has been told that enough is executed here: so there is nothing to wait for.
    pub(super) fn query(&mut self, stream: StreamId, id: u64, query: Bytes) {
        let Some(open) = self.stream.as_ref().filter(|open| open.id == stream) else {
            return;
        };
        if open.agreed.is_none() {
            let (node, what) = (
                open.node,
                "it sent a query before it said how to start".to_owned(),
            );
            return self.refuse_stream(Refusal::Protocol { node, what });
        }
        self.effects.push(Effect::Query {
            stream,
            id,
            executed: self.execution.executed(),
            query,
        });
    }

    pub(super) fn ask_read_index(&mut self, id: ReadIndexId) {
        if self.read_indexes.len() >= self.config.read_indexes_max {
            let busy = ReadIndexError::Busy(Busy(self.read_indexes.len()));
            return self.effects.push(Effect::ReadIndexReady(id, Err(busy)));
        }
        match self.stream.as_ref().filter(|stream| stream.agreed.is_some()) {
            None => self
                .effects
                .push(Effect::ReadIndexReady(id, Err(ReadIndexError::NoLeader))),
            Some(stream) => {
                self.effects.push(Effect::AskReadIndex(stream.id, id));
                self.read_indexes.insert(id, ReadIndexState::Asked(stream.id));
            }
        }
    }

    pub(super) fn read_index_answered(
        &mut self,
        stream: StreamId,
        id: ReadIndexId,
        index: Option<OperationIndex>,
    ) {
        if self.read_indexes.get(&id) != Some(&ReadIndexState::Asked(stream)) {
            return;
        }
        match index {
            None => {
                self.read_indexes.remove(&id);
                self.effects
                    .push(Effect::ReadIndexReady(id, Err(ReadIndexError::NoLeader)));
            }
            Some(index) => {
                self.read_indexes.insert(id, ReadIndexState::Until(index));
                self.answer_read_indexes();
            }
        }
    }

    /// Answers the reads whose index is committed here by now.
    pub(super) fn answer_read_indexes(&mut self) {
        let commit = self.commit.index;
        let effects = &mut self.effects;
        self.read_indexes.retain(|id, state| match state {
            ReadIndexState::Until(index) if *index <= commit => {
                effects.push(Effect::ReadIndexReady(*id, Ok(*index)));
                false
            }
            _ => true,
        });
    }

    /// Refuses the reads that wait for an answer on a stream that is gone.
    pub(super) fn refuse_read_indexes(&mut self, stream: StreamId) {
        let effects = &mut self.effects;
        self.read_indexes.retain(|id, state| {
            let gone = *state == ReadIndexState::Asked(stream);
            if gone {
                effects.push(Effect::ReadIndexReady(*id, Err(ReadIndexError::NoLeader)));
            }
            !gone
        });
    }
}
