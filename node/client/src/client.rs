//! Calls to a cluster: to any of its nodes, or to the leader, until answered or out of time.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use raftlog_proto::{
    CLIENT_ID_BYTES_MAX, MESSAGE_BYTES_MAX, OPERATION_BYTES_MAX, QUERY_BYTES_MAX, reason,
    v1::{
        self, GetStatusRequest, NodeStatus, OpenSessionRequest, QueryRequest, QueryResponse,
        SubmitClientRequestRequest, TransferLeadershipRequest, cluster_client::ClusterClient,
        operations_client::OperationsClient,
    },
};
use tonic::{Code, Request, Response, Status, Streaming, transport::Channel};

use crate::{
    channels::Channels,
    endpoint::Endpoint,
    error::{Class, Error, classify_status, describe, reason_of},
    options::Options,
    retry::{Attempts, Failure, Step, Verdict},
    session::Session,
    targets::Targets,
};

/// One attempt of a query may take this part of the time that is left.
const QUERY_ATTEMPTS: u32 = 3;
/// But at least this long.
const QUERY_ATTEMPT_MIN: Duration = Duration::from_secs(1);

/// What a submission waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitFor {
    /// A majority holds it on disk.
    #[default]
    Committed,
    /// The leader's replicator has executed it.
    Executed,
}

/// One operation to submit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// 1 byte to [`OPERATION_BYTES_MAX`].
    pub operation: Bytes,
    /// Empty: no session. Then an attempt whose outcome is unknown is not repeated.
    pub client_id: String,
    /// With a `client_id`: the same (`client_id`, sequence) is appended once.
    pub sequence: u64,
    /// The caller needs no answers to sequences up to this one any more.
    pub acknowledged_through: u64,
    /// What to wait for.
    pub wait_for: WaitFor,
}

impl Submission {
    /// An operation without a session.
    pub fn new(operation: impl Into<Bytes>) -> Self {
        Self {
            operation: operation.into(),
            ..Self::default()
        }
    }

    fn check(&self) -> Result<(), Error> {
        check_operation(&self.operation)?;
        check_client_id(&self.client_id)
    }
}

/// An operation that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Operation index.
    pub index: u64,
    /// Term of its entry.
    pub term: u64,
    /// Node number of the leader that answered.
    pub leader_node: u32,
    /// `HOST:PORT` of that leader for clients, as it advertises itself.
    pub leader_address: String,
    /// What its execution gave, if that was waited for and is known.
    pub result: Option<Bytes>,
}

/// What an executor answered to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryAnswer {
    /// What it means is up to the executor.
    pub result: Bytes,
    /// The last operation that was executed when it was answered; 0 before the first.
    pub index: u64,
    /// Term of that operation.
    pub term: u64,
}

/// A client of one cluster. Cheap to clone; clones share connections and what is known about the leader.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    targets: Mutex<Targets>,
    channels: Channels,
    /// One attempt to follow the leader at a time.
    following: tokio::sync::Mutex<()>,
}

