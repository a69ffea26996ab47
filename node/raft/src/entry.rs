//! What the log holds, and its form on disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use thiserror::Error;

use crate::feature::FeatureLevel;
use crate::ids::{ClusterId, LogIndex, MemberId, OperationIndex, Term};
use crate::membership::{Configuration, Member, OldVoter};

/// The longest operation, in bytes.
pub const OPERATION_BYTES_MAX: usize = 1 << 20;
/// The longest `client_id`, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 256;

/// One entry of the Raft log: `<operation, term, index>` and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Raft's own index.
    pub log_index: LogIndex,
    /// Term of the leader that made it.
    pub term: Term,
    /// An operation's own index; for other kinds that of the last operation before.
    pub operation_index: OperationIndex,
    /// [`crate::fold::running_hash`] over all operations up to and with this entry.
    pub running_hash: u64,
    /// What it says.
    pub payload: Payload,
}

/// The kinds of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Starts a leader's term (Raft 8).
    Noop,
    /// From a client.
    Operation(Operation),
    /// A configuration, in force from its append.
    Configuration(Configuration),
    /// Opens the session named by [`crate::session::opened_id`] of this entry's term and log index.
    SessionOpened,
    /// The replicator of the leader, whose term the entry has, has executed up to here (`executeOn: leader`). Every version that knows
    /// feature levels knows this kind and its place in the fold, so that it waits for no level.
    ExecutionProgress {
        /// Operation index.
        executed_through: OperationIndex,
    },
    /// A majority was lost for good, and one member went on alone with what it held: a new cluster begins here, in that
    /// configuration and without any session.
    Recovered {
        /// The cluster whose log ends with the entry before.
        parent: ClusterId,
        /// Who is left; never joint.
        configuration: Configuration,
    },
    /// Every member supports that level, which is higher than the one before: its rules hold for the entries behind this one.
    FeatureLevel(FeatureLevel),
}

/// Opaque bytes from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// 1 byte to [`OPERATION_BYTES_MAX`].
    pub data: Bytes,
    /// Absent where the client asked for no session.
    pub session: Option<SessionStamp>,
}

/// An operation's place in its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStamp {
    /// 1 to [`CLIENT_ID_BYTES_MAX`] bytes.
    pub client_id: Arc<str>,
    /// The client's own number for the operation.
    pub sequence: u64,
    /// The client needs no answers up to here any more.
    pub acknowledged_through: u64,
}

/// What must be on disk before a member votes or acknowledges (Raft figure 2), and what helps after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// Highest term seen.
    pub term: Term,
    /// Whom this member voted for in `term`.
    pub voted_for: Option<MemberId>,
    /// A commit index known when this was written: recovery may fold that far for good.
    pub commit: LogIndex,
    /// The largest minimum election timeout that a leader has stated.
    pub stated_minimum: Duration,
}

/// What was read is not an entry or a hard state of this format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("cut short")]
    Short,
    /// Bytes are left over.
    #[error("{0} bytes too long")]
    Long(usize),
    /// A kind that this version does not know.
    #[error("unknown entry kind {0}")]
    Kind(u8),
    /// A field has a value that it must not have.
    #[error("bad {0}")]
    Field(&'static str),
    /// It has the form of a level whose rules this version does not know.
    #[error("of feature level {0}, which this version does not know")]
    FeatureLevel(FeatureLevel),
}

const KIND_NOOP: u8 = 1;
const KIND_OPERATION: u8 = 2;
const KIND_CONFIGURATION: u8 = 3;
const KIND_SESSION_OPENED: u8 = 4;
const KIND_EXECUTION_PROGRESS: u8 = 5;
/// Its own kind, so that a version that knows no joint configurations refuses one rather than reads half of it.
const KIND_JOINT_CONFIGURATION: u8 = 6;
const KIND_RECOVERED: u8 = 7;
const KIND_FEATURE_LEVEL: u8 = 8;

