//! The service `OperationLog`: committed operations for clients.
//!
//! `Watch` and `Read` answer in messages of about 256 KiB, at least one operation each. A client that reads slowly holds up nobody
//! but itself: one message waits for it here and one in its connection, and the next is taken from the log, or read from the disk, only
//! when there is room for it.
//!
//! * `Watch` starts at any index, also one that is not committed yet, and goes on live; with `until_current` it ends where a
//!   `Read` would, and is as linearizable. Or it starts behind a message that a watch gave before, here or elsewhere ([`super::resume`]).
//! * `Read` is linearizable unless `allow_stale`: it first asks the node's leader how far the cluster is. A range that ends
//!   beyond the commit index is answered as far as it exists; one that begins more than one beyond it is `OUT_OF_RANGE`.
//!
//! Operations that were dropped, since snapshots hold what they did, are `OUT_OF_RANGE` in both calls, with the first index
//! that is held in the error's metadata: also index 1, and so index 0, which means it. Whoever asks for the beginning does
//! not expect a later one; and a watch that is so slow that it is overtaken ends so, too: nothing is held for its sake.

use std::time::Duration;

use raftlog_proto::error::{self, status};
use raftlog_proto::reason;
use raftlog_proto::v1::operation_log_server::OperationLog;
use raftlog_proto::v1::{
    GetLogStatusRequest, GetLogStatusResponse, LoggedOperation, ReadRequest, ReadResponse, WatchRequest,
    WatchResponse,
};
use raftlog_raft::ids::{ClusterId, OperationIndex};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::handle::{Handle, Stopping};
use super::resume::Token;
use super::watchers::{Reader, Watch, Watchers};
use super::wire;
use crate::core::{Busy, FetchError, Operation, Place, ReadIndexError};

/// Operations in a message, in bytes; a larger operation goes alone.
const MESSAGE_BYTES: usize = 256 << 10;
/// How long a read waits for its read index.
const READ_INDEX_MAX: Duration = Duration::from_secs(5);

/// See [`OperationLog`].
pub(super) struct OperationLogService {
    handle: Handle,
    watchers: Watchers,
}

/// Where a watch or a read starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    At(OperationIndex),
    /// Behind what the token speaks of, once that is known to be what is here.
    Behind(Token),
}

impl Start {
    fn index(&self) -> OperationIndex {
        match self {
            Self::At(index) => *index,
            Self::Behind(token) => token.next(),
        }
    }
}

impl OperationLogService {
    pub(super) fn new(handle: Handle, watchers: Watchers) -> Self {
        Self { handle, watchers }
    }

    /// The first index of a request, unless it was dropped.
    fn first(&self, from_index: OperationIndex) -> Result<OperationIndex, Status> {
        let first = self.handle.dropped().borrow().index.saturating_add(1);
        match from_index.max(1) {
            from if from < first => Err(dropped_status(from, first)),
            from => Ok(from),
        }
    }

    /// Where a watch starts. What can be told at once is told at once.
    async fn start(&self, request: &WatchRequest) -> Result<Start, Status> {
        if request.resume_token.is_empty() {
            return self.first(request.from_index).map(Start::At);
        }
        if request.from_index != 0 {
            return Err(wire::invalid("give from_index or resume_token, not both"));
        }
        let token = Token::parse(&request.resume_token)?;
        if token.can_be_checked(&self.handle) {
            token.check(&self.handle).await?;
            return self.first(token.next()).map(Start::At);
        }
        Ok(Start::Behind(token))
    }

    /// The commit index, once it is as far as a read has to see. What is published may lag the core's answer by a moment.
    async fn readable(&self, allow_stale: bool) -> Result<OperationIndex, Status> {
        let published = self.handle.commit();
        if allow_stale {
            return Ok(*published.borrow());
        }
        match timeout(READ_INDEX_MAX, self.handle.read_index()).await {
            Ok(Ok(Ok(index))) => Ok(index.max(*published.borrow())),
            Ok(Ok(Err(ReadIndexError::Busy(busy)))) => Err(busy_status(busy)),
            Ok(Ok(Err(no_leader @ ReadIndexError::NoLeader))) => Err(no_leader_status(&no_leader)),
            Ok(Err(Stopping)) => Err(wire::stopping()),
            Err(_) => Err(no_leader_status(&ReadIndexError::NoLeader)),
        }
    }
}

