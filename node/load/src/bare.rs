//! The bare call.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use raftlog_proto::v1::{SubmitClientRequestRequest, operations_client::OperationsClient};
use tonic::transport::{Channel, Error};

use crate::connection::Connection;

/// Calls `SubmitClientRequest` and does nothing else: without a session, a deadline or retries, and without looking for the
/// leader.
#[derive(Clone, Debug)]
pub struct Bare(OperationsClient<Channel>);

impl Bare {
    /// Connects to whoever serves Operations there.
    pub async fn connect(address: SocketAddr) -> Result<Self, Error> {
        let channel = Channel::from_shared(format!("http://{address}"))
            .expect("an address makes a URI")
            .tcp_nodelay(true)
            .connect()
            .await?;
        Ok(Self(OperationsClient::new(channel)))
    }
}

impl Connection for Bare {
    fn write(&self, operation: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let request = SubmitClientRequestRequest {
                operation,
                ..Default::default()
            };
            let answer = self.0.clone().submit_client_request(request).await;
            answer
                .map(drop)
                .map_err(|status| format!("{:?}: {}", status.code(), status.message()))
        }
        .boxed()
    }
}
