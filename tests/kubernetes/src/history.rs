//! Whether what a client was told is what a cluster holds.

use std::collections::BTreeMap;

/// An operation that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Which client submitted it, of several that submit the same ones in sessions of their own.
    pub client: u32,
    /// The operation: `operation-N`.
    pub operation: String,
    /// The index that the client was told.
    pub index: u64,
    /// The node that led.
    pub leader: u32,
    /// When the client said so, in milliseconds of the Unix epoch.
    pub at_ms: i64,
}

/// All that is wrong with operations that a replicator holds, by index, given what its clients were told, of whom so many submitted
/// each operation once.
pub fn faults(clients: u32, acknowledged: &[Acknowledged], held: &[(u64, String)]) -> Vec<String> {
    let mut at: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (index, operation) in held {
        at.entry(operation).or_default().push(*index);
    }
    let dense = held
        .iter()
        .zip(1..)
        .find(|((index, _), expected)| index != expected);
    let gap = dense.map(|((index, _), expected)| format!("index {expected} is missing: {index} comes next"));
    // What a client was not told of may be there, or not.
    let clients = usize::try_from(clients).unwrap_or(usize::MAX);
    let repeated = at
        .iter()
        .filter(|(operation, indexes)| operation.starts_with("operation-") && indexes.len() > clients)
        .map(|(operation, indexes)| {
            format!("{operation} is there more often than it was submitted, at {indexes:?}")
        });
    let lost = acknowledged.iter().filter_map(|one| {
        let indexes = at.get(one.operation.as_str()).map_or(&[][..], Vec::as_slice);
        (!indexes.contains(&one.index)).then(|| {
            format!(
                "{} was acknowledged at {} and is at {indexes:?}",
                one.operation, one.index
            )
        })
    });
    let mut told: BTreeMap<u64, u32> = BTreeMap::new();
    let shared = acknowledged.iter().filter_map(|one| {
        let before = told.insert(one.index, one.client)?;
        Some(format!(
            "clients {before} and {} were both told index {}",
            one.client, one.index
        ))
    });
    gap.into_iter()
        .chain(repeated)
        .chain(lost)
        .chain(shared)
        .collect()
}

/// The longest time in milliseconds between two acknowledgements, to whichever clients, of which the later one came after `since`.
pub fn longest_gap_ms(acknowledged: &[Acknowledged], since: i64) -> i64 {
    let mut times: Vec<i64> = acknowledged.iter().map(|one| one.at_ms).collect();
    times.sort_unstable();
    let pairs = times.iter().zip(times.iter().skip(1));
    let gaps = pairs.filter(|(_, later)| **later >= since);
    gaps.map(|(earlier, later)| later.saturating_sub(*earlier))
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(operation: &str, index: u64, at_ms: i64) -> Acknowledged {
        Acknowledged {
            client: 0,
            operation: operation.to_owned(),
            index,
            leader: 1,
            at_ms,
        }
    }

    fn held(operations: &[&str]) -> Vec<(u64, String)> {
        (1..)
            .zip(operations.iter().map(|text| (*text).to_owned()))
            .collect()
    }

    #[test]
    fn what_was_lost_moved_or_repeated_is_found() {
        let clients = [told("operation-1", 1, 0), told("operation-2", 2, 5)];
        assert!(faults(1, &clients, &held(&["operation-1", "operation-2", "operation-3"])).is_empty());
        for (operations, expected) in [
            (&["operation-1"][..], "operation-2 was acknowledged at 2"),
            (
                &["operation-2", "operation-1"],
                "operation-1 was acknowledged at 1",
            ),
            (
                &["operation-1", "operation-2", "operation-1"],
                "operation-1 is there more often than it was submitted",
            ),
        ] {
            let found = faults(1, &clients, &held(operations)).join("; ");
            assert!(found.contains(expected), "{found}");
        }
        let mut gap = held(&["operation-1", "operation-2", "x"]);
        gap.remove(1);
        assert!(
            faults(1, &clients[..1], &gap)
                .join("")
                .contains("index 2 is missing")
        );
    }

    #[test]
    fn clients_submit_the_same_operations_each_for_itself() {
        let other = |operation: &str, index| Acknowledged {
            client: 1,
            ..told(operation, index, 0)
        };
        let clients = [
            told("operation-1", 1, 0),
            other("operation-1", 2),
            told("operation-2", 3, 0),
        ];
        let fine = ["operation-1", "operation-1", "operation-2", "operation-2"];
        assert!(
            faults(2, &clients, &held(&fine)).is_empty(),
            "the last one was not acknowledged yet"
        );
        let found = faults(
            2,
            &clients,
            &held(&["operation-1", "operation-1", "operation-2", "operation-1"]),
        );
        assert_eq!(found.len(), 1, "{found:?}");
        let both = [told("operation-1", 1, 0), other("operation-1", 1)];
        assert!(
            faults(2, &both, &held(&["operation-1"]))
                .join("")
                .contains("both told index 1")
        );
    }

    #[test]
    fn a_gap_is_as_long_as_nothing_was_acknowledged() {
        let clients = [
            told("a", 1, 0),
            told("b", 2, 500),
            told("c", 3, 510),
            told("d", 4, 530),
        ];
        assert_eq!(longest_gap_ms(&clients, 0), 500);
        assert_eq!(longest_gap_ms(&clients, 501), 20);
        assert_eq!(longest_gap_ms(&clients, 531), 0);
    }
}
