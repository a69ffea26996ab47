//! What goes out to the other members: per peer one task, one connection, one AppendEntries stream, opened when there is
//! something to send, and one for a snapshot where it is needed. It reconnects with backoff, and resolves the name every time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use raftlog_proto::MESSAGE_BYTES_MAX;
use raftlog_proto::v1::{self, raft_client::RaftClient};
use raftlog_raft::ids::{ClusterId, MemberId};
use raftlog_raft::membership::{Configuration, Member};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::backoff::Backoff;
use crate::connect;
use crate::handle::Handle;
use crate::header;
use crate::metrics::{Metrics, Peer};
use crate::node::Input;
use crate::snapshot_stream::{self, SnapshotStream};
use crate::wire;

/// Messages that wait for one peer at most. The node bounds the bytes of entries in flight; this bounds the rest.
const QUEUED_MESSAGES_MAX: usize = 256;
/// Unary calls under way to one peer at most: votes come one at a time.
const CALLS_MAX: usize = 4;
/// A stream on which nothing is sent for so many minimum election timeouts, several heartbeats, is closed: its member does
/// not lead any more.
const IDLE_TIMEOUTS: u32 = 10;

/// A message on its way out.
pub(crate) enum Outgoing {
    AppendEntries(v1::AppendEntriesRequest),
    RequestVote(v1::RequestVoteRequest),
    TimeoutNow(v1::TimeoutNowRequest),
    CompareHash(v1::CompareHashRequest),
    InstallSnapshot(v1::InstallSnapshotRequest),
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It waits for its turn; or it is for nobody.
    Queued,
    /// There was no room for it, for the first time since there was: the node has to know.
    Dropped,
    /// There is still no room.
    DroppedAgain,
}

/// The way to one peer's task.
struct Way {
    peer: Member,
    queue: mpsc::Sender<Outgoing>,
    full: bool,
}

/// The ways to all peers that were ever sent something.
pub(crate) struct Peers {
    links: BTreeMap<MemberId, Way>,
    configuration: Arc<Configuration>,
    /// The one before: whoever left with it is still told so.
    before: Arc<Configuration>,
    core: Handle,
    metrics: Metrics,
    /// How long a connection attempt or a vote may take: the minimum election timeout.
    patience: Duration,
}

impl Peers {
    pub(crate) fn new(core: Handle, metrics: Metrics, patience: Duration) -> Self {
        Self {
            links: BTreeMap::new(),
            configuration: Arc::default(),
            before: Arc::default(),
            core,
            metrics,
            patience,
        }
    }

    /// Ends the links to who is a member no longer, nor was until just now, or has moved.
    pub(crate) fn follow(&mut self, configuration: &Arc<Configuration>) {
        if Arc::ptr_eq(configuration, &self.configuration) {
            return;
        }
        self.before = std::mem::replace(&mut self.configuration, Arc::clone(configuration));
        let (now, before) = (&self.configuration, &self.before);
        self.links.retain(|&id, way| {
            now.member(id)
                .or_else(|| before.member(id))
                .is_some_and(|member| member.peer_address == way.peer.peer_address)
        });
    }

    /// Queues a message, or drops it where there is no room.
    pub(crate) fn send(&mut self, to: MemberId, message: Outgoing) -> Sent {
        let listed = self.configuration.member(to).or_else(|| self.before.member(to));
        let way = match (self.links.entry(to), listed) {
            (Entry::Occupied(way), _) => way.into_mut(),
            (Entry::Vacant(place), Some(peer)) => {
                let (queue, messages) = mpsc::channel(QUEUED_MESSAGES_MAX);
                let link = Link {
                    peer: peer.clone(),
                    core: self.core.clone(),
                    metrics: self.metrics.clone(),
                    patience: self.patience,
                };
                tokio::spawn(link.run(messages));
                place.insert(Way {
                    peer: peer.clone(),
                    queue,
                    full: false,
                })
            }
            (Entry::Vacant(_), None) => return Sent::Queued,
        };
        if way.queue.try_send(message).is_ok() {
            way.full = false;
            return Sent::Queued;
        }
        self.metrics
            .messages_dropped
            .get_or_create(&Peer { node: way.peer.node })
            .inc();
        if std::mem::replace(&mut way.full, true) {
            Sent::DroppedAgain
        } else {
            Sent::Dropped
        }
    }
}

/// How a connection ended.
enum End {
    /// Nothing to send for a while, or nobody sends any more.
    Quiet,
    /// What was under way may be lost; why.
    Broken(String),
}

struct Link {
    peer: Member,
    core: Handle,
    metrics: Metrics,
    patience: Duration,
}

/// What a call brought: a message, or that this member was removed by the configuration of that version.
type Call = Result<Vec<Input>, String>;

