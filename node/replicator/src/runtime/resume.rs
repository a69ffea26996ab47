//! Resume tokens: the last operation that a watch gave, so that any replicator of the cluster can go on behind it and finds out where it
//! cannot. Clients pass them on and do not look into them.

use std::fmt;

use raftlog_proto::error::status;
use raftlog_proto::reason;
use raftlog_raft::ids::{ClusterId, OperationIndex};
use tonic::{Code, Status};

use super::handle::{Handle, Stopping};
use super::operation_log::{busy_status, dropped_status};
use super::wire;
use crate::core::{FetchError, Parent, Place};

/// Says how the rest is to be read.
const VERSION: &str = "1.";
/// Of each of the three numbers behind it.
const DIGITS: usize = 16;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) cluster: ClusterId,
    /// At least 1.
    pub(super) index: OperationIndex,
    pub(super) running_hash: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            index,
            running_hash,
        } = self;
        write!(
            f,
            "{VERSION}{:016x}{index:016x}{running_hash:016x}",
            cluster.get()
        )
    }
}

impl Token {
    /// Out of what a client gave, which may be anything.
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        Self::parsed(text).ok_or_else(|| {
            wire::invalid(
                "resume_token is none that a replicator gave, or not all of it: give one as it came, or none and from_index",
            )
        })
    }

    fn parsed(text: &str) -> Option<Self> {
        let numbers = text.strip_prefix(VERSION)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if numbers.len() != 3 * DIGITS || !numbers.bytes().all(is_digit) {
            return None;
        }
        let number = |at: usize| {
            let digits = numbers.get(at * DIGITS..(at + 1) * DIGITS)?;
            u64::from_str_radix(digits, 16).ok()
        };
        Some(Self {
            cluster: ClusterId::new(number(0)?)?,
            index: number(1).filter(|index| (1..u64::MAX).contains(index))?,
            running_hash: number(2)?,
        })
    }

    /// The operation to go on with.
    pub(super) fn next(&self) -> OperationIndex {
        self.index.saturating_add(1)
    }

    /// Whether it can be told at once if what is here is what the token speaks of.
    pub(super) fn can_be_checked(&self, handle: &Handle) -> bool {
        handle.cluster().borrow().is_some() && self.index <= *handle.commit().borrow()
    }

    /// Refuses to go on in another cluster.
    pub(super) async fn check_whose(&self, handle: &Handle) -> Result<(), Status> {
        let mut clusters = handle.cluster();
        clusters
            .wait_for(Option::is_some)
            .await
            .map_err(|_| wire::stopping())?;
        self.check_cluster(&Lineage::of(handle))
    }

    /// Refuses to go on where what is here is not what the token speaks of, or is not here any more. Waits until that is committed.
    pub(super) async fn check(&self, handle: &Handle) -> Result<(), Status> {
        self.check_whose(handle).await?;
        handle
            .commit()
            .wait_for(|commit| *commit >= self.index)
            .await
            .map_err(|_| wire::stopping())?;
        // It may be another one by now, which was recovered from the one before.
        self.check_cluster(&Lineage::of(handle))?;
        self.check_hash(hash_at(handle, self.index).await?)
    }

    /// What a recovered cluster has in common with the one before it counts as its own.
    fn check_cluster(&self, here: &Lineage) -> Result<(), Status> {
        let Some(ours) = here.cluster.filter(|ours| *ours != self.cluster) else {
            return Ok(());
        };
        match here.parent.filter(|parent| parent.cluster == self.cluster) {
            Some(parent) if self.index <= parent.index => Ok(()),
            Some(_) => Err(self.other_past()),
            None if !here.is_known => {
                let message = "the node of this replicator has not said yet which cluster it was recovered from: try again, or another \
                               replicator";
                Err(status(Code::Unavailable, reason::NO_LEADER, message))
            }
            None => {
                let message = format!(
                    "resume_token is of cluster {}, and this replicator is of cluster {ours}: ask that one, or begin anew here with \
                     from_index",
                    self.cluster
                );
                Err(status(Code::FailedPrecondition, reason::WRONG_CLUSTER, message))
            }
        }
    }

    fn check_hash(&self, ours: u64) -> Result<(), Status> {
        if ours == self.running_hash {
            Ok(())
        } else {
            Err(self.other_past())
        }
    }

    fn other_past(&self) -> Status {
        let message = format!(
            "operation {} or one before it is another one here than where the resume_token was given: what was read is no part of \
             this log; begin anew with from_index",
            self.index
        );
        status(Code::FailedPrecondition, reason::OTHER_PAST, message)
    }
}

