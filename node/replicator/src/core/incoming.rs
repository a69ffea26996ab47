//! A snapshot that a node is sending, piece by piece, and where its state goes.

use raftlog_raft::ids::OperationIndex;

use super::executor_state::{ExecutorKind, STATE_HEADER_BYTES};
use super::operation::Place;

/// A snapshot that a node is sending.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) place: Place,
    size: u64,
    received: u64,
    pub(super) state: Target,
    /// All of it is there and was taken.
    pub(super) complete: bool,
}

/// Where the state goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To an executor with a state, if that is not as far anyway.
    Undecided,
    /// It is checked, and that is all: an executor without a state.
    Header(Vec<u8>),
    /// To the executor, which has not taken so many bytes of it yet.
    Executor { restore: u64, untaken: usize },
    /// The executor has all that is in it.
    Nowhere,
}

impl Incoming {
    /// Of an announced snapshot; the error is a phrase.
    pub(super) fn new(place: Place, size: u64, executor: ExecutorKind) -> Result<Self, String> {
        let header = STATE_HEADER_BYTES as u64;
        if size < header || (!executor.has_state() && size > header) {
            return Err(format!(
                "it announces a snapshot of {size} bytes, which is none of executor {executor}"
            ));
        }
        Ok(Self {
            place,
            size,
            received: 0,
            state: if executor.has_state() {
                Target::Undecided
            } else {
                Target::Header(Vec::new())
            },
            complete: false,
        })
    }

    /// Bytes of the executor's own state.
    pub(super) fn state_bytes(&self) -> u64 {
        self.size - STATE_HEADER_BYTES as u64
    }

    pub(super) fn is_whole(&self) -> bool {
        self.received == self.size
    }

    /// Counts the next piece; the error is a phrase.
    pub(super) fn count(&mut self, offset: u64, bytes: usize) -> Result<(), String> {
        let (have, bytes) = (self.received, bytes as u64);
        if bytes == 0 || offset != have || bytes > self.size - have {
            return Err(format!(
                "it sent {bytes} bytes at offset {offset} of a snapshot of {}, of which {have} are here",
                self.size
            ));
        }
        self.received += bytes;
        Ok(())
    }

    /// What is wrong with the state, for people.
    pub(super) fn problem(&self, why: &str) -> String {
        format!(
            "the snapshot's state at index {} is of no use: {why}",
            self.place.index
        )
    }
}

/// Whether a snapshot is of any use here; the error is a phrase.
pub(super) fn check_place(
    place: Place,
    commit: OperationIndex,
    lacks_from: Option<OperationIndex>,
) -> Result<(), String> {
    let index = place.index;
    match lacks_from {
        _ if index > commit => Ok(()),
        // The executor lacks what was before the log's beginning.
        Some(base) if index >= base => Ok(()),
        Some(base) => Err(format!(
            "it restores a snapshot at index {index}, but this replicator's log begins after {base}"
        )),
        None => Err(format!(
            "it restores a snapshot at index {index}, but this replicator has committed {commit}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(index: u64) -> Place {
        Place {
            index,
            ..Place::default()
        }
    }

    #[test]
    fn which_snapshots_are_of_use() {
        for (index, commit, lacks_from, is_useful) in [
            (8, 7, None, true),
            (7, 7, None, false),
            (8, 7, Some(3), true),
            (7, 7, Some(3), true),
            (3, 7, Some(3), true),
            (2, 7, Some(3), false),
        ] {
            assert_eq!(
                check_place(place(index), commit, lacks_from).is_ok(),
                is_useful,
                "{index} {commit} {lacks_from:?}"
            );
        }
    }

    #[test]
    fn pieces_come_in_order_without_gaps_and_not_beyond_the_end() {
        let mut incoming = Incoming::new(place(8), 10, ExecutorKind::StateMachine).unwrap();
        for (offset, bytes, is_taken) in [
            (1, 2, false),
            (0, 0, false),
            (0, 11, false),
            (0, 4, true),
            (0, 4, false),
            (4, 7, false),
            (4, 6, true),
            (10, 1, false),
            (10, 0, false),
        ] {
            assert_eq!(
                incoming.count(offset, bytes).is_ok(),
                is_taken,
                "{offset} {bytes}"
            );
        }
        assert!(incoming.is_whole());
        assert_eq!(incoming.state_bytes(), 8);
    }

    #[test]
    fn sizes_that_no_snapshot_has_are_refused() {
        for (size, executor, is_taken) in [
            (1, ExecutorKind::StateMachine, false),
            (2, ExecutorKind::StateMachine, true),
            (u64::MAX, ExecutorKind::StateMachine, true),
            (1, ExecutorKind::Log, false),
            (2, ExecutorKind::Log, true),
            (3, ExecutorKind::Log, false),
        ] {
            assert_eq!(Incoming::new(place(1), size, executor).is_ok(), is_taken);
        }
    }
}