impl Client {
    /// A client that may use any of these endpoints. Connects when first used.
    pub fn new(endpoints: Vec<Endpoint>, options: Options) -> Result<Self, Error> {
        if endpoints.is_empty() {
            return Err(Error::Invalid(
                "a client needs at least one endpoint: name a node's HOST:PORT".to_owned(),
            ));
        }
        let targets = Mutex::new(Targets::new(endpoints, options.follow_leader));
        let following = tokio::sync::Mutex::new(());
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                targets,
                channels: Channels::default(),
                following,
            }),
        })
    }

    /// How patient this client is.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The endpoints it was given.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.targets().endpoints().to_vec()
    }

    /// Where the next call goes.
    pub fn target(&self) -> Endpoint {
        self.targets().current()
    }

    /// Sends the next call to the next endpoint in turn.
    pub fn advance(&self) {
        self.targets().advance();
    }

    /// Opens a session whose `client_id` embeds its place in the log: once evicted it is refused, never mistaken for new.
    pub async fn open_session(&self) -> Result<Session, Error> {
        let call = Call {
            what: "open a session",
            timeout: self.options().timeout,
            stake: Stake::None,
            repeatable: true,
        };
        let response = self
            .call(call, |channel, remaining| async move {
                let mut request = Request::new(OpenSessionRequest {});
                request.set_timeout(remaining);
                operations(channel).open_session(request).await
            })
            .await?
            .0;
        Ok(Session::new(self.clone(), response.client_id, 1))
    }

    /// Takes up a session under a `client_id` of the caller's own, whose next sequence the caller knows.
    pub fn session(&self, client_id: impl Into<String>, next_sequence: u64) -> Result<Session, Error> {
        let client_id = client_id.into();
        if client_id.is_empty() {
            return Err(Error::Invalid(
                "a session needs a client_id that is not empty".to_owned(),
            ));
        }
        check_client_id(&client_id)?;
        Ok(Session::new(self.clone(), client_id, next_sequence))
    }

    /// Submits one operation, and waits until it is committed, or executed where it says so. With a `client_id`, attempts
    /// are repeated until one is answered or time is out; the operation is appended at most once.
    pub async fn submit(&self, submission: Submission) -> Result<Committed, Error> {
        submission.check()?;
        let repeatable = !submission.client_id.is_empty();
        let message = SubmitClientRequestRequest {
            operation: submission.operation,
            client_id: submission.client_id,
            sequence: submission.sequence,
            wait_for: wire_wait_for(submission.wait_for).into(),
            acknowledged_through: submission.acknowledged_through,
        };
        let call = Call {
            what: "submit the operation",
            timeout: self.options().timeout,
            stake: Stake::Log,
            repeatable,
        };
        let (response, target) = self
            .call(call, |channel, remaining| {
                let mut request = Request::new(message.clone());
                request.set_timeout(remaining);
                async move { operations(channel).submit_client_request(request).await }
            })
            .await?;
        self.consider_leader(&target, &response.leader_address);
        Ok(Committed {
            index: response.index,
            term: response.term,
            leader_node: response.leader_node,
            leader_address: response.leader_address,
            result: response.result_available.then_some(response.result),
        })
    }

    /// Asks the executor, on the replicator of any node. Unless `allow_stale`, the answer sees every operation acknowledged
    /// before the call. Attempts are repeated at the other endpoints until one is answered or time is out; none of them may
    /// take more than a part of the time, as a node may wait for a replicator that is stuck.
    pub async fn query(&self, query: impl Into<Bytes>, allow_stale: bool) -> Result<QueryAnswer, Error> {
        let query: Bytes = query.into();
        if query.len() > QUERY_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "a query of {} bytes: at most {QUERY_BYTES_MAX} are allowed",
                query.len()
            )));
        }
        let message = QueryRequest { query, allow_stale };
        let call = Call {
            what: "query",
            timeout: self.options().timeout,
            stake: Stake::None,
            repeatable: true,
        };
        let (response, _) = self
            .call(call, |channel, remaining| {
                let mut request = Request::new(message.clone());
                let part = (remaining / QUERY_ATTEMPTS).max(QUERY_ATTEMPT_MIN);
                request.set_timeout(part.min(remaining));
                async move { operations(channel).query(request).await }
            })
            .await?;
        let QueryResponse { result, index, term } = response;
        Ok(QueryAnswer { result, index, term })
    }

    /// One node's own view, as it is: never forwarded, one attempt, within `timeout`.
    pub async fn status_of(&self, endpoint: &Endpoint, timeout: Duration) -> Result<NodeStatus, Error> {
        self.fetch_status(endpoint, timeout)
            .await
            .map_err(|message| Error::Failed(format!("{endpoint}: {message}")))
    }

    /// Hands leadership to `node`, or to the voter that the leader chooses. Answers with the new leader and its term.
    ///
    /// Where a node serves the Cluster service elsewhere than at the endpoint, its own word on where is followed.
    pub async fn transfer_leadership(&self, node: Option<u32>) -> Result<(v1::Leader, u64), Error> {
        let message = TransferLeadershipRequest {
            node: node.unwrap_or(0),
        };
        let call = Call {
            what: "transfer leadership",
            timeout: self.options().timeout,
            stake: Stake::None,
            repeatable: false,
        };
        let response = self
            .call_cluster(call, message, |mut cluster, request| async move {
                cluster.transfer_leadership(request).await
            })
            .await?
            .0;
        let leader = response.leader.ok_or_else(|| {
            Error::Failed(
                "the transfer was answered without naming the new leader: look at `raftctl status`"
                    .to_owned(),
            )
        })?;
        Ok((leader, response.term))
    }

    /// Changes who belongs to the cluster, and answers the configuration in which the change ended, committed. Attempts are
    /// repeated until one is answered or time is out: what is changed already is not changed again.
    ///
    /// Where a node serves the Cluster service elsewhere than at the endpoint, its own word on where is followed.
    pub async fn change_membership(
        &self,
        request: v1::ChangeMembershipRequest,
    ) -> Result<v1::Configuration, Error> {
        let call = Call {
            what: "change the membership",
            timeout: self.options().timeout,
            stake: if request.dry_run {
                Stake::None
            } else {
                Stake::Membership
            },
            repeatable: true,
        };
        let response = self
            .call_cluster(call, request, |mut cluster, request| async move {
                cluster.change_membership(request).await
            })
            .await?
            .0;
        Ok(response.configuration.unwrap_or_default())
    }

    /// Has a node put a snapshot on its disk of all that it has executed. Answers what it is, and of which node it can be downloaded.
    ///
    /// Where a node serves the Cluster service elsewhere than at the endpoint, its own word on where is followed.
    pub async fn take_snapshot(&self) -> Result<(v1::TakeSnapshotResponse, Endpoint), Error> {
        let call = Call {
            what: "take a snapshot",
            timeout: self.options().timeout,
            stake: Stake::None,
            repeatable: true,
        };
        let message = v1::TakeSnapshotRequest {};
        self.call_cluster(call, message, |mut cluster, request| async move {
            cluster.take_snapshot(request).await
        })
        .await
    }

    /// Downloads a snapshot that the node there has, from an offset on. One attempt: whatever goes wrong, here or later, is the
    /// caller's to judge.
    pub async fn download_snapshot(
        &self,
        endpoint: &Endpoint,
        request: v1::DownloadSnapshotRequest,
    ) -> Result<Streaming<v1::DownloadSnapshotResponse>, Status> {
        let timeout = self.options().timeout;
        let connected = self.connect(endpoint, timeout).await;
        let channel = connected.map_err(|failed| Status::unavailable(failed.message))?;
        let answer = match ClusterClient::new(channel.clone())
            .download_snapshot(request)
            .await
        {
            Err(status) if status.code() == Code::Unimplemented => {
                let elsewhere = self.peer_channel(channel, timeout).await?;
                ClusterClient::new(elsewhere).download_snapshot(request).await
            }
            answer => answer,
        };
        answer
            .map(Response::into_inner)
            .inspect_err(|status| drop(self.note(endpoint, status)))
    }

    /// Calls the service Cluster, where the endpoint serves it or says that it does.
    async fn call_cluster<M, T, F>(
        &self,
        call: Call,
        message: M,
        method: impl Fn(ClusterClient<Channel>, Request<M>) -> F,
    ) -> Result<(T, Endpoint), Error>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let (method, message) = (&method, &message);
        let answer = self.call(call, |channel, remaining| async move {
            let request = || {
                let mut request = Request::new(message.clone());
                request.set_timeout(remaining);
                request
            };
            match method(ClusterClient::new(channel.clone()), request()).await {
                Err(status) if status.code() == Code::Unimplemented => {
                    let elsewhere = self.peer_channel(channel, remaining).await?;
                    method(ClusterClient::new(elsewhere), request()).await
                }
                answer => answer,
            }
        });
        answer.await
    }

    /// Calls one endpoint after the other until one answers or time is over. `attempt` gets a connection and the
    /// time that is left. Answers what was said, and by which endpoint.
    async fn call<T, F, A>(&self, call: Call, attempt: A) -> Result<(T, Endpoint), Error>
    where
        A: Fn(Channel, Duration) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + call.timeout;
        let mut attempts = Attempts::new(
            self.options().backoff,
            self.targets().count(),
            call.stake != Stake::None,
            call.repeatable,
        );
        loop {
            let target = self.targets().current();
            let remaining = deadline.saturating_duration_since(Instant::now());
            let failed = match self.connect(&target, remaining).await {
                Err(failed) => failed,
                Ok(channel) => match tokio::time::timeout(remaining, attempt(channel, remaining)).await {
                    Ok(Ok(response)) => return Ok((response.into_inner(), target)),
                    Ok(Err(status)) => self.note(&target, &status),
                    Err(_) => Failed::unanswered(),
                },
            };
            self.targets().failed(&target);
            let remaining = deadline.saturating_duration_since(Instant::now());
            match attempts.failed(failed.failure, remaining, rand::random()) {
                Step::Again(delay) => tokio::time::sleep(delay).await,
                Step::Stop(verdict) => return Err(call.give_up(verdict, &target, failed)),
            }
        }
    }

    /// A connection to `target`, for one attempt.
    pub(crate) async fn connect(&self, target: &Endpoint, remaining: Duration) -> Result<Channel, Failed> {
        let options = self.options();
        let timeout = options.connect_timeout.min(remaining);
        self.shared
            .channels
            .get(target, options, timeout)
            .await
            .map_err(|message| Failed {
                failure: Failure::NotConnected,
                reason: String::new(),
                message: format!("cannot connect: {message}"),
            })
    }

    /// What a failed attempt at `target` means. A connection that broke is made anew next time.
    pub(crate) fn note(&self, target: &Endpoint, status: &Status) -> Failed {
        let reason = reason_of(status);
        if reason.is_empty() {
            self.shared.channels.forget(target);
        }
        let failure = if reason.is_empty() && raftlog_proto::error::never_sent(status) {
            Failure::NotConnected
        } else {
            Failure::Answered(classify_status(status))
        };
        let message = if failure == Failure::Answered(Class::NotANode) {
            "not a node's client port; check --endpoints".to_owned()
        } else {
            describe(status)
        };
        Failed {
            failure,
            reason,
            message,
        }
    }

    pub(crate) fn targets(&self) -> MutexGuard<'_, Targets> {
        self.shared.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call through `target` was answered by the leader at `leader`: goes there from now on if that connects at once and
    /// says itself that it leads the same cluster. Until then, or if not, nothing changes.
    pub(crate) fn consider_leader(&self, target: &Endpoint, leader: &str) {
        let Some(leader) = self.targets().answered(target, leader, Instant::now()) else {
            return;
        };
        let (client, target) = (self.clone(), target.clone());
        tokio::spawn(async move {
            let Ok(_one_at_a_time) = client.shared.following.try_lock() else {
                return;
            };
            let timeout = client.options().follow_timeout;
            let confirmed =
                tokio::time::timeout(timeout, client.leads_same_cluster(&target, &leader, timeout)).await;
            if confirmed.unwrap_or(false) {
                client.targets().followed(leader);
            } else {
                client.targets().shun(leader, Instant::now());
            }
        });
    }

    /// Whether the node at `leader` leads the cluster that the node at `target` belongs to: an address may well mean another
    /// machine here than where it was advertised.
    async fn leads_same_cluster(&self, target: &Endpoint, leader: &Endpoint, timeout: Duration) -> bool {
        let (here, there) = tokio::join!(
            self.fetch_status(target, timeout),
            self.fetch_status(leader, timeout)
        );
        matches!((here, there), (Ok(here), Ok(there))
            if here.cluster_id != 0 && here.cluster_id == there.cluster_id && there.role() == v1::Role::Leader)
    }

    async fn fetch_status(&self, endpoint: &Endpoint, timeout: Duration) -> Result<NodeStatus, String> {
        let fetch = async {
            let channel = self
                .connect(endpoint, timeout)
                .await
                .map_err(|failed| failed.message)?;
            status_through(channel)
                .await
                .map_err(|status| self.note(endpoint, &status).message)
        };
        match tokio::time::timeout(timeout, fetch).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
        }
    }

    /// A connection to where the node behind `channel` says it serves its peers.
    async fn peer_channel(&self, channel: Channel, remaining: Duration) -> Result<Channel, Status> {
        let status = status_through(channel).await?;
        let peer = Endpoint::parse(&status.peer_address).map_err(Status::unavailable)?;
        let connected = self.connect(&peer, remaining).await;
        connected.map_err(|failed| {
            Status::unavailable(format!("{peer}, where it serves Cluster: {}", failed.message))
        })
    }
}

