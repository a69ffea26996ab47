//! The lines that logs have to hold: each a whole one, exactly so, but for its numbers.

use std::collections::BTreeSet;

/// What the test client says. `#` stands for a number.
pub const CLIENT: [&str; 2] = [
    "Client sends RPC SubmitClientRequest to Node Cluster Leader.",
    "[CLIENT] Leader node#:5001 accepted → Operation 'operation-#' committed at index #",
];

/// What the nodes of a cluster say, all together, while it works.
pub const NODES: [&str; 5] = [
    "Node # runs RPC SubmitClientRequest called by a client.",
    "Node # forwards client req to Leader #",
    "Leader Node # sends AppendEntries (Heartbeat) to Node #",
    "Node # runs RPC AppendEntries called by Node #",
    "Node # sends RPC ReplicateLog to Node q4node#",
];

/// What they say, all together, at an election.
pub const ELECTION: [&str; 2] = [
    "Node # sends RPC RequestVote to Node #",
    "Node # runs RPC RequestVote called by Node #",
];

/// What each replicator says.
pub const REPLICATOR: [&str; 3] = [
    "Node # runs RPC ReplicateLog called by Node #",
    "Node #: commitIndex=#, total entries=#",
    "Node # executes op=operation-# at index=#",
];

/// Those of `wanted` that none of `lines` is.
pub fn missing<'a>(wanted: &[&'a str], lines: &BTreeSet<String>) -> Vec<&'a str> {
    wanted
        .iter()
        .copied()
        .filter(|pattern| !lines.iter().any(|line| is(pattern, line)))
        .collect()
}

/// Whether `line` is `pattern` from its beginning to its end.
fn is(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('#');
    let rest = line.strip_prefix(parts.next().unwrap_or_default());
    rest.is_some_and(|rest| {
        parts
            .try_fold(rest, |rest, part| {
                let after = rest.trim_start_matches(|character: char| character.is_ascii_digit());
                (after.len() < rest.len()).then_some(after)?.strip_prefix(part)
            })
            .is_some_and(str::is_empty)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_whole_one_with_numbers_where_they_belong() {
        let pattern = "Node # executes op=operation-# at index=#";
        for (line, expected) in [
            ("Node 2 executes op=operation-10 at index=11", true),
            ("Node 2 executes op=operation-10 at index=11 ", false),
            ("Node 2 executes op=operation-10 at index=", false),
            ("Node  executes op=operation-10 at index=11", false),
            ("> Node 2 executes op=operation-10 at index=11", false),
            ("Node 2 executes", false),
        ] {
            assert_eq!(is(pattern, line), expected, "{line}");
        }
        let client = "Client sends RPC SubmitClientRequest to Node Cluster Leader.";
        assert!(is(client, client) && !is(client, "Client"));
    }

    #[test]
    fn what_nobody_said_is_told() {
        let said = BTreeSet::from(["Node 1: commitIndex=1, total entries=1".to_owned()]);
        assert_eq!(missing(&REPLICATOR, &said), [REPLICATOR[0], REPLICATOR[2]]);
    }
}
