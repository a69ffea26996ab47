//! Carries out what formation asks for: what is that peer, and tell it to bootstrap.

use std::collections::BTreeMap;
use std::time::Duration;

use raftlog_proto::v1::{self, cluster_client::ClusterClient};
use raftlog_raft::ids::{ClusterId, MemberId, NodeNumber};
use raftlog_raft::membership::Member;
use tokio::task::{AbortHandle, JoinSet};

use crate::connect;
use crate::handle::Handle;
use crate::node::{Input, PeerReport};
use crate::wire;

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The calls of formation: per peer one question and one order at a time, the latest.
pub(crate) struct Formation {
    core: Handle,
    calls: JoinSet<()>,
    asking: BTreeMap<NodeNumber, AbortHandle>,
    bootstrapping: BTreeMap<NodeNumber, AbortHandle>,
}

impl Formation {
    pub(crate) fn new(core: Handle) -> Self {
        Self {
            core,
            calls: JoinSet::new(),
            asking: BTreeMap::new(),
            bootstrapping: BTreeMap::new(),
        }
    }

    /// Asks a peer what it is; the answer, or that there is none, goes to the core.
    pub(crate) fn ask(&mut self, node: NodeNumber, address: String) {
        while self.calls.try_join_next().is_some() {}
        let core = self.core.clone();
        let call = self.calls.spawn(async move {
            let report = match tokio::time::timeout(PATIENCE, status_of(&address)).await {
                Ok(Ok(report)) => report,
                Ok(Err(why)) => {
                    tracing::debug!("asked Node {node} at {address} what it is: {why}");
                    PeerReport::Unreachable
                }
                Err(_) => PeerReport::Unreachable,
            };
            core.input(Input::PeerReport { node, report }).await;
        });
        if let Some(before) = self.asking.insert(node, call) {
            before.abort();
        }
    }

    /// Bootstraps a peer. The core looks at the peer again to see what came of it.
    pub(crate) fn bootstrap(
        &mut self,
        node: NodeNumber,
        address: String,
        (cluster_id, to_member): (ClusterId, MemberId),
        members: &[Member],
    ) {
        let request = v1::BootstrapRequest {
            cluster_id: cluster_id.get(),
            members: wire::members_to_wire(members),
            to_member: to_member.get(),
        };
        let call = self.calls.spawn(async move {
            match tokio::time::timeout(PATIENCE, send_bootstrap(&address, request)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::warn!("Node {node} at {address} refuses Bootstrap: {why}"),
                Err(_) => tracing::debug!("Node {node} at {address} did not answer Bootstrap in time"),
            }
        });
        if let Some(before) = self.bootstrapping.insert(node, call) {
            before.abort();
        }
    }
}

async fn status_of(address: &str) -> Result<PeerReport, String> {
    let channel = connect::connect(address, PATIENCE).await?;
    let mut client = ClusterClient::new(channel);
    let response = client
        .watch_status(v1::WatchStatusRequest::default())
        .await
        .map_err(|status| status.to_string())?;
    let first = response
        .into_inner()
        .message()
        .await
        .map_err(|status| status.to_string())?;
    let status = first.and_then(|response| response.status).ok_or("no status")?;
    wire::peer_report(status).map_err(|error| error.to_string())
}

async fn send_bootstrap(address: &str, request: v1::BootstrapRequest) -> Result<(), String> {
    let channel = connect::connect(address, PATIENCE).await?;
    let mut client = ClusterClient::new(channel);
    client
        .bootstrap(request)
        .await
        .map_err(|status| status.message().to_owned())?;
    Ok(())
}
