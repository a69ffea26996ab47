//! Listening ports that a flood of connections cannot take the whole process down with: each holds a bounded part of the
//! process's file descriptors, so that the other ports and the files always have room.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::bucket::Bucket;
use crate::clock;

/// A port may hold one part in so many of the file descriptors: a program has three ports at most, which leaves a part
/// for its own connections and its files.
const PORTS_SHARE: u64 = 4;
/// No port holds more connections, whatever the system allows: each costs memory as well.
const CONNECTIONS_MAX: usize = 8_192;
/// After an error that the next attempt would meet too, such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection that has not sent its first [`GREETING`] bytes in this time is closed: every protocol here starts with the
/// caller.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Bytes with which a caller shows that it means to talk: the preface of HTTP/2 (RFC 9113, 3.4), before which a server
/// neither pings nor times out. A shorter HTTP/1 request has had its answer by then.
const GREETING: usize = 24;
/// Accepted or refused in one turn, before other tasks get theirs.
const TURN_MAX: usize = 64;

/// Raises the number of files that this process may have open as far as it is allowed to, and says what it is now.
/// Where that fails, the limit stays what it was.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.unwrap_or(u64::MAX)
}

/// How many connections a port may hold with so many file descriptors.
pub fn connections_max(descriptors: u64) -> usize {
    usize::try_from(descriptors / PORTS_SHARE)
        .unwrap_or(CONNECTIONS_MAX)
        .clamp(1, CONNECTIONS_MAX)
}

/// Label `port`: what a port is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Port {
    port: &'static str,
}

/// The bound on the connections of each port of a program, and their metrics.
#[derive(Debug, Clone)]
pub struct Connections {
    max: usize,
    open: Family<Port, Gauge<u64, AtomicU64>>,
    refused: Family<Port, Counter>,
}

impl Connections {
    /// `max` connections on each port.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            open: Family::default(),
            refused: Family::default(),
        }
    }

    /// Adds `connections_open` and `connections_refused_total`, both by port, to the registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "connections_open",
            "Connections that a port holds",
            self.open.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections closed at once because their port was full",
            self.refused.clone(),
        );
    }

    /// Bounds the connections of `listener`; `port` names it in metrics and lines.
    pub fn bound(&self, port: &'static str, listener: TcpListener) -> BoundedListener {
        let label = Port { port };
        BoundedListener {
            listener,
            port,
            max: self.max,
            places: Arc::new(Semaphore::new(self.max)),
            open: self.open.get_or_create_owned(&label),
            refused: self.refused.get_or_create_owned(&label),
            lines: Bucket::new(1, 1),
            pause: None,
        }
    }
}

/// A listening port with a bound on its connections: one too many is accepted and closed at once, so that its caller
/// learns of it and tries elsewhere.
#[derive(Debug)]
pub struct BoundedListener {
    listener: TcpListener,
    port: &'static str,
    max: usize,
    places: Arc<Semaphore>,
    open: Gauge<u64, AtomicU64>,
    refused: Counter,
    lines: Bucket,
    pause: Option<Pin<Box<Sleep>>>,
}

