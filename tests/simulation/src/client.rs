//! The simulated clients: each keeps some operations under way, tries them at any node until they are acknowledged, and reads
//! in between. What any of them knows by now a later read of any other has to see.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use raftlog_raft::entry::{Operation, SessionStamp};
use raftlog_raft::ids::OperationIndex;
use raftlog_raft::time::Time;
use raftlog_server::node::{Proposed, RequestId};

/// 0, 1, 2, ...
pub(crate) type ClientNumber = u32;

/// How a client makes sure that its operations are appended once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Session {
    /// It names its session itself.
    Named(Arc<str>),
    /// It wants a session opened, and knows its name from the answer.
    Opened(Option<Arc<str>>),
    /// It has none, and never submits again what may have been appended.
    None,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) session: Session,
    next_sequence: u64,
    /// Operations that are not acknowledged, with the latest request for each.
    pub(crate) under_way: BTreeMap<u64, UnderWay>,
    pub(crate) acknowledged: u64,
}

/// An operation that is not acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct UnderWay {
    pub(crate) data: Bytes,
    pub(crate) latest: RequestId,
}

/// What a request was for.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// To append this one of that client's.
    Operation {
        client: ClientNumber,
        sequence: u64,
        data: Bytes,
        acknowledged_through: u64,
        session: Option<Arc<str>>,
    },
    /// To open a session.
    OpenSession { client: ClientNumber },
    /// To read; what was known when it was asked.
    Read { floor: OperationIndex },
    /// To append an operation without a session, only to see how long that takes.
    Measured { data: Bytes, asked: Time },
}

impl Client {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session,
            next_sequence: 1,
            under_way: BTreeMap::new(),
            acknowledged: 0,
        }
    }

    /// It has to have its session opened before anything else.
    pub(crate) fn needs_session(&self) -> bool {
        self.session == Session::Opened(None)
    }

    /// Its session is gone, and with it what it said about operations under way: they may have been appended, so it must not
    /// submit them again.
    pub(crate) fn session_expired(&mut self) {
        self.session = Session::Opened(None);
        self.under_way.clear();
    }

    fn session_id(&self) -> Option<Arc<str>> {
        match &self.session {
            Session::Named(id) | Session::Opened(Some(id)) => Some(Arc::clone(id)),
            Session::Opened(None) | Session::None => None,
        }
    }

    /// Begins another operation; its sequence.
    pub(crate) fn begin(&mut self, number: ClientNumber, bytes: usize) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let mut data = format!("c{number}-{sequence}").into_bytes();
        data.resize(data.len().max(bytes), b'.');
        let data = Bytes::from(data);
        self.under_way.insert(sequence, UnderWay { data, latest: 0 });
        sequence
    }

    /// A request for that operation, if it is still under way.
    pub(crate) fn request(&self, number: ClientNumber, sequence: u64) -> Option<Request> {
        let lowest = self.under_way.keys().next().copied()?;
        let operation = self.under_way.get(&sequence)?;
        Some(Request::Operation {
            client: number,
            sequence,
            data: operation.data.clone(),
            acknowledged_through: lowest - 1,
            session: self.session_id(),
        })
    }
}

impl Request {
    /// What a node is given of it; nothing for a read.
    pub(crate) fn proposed(&self) -> Option<Proposed> {
        match self {
            Self::Operation {
                sequence,
                data,
                acknowledged_through,
                session,
                ..
            } => Some(Proposed::Operation(Operation {
                data: data.clone(),
                session: session.as_ref().map(|client_id| SessionStamp {
                    client_id: Arc::clone(client_id),
                    sequence: *sequence,
                    acknowledged_through: *acknowledged_through,
                }),
            })),
            Self::Measured { data, .. } => Some(Proposed::Operation(Operation {
                data: data.clone(),
                session: None,
            })),
            Self::OpenSession { .. } => Some(Proposed::OpenSession),
            Self::Read { .. } => None,
        }
    }
}