/// A failed attempt: what it means, and one line about it.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Failed {
    /// The time for the whole call is over, under an attempt.
    pub(crate) fn unanswered() -> Self {
        Self {
            failure: Failure::Unanswered,
            reason: String::new(),
            message: "no answer in time".to_owned(),
        }
    }
}

/// One call: what it is for, how long it may take, and what may be done about a failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Completes "cannot ...".
    pub(crate) what: &'static str,
    pub(crate) timeout: Duration,
    pub(crate) stake: Stake,
    /// Whether an attempt whose outcome is unknown may be repeated.
    pub(crate) repeatable: bool,
}

/// What a call may have changed, so that it matters to the caller whether it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stake {
    None,
    Log,
    Membership,
}

impl Stake {
    /// Said of a call that failed without a trace.
    fn untouched(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Log => "; nothing was appended",
            Self::Membership => "; nothing was changed",
        }
    }
}

impl Call {
    /// The error when it is given up: what, where, what to do.
    pub(crate) fn give_up(&self, verdict: Verdict, target: &Endpoint, last: Failed) -> Error {
        let Failed { reason, message, .. } = last;
        let (what, seconds) = (self.what, self.timeout.as_secs_f64());
        let untouched = self.stake.untouched();
        let and = if untouched.is_empty() { ";" } else { "," };
        match verdict {
            Verdict::Invalid => Error::Invalid(format!("cannot {what}: {target}: {message}{untouched}")),
            Verdict::Refused => Error::Refused {
                message: format!(
                    "cannot {what}: {target}: {message}{untouched}{and} {}",
                    remedy(&reason)
                ),
                reason,
            },
            Verdict::TimedOut if reason == reason::BACKPRESSURE => Error::Refused {
                message: format!(
                    "cannot {what}: still refused after {seconds} s; last {target}: {message}{untouched}{and} {}",
                    remedy(&reason)
                ),
                reason,
            },
            Verdict::TimedOut
                if [reason::NOT_EXECUTED, reason::NO_REPLICATOR, reason::NO_SNAPSHOT]
                    .contains(&reason.as_str()) =>
            {
                Error::Failed(format!(
                    "cannot {what}: no answer within {seconds} s; last {target}: {message}; see `raftctl status`"
                ))
            }
            Verdict::TimedOut if reason.is_empty() && self.stake == Stake::None => Error::NoLeader(format!(
                "cannot {what}: no node answered within {seconds} s; last {target}: {message}; see `raftctl status`"
            )),
            Verdict::TimedOut => Error::NoLeader(format!(
                "cannot {what}: no leader could be reached within {seconds} s; last {target}: {message}{untouched}{and} \
                 see `raftctl status`"
            )),
            Verdict::NoNode => Error::NoLeader(format!("cannot {what}: {target} is {message}{untouched}")),
            Verdict::Unknown => self.unknown(target, &message, reason),
        }
    }

