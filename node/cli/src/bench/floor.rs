//! What this machine cannot go below: the parts that any replicated commit is made of, measured by themselves.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use raftlog_proto::v1::{
    GetStatusRequest, GetStatusResponse, OpenSessionRequest, OpenSessionResponse, QueryRequest,
    QueryResponse, SubmitClientRequestRequest, SubmitClientRequestResponse, SubmitStreamRequest,
    SubmitStreamResponse,
    operations_client::OperationsClient,
    operations_server::{Operations, OperationsServer},
};
use serde::Serialize;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

use super::latency::Latencies;
use crate::failure::Failure;

/// Echoes at most, and the time that they may take at most.
const ECHOES: u64 = 2000;
const ECHO_FOR: Duration = Duration::from_secs(2);
/// Echoes that are not counted.
const ECHOES_WARM_UP: u64 = 200;

/// Disks that sync at once, and which of them completes a majority.
const DISKS: usize = 5;
const MAJORITY: usize = 3;
/// Rounds at most, and the time that they may take at most.
const ROUNDS: u32 = 300;
const ROUNDS_FOR: Duration = Duration::from_secs(3);
/// Rounds that are not counted.
const ROUNDS_WARM_UP: u32 = 10;
const WRITE_BYTES: usize = 512;

/// The medians of a commit's parts, in microseconds, and their sum.
#[derive(Clone, Copy, Debug, Serialize, PartialEq)]
pub(super) struct Floor {
    /// A loopback gRPC echo with a payload of the benchmark's size, from the client.
    pub(super) client_echo: f64,
    /// The same once more, as from the leader to a follower.
    pub(super) node_echo: f64,
    /// The 3rd of 5 concurrent fdatasyncs of 512 bytes written into files that are filled already.
    pub(super) majority_sync: f64,
    pub(super) sum: f64,
}

/// Measures all parts, one after the other. Takes a few seconds.
pub(super) async fn measure(size: usize, folder: &Path) -> Result<Floor, Failure> {
    let echo = Echo::start()
        .await
        .map_err(|error| failed("the gRPC echo", error))?;
    let client_echo = echo
        .measure(size)
        .await
        .map_err(|status| failed("the gRPC echo", status))?;
    let node_echo = echo
        .measure(size)
        .await
        .map_err(|status| failed("the gRPC echo", status))?;
    let folder = folder.to_owned();
    let sync = tokio::task::spawn_blocking(move || measure_sync(&folder)).await;
    let majority_sync = sync
        .map_err(|error| failed("fdatasync", error))?
        .map_err(|error| {
            Failure::failed(format!(
                "cannot measure fdatasync: {error}; choose a folder with --data-dir"
            ))
        })?;
    Ok(Floor {
        client_echo,
        node_echo,
        majority_sync,
        sum: client_echo + node_echo + majority_sync,
    })
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!(
        "cannot measure {what} as part of the floor: {error}; try again"
    ))
}

/// A bare gRPC server on a thread of its own that answers at once.
struct Echo {
    channel: Channel,
    /// Ends the server when dropped.
    _stop: oneshot::Sender<()>,
}

impl Echo {
    async fn start() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, address) = oneshot::channel();
        thread::Builder::new().name("echo".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let _ = tell.send(listener.local_addr()?);
                let server = Server::builder()
                    .tcp_nodelay(true)
                    .add_service(OperationsServer::new(Answerer));
                let incoming = TcpListenerStream::new(listener);
                let ended = server
                    .serve_with_incoming_shutdown(incoming, async { drop(stopped.await) })
                    .await;
                ended.map_err(io::Error::other)
            })
        })?;
        let address = address.await?;
        let channel = Channel::from_shared(format!("http://{address}"))?
            .tcp_nodelay(true)
            .connect()
            .await?;
        Ok(Self { channel, _stop: stop })
    }

    /// The median of echoes one after the other, in microseconds.
    async fn measure(&self, size: usize) -> Result<f64, Status> {
        let mut client = OperationsClient::new(self.channel.clone());
        let request = SubmitClientRequestRequest {
            operation: Bytes::from(vec![b'x'; size]),
            ..Default::default()
        };
        for _ in 0..ECHOES_WARM_UP {
            client.submit_client_request(request.clone()).await?;
        }
        let (latencies, started) = (Latencies::new(), Instant::now());
        while latencies.count() < ECHOES && started.elapsed() < ECHO_FOR {
            let sent = Instant::now();
            client.submit_client_request(request.clone()).await?;
            latencies.record(sent.elapsed());
        }
        Ok(latencies.summary().p50)
    }
}

/// Answers every operation at once, as a node would that had nothing to do for it.
struct Answerer;

#[tonic::async_trait]
impl Operations for Answerer {
    type SubmitStreamStream = Pin<Box<dyn Stream<Item = Result<SubmitStreamResponse, Status>> + Send>>;

