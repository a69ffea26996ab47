//! One real `raft-node` process, by itself a whole cluster.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use raftlog_proto::v1::cluster_client::ClusterClient;
use raftlog_proto::v1::operations_client::OperationsClient;
use raftlog_proto::v1::{
    GetStatusRequest, NodeStatus, OpenSessionRequest, QueryRequest, Role, SubmitClientRequestRequest,
    SubmitStreamHeader, SubmitStreamRequest, WatchStatusRequest,
};
use raftlog_proto::{QUERY_BYTES_MAX, error, reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// No condition that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

struct Node {
    process: Child,
    client_port: u16,
    http_port: u16,
    lines: Receiver<String>,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The most files that a node may have open in tests: far fewer than it gets by default.
const DESCRIPTORS: usize = 128;

fn command(folder: &Path, client_port: u16, http_port: u16) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\""))
        .arg(env!("CARGO_BIN_EXE_raft-node"))
        .args([
            "--id",
            "1",
            "--election-timeout",
            "150ms..300ms",
            "--heartbeat-interval",
            "50ms",
        ])
        .args([
            "--listen",
            &format!("127.0.0.1:{client_port}"),
            "--peer",
            &format!("1=127.0.0.1:{client_port}"),
        ])
        .args([
            "--http-listen",
            &format!("127.0.0.1:{http_port}"),
            "--replicator",
            "http://127.0.0.1:1",
        ])
        .arg("--data-dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Node {
    fn start(folder: &Path) -> Self {
        let (client_port, http_port) = (port(), port());
        let mut process = command(folder, client_port, http_port).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            process,
            client_port,
            http_port,
            lines,
        }
    }

    async fn connect(&mut self) -> Channel {
        let url = format!("http://127.0.0.1:{}", self.client_port);
        let endpoint = Channel::from_shared(url).unwrap();
        let connecting = async {
            loop {
                if let Ok(channel) = endpoint.connect().await {
                    return channel;
                }
                if let Some(status) = self.process.try_wait().unwrap() {
                    let mut stderr = String::new();
                    self.process
                        .stderr
                        .take()
                        .unwrap()
                        .read_to_string(&mut stderr)
                        .unwrap();
                    panic!("it ended, {status}: {stderr}");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, connecting)
            .await
            .expect("the port opens")
    }

    /// Waits until a line is printed.
    fn expect_line(&self, expected: &str) {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("no line '{expected}'"));
            if line == expected {
                return;
            }
        }
    }

    async fn http(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.http_port))
            .await
            .unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Asks until the answer says that.
    async fn expect_http(&self, path: &str, expected: &str) {
        let asking = async {
            while !self.http(path).await.contains(expected) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| panic!("no {expected} in {path}"));
    }

    /// SIGTERM, and then the end.
    fn stop(mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap()
    }
}

