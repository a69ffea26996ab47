//! What pods say to each other passes here, so that it can be late: a listener at each [`peer_address`], which tells by
//! the source who connects and goes on to the pod itself from the source's own [`peer_address`].

use crate::links::{Delays, Link, node_at, peer_address, pod_address};
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks under way on a connection, each way, at most.
const CHUNKS_MAX: usize = 256;
/// As long as programs wait for a connection themselves, about.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The listeners and all connections through them, which end when it is dropped.
#[derive(Debug)]
pub struct Relay {
    _listeners: JoinSet<()>,
}

impl Relay {
    /// Starts one for pods that listen at these ports.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(ports: &[(u32, u16)], delays: &Delays) -> Result<Self, String> {
        let mut listeners = JoinSet::new();
        for &(to, port) in ports {
            let at = SocketAddr::from((peer_address(to), port));
            let listener = TcpListener::bind(at)
                .await
                .map_err(|error| format!("the relay cannot listen at {at}: {error}"))?;
            listeners.spawn(accept(listener, to, port, delays.clone()));
        }
        Ok(Self {
            _listeners: listeners,
        })
    }
}

async fn accept(listener: TcpListener, to: u32, port: u16, delays: Delays) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, source)) = accepted else { continue };
                if let IpAddr::V4(source) = source.ip()
                    && let Some(from) = node_at(source)
                {
                    connections.spawn(relay(stream, (from, to), port, delays.clone()));
                }
            }
        }
    }
}

/// Carries both ways until one side breaks or both have ended.
async fn relay(near: TcpStream, link: Link, port: u16, delays: Delays) -> io::Result<()> {
    let (from, to) = link;
    sleep(delays.next(link)).await;
    let socket = TcpSocket::new_v4()?;
    socket.bind((peer_address(from), 0).into())?;
    let far = timeout(CONNECT_MAX, socket.connect((pod_address(to), port).into())).await??;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::try_join!(
        carry(near_read, far_write, link, &delays),
        carry(far_read, near_write, (to, from), &delays),
    )?;
    Ok(())
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    link: Link,
    delays: &Delays,
) -> io::Result<()> {
    let (queue, mut due) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let read = async move {
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
            if from.read_buf(&mut chunk).await? == 0 {
                return Ok(());
            }
            if queue
                .send((Instant::now() + delays.next(link), chunk.freeze()))
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((at, chunk)) = due.recv().await {
            sleep_until(at).await;
            to.write_all(&chunk).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write)?;
    Ok(())
}
