//! Snapshots for its node and from it, and the log that is dropped for them.

use raftlog_proto::error::{first_index_of, reason_of};
use raftlog_proto::reason;
use raftlog_proto::v1::replicate_log_request::Message;
use raftlog_proto::v1::{Place, ReadRequest, Snapshot, SnapshotChunk, SnapshotKept, WatchRequest};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::played_node::{Log, NODE_1, PlayedNode};
use crate::program::{LONG, Program, executed};

/// A snapshot of that log, as a replicator gives it that has executed all of it.
async fn snapshot_of(log: &Log) -> SnapshotChunk {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let end = log.0.len() as u64;
    node.feed(&log.0, end).await;
    node.progress(|progress| progress.durable_executed_index == end)
        .await;
    let chunk = node.take_snapshot(7).await;
    let last = log.0.last().unwrap();
    let expected = Place {
        index: end,
        term: last.term,
        running_hash: last.running_hash,
    };
    let snapshot = chunk.snapshot.unwrap();
    assert_eq!((chunk.id, chunk.offset, snapshot.place), (7, 0, Some(expected)));
    assert_eq!(snapshot.size, chunk.data.len() as u64);
    let (_, metrics) = program.get("/metrics");
    assert!(
        metrics.contains("raft_replicator_snapshots_taken_total 1\n"),
        "{metrics}"
    );
    chunk
}

fn stale(from_index: u64) -> ReadRequest {
    ReadRequest {
        from_index,
        to_index: 0,
        allow_stale: true,
    }
}

