//! Exactly-once sessions as part of the fold (Raft thesis 6.3): which operation index each (client, sequence) got.
//!
//! Everything here is a function of the log alone, so that every member decides alike, and every change can be undone,
//! so that a truncated tail leaves no trace.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::entry::{
    CLIENT_ID_BYTES_MAX, DecodeError, SessionStamp, get_text, get_u16, get_u32, get_u64, put_text,
};
use crate::ids::{LogIndex, OperationIndex, Term};

/// Answers that one session remembers.
pub const ANSWERS_PER_SESSION_MAX: usize = 1_024;
/// Sessions that are kept, by the log order of their last use.
pub const SESSIONS_MAX: usize = 100_000;

/// Client IDs that start with this come from [`opened_id`] and nowhere else.
const OPENED_PREFIX: char = '~';

/// The `client_id` of the session that the entry at that term and log index opened.
pub fn opened_id(term: Term, log_index: LogIndex) -> String {
    format!("{OPENED_PREFIX}{term:x}.{log_index:x}")
}

/// The term in which the session of that ID was opened; `None` for one that its client has named.
pub fn opened_in(client_id: &str) -> Option<Term> {
    let (term, _) = client_id.strip_prefix(OPENED_PREFIX)?.split_once('.')?;
    Term::from_str_radix(term, 16).ok()
}

/// What the sessions say of an operation before it is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    New,
    /// It has been appended, at that operation index.
    Known(OperationIndex),
    /// Below what the session remembers: never append.
    Forgotten,
    /// An opened session that was evicted, or never was: never append.
    Expired,
}

/// All sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    by_id: BTreeMap<Arc<str>, Session>,
    /// Sessions by the log index of their last use, which no two share.
    by_use: BTreeMap<LogIndex, Arc<str>>,
    limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    last_use: LogIndex,
    /// Sequence -> operation index.
    answers: BTreeMap<u64, OperationIndex>,
    /// Sequences below this one are forgotten.
    remembers_from: u64,
}

/// What takes one change back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    client_id: Arc<str>,
    /// The session's `last_use` and `remembers_from` before; `None` where it was new.
    before: Option<(LogIndex, u64)>,
    inserted: Option<u64>,
    dropped: Vec<(u64, OperationIndex)>,
    evicted: Option<(Arc<str>, Session)>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::with_limit(SESSIONS_MAX)
    }
}

impl Sessions {
    /// Keeps that many sessions.
    pub fn with_limit(limit: usize) -> Self {
        assert!(limit > 0, "at least one session is kept");
        Self {
            by_id: BTreeMap::new(),
            by_use: BTreeMap::new(),
            limit,
        }
    }