#[tonic::async_trait]
impl OperationLog for OperationLogService {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;
    type ReadStream = ReceiverStream<Result<ReadResponse, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let peer = request.remote_addr();
        let request = request.into_inner();
        let reader = self.watchers.reader()?;
        let start = self.start(&request).await?;
        let until = if request.until_current {
            Some(self.readable(request.allow_stale).await?)
        } else {
            None
        };
        let (messages, queue) = mpsc::channel(1);
        let watch = self.watchers.watch(peer, start.index());
        let client = Client {
            messages,
            watch: Some(watch),
            watchers: self.watchers.clone(),
        };
        tokio::spawn(serve(self.handle.clone(), start, until, client, reader));
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let from = self.first(request.from_index)?;
        let reader = self.watchers.reader()?;
        let commit = self.readable(request.allow_stale).await?;
        let (from, to) = range(from, request.to_index, commit)?;
        let (messages, queue) = mpsc::channel(1);
        let client = Client {
            messages,
            watch: None,
            watchers: self.watchers.clone(),
        };
        tokio::spawn(serve(
            self.handle.clone(),
            Start::At(from),
            Some(to),
            client,
            reader,
        ));
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn get_log_status(
        &self,
        _: Request<GetLogStatusRequest>,
    ) -> Result<Response<GetLogStatusResponse>, Status> {
        Ok(Response::new(wire::log_status(&self.handle.status())))
    }
}

/// The range to answer, empty where `from` is one beyond `to`.
fn range(from: OperationIndex, to: OperationIndex, commit: OperationIndex) -> Result<(u64, u64), Status> {
    if to != 0 && to < from {
        return Err(wire::invalid(&format!(
            "to_index {to} is before from_index {from}"
        )));
    }
    if from > commit.saturating_add(1) {
        let message = format!(
            "index {from} is not committed yet, the commit index is {commit}: watch it, or read later"
        );
        return Err(status(Code::OutOfRange, reason::OUT_OF_RANGE, message));
    }
    Ok((from, if to == 0 { commit } else { to.min(commit) }))
}

/// A message with operations.
trait Message: Send + 'static {
    fn new(
        operations: Vec<LoggedOperation>,
        commit_index: OperationIndex,
        cluster: Option<ClusterId>,
    ) -> Self;
}

impl Message for WatchResponse {
    fn new(
        operations: Vec<LoggedOperation>,
        commit_index: OperationIndex,
        cluster: Option<ClusterId>,
    ) -> Self {
        let token = |(cluster, last): (ClusterId, &LoggedOperation)| Token {
            cluster,
            index: last.index,
            running_hash: last.running_hash,
        };
        let token = cluster.zip(operations.last()).map(token);
        Self {
            resume_token: token.map_or_else(String::new, |token| token.to_string()),
            operations,
            commit_index,
        }
    }
}

impl Message for ReadResponse {
    fn new(operations: Vec<LoggedOperation>, commit_index: OperationIndex, _: Option<ClusterId>) -> Self {
        Self {
            operations,
            commit_index,
        }
    }
}

/// Who is served.
struct Client<M> {
    /// With room for one message.
    messages: mpsc::Sender<Result<M, Status>>,
    /// Absent for a read.
    watch: Option<Watch>,
    watchers: Watchers,
}

/// Sends operations from `start` on, up to `until` or for ever, until the client or the process goes.
///
/// Whoever does not even read how it ended keeps its place among the readers: what its connection holds for it counts.
async fn serve<M: Message>(
    handle: Handle,
    start: Start,
    until: Option<OperationIndex>,
    mut client: Client<M>,
    _reader: Reader,
) {
    let stopping = handle.stopping.clone();
    let end = tokio::select! {
        end = send_all(&handle, start, until, &client) => end,
        () = client.messages.closed() => return,
        () = stopping.cancelled() => Err(wire::stopping()),
    };
    client.watch = None;
    if let Err(status) = end {
        if status.code() == Code::OutOfRange {
            client.watchers.overtaken();
        }
        // Waits behind what the client has not read: a stream must not end as if it were complete.
        let _ = client.messages.send(Err(status)).await;
    }
}

