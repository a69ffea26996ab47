//! What is kept for clients that watch, and what becomes of those that are too slow for it.

use std::path::Path;

use raftlog_proto::error::{first_index_of, reason_of};
use raftlog_proto::reason;
use raftlog_proto::v1::replicate_log_request::Message;
use raftlog_proto::v1::{LoggedOperation, SnapshotKept, WatchRequest, WatchResponse};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::played_node::{Log, NODE_1, PlayedNode, Who};
use crate::program::{LONG, Program, command};

const MIB: usize = 1 << 20;

/// With these flags beside.
fn start(folder: &Path, flags: &[&str]) -> Program {
    let mut command = command(folder);
    command.args(flags);
    Program::spawn(command)
}

/// Feeds more operations of 1 MiB, and says that snapshots hold what they did.
async fn feed(node: &mut PlayedNode, log: &mut Log, operations: usize) {
    for _ in 0..operations {
        log.push(vec![u8::try_from(log.0.len() % 251).unwrap(); MIB]);
        let last = log.0.last().unwrap().clone();
        node.feed(std::slice::from_ref(&last), last.index).await;
    }
    let index = log.0.len() as u64;
    node.progress(|progress| progress.durable_executed_index == index)
        .await;
    node.say(Message::SnapshotKept(SnapshotKept { index })).await;
}

async fn watch(program: &Program, request: WatchRequest) -> Result<Streaming<WatchResponse>, Status> {
    let client = program.operation_log().await;
    let mut client = client.max_decoding_message_size(4 * MIB);
    client.watch(request).await.map(tonic::Response::into_inner)
}

fn from(from_index: u64) -> WatchRequest {
    WatchRequest {
        from_index,
        ..WatchRequest::default()
    }
}

fn behind(resume_token: &str) -> WatchRequest {
    WatchRequest {
        resume_token: resume_token.to_owned(),
        ..WatchRequest::default()
    }
}

async fn message(stream: &mut Streaming<WatchResponse>) -> Result<WatchResponse, Status> {
    let message = timeout(LONG, stream.message()).await.expect("it answers");
    message.map(|message| message.expect("it does not end by itself"))
}

/// Everything up to that index, and the last token.
async fn read_to(stream: &mut Streaming<WatchResponse>, last: u64) -> (Vec<LoggedOperation>, String) {
    let (mut all, mut token) = (Vec::new(), String::new());
    while all
        .last()
        .is_none_or(|operation: &LoggedOperation| operation.index < last)
    {
        let message = message(stream).await.unwrap();
        all.extend(message.operations);
        token = message.resume_token;
    }
    (all, token)
}

/// How a watch is refused.
async fn refusal(program: &Program, request: WatchRequest) -> (Code, String) {
    let refused = match watch(program, request).await {
        Ok(mut stream) => message(&mut stream).await.unwrap_err(),
        Err(refused) => refused,
    };
    (refused.code(), reason_of(&refused).unwrap_or_default())
}

/// The first index that is there.
async fn first(program: &Program) -> u64 {
    match watch(program, from(1)).await {
        Ok(_) => 1,
        Err(refused) => first_index_of(&refused).unwrap(),
    }
}

