//! Where logs begin to differ. Running hashes go on from one operation to the next: logs that have the same one at an index
//! are equal up to it, and a binary search finds the first operation at which they are not.

use std::collections::BTreeMap;

/// What a replicator says of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Index of the first operation; 0 with none.
    pub(super) first: u64,
    pub(super) commit: u64,
    /// At the commit index.
    pub(super) hash: u64,
}

/// Numbers the replicators that were asked.
pub(super) type Replica = usize;

/// Looks up the running hash of an operation that a replicator holds.
pub(super) trait Hashes {
    async fn hash(&mut self, replica: Replica, index: u64) -> Result<u64, String>;
}

/// The first operation at which logs differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) index: u64,
    /// It is the first that can be compared: what lies before is held no more.
    pub(super) at_the_latest: bool,
    /// Who has the same there, the most first.
    pub(super) sides: Vec<Vec<Replica>>,
    /// The first side is a majority of all that were asked.
    pub(super) has_majority: bool,
}

/// What came of comparing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Who agrees on everything that can be compared.
    pub(super) agree: Vec<Replica>,
    pub(super) differences: Vec<Difference>,
    /// Who could not be compared, and why.
    pub(super) lost: BTreeMap<Replica, String>,
}

/// A replicator drops out.
type Lost = (Replica, String);

/// Compares all with all, of `asked` replicators those that answered.
pub(super) async fn compare(
    logs: &BTreeMap<Replica, Held>,
    asked: usize,
    hashes: &mut impl Hashes,
) -> Outcome {
    let mut work = Work { logs, hashes };
    let mut outcome = Outcome {
        agree: logs.keys().copied().collect(),
        ..Outcome::default()
    };
    loop {
        match work.first_difference_among(&outcome.agree, asked).await {
            Ok(None) => return outcome,
            Ok(Some(difference)) => {
                // Those who are not of the majority are done with, the others may differ elsewhere, too.
                let gone = usize::from(difference.has_majority);
                let gone: Vec<Replica> = difference.sides.iter().skip(gone).flatten().copied().collect();
                outcome.agree.retain(|replica| !gone.contains(replica));
                outcome.differences.push(difference);
            }
            Err((replica, why)) => {
                outcome.agree.retain(|agrees| *agrees != replica);
                outcome.lost.insert(replica, why);
            }
        }
    }
}

struct Work<'a, H> {
    logs: &'a BTreeMap<Replica, Held>,
    hashes: &'a mut H,
}

impl<H: Hashes> Work<'_, H> {
    async fn first_difference_among(
        &mut self,
        replicas: &[Replica],
        asked: usize,
    ) -> Result<Option<Difference>, Lost> {
        // The longest log has something in common with every other.
        let Some(&longest) = replicas.iter().max_by_key(|replica| self.held(**replica).commit) else {
            return Ok(None);
        };
        let mut first = None;
        for &other in replicas.iter().filter(|&&other| other != longest) {
            if let Some(found) = self.first_difference(longest, other).await? {
                first = Some(first.map_or(found, |first: (u64, bool)| first.min(found)));
            }
        }
        let Some((index, at_the_latest)) = first else {
            return Ok(None);
        };
        // Who begins later takes a side as well: what differs once differs from there on.
        let begin = replicas.iter().map(|&replica| self.held(replica).first);
        let seen_at = begin.max().unwrap_or(0).max(index);
        let mut sides: BTreeMap<u64, Vec<Replica>> = BTreeMap::new();
        for &replica in replicas {
            if knows(self.held(replica), seen_at) {
                let hash = self.hash(replica, seen_at).await?;
                sides.entry(hash).or_default().push(replica);
            }
        }
        let mut sides: Vec<Vec<Replica>> = sides.into_values().collect();
        sides.sort_by_key(|side| std::cmp::Reverse(side.len()));
        let has_majority = sides.first().is_some_and(|side| side.len() * 2 > asked);
        Ok(Some(Difference {
            index,
            at_the_latest,
            sides,
            has_majority,
        }))
    }

    /// The first index at which two logs differ, and whether an earlier one cannot be compared.
    async fn first_difference(
        &mut self,
        longer: Replica,
        other: Replica,
    ) -> Result<Option<(u64, bool)>, Lost> {
        let (one, two) = (self.held(longer), self.held(other));
        let last = two.commit;
        if last == 0 {
            return Ok(None);
        }
        if !knows(one, last) {
            let why = format!(
                "holds operations up to index {last}, the others from {} on",
                one.first
            );
            return Err((other, why));
        }
        if self.hash(longer, last).await? == self.hash(other, last).await? {
            return Ok(None);
        }
        let begin = [one, two].map(|held| if held.first == 0 { held.commit } else { held.first });
        let begin = begin.into_iter().max().unwrap_or(last);
        let (mut equal, mut differs) = (begin - 1, last);
        while differs - equal > 1 {
            let middle = equal + (differs - equal) / 2;
            if self.hash(longer, middle).await? == self.hash(other, middle).await? {
                equal = middle;
            } else {
                differs = middle;
            }
        }
        Ok(Some((differs, differs == begin && begin > 1)))
    }

    async fn hash(&mut self, replica: Replica, index: u64) -> Result<u64, Lost> {
        let held = self.held(replica);
        if index == held.commit {
            return Ok(held.hash);
        }
        let found = self.hashes.hash(replica, index).await;
        found.map_err(|why| (replica, why))
    }

    fn held(&self, replica: Replica) -> Held {
        *self
            .logs
            .get(&replica)
            .expect("only those that answered are compared")
    }
}

