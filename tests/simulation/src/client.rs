//! The simulated client: one operation after the other under one session, tried at any node until it is acknowledged.

use std::collections::BTreeMap;

use raftlog_raft::entry::{Operation, SessionStamp};
use raftlog_raft::ids::OperationIndex;

/// A client.
#[derive(Debug)]
pub struct Client {
    sequence: u64,
    attempt: u64,
    /// The sequence that each attempt was for.
    attempts: BTreeMap<u64, u64>,
    acknowledged: Vec<(OperationIndex, String)>,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            sequence: 1,
            attempt: 0,
            attempts: BTreeMap::new(),
            acknowledged: Vec::new(),
        }
    }

    /// Operations that were acknowledged, with the index that each was told, in the order of submission.
    pub fn acknowledged(&self) -> &[(OperationIndex, String)] {
        &self.acknowledged
    }

    pub(crate) fn attempt(&self) -> u64 {
        self.attempt
    }

    pub(crate) fn next_attempt(&mut self) -> u64 {
        self.attempt += 1;
        self.attempts.insert(self.attempt, self.sequence);
        self.attempt
    }

    pub(crate) fn operation(&self) -> Operation {
        let session = SessionStamp {
            client_id: "client".into(),
            sequence: self.sequence,
            acknowledged_through: self.sequence - 1,
        };
        Operation {
            data: self.text().into(),
            session: Some(session),
        }
    }

    fn text(&self) -> String {
        format!("operation-{}", self.sequence)
    }

    /// An attempt was answered with that index; whether that was news. Panics if the same operation was answered with
    /// another index before.
    pub(crate) fn acknowledge(&mut self, attempt: u64, index: OperationIndex) -> bool {
        let sequence = self.attempts[&attempt];
        if sequence < self.sequence {
            let before = usize::try_from(sequence - 1)
                .ok()
                .and_then(|at| self.acknowledged.get(at));
            assert_eq!(
                before.map(|(index, _)| *index),
                Some(index),
                "operation {sequence} got two indexes"
            );
            return false;
        }
        self.acknowledged.push((index, self.text()));
        self.sequence += 1;
        true
    }
}
