//! The executor `state-machine`: exactly once, with results, whatever goes away and comes back.

use bytes::Bytes;
use raftlog_proto::v1::replicate_log_request::Message;
use raftlog_proto::v1::replicate_log_response::Message as Answer;
use raftlog_proto::v1::{
    ExecutorStatus, QueryRefusal, Snapshot, SnapshotChunk, SnapshotKept, Start, TakeSnapshot, start,
};
use tempfile::TempDir;

use crate::played_machine::{Machine, Serving};
use crate::played_node::{Log, NODE_1, PlayedNode};
use crate::program::{Program, command};

/// A replicator with a state machine at a socket in the same folder.
struct Pod {
    folder: TempDir,
    machine: Machine,
    serving: Option<Serving>,
    program: Option<Program>,
}

impl Pod {
    fn start() -> Self {
        let mut pod = Self {
            folder: TempDir::new().unwrap(),
            machine: Machine::default(),
            serving: None,
            program: None,
        };
        pod.serve();
        pod.start_replicator();
        pod
    }

    fn serve(&mut self) {
        self.serving = Some(self.machine.serve(&self.folder.path().join("socket")));
    }

    fn start_replicator(&mut self) {
        let mut command = command(&self.folder.path().join("data"));
        let url = format!("unix://{}", self.folder.path().join("socket").display());
        command.args(["--executor", "state-machine", "--state-machine", &url]);
        self.program = Some(Program::spawn(command));
    }

    fn program(&self) -> &Program {
        self.program.as_ref().unwrap()
    }

    async fn node(&self, commit: u64) -> (PlayedNode, u64) {
        let (node, position) = PlayedNode::start(self.program().clients, commit).await;
        (node, position.last.unwrap_or_default().index)
    }
}

