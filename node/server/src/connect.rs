//! Connections to other processes.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

/// Flow control windows: an operation of 1 MiB must not wait for the other side's permission half-way.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// For all streams of a connection together.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// An endpoint that notices a dead other side within about twice `patience`, and gives up connecting after `patience`. Its
/// name is resolved at every connect.
pub(crate) fn endpoint(url: String, patience: Duration) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(url).map_err(|error| error.to_string())?;
    Ok(endpoint
        .connect_timeout(patience)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(patience)
        .keep_alive_timeout(patience))
}

/// Connects to `HOST:PORT` or to a URL.
pub(crate) async fn connect(address: &str, patience: Duration) -> Result<Channel, String> {
    let url = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let endpoint = endpoint(url, patience)?;
    match tokio::time::timeout(patience, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(root_cause(&error)),
        Err(_) => Err(format!("no connection within {patience:?}")),
    }
}

/// The innermost error: the outer ones only say "transport error".
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
