//! A user's program with a state of its own beside a replicator, as `node/state-machine/examples/key-value` is one: registers that
//! operations write, stored together with the index of the last one.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use raftlog_raft::ids::{ClusterId, OperationIndex};
use raftlog_raft::time::Time;

/// Registers that there are.
pub(crate) const REGISTERS: u8 = 4;

/// What such a program stores, in one transaction with each operation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// The last operation that is in it.
    pub(crate) applied: OperationIndex,
    /// The operation that wrote each register last.
    registers: BTreeMap<u8, OperationIndex>,
    /// Of all operations, in their order.
    hash: u64,
}

impl State {
    /// With one more operation in it.
    pub(crate) fn apply(&mut self, index: OperationIndex, data: &[u8]) {
        let mut hasher = DefaultHasher::new();
        (self.hash, index, data).hash(&mut hasher);
        self.hash = hasher.finish();
        self.registers.insert(register_of(data), index);
        self.applied = index;
    }

    /// What was written to a register last; 0 if nothing was.
    pub(crate) fn register(&self, register: u8) -> OperationIndex {
        self.registers.get(&register).copied().unwrap_or(0)
    }

    /// As a snapshot holds it.
    pub(crate) fn encode(&self) -> Bytes {
        let registers = self
            .registers
            .iter()
            .flat_map(|(&register, &index)| [u64::from(register), index]);
        [self.applied, self.hash]
            .into_iter()
            .chain(registers)
            .flat_map(u64::to_le_bytes)
            .collect()
    }

    /// Out of a snapshot; nothing else than what was encoded is decoded.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut numbers = bytes
            .chunks(8)
            .map(|chunk| chunk.try_into().ok().map(u64::from_le_bytes));
        let mut state = Self {
            applied: numbers.next()??,
            hash: numbers.next()??,
            registers: BTreeMap::new(),
        };
        while let Some(register) = numbers.next() {
            state
                .registers
                .insert(u8::try_from(register?).ok()?, numbers.next()??);
        }
        Some(state)
    }
}

/// Which register an operation writes.
pub(crate) fn register_of(data: &[u8]) -> u8 {
    data.last().map_or(0, |byte| byte % REGISTERS)
}

/// The program, and what its replicator's driver has for it.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// What would survive a crash.
    pub(crate) state: State,
    /// Stored with it.
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) link: Link,
    /// Counts connections: what was under way on an earlier one is void.
    pub(crate) epoch: u64,
    /// It does not run until then.
    pub(crate) down_until: Time,
    /// A copy is wanted of the state as of that operation, the last one that was sent when it was asked for.
    pub(crate) copy_wanted: Option<OperationIndex>,
    /// What is being copied.
    pub(crate) copying: Option<Bytes>,
    /// What was copied last: with the driver.
    pub(crate) spool: Bytes,
}

/// How driver and program are connected.
#[derive(Debug, Default)]
pub(crate) enum Link {
    #[default]
    Away,
    /// By Apply.
    Attached,
    /// By Restore.
    Restoring(Restoring),
}

/// A snapshot that comes.
#[derive(Debug)]
pub(crate) struct Restoring {
    pub(crate) restore: u64,
    pub(crate) place: OperationIndex,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) bytes: u64,
    /// On their way.
    pub(crate) pieces: VecDeque<Bytes>,
    pub(crate) taken: Vec<u8>,
}

impl Restoring {
    pub(crate) fn is_whole(&self) -> bool {
        self.taken.len() as u64 == self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_decoded_as_it_was_encoded() {
        let mut state = State::default();
        assert_eq!(State::decode(&state.encode()).as_ref(), Some(&state));
        for (index, data) in [(1, "a"), (2, "b"), (3, "a")] {
            state.apply(index, data.as_bytes());
            assert_eq!(State::decode(&state.encode()).as_ref(), Some(&state));
        }
        assert_eq!(
            (
                state.register(register_of(b"a")),
                state.register(register_of(b"b"))
            ),
            (3, 2)
        );
        let bytes = state.encode();
        assert_eq!(State::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(State::decode(&bytes[..8]), None);
    }

    #[test]
    fn states_differ_where_operations_came_in_another_order_or_twice() {
        let after = |operations: &[&str]| {
            let mut state = State::default();
            for (index, data) in (1..).zip(operations) {
                state.apply(index, data.as_bytes());
            }
            state
        };
        assert_eq!(after(&["a", "b"]), after(&["a", "b"]));
        assert_ne!(after(&["a", "b"]), after(&["b", "a"]));
        assert_ne!(after(&["a", "a"]), after(&["a"]));
    }
}
