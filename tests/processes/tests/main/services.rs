//! What every port offers besides its services: health and reflection over gRPC; health, metrics and status over HTTP.

use processes::api;
use processes::cluster::{Cluster, Options};
use processes::http;
use std::collections::BTreeSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_are_on_every_port() {
    let cluster = Cluster::start(Options {
        nodes: 1,
        ..Options::quick()
    })
    .await;
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
