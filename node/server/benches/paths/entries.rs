//! What all paths are taken with.

use std::sync::Arc;

use bytes::Bytes;
use raftlog_raft::entry::{Entry, Operation, Payload, SessionStamp};
use raftlog_raft::fold::Fold;
use raftlog_raft::ids::{LogIndex, MemberId, Term};
use raftlog_raft::log::Log;
use raftlog_raft::membership::{Configuration, Member};
use raftlog_raft::message::LogPosition;

const OPERATION_BYTES: usize = 256;

/// The term of all that is appended.
pub(super) const TERM: Term = 1;
/// The leader of that term.
pub(super) const LEADER: u64 = 1;

pub(super) fn id(number: u64) -> MemberId {
    MemberId::new(number).expect("members are numbered from 1 on")
}

/// Five voters.
pub(super) fn configuration() -> Configuration {
    let member = |number: u32| Member {
        id: id(number.into()),
        node: number,
        peer_address: format!("node{number}:5001"),
        client_address: format!("node{number}:5001"),
        voter: true,
    };
    Configuration::new(0, (1..=5).map(member).collect())
}

/// An empty log with the bounds of the programs.
pub(super) fn empty_log() -> Log {
    Log::new(Fold::new(configuration()), 8 << 20)
}

/// Operations of one session, each of which acknowledges all before it.
#[derive(Debug)]
pub(super) struct Operations {
    data: Bytes,
    client_id: Arc<str>,
    sequence: u64,
}

impl Operations {
    pub(super) fn new() -> Self {
        Self {
            data: Bytes::from(vec![b'x'; OPERATION_BYTES]),
            client_id: "0000000000000001-0000000000000001".into(),
            sequence: 0,
        }
    }

    pub(super) fn next(&mut self) -> Operation {
        self.sequence += 1;
        Operation {
            data: self.data.clone(),
            session: Some(SessionStamp {
                client_id: Arc::clone(&self.client_id),
                sequence: self.sequence,
                acknowledged_through: self.sequence - 1,
            }),
        }
    }
}

/// Entries as a leader makes them: a no-op, and operations behind it.
#[derive(Debug)]
pub(super) struct Entries {
    fold: Fold,
    last: LogIndex,
    operations: Operations,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self {
            fold: Fold::new(configuration()),
            last: 0,
            operations: Operations::new(),
        }
    }

    /// Where the last one is.
    pub(super) fn last(&self) -> LogPosition {
        LogPosition {
            index: self.last,
            term: if self.last == 0 { 0 } else { TERM },
        }
    }

    pub(super) fn next(&mut self) -> Entry {
        let payload = match self.last {
            0 => Payload::Noop,
            _ => Payload::Operation(self.operations.next()),
        };
        self.last += 1;
        let entry = self.fold.next_entry(self.last, TERM, payload);
        self.fold.apply(&entry);
        entry
    }

    pub(super) fn some(&mut self, count: usize) -> Vec<Entry> {
        (0..count).map(|_| self.next()).collect()
    }
}
