//! SubmitStream and sessions: order and exactly once, also where a stream breaks in the middle.

use bytes::Bytes;
use processes::cluster::{Cluster, Options};
use processes::wait::{PATIENCE, eventually};
use raftlog_proto::error::reason_of;
use raftlog_proto::v1::{
    OpenSessionRequest, SubmitClientRequestRequest, SubmitStreamHeader, SubmitStreamRequest,
};
use raftlog_proto::{OPERATION_BYTES_MAX, reason};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

const OPERATIONS: u64 = 5_000;
const BATCH: usize = 50;

fn operation(sequence: u64) -> Bytes {
    Bytes::from(format!("streamed {sequence}"))
}

/// Streams the operations from `first` on to a node, with a pause after each batch; gives the indexes it was answered with and how the stream ended.
async fn stream(port: u16, client_id: &str, first: u64, pause: Duration) -> (Vec<u64>, Result<(), Status>) {
    let (sender, requests) = mpsc::channel(4);
    let mut header = Some(SubmitStreamHeader {
        client_id: client_id.to_owned(),
        first_sequence: first,
        ..Default::default()
    });
    tokio::spawn(async move {
        let sequences: Vec<u64> = (first..=OPERATIONS).collect();
        for batch in sequences.chunks(BATCH) {
            let operations = batch.iter().copied().map(operation).collect();
            let request = SubmitStreamRequest {
                header: header.take(),
                operations,
                ..Default::default()
            };
            // The other side hung up: the answers say how far it got.
            if sender.send(request).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    });
    let mut indexes = Vec::new();
    let outcome = async {
        let mut client = processes::api::operations(port);
        let mut answers = client
            .submit_stream(ReceiverStream::new(requests))
            .await?
            .into_inner();
        while let Some(answer) = answers.message().await? {
            for run in answer.runs {
                indexes.extend(run.first_index..run.first_index + run.count);
            }
        }
        Ok(())
    };
    let outcome = outcome.await;
    (indexes, outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_keeps_its_order() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let leader = cluster.leader().await;
    let follower = cluster.others(&[leader])[0];
    let (indexes, outcome) = stream(cluster.port(follower), "", 1, Duration::ZERO).await;
    outcome.expect("nothing happens to this stream");
    assert_eq!(indexes, (1..=OPERATIONS).collect::<Vec<_>>());
    let log = cluster.check_history(&[]).await;
    assert!(
        log.iter().all(|logged| logged.data == operation(logged.index)),
        "the log is in the stream's order"
    );
}

/// The leader dies in the middle, again and again; the client begins a new stream after the last answer it got.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_stream_is_taken_up_without_repeats_or_gaps() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let ports = cluster.ports(&cluster.numbers());
    let client = tokio::spawn(async move {
        let (mut answered, mut breaks, pause) = (Vec::new(), 0, Duration::from_millis(50));
        let began = Instant::now();
        for port in ports.into_iter().cycle() {
            let (indexes, outcome) = stream(port, "stream", answered.len() as u64 + 1, pause).await;
            answered.extend(indexes);
            let Err(status) = outcome else { break };
            breaks += 1;
            assert!(
                began.elapsed() < PATIENCE,
                "{} answers after {breaks} streams: {status:?}",
                answered.len()
            );
            // Between two leaders, refusals come as fast as one asks.
            tokio::time::sleep(pause).await;
        }
        (answered, breaks)
    });
    while !client.is_finished() {
        let leader = cluster.leader().await;
        cluster.node(leader).kill().await;
        cluster.leader_among(&cluster.others(&[leader])).await;
        cluster.node(leader).start();
        cluster.wait_until_ready().await;
    }
    let (answered, breaks) = client.await.expect("the client goes on until it is done");
    assert!(breaks > 0, "leaders died, and the stream did not notice");
    let log = cluster.check_history(&[]).await;
    assert_eq!(log.len() as u64, OPERATIONS);
    assert_eq!(
        answered,
        (1..=OPERATIONS).collect::<Vec<_>>(),
        "each sequence was answered with its own index"
    );
    assert!(
        log.iter().all(|logged| logged.data == operation(logged.index)),
        "the log is in the stream's order"
    );
}

/// After the first operation that is not appended nothing else of the stream is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_operation_ends_its_stream() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let refused = Bytes::from(vec![b'x'; OPERATION_BYTES_MAX + 1]);
    let operations = vec![operation(1), operation(2), refused, operation(4)];
    let first = SubmitStreamRequest {
        header: Some(SubmitStreamHeader::default()),
        operations,
        ..Default::default()
    };
    let second = SubmitStreamRequest {
        operations: vec![operation(5)],
        ..Default::default()
    };
    let mut client = processes::api::operations(cluster.port(1));
    let outcome = async {
        let mut answers = client
            .submit_stream(tokio_stream::iter([first, second]))
            .await?
            .into_inner();
        while answers.message().await?.is_some() {}
        Ok::<(), Status>(())
    };
    let refused = outcome.await.expect_err("an operation is too long");
    assert_eq!(
        reason_of(&refused).as_deref(),
        Some(reason::INVALID_OPERATION),
        "{refused:?}"
    );
    cluster.submit(1, "after it").await.expect("all is well");
    let log = cluster.check_history(&[]).await;
    let held: Vec<&[u8]> = log.iter().map(|logged| logged.data.as_ref()).collect();
    let prefixes: [&[&[u8]]; 2] = [&[b"after it"], &[b"streamed 1", b"streamed 2", b"after it"]];
    assert!(
        prefixes.contains(&held.as_slice()),
        "neither a prefix of whole operations nor nothing: {log:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opened_session_outlives_everything() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let mut client = processes::api::operations(cluster.port(2));
    let one = client
        .open_session(OpenSessionRequest {})
        .await
        .expect("all is well")
        .into_inner()
        .client_id;
    let other = client
        .open_session(OpenSessionRequest {})
        .await
        .expect("all is well")
        .into_inner()
        .client_id;
    assert!(one.starts_with('~') && one != other, "{one} and {other}");
    let request = SubmitClientRequestRequest {
        operation: "once".into(),
        client_id: one,
        sequence: 1,
        ..Default::default()
    };
    let first = client
        .submit_client_request(request.clone())
        .await
        .expect("all is well")
        .into_inner();
    assert_eq!(first.index, 1, "opening a session takes no operation index");
    cluster.kill_all().await;
    cluster.start_all();
    cluster.wait_until_ready().await;
    let again = eventually("the repeat to be answered", async || {
        let answer = client.submit_client_request(request.clone()).await;
        answer.map_err(|status| status.to_string())
    })
    .await;
    assert_eq!(again.into_inner().index, 1);
    cluster.check_history(&[]).await;
}
