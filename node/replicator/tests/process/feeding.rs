//! A node feeds it; it is killed, stopped and started again.

use std::process::Stdio;

use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use raftlog_proto::v1::replicate_log_request::Message;
use raftlog_proto::v1::{Start, start};
use tonic::Code;
use tonic::transport::{Endpoint, Uri};

use crate::played_node::{Log, NODE_1, PlayedNode, Who};
use crate::program::{Program, command, executed};

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_told_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let log = Log::of(["operation-1"]);
    node.feed(&log.0, 0).await;
    node.progress(|progress| progress.last_index == 1).await;
    node.feed(&[], 1).await;
    node.progress(|progress| progress.executed_index == 1).await;
    let lines = program
        .lines
        .wait("the executes line", |lines| !executed(lines).is_empty());
    let story: Vec<&String> = lines
        .iter()
        .filter(|line| !line.contains("its replicator"))
        .collect();
    assert_eq!(
        story,
        [
            "Node 1 runs RPC ReplicateLog called by Node 1",
            "Node 1: commitIndex=1, total entries=1",
            "Node 1 executes op=operation-1 at index=1",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_has_what_it_had_and_repeats_only_the_end() {
    const BATCH: usize = 500;
    let folder = tempfile::tempdir().unwrap();
    let log = Log::numbered(20_000);
    let mut history = Vec::new();
    let mut durable = 0;
    for life in 0..5 {
        let program = Program::start(folder.path());
        let (mut node, position) = PlayedNode::start(program.clients, log.0.len() as u64).await;
        let (last, commit, at) = (
            position.last.unwrap(),
            position.commit.unwrap(),
            position.executed.unwrap().index,
        );
        let had = usize::try_from(last.index).unwrap();
        let expected = had.checked_sub(1).map_or(0, |had| log.0[had].running_hash);
        assert_eq!(last.running_hash, expected);
        assert!(at >= durable && commit.index <= last.index);
        history.push((at, Vec::new()));
        for batch in log.0[had..].chunks(BATCH).take(8) {
            node.feed(batch, batch.last().unwrap().index).await;
        }
        // The first life is killed at once, the others somewhere on the way.
        let until = (last.index + life * 700).min(log.0.len() as u64);
        durable = node
            .progress(|progress| progress.executed_index >= until)
            .await
            .durable_executed_index;
        history.last_mut().unwrap().1 = executed(&program.kill());
    }
    let program = Program::start(folder.path());
    let (mut node, position) = PlayedNode::start(program.clients, log.0.len() as u64).await;
    let had = usize::try_from(position.last.unwrap().index).unwrap();
    for batch in log.0[had..].chunks(BATCH) {
        node.feed(batch, batch.last().unwrap().index).await;
    }
    let end = log.0.len() as u64;
    node.progress(|progress| progress.durable_executed_index == end)
        .await;
    let lines = program.lines.wait("the last executes line", |lines| {
        executed(lines).last() == Some(&end)
    });
    history.push((position.executed.unwrap().index, executed(&lines)));
    let mut through = 0;
    for (at, printed) in history {
        // What was committed before it began with, perhaps before the node came.
        let began = printed.first().map_or(at, |first| first - 1);
        assert!(
            began <= at && began <= through,
            "nothing is skipped: {began} counted as executed of {through}, {at} when the node came"
        );
        through = began + printed.len() as u64;
        assert_eq!(printed, (began + 1..=through).collect::<Vec<_>>());
    }
    assert_eq!(through, end);
    assert_eq!(program.get("/readyz").0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_leaves_nothing_to_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path());
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    let log = Log::numbered(3_000);
    node.feed(&log.0, 2_999).await;
    node.progress(|progress| progress.executed_index > 0).await;
    let status = program.terminate();
    assert_eq!(status.code(), Some(0));
    let stopped = node.ended().await;
    assert_eq!(reason_of(&stopped).as_deref(), Some(reason::STOPPING));
    let printed = executed(&program.lines.all());
    drop(program);
    let program = Program::start(folder.path());
    let (_node, position) = PlayedNode::start(program.clients, 0).await;
    assert_eq!(position.last.unwrap().index, 3_000);
    assert_eq!(position.executed.unwrap().index, printed.len() as u64);
    assert_eq!(
        (position.cluster_id, position.member_id),
        (NODE_1.cluster_id, NODE_1.member_id)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_belong_here_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    assert_eq!(
        program.get("/readyz"),
        (503, "waiting for node 1 to connect; executor log\n".to_owned())
    );
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    node.feed(&Log::numbered(3).0, 3).await;
    node.progress(|progress| progress.executed_index == 3).await;
    assert_eq!(program.get("/readyz").0, 200);
    drop(node);
    for (who, expected) in [
        (
            Who {
                cluster_id: 0xc2,
                ..NODE_1
            },
            reason::WRONG_CLUSTER,
        ),
        (Who { node: 2, ..NODE_1 }, reason::WRONG_MEMBER),
    ] {
        let status = PlayedNode::open(program.clients, who).await.ended().await;
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(reason_of(&status).as_deref(), Some(expected));
    }
    let mut stray = PlayedNode::open(
        program.clients,
        Who {
            cluster_id: 0xc2,
            ..NODE_1
        },
    )
    .await;
    let status = stray.ended().await;
    program.lines.wait("the refusal", |lines| {
        lines.iter().any(|line| line.contains(status.message()))
    });
    for who in [
        Who {
            cluster_id: 0,
            ..NODE_1
        },
        Who {
            member_id: 0,
            ..NODE_1
        },
        Who { node: 0, ..NODE_1 },
    ] {
        let status = PlayedNode::open(program.clients, who).await.ended().await;
        assert_eq!(reason_of(&status).as_deref(), Some(reason::INVALID_REQUEST));
    }
    // A new member of the same cluster goes on from where the old one was.
    let mut new = PlayedNode::open(
        program.clients,
        Who {
            member_id: 0x12,
            ..NODE_1
        },
    )
    .await;
    assert_eq!(new.position().await.last.unwrap().index, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_stream_replaces_the_one_that_lingers() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let (mut old, _) = PlayedNode::start(program.clients, 0).await;
    let (mut new, _) = PlayedNode::start(program.clients, 0).await;
    let status = old.ended().await;
    assert_eq!(reason_of(&status).as_deref(), Some(reason::REPLACED));
    new.feed(&Log::numbered(1).0, 1).await;
    new.progress(|progress| progress.executed_index == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_another_past_ends_it_with_a_line_that_names_the_index() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in [true, false] {
        let mut command = command(folder.path());
        let errors = tempfile::NamedTempFile::new().unwrap();
        command.stderr(Stdio::from(errors.reopen().unwrap()));
        let mut program = Program::spawn(command);
        let (mut node, position) = PlayedNode::start(program.clients, 0).await;
        if wrong {
            node.feed(&Log::numbered(2).0, 2).await;
            node.progress(|progress| progress.durable_executed_index == 2)
                .await;
            let mut other = Log::of(["another-1", "another-2"]);
            other.push("another-3");
            node.feed(&other.0[2..], 2).await;
        } else {
            assert_eq!(position.commit.unwrap().index, 2, "nothing was changed");
            let cut = Start {
                action: Some(start::Action::CutTo(1)),
                commit_index: 1,
            };
            node.say(Message::Start(cut)).await;
        }
        let status = program.wait();
        assert_eq!(status.code(), Some(1));
        let errors = std::fs::read_to_string(errors.path()).unwrap();
        assert_eq!(errors.lines().count(), 1, "{errors}");
        let expected = if wrong { "operation 3 of node 1" } else { "index 2" };
        assert!(errors.contains(expected), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_stdout_that_does_not_read_holds_up_execution_only() {
    let folder = tempfile::tempdir().unwrap();
    let (program, held_up) = Program::start_held_up(command(folder.path()));
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    // Far more lines than pipe, queues and the executor's share hold.
    let log = Log::of((0..30_000).map(|index| format!("{index:0>200}")));
    for batch in log.0.chunks(1_000) {
        node.feed(batch, batch.last().unwrap().index).await;
    }
    let end = log.0.len() as u64;
    let progress = node.progress(|progress| progress.commit_index == end).await;
    assert!(progress.executed_index < end);
    assert_eq!(program.get("/readyz").0, 200, "execution does not count");
    let answer = node.query(1, "last").await;
    assert!(
        answer.refused.is_none() && answer.index < end,
        "queries do not wait for it"
    );
    drop(held_up);
    node.progress(|progress| progress.executed_index == end).await;
    let lines = program.lines.wait("the last executes line", |lines| {
        executed(lines).last() == Some(&end)
    });
    assert_eq!(executed(&lines), (1..=end).collect::<Vec<_>>());
    // The latest state is printed in the end, whatever the bucket held back.
    let last = format!("Node 1: commitIndex={end}, total entries={end}");
    program
        .lines
        .wait("the last commit line", |lines| lines.contains(&last));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_node_may_come_over_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("r.sock");
    let mut command = command(&folder.path().join("data"));
    command
        .arg("--replicate-listen")
        .arg(format!("unix://{}", socket.display()));
    let mut program = Program::spawn(command);
    let connect = {
        let socket = socket.clone();
        tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move {
                tokio::net::UnixStream::connect(socket)
                    .await
                    .map(hyper_util::rt::TokioIo::new)
            }
        })
    };
    let channel = Endpoint::from_static("http://replicator")
        .connect_with_connector(connect)
        .await
        .unwrap();
    let mut node = PlayedNode::open_on(channel, NODE_1).await;
    assert_eq!(node.position().await.cluster_id, 0);
    // The port for clients does not have the service then.
    let status = PlayedNode::refused(program.clients).await;
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(program.terminate().code(), Some(0));
    assert!(!socket.exists());
}
