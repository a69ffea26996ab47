//! The fold: what a prefix of the log adds up to. A pure function of that prefix, kept at the log's end and rewound when
//! the tail is truncated.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use crate::entry::{
    DecodeError, Entry, Payload, decode_configuration, decode_joint_configuration, encode_configuration,
    encode_old_voters, get_flag, get_u8, get_u64,
};
use crate::feature::FeatureLevel;
use crate::ids::{ClusterId, LogIndex, OperationIndex, Term};
use crate::membership::Configuration;
use crate::session::{self, Sessions};

/// The running hash after one more operation: XXH3-64 over `index u64, term u64` (little-endian) and the data, seeded by
/// the hash before it; 0 before the first.
pub fn running_hash(previous: u64, index: OperationIndex, term: Term, data: &[u8]) -> u64 {
    let mut hash = Xxh3::with_seed(previous);
    hash.update(&index.to_le_bytes());
    hash.update(&term.to_le_bytes());
    hash.update(data);
    hash.digest()
}

/// The cluster that this one was recovered from, and the last operation that both have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its identity.
    pub cluster: ClusterId,
    /// Operations up to here are of its past, too.
    pub operation_index: OperationIndex,
    /// [`running_hash`] over them.
    pub running_hash: u64,
}

/// {last operation index, sessions, membership, running hash, feature level} of a log prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fold {
    /// Operations in the prefix.
    pub operation_index: OperationIndex,
    /// [`running_hash`] over them.
    pub running_hash: u64,
    /// The configuration in force.
    pub configuration: Configuration,
    /// The sessions.
    pub sessions: Sessions,
    /// The latest execution progress mark.
    pub executed_through: OperationIndex,
    /// Set once the cluster was recovered from another one.
    pub parent: Option<Parent>,
    /// Whose rules hold for what comes behind the prefix. A rule that is newer than the first level asks for it.
    pub feature_level: FeatureLevel,
    /// The one rule of [`FeatureLevel::REHEARSED`], which no program supports: the entries that this level held for are
    /// counted. It differs where a member changed its rules at another place than others did.
    pub rehearsed: u64,
}

/// How far a fold was encoded, piece by piece. It must not change meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Encoded {
    begun: bool,
    /// Sessions used up to there are.
    sessions_through: LogIndex,
    ended: bool,
}

impl Encoded {
    /// Whether all of it is.
    pub fn is_whole(&self) -> bool {
        self.ended
    }
}

/// What takes one [`Fold::apply`] back.
#[derive(Debug)]
pub struct Undo {
    operation_index: OperationIndex,
    running_hash: u64,
    executed_through: OperationIndex,
    feature_level: FeatureLevel,
    rehearsed: u64,
    configuration: Option<Configuration>,
    session: Option<session::Undo>,
    /// What a recovery put an end to.
    recovered: Option<Box<(Sessions, Option<Parent>)>>,
}

impl Undo {
    /// The configuration before the entry, where the entry carries another.
    pub fn configuration(&self) -> Option<&Configuration> {
        self.configuration.as_ref()
    }

    /// The execution progress mark before the entry.
    pub fn executed_through(&self) -> OperationIndex {
        self.executed_through
    }

    /// The feature level before the entry.
    pub fn feature_level(&self) -> FeatureLevel {
        self.feature_level
    }

    /// The configuration stays as it is: a bug.
    pub(crate) fn forget_configuration(&mut self) {
        self.configuration = None;
    }

    /// The session stays as it is: a bug.
    pub(crate) fn forget_session(&mut self) {
        self.session = None;
    }

    /// The feature level stays as it is in that fold: a bug.
    pub(crate) fn keep_feature_level(&mut self, of: &Fold) {
        self.feature_level = of.feature_level;
    }
}