impl Link {
    async fn run(self, mut queue: mpsc::Receiver<Outgoing>) {
        let mut backoff = Backoff::default();
        while let Some(first) = queue.recv().await {
            let end = match connect::connect(&self.peer.peer_address, self.patience).await {
                Ok(channel) => {
                    self.metrics.peer_connects.get_or_create(&self.label()).inc();
                    self.connected(channel, first, &mut queue, &mut backoff).await
                }
                Err(why) => End::Broken(why),
            };
            if let End::Broken(why) = end {
                self.metrics.peer_breaks.get_or_create(&self.label()).inc();
                tracing::debug!(
                    "connection to Node {} at {}: {why}",
                    self.peer.node,
                    self.peer.peer_address
                );
                // What waits is for a connection that is gone.
                while queue.try_recv().is_ok() {}
                self.core.input(Input::PeerStreamBroken(self.peer.id)).await;
                tokio::time::sleep(backoff.next(rand::random())).await;
            }
        }
    }

    fn label(&self) -> Peer {
        Peer { node: self.peer.node }
    }

    async fn connected(
        &self,
        channel: Channel,
        first: Outgoing,
        queue: &mut mpsc::Receiver<Outgoing>,
        backoff: &mut Backoff,
    ) -> End {
        let client = RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut stream = None;
        let mut calls = JoinSet::new();
        let mut snapshots =
            SnapshotStream::new(self.peer.id, self.core.clone(), client.clone(), self.patience);
        let mut next = Some(first);
        loop {
            match next.take() {
                Some(Outgoing::AppendEntries(mut request)) => {
                    if stream.is_none() {
                        match self.open(client.clone()).await {
                            Ok(opened) => stream = Some(opened),
                            Err(why) => return End::Broken(why),
                        }
                        request.bootstrap = self.bootstrap();
                    }
                    let Some((requests, responses)) = &mut stream else {
                        continue;
                    };
                    if let Err(why) = self.append(requests, responses, request, backoff).await {
                        return End::Broken(why);
                    }
                }
                Some(Outgoing::InstallSnapshot(request)) => {
                    let bytes = snapshot_stream::data_bytes(&request);
                    if snapshots.send(request) {
                        self.metrics
                            .snapshot_bytes_sent
                            .get_or_create(&self.label())
                            .inc_by(bytes);
                    } else {
                        self.metrics.messages_dropped.get_or_create(&self.label()).inc();
                    }
                }
                Some(Outgoing::RequestVote(request)) if calls.len() < CALLS_MAX => {
                    calls.spawn(request_vote(client.clone(), request, self.patience));
                }
                Some(Outgoing::CompareHash(request)) if calls.len() < CALLS_MAX => {
                    calls.spawn(compare_hash(client.clone(), request, self.patience));
                }
                Some(Outgoing::TimeoutNow(request)) if calls.len() < CALLS_MAX => {
                    calls.spawn(timeout_now(client.clone(), request, self.patience));
                }
                Some(_) => {
                    self.metrics.messages_dropped.get_or_create(&self.label()).inc();
                }
                None => {}
            }
            tokio::select! {
                message = queue.recv() => match message {
                    Some(message) => next = Some(message),
                    None => return End::Quiet,
                },
                response = receive(&mut stream) => {
                    if let Err(why) = self.received(response, backoff).await {
                        return End::Broken(why);
                    }
                }
                Some(call) = calls.join_next() => match call {
                    Ok(Ok(inputs)) => {
                        for input in inputs {
                            backoff.reset();
                            self.core.input(input).await;
                        }
                    }
                    Ok(Err(why)) => return End::Broken(why),
                    Err(error) => return End::Broken(error.to_string()),
                },
                () = tokio::time::sleep(self.patience * IDLE_TIMEOUTS) => return End::Quiet,
            }
        }
    }

    /// For a peer that may not know yet that it belongs to the cluster.
    fn bootstrap(&self) -> Vec<v1::Member> {
        let own = self.core.published();
        let bootstrap = own.bootstrap.as_deref();
        bootstrap.map_or_else(Vec::new, |bootstrap| wire::members_to_wire(bootstrap.members()))
    }

    async fn open(&self, mut client: RaftClient<Channel>) -> Result<Stream, String> {
        let (requests, outgoing) = mpsc::channel(1);
        let opening = client.append_entries(Request::new(ReceiverStream::new(outgoing)));
        match tokio::time::timeout(self.patience, opening).await {
            Ok(Ok(response)) => Ok((requests, response.into_inner())),
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err(format!("no stream within {:?}", self.patience)),
        }
    }

    /// Sends one request as soon as the connection takes it; responses are not kept waiting meanwhile.
    async fn append(
        &self,
        requests: &mpsc::Sender<v1::AppendEntriesRequest>,
        responses: &mut Streaming<v1::AppendEntriesResponse>,
        request: v1::AppendEntriesRequest,
        backoff: &mut Backoff,
    ) -> Result<(), String> {
        loop {
            tokio::select! {
                permit = requests.reserve() => {
                    permit.map_err(|_| "the stream ended".to_owned())?.send(request);
                    return Ok(());
                }
                response = responses.message() => self.received(response, backoff).await?,
            }
        }
    }