impl Entry {
    /// Bytes that this entry holds in memory, about; what bounds of bytes count.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 96;
        FIXED
            + match &self.payload {
                Payload::Operation(operation) => {
                    operation.data.len() + operation.session.as_ref().map_or(0, |s| s.client_id.len() + 16)
                }
                Payload::Configuration(c) | Payload::Recovered { configuration: c, .. } => {
                    c.members().len() * 128
                }
                _ => 0,
            }
    }

    /// Whether it carries an operation.
    pub fn is_operation(&self) -> bool {
        matches!(self.payload, Payload::Operation(_))
    }

    /// Appends the form on disk: little-endian, `log_index u64, term u64, operation_index u64, running_hash u64, kind u8`,
    /// and what the kind adds.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.log_index);
        out.put_u64_le(self.term);
        out.put_u64_le(self.operation_index);
        out.put_u64_le(self.running_hash);
        match &self.payload {
            Payload::Noop => out.put_u8(KIND_NOOP),
            Payload::Operation(operation) => {
                out.put_u8(KIND_OPERATION);
                encode_operation(operation, out);
            }
            Payload::Configuration(configuration) if configuration.is_joint() => {
                out.put_u8(KIND_JOINT_CONFIGURATION);
                encode_configuration(configuration, out);
                encode_old_voters(configuration.old_voters(), out);
            }
            Payload::Configuration(configuration) => {
                out.put_u8(KIND_CONFIGURATION);
                encode_configuration(configuration, out);
            }
            Payload::SessionOpened => out.put_u8(KIND_SESSION_OPENED),
            Payload::ExecutionProgress { executed_through } => {
                out.put_u8(KIND_EXECUTION_PROGRESS);
                out.put_u64_le(*executed_through);
            }
            Payload::Recovered {
                parent,
                configuration,
            } => {
                out.put_u8(KIND_RECOVERED);
                out.put_u64_le(parent.get());
                encode_configuration(configuration, out);
            }
            Payload::FeatureLevel(level) => {
                out.put_u8(KIND_FEATURE_LEVEL);
                out.put_u8(level.get());
            }
        }
    }

    /// Reads what [`Entry::encode`] wrote; operation data shares the buffer.
    pub fn decode(mut from: Bytes) -> Result<Self, DecodeError> {
        let from = &mut from;
        let log_index = get_u64(from)?;
        let term = get_u64(from)?;
        let operation_index = get_u64(from)?;
        let running_hash = get_u64(from)?;
        let payload = match get_u8(from)? {
            KIND_NOOP => Payload::Noop,
            KIND_OPERATION => Payload::Operation(decode_operation(from)?),
            KIND_CONFIGURATION => Payload::Configuration(decode_configuration(from)?),
            KIND_JOINT_CONFIGURATION => Payload::Configuration(decode_joint_configuration(from)?),
            KIND_SESSION_OPENED => Payload::SessionOpened,
            KIND_EXECUTION_PROGRESS => Payload::ExecutionProgress {
                executed_through: get_u64(from)?,
            },
            KIND_RECOVERED => Payload::Recovered {
                parent: ClusterId::new(get_u64(from)?).ok_or(DecodeError::Field("parent"))?,
                configuration: decode_configuration(from)?,
            },
            KIND_FEATURE_LEVEL => Payload::FeatureLevel(
                FeatureLevel::new(get_u8(from)?).ok_or(DecodeError::Field("feature level"))?,
            ),
            kind => return Err(DecodeError::Kind(kind)),
        };
        if from.has_remaining() {
            return Err(DecodeError::Long(from.remaining()));
        }
        Ok(Self {
            log_index,
            term,
            operation_index,
            running_hash,
            payload,
        })
    }
}

impl HardState {
    /// Appends the form on disk: `term u64, voted_for u64 (0: nobody), commit u64, stated_minimum u64 (microseconds)`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.term);
        out.put_u64_le(self.voted_for.map_or(0, MemberId::get));
        out.put_u64_le(self.commit);
        out.put_u64_le(u64::try_from(self.stated_minimum.as_micros()).unwrap_or(u64::MAX));
    }

    /// Reads what [`HardState::encode`] wrote.
    pub fn decode(mut from: Bytes) -> Result<Self, DecodeError> {
        let from = &mut from;
        let state = Self {
            term: get_u64(from)?,
            voted_for: MemberId::new(get_u64(from)?),
            commit: get_u64(from)?,
            stated_minimum: Duration::from_micros(get_u64(from)?),
        };
        if from.has_remaining() {
            return Err(DecodeError::Long(from.remaining()));
        }
        Ok(state)
    }
}

fn encode_operation(operation: &Operation, out: &mut Vec<u8>) {
    match &operation.session {
        None => out.put_u16_le(0),
        Some(stamp) => {
            put_text(&stamp.client_id, out);
            out.put_u64_le(stamp.sequence);
            out.put_u64_le(stamp.acknowledged_through);
        }
    }
    out.put_slice(&operation.data);
}

fn decode_operation(from: &mut Bytes) -> Result<Operation, DecodeError> {
    let client_id = get_text(from)?;
    let session = if client_id.is_empty() {
        None
    } else {
        Some(SessionStamp {
            client_id: client_id.into(),
            sequence: get_u64(from)?,
            acknowledged_through: get_u64(from)?,
        })
    };
    let data = from.split_to(from.len());
    if data.is_empty() || data.len() > OPERATION_BYTES_MAX {
        return Err(DecodeError::Field("operation length"));
    }
    Ok(Operation { data, session })
}

pub(crate) fn encode_configuration(configuration: &Configuration, out: &mut Vec<u8>) {
    out.put_u64_le(configuration.version);
    let count = u16::try_from(configuration.members().len()).expect("a configuration has few members");
    out.put_u16_le(count);
    for member in configuration.members() {
        out.put_u64_le(member.id.get());
        out.put_u32_le(member.node);
        out.put_u8(u8::from(member.voter));
        put_text(&member.peer_address, out);
        put_text(&member.client_address, out);
    }
}

pub(crate) fn decode_configuration(from: &mut Bytes) -> Result<Configuration, DecodeError> {
    let version = get_u64(from)?;
    let count = get_u16(from)?;
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(Member {
            id: MemberId::new(get_u64(from)?).ok_or(DecodeError::Field("member ID"))?,
            node: get_u32(from)?,
            voter: get_flag(from, "voter flag")?,
            peer_address: get_text(from)?,
            client_address: get_text(from)?,
        });
    }
    Ok(Configuration::new(version, members))
}

