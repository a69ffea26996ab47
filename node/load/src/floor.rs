//! What this machine cannot go below: the parts that any replicated commit is made of, measured by themselves.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::Serialize;
use tokio::{net::TcpListener, sync::oneshot};

use crate::{Bare, Connection as _, echo, latency::Latencies, sync};

/// Echoes at most, and the time that they may take at most.
const ECHOES: u64 = 2000;
const ECHO_FOR: Duration = Duration::from_secs(2);
/// Echoes that are not counted.
const ECHOES_WARM_UP: u64 = 200;

/// The medians of a commit's parts, in microseconds, and their sum.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub struct Floor {
    /// A loopback gRPC echo with a payload of the benchmark's size, from the client.
    pub client_echo: f64,
    /// The same once more, as from the leader to a follower; 0 where there is none.
    pub node_echo: f64,
    /// That of so many concurrent fdatasyncs which completes a majority: of 512 bytes written into files that are filled already.
    pub majority_sync: f64,
    /// All of it.
    pub sum: f64,
}

/// A part that cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Echoes on loopback.
    #[error("cannot measure the gRPC echo as part of the floor: {0}; try again")]
    Echo(String),
    /// Disks. What else to do depends on how the folder was chosen.
    #[error("cannot measure fdatasync: {0}")]
    Sync(io::Error),
}

/// Measures all parts, one after the other, for so many members. Takes a few seconds. Files are made in `folder`, and removed.
pub async fn measure(size: usize, members: usize, folder: &Path) -> Result<Floor, Error> {
    let server = Server::start().await.map_err(in_echo)?;
    let client_echo = server.measure(size).await?;
    let node_echo = if members > 1 {
        server.measure(size).await?
    } else {
        0.0
    };
    let folder = folder.to_owned();
    let sync = tokio::task::spawn_blocking(move || sync::measure(members, &folder)).await;
    let majority_sync = sync
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
        .map_err(Error::Sync)?;
    Ok(Floor {
        client_echo,
        node_echo,
        majority_sync,
        sum: client_echo + node_echo + majority_sync,
    })
}

/// How the sync of a majority of so many is called: `3rd of 5 fdatasyncs`.
pub fn name_of_sync(members: usize) -> String {
    let majority = sync::majority(members);
    let ordinal = match majority {
        1 => "st",
        2 => "nd",
        3 => "rd",
        _ => "th",
    };
    format!("{majority}{ordinal} of {members} fdatasyncs")
}

fn in_echo(error: impl std::fmt::Display) -> Error {
    Error::Echo(error.to_string())
}

/// An echo on a thread of its own.
struct Server {
    address: SocketAddr,
    /// Ends it when dropped.
    _stop: oneshot::Sender<()>,
}

impl Server {
    async fn start() -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, address) = oneshot::channel();
        thread::Builder::new().name("echo".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let _ = tell.send(listener.local_addr()?);
                echo::serve(listener, async { drop(stopped.await) }).await
            })
        })?;
        let address = address.await.map_err(io::Error::other)?;
        Ok(Self { address, _stop: stop })
    }

    /// The median of echoes one after the other, in microseconds.
    async fn measure(&self, size: usize) -> Result<f64, Error> {
        let caller = Bare::connect(self.address).await.map_err(in_echo)?;
        let operation = Bytes::from(vec![b'x'; size]);
        for _ in 0..ECHOES_WARM_UP {
            caller.write(operation.clone()).await.map_err(in_echo)?;
        }
        let (latencies, started) = (Latencies::new(), Instant::now());
        while latencies.count() < ECHOES && started.elapsed() < ECHO_FOR {
            let sent = Instant::now();
            caller.write(operation.clone()).await.map_err(in_echo)?;
            latencies.record(sent.elapsed());
        }
        Ok(latencies.summary().p50)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_floor_can_be_measured() {
        let folder = tempfile::tempdir().unwrap();
        let floor = measure(256, 5, folder.path()).await.unwrap();
        assert!(
            floor.client_echo > 0.0 && floor.node_echo > 0.0 && floor.majority_sync > 0.0,
            "{floor:?}"
        );
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "nothing is left behind"
        );
    }

    #[test]
    fn syncs_are_named() {
        assert_eq!(
            [1, 3, 5, 7].map(name_of_sync),
            [
                "1st of 1 fdatasyncs",
                "2nd of 3 fdatasyncs",
                "3rd of 5 fdatasyncs",
                "4th of 7 fdatasyncs"
            ]
        );
    }
}
