//! The stream to this node's own replicator: kept open, with backoff, for as long as the node belongs to a cluster.

use std::sync::Arc;
use std::time::Duration;

use raftlog_proto::MESSAGE_BYTES_MAX;
use raftlog_proto::v1::replicate_log_request::Message;
use raftlog_proto::v1::replicate_log_response::Message as Answer;
use raftlog_proto::v1::{self, replicator_client::ReplicatorClient};
use raftlog_raft::ids::{ClusterId, OperationIndex};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::connect;
use crate::handle::{Command, Handle};
use crate::lines::{Replicate, Stories};
use crate::metrics::Metrics;
use crate::node::{FromReplicator, Input, ToReplicator};
use crate::results::Results;
use crate::wire;

/// Messages that wait for the replicator at most; the node bounds the bytes in them.
const QUEUED_MESSAGES_MAX: usize = 256;
/// How long connecting may take, and how long the other side may be silent to a ping.
const PATIENCE: Duration = Duration::from_secs(2);
/// After the node refused its replicator there is no hurry.
const REFUSED_WAIT: Duration = Duration::from_secs(5);

/// Keeps the stream open.
pub(crate) struct ReplicatorLink {
    pub(crate) config: Arc<Config>,
    pub(crate) core: Handle,
    pub(crate) metrics: Metrics,
    pub(crate) stories: Stories,
    /// What the replicator has executed, for who waits for it.
    pub(crate) executed: watch::Sender<OperationIndex>,
    /// What came of it, likewise.
    pub(crate) results: Results,
}

/// How a stream ended.
enum End {
    Broken(String),
    /// By this node: the two do not belong together.
    Refused(String),
}