/// Refused with the index to start at.
fn assert_dropped(status: &Status, first: u64) {
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert_eq!(reason_of(status).as_deref(), Some(reason::OUT_OF_RANGE));
    assert_eq!(first_index_of(status), Some(first));
    assert!(
        status.message().contains(&format!("--from {first}")),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_one_replicator_is_another_s_beginning_also_after_kills() {
    let log = Log::numbered(110);
    let chunk = snapshot_of(&Log(log.0[..100].to_vec())).await;
    let (snapshot, state) = (chunk.snapshot.unwrap(), chunk.data);
    let folder = tempfile::tempdir().unwrap();
    // It has some of the operations. All but the last byte of the snapshot is no snapshot.
    let program = Program::start(folder.path());
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    node.feed(&log.0[..10], 10).await;
    node.progress(|progress| progress.durable_executed_index == 10)
        .await;
    let mut node = PlayedNode::open(program.clients, NODE_1).await;
    node.position().await;
    node.restore(snapshot, &state, state.len() - 1).await;
    assert_eq!(executed(&program.kill()), (1..=10).collect::<Vec<_>>());
    // Killed on the way, it has what it had, or the snapshot.
    for life in 0.. {
        let program = Program::start(folder.path());
        let mut node = PlayedNode::open(program.clients, NODE_1).await;
        let position = node.position().await;
        let (last, executed) = (position.last.unwrap(), position.executed.unwrap());
        if last.index == 100 {
            let place = snapshot.place.unwrap();
            assert_eq!((last, executed, position.first_index), (place, place, 0));
            break;
        }
        assert_eq!((last.index, executed.index), (10, 10));
        node.restore(snapshot, &state, state.len()).await;
        // The first life is killed at once.
        if life > 0 {
            node.progress(|progress| progress.durable_executed_index == 100)
                .await;
        }
        program.kill();
    }
    let program = Program::start(folder.path());
    let (mut node, _) = PlayedNode::start(program.clients, 100).await;
    node.feed(&log.0[100..], 110).await;
    node.progress(|progress| progress.durable_executed_index == 110)
        .await;
    let lines = program.lines.wait("the last executes line", |lines| {
        executed(lines).last() == Some(&110)
    });
    assert_eq!(executed(&lines), (101..=110).collect::<Vec<_>>());
    assert_eq!(program.get("/readyz").0, 200);
    let mut client = program.operation_log().await;
    for early in [0, 1, 100] {
        assert_dropped(&client.read(stale(early)).await.unwrap_err(), 101);
        let watch = WatchRequest {
            from_index: early,
            ..WatchRequest::default()
        };
        assert_dropped(&client.watch(watch).await.unwrap_err(), 101);
    }
    let mut read = client.read(stale(101)).await.unwrap().into_inner();
    let message = timeout(LONG, read.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(message.operations.len(), 10);
    let status: serde_json::Value = serde_json::from_str(&program.get("/status").1).unwrap();
    assert_eq!(status["first_index"], 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_told_and_goes_on_at_once() {
    let log = Log::numbered(60);
    let chunk = snapshot_of(&Log(log.0[..50].to_vec())).await;
    let snapshot = chunk.snapshot.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    // Somebody watches from the beginning, and is overtaken.
    let mut client = program.operation_log().await;
    let mut watch = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    let mut node = PlayedNode::open(program.clients, NODE_1).await;
    node.position().await;
    node.restore(snapshot, &chunk.data, chunk.data.len()).await;
    // What is fed before the snapshot is on disk waits in the stream.
    node.feed(&log.0[50..], 60).await;
    node.progress(|progress| progress.executed_index == 60).await;
    let lines = program.lines.wait("the last executes line", |lines| {
        executed(lines).last() == Some(&60)
    });
    assert_eq!(executed(&lines), (51..=60).collect::<Vec<_>>());
    let told = "Node 1 restored its replicator from a snapshot at index 50";
    assert!(lines.iter().any(|line| line == told), "{lines:#?}");
    assert_dropped(&timeout(LONG, watch.message()).await.unwrap().unwrap_err(), 51);
    let (_, metrics) = program.get("/metrics");
    for expected in ["snapshots_restored_total 1", "first_index 51"] {
        let line = format!("raft_replicator_{expected}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_snapshot_ends_the_stream_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    node.feed(&Log::numbered(3).0, 3).await;
    node.progress(|progress| progress.durable_executed_index == 3)
        .await;
    let place = |index| Place {
        index,
        ..Place::default()
    };
    for (place, size, state) in [
        (Some(place(3)), 2, &b""[..]),
        (None, 2, b""),
        (Some(place(9)), u64::MAX, b""),
        (Some(place(9)), 65_537, b""),
        (Some(place(9)), 2, b"xx"),
        (Some(place(9)), 1, b"\x01\x01"),
    ] {
        let mut node = PlayedNode::open(program.clients, NODE_1).await;
        node.position().await;
        let state = bytes::Bytes::from_static(state);
        node.restore(Snapshot { place, size }, &state, state.len()).await;
        let status = node.ended().await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    let (_node, position) = PlayedNode::start(program.clients, 3).await;
    assert_eq!(position.executed.unwrap().index, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn early_operations_are_dropped_once_the_node_holds_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let mut client = program.operation_log().await;
    let mut log = Log::default();
    let mut dropped = None;
    // As long as it takes: how large segments are depends on the volume.
    while dropped.is_none() {
        log.push(vec![u8::try_from(log.0.len() % 251).unwrap(); 1 << 20]);
        let last = log.0.last().unwrap().clone();
        node.feed(std::slice::from_ref(&last), last.index).await;
        if last.index % 10 == 0 {
            node.progress(|progress| progress.durable_executed_index == last.index)
                .await;
            let index = last.index;
            node.say(Message::SnapshotKept(SnapshotKept { index })).await;
            let early = client.read(stale(1)).await;
            dropped = early.err().and_then(|status| first_index_of(&status));
            assert!(last.index < 1_000, "nothing is dropped");
        }
    }
    let last = log.0.len() as u64;
    program.kill();
    let program = Program::start(folder.path());
    let (_node, position) = PlayedNode::start(program.clients, last).await;
    let first = position.first_index;
    assert!(dropped.is_some_and(|dropped| dropped <= first));
    assert_eq!(
        (position.last.unwrap().index, position.executed.unwrap().index),
        (last, last)
    );
    let mut client = program.operation_log().await;
    assert_dropped(&client.read(stale(first - 1)).await.unwrap_err(), first);
    let mut read = client.read(stale(first)).await.unwrap().into_inner();
    let mut next = first;
    while let Some(message) = timeout(LONG, read.message()).await.unwrap().unwrap() {
        for operation in message.operations {
            let at = usize::try_from(next).unwrap() - 1;
            assert!((operation.index, &operation.data) == (next, &log.0[at].data));
            next += 1;
        }
    }
    assert_eq!(next, last + 1);
}