pub(crate) fn encode_old_voters(old_voters: &[OldVoter], out: &mut Vec<u8>) {
    out.put_u16_le(u16::try_from(old_voters.len()).expect("a configuration has few members"));
    for voter in old_voters {
        out.put_u64_le(voter.id.get());
        out.put_u8(u8::from(voter.leaves));
    }
}

pub(crate) fn decode_joint_configuration(from: &mut Bytes) -> Result<Configuration, DecodeError> {
    let configuration = decode_configuration(from)?;
    let mut old_voters = Vec::new();
    for _ in 0..get_u16(from)? {
        old_voters.push(OldVoter {
            id: MemberId::new(get_u64(from)?).ok_or(DecodeError::Field("old voter"))?,
            leaves: get_flag(from, "leaving flag")?,
        });
    }
    let members = configuration.members().to_vec();
    Configuration::joint(configuration.version, members, old_voters).ok_or(DecodeError::Field("old voters"))
}

pub(crate) fn put_text(text: &str, out: &mut Vec<u8>) {
    out.put_u16_le(u16::try_from(text.len()).expect("texts are bounded where they come in"));
    out.put_slice(text.as_bytes());
}

pub(crate) fn get_text(from: &mut Bytes) -> Result<String, DecodeError> {
    let length = usize::from(get_u16(from)?);
    if from.len() < length {
        return Err(DecodeError::Short);
    }
    String::from_utf8(from.split_to(length).to_vec()).map_err(|_| DecodeError::Field("text"))
}

pub(crate) fn get_flag(from: &mut Bytes, what: &'static str) -> Result<bool, DecodeError> {
    match get_u8(from)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Field(what)),
    }
}

pub(crate) fn get_u8(from: &mut Bytes) -> Result<u8, DecodeError> {
    from.try_get_u8().map_err(|_| DecodeError::Short)
}

pub(crate) fn get_u16(from: &mut Bytes) -> Result<u16, DecodeError> {
    from.try_get_u16_le().map_err(|_| DecodeError::Short)
}

pub(crate) fn get_u32(from: &mut Bytes) -> Result<u32, DecodeError> {
    from.try_get_u32_le().map_err(|_| DecodeError::Short)
}

pub(crate) fn get_u64(from: &mut Bytes) -> Result<u64, DecodeError> {
    from.try_get_u64_le().map_err(|_| DecodeError::Short)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The member replaces another one.
    fn joint(version: LogIndex, member: Member) -> Configuration {
        let id = MemberId::new(2).unwrap();
        let old = Member {
            id,
            voter: false,
            ..member.clone()
        };
        Configuration::joint(version, vec![member, old], vec![OldVoter { id, leaves: true }]).unwrap()
    }

    fn entries() -> Vec<Entry> {
        let member = Member {
            id: MemberId::new(7).unwrap(),
            node: 1,
            peer_address: "demo-0.demo-peers:5002".into(),
            client_address: "demo-0.demo-peers:5001".into(),
            voter: true,
        };
        let stamp = SessionStamp {
            client_id: "c".into(),
            sequence: 3,
            acknowledged_through: 2,
        };
        [
            Payload::Noop,
            Payload::Operation(Operation {
                data: Bytes::from_static(b"\0\xff\n"),
                session: None,
            }),
            Payload::Operation(Operation {
                data: Bytes::from_static(b"x"),
                session: Some(stamp),
            }),
            Payload::Configuration(Configuration::new(4, vec![member.clone()])),
            Payload::Recovered {
                parent: ClusterId::new(6).unwrap(),
                configuration: Configuration::new(5, vec![member.clone()]),
            },
            Payload::Configuration(joint(4, member)),
            Payload::SessionOpened,
            Payload::ExecutionProgress { executed_through: 9 },
            Payload::FeatureLevel(FeatureLevel::REHEARSED),
        ]
        .into_iter()
        .map(|payload| Entry {
            log_index: 5,
            term: 2,
            operation_index: 3,
            running_hash: 77,
            payload,
        })
        .collect()
    }

    #[test]
    fn every_kind_survives_the_disk() {
        for entry in entries() {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            assert_eq!(Entry::decode(bytes.into()), Ok(entry));
        }
    }

    #[test]
    fn what_is_cut_short_is_refused_and_never_panics() {
        for entry in entries() {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            for length in 0..bytes.len() {
                let cut = Entry::decode(Bytes::copy_from_slice(&bytes[..length]));
                // An operation's data has no length of its own: the record around it has.
                assert!(
                    cut.is_err() || entry.is_operation(),
                    "{length} of {} bytes",
                    bytes.len()
                );
            }
        }
    }

    #[test]
    fn hard_state_survives_the_disk() {
        let state = HardState {
            term: 9,
            voted_for: MemberId::new(3),
            commit: 8,
            stated_minimum: Duration::from_millis(1500),
        };
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        assert_eq!(HardState::decode(bytes.into()), Ok(state));
    }
}