    async fn submit_client_request(
        &self,
        _: Request<SubmitClientRequestRequest>,
    ) -> Result<Response<SubmitClientRequestResponse>, Status> {
        Ok(Response::new(SubmitClientRequestResponse {
            leader_address: "127.0.0.1:5001".to_owned(),
            ..Default::default()
        }))
    }

    async fn submit_stream(
        &self,
        _: Request<Streaming<SubmitStreamRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        Err(only_echo())
    }

    async fn open_session(
        &self,
        _: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        Err(only_echo())
    }

    async fn query(&self, _: Request<QueryRequest>) -> Result<Response<QueryResponse>, Status> {
        Err(only_echo())
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Err(only_echo())
    }
}

fn only_echo() -> Status {
    Status::unimplemented("only the echo is served here")
}

/// The folders that had to be made, the innermost first. They go when this does, as far as they are empty.
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes `folder`, and those above it that are missing.
    fn folder(folder: &Path) -> io::Result<Self> {
        let missing = folder
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let made = Self(missing.map(Path::to_owned).collect());
        std::fs::create_dir_all(folder)?;
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for folder in &self.0 {
            // Somebody else may use it by now: then it is not empty, and stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// The median time until the 3rd of 5 concurrent syncs is done, in microseconds.
fn measure_sync(folder: &Path) -> io::Result<f64> {
    let _made = Made::folder(folder)?;
    let scratch = tempfile::Builder::new()
        .prefix("raftctl-bench-")
        .tempdir_in(folder)?;
    let files: Vec<File> = (0..DISKS)
        .map(|disk| filled(scratch.path().join(format!("disk-{disk}"))))
        .collect::<io::Result<_>>()?;
    let latencies = Latencies::new();
    // The disks' threads, and this one.
    let barrier = Barrier::new(DISKS + 1);
    let stop_at = Instant::now() + ROUNDS_FOR;
    thread::scope(|scope| {
        let (done, syncs) = mpsc::channel::<io::Result<(Instant, Instant)>>();
        let mut orders = Vec::new();
        for file in &files {
            let (order, rounds) = mpsc::channel::<u32>();
            orders.push(order);
            let (done, barrier) = (done.clone(), &barrier);
            scope.spawn(move || {
                for round in rounds {
                    barrier.wait();
                    let started = Instant::now();
                    let synced = write_and_sync(file, round).map(|()| (started, Instant::now()));
                    let _ = done.send(synced);
                }
            });
        }
        for round in 0..ROUNDS {
            if Instant::now() > stop_at {
                break;
            }
            for order in &orders {
                let _ = order.send(round);
            }
            barrier.wait();
            let times = syncs.iter().take(DISKS).collect::<io::Result<Vec<_>>>()?;
            if round >= ROUNDS_WARM_UP
                && let Some(latency) = majority(times)
            {
                latencies.record(latency);
            }
        }
        Ok::<(), io::Error>(())
    })?;
    drop(files);
    scratch.close()?;
    Ok(latencies.summary().p50)
}

/// From the first start to the end that completes a majority.
fn majority(times: Vec<(Instant, Instant)>) -> Option<Duration> {
    let first = times.iter().map(|(started, _)| *started).min()?;
    let mut ends: Vec<Instant> = times.into_iter().map(|(_, ended)| ended).collect();
    ends.sort_unstable();
    ends.get(MAJORITY - 1).map(|end| end.duration_since(first))
}

/// A file whose blocks are all written, so that a sync has no metadata to flush.
fn filled(path: PathBuf) -> io::Result<File> {
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    for round in 0..ROUNDS {
        file.write_all_at(&[0; WRITE_BYTES], offset(round))?;
    }
    file.sync_all()?;
    Ok(file)
}

fn write_and_sync(file: &File, round: u32) -> io::Result<()> {
    file.write_all_at(&[0xa5; WRITE_BYTES], offset(round))?;
    file.sync_data()
}

fn offset(round: u32) -> u64 {
    u64::from(round) * 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_end_counts_from_the_first_start() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let times = vec![
            (at(2), at(30)),
            (at(0), at(50)),
            (at(1), at(10)),
            (at(3), at(20)),
            (at(4), at(40)),
        ];
        assert_eq!(majority(times), Some(Duration::from_millis(30)));
        assert_eq!(majority(vec![(at(0), at(1))]), None);
    }

    #[test]
    fn only_folders_that_were_made_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        drop(Made::folder(&inner).unwrap());
        assert!(!folder.path().join("a").exists());
        std::fs::create_dir(folder.path().join("a")).unwrap();
        drop(Made::folder(&inner).unwrap());
        assert!(folder.path().join("a").exists() && !inner.exists());
        let made = Made::folder(&inner).unwrap();
        std::fs::write(inner.join("file"), "").unwrap();
        drop(made);
        assert!(inner.join("file").exists(), "somebody's file stays");
    }

    #[tokio::test]
    async fn the_floor_can_be_measured() {
        let folder = tempfile::tempdir().unwrap();
        let floor = measure(256, folder.path()).await.unwrap();
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
}
