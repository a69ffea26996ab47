//! Clients of `OperationLog`.

use std::collections::BTreeSet;

use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use raftlog_proto::v1::{ReadRequest, ReadResponse, WatchRequest, WatchResponse};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::played_node::{Log, PlayedNode};
use crate::program::{LONG, Program};

async fn read_all(mut stream: Streaming<ReadResponse>) -> Result<Vec<(u64, Vec<u8>)>, Status> {
    let mut all = Vec::new();
    while let Some(message) = timeout(LONG, stream.message()).await.expect("it answers")? {
        all.extend(
            message
                .operations
                .into_iter()
                .map(|operation| (operation.index, operation.data.to_vec())),
        );
    }
    Ok(all)
}

/// Indexes up to `last`, or to the end of the stream.
async fn watch_until(stream: &mut Streaming<WatchResponse>, last: u64) -> Vec<u64> {
    let mut all = Vec::new();
    while all.last().is_none_or(|index| *index < last) {
        let Some(message) = timeout(LONG, stream.message())
            .await
            .expect("it answers")
            .unwrap()
        else {
            break;
        };
        assert!(
            message
                .operations
                .iter()
                .all(|operation| operation.index <= message.commit_index)
        );
        all.extend(message.operations.iter().map(|operation| operation.index));
    }
    all
}