async fn leads(channel: &Channel) -> NodeStatus {
    let mut client = ClusterClient::new(channel.clone());
    let mut watch = client
        .watch_status(WatchStatusRequest::default())
        .await
        .unwrap()
        .into_inner();
    let waiting = async {
        loop {
            let status = watch
                .message()
                .await
                .unwrap()
                .expect("the watch goes on")
                .status
                .unwrap();
            if status.role() == Role::Leader {
                return status;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it leads")
}

fn operation(data: &'static [u8]) -> SubmitClientRequestRequest {
    SubmitClientRequestRequest {
        operation: Bytes::from_static(data),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_single_node_leads_commits_and_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path());
    let channel = node.connect().await;
    let first = leads(&channel).await;
    assert_ne!(first.cluster_id, 0);
    let mut client = OperationsClient::new(channel.clone());

    let answer = client
        .submit_client_request(operation(b"operation-1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.index, answer.leader_node), (1, 1));
    assert_eq!(answer.leader_address, format!("127.0.0.1:{}", node.client_port));
    node.expect_line("Node 1 runs RPC SubmitClientRequest called by a client.");

    let session = client
        .open_session(OpenSessionRequest {})
        .await
        .unwrap()
        .into_inner()
        .client_id;
    let in_session = SubmitClientRequestRequest {
        client_id: session,
        sequence: 1,
        ..operation(b"operation-2")
    };
    for _ in 0..2 {
        let answer = client
            .submit_client_request(in_session.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.index, 2, "the same sequence is appended once");
    }

    let status = client
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner()
        .status
        .unwrap();
    assert_eq!(
        (status.commit_index, status.last_index, status.persisted_index),
        (2, 2, 2)
    );
    assert!(
        !status.ready && status.reason.contains("replicator q4node1 is not connected"),
        "{}",
        status.reason
    );

    let ready = node.http("/readyz").await;
    assert!(
        ready.starts_with("HTTP/1.0 503") && ready.contains("q4node1"),
        "{ready}"
    );
    assert!(node.http("/livez").await.contains("200 OK"));
    // Published a few milliseconds later at most.
    node.expect_http("/status", "\"commit_index\":2").await;
    let metrics = node.http("/metrics").await;
    assert!(metrics.contains("\nraftlog_node_commit_index 2\n"), "{metrics}");
    let health = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
    assert_eq!(
        health.into_inner().status(),
        tonic_health::pb::health_check_response::ServingStatus::NotServing
    );

    assert_eq!(node.stop().code(), Some(0));

    let mut node = Node::start(folder.path());
    let channel = node.connect().await;
    let again = leads(&channel).await;
    assert_eq!(
        (again.cluster_id, again.member_id),
        (first.cluster_id, first.member_id)
    );
    let answer = OperationsClient::new(channel)
        .submit_client_request(operation(b"operation-3"))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().index, 3);
}

#[tokio::test]
async fn a_stream_is_answered_in_runs_up_to_the_first_bad_operation() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path());
    let channel = node.connect().await;
    leads(&channel).await;
    let mut client = OperationsClient::new(channel);
    let message = |header, count: usize| SubmitStreamRequest {
        header,
        operations: vec![Bytes::from_static(b"x"); count],
        acknowledged_through: 0,
    };
    let good = [
        message(Some(SubmitStreamHeader::default()), 3),
        message(None, 5_000),
    ];
    let mut bad = message(None, 2);
    bad.operations.insert(1, Bytes::new());
    let requests = tokio_stream::iter(good.into_iter().chain([bad, message(None, 1)]));
    let mut responses = client.submit_stream(requests).await.unwrap().into_inner();
    let mut next = 1;
    let refused = loop {
        match responses.message().await {
            Ok(Some(response)) => {
                for run in response.runs {
                    assert_eq!(run.first_index, next);
                    next += run.count;
                }
            }
            Ok(None) => panic!("the stream ends with an error"),
            Err(status) => break status,
        }
    };
    assert_eq!(next, 5_005, "all before the bad one, and nothing after it");
    assert_eq!(
        error::reason_of(&refused).as_deref(),
        Some(reason::INVALID_OPERATION)
    );
    let status = client
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner()
        .status
        .unwrap();
    assert_eq!(status.last_index, 5_004);
}

#[tokio::test]
async fn bad_operations_and_garbage_are_refused_and_nothing_breaks() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path());
    let channel = node.connect().await;
    leads(&channel).await;
    let mut client = OperationsClient::new(channel);
    let too_long = SubmitClientRequestRequest {
        operation: vec![0; (1 << 20) + 1].into(),
        ..Default::default()
    };
    for request in [operation(b""), too_long] {
        let status = client.submit_client_request(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(
            error::reason_of(&status).as_deref(),
            Some(reason::INVALID_OPERATION)
        );
    }
    for port in [node.client_port, node.http_port] {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream
            .write_all(b"\x16\x03\x01garbage\r\n\r\n\0\0\0")
            .await
            .unwrap();
        let mut answer = Vec::new();
        // Whatever it says, it closes.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("closed");
    }
    let answer = client
        .submit_client_request(operation(b"\xff\n\x1b"))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().index, 1);
}