impl ReplicatorLink {
    /// Until the task is dropped.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut last_said = String::new();
        loop {
            let Some(cluster) = self.formed().await else {
                return;
            };
            let end = self.stream(cluster, &mut backoff).await;
            self.core.input(Input::Replicator(FromReplicator::Closed)).await;
            let was_connected = backoff.is_reset();
            let (why, wait) = match end {
                End::Broken(why) => (why, backoff.next(rand::random())),
                End::Refused(why) => (format!("refused: {why}"), REFUSED_WAIT),
            };
            // A replicator that is away is told once, not at every attempt.
            if was_connected || why != last_said {
                let (node, name) = (self.config.node, &self.config.replicator_name);
                tracing::warn!("Node {node} has no connection to its replicator {name}: {why}");
                last_said = why;
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn formed(&self) -> Option<ClusterId> {
        let mut watch = self.core.watch();
        let status = watch.wait_for(|status| status.cluster_id.is_some()).await.ok()?;
        status.cluster_id
    }

    async fn stream(&self, cluster: ClusterId, backoff: &mut Backoff) -> End {
        let channel = match connect::connect(&self.config.replicator, PATIENCE).await {
            Ok(channel) => channel,
            Err(why) => return End::Broken(why),
        };
        let mut client = ReplicatorClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (requests, outgoing) = mpsc::channel(1);
        let status = self.core.published();
        let hello = wire::hello(cluster, status.member_id, self.config.node, status.parent);
        if requests.send(hello).await.is_err() {
            return End::Broken("the stream ended".into());
        }
        let opening = client.replicate_log(ReceiverStream::new(outgoing));
        let responses = match tokio::time::timeout(PATIENCE, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return End::Broken(status.message().to_owned()),
            Err(_) => return End::Broken(format!("no stream within {PATIENCE:?}")),
        };
        self.metrics.replicator_connects.inc();
        self.results.begin();
        let (sender, messages) = mpsc::channel(QUEUED_MESSAGES_MAX);
        self.core.command(Command::ReplicatorOpened(sender)).await;
        self.pump(messages, requests, responses, backoff).await
    }

    async fn pump(
        &self,
        mut messages: mpsc::Receiver<ToReplicator>,
        requests: mpsc::Sender<v1::ReplicateLogRequest>,
        mut responses: Streaming<v1::ReplicateLogResponse>,
        backoff: &mut Backoff,
    ) -> End {
        let mut waiting: Option<v1::ReplicateLogRequest> = None;
        // While the disk has no time for a piece of a snapshot, the stream's flow control holds the replicator back.
        let mut piece: Option<oneshot::Receiver<()>> = None;
        loop {
            tokio::select! {
                permit = requests.reserve(), if waiting.is_some() => match (permit, waiting.take()) {
                    (Ok(permit), Some(request)) => {
                        let restores = matches!(request.message, Some(Message::Restore(_)));
                        permit.send(request);
                        if restores {
                            self.core.input(Input::Replicator(FromReplicator::RestoreTaken)).await;
                        }
                    }
                    _ => return End::Broken("the stream ended".into()),
                },
                () = self.results.asks(), if waiting.is_none() => {
                    let indexes = self.results.take_unasked();
                    waiting = (!indexes.is_empty()).then(|| wire::results_wanted(indexes));
                }
                message = messages.recv(), if waiting.is_none() => match message {
                    Some(message) => match self.request(message) {
                        Ok(request) => waiting = Some(request),
                        Err(wire::End::StartOver(why)) => return End::Broken(why),
                        Err(wire::End::Close(why)) => return End::Refused(why),
                    },
                    // The core let go: it could not keep what this stream did not take.
                    None => return End::Broken("the replicator took too little, starting over".into()),
                },
                () = taken(&mut piece), if piece.is_some() => piece = None,
                response = responses.message(), if piece.is_none() => match response {
                    Ok(Some(response)) => {
                        // What it says first says nothing of whether it takes what it is told.
                        if !matches!(response.message, Some(Answer::Position(_))) {
                            backoff.reset();
                        }
                        match self.received(response).await {
                            Ok(untaken) => piece = untaken,
                            Err(why) => return End::Broken(why),
                        }
                    }
                    Ok(None) => return End::Broken("the stream ended".into()),
                    Err(status) => return End::Broken(status.message().to_owned()),
                },
            }
        }
    }

    fn request(&self, message: ToReplicator) -> Result<v1::ReplicateLogRequest, wire::End> {
        if matches!(message, ToReplicator::Feed { .. }) {
            let replicator = self.config.replicator_name.as_str().into();
            self.stories.replicate.say(Replicate {
                node: self.config.node,
                replicator,
            });
        }
        wire::to_replicator(message)
    }

    /// Hands on what the replicator said: of a piece of a snapshot, what tells when the next may be.
    async fn received(
        &self,
        response: v1::ReplicateLogResponse,
    ) -> Result<Option<oneshot::Receiver<()>>, String> {
        if let Some(Answer::Results(results)) = &response.message {
            for result in &results.results {
                let (index, result) = wire::result(result);
                self.results.answer(index, result);
            }
            return Ok(None);
        }
        let said = wire::from_replicator(response).map_err(|error| error.to_string())?;
        match said {
            FromReplicator::Progress(progress) => {
                self.executed.send_if_modified(|executed| {
                    std::mem::replace(executed, progress.executed_index) != progress.executed_index
                });
                self.results.executed(progress.executed_index);
            }
            FromReplicator::Executor(_) => self.results.has_results(),
            FromReplicator::Position(position) => {
                self.executed.send_replace(position.executed.index);
            }
            FromReplicator::Snapshot(piece) => {
                let (taken, until_taken) = oneshot::channel();
                self.core
                    .command(Command::ReplicatorSnapshot { piece, taken })
                    .await;
                return Ok(Some(until_taken));
            }
            _ => {}
        }
        self.core.input(Input::Replicator(said)).await;
        Ok(None)
    }
}

/// Until the node has taken the piece, or has ended.
async fn taken(piece: &mut Option<oneshot::Receiver<()>>) {
    if let Some(piece) = piece {
        let _ = piece.await;
    }
}
