//! What the replicator knows beyond its operations, as it is written with them.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use raftlog_raft::ids::{ClusterId, MemberId};

use super::ages::Ladder;
use super::operation::Place;

/// The state that goes with every write to the log. No place is ever beyond the operations written with or before it, but
/// where a snapshot was restored: then all three are its place, and that is where the log goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Durable {
    /// Absent until a node was met.
    pub(super) cluster: Option<ClusterId>,
    /// Member ID of the node it was last paired with.
    pub(super) member: Option<MemberId>,
    /// The log may begin after it, and never begins later: what lies before is in snapshots.
    pub(super) base: Place,
    pub(super) commit: Place,
    pub(super) executed: Place,
    /// How old operations are; empty where nobody asks.
    pub(super) ages: Arc<Ladder>,
    /// Executed by leaders' replicators; absent where every replicator executes for itself.
    pub(super) mark: Option<Place>,
}

/// With a mark, and ages.
const VERSION: u8 = 4;
/// Without a mark: every replicator executes.
const VERSION_WITHOUT_MARK: u8 = 3;
/// Without ages either: a folder is as the version before wrote it, and can be given back to it, where nobody asks for more.
const VERSION_WITHOUT_AGES: u8 = 2;
/// Without a base: all of the log is there.
const VERSION_WITHOUT_BASE: u8 = 1;

impl Durable {
    /// `version u8, cluster u64 (0: none), member u64 (0: none)`, then commit, executed, base and, if there is one, the mark, each as
    /// `index u64, term u64, running_hash u64`; little-endian. Then the ages, if there are any or there is a mark.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(114);
        out.put_u8(match (self.mark, self.ages.is_empty()) {
            (Some(_), _) => VERSION,
            (None, false) => VERSION_WITHOUT_MARK,
            (None, true) => VERSION_WITHOUT_AGES,
        });
        out.put_u64_le(self.cluster.map_or(0, ClusterId::get));
        out.put_u64_le(self.member.map_or(0, MemberId::get));
        for place in [self.commit, self.executed, self.base]
            .into_iter()
            .chain(self.mark)
        {
            out.put_u64_le(place.index);
            out.put_u64_le(place.term);
            out.put_u64_le(place.running_hash);
        }
        if self.mark.is_some() || !self.ages.is_empty() {
            self.ages.encode(&mut out);
        }
        out.into()
    }

    pub(super) fn decode(mut from: Bytes) -> Result<Self, String> {
        let version = match from.try_get_u8() {
            Ok(version @ VERSION_WITHOUT_BASE..=VERSION) => version,
            Ok(other) => {
                return Err(format!(
                    "the replicator's state has version {other}, this program reads {VERSION}"
                ));
            }
            Err(_) => return Err("the replicator's state is empty".to_owned()),
        };
        let mut next = || {
            from.try_get_u64_le()
                .map_err(|_| "the replicator's state is cut short".to_owned())
        };
        let cluster = ClusterId::new(next()?);
        let member = MemberId::new(next()?);
        let mut place = || {
            Ok::<_, String>(Place {
                index: next()?,
                term: next()?,
                running_hash: next()?,
            })
        };
        let (commit, executed) = (place()?, place()?);
        let base = if version == VERSION_WITHOUT_BASE {
            Place::default()
        } else {
            place()?
        };
        let mark = if version >= VERSION { Some(place()?) } else { None };
        let ages = if version >= VERSION_WITHOUT_MARK {
            Ladder::decode(&mut from, commit.index)?
        } else {
            Ladder::default()
        };
        let state = Self {
            cluster,
            member,
            base,
            commit,
            executed,
            ages: Arc::new(ages),
            mark,
        };
        if from.has_remaining() {
            return Err(format!(
                "the replicator's state is {} bytes too long",
                from.remaining()
            ));
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::ages::Ages;

    fn place(index: u64) -> Place {
        Place {
            index,
            term: 1,
            running_hash: 11 * index,
        }
    }

    fn state(ages: Arc<Ladder>) -> Durable {
        Durable {
            cluster: ClusterId::new(5),
            member: None,
            base: place(7),
            commit: place(9),
            executed: place(8),
            ages,
            mark: None,
        }
    }

    fn ladder() -> Arc<Ladder> {
        let mut ages = Ages::default();
        ages.tick(1_000, Duration::from_secs(32), (7, 8));
        ages.tick(2_000, Duration::from_secs(32), (7, 9));
        ages.ladder()
    }

    #[test]
    fn the_state_survives_the_disk_and_nothing_else_passes_for_it() {
        let marked = Durable {
            mark: Some(place(7)),
            ..state(ladder())
        };
        let only_marked = Durable {
            mark: Some(place(7)),
            ..state(Arc::default())
        };
        for state in [state(Arc::default()), state(ladder()), marked, only_marked] {
            let bytes = state.encode();
            assert_eq!(Durable::decode(bytes.clone()).as_ref(), Ok(&state));
            for length in 0..bytes.len() {
                assert!(Durable::decode(bytes.slice(..length)).is_err(), "{length} bytes");
            }
            assert!(Durable::decode([&bytes[..], b"x"].concat().into()).is_err());
            for version in [0, 5, 9] {
                assert!(Durable::decode([&[version], &bytes[1..]].concat().into()).is_err());
            }
        }
    }

    #[test]
    fn what_earlier_versions_wrote_is_read_and_what_needs_no_later_one_they_can_read() {
        let state = state(Arc::default());
        let bytes = state.encode();
        assert_eq!((bytes[0], bytes.len()), (VERSION_WITHOUT_AGES, 89));
        // The first version ends where the base begins.
        let before = [&[VERSION_WITHOUT_BASE], &bytes[1..65]].concat();
        let base = Place::default();
        assert_eq!(Durable::decode(before.into()), Ok(Durable { base, ..state }));
    }
}
