//! Connections to endpoints, made when needed, kept while they work, dropped when they fail so that names are resolved
//! anew.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tonic::transport::Channel;

use crate::{
    endpoint::Endpoint,
    error::{innermost, one_line},
    options::Options,
};

/// The most connections that are kept.
const CHANNELS_MAX: usize = 64;

/// The connections of one client.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    open: Mutex<BTreeMap<Endpoint, Channel>>,
}

impl Channels {
    /// A connection to `endpoint`, made now unless one is open. The error is one line, without the endpoint.
    pub(crate) async fn get(
        &self,
        endpoint: &Endpoint,
        options: &Options,
        timeout: Duration,
    ) -> Result<Channel, String> {
        if let Some(channel) = self.lock().get(endpoint) {
            return Ok(channel.clone());
        }
        let channel = connect(endpoint, options, timeout).await?;
        let mut open = self.lock();
        if open.len() >= CHANNELS_MAX {
            open.pop_first();
        }
        open.insert(endpoint.clone(), channel.clone());
        Ok(channel)
    }

    /// Forgets the connection to `endpoint`; calls that are under way on it go on.
    pub(crate) fn forget(&self, endpoint: &Endpoint) {
        self.lock().remove(endpoint);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Endpoint, Channel>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(endpoint: &Endpoint, options: &Options, timeout: Duration) -> Result<Channel, String> {
    let connector = Channel::from_shared(endpoint.uri())
        .map_err(|error| one_line(&error.to_string()))?
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(options.keep_alive)
        .initial_connection_window_size(8 << 20)
        .initial_stream_window_size(4 << 20);
    match tokio::time::timeout(timeout, connector.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(one_line(
            &innermost(Some(&error)).unwrap_or_else(|| error.to_string()),
        )),
        Err(_) => Err(format!("no connection within {} ms", timeout.as_millis())),
    }
}
