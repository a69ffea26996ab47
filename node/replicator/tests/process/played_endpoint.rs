//! An HTTP endpoint that executes operations, and does whatever endpoints do.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::program::LONG;

/// What it does with a call.
#[derive(Clone)]
pub(crate) enum Act {
    /// Answers this status, these headers, and this body.
    Answer(u16, &'static str, Vec<u8>),
    /// Answers that it is done, some time later.
    Slow(Duration),
    /// Says nothing more.
    Hang,
    /// Hangs up.
    Close,
    /// Answers that it is done, and hangs up in the middle of the body.
    HalfBody,
    /// Answers that it is done, with a body that does not end.
    Endless,
}

impl Act {
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(status, "", Vec::new())
    }

    /// Whether whoever calls is told that it is done.
    fn executes(&self) -> bool {
        match self {
            Self::Answer(status, ..) => (200..300).contains(status),
            Self::Slow(_) | Self::HalfBody | Self::Endless => true,
            Self::Hang | Self::Close => false,
        }
    }
}

/// A call that came in whole.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// What is behind the path: who called, where a test says so.
    pub(crate) run: String,
    pub(crate) index: u64,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// How it acts on an operation, the how manieth time.
type Script = Box<dyn FnMut(u64, usize) -> Act + Send>;

pub(crate) struct State {
    /// In the order in which they came.
    pub(crate) calls: Vec<Call>,
    /// Indexes that it said to be done.
    pub(crate) done: Vec<u64>,
    pub(crate) connections: usize,
    script: Script,
}

/// Clones are of the same endpoint, whichever process serves it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    state: Arc<(Mutex<State>, Condvar)>,
}

/// A process that serves it, as far as a caller can tell; it dies with all its connections when this is dropped.
pub(crate) struct Serving {
    runtime: Option<Runtime>,
    scheme: &'static str,
    pub(crate) address: SocketAddr,
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Elsewhere, as nothing may block where a test's own runtime is. It is over when this is.
        if let Some(runtime) = self.runtime.take() {
            let _ = std::thread::spawn(|| runtime.shutdown_timeout(LONG)).join();
        }
    }
}

impl Serving {
    pub(crate) fn url(&self) -> String {
        format!("{}://{}/operations", self.scheme, self.address)
    }
}

impl Endpoint {
    pub(crate) fn new(script: impl FnMut(u64, usize) -> Act + Send + 'static) -> Self {
        let state = State {
            calls: Vec::new(),
            done: Vec::new(),
            connections: 0,
            script: Box::new(script),
        };
        Self {
            state: Arc::new((Mutex::new(state), Condvar::new())),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    pub(crate) fn follow(&self, script: impl FnMut(u64, usize) -> Act + Send + 'static) {
        self.state().script = Box::new(script);
    }

    /// Indexes, in the order in which they came.
    pub(crate) fn indexes(&self) -> Vec<u64> {
        self.state().calls.iter().map(|call| call.index).collect()
    }

    /// Waits for calls that are enough.
    pub(crate) fn wait(&self, what: &str, enough: impl Fn(&State) -> bool) {
        let state = self.state();
        let waited = self
            .state
            .1
            .wait_timeout_while(state, LONG, |state| !enough(state));
        assert!(!waited.unwrap().1.timed_out(), "waited for {what}");
    }

    /// At a port, or at any.
    pub(crate) fn serve(&self, at: Option<SocketAddr>) -> Serving {
        self.serve_with(at, None)
    }

    /// By `https://`, at any port.
    pub(crate) fn serve_tls(&self, tls: TlsAcceptor) -> Serving {
        self.serve_with(None, Some(tls))
    }

    fn serve_with(&self, at: Option<SocketAddr>, tls: Option<TlsAcceptor>) -> Serving {
        let runtime = Runtime::new().unwrap();
        let at = at.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let listener = std::net::TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = {
            let _guard = runtime.enter();
            TcpListener::from_std(listener).unwrap()
        };
        let address = listener.local_addr().unwrap();
        let endpoint = self.clone();
        let scheme = if tls.is_some() { "https" } else { "http" };
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                endpoint.state().connections += 1;
                let (endpoint, tls) = (endpoint.clone(), tls.clone());
                // It breaks off where the caller or this process does.
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => endpoint.connection(tls.accept(stream).await?).await,
                        None => endpoint.connection(stream).await,
                    }
                });
            }
        });
        Serving {
            runtime: Some(runtime),
            scheme,
            address,
        }
    }

    async fn connection(self, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(call) = call(&mut stream).await? {
            let act = self.takes(call);
            let out = stream.get_mut();
            match act {
                Act::Answer(status, headers, body) => answer(out, status, headers, &body).await?,
                Act::Slow(time) => {
                    tokio::time::sleep(time).await;
                    answer(out, 200, "", b"").await?;
                }
                Act::Hang => {
                    // Until the caller has enough.
                    while out.read(&mut [0; 64]).await? > 0 {}
                    return Ok(());
                }
                Act::Close => return Ok(()),
                Act::HalfBody => {
                    out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                        .await?;
                    return Ok(());
                }
                Act::Endless => {
                    out.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                    loop {
                        out.write_all(&[b'x'; 4096]).await?;
                    }
                }
            }
        }
        Ok(())
    }

    fn takes(&self, call: Call) -> Act {
        let mut state = self.state();
        let index = call.index;
        state.calls.push(call);
        let times = state.calls.iter().filter(|call| call.index == index).count();
        let act = (state.script)(index, times);
        if act.executes() {
            state.done.push(index);
        }
        self.state.1.notify_all();
        act
    }
}

/// The next one on a connection; `None` at its end.
async fn call(stream: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<Option<Call>> {
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let target = line
        .strip_prefix("POST /operations")
        .and_then(|rest| rest.strip_suffix(" HTTP/1.1\r\n"));
    let run = target.unwrap_or_else(|| panic!("{line}")).to_owned();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let number = |name: &str| headers[name].parse::<u64>().unwrap();
    let index = number("raftlog-index");
    let mut body = vec![0; usize::try_from(number("content-length")).unwrap()];
    stream.read_exact(&mut body).await?;
    Ok(Some(Call {
        run,
        index,
        headers,
        body,
    }))
}

async fn answer(
    out: &mut (impl AsyncWrite + Unpin),
    status: u16,
    headers: &str,
    body: &[u8],
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    out.write_all(&[head.as_bytes(), body].concat()).await?;
    out.flush().await
}