async fn feed(node: &PlayedNode, log: &Log, from: u64, to: u64) {
    let (first, last) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
    node.feed(&log.0[first - 1..last], to).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_is_applied_once_whatever_is_killed_and_its_result_is_told() {
    let log = Log::numbered(60);
    let mut pod = Pod::start();
    let (mut node, _) = pod.node(0).await;
    for round in 0..6 {
        let (from, to) = (round * 10 + 1, round * 10 + 10);
        feed(&node, &log, from, to).await;
        let results = node.results(&[to, from]).await;
        for (found, index) in results.iter().zip([from, to]) {
            assert!(found.available && found.index == index, "{found:?}");
            assert_eq!(found.result, format!("did {index}"));
        }
        match round % 3 {
            // The replicator is killed, before it has written how far all is.
            0 => {
                pod.program.take().unwrap().kill();
                pod.start_replicator();
            }
            // The state machine is.
            1 => {
                pod.serving.take();
                pod.serve();
            }
            _ => {
                pod.serving.take();
                pod.program.take().unwrap().kill();
                pod.start_replicator();
                pod.serve();
            }
        }
        let last;
        (node, last) = pod.node(0).await;
        feed(&node, &log, last + 1, to).await;
        node.progress(|progress| progress.executed_index == to).await;
        // What is executed is not executed again for its result.
        let again = node.results(&[from]).await;
        assert_eq!(again[0].available, round % 3 == 1, "{again:?}");
    }
    assert_eq!(pod.machine.indexes(), (1..=60).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_fails_is_told_of_and_done_once_it_can_be() {
    let log = Log::numbered(9);
    let pod = Pod::start();
    pod.machine.state().fails_at = Some(4);
    let (mut node, _) = pod.node(0).await;
    for index in 1..=9 {
        feed(&node, &log, index, index).await;
    }
    let status = node.executor(|status| {
        status
            .failure
            .as_ref()
            .is_some_and(|failure| failure.attempts >= 2)
    });
    let failure = status.await.failure.unwrap();
    assert_eq!((failure.index, failure.message.as_str()), (4, "no such thing"));
    let (code, body) = pod.program().get("/readyz");
    assert_eq!(code, 200, "{body}");
    pod.machine.state().fails_at = None;
    node.progress(|progress| progress.executed_index == 9).await;
    node.executor(|status| status.failure.is_none() && status.connected)
        .await;
    assert_eq!(pod.machine.indexes(), (1..=9).collect::<Vec<_>>());
    let lines = pod.program().lines.all();
    let told = lines.iter().filter(|line| line.contains("fails at operation 4"));
    assert_eq!(told.count(), 1, "{lines:#?}");
}

/// It was said to fail until there was another operation, which may take days.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_machine_that_comes_back_fails_no_more_though_there_is_nothing_to_do() {
    let log = Log::numbered(3);
    let mut pod = Pod::start();
    let (mut node, _) = pod.node(0).await;
    feed(&node, &log, 1, 3).await;
    node.progress(|progress| progress.executed_index == 3).await;
    pod.serving.take();
    let failure = |status: &ExecutorStatus| status.failure.as_ref().map(|failure| failure.index);
    node.executor(|status| failure(status) == Some(0)).await;
    pod.serve();
    node.executor(|status| status.connected && status.failure.is_none())
        .await;
}

/// That one that fails at an operation answers a hello does not mean that it can do it now.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_machine_that_fails_at_an_operation_fails_until_it_has_done_it() {
    let log = Log::numbered(3);
    let pod = Pod::start();
    pod.machine.state().fails_at = Some(3);
    let (mut node, _) = pod.node(0).await;
    feed(&node, &log, 1, 3).await;
    let attempts = |status: &ExecutorStatus| status.failure.as_ref().map_or(0, |failure| failure.attempts);
    // It is connected between any two of them.
    let status = node.executor(|status| attempts(status) >= 4).await;
    assert_eq!(status.failure.unwrap().index, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_for_clients_and_says_what_it_does_not_know() {
    let log = Log::numbered(3);
    let mut pod = Pod::start();
    let (mut node, _) = pod.node(0).await;
    feed(&node, &log, 1, 3).await;
    node.progress(|progress| progress.executed_index == 3).await;
    let answer = node.query(1, "count").await;
    assert_eq!((answer.index, &answer.result[..]), (3, &b"3"[..]));
    for (query, why) in [("", QueryRefusal::Invalid), ("more", QueryRefusal::OutOfRange)] {
        let answer = node.query(2, query).await;
        assert_eq!(answer.refused.unwrap().why(), why, "{query}");
    }
    pod.serving.take();
    node.executor(|status| !status.connected).await;
    let answer = node.query(3, "count").await;
    assert_eq!(answer.refused.unwrap().why(), QueryRefusal::Busy);
}

/// All pieces of a snapshot.
async fn snapshot(node: &mut PlayedNode, id: u64) -> (Snapshot, Vec<u8>) {
    node.say(Message::TakeSnapshot(TakeSnapshot { id })).await;
    let (mut of, mut bytes) = (None, Vec::new());
    loop {
        match node.next().await.unwrap() {
            Some(Answer::Snapshot(SnapshotChunk {
                id: found,
                snapshot,
                offset,
                data,
            })) => {
                assert_eq!((found, offset), (id, bytes.len() as u64));
                of = of.or(snapshot);
                bytes.extend_from_slice(&data);
                let of = of.unwrap();
                if bytes.len() as u64 == of.size {
                    return (of, bytes);
                }
            }
            Some(Answer::Progress(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn restore(node: &PlayedNode, of: Snapshot, bytes: &[u8]) {
    node.say(Message::Start(Start {
        action: Some(start::Action::Restore(of)),
        commit_index: of.place.unwrap().index,
    }))
    .await;
    let mut offset = 0;
    for piece in bytes.chunks(700_000) {
        node.say(Message::Restore(SnapshotChunk {
            offset,
            data: Bytes::copy_from_slice(piece),
            ..SnapshotChunk::default()
        }))
        .await;
        offset += piece.len() as u64;
    }
}

/// The address of a stream that ended is the same.
async fn open_until_it_needs_state(pod: &Pod) -> PlayedNode {
    loop {
        let mut node = PlayedNode::open(pod.program().clients, NODE_1).await;
        let position = node.position().await;
        if position.needs_state {
            return node;
        }
        let resume_from = position.last.unwrap_or_default().index + 1;
        node.say(Message::Start(Start {
            action: Some(start::Action::ResumeFrom(resume_from)),
            commit_index: 0,
        }))
        .await;
        node.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_of_the_state_machines_state_and_another_goes_on_from_it() {
    let log = Log::numbered(9);
    let pod = Pod::start();
    let state: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
    pod.machine.state().bytes.clone_from(&state);
    let (mut node, _) = pod.node(0).await;
    feed(&node, &log, 1, 5).await;
    node.progress(|progress| progress.durable_executed_index == 5)
        .await;
    let (of, bytes) = snapshot(&mut node, 7).await;
    assert_eq!(of.place.unwrap().index, 5);
    assert_eq!((&bytes[..2], bytes[2..] == state), (&[1, 4][..], true));

    // A new pod gets it, and the operations behind it.
    let other = Pod::start();
    let mut node = PlayedNode::open(other.program().clients, NODE_1).await;
    node.position().await;
    restore(&node, of, &bytes).await;
    node.progress(|progress| progress.executed_index == 5).await;
    feed(&node, &log, 6, 9).await;
    node.progress(|progress| progress.executed_index == 9).await;
    assert_eq!(other.machine.indexes(), [6, 7, 8, 9]);
    assert!(other.machine.state().bytes == state);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_machine_that_lost_its_state_gets_it_from_the_log_or_else_from_a_snapshot() {
    // More than the two segments that stay at least.
    let log = Log::of(std::iter::repeat_n(vec![7; 1 << 20], 200));
    let mut pod = Pod::start();
    let (mut node, _) = pod.node(0).await;
    for index in 1..=200 {
        feed(&node, &log, index, index).await;
    }
    node.progress(|progress| progress.executed_index == 200).await;
    // It begins anew, and the log still has all.
    pod.serving.take();
    pod.machine = Machine::default();
    pod.serve();
    node.progress(|progress| progress.executed_index < 200).await;
    node.progress(|progress| progress.durable_executed_index == 200)
        .await;
    assert_eq!(pod.machine.indexes(), (1..=200).collect::<Vec<_>>());
    let (of, bytes) = snapshot(&mut node, 1).await;
    node.say(Message::SnapshotKept(SnapshotKept { index: 200 })).await;
    // The log drops what it can, and the state is lost again.
    pod.program().lines.wait("less of the log", |lines| {
        lines
            .iter()
            .any(|line| line.contains("earlier ones are in snapshots"))
    });
    pod.serving.take();
    pod.machine = Machine::default();
    pod.serve();
    let ended = node.ended().await;
    assert!(ended.message().contains("needs a snapshot"), "{ended:?}");
    let mut node = open_until_it_needs_state(&pod).await;
    restore(&node, of, &bytes).await;
    let position = node.position_again().await;
    assert_eq!(position.last.unwrap().index, 200);
    node.say(Message::Start(Start {
        action: Some(start::Action::ResumeFrom(201)),
        commit_index: 200,
    }))
    .await;
    node.progress(|progress| progress.executed_index == 200).await;
    assert_eq!(pod.machine.state().index, 200);
    assert!(pod.machine.indexes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_another_cluster_is_refused_and_nothing_is_applied() {
    let log = Log::numbered(3);
    let pod = Pod::start();
    {
        let mut state = pod.machine.state();
        (state.cluster_id, state.index) = (0xbad, 2);
    }
    let (mut node, _) = pod.node(0).await;
    feed(&node, &log, 1, 3).await;
    let status = node.executor(|status| status.failure.is_some()).await;
    let why = status.failure.unwrap().message;
    assert!(why.contains("its state is of cluster 0000000000000bad"), "{why}");
    assert!(pod.machine.indexes().is_empty());
}
