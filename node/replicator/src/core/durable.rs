//! What the replicator knows beyond its operations, as it is written with them.

use bytes::{Buf, BufMut, Bytes};
use raftlog_raft::ids::{ClusterId, MemberId};

use super::operation::Place;

/// The state that goes with every write to the log. No place is ever beyond the operations written with or before it, but
/// where a snapshot was restored: then all three are its place, and that is where the log goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Durable {
    /// Absent until a node was met.
    pub(super) cluster: Option<ClusterId>,
    /// Member ID of the node it was last paired with.
    pub(super) member: Option<MemberId>,
    /// The log may begin after it, and never begins later: what lies before is in snapshots.
    pub(super) base: Place,
    pub(super) commit: Place,
    pub(super) executed: Place,
}

const VERSION: u8 = 2;
/// Without a base: all of the log is there.
const VERSION_WITHOUT_BASE: u8 = 1;

impl Durable {
    /// `version u8, cluster u64 (0: none), member u64 (0: none)`, then commit, executed and base, each as
    /// `index u64, term u64, running_hash u64`; little-endian.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(89);
        out.put_u8(VERSION);
        out.put_u64_le(self.cluster.map_or(0, ClusterId::get));
        out.put_u64_le(self.member.map_or(0, MemberId::get));
        for place in [self.commit, self.executed, self.base] {
            out.put_u64_le(place.index);
            out.put_u64_le(place.term);
            out.put_u64_le(place.running_hash);
        }
        out.into()
    }

    pub(super) fn decode(mut from: Bytes) -> Result<Self, String> {
        let version = match from.try_get_u8() {
            Ok(version @ (VERSION | VERSION_WITHOUT_BASE)) => version,
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
        let state = Self {
            cluster,
            member,
            base,
            commit,
            executed,
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
    use super::*;

    #[test]
    fn the_state_survives_the_disk_and_nothing_else_passes_for_it() {
        let state = Durable {
            cluster: ClusterId::new(5),
            member: None,
            base: Place {
                index: 7,
                term: 1,
                running_hash: 55,
            },
            commit: Place {
                index: 9,
                term: 2,
                running_hash: 77,
            },
            executed: Place {
                index: 8,
                term: 1,
                running_hash: 66,
            },
        };
        let bytes = state.encode();
        assert_eq!(Durable::decode(bytes.clone()), Ok(state));
        for length in 0..bytes.len() {
            assert!(Durable::decode(bytes.slice(..length)).is_err(), "{length} bytes");
        }
        assert!(Durable::decode([&bytes[..], b"x"].concat().into()).is_err());
        assert!(Durable::decode([&[9], &bytes[1..]].concat().into()).is_err());
        // What the version before wrote ends where the base begins.
        let before = [&[VERSION_WITHOUT_BASE], &bytes[1..65]].concat();
        let base = Place::default();
        assert_eq!(Durable::decode(before.into()), Ok(Durable { base, ..state }));
    }
}