    fn unknown(&self, target: &Endpoint, message: &str, reason: String) -> Error {
        let what = self.what;
        let look = match self.stake {
            Stake::None => {
                return Error::Failed(format!(
                    "cannot {what}: {target}: {message}; see `raftctl status`"
                ));
            }
            Stake::Log => "it may have been appended, look before submitting it again",
            Stake::Membership => "it may have been changed, see `raftctl member list`",
        };
        Error::Unknown {
            message: format!("cannot {what}: outcome unknown; last {target}: {message}; {look}"),
            reason,
        }
    }
}

fn remedy(reason: &str) -> &'static str {
    match reason {
        reason::DISK_FULL => "make room on the leader's volume and submit again",
        reason::SESSION_EXPIRED => "open a new session and submit again",
        reason::BACKPRESSURE => "submit again, slower",
        reason::CONFIGURATION_CHANGED | reason::NOT_CAUGHT_UP | reason::WOULD_LOSE_QUORUM => {
            "see `raftctl member list`"
        }
        _ => "submit again later",
    }
}

pub(crate) fn check_operation(operation: &Bytes) -> Result<(), Error> {
    match operation.len() {
        0 => Err(Error::Invalid(format!(
            "an empty operation: give it 1 to {OPERATION_BYTES_MAX} bytes; nothing was appended"
        ))),
        1..=OPERATION_BYTES_MAX => Ok(()),
        bytes => Err(Error::Invalid(format!(
            "an operation of {bytes} bytes: at most {OPERATION_BYTES_MAX} are allowed; nothing was appended"
        ))),
    }
}

fn check_client_id(client_id: &str) -> Result<(), Error> {
    if client_id.len() <= CLIENT_ID_BYTES_MAX {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "a client_id of {} bytes: at most {CLIENT_ID_BYTES_MAX} are allowed; nothing was appended",
        client_id.len()
    )))
}

fn wire_wait_for(wait_for: WaitFor) -> v1::WaitFor {
    match wait_for {
        WaitFor::Committed => v1::WaitFor::Committed,
        WaitFor::Executed => v1::WaitFor::Executed,
    }
}

pub(crate) fn operations(channel: Channel) -> OperationsClient<Channel> {
    OperationsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

async fn status_through(channel: Channel) -> Result<NodeStatus, Status> {
    let response = operations(channel)
        .get_status(GetStatusRequest {})
        .await?
        .into_inner();
    response.status.ok_or_else(|| {
        Status::internal("the node answered without a status: is it a raft-node of this version?")
    })
}
