//! How far the operations of a demo have come, by what its processes say: pure.

use std::collections::BTreeMap;

use super::plan::Role;

/// Follows what the client was told, and what every replicator has executed.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// How many operations are to be executed by all.
    wanted: Option<u64>,
    accepted: u64,
    /// Highest index that the client was told.
    committed: u64,
    /// Highest index executed, by node number.
    executed: BTreeMap<u16, u64>,
}

impl Progress {
    pub(super) fn new(nodes: u16, wanted: Option<u64>) -> Self {
        Self {
            wanted,
            accepted: 0,
            committed: 0,
            executed: (1..=nodes).map(|node| (node, 0)).collect(),
        }
    }

    /// Takes in a line of a process.
    pub(super) fn observe(&mut self, role: Role, line: &str) {
        match role {
            Role::Client => {
                if let Some(index) = committed_index(line) {
                    self.accepted += 1;
                    self.committed = self.committed.max(index);
                }
            }
            Role::Replicator(node) => {
                if let (Some(index), Some(executed)) = (executed_index(line), self.executed.get_mut(&node)) {
                    *executed = index.max(*executed);
                }
            }
            Role::Node => {}
        }
    }

    /// Whether all operations that were wanted are executed on all replicators.
    pub(super) fn is_done(&self) -> bool {
        self.are_accepted() && self.executed.values().all(|&index| index >= self.committed)
    }

    /// Whether the client has submitted all that were wanted, so that it may end.
    pub(super) fn are_accepted(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.accepted >= wanted)
    }
}

fn committed_index(line: &str) -> Option<u64> {
    line.strip_prefix("[CLIENT] ")?
        .rsplit_once(" committed at index ")?
        .1
        .parse()
        .ok()
}

fn executed_index(line: &str) -> Option<u64> {
    let rest = line
        .strip_prefix("Node ")?
        .trim_start_matches(|letter: char| letter.is_ascii_digit());
    rest.strip_prefix(" executes op=")?
        .rsplit_once(" at index=")?
        .1
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(index: u64) -> String {
        format!(
            "[CLIENT] Leader node1:5001 accepted → Operation 'operation-{index}' committed at index {index}"
        )
    }

    fn executes(node: u16, index: u64) -> (Role, String) {
        (
            Role::Replicator(node),
            format!("Node {node} executes op=operation-{index} at index={index}"),
        )
    }

    #[test]
    fn done_once_all_replicators_have_executed_what_was_accepted() {
        let mut progress = Progress::new(2, Some(2));
        let steps = [
            (Role::Client, accepted(1), false),
            (executes(1, 1).0, executes(1, 1).1, false),
            (executes(2, 1).0, executes(2, 1).1, false),
            (executes(1, 2).0, executes(1, 2).1, false),
            (Role::Client, accepted(2), false),
            (executes(2, 2).0, executes(2, 2).1, true),
        ];
        for (role, line, done) in steps {
            progress.observe(role, &line);
            assert_eq!(progress.is_done(), done, "after {line}");
        }
    }

    #[test]
    fn without_a_number_it_goes_on() {
        let mut progress = Progress::new(1, None);
        progress.observe(Role::Client, &accepted(1));
        progress.observe(Role::Replicator(1), &executes(1, 1).1);
        assert!(!progress.is_done() && !progress.are_accepted());
    }

    #[test]
    fn only_what_the_right_process_says_at_the_right_place_counts() {
        for (role, line) in [
            (Role::Node, "Node 1 executes op=x at index=1"),
            (Role::Client, "Node 1 executes op=x at index=1"),
            (Role::Replicator(1), "Node 1: commitIndex=1, total entries=1"),
            (Role::Replicator(1), "Node 1 executes op=x at index=y"),
            (Role::Replicator(7), "Node 7 executes op=x at index=1"),
        ] {
            let mut progress = Progress::new(1, Some(1));
            progress.observe(Role::Client, &accepted(1));
            progress.observe(role, line);
            assert!(!progress.is_done(), "{line}");
        }
        let mut progress = Progress::new(1, Some(1));
        progress.observe(Role::Client, &accepted(1));
        progress.observe(Role::Replicator(1), "Node 1 executes op=a at index=9 at index=1");
        assert!(progress.is_done());
        assert_eq!(progress.executed[&1], 1);
    }
}
