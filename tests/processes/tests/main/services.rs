//! What every port offers besides its services: health and reflection over gRPC; health, metrics and status over HTTP.

use processes::api;
use processes::binaries;
use processes::cluster::{Cluster, Options};
use processes::http;
use processes::ports::Ports;
use processes::process::Process;
use processes::wait::eventually;
use raftlog_proto::v1::raft_client::RaftClient;
use raftlog_proto::v1::replicator_client::ReplicatorClient;
use raftlog_proto::v1::{ReplicateLogRequest, TimeoutNowRequest};
use std::collections::BTreeSet;
use std::process::Stdio;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_are_on_every_port() {
    let cluster = Cluster::start(Options::quick().of(1)).await;
    let table: [(u16, &[&str]); 2] = [
        (
            cluster.port(1),
            &["raftlog.v1.Operations", "raftlog.v1.Cluster", "raftlog.v1.Raft"],
        ),
        (
            cluster.replicator_port(1),
            &["raftlog.v1.OperationLog", "raftlog.v1.Replicator"],
        ),
    ];
    for (port, services) in table {
        let mut health = HealthClient::new(api::channel(port));
        let answer = api::call(health.check(HealthCheckRequest::default()))
            .await
            .expect("health is served");
        assert_eq!(answer.status(), ServingStatus::Serving);
        let reflected = reflected_services(port).await;
        for &service in services {
            assert!(
                reflected.contains(service),
                "port {port} reflects {reflected:?} and not {service}"
            );
        }
    }
}