    /// Sessions held.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// None, with the same limit.
    #[must_use]
    pub fn cleared(&self) -> Self {
        Self::with_limit(self.limit)
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// What to do with an operation of that stamp.
    pub fn verdict(&self, stamp: &SessionStamp) -> Verdict {
        let Some(session) = self.by_id.get(&*stamp.client_id) else {
            return if stamp.client_id.starts_with(OPENED_PREFIX) {
                Verdict::Expired
            } else if acknowledges_itself(stamp) {
                Verdict::Forgotten
            } else {
                Verdict::New
            };
        };
        if let Some(&index) = session.answers.get(&stamp.sequence) {
            return Verdict::Known(index);
        }
        // A full table remembers its highest sequences: what lies below could not be remembered.
        let full = session.answers.len() >= ANSWERS_PER_SESSION_MAX;
        let below_table = full
            && session
                .answers
                .first_key_value()
                .is_some_and(|(&low, _)| stamp.sequence < low);
        if below_table || session.has_forgotten(stamp.sequence) || acknowledges_itself(stamp) {
            return Verdict::Forgotten;
        }
        Verdict::New
    }

    /// An entry opened a session.
    pub fn open(&mut self, client_id: Arc<str>, at: LogIndex) -> Undo {
        self.record(client_id, at, None, 0)
    }

    /// An entry of that stamp was appended at that log index as that operation.
    pub fn append(&mut self, stamp: &SessionStamp, at: LogIndex, index: OperationIndex) -> Undo {
        self.record(
            Arc::clone(&stamp.client_id),
            at,
            Some((stamp.sequence, index)),
            stamp.acknowledged_through,
        )
    }

    fn record(
        &mut self,
        client_id: Arc<str>,
        at: LogIndex,
        answer: Option<(u64, OperationIndex)>,
        acknowledged_through: u64,
    ) -> Undo {
        let mut undo = Undo {
            client_id: Arc::clone(&client_id),
            before: None,
            inserted: None,
            dropped: Vec::new(),
            evicted: None,
        };
        if let Some(session) = self.by_id.get(&client_id) {
            undo.before = Some((session.last_use, session.remembers_from));
            self.by_use.remove(&session.last_use);
        } else if self.by_id.len() >= self.limit {
            undo.evicted = self.evict_oldest();
        }
        self.by_use.insert(at, Arc::clone(&client_id));
        let session = self.by_id.entry(client_id).or_insert_with(|| Session {
            last_use: at,
            answers: BTreeMap::new(),
            remembers_from: 0,
        });
        session.last_use = at;
        if let Some((sequence, index)) = answer
            && !session.answers.contains_key(&sequence)
        {
            session.answers.insert(sequence, index);
            undo.inserted = Some(sequence);
        }
        session.forget(acknowledged_through, &mut undo.dropped);
        undo
    }

    /// Appends the form in a snapshot: `limit u32, count u32`, and in the order of their last use `client_id (length u16, UTF-8),
    /// last_use u64, remembers_from u64, count u16`, with `sequence u64, operation_index u64` for each answer, ascending.
    ///
    /// This appends what comes before the sessions.
    pub(crate) fn encode_beginning(&self, out: &mut Vec<u8>) {
        let number = |number: usize| u32::try_from(number).expect("sessions are bounded");
        out.put_u32_le(number(self.limit));
        out.put_u32_le(number(self.by_use.len()));
    }

    /// Appends the sessions used after `after`, until that took `bytes`; where to go on, or `None` after the last.
    pub(crate) fn encode_after(&self, after: LogIndex, bytes: usize, out: &mut Vec<u8>) -> Option<LogIndex> {
        let most = out.len().saturating_add(bytes);
        for (&used, id) in self.by_use.range(after + 1..) {
            let session = self.by_id.get(id).expect("what was used is there");
            put_text(id, out);
            out.put_u64_le(session.last_use);
            out.put_u64_le(session.remembers_from);
            out.put_u16_le(u16::try_from(session.answers.len()).expect("answers are bounded"));
            for (sequence, index) in &session.answers {
                out.put_u64_le(*sequence);
                out.put_u64_le(*index);
            }
            if out.len() >= most {
                return Some(used);
            }
        }
        None
    }

    /// Reads what [`Sessions::encode`] wrote, of a log up to `at` with that many operations. What it says of lengths is
    /// believed only as far as there are bytes.
    pub(crate) fn decode(
        from: &mut Bytes,
        at: LogIndex,
        operations: OperationIndex,
    ) -> Result<Self, DecodeError> {
        let bad = |what| Err(DecodeError::Field(what));
        let limit = usize::try_from(get_u32(from)?).unwrap_or(usize::MAX);
        if !(1..=SESSIONS_MAX).contains(&limit) {
            return bad("limit of sessions");
        }
        let count = usize::try_from(get_u32(from)?).unwrap_or(usize::MAX);
        if count > limit {
            return bad("number of sessions");
        }
        let mut sessions = Self::with_limit(limit);
        for _ in 0..count {
            let id: Arc<str> = get_text(from)?.into();
            let session = Session::decode(from, operations)?;
            let used = sessions.by_use.last_key_value().map_or(0, |(&last, _)| last);
            if !(used + 1..=at).contains(&session.last_use) {
                return bad("last use of a session");
            }
            if id.is_empty() || id.len() > CLIENT_ID_BYTES_MAX {
                return bad("client ID");
            }
            sessions.by_use.insert(session.last_use, Arc::clone(&id));
            if sessions.by_id.insert(id, session).is_some() {
                return bad("second session of a client");
            }
        }
        Ok(sessions)
    }

    fn evict_oldest(&mut self) -> Option<(Arc<str>, Session)> {
        let (_, id) = self.by_use.pop_first()?;
        let session = self.by_id.remove(&id)?;
        Some((id, session))
    }

    /// Takes back the latest change that has not been taken back.
    pub fn revert(&mut self, undo: Undo) {
        let session = self
            .by_id
            .get_mut(&undo.client_id)
            .expect("what is undone was done to a session that is there");
        self.by_use.remove(&session.last_use);
        match undo.before {
            None => {
                self.by_id.remove(&undo.client_id);
            }
            Some((last_use, remembers_from)) => {
                if let Some(sequence) = undo.inserted {
                    session.answers.remove(&sequence);
                }
                session.answers.extend(
                    undo.dropped
                        .into_iter()
                        .filter(|(s, _)| Some(*s) != undo.inserted),
                );
                session.last_use = last_use;
                session.remembers_from = remembers_from;
                self.by_use.insert(last_use, undo.client_id);
            }
        }
        if let Some((id, session)) = undo.evicted {
            self.by_use.insert(session.last_use, Arc::clone(&id));
            self.by_id.insert(id, session);
        }
    }
}

impl Session {
    fn decode(from: &mut Bytes, operations: OperationIndex) -> Result<Self, DecodeError> {
        let mut session = Self {
            last_use: get_u64(from)?,
            remembers_from: get_u64(from)?,
            answers: BTreeMap::new(),
        };
        let count = usize::from(get_u16(from)?);
        if count > ANSWERS_PER_SESSION_MAX {
            return Err(DecodeError::Field("number of answers"));
        }
        for _ in 0..count {
            let (sequence, index) = (get_u64(from)?, get_u64(from)?);
            let ascends = session
                .answers
                .last_key_value()
                .is_none_or(|(&last, _)| last < sequence);
            if !ascends || session.has_forgotten(sequence) || !(1..=operations).contains(&index) {
                return Err(DecodeError::Field("answer of a session"));
            }
            session.answers.insert(sequence, index);
        }
        Ok(session)
    }