fn stale(from_index: u64, to_index: u64) -> ReadRequest {
    ReadRequest {
        from_index,
        to_index,
        allow_stale: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_out_byte_for_byte_also_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    // Small ones, all byte values, 1 MiB, and many that do not fit into memory's share.
    let mut data: Vec<Vec<u8>> = vec![vec![0], (0..=255).collect(), vec![b'\n'; 3], vec![7; 1 << 20]];
    data.extend((0..200_u32).map(|index| index.to_le_bytes().repeat(20_000)));
    let log = Log::of(data.clone());
    let end = data.len() as u64;
    for life in 0..2 {
        let program = Program::start(folder.path());
        let (mut node, _) = PlayedNode::start(program.clients, end).await;
        if life == 0 {
            for operation in &log.0 {
                node.feed(std::slice::from_ref(operation), operation.index).await;
            }
        }
        node.progress(|progress| progress.durable_executed_index == end)
            .await;
        let mut client = program.operation_log().await;
        let all = read_all(client.read(stale(0, 0)).await.unwrap().into_inner())
            .await
            .unwrap();
        assert!(all.iter().map(|(index, _)| *index).eq(1..=end));
        assert!(all.into_iter().map(|(_, bytes)| bytes).eq(data.clone()));
        let part = read_all(client.read(stale(3, 5)).await.unwrap().into_inner())
            .await
            .unwrap();
        assert_eq!(
            part.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
            [3, 4, 5]
        );
        let request = WatchRequest {
            from_index: end - 9,
            until_current: true,
            allow_stale: true,
            ..WatchRequest::default()
        };
        let mut watch = client.watch(request).await.unwrap().into_inner();
        assert_eq!(
            watch_until(&mut watch, u64::MAX).await,
            (end - 9..=end).collect::<Vec<_>>()
        );
        program.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_what_is_committed_and_goes_on_live() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let mut client = program.operation_log().await;
    let mut early = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    let later = WatchRequest {
        from_index: 3,
        ..WatchRequest::default()
    };
    let mut later = client.watch(later).await.unwrap().into_inner();
    let now = WatchRequest {
        until_current: true,
        allow_stale: true,
        ..WatchRequest::default()
    };
    let mut now = client.watch(now).await.unwrap().into_inner();
    assert_eq!(watch_until(&mut now, 1).await, [] as [u64; 0]);
    let (node, _) = PlayedNode::start(program.clients, 0).await;
    let log = Log::numbered(5);
    node.feed(&log.0, 2).await;
    assert_eq!(watch_until(&mut early, 2).await, [1, 2]);
    node.feed(&[], 4).await;
    assert_eq!(watch_until(&mut early, 4).await, [3, 4]);
    assert_eq!(watch_until(&mut later, 4).await, [3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_asks_how_far_the_cluster_is() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let mut client = program.operation_log().await;
    let all = ReadRequest::default();
    let status = client.read(all).await.unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status).as_deref()),
        (Code::Unavailable, Some(reason::NO_LEADER))
    );
    assert_eq!(
        read_all(client.read(stale(0, 0)).await.unwrap().into_inner())
            .await
            .unwrap(),
        []
    );

    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let log = Log::numbered(3);
    node.feed(&log.0, 1).await;
    node.progress(|progress| progress.executed_index == 1).await;
    let mut other = client.clone();
    let read = tokio::spawn(async move { read_all(other.read(all).await?.into_inner()).await });
    node.answer_read_index(None).await;
    let refused = read.await.unwrap().unwrap_err();
    assert_eq!(reason_of(&refused).as_deref(), Some(reason::NO_LEADER));

    let mut other = client.clone();
    let read = tokio::spawn(async move { read_all(other.read(all).await?.into_inner()).await });
    // The leader has committed 3, which this replicator hears of only afterwards.
    node.answer_read_index(Some(3)).await;
    node.feed(&[], 3).await;
    assert_eq!(read.await.unwrap().unwrap().len(), 3);

    for (from, to, expected) in [
        (4, 0, Ok(0)),
        (4, 9, Ok(0)),
        (2, 9, Ok(2)),
        (5, 0, Err((Code::OutOfRange, reason::OUT_OF_RANGE))),
        (3, 2, Err((Code::InvalidArgument, reason::INVALID_REQUEST))),
    ] {
        let answer = match client.read(stale(from, to)).await {
            Ok(stream) => Ok(read_all(stream.into_inner()).await.unwrap().len()),
            Err(status) => Err((status.code(), reason_of(&status).unwrap())),
        };
        assert_eq!(
            answer,
            expected.map_err(|(code, reason)| (code, reason.to_owned())),
            "{from}..={to}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_until_now_asks_how_far_the_cluster_is() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let mut client = program.operation_log().await;
    let now = WatchRequest {
        until_current: true,
        ..WatchRequest::default()
    };
    let status = client.watch(now.clone()).await.unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status).as_deref()),
        (Code::Unavailable, Some(reason::NO_LEADER))
    );

    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let log = Log::numbered(3);
    node.feed(&log.0, 1).await;
    node.progress(|progress| progress.executed_index == 1).await;
    let mut other = client.clone();
    let watch = tokio::spawn(async move {
        let mut stream = other.watch(now).await.unwrap().into_inner();
        watch_until(&mut stream, u64::MAX).await
    });
    // The leader has committed 3, which this replicator hears of only afterwards.
    node.answer_read_index(Some(3)).await;
    node.feed(&[], 2).await;
    node.feed(&[], 3).await;
    assert_eq!(watch.await.unwrap(), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_harms_nobody_and_there_are_not_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let log = Log::of((0..64).map(|_| vec![1; 256 << 10]));
    let end = log.0.len() as u64;
    // Calls on one connection share its flow control: who reads has its own.
    let mut reads = program
        .operation_log()
        .await
        .watch(WatchRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut client = program.operation_log().await;
    let mut watches = Vec::new();
    let refused = loop {
        match client.watch(WatchRequest::default()).await {
            Ok(stream) => watches.push(stream.into_inner()),
            Err(status) => break status,
        }
    };
    assert_eq!(reason_of(&refused).as_deref(), Some(reason::BACKPRESSURE));
    let (_, metrics) = program.get("/metrics");
    assert!(
        metrics.contains(&format!("\nraft_replicator_watchers {}\n", watches.len() + 1)),
        "{metrics}"
    );
    for operation in &log.0 {
        node.feed(std::slice::from_ref(operation), operation.index).await;
    }
    node.progress(|progress| progress.executed_index == end).await;
    assert_eq!(watch_until(&mut reads, end).await, (1..=end).collect::<Vec<_>>());
    // Whoever goes makes room.
    drop((reads, watches));
    let ended = timeout(LONG, async {
        loop {
            if let Ok(stream) = client.read(stale(end, 0)).await {
                return read_all(stream.into_inner()).await;
            }
        }
    });
    assert_eq!(ended.await.expect("there is room").unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_health_is_its_readiness() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", program.clients))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel);
    let request = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let service = "raftlog.v1.OperationLog";
    let mut watch = health.watch(request(service)).await.unwrap().into_inner();
    let mut seen = BTreeSet::new();
    let (node, _) = PlayedNode::start(program.clients, 1).await;
    seen.insert(watch.message().await.unwrap().unwrap().status());
    assert_eq!(program.get("/readyz").0, 503);
    node.feed(&Log::numbered(1).0, 1).await;
    let serving = timeout(LONG, async {
        while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    });
    serving.await.expect("it serves once it holds what was committed");
    assert_eq!(seen, BTreeSet::from([ServingStatus::NotServing]));
    let check = health.check(request("")).await.unwrap().into_inner();
    assert_eq!(check.status(), ServingStatus::Serving);
    assert_eq!(program.get("/readyz").0, 200);
    let status: serde_json::Value = serde_json::from_str(&program.get("/status").1).unwrap();
    assert_eq!(
        (&status["commit_index"], &status["cluster_id"]),
        (&1.into(), &"00000000000000c1".into())
    );
}