async fn reflected_services(port: u16) -> BTreeSet<String> {
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = ServerReflectionClient::new(api::channel(port));
    let answers = api::call(client.server_reflection_info(tokio_stream::once(request))).await;
    let answer = answers
        .expect("reflection is served")
        .message()
        .await
        .expect("reflection answers");
    match answer.and_then(|answer| answer.message_response) {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("no list of services but {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_tells_health_metrics_and_status() {
    let cluster = Cluster::start(Options::quick()).await;
    cluster.submit(1, "to be counted").await.expect("all is well");
    cluster.settled_logs(&cluster.numbers()).await;
    for port in [cluster.http_port(1), cluster.replicator_http_port(1)] {
        for path in ["/livez", "/readyz"] {
            let answer = http::get(port, path).await.expect("HTTP is served");
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert!(!answer.body.trim().is_empty(), "{path} says why");
        }
        let metrics = http::get(port, "/metrics").await.expect("HTTP is served");
        assert_eq!(metrics.status, 200);
        assert!(
            metrics.body.contains("# TYPE ") && metrics.body.trim_end().ends_with("# EOF"),
            "{}",
            metrics.body
        );
        let status = http::get(port, "/status").await.expect("HTTP is served");
        let status: serde_json::Value = serde_json::from_str(&status.body).expect("/status is JSON");
        assert!(status.is_object(), "{status}");
        assert_eq!(
            http::get(port, "/nothing/here")
                .await
                .expect("HTTP is served")
                .status,
            404
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_writes_one_object_a_line() {
    let json = ["--log-format", "json"].map(str::to_owned).to_vec();
    let mut options = Options {
        nodes: 1,
        replicator_flags: json.clone(),
        ..Options::quick()
    };
    options.node_flags.extend(json);
    let mut cluster = Cluster::start(options).await;
    cluster
        .submit(1, "a \"quoted\" operation")
        .await
        .expect("all is well");
    let executes = r#"Node 1 executes op=a \"quoted\" operation at index=1"#;
    cluster
        .replicator(1)
        .process()
        .says_after(0, "that it executes", |line| line.contains(executes))
        .await;
    for line in cluster
        .node(1)
        .stories()
        .concat()
        .iter()
        .chain(&cluster.replicator(1).stories().concat())
    {
        let object: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(object.is_object(), "{line}");
    }
}

/// A node and its replicator that were told everything by environment variables, on ports of their own.
struct Pod {
    ports: Ports,
    node: Process,
    replicator: Process,
    _folder: tempfile::TempDir,
}

impl Pod {
    /// Starts them with these variables besides those that every pod needs.
    async fn start(node: &[(&str, &str)], replicator: &[(&str, &str)]) -> Self {
        let ports = Ports::claim();
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        let local = |offset| format!("127.0.0.1:{}", ports.at(offset));
        let place = |name| folder.path().join(name).display().to_string();
        let (data, http, listen) = (place("q4node1"), local(1), local(2));
        let defaults = [
            ("RAFT_ID", "1"),
            ("REPLICATOR_DATA_DIR", &data),
            ("REPLICATOR_HTTP_LISTEN", &http),
            ("REPLICATOR_LISTEN", &listen),
        ];
        let replicator = spawn("raft-replicator", &[&defaults[..], replicator].concat());
        let url = format!("http://{listen}");
        let (data, http, listen) = (place("node1"), local(3), local(4));
        let peers = format!("1={listen}");
        let defaults = [
            ("RAFT_ID", "1"),
            ("RAFT_DATA_DIR", &data),
            ("RAFT_HTTP_LISTEN", &http),
            ("RAFT_LISTEN", &listen),
            ("RAFT_PEERS", &peers),
            ("RAFT_REPLICATOR", &url),
            ("RAFT_ELECTION_TIMEOUT", "300ms..600ms"),
            ("RAFT_HEARTBEAT_INTERVAL", "100ms"),
        ];
        let node = spawn("raft-node", &[&defaults[..], node].concat());
        let mut pod = Self {
            ports,
            node,
            replicator,
            _folder: folder,
        };
        eventually("the pod to be ready", async || {
            assert!(
                pod.node.is_running() && pod.replicator.is_running(),
                "the pod ended"
            );
            for offset in [1, 3] {
                let answer = http::get(pod.ports.at(offset), "/readyz").await?;
                if answer.status != 200 {
                    return Err(answer.body);
                }
            }
            Ok(())
        })
        .await;
        pod
    }

    async fn executes_an_operation(&mut self) {
        api::submit(self.ports.at(4), "an operation")
            .await
            .expect("all is well");
        self.replicator
            .says("Node 1 executes op=an operation at index=1")
            .await;
    }
}

fn spawn(program: &str, environment: &[(&str, &str)]) -> Process {
    // Of a variable that is there twice, the last one counts.
    Process::spawn_with::<&str>(program, binaries::path(program), &[], environment, Stdio::null())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environment_variables_stand_for_flags() {
    let mut pod = Pod::start(
        &[("RAFT_REPLICATOR_NAME", "mirror")],
        &[("RAFT_REPLICATOR_NAME", "mirror")],
    )
    .await;
    pod.executes_an_operation().await;
    pod.node
        .says("Node 1 sends RPC ReplicateLog to Node mirror")
        .await;
}

/// As on Kubernetes: the Replicator service on a socket that only the pod sees, and not on the port for clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_joins_node_and_replicator() {
    let folder = tempfile::tempdir().expect("cannot make a temporary folder");
    let url = format!("unix://{}", folder.path().join("replicate.sock").display());
    let mut pod = Pod::start(&[("RAFT_REPLICATOR", &url)], &[("REPLICATE_LISTEN", &url)]).await;
    pod.executes_an_operation().await;
    let mut client = ReplicatorClient::new(api::channel(pod.ports.at(2)));
    let requests = tokio_stream::once(ReplicateLogRequest::default());
    let refused = api::call(client.replicate_log(requests))
        .await
        .expect_err("it is served elsewhere");
    assert_eq!(refused.code(), Code::Unimplemented);
}

/// Raft and Cluster on a port that clients need not reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_can_have_a_port_of_their_own() {
    let ports = Ports::claim();
    let peer = format!("127.0.0.1:{}", ports.at(0));
    let peers = format!("1={peer}");
    let mut pod = Pod::start(&[("RAFT_PEER_LISTEN", &peer), ("RAFT_PEERS", &peers)], &[]).await;
    pod.executes_an_operation().await;
    let timeout_now = async |port| {
        let mut client = RaftClient::new(api::channel(port));
        api::call(client.timeout_now(TimeoutNowRequest::default()))
            .await
            .expect_err("it says nothing")
            .code()
    };
    assert_eq!(timeout_now(pod.ports.at(4)).await, Code::Unimplemented);
    assert_ne!(timeout_now(ports.at(0)).await, Code::Unimplemented);
    let reflected = reflected_services(pod.ports.at(4)).await;
    assert!(!reflected.contains("raftlog.v1.Raft"), "{reflected:?}");
}