/// Runs to the end: exit code and the one line on stderr.
fn fails(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("raft-node: "), "{stderr}");
    (status.code(), stderr)
}

#[tokio::test]
async fn what_cannot_start_says_why_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path());
    node.connect().await;

    let other = tempfile::tempdir().unwrap();
    let (code, stderr) = fails(command(other.path(), node.client_port, port()));
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&node.client_port.to_string()) && stderr.contains("--listen"),
        "{stderr}"
    );

    let (code, stderr) = fails(command(folder.path(), port(), port()));
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&node.process.id().to_string()),
        "it names who holds the folder: {stderr}"
    );

    let file = other.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (code, stderr) = fails(command(&file, port(), port()));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("file"), "{stderr}");

    let mut unknown = command(other.path(), port(), port());
    unknown.arg("--nonsense");
    let (code, stderr) = fails(unknown);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--nonsense"), "{stderr}");

    let mut bad = command(other.path(), port(), port());
    bad.args(["--tls-cert", "x"]);
    let (code, stderr) = fails(bad);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--tls-cert"), "{stderr}");
}

/// Opens more connections than the node has file descriptors, and waits until all but those that have a place are closed.
async fn flood(port: u16) -> Vec<tokio::net::TcpStream> {
    let mut open = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        open.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    // The last one is one too many.
    let mut last = open.pop().unwrap();
    let closed = tokio::time::timeout(PATIENCE, last.read(&mut [0])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "it is closed: {closed:?}");
    open
}

#[tokio::test]
async fn a_flood_of_connections_to_one_port_leaves_the_others_and_those_that_are_open_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path());
    let channel = node.connect().await;
    leads(&channel).await;
    let mut client = OperationsClient::new(channel);

    let to_clients = flood(node.client_port).await;
    let metrics = tokio::time::timeout(PATIENCE, node.http("/metrics"))
        .await
        .unwrap();
    let full = format!("connections_open{{port=\"clients\"}} {}\n", DESCRIPTORS / 4);
    assert!(metrics.contains(&full), "{metrics}");
    let _to_http = flood(node.http_port).await;
    let answer = client
        .submit_client_request(operation(b"in a flood"))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().index, 1);

    drop(to_clients);
    // Its places are free as soon as the node has seen that.
    let connecting = async {
        loop {
            let mut client = OperationsClient::new(node.connect().await);
            if let Ok(answer) = client.submit_client_request(operation(b"after it")).await {
                return answer.into_inner().index;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, connecting).await.unwrap(), 2);
}

#[tokio::test]
async fn a_query_without_a_replicator_is_refused_at_once_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path());
    let channel = node.connect().await;
    leads(&channel).await;
    let mut client = OperationsClient::new(channel);
    let query = |bytes: usize, allow_stale| QueryRequest {
        query: vec![b'x'; bytes].into(),
        allow_stale,
    };
    for (request, code, reason) in [
        (query(4, false), Code::Unavailable, reason::NO_REPLICATOR),
        (query(4, true), Code::Unavailable, reason::NO_REPLICATOR),
        (
            query(QUERY_BYTES_MAX + 1, true),
            Code::InvalidArgument,
            reason::INVALID_QUERY,
        ),
    ] {
        let refused = client.query(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert_eq!(error::reason_of(&refused).as_deref(), Some(reason));
    }
    let metrics = node.http("/metrics").await;
    for line in [
        "queries_total{outcome=\"NO_REPLICATOR\"} 2",
        "queries_total{outcome=\"INVALID_QUERY\"} 1",
        "query_seconds_count 3",
        "queries_in_flight 0",
    ] {
        assert!(metrics.contains(&format!("\nraftlog_node_{line}\n")), "{metrics}");
    }
}