/// Whether the running hash there can be had.
pub(super) fn knows(held: Held, index: u64) -> bool {
    index == held.commit || (held.first > 0 && (held.first..=held.commit).contains(&index))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logs by their running hashes, from an index on.
    struct Logs(Vec<(u64, Vec<u64>)>);

    impl Logs {
        /// Of these lengths, all equal.
        fn equal(lengths: &[u64]) -> Self {
            Self(
                lengths
                    .iter()
                    .map(|&length| (1, (1..=length).collect()))
                    .collect(),
            )
        }

        /// From that index on one of them is another.
        fn with(mut self, replica: Replica, from: u64, salt: u64) -> Self {
            let (_, hashes) = &mut self.0[replica];
            for (hash, index) in hashes.iter_mut().zip(1..) {
                if index >= from {
                    *hash = index * 1_000 + salt;
                }
            }
            self
        }

        /// One of them has dropped its beginning.
        fn compacted(mut self, replica: Replica, first: u64) -> Self {
            let (begin, hashes) = &mut self.0[replica];
            hashes.drain(..usize::try_from(first - 1).unwrap());
            *begin = first;
            self
        }

        async fn compare(mut self, asked: usize) -> Outcome {
            let held = |(first, hashes): &(u64, Vec<u64>)| Held {
                first: if hashes.is_empty() { 0 } else { *first },
                commit: first - 1 + hashes.len() as u64,
                hash: hashes.last().copied().unwrap_or(0),
            };
            let logs = self.0.iter().map(held).enumerate().collect();
            compare(&logs, asked, &mut self).await
        }
    }

    impl Hashes for Logs {
        async fn hash(&mut self, replica: Replica, index: u64) -> Result<u64, String> {
            let (first, hashes) = &self.0[replica];
            let at = index.checked_sub(*first).and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| hashes.get(at).copied())
                .ok_or_else(|| format!("has no operation {index}"))
        }
    }

    fn difference(index: u64, sides: &[&[Replica]], has_majority: bool) -> Difference {
        Difference {
            index,
            at_the_latest: false,
            sides: sides.iter().map(|side| side.to_vec()).collect(),
            has_majority,
        }
    }

    #[tokio::test]
    async fn equal_logs_of_any_length_are_equal() {
        for lengths in [&[0, 0, 0][..], &[7, 7, 7, 7, 7], &[1, 900, 0, 899, 3], &[5]] {
            let outcome = Logs::equal(lengths).compare(lengths.len()).await;
            assert_eq!(outcome.agree.len(), lengths.len(), "{lengths:?}: {outcome:?}");
            assert!(
                outcome.differences.is_empty() && outcome.lost.is_empty(),
                "{outcome:?}"
            );
        }
        let compacted = Logs::equal(&[50, 60, 60]).compacted(1, 40).compacted(2, 50);
        assert_eq!(compacted.compare(3).await.agree, [0, 1, 2]);
    }

    #[tokio::test]
    async fn the_first_difference_is_found_wherever_it_is() {
        for from in 1..=40 {
            for damaged in 0..5 {
                let outcome = Logs::equal(&[40; 5]).with(damaged, from, 1).compare(5).await;
                let others: Vec<Replica> = (0..5).filter(|&other| other != damaged).collect();
                assert_eq!(
                    outcome.differences,
                    [difference(from, &[&others, &[damaged]], true)],
                    "replica {damaged} from {from} on"
                );
                assert_eq!(outcome.agree, others);
            }
        }
    }

    #[tokio::test]
    async fn each_of_several_is_told() {
        let outcome = Logs::equal(&[40, 30, 40, 35, 40])
            .with(0, 17, 1)
            .with(3, 33, 2)
            .compare(5)
            .await;
        assert_eq!(
            outcome.differences,
            [
                difference(17, &[&[1, 2, 3, 4], &[0]], true),
                difference(33, &[&[2, 4], &[3]], false)
            ],
            "replica 1 does not reach index 33"
        );
    }

    #[tokio::test]
    async fn without_a_majority_nobody_is_right() {
        let outcome = Logs::equal(&[9, 9]).with(1, 4, 1).compare(2).await;
        assert_eq!(outcome.differences.len(), 1);
        assert!(
            !outcome.differences[0].has_majority && outcome.agree.is_empty(),
            "{outcome:?}"
        );
        let outcome = Logs::equal(&[9, 9, 9]).with(1, 4, 1).compare(5).await;
        assert!(!outcome.differences[0].has_majority, "two of five: {outcome:?}");
    }

    #[tokio::test]
    async fn what_is_no_longer_held_cannot_be_compared() {
        let outcome = Logs::equal(&[40, 40, 40])
            .compacted(1, 20)
            .with(2, 1, 1)
            .compare(3)
            .await;
        let [found] = outcome.differences.as_slice() else {
            panic!("{outcome:?}");
        };
        assert_eq!(
            *found,
            difference(1, &[&[0, 1], &[2]], true),
            "replica 1 takes a side"
        );
        let outcome = Logs::equal(&[40, 10]).compacted(0, 20).compare(2).await;
        assert_eq!(
            outcome.lost.keys().copied().collect::<Vec<_>>(),
            [1],
            "{outcome:?}"
        );
        let all = Logs::equal(&[40, 40, 40]).with(2, 1, 1);
        let all = all.compacted(0, 20).compacted(1, 20).compacted(2, 20);
        let outcome = all.compare(3).await;
        assert_eq!(outcome.differences[0].index, 20);
        assert!(outcome.differences[0].at_the_latest);
    }
}
