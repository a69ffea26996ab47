//! What was appended and is not on disk yet.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::format::{RECORD_HEAD, put_record, put_state, put_truncate};
use crate::options::{RECORD_BYTES_MAX, STATE_BYTES_MAX};
use crate::record::Record;
use crate::wal::{Append, Ticket};

/// What an encoded item does to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    State,
    Truncate(u64),
    Record(u64),
}

/// An item in its form on disk.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub(crate) change: Change,
    pub(crate) bytes: Bytes,
}

/// Items for one batch.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) items: Vec<Encoded>,
    /// Every append up to this one is in this batch or an earlier one.
    pub(crate) done: Option<Ticket>,
    /// Records of the batch are those up to this number; see [`Queue::persisted`].
    pub(crate) through: u64,
}

/// One append, or the part of it that is not in a batch yet.
#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    items: VecDeque<Encoded>,
    bytes: usize,
}

/// A record that is not on disk yet, for readers.
#[derive(Debug)]
struct Live {
    index: u64,
    /// Records are numbered in the order of appends, which truncations do not change.
    number: u64,
    body: Bytes,
}

/// Appends in order, and the records in them by index.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    flight_bytes: usize,
    /// Ascending in both index and number.
    live: VecDeque<Live>,
    /// Number of the newest record.
    newest: u64,
    /// Number of the newest record that is in a batch.
    batched: u64,
}

impl Queue {
    pub(crate) fn push<R: Record>(&mut self, ticket: Ticket, append: &Append<R>) {
        let mut buffer = Vec::new();
        let mut ends = Vec::with_capacity(append.records.len() + 2);
        if let Some(from) = append.truncate_from {
            put_truncate(from, &mut buffer);
            ends.push((Change::Truncate(from), buffer.len()));
        }
        for record in &append.records {
            let length = put_record(record.index(), &mut buffer, |out| record.encode(out));
            assert!(
                length <= RECORD_BYTES_MAX,
                "a record has at most {RECORD_BYTES_MAX} bytes"
            );
            ends.push((Change::Record(record.index()), buffer.len()));
        }
        if let Some(state) = &append.state {
            assert!(
                state.len() <= STATE_BYTES_MAX,
                "a state has at most {STATE_BYTES_MAX} bytes"
            );
            put_state(state, &mut buffer);
            ends.push((Change::State, buffer.len()));
        }
        let buffer = Bytes::from(buffer);
        let mut start = 0;
        let items = ends.into_iter().map(|(change, end)| {
            let bytes = buffer.slice(start..end);
            start = end;
            Encoded { change, bytes }
        });
        let items: VecDeque<Encoded> = items.collect();
        for item in &items {
            self.note(item);
        }
        self.waiting_bytes += buffer.len();
        self.waiting.push_back(Waiting {
            ticket,
            items,
            bytes: buffer.len(),
        });
    }

    fn note(&mut self, item: &Encoded) {
        match item.change {
            Change::State => {}
            Change::Truncate(from) => while self.live.pop_back_if(|live| live.index >= from).is_some() {},
            Change::Record(index) => {
                self.newest += 1;
                let body = item.bytes.slice(RECORD_HEAD..);
                self.live.push_back(Live {
                    index,
                    number: self.newest,
                    body,
                });
            }
        }
    }

    /// Payload bytes that the next batch has at least, of at most `batch_bytes`; `None` if nothing waits.
    pub(crate) fn first_bytes(&self, batch_bytes: usize) -> Option<usize> {
        let first = self.waiting.front()?;
        if first.bytes <= batch_bytes {
            return Some(first.bytes);
        }
        let mut bytes = 0;
        for item in &first.items {
            if bytes + item.bytes.len() > batch_bytes {
                break;
            }
            bytes += item.bytes.len();
        }
        Some(bytes)
    }

    /// Takes what fits into a batch with that much room: whole appends, or a part of one that is longer than
    /// `batch_bytes`. There must be room for [`Queue::first_bytes`].
    pub(crate) fn take(&mut self, room: usize, batch_bytes: usize) -> Taken {
        let room = room.min(batch_bytes);
        let mut taken = Taken::default();
        let mut bytes = 0;
        while let Some(first) = self.waiting.front_mut() {
            if bytes + first.bytes <= room {
                bytes += first.bytes;
                taken.done = Some(first.ticket);
                taken.items.extend(first.items.drain(..));
                self.waiting.pop_front();
                continue;
            }
            if first.bytes > batch_bytes && bytes == 0 {
                while let Some(item) = first.items.pop_front_if(|item| bytes + item.bytes.len() <= room) {
                    bytes += item.bytes.len();
                    first.bytes -= item.bytes.len();
                    taken.items.push(item);
                }
            }
            break;
        }
        let records = taken
            .items
            .iter()
            .filter(|item| matches!(item.change, Change::Record(_)))
            .count();
        self.batched += records as u64;
        taken.through = self.batched;
        self.waiting_bytes -= bytes;
        self.flight_bytes = bytes;
        taken
    }

    /// The batch with records up to that number is on disk.
    pub(crate) fn persisted(&mut self, through: u64) {
        while self.live.pop_front_if(|live| live.number <= through).is_some() {}
        self.flight_bytes = 0;
    }

    /// Index of the first record that is not on disk yet.
    pub(crate) fn first_live(&self) -> Option<u64> {
        self.live.front().map(|live| live.index)
    }

    /// Forms of the records from `first` to `last`, of which at least the first must be here, up to `max_bytes` or one.
    pub(crate) fn bodies(&self, first: u64, last: u64, max_bytes: usize) -> Vec<Bytes> {
        let start = self.live.partition_point(|live| live.index < first);
        let mut bytes = 0;
        let mut bodies = Vec::new();
        for live in self.live.range(start..).take_while(|live| live.index <= last) {
            if !bodies.is_empty() && bytes + live.body.len() > max_bytes {
                break;
            }
            bytes += live.body.len();
            bodies.push(live.body.clone());
        }
        bodies
    }

    /// Bytes that wait or are in flight.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting_bytes + self.flight_bytes
    }

    /// Whether nothing waits for a batch.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