async fn send_all<M: Message>(
    handle: &Handle,
    start: Start,
    until: Option<OperationIndex>,
    client: &Client<M>,
) -> Result<(), Status> {
    let (mut commits, mut dropped) = (handle.commit(), handle.dropped());
    let mut next = start.index();
    let to = until.unwrap_or(OperationIndex::MAX);
    if let Start::Behind(token) = start {
        match until {
            // What the token speaks of is beyond all that is read: only of which cluster it is can be told.
            Some(until) if next > until.saturating_add(1) => token.check_whose(handle).await?,
            _ => token.check(handle).await?,
        }
    }
    while next <= to {
        let place = tokio::select! {
            biased;
            place = client.messages.reserve() => place,
            // Nothing is held for whoever does not read.
            Ok(last) = overtaken(&mut dropped, next) => return Err(dropped_status(next, last.index.saturating_add(1))),
        };
        let Ok(place) = place else { return Ok(()) };
        commits
            .wait_for(|commit| *commit >= next)
            .await
            .map_err(|_| wire::stopping())?;
        let fetched = handle
            .fetch(next, to, MESSAGE_BYTES)
            .await
            .map_err(|Stopping| wire::stopping())?;
        let (operations, commit) = fetched.map_err(|error| match error {
            FetchError::Busy(busy) => busy_status(busy),
            FetchError::Compacted { first } => dropped_status(next, first),
        })?;
        next = operations.last().map_or(next, |last: &Operation| last.index + 1);
        let operations = operations.into_iter().map(wire::logged).collect();
        let cluster = *handle.cluster().borrow();
        place.send(Ok(M::new(operations, commit, cluster)));
        if let Some(watch) = &client.watch {
            watch.goes_on_at(next);
        }
    }
    Ok(())
}

/// Waits until an operation is not held any more, and answers the last that is not.
async fn overtaken(
    dropped: &mut watch::Receiver<Place>,
    next: OperationIndex,
) -> Result<Place, watch::error::RecvError> {
    dropped
        .wait_for(|dropped| dropped.index >= next)
        .await
        .map(|dropped| *dropped)
}

pub(super) fn dropped_status(from: OperationIndex, first: OperationIndex) -> Status {
    let message = format!(
        "index {from} is not held any more, as snapshots hold what it did: the first one held here is {first}, so start there \
         (--from {first}), or ask another replicator"
    );
    error::no_longer_held(first, message)
}

pub(super) fn busy_status(busy: Busy) -> Status {
    status(Code::ResourceExhausted, reason::BACKPRESSURE, busy.to_string())
}

fn no_leader_status(error: &ReadIndexError) -> Status {
    status(Code::Unavailable, reason::NO_LEADER, error.to_string())
}

#[cfg(test)]
mod tests {
    use raftlog_proto::error::reason_of;

    use super::*;

    #[test]
    fn a_range_is_what_exists_of_it() {
        for (from, to, commit, expected) in [
            (1, 0, 0, Ok((1, 0))),
            (1, 0, 5, Ok((1, 5))),
            (2, 4, 5, Ok((2, 4))),
            (2, 9, 5, Ok((2, 5))),
            (6, 0, 5, Ok((6, 5))),
            (6, 9, 5, Ok((6, 5))),
            (7, 9, 5, Err(reason::OUT_OF_RANGE)),
            (u64::MAX, 0, 5, Err(reason::OUT_OF_RANGE)),
            (4, 3, 5, Err(reason::INVALID_REQUEST)),
        ] {
            let found = range(from, to, commit).map_err(|status| reason_of(&status).unwrap_or_default());
            assert_eq!(
                found,
                expected.map_err(str::to_owned),
                "{from}..={to} of {commit}"
            );
        }
    }
}
