//! The stream that carries a snapshot to one peer, beside that of AppendEntries on the same connection, so that no heartbeat
//! waits for it.

use std::time::Duration;

use raftlog_proto::v1::install_snapshot_request::Part;
use raftlog_proto::v1::{self, raft_client::RaftClient};
use raftlog_raft::ids::MemberId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::Channel;

use crate::handle::Handle;
use crate::header;
use crate::node::Input;
use crate::wire;

/// Messages that wait for the connection at most: more than the node has under way to one follower.
const QUEUED_MESSAGES_MAX: usize = 32;

/// Bytes of a snapshot's data that a message carries.
pub(crate) fn data_bytes(request: &v1::InstallSnapshotRequest) -> u64 {
    match &request.part {
        Some(Part::Data(part)) => part.data.len() as u64,
        _ => 0,
    }
}

/// The way of snapshots to one peer, for as long as a connection lasts.
pub(crate) struct SnapshotStream {
    peer: MemberId,
    core: Handle,
    patience: Duration,
    client: RaftClient<Channel>,
    requests: Option<mpsc::Sender<v1::InstallSnapshotRequest>>,
    /// At most one; it ends with this.
    tasks: JoinSet<()>,
}

impl SnapshotStream {
    /// On that connection; opening takes at most `patience`.
    pub(crate) fn new(peer: MemberId, core: Handle, client: RaftClient<Channel>, patience: Duration) -> Self {
        Self {
            peer,
            core,
            patience,
            client,
            requests: None,
            tasks: JoinSet::new(),
        }
    }

    /// Sends it, if there is room. An offer begins a stream, in the place of the one before.
    pub(crate) fn send(&mut self, request: v1::InstallSnapshotRequest) -> bool {
        if matches!(request.part, Some(Part::Offer(_))) {
            self.open();
        }
        self.requests
            .as_ref()
            .is_some_and(|requests| requests.try_send(request).is_ok())
    }

    fn open(&mut self) {
        self.tasks.abort_all();
        while self.tasks.try_join_next().is_some() {}
        let (requests, outgoing) = mpsc::channel(QUEUED_MESSAGES_MAX);
        self.requests = Some(requests);
        let listening = Listening {
            peer: self.peer,
            core: self.core.clone(),
        };
        self.tasks
            .spawn(listening.run(self.client.clone(), outgoing, self.patience));
    }
}

/// Takes in what the peer answers.
struct Listening {
    peer: MemberId,
    core: Handle,
}

impl Listening {
    async fn run(
        self,
        client: RaftClient<Channel>,
        outgoing: mpsc::Receiver<v1::InstallSnapshotRequest>,
        patience: Duration,
    ) {
        if let Err(why) = self.listen(client, outgoing, patience).await {
            tracing::debug!("snapshot to member {}: {why}", self.peer);
        }
        self.core.input(Input::SnapshotStreamBroken(self.peer)).await;
    }

    async fn listen(
        &self,
        mut client: RaftClient<Channel>,
        outgoing: mpsc::Receiver<v1::InstallSnapshotRequest>,
        patience: Duration,
    ) -> Result<(), String> {
        let opening = client.install_snapshot(Request::new(ReceiverStream::new(outgoing)));
        let mut responses = match tokio::time::timeout(patience, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(status.to_string()),
            Err(_) => return Err(format!("no stream within {patience:?}")),
        };
        loop {
            let response = responses.message().await.map_err(|status| status.to_string())?;
            let response = response.ok_or("the stream ended")?;
            let own = self.core.published();
            let from = header::check(response.header.as_ref(), own.cluster_id, own.member_id)
                .ok()
                .filter(|&from| from == self.peer)
                .ok_or("a response of another member or cluster")?;
            let response = wire::snapshot_response_from_wire(from, own.member_id, response)
                .map_err(|error| error.to_string())?;
            self.core.input(Input::InstallSnapshotResponse(response)).await;
        }
    }
}