/// An entry does not continue the log before it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// Operation indexes must be dense.
    #[error("entry {at} has operation index {found} where {expected} comes next")]
    OperationIndex {
        /// Log index of the entry.
        at: LogIndex,
        /// What it says.
        found: OperationIndex,
        /// What it must say.
        expected: OperationIndex,
    },
    /// All members must compute the same hash.
    #[error("entry {at} has running hash {found:016x} where this member computes {expected:016x}")]
    RunningHash {
        /// Log index of the entry.
        at: LogIndex,
        /// What it says.
        found: u64,
        /// What it must say.
        expected: u64,
    },
    /// A configuration's version is the log index of its entry.
    #[error("entry {at} carries a configuration of version {found}")]
    ConfigurationVersion {
        /// Log index of the entry.
        at: LogIndex,
        /// What it says.
        found: LogIndex,
    },
    /// A feature level is only ever raised.
    #[error("entry {at} changes the feature level from {from} to {to}")]
    FeatureLevel {
        /// Log index of the entry.
        at: LogIndex,
        /// In force before it.
        from: FeatureLevel,
        /// What it says.
        to: FeatureLevel,
    },
    /// Only what is in the log before it can have been executed.
    #[error("entry {at} says that operations through {found} are executed, and the log has {last}")]
    ExecutionProgress {
        /// Log index of the entry.
        at: LogIndex,
        /// What it says.
        found: OperationIndex,
        /// The last operation before it.
        last: OperationIndex,
    },
}

impl Fold {
    /// The fold of the empty log of a cluster that was formed with that configuration.
    pub fn new(bootstrap: Configuration) -> Self {
        Self {
            configuration: bootstrap,
            ..Self::default()
        }
    }

    /// The entry that comes next with that payload.
    pub fn next_entry(&self, log_index: LogIndex, term: Term, payload: Payload) -> Entry {
        let (operation_index, running_hash) = self.place_of(term, &payload);
        Entry {
            log_index,
            term,
            operation_index,
            running_hash,
            payload,
        }
    }

    /// Whether that entry continues this prefix.
    pub fn check(&self, entry: &Entry) -> Result<(), Mismatch> {
        let at = entry.log_index;
        let (operation_index, running_hash) = self.place_of(entry.term, &entry.payload);
        if entry.operation_index != operation_index {
            return Err(Mismatch::OperationIndex {
                at,
                found: entry.operation_index,
                expected: operation_index,
            });
        }
        if entry.running_hash != running_hash {
            return Err(Mismatch::RunningHash {
                at,
                found: entry.running_hash,
                expected: running_hash,
            });
        }
        match &entry.payload {
            Payload::Configuration(c) | Payload::Recovered { configuration: c, .. } if c.version != at => {
                Err(Mismatch::ConfigurationVersion { at, found: c.version })
            }
            &Payload::FeatureLevel(to) if to <= self.feature_level => {
                let from = self.feature_level;
                Err(Mismatch::FeatureLevel { at, from, to })
            }
            &Payload::ExecutionProgress {
                executed_through: found,
            } if found > operation_index => {
                let last = operation_index;
                Err(Mismatch::ExecutionProgress { at, found, last })
            }
            _ => Ok(()),
        }
    }

    fn place_of(&self, term: Term, payload: &Payload) -> (OperationIndex, u64) {
        match payload {
            Payload::Operation(operation) => {
                let index = self.operation_index + 1;
                (
                    index,
                    running_hash(self.running_hash, index, term, &operation.data),
                )
            }
            _ => (self.operation_index, self.running_hash),
        }
    }

    /// Takes in an entry that [`Fold::check`] has passed.
    pub fn apply(&mut self, entry: &Entry) -> Undo {
        let mut undo = Undo {
            operation_index: self.operation_index,
            running_hash: self.running_hash,
            executed_through: self.executed_through,
            feature_level: self.feature_level,
            rehearsed: self.rehearsed,
            configuration: None,
            session: None,
            recovered: None,
        };
        if self.feature_level >= FeatureLevel::REHEARSED {
            self.rehearsed += 1;
        }
        match &entry.payload {
            Payload::Noop => {}
            Payload::Operation(operation) => {
                undo.session = operation.session.as_ref().map(|stamp| {
                    self.sessions
                        .append(stamp, entry.log_index, entry.operation_index)
                });
            }
            Payload::Configuration(configuration) => {
                undo.configuration = Some(std::mem::replace(&mut self.configuration, configuration.clone()));
            }
            Payload::SessionOpened => {
                let id: Arc<str> = session::opened_id(entry.term, entry.log_index).into();
                undo.session = Some(self.sessions.open(id, entry.log_index));
            }
            Payload::ExecutionProgress { executed_through } => {
                self.executed_through = self.executed_through.max(*executed_through);
            }
            Payload::Recovered {
                parent,
                configuration,
            } => {
                undo.configuration = Some(std::mem::replace(&mut self.configuration, configuration.clone()));
                let parent = Parent {
                    cluster: *parent,
                    operation_index: self.operation_index,
                    running_hash: self.running_hash,
                };
                let none = self.sessions.cleared();
                let sessions = std::mem::replace(&mut self.sessions, none);
                undo.recovered = Some(Box::new((sessions, self.parent.replace(parent))));
            }
            Payload::FeatureLevel(level) => self.feature_level = *level,
        }
        self.operation_index = entry.operation_index;
        self.running_hash = entry.running_hash;
        undo
    }