/// Where what is here comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lineage {
    cluster: Option<ClusterId>,
    parent: Option<Parent>,
    /// The node has said what the parent is, or that there is none.
    is_known: bool,
}

impl Lineage {
    fn of(handle: &Handle) -> Self {
        let status = handle.status();
        Self {
            cluster: status.cluster,
            parent: status.parent,
            // Which it is not before its node has connected.
            is_known: status.readiness.ready,
        }
    }
}

/// The running hash at a committed index, also at that of the last operation that was dropped.
async fn hash_at(handle: &Handle, index: OperationIndex) -> Result<u64, Status> {
    let fetched = handle.fetch(index, index, 1).await;
    match fetched.map_err(|Stopping| wire::stopping())? {
        Ok((operations, _)) => operations
            .first()
            .filter(|operation| operation.index == index)
            .map(|operation| operation.running_hash)
            .ok_or_else(wire::stopping),
        Err(FetchError::Busy(busy)) => Err(busy_status(busy)),
        Err(FetchError::Compacted { first }) => {
            let mut dropped = handle.dropped();
            let is_told = |place: &Place| place.index.saturating_add(1) >= first;
            let place = *dropped.wait_for(is_told).await.map_err(|_| wire::stopping())?;
            if place.index == index {
                Ok(place.running_hash)
            } else {
                Err(dropped_status(
                    index.saturating_add(1),
                    place.index.saturating_add(1),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use raftlog_proto::error::reason_of;

    use super::*;

    fn token() -> Token {
        Token {
            cluster: ClusterId::new(0xc1).unwrap(),
            index: 7,
            running_hash: 0x00ab_cdef,
        }
    }

    const TEXT: &str = "1.00000000000000c100000000000000070000000000abcdef";

    #[test]
    fn a_token_survives_its_text() {
        assert_eq!(token().to_string(), TEXT);
        assert_eq!(Token::parse(TEXT).unwrap(), token());
        assert_eq!(token().next(), 8);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let long = "1".repeat(1 << 20);
        let mut others: Vec<String> = (0..TEXT.len()).map(|length| TEXT[..length].to_owned()).collect();
        others.extend([
            long,
            format!("{TEXT}0"),
            format!(" {TEXT}"),
            format!("{TEXT}\n"),
            TEXT.replacen("1.", "2.", 1),
            TEXT.replacen("1.0", "1.+", 1),
            TEXT.replace("abcdef", "ABCDEF"),
            TEXT.replace("abcdef", "abcdeg"),
            TEXT.replace("abcdef", "abéde"),
            TEXT.replacen("c1", "00", 1),
            TEXT.replacen("00000007", "00000000", 1),
            TEXT.replacen("0000000000000007", "ffffffffffffffff", 1),
        ]);
        for text in others {
            let refused = Token::parse(&text).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert!(refused.message().len() < 200, "{refused:?}");
        }
    }

    #[test]
    fn what_is_not_what_the_token_speaks_of_is_refused() {
        let reason_of =
            |result: Result<(), Status>| result.map_err(|refused| reason_of(&refused).unwrap_or_default());
        let parent = |cluster, index| {
            ClusterId::new(cluster).map(|cluster| Parent {
                cluster,
                index,
                running_hash: 1,
            })
        };
        for (cluster, parent, is_known, expected) in [
            (0xc1, None, true, Ok(())),
            (0xc1, None, false, Ok(())),
            (0xc2, None, true, Err(reason::WRONG_CLUSTER)),
            (0xc2, None, false, Err(reason::NO_LEADER)),
            (0xc2, parent(0xc3, 9), true, Err(reason::WRONG_CLUSTER)),
            (0xc2, parent(0xc1, 6), true, Err(reason::OTHER_PAST)),
            (0xc2, parent(0xc1, 7), true, Ok(())),
        ] {
            let here = Lineage {
                cluster: ClusterId::new(cluster),
                parent,
                is_known,
            };
            let found = reason_of(token().check_cluster(&here));
            assert_eq!(found, expected.map_err(str::to_owned), "{here:?}");
        }
        for (hash, expected) in [(0x00ab_cdef, Ok(())), (0, Err(reason::OTHER_PAST.to_owned()))] {
            assert_eq!(reason_of(token().check_hash(hash)), expected);
        }
    }
}
