//! What is applied, and where a state stands after it.

use bytes::Bytes;

/// Where a state stands: of which cluster it is, and up to which operation. Store it with the state, in the same transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last operation that is in the state; 0 in an empty state.
    pub applied_index: u64,
    /// The cluster whose operations they are; 0 in an empty state.
    pub cluster_id: u64,
}

/// A committed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// 1, 2, 3, ... without gaps.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// What a client submitted, 1 byte to 1 MiB.
    pub data: Bytes,
}

/// Consecutive operations, to be applied together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    position: Position,
    operations: Vec<Operation>,
}

impl Batch {
    /// Operations of one term that follow a position, for tests of a state machine.
    ///
    /// # Panics
    /// Where there are no indexes left.
    pub fn following<D: Into<Bytes>>(
        position: Position,
        term: u64,
        data: impl IntoIterator<Item = D>,
    ) -> Self {
        let mut batch = Self::empty(position);
        for data in data {
            let index = batch.position.applied_index.checked_add(1);
            batch.push(Operation {
                index: index.expect("no cluster has so many operations"),
                term,
                data: data.into(),
            });
        }
        batch
    }

    /// Nothing, after a position.
    pub(crate) fn empty(position: Position) -> Self {
        Self {
            position,
            operations: vec![],
        }
    }

    /// One more, that follows the last one.
    pub(crate) fn push(&mut self, operation: Operation) {
        self.position.applied_index = operation.index;
        self.operations.push(operation);
    }

    /// Only those before an index.
    pub(crate) fn cut_at(&mut self, index: u64) {
        self.operations.retain(|operation| operation.index < index);
        self.position.applied_index = index.saturating_sub(1);
    }

    /// Where the state stands once all of them are applied: what to store, in the same transaction.
    pub fn position(&self) -> Position {
        self.position
    }

    /// In order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Operation> {
        self.operations.iter()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Operation;
    type IntoIter = std::slice::Iter<'a, Operation>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_is_that_of_the_last_operation() {
        let start = Position {
            applied_index: 4,
            cluster_id: 9,
        };
        let mut batch = Batch::following(start, 2, ["a", "b", "c"]);
        let indexes: Vec<u64> = batch.into_iter().map(|operation| operation.index).collect();
        assert_eq!(indexes, [5, 6, 7]);
        assert_eq!(
            batch.position(),
            Position {
                applied_index: 7,
                ..start
            }
        );
        batch.cut_at(6);
        assert_eq!(batch, Batch::following(start, 2, ["a"]));
        assert_eq!(Batch::following(start, 2, Vec::<Bytes>::new()).position(), start);
    }
}
