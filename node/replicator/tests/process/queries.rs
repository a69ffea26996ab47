//! What a node asks the executor for its clients.

use raftlog_proto::v1::replicate_log_request::Message;
use raftlog_proto::v1::{Query, QueryAnswer, QueryRefusal};
use raftlog_proto::{QUERY_BYTES_MAX, RESULT_BYTES_MAX};
use tempfile::TempDir;
use tonic::Code;

use crate::played_node::{Log, PlayedNode};
use crate::program::Program;

fn refusal(answer: &QueryAnswer) -> Option<(QueryRefusal, &str)> {
    let refused = answer.refused.as_ref()?;
    Some((refused.why(), &refused.message))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_executor_tells_the_operations_that_it_has_executed() {
    let folder = TempDir::new().unwrap();
    let program = Program::start(folder.path());
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let nothing = node.query(1, "last").await;
    assert_eq!(
        (nothing.id, nothing.index, nothing.result.len(), nothing.refused),
        (1, 0, 0, None)
    );
    let mut log = Log::numbered(4);
    log.push(vec![b'x'; RESULT_BYTES_MAX + 1]);
    node.feed(&log.0, 4).await;
    node.progress(|progress| progress.executed_index == 4).await;
    for (query, expected) in [
        ("last", "operation-4"),
        ("1", "operation-1"),
        ("4", "operation-4"),
    ] {
        let answer = node.query(2, query).await;
        assert_eq!((answer.id, answer.index, answer.term), (2, 4, 1), "{query}");
        assert_eq!(answer.result, expected, "{query}");
    }
    // The fifth is held, and not committed.
    for (query, why, part) in [
        ("5", QueryRefusal::OutOfRange, "index 4"),
        ("first", QueryRefusal::Invalid, "'last'"),
        ("", QueryRefusal::Invalid, "'last'"),
    ] {
        let answer = node.query(3, query).await;
        let (given, message) = refusal(&answer).unwrap();
        assert!(given == why && message.contains(part), "{query}: {answer:?}");
        assert!(answer.result.is_empty() && answer.index == 4);
    }
    node.feed(&[], 5).await;
    node.progress(|progress| progress.executed_index == 5).await;
    let answer = node.query(4, "5").await;
    assert_eq!(refusal(&answer).unwrap().0, QueryRefusal::TooLong, "{answer:?}");
    let metrics = program.get("/metrics").1;
    assert!(
        metrics.contains("\nraft_replicator_queries_total 8\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_too_long_ends_the_stream() {
    let folder = TempDir::new().unwrap();
    let program = Program::start(folder.path());
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let query = vec![b'1'; QUERY_BYTES_MAX + 1].into();
    node.say(Message::Query(Query { id: 1, query })).await;
    let ended = node.ended().await;
    assert_eq!(ended.code(), Code::InvalidArgument, "{ended}");
}
