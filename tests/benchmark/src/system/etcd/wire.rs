//! The two calls of etcd's API (`rpc.proto` of its v3 API), with the fields that matter here.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::{Request, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

pub(super) const PUT: &str = "/etcdserverpb.KV/Put";
pub(super) const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct PutResponse {}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct StatusRequest {}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    /// Member ID; 0: none.
    #[prost(uint64, tag = "4")]
    pub(super) leader: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct ResponseHeader {
    /// Of who answers.
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
}

/// One call.
pub(super) async fn call<Q, A>(channel: &Channel, path: &'static str, request: Q) -> Result<A, String>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| error.to_string())?;
    let mut request = Request::new(request);
    request.set_timeout(PATIENCE);
    let answer = grpc
        .unary(
            request,
            PathAndQuery::from_static(path),
            ProstCodec::<Q, A>::default(),
        )
        .await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| format!("{:?}: {}", status.code(), status.message()))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn fields_are_where_etcd_has_them() {
        let put = PutRequest {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
        };
        assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x01v");
        // A header {cluster 1, member 7, revision 2}, version "3", a size of 5, and a leader 7.
        let status = b"\x0a\x06\x08\x01\x10\x07\x18\x02\x12\x013\x18\x05\x20\x07";
        let status = StatusResponse::decode(&status[..]).unwrap();
        assert_eq!(status.leader, 7);
        assert_eq!(status.header.unwrap().member_id, 7);
    }
}