    /// Appends the next piece of the form that [`Fold::encode`] describes: sessions until there are `bytes` of it, or all.
    pub fn encode_piece(&self, encoded: &mut Encoded, bytes: usize, out: &mut Vec<u8>) {
        if !encoded.begun {
            encoded.begun = true;
            self.encode_beginning(out);
        }
        match self.sessions.encode_after(encoded.sessions_through, bytes, out) {
            Some(through) => encoded.sessions_through = through,
            None => encoded.ended = true,
        }
    }

    /// Appends the form in a snapshot: little-endian, `feature_level u8, operation_index u64, running_hash u64, executed_through u64`,
    /// whether the configuration is joint (u8: 0 or 1), the configuration as in its entry, the parent (`cluster u64`, 0: none; else
    /// `operation_index u64, running_hash u64`), the sessions. So each level has a form of its own, which begins with that level:
    /// one that needs more adds it here, and who does not support that level never has to read it. The rehearsed one adds
    /// `rehearsed u64` in front of the sessions.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_piece(&mut Encoded::default(), usize::MAX, out);
    }

    fn encode_beginning(&self, out: &mut Vec<u8>) {
        out.put_u8(self.feature_level.get());
        out.put_u64_le(self.operation_index);
        out.put_u64_le(self.running_hash);
        out.put_u64_le(self.executed_through);
        let joint = self.configuration.is_joint();
        out.put_u8(u8::from(joint));
        encode_configuration(&self.configuration, out);
        if joint {
            encode_old_voters(self.configuration.old_voters(), out);
        }
        match self.parent {
            None => out.put_u64_le(0),
            Some(parent) => {
                out.put_u64_le(parent.cluster.get());
                out.put_u64_le(parent.operation_index);
                out.put_u64_le(parent.running_hash);
            }
        }
        if self.feature_level >= FeatureLevel::REHEARSED {
            out.put_u64_le(self.rehearsed);
        }
        self.sessions.encode_beginning(out);
    }

    /// Reads what [`Fold::encode`] wrote of the log up to `at`. It may come from another member, so nothing in it is taken
    /// for granted.
    pub fn decode(mut from: Bytes, at: LogIndex) -> Result<Self, DecodeError> {
        let from = &mut from;
        let feature_level = FeatureLevel::new(get_u8(from)?).ok_or(DecodeError::Field("feature level"))?;
        if feature_level > FeatureLevel::REHEARSED {
            return Err(DecodeError::FeatureLevel(feature_level));
        }
        let operation_index = get_u64(from)?;
        let running_hash = get_u64(from)?;
        let executed_through = get_u64(from)?;
        if operation_index > at {
            return Err(DecodeError::Field("operation index"));
        }
        if executed_through > operation_index {
            return Err(DecodeError::Field("execution progress"));
        }
        let configuration = if get_flag(from, "joint flag")? {
            decode_joint_configuration(from)?
        } else {
            decode_configuration(from)?
        };
        if configuration.version > at {
            return Err(DecodeError::Field("configuration version"));
        }
        let parent = match ClusterId::new(get_u64(from)?) {
            None => None,
            Some(cluster) => Some(Parent {
                cluster,
                operation_index: get_u64(from)?,
                running_hash: get_u64(from)?,
            }),
        };
        if parent.is_some_and(|parent| parent.operation_index > operation_index) {
            return Err(DecodeError::Field("parent"));
        }
        let rehearsed = if feature_level >= FeatureLevel::REHEARSED {
            get_u64(from)?
        } else {
            0
        };
        let sessions = Sessions::decode(from, at, operation_index)?;
        if from.has_remaining() {
            return Err(DecodeError::Long(from.remaining()));
        }
        Ok(Self {
            operation_index,
            running_hash,
            configuration,
            sessions,
            executed_through,
            parent,
            feature_level,
            rehearsed,
        })
    }

    /// Takes back the latest [`Fold::apply`] that has not been taken back.
    pub fn revert(&mut self, undo: Undo) {
        self.operation_index = undo.operation_index;
        self.running_hash = undo.running_hash;
        self.executed_through = undo.executed_through;
        self.feature_level = undo.feature_level;
        self.rehearsed = undo.rehearsed;
        if let Some(configuration) = undo.configuration {
            self.configuration = configuration;
        }
        if let Some(session) = undo.session {
            self.sessions.revert(session);
        }
        if let Some(before) = undo.recovered {
            (self.sessions, self.parent) = *before;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Operation, SessionStamp};
    use crate::ids::MemberId;
    use crate::membership::{Member, OldVoter};
    use crate::session::ANSWERS_PER_SESSION_MAX;

    fn payload() -> impl Strategy<Value = Payload> {
        let stamp =
            (0..3u8, 0..2_000u64, prop_oneof![Just(0), 0..2_000u64]).prop_map(|(client, sequence, ack)| {
                SessionStamp {
                    client_id: format!("c{client}").into(),
                    sequence,
                    acknowledged_through: ack,
                }
            });
        prop_oneof![
            Just(Payload::Noop),
            Just(Payload::SessionOpened),
            (0..100u64).prop_map(|executed_through| Payload::ExecutionProgress { executed_through }),
            (1..9u64).prop_map(|parent| Payload::Recovered {
                parent: ClusterId::new(parent).unwrap(),
                configuration: configuration(),
            }),
            proptest::option::of(stamp).prop_map(|session| Payload::Operation(Operation {
                data: Bytes::from_static(b"op"),
                session
            })),
        ]
    }

    /// A configuration's version is where it lies, and no more is executed than there is.
    fn placed(payload: Payload, fold: &Fold, at: LogIndex) -> Payload {
        match payload {
            Payload::ExecutionProgress { executed_through } => Payload::ExecutionProgress {
                executed_through: executed_through.min(fold.operation_index),
            },
            Payload::Recovered { parent, .. } => Payload::Recovered {
                parent,
                configuration: Configuration::new(at, configuration().members().to_vec()),
            },
            other => other,
        }
    }

    /// The fold of that many entries at most, and the log index it is at.
    fn folded(payloads: Vec<Payload>) -> (Fold, LogIndex) {
        let mut fold = Fold {
            sessions: Sessions::with_limit(2),
            ..Fold::new(configuration())
        };
        let mut at = 0;
        for payload in payloads {
            at += 1;
            let entry = fold.next_entry(at, 1, placed(payload, &fold, at));
            fold.apply(&entry);
        }
        (fold, at)
    }

    #[test]
    fn a_fold_in_pieces_is_the_same() {
        let stamp = |client: usize| SessionStamp {
            client_id: format!("c{client}").into(),
            sequence: 1,
            acknowledged_through: 0,
        };
        let operation = |client| {
            Payload::Operation(Operation {
                data: Bytes::from_static(b"op"),
                session: Some(stamp(client)),
            })
        };
        let mut fold = Fold::new(configuration());
        for at in 1..=20 {
            let entry = fold.next_entry(at, 1, operation(usize::try_from(at).unwrap()));
            fold.apply(&entry);
        }
        let whole = encoded(&fold);
        for bytes in [1, 100, usize::MAX] {
            let (mut pieces, mut how_far, mut count) = (Vec::new(), Encoded::default(), 0);
            while !how_far.is_whole() {
                fold.encode_piece(&mut how_far, bytes, &mut pieces);
                count += 1;
            }
            assert_eq!(pieces, whole);
            assert!(bytes > 1 || count >= 20, "{count} pieces");
        }
    }

    fn configuration() -> Configuration {
        let member = Member {
            id: MemberId::new(7).unwrap(),
            node: 1,
            peer_address: "node1:5001".into(),
            client_address: "node1:5001".into(),
            voter: true,
        };
        Configuration::new(0, vec![member])
    }

    fn encoded(fold: &Fold) -> Vec<u8> {
        let mut bytes = Vec::new();
        fold.encode(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn a_fold_survives_a_snapshot_and_goes_on_alike(
            payloads in proptest::collection::vec(payload(), 0..80),
            more in proptest::collection::vec(payload(), 0..20),
        ) {
            let (mut fold, mut at) = folded(payloads);
            let mut restored = Fold::decode(encoded(&fold).into(), at).unwrap();
            prop_assert_eq!(&restored, &fold);
            for payload in more {
                at += 1;
                let entry = fold.next_entry(at, 2, placed(payload, &fold, at));
                prop_assert_eq!(restored.check(&entry), Ok(()));
                fold.apply(&entry);
                restored.apply(&entry);
            }
            prop_assert_eq!(restored, fold);
        }

        #[test]
        fn what_is_no_fold_is_refused_and_never_panics(
            payloads in proptest::collection::vec(payload(), 0..30),
            cut in any::<proptest::sample::Index>(),
            changed in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let (fold, at) = folded(payloads);
            let bytes = encoded(&fold);
            prop_assert!(Fold::decode(Bytes::copy_from_slice(&bytes[..cut.index(bytes.len())]), at).is_err());
            let mut long = bytes.clone();
            long.push(byte);
            prop_assert!(Fold::decode(long.into(), at).is_err());
            // What was changed may be a fold, which then is the one that it is read as.
            let mut other = bytes.clone();
            let place = changed.index(other.len());
            other[place] = byte;
            if let Ok(fold) = Fold::decode(other.clone().into(), at) {
                prop_assert_eq!(encoded(&fold), other);
            }
        }

        #[test]
        fn a_rewound_fold_is_the_fold_of_the_shorter_log(
            payloads in proptest::collection::vec(payload(), 1..60),
            cut in 0..60usize,
        ) {
            let mut fold = Fold { sessions: Sessions::with_limit(2), ..Fold::default() };
            let mut folds = vec![fold.clone()];
            let mut undos = Vec::new();
            for (at, payload) in (1..).zip(payloads) {
                let entry = fold.next_entry(at, 1, placed(payload, &fold, at));
                prop_assert_eq!(fold.check(&entry), Ok(()));
                undos.push(fold.apply(&entry));
                folds.push(fold.clone());
            }
            while undos.len() > cut {
                fold.revert(undos.pop().unwrap());
                prop_assert_eq!(&fold, &folds[undos.len()]);
            }
        }
    }

    #[test]
    fn a_joint_configuration_survives_a_snapshot() {
        let old = Member {
            id: MemberId::new(9).unwrap(),
            voter: false,
            ..configuration().members()[0].clone()
        };
        let leaving = OldVoter {
            id: old.id,
            leaves: true,
        };
        let members = [configuration().members(), &[old]].concat();
        let fold = Fold::new(Configuration::joint(3, members, vec![leaving]).unwrap());
        assert_eq!(Fold::decode(encoded(&fold).into(), 3), Ok(fold));
    }

    #[test]
    fn a_full_session_survives_a_snapshot() {
        let most = ANSWERS_PER_SESSION_MAX as u64 + 10;
        let operation = |sequence| {
            let stamp = SessionStamp {
                client_id: "c".into(),
                sequence,
                acknowledged_through: 0,
            };
            Payload::Operation(Operation {
                data: Bytes::from_static(b"x"),
                session: Some(stamp),
            })
        };
        let (fold, at) = folded((1..=most).map(operation).collect());
        assert_eq!(Fold::decode(encoded(&fold).into(), at), Ok(fold));
    }

    /// Lengths in it are not believed: nothing is reserved for them, and each limit is checked.
    #[test]
    fn a_fold_that_contradicts_itself_is_refused() {
        let (fold, at) = folded(vec![Payload::SessionOpened, Payload::Noop]);
        let bytes = encoded(&fold);
        let sessions = bytes.len() - (4 + 4 + 2 + "~1.1".len() + 8 + 8 + 2);
        let with = |place: usize, value: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[place..place + value.len()].copy_from_slice(value);
            Fold::decode(bytes.into(), at).unwrap_err().to_string()
        };
        let last_use = sessions + 4 + 4 + 2 + "~1.1".len();
        for (place, value, why) in [
            (0, &[0][..], "bad feature level"),
            (0, &[9], "of feature level 9, which this version does not know"),
            (1, &[9], "bad operation index"),
            (17, &[1], "bad execution progress"),
            (sessions, &[0, 0, 0, 0], "bad limit of sessions"),
            (sessions, &[255; 4], "bad limit of sessions"),
            (sessions + 4, &[255; 4], "bad number of sessions"),
            (sessions + 4, &[2], "cut short"),
            (last_use, &[0], "bad last use of a session"),
            (last_use, &[9], "bad last use of a session"),
            (last_use + 16, &[255; 2], "bad number of answers"),
            (last_use + 16, &[1], "cut short"),
        ] {
            assert_eq!(with(place, value), why, "at {place}");
        }
        assert!(Fold::decode(bytes.into(), 0).is_err(), "it is of a longer log");
    }

    #[test]
    fn a_recovered_cluster_goes_on_with_operations_and_without_sessions() {
        let operation = || {
            Payload::Operation(Operation {
                data: Bytes::from_static(b"x"),
                session: None,
            })
        };
        let (mut fold, at) = folded(vec![Payload::SessionOpened, operation(), operation()]);
        let (before, parent) = (fold.clone(), ClusterId::new(5).unwrap());
        let recovered = Payload::Recovered {
            parent,
            configuration: configuration(),
        };
        let entry = fold.next_entry(at + 1, 2, placed(recovered, &fold, at + 1));
        assert_eq!(fold.check(&entry), Ok(()));
        let undo = fold.apply(&entry);
        assert_eq!(
            (fold.operation_index, fold.running_hash),
            (2, before.running_hash)
        );
        assert!(fold.sessions.is_empty() && fold.configuration.version == at + 1);
        let common = Parent {
            cluster: parent,
            operation_index: 2,
            running_hash: before.running_hash,
        };
        assert_eq!(fold.parent, Some(common));
        assert_eq!(Fold::decode(encoded(&fold).into(), at + 1), Ok(fold.clone()));
        fold.revert(undo);
        assert_eq!(fold, before);
    }

    #[test]
    fn operation_indexes_are_dense_whatever_lies_between() {
        let operation = || {
            Payload::Operation(Operation {
                data: Bytes::from_static(b"x"),
                session: None,
            })
        };
        let mut fold = Fold::default();
        let mut indexes = Vec::new();
        for (at, payload) in (1..).zip([
            Payload::Noop,
            operation(),
            Payload::SessionOpened,
            Payload::Noop,
            operation(),
            operation(),
        ]) {
            let entry = fold.next_entry(at, at, payload);
            fold.apply(&entry);
            indexes.push(entry.operation_index);
        }
        assert_eq!(indexes, [0, 1, 1, 1, 2, 3]);
    }

    #[test]
    fn an_execution_progress_mark_never_goes_back_but_with_the_tail_that_it_is_in() {
        let operation = || {
            Payload::Operation(Operation {
                data: Bytes::from_static(b"x"),
                session: None,
            })
        };
        let mark = |executed_through| Payload::ExecutionProgress { executed_through };
        let mut fold = Fold::default();
        let mut undos = Vec::new();
        for (at, (payload, marked)) in (1..).zip([
            (operation(), 0),
            (operation(), 0),
            (mark(1), 1),
            (mark(2), 2),
            (mark(1), 2),
            (operation(), 2),
        ]) {
            let entry = fold.next_entry(at, 1, payload);
            assert_eq!(fold.check(&entry), Ok(()));
            undos.push((fold.executed_through, fold.apply(&entry)));
            assert_eq!(fold.executed_through, marked, "entry {at}");
        }
        while let Some((before, undo)) = undos.pop() {
            assert_eq!(undo.executed_through(), before);
            fold.revert(undo);
            assert_eq!(fold.executed_through, before);
        }
    }

    #[test]
    fn what_does_not_continue_the_log_is_named() {
        let fold = Fold::default();
        let entry = fold.next_entry(
            1,
            1,
            Payload::Operation(Operation {
                data: "x".into(),
                session: None,
            }),
        );
        let gap = Entry {
            operation_index: 2,
            ..entry.clone()
        };
        assert!(matches!(
            fold.check(&gap),
            Err(Mismatch::OperationIndex {
                found: 2,
                expected: 1,
                ..
            })
        ));
        let other = Entry {
            running_hash: 1,
            ..entry
        };
        assert!(matches!(fold.check(&other), Err(Mismatch::RunningHash { .. })));
        let ahead = fold.next_entry(1, 1, Payload::ExecutionProgress { executed_through: 1 });
        assert!(matches!(
            fold.check(&ahead),
            Err(Mismatch::ExecutionProgress {
                found: 1,
                last: 0,
                ..
            })
        ));
    }
}
