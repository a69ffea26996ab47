//! The replicator's lines of the story (design 4.4).

use std::fmt;

use raftlog_raft::ids::{NodeNumber, OperationIndex};

use super::escape::shown;
use crate::core::Operation;

/// The node sent a batch.
pub(super) struct ReplicateLogLine {
    pub(super) node: NodeNumber,
    pub(super) from: NodeNumber,
}

impl fmt::Display for ReplicateLogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Node {} runs RPC ReplicateLog called by Node {}",
            self.node, self.from
        )
    }
}

/// The commit index moved.
pub(super) struct CommitLine {
    pub(super) node: NodeNumber,
    pub(super) commit: OperationIndex,
    pub(super) total: OperationIndex,
}

impl fmt::Display for CommitLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Node {}: commitIndex={}, total entries={}",
            self.node, self.commit, self.total
        )
    }
}

/// An operation is executed: the output of the `log` executor.
pub(super) struct ExecutesLine<'a> {
    pub(super) node: NodeNumber,
    pub(super) operation: &'a Operation,
}

impl fmt::Display for ExecutesLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op, index) = (shown(&self.operation.data), self.operation.index);
        write!(f, "Node {} executes op={op} at index={index}", self.node)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_lines_are_exactly_so() {
        let operation = Operation {
            index: 1,
            term: 1,
            running_hash: 0,
            data: Bytes::from_static(b"operation-1"),
        };
        for (line, expected) in [
            (
                ReplicateLogLine { node: 1, from: 1 }.to_string(),
                "Node 1 runs RPC ReplicateLog called by Node 1",
            ),
            (
                CommitLine {
                    node: 1,
                    commit: 1,
                    total: 1,
                }
                .to_string(),
                "Node 1: commitIndex=1, total entries=1",
            ),
            (
                ExecutesLine {
                    node: 2,
                    operation: &operation,
                }
                .to_string(),
                "Node 2 executes op=operation-1 at index=1",
            ),
        ] {
            assert_eq!(line, expected);
        }
    }
}