    async fn received(
        &self,
        response: Result<Option<v1::AppendEntriesResponse>, tonic::Status>,
        backoff: &mut Backoff,
    ) -> Result<(), String> {
        let response = match response {
            Ok(Some(response)) => response,
            Ok(None) => return Err("the stream ended".into()),
            Err(status) => return Err(status.to_string()),
        };
        let own = self.core.published();
        let from = header::check(response.header.as_ref(), own.cluster_id, own.member_id)
            .ok()
            .filter(|&from| from == self.peer.id)
            .ok_or("a response of another member or cluster")?;
        let message = wire::append_response_from_wire(from, own.member_id, response);
        backoff.reset();
        self.core
            .input(Input::Message(message.map_err(|error| error.to_string())?))
            .await;
        Ok(())
    }
}

type Stream = (
    mpsc::Sender<v1::AppendEntriesRequest>,
    Streaming<v1::AppendEntriesResponse>,
);

/// The next response; never, without a stream.
async fn receive(stream: &mut Option<Stream>) -> Result<Option<v1::AppendEntriesResponse>, tonic::Status> {
    match stream {
        Some((_, responses)) => responses.message().await,
        None => std::future::pending().await,
    }
}

async fn request_vote(
    mut client: RaftClient<Channel>,
    request: v1::RequestVoteRequest,
    patience: Duration,
) -> Call {
    let asked = request.header.unwrap_or_default();
    let response = match tokio::time::timeout(patience, client.request_vote(request)).await {
        // A voter that says nothing in time has not voted.
        Err(_) => return Ok(Vec::new()),
        Ok(Err(status)) => return unanswered(&status),
        Ok(Ok(response)) => response.into_inner(),
    };
    let (from, to) =
        parties(&asked, response.header.as_ref()).ok_or("a vote of another member or cluster")?;
    let vote = wire::vote_from_wire(from, to, &response).map_err(|error| error.to_string())?;
    let mut inputs = vec![Input::Message(vote)];
    if response.removed_by > 0 {
        let version = response.removed_by;
        inputs.push(Input::Removed { version });
    }
    Ok(inputs)
}

async fn timeout_now(
    mut client: RaftClient<Channel>,
    request: v1::TimeoutNowRequest,
    patience: Duration,
) -> Call {
    match tokio::time::timeout(patience, client.timeout_now(request)).await {
        Ok(Err(status)) => unanswered(&status),
        _ => Ok(Vec::new()),
    }
}

async fn compare_hash(
    mut client: RaftClient<Channel>,
    request: v1::CompareHashRequest,
    patience: Duration,
) -> Call {
    let asked = request.header.unwrap_or_default();
    let response = match tokio::time::timeout(patience, client.compare_hash(request)).await {
        // Who does not hold that entry says nothing.
        Err(_) => return Ok(Vec::new()),
        Ok(Err(status)) => return unanswered(&status),
        Ok(Ok(response)) => response.into_inner(),
    };
    let (from, to) =
        parties(&asked, response.header.as_ref()).ok_or("a hash of another member or cluster")?;
    let compared = wire::compared_from_wire(from, to, &response).map_err(|error| error.to_string())?;
    Ok(vec![Input::Message(compared)])
}

/// Who answers whom, where the answer is of the member and the cluster that were asked.
fn parties(asked: &v1::Header, answer: Option<&v1::Header>) -> Option<(MemberId, MemberId)> {
    let own = MemberId::new(asked.from_member)?;
    let from = header::check(answer, ClusterId::new(asked.cluster_id), own).ok()?;
    (from.get() == asked.to_member).then_some((from, own))
}

/// A status that the other side gave is its answer; one without is a broken connection.
fn unanswered(status: &tonic::Status) -> Call {
    use std::error::Error as _;
    if status.source().is_some() {
        Err(connect::root_cause(status))
    } else {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio::sync::watch;

    use super::*;
    use crate::readiness::tests::follower;

    fn configuration(version: u64, members: &[u64]) -> Arc<Configuration> {
        let member = |&id: &u64| Member {
            id: MemberId::new(id).unwrap(),
            node: 1,
            // Nobody is there.
            peer_address: "127.0.0.1:1".into(),
            client_address: "127.0.0.1:1".into(),
            voter: true,
        };
        Arc::new(Configuration::new(version, members.iter().map(member).collect()))
    }

    #[tokio::test]
    async fn whoever_has_just_left_is_still_told_and_nobody_else() {
        let (commands, _core) = mpsc::channel(100);
        let (_publisher, published) = watch::channel(Arc::new(follower()));
        let core = Handle::new(commands, published);
        let metrics = Metrics::new(&mut Registry::default());
        let mut peers = Peers::new(core, metrics, Duration::from_secs(1));
        let mut linked = |configuration: &Arc<Configuration>| -> Vec<u64> {
            peers.follow(configuration);
            for id in 1..=4 {
                let message = Outgoing::TimeoutNow(v1::TimeoutNowRequest::default());
                peers.send(MemberId::new(id).unwrap(), message);
            }
            peers.links.keys().map(|id| id.get()).collect()
        };
        assert_eq!(linked(&configuration(1, &[1, 2])), [1, 2]);
        assert_eq!(linked(&configuration(2, &[1, 3])), [1, 2, 3], "2 is told");
        assert_eq!(linked(&configuration(3, &[1])), [1, 3], "and then 3");
        assert_eq!(linked(&configuration(4, &[1])), [1]);
    }
}
