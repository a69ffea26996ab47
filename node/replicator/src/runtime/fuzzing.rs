//! For fuzz targets outside of this crate: what a node says, decoded as the service does it, on its way to the
//! [`crate::core`]. `None` where the service refuses it.

use bytes::Bytes;
use prost::Message as _;
use raftlog_proto::v1::ReplicateLogRequest;

use super::wire;
use crate::core::{Event, StreamId};

/// A `ReplicateLogRequest` as the first message of `stream`.
pub fn opened(stream: StreamId, bytes: Bytes) -> Option<Event> {
    let hello = wire::hello(&ReplicateLogRequest::decode(bytes).ok()?).ok()?;
    Some(Event::NodeOpened {
        stream,
        cluster: hello.cluster,
        member: hello.member,
        node: hello.node,
        parent: hello.parent,
    })
}

/// A `ReplicateLogRequest` as a later one.
pub fn said(stream: StreamId, bytes: Bytes) -> Option<Event> {
    let message = wire::node_message(ReplicateLogRequest::decode(bytes).ok()?).ok()?;
    // Results that are wanted are none of the business of the core.
    message.on(stream).ok()
}