impl BoundedListener {
    /// The next connection that there is a place for.
    pub async fn accept(&mut self) -> Connection {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Connection> {
        for _ in 0..TURN_MAX {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((stream, _)) => match Arc::clone(&self.places).try_acquire_owned() {
                    Ok(place) => return Poll::Ready(Connection::new(stream, place, self.open.clone())),
                    Err(_) => self.refuse(stream),
                },
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    self.say(format_args!(
                        "cannot accept connections: {error}; trying again, close some or raise the limit of open files"
                    ));
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn refuse(&mut self, stream: TcpStream) {
        drop(stream);
        self.refused.inc();
        let max = self.max;
        self.say(format_args!(
            "is full with {max} connections and closes new ones at once; close some or raise the limit of open files"
        ));
    }

    fn say(&mut self, what: fmt::Arguments<'_>) {
        if self.lines.take(clock::now()) {
            tracing::warn!("The port for {} {what}", self.port);
        }
    }
}

/// What gRPC servers take. It never ends.
impl Stream for BoundedListener {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_accept(context).map(|connection| Some(Ok(connection)))
    }
}

/// The caller gave up before it was accepted: the next one is not concerned.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// One connection; its place is free again when it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Until the greeting has arrived,
    silence: Option<Pin<Box<Sleep>>>,
    /// of which so much is missing.
    ungreeted: usize,
    open: Gauge<u64, AtomicU64>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, open: Gauge<u64, AtomicU64>) -> Self {
        // Small messages wait for nothing. Where it cannot be set, the connection works all the same.
        let _ = stream.set_nodelay(true);
        open.inc();
        Self {
            stream,
            silence: Some(Box::pin(sleep(SILENCE_MAX))),
            ungreeted: GREETING,
            open,
            _place: place,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let received = buffer.filled().len().saturating_sub(before);
        self.ungreeted = self.ungreeted.saturating_sub(received);
        if self.ungreeted == 0 {
            self.silence = None;
        }
        match &mut self.silence {
            Some(silence) if read.is_pending() => silence
                .as_mut()
                .poll(context)
                .map(|()| Err(io::ErrorKind::TimedOut.into())),
            _ => read,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_port_gets_a_quarter_of_the_descriptors() {
        for (descriptors, expected) in [
            (0, 1),
            (256, 64),
            (1_024, 256),
            (1_048_576, 8_192),
            (u64::MAX, 8_192),
        ] {
            assert_eq!(connections_max(descriptors), expected, "{descriptors}");
        }
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let raised = raise_descriptor_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised, limit.maximum.unwrap_or(u64::MAX));
    }

    async fn listener(max: usize) -> (Connections, BoundedListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::new(max);
        let bounded = connections.bound("tests", listener);
        (connections, bounded, address)
    }

    #[tokio::test]
    async fn one_too_many_is_closed_and_a_place_that_gets_free_is_used() {
        let (connections, mut bounded, address) = listener(2).await;
        let mut callers = Vec::new();
        for _ in 0..3 {
            callers.push(TcpStream::connect(address).await.unwrap());
        }
        let (first, _second) = (bounded.accept().await, bounded.accept().await);
        let serving = tokio::spawn(async move { bounded.accept().await });
        let mut last = callers.pop().unwrap();
        assert_eq!(last.read(&mut [0]).await.unwrap(), 0, "closed at once");
        drop(first);
        let caller = TcpStream::connect(address).await.unwrap();
        let accepted = serving.await.unwrap();
        assert_eq!(accepted.stream.peer_addr().unwrap(), caller.local_addr().unwrap());
        let mut registry = Registry::default();
        connections.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "connections_open{port=\"tests\"} 2",
            "connections_refused_total{port=\"tests\"} 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_greet_is_closed() {
        for said in [0, 1, GREETING - 1] {
            let (_, mut bounded, address) = listener(1).await;
            let mut caller = TcpStream::connect(address).await.unwrap();
            let mut accepted = bounded.accept().await;
            let mut greeting = vec![0; said];
            caller.write_all(&greeting).await.unwrap();
            accepted.read_exact(&mut greeting).await.unwrap();
            let error = accepted.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{said} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_greeted_may_be_silent() {
        let (_, mut bounded, address) = listener(1).await;
        let mut caller = TcpStream::connect(address).await.unwrap();
        let mut accepted = bounded.accept().await;
        let mut greeting = [0; GREETING];
        caller.write_all(&greeting).await.unwrap();
        accepted.read_exact(&mut greeting).await.unwrap();
        let mut byte = [0];
        let silent = tokio::time::timeout(SILENCE_MAX * 10, accepted.read(&mut byte));
        assert!(silent.await.is_err(), "it is neither closed nor an error");
    }
}