    fn has_forgotten(&self, sequence: u64) -> bool {
        sequence < self.remembers_from
    }

    /// Drops what is acknowledged, and the lowest of what is too many.
    fn forget(&mut self, acknowledged_through: u64, dropped: &mut Vec<(u64, OperationIndex)>) {
        if acknowledged_through > 0 {
            self.remembers_from = self.remembers_from.max(acknowledged_through.saturating_add(1));
        }
        while let Some((&lowest, _)) = self.answers.first_key_value() {
            if lowest >= self.remembers_from && self.answers.len() <= ANSWERS_PER_SESSION_MAX {
                break;
            }
            dropped.extend(self.answers.pop_first());
            self.remembers_from = self.remembers_from.max(lowest.saturating_add(1));
        }
    }
}

/// An operation whose answer the client declares unneeded in the same breath could not be remembered.
fn acknowledges_itself(stamp: &SessionStamp) -> bool {
    stamp.acknowledged_through > 0 && stamp.sequence <= stamp.acknowledged_through
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(client: &str, sequence: u64, acknowledged_through: u64) -> SessionStamp {
        SessionStamp {
            client_id: client.into(),
            sequence,
            acknowledged_through,
        }
    }

    #[test]
    fn the_same_sequence_answers_the_same_index() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.verdict(&stamp("a", 7, 0)), Verdict::New);
        sessions.append(&stamp("a", 7, 0), 10, 3);
        assert_eq!(sessions.verdict(&stamp("a", 7, 0)), Verdict::Known(3));
        assert_eq!(
            sessions.verdict(&stamp("a", 5, 0)),
            Verdict::New,
            "gaps and any first sequence are allowed"
        );
        assert_eq!(sessions.verdict(&stamp("b", 7, 0)), Verdict::New);
    }

    #[test]
    fn what_is_acknowledged_is_forgotten() {
        let mut sessions = Sessions::default();
        for sequence in 1..=5 {
            sessions.append(&stamp("a", sequence, 0), sequence, sequence);
        }
        sessions.append(&stamp("a", 6, 4), 6, 6);
        assert_eq!(sessions.verdict(&stamp("a", 4, 0)), Verdict::Forgotten);
        assert_eq!(sessions.verdict(&stamp("a", 5, 0)), Verdict::Known(5));
        assert_eq!(
            sessions.verdict(&stamp("a", 8, 8)),
            Verdict::Forgotten,
            "it would not be remembered"
        );
        assert_eq!(sessions.verdict(&stamp("new", 8, 8)), Verdict::Forgotten);
    }

    #[test]
    fn the_highest_sequences_are_remembered() {
        let mut sessions = Sessions::default();
        let most = ANSWERS_PER_SESSION_MAX as u64;
        for sequence in 10..10 + most {
            sessions.append(&stamp("a", sequence, 0), sequence, sequence);
        }
        assert_eq!(
            sessions.verdict(&stamp("a", 9, 0)),
            Verdict::Forgotten,
            "the table is full of higher ones"
        );
        sessions.append(&stamp("a", 10 + most, 0), 10 + most, 10 + most);
        assert_eq!(sessions.verdict(&stamp("a", 10, 0)), Verdict::Forgotten);
        assert_eq!(sessions.verdict(&stamp("a", 11, 0)), Verdict::Known(11));
    }

    #[test]
    fn sequence_zero_is_a_sequence() {
        let mut sessions = Sessions::default();
        sessions.append(&stamp("a", 0, 0), 1, 1);
        assert_eq!(sessions.verdict(&stamp("a", 0, 0)), Verdict::Known(1));
        sessions.append(&stamp("a", 1, 0), 2, 2);
        assert_eq!(
            sessions.verdict(&stamp("a", 0, 0)),
            Verdict::Known(1),
            "0 acknowledges nothing"
        );
    }

    #[test]
    fn the_session_used_longest_ago_is_evicted() {
        let mut sessions = Sessions::with_limit(2);
        let opened: Arc<str> = opened_id(3, 1).into();
        sessions.open(Arc::clone(&opened), 1);
        sessions.append(&stamp("b", 1, 0), 2, 1);
        sessions.append(&stamp(&opened, 1, 0), 3, 2);
        sessions.append(&stamp("c", 1, 0), 4, 3);
        assert_eq!(
            sessions.verdict(&stamp("b", 1, 0)),
            Verdict::New,
            "free-form: the promise lasts while it is kept"
        );
        assert_eq!(sessions.verdict(&stamp(&opened, 1, 0)), Verdict::Known(2));
        sessions.append(&stamp("d", 1, 0), 5, 4);
        assert_eq!(sessions.verdict(&stamp(&opened, 1, 0)), Verdict::Expired);
    }

    #[test]
    fn an_opened_id_that_nobody_opened_is_expired() {
        assert_eq!(
            Sessions::default().verdict(&stamp("~1.1", 1, 0)),
            Verdict::Expired
        );
    }
}
