//! It executes only while its node leads.

use raftlog_proto::v1::Leading;
use raftlog_proto::v1::replicate_log_request::Message;

use crate::played_node::{Log, PlayedNode};
use crate::program::{Program, command, executed, output};

fn leading(leads: bool, term: u64, execute_after: u64) -> Message {
    Message::Leading(Leading {
        leads,
        term,
        execute_after,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_executes_behind_the_mark_while_its_node_leads_and_not_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let mut on_leader = command(folder.path());
    on_leader.args(["--execute-on", "leader"]);
    let program = Program::spawn(on_leader);
    let (mut node, position) = PlayedNode::start(program.clients, 0).await;
    assert!(position.on_leader && node.executor(|status| status.on_leader).await.connected);
    let log = Log::numbered(9);
    node.feed(&log.0[..6], 6).await;
    // The mark moves, as another one executes; whoever waits below it is answered.
    node.say(leading(false, 0, 3)).await;
    node.progress(|progress| progress.durable_executed_index == 3)
        .await;
    let results = node.results(&[2]).await;
    assert!(!results[0].available);
    assert!(executed(&program.lines.all()).is_empty());
    node.say(leading(true, 4, 3)).await;
    let progress = node
        .progress(|progress| progress.durable_executed_index == 6)
        .await;
    assert_eq!(progress.leading_term, 4);
    // Another one leads, marks nothing, and goes.
    node.say(leading(false, 4, 3)).await;
    node.progress(|progress| progress.leading_term == 0).await;
    node.feed(&log.0[6..], 9).await;
    node.progress(|progress| progress.last_index == 9).await;
    node.say(leading(true, 6, 5)).await;
    node.progress(|progress| progress.executed_index == 9 && progress.leading_term == 6)
        .await;
    let expected = [4, 5, 6, 6, 7, 8, 9];
    let lines = program.lines.wait("all to be executed", |lines| {
        executed(lines).len() >= expected.len()
    });
    assert_eq!(executed(&lines), expected);
    let notice = "Node 1 leads term 6: its replicator executes for all, after index 5";
    assert!(lines.iter().any(|line| line == notice), "{lines:#?}");
}

#[test]
fn a_state_machine_has_to_execute_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = command(folder.path());
    wrong.args(["--execute-on", "leader", "--executor", "state-machine"]);
    let output = output(wrong);
    assert_eq!(output.status.code(), Some(2));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("--execute-on every-node"), "{why}");
}
