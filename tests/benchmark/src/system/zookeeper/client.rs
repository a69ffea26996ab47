//! One session of ZooKeeper, with any number of requests under way: answers come in the order of requests.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use raftlog_load::Connection;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::wire;

/// Of a session: longer than any load stands still.
const SESSION_TIMEOUT_MILLISECONDS: i32 = 30_000;
/// Without a request for so long, a ping keeps the session.
const PING_AFTER: Duration = Duration::from_secs(5);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Requests between clients and the connection, and as many in one write.
const REQUESTS_MAX: usize = 1024;
/// Requests that have been sent and not been answered; more than one write holds.
const UNDER_WAY_MAX: usize = 4 * REQUESTS_MAX;
/// The longest answer: those to writes are short.
const ANSWER_BYTES_MAX: usize = 1 << 16;

/// An error code of the protocol, or 0; gone when the connection is.
type Answer = oneshot::Sender<i32>;

/// Sets the data of one node of the tree.
pub(super) struct Writes {
    path: String,
    requests: mpsc::Sender<(Request, Answer)>,
    /// What moves requests and answers, ended when dropped.
    _halves: JoinSet<io::Result<()>>,
}

enum Request {
    Create(String),
    Set(String, Bytes),
}

impl Request {
    fn frame(&self, xid: i32) -> Vec<u8> {
        match self {
            Self::Create(path) => wire::create(xid, path),
            Self::Set(path, data) => wire::set_data(xid, path, data),
        }
    }
}

impl Writes {
    /// Opens a session, and makes the node unless it is there.
    pub(super) async fn connect(address: &str, path: String) -> Result<Self, String> {
        let halves = open(address).await.map_err(|error| error.to_string())?;
        let (requests, to_send) = mpsc::channel(REQUESTS_MAX);
        let (sent, to_answer) = mpsc::channel(UNDER_WAY_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(send(halves.1, to_send, sent));
        tasks.spawn(receive(halves.0, to_answer));
        let writes = Self {
            path: path.clone(),
            requests,
            _halves: tasks,
        };
        match writes.call(Request::Create(path)).await? {
            0 | wire::NODE_EXISTS => Ok(writes),
            error => Err(format!("cannot create a node: error {error}")),
        }
    }

    async fn call(&self, request: Request) -> Result<i32, String> {
        let (answer, answered) = oneshot::channel();
        let gone = || "the connection is gone".to_owned();
        let exchange = async {
            let sent = self.requests.send((request, answer)).await;
            sent.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())
        };
        let done = timeout(PATIENCE, exchange).await;
        done.unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())))
    }
}

impl Connection for Writes {
    fn write(&self, operation: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            match self.call(Request::Set(self.path.clone(), operation)).await? {
                0 => Ok(()),
                error => Err(format!("error {error}")),
            }
        }
        .boxed()
    }
}

async fn open(address: &str) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream
        .write_all(&wire::connect(SESSION_TIMEOUT_MILLISECONDS))
        .await?;
    read_frame(&mut stream).await?;
    Ok(stream.into_split())
}

/// Sends what is asked for, as much at a time as there is. Who waits for an answer to it is handed to the other half before.
async fn send(
    mut stream: impl AsyncWrite + Unpin,
    mut requests: mpsc::Receiver<(Request, Answer)>,
    sent: mpsc::Sender<(i32, Answer)>,
) -> io::Result<()> {
    let (mut xid, mut batch) = (0_i32, Vec::new());
    loop {
        let mut bytes = Vec::new();
        match timeout(PING_AFTER, requests.recv_many(&mut batch, REQUESTS_MAX)).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(_) => bytes = wire::ping(),
        }
        for (request, answer) in batch.drain(..) {
            xid = xid.checked_add(1).unwrap_or(1);
            bytes.extend(request.frame(xid));
            if sent.send((xid, answer)).await.is_err() {
                return Ok(());
            }
        }
        stream.write_all(&bytes).await?;
    }
}

async fn receive(stream: impl AsyncRead + Unpin, mut sent: mpsc::Receiver<(i32, Answer)>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let frame = read_frame(&mut stream).await?;
        let header = wire::reply_header(&frame).ok_or(io::ErrorKind::InvalidData)?;
        if header.xid == wire::XID_PING {
            continue;
        }
        match sent.recv().await {
            Some((xid, answer)) if xid == header.xid => {
                // Somebody who has lost patience is gone.
                let _ = answer.send(header.error);
            }
            Some((xid, _)) => {
                let message = format!("answer {} comes before {xid}", header.xid);
                return Err(io::Error::other(message));
            }
            None => return Ok(()),
        }
    }
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::try_from(stream.read_i32().await?).ok();
    let length = length
        .filter(|&length| length <= ANSWER_BYTES_MAX)
        .ok_or(io::ErrorKind::InvalidData)?;
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, net::TcpListener};

    use super::*;

    fn reply(xid: i32, error: i32) -> Vec<u8> {
        let body = [&xid.to_be_bytes()[..], &[0; 8], &error.to_be_bytes()].concat();
        [&16_i32.to_be_bytes()[..], &body].concat()
    }

    /// Answers a session and every request in turn, with these errors.
    async fn server(listener: TcpListener, errors: Vec<i32>) -> io::Result<()> {
        let (mut stream, _) = listener.accept().await?;
        read_frame(&mut stream).await?;
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0]).await?;
        for error in errors {
            let request = read_frame(&mut stream).await?;
            let (xid, _) = request.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
            stream.write_all(&reply(wire::XID_PING, 0)).await?;
            stream.write_all(&reply(i32::from_be_bytes(*xid), error)).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn each_caller_gets_its_own_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(server(listener, vec![wire::NODE_EXISTS, 0, -101]));
        let writes = Writes::connect(&address, "/x".to_owned()).await.unwrap();
        assert_eq!(writes.write(Bytes::from_static(b"a")).await, Ok(()));
        assert_eq!(
            writes.write(Bytes::from_static(b"b")).await,
            Err("error -101".to_owned())
        );
        server.await.unwrap().unwrap();
        assert_eq!(
            writes.write(Bytes::from_static(b"c")).await,
            Err("the connection is gone".to_owned())
        );
    }

    #[tokio::test]
    async fn an_answer_out_of_turn_ends_the_connection() {
        let (mut server, client) = duplex(1024);
        let (sent, to_answer) = mpsc::channel(1);
        let (answer, answered) = oneshot::channel();
        sent.send((1, answer)).await.unwrap();
        server.write_all(&reply(2, 0)).await.unwrap();
        receive(client, to_answer).await.unwrap_err();
        assert!(answered.await.is_err());
    }
}