/// A line of `/metrics`.
fn metric(program: &Program, name: &str) -> u64 {
    let (_, metrics) = program.get("/metrics");
    let value = metrics.lines().find_map(|line| {
        let value = line.strip_prefix("raft_replicator_")?.strip_prefix(name)?;
        value.strip_prefix(' ')?.parse().ok()
    });
    value.unwrap_or_else(|| panic!("{name}: {metrics}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn history_goes_at_its_limits_and_not_before() {
    // As many operations as make more than three segments, which are of 64 MiB at most.
    const OPERATIONS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let program = start(
        folder.path(),
        &["--retain-age", "1h", "--retain-operations", "1000000"],
    );
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let mut log = Log::default();
    feed(&mut node, &mut log, OPERATIONS).await;
    let last = log.0.len() as u64;
    assert_eq!(first(&program).await, 1);
    program.kill();
    // Ages are on disk by now or not; whichever, nothing is an hour old.
    for (flags, is_whole) in [
        (&["--retain-age", "1h"][..], true),
        (&["--retain-bytes", "1GiB"], true),
        (&["--retain-age", "1s"], false),
    ] {
        let program = start(folder.path(), flags);
        let (mut node, _) = PlayedNode::start(program.clients, last).await;
        node.say(Message::SnapshotKept(SnapshotKept { index: last }))
            .await;
        node.progress(|progress| progress.executed_index == last).await;
        if is_whole {
            assert_eq!(first(&program).await, 1, "{flags:?}");
        } else {
            let dropped = timeout(LONG, async { while first(&program).await == 1 {} });
            dropped.await.expect("what is old goes by itself");
        }
        program.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_never_reads_is_overtaken_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let program = start(folder.path(), &["--retain-operations", "1"]);
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let mut stalled = watch(&program, from(1)).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..9 {
        others.push(watch(&program, from(1)).await.unwrap());
    }
    assert_eq!(metric(&program, "watchers"), 10);
    let mut log = Log::default();
    let mut seen = 0;
    // Until the log has dropped what it was to be given next: how large segments are depends on the volume.
    while metric(&program, "watchers_overtaken_total") == 0 {
        feed(&mut node, &mut log, 10).await;
        let last = log.0.len() as u64;
        for stream in &mut others {
            let (all, _) = read_to(stream, last).await;
            assert!(all.iter().map(|operation| operation.index).eq(seen + 1..=last));
        }
        seen = last;
        let status: serde_json::Value = serde_json::from_str(&program.get("/status").1).unwrap();
        if status["watches"] == 10 {
            let slowest = &status["slowest_watches"][0];
            assert!(
                slowest["peer"].as_str().unwrap().starts_with("127.0.0.1:"),
                "{status}"
            );
            let next = slowest["next_index"].as_u64().unwrap();
            assert_eq!(slowest["lag"].as_u64().unwrap(), last + 1 - next, "{status}");
            assert_eq!(
                metric(&program, "watch_lag_operations{quantile=\"1\"}"),
                last + 1 - next
            );
        }
        assert!(seen < 1_000, "nobody is overtaken");
    }
    // It keeps its place, as there is something in its connection, and is none of those that are behind.
    assert_eq!(metric(&program, "watchers"), 10);
    let status: serde_json::Value = serde_json::from_str(&program.get("/status").1).unwrap();
    assert_eq!(status["watches"], 9);
    assert_eq!(metric(&program, "watch_lag_operations{quantile=\"1\"}"), 0);
    // What was on its way, and then how it ended.
    let mut given = 0;
    let ended = loop {
        match message(&mut stalled).await {
            Ok(message) => {
                for operation in message.operations {
                    given += 1;
                    assert_eq!(operation.index, given);
                }
            }
            Err(status) => break status,
        }
    };
    assert!(given < seen / 2, "{given} of {seen}");
    assert_eq!(ended.code(), Code::OutOfRange, "{ended:?}");
    let first = first_index_of(&ended).unwrap();
    assert!(first > given + 1, "{ended:?}");
    let mut again = watch(&program, from(first)).await.unwrap();
    assert_eq!(read_to(&mut again, seen).await.0.len() as u64, seen + 1 - first);
    // All that it ever had in memory: not what watches did not read.
    let most = program.most_memory();
    assert!(most < 160 * MIB as u64, "{most} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_behind_its_token_at_any_replicator_of_the_cluster() {
    let log = Log::numbered(40);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let programs = folders.each_ref().map(|folder| Program::start(folder.path()));
    let [one, other] = &programs;
    let (node, _) = PlayedNode::start(one.clients, 0).await;
    node.feed(&log.0, 20).await;
    let mut stream = watch(one, from(1)).await.unwrap();
    let (_, token) = read_to(&mut stream, 20).await;
    assert!(token.len() <= 64, "{token}");
    // Where it goes on at once, also after a kill; and where nothing is known yet, and then less than was read.
    let mut early = watch(other, behind(&token)).await.unwrap();
    let (other_node, _) = PlayedNode::start(other.clients, 0).await;
    other_node.feed(&log.0, 10).await;
    let mut same = watch(one, behind(&token)).await.unwrap();
    node.feed(&[], 40).await;
    other_node.feed(&[], 20).await;
    other_node.feed(&[], 40).await;
    for stream in [&mut same, &mut early, &mut stream] {
        let (all, token) = read_to(stream, 40).await;
        assert!(all.iter().map(|operation| operation.index).eq(21..=40));
        assert!(!token.is_empty());
    }
    let now = WatchRequest {
        until_current: true,
        allow_stale: true,
        ..behind(&token)
    };
    let mut now = watch(one, now).await.unwrap();
    assert_eq!(read_to(&mut now, 40).await.0.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_past_is_refused() {
    let (ours, theirs) = (
        Log::numbered(20),
        Log::of((0..20).map(|index| format!("other-{index}"))),
    );
    let folder = tempfile::tempdir().unwrap();
    let token = {
        let program = Program::start(folder.path());
        let (node, _) = PlayedNode::start(program.clients, 0).await;
        node.feed(&ours.0, 20).await;
        let mut stream = watch(&program, from(1)).await.unwrap();
        read_to(&mut stream, 20).await.1
    };
    let another = Who {
        cluster_id: 0xc2,
        ..NODE_1
    };
    for (who, log, held, expected) in [
        (
            NODE_1,
            &theirs,
            20,
            (Code::FailedPrecondition, reason::OTHER_PAST),
        ),
        (
            another,
            &ours,
            20,
            (Code::FailedPrecondition, reason::WRONG_CLUSTER),
        ),
        // Told once it is known.
        (
            NODE_1,
            &theirs,
            19,
            (Code::FailedPrecondition, reason::OTHER_PAST),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::start(folder.path());
        let (node, _) = PlayedNode::start_as(program.clients, who, 0).await;
        node.feed(&log.0, held).await;
        read_to(&mut watch(&program, from(1)).await.unwrap(), held).await;
        let refused = refusal(&program, behind(&token));
        let (refused, ()) = tokio::join!(refused, node.feed(&[], 20));
        assert_eq!(refused, (expected.0, expected.1.to_owned()), "{held}");
    }
    let program = Program::start(folder.path());
    let invalid = (Code::InvalidArgument, reason::INVALID_REQUEST.to_owned());
    for request in [
        behind("x"),
        behind(&token[1..]),
        behind(&"1".repeat(100_000)),
        WatchRequest {
            from_index: 1,
            ..behind(&token)
        },
    ] {
        assert_eq!(refusal(&program, request).await, invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_what_is_gone_is_refused_with_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let program = start(folder.path(), &["--retain-operations", "1"]);
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let mut log = Log::default();
    let mut stream = watch(&program, from(1)).await.unwrap();
    let mut tokens = Vec::new();
    while first(&program).await < 3 {
        feed(&mut node, &mut log, 1).await;
        tokens.push(read_to(&mut stream, log.0.len() as u64).await.1);
        assert!(log.0.len() < 1_000, "nothing is dropped");
    }
    // What is there may be a single one.
    feed(&mut node, &mut log, 1).await;
    tokens.push(read_to(&mut stream, log.0.len() as u64).await.1);
    let first = first(&program).await;
    let at = usize::try_from(first).unwrap();
    // Of the last one that is gone, of one before, and of the first that is there.
    for token in [&tokens[at - 3], &tokens[0]] {
        let refused = watch(&program, behind(token)).await.unwrap_err();
        assert_eq!(
            (refused.code(), first_index_of(&refused)),
            (Code::OutOfRange, Some(first))
        );
    }
    for (token, expected) in [(&tokens[at - 2], first), (&tokens[at - 1], first + 1)] {
        let mut goes_on = watch(&program, behind(token)).await.unwrap();
        assert_eq!(message(&mut goes_on).await.unwrap().operations[0].index, expected);
    }
}
