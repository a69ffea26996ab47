//! Bad input from everywhere: one line, the right code, no panic.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use raftlog_proto::v1::replicate_log_request::Message;
use raftlog_proto::v1::{Feed, ReplicatedOperation};

use crate::played_node::{Log, NODE_1, PlayedNode};
use crate::program::{Program, command, executed, output};

fn refused(what: &str, output: &Output, code: i32, expected: &str) {
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{what}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{what}: {errors}");
    assert!(
        errors.starts_with("raft-replicator: ") && errors.contains(expected),
        "{what}: {errors}"
    );
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    for (args, expected) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["--id", "0"], "--id"),
        (&[], "--id"),
        (&["--id", "1", "--executor", "magic"], "state-machine"),
        (&["--id", "1", "--executor", "http"], "--http-url"),
        (&["--id", "1", "--executor", "exec"], "behind --"),
        (&["--id", "1", "--", "true"], "--executor exec"),
        (&["--id", "1", "--listen", "x"], "--listen"),
        (&["--id", "1", "--replicate-listen", "unix:x"], "unix:///PATH"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raft-replicator"));
        command.args(args).env_remove("RAFT_ID");
        refused(&format!("{args:?}"), &output(command), 2, expected);
    }
    let mut help = Command::new(env!("CARGO_BIN_EXE_raft-replicator"));
    help.arg("--help");
    let help = output(help);
    assert_eq!(help.status.code(), Some(0));
    assert!(
        String::from_utf8(help.stdout)
            .unwrap()
            .contains("REPLICATOR_DATA_DIR")
    );
}

#[test]
fn what_is_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    refused(
        "the folder",
        &output(command(folder.path())),
        1,
        "in use by process",
    );
    let other = tempfile::tempdir().unwrap();
    for (flag, address) in [("--listen", program.clients), ("--http-listen", program.http)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raft-replicator"));
        let taken = address.to_string();
        let (listen, http) = if flag == "--listen" {
            (taken.as_str(), "127.0.0.1:0")
        } else {
            ("127.0.0.1:0", taken.as_str())
        };
        command
            .args([
                "--id",
                "1",
                "--listen",
                listen,
                "--http-listen",
                http,
                "--data-dir",
            ])
            .arg(other.path());
        let expected = format!("cannot listen on {taken} ({flag})");
        refused(flag, &output(command), 1, &expected);
    }
    let socket = other.path().join("s");
    let _holder = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut command = command(&other.path().join("data"));
    command
        .arg("--replicate-listen")
        .arg(format!("unix://{}", socket.display()));
    refused("a socket", &output(command), 1, "another process listens there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_no_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    refused("a file", &output(command(&file)), 1, file.to_str().unwrap());

    let used = folder.path().join("used");
    let program = Program::start(&used);
    let (mut node, _) = PlayedNode::start(program.clients, 0).await;
    // One write after the other: damage in the first is no torn end.
    for operation in &Log::numbered(3).0 {
        node.feed(std::slice::from_ref(operation), operation.index).await;
        node.progress(|progress| progress.durable_executed_index == operation.index)
            .await;
    }
    program.kill();
    let mut other = Command::new(env!("CARGO_BIN_EXE_raft-replicator"));
    other
        .args([
            "--id",
            "2",
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(&used);
    refused("another node's", &output(other), 1, "belongs to node 1");

    let log = segment(&used);
    let whole = fs::read(&log).unwrap();
    for (what, at) in [("the segment's head", 12), ("the first batch", 600)] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        fs::write(&log, damaged).unwrap();
        refused(what, &output(command(&used)), 1, used.to_str().unwrap());
    }
    fs::write(&log, &whole).unwrap();
    fs::remove_file(used.join("identity")).unwrap();
    refused("no identity", &output(command(&used)), 1, used.to_str().unwrap());
}

/// Started from nothing it would execute everything a second time, as if for the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_its_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let used = folder.path().join("used");
    for life in 0..2 {
        let mut program = Program::start(&used);
        let (mut node, _) = PlayedNode::start(program.clients, 0).await;
        if life == 0 {
            node.feed(&Log::numbered(3).0, 3).await;
        }
        node.progress(|progress| progress.durable_executed_index == 3)
            .await;
        assert_eq!(program.terminate().code(), Some(0));
    }
    let log = segment(&used);
    let kept = fs::read(&log).unwrap();
    fs::remove_file(&log).unwrap();
    for _ in 0..2 {
        let expected = "empty the folder so that the replicator receives and executes everything anew";
        refused("no log", &output(command(&used)), 1, expected);
    }
    fs::write(&log, kept).unwrap();
    let program = Program::start(&used);
    let (_node, position) = PlayedNode::start(program.clients, 3).await;
    assert_eq!(position.executed.unwrap().index, 3);
}

fn segment(folder: &Path) -> std::path::PathBuf {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names
        .into_iter()
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("log-"))
        .unwrap()
}

#[test]
fn garbage_on_the_ports_disturbs_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    for address in [program.clients, program.http] {
        for garbage in [
            &b"\0\x01\x02garbage\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff",
            b"",
        ] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(garbage).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // It answers something, or hangs up.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    assert_eq!(program.get("/livez"), (200, "ok\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_must_not_say_ends_its_stream_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let hash = |index: u64, data: &[u8]| raftlog_raft::fold::running_hash(0, index, 1, data);
    let operation = |index: u64, data: Vec<u8>| ReplicatedOperation {
        index,
        term: 1,
        running_hash: hash(index, &data),
        data: data.into(),
    };
    for (what, message) in [
        ("an empty operation", vec![operation(1, Vec::new())]),
        ("1 MiB and 1", vec![operation(1, vec![0; (1 << 20) + 1])]),
        ("a gap", vec![operation(2, vec![1])]),
        ("the largest index", vec![operation(u64::MAX, vec![1])]),
    ] {
        let (mut node, _) = PlayedNode::start(program.clients, 0).await;
        node.say(Message::Feed(Feed {
            operations: message,
            commit_index: u64::MAX,
        }))
        .await;
        let status = node.ended().await;
        assert_eq!(
            reason_of(&status).as_deref(),
            Some(reason::INVALID_REQUEST),
            "{what}: {status}"
        );
    }
    let mut again = PlayedNode::open(program.clients, NODE_1).await;
    assert_eq!(again.position().await.last.unwrap().index, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_bytes_are_shown_on_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let (node, _) = PlayedNode::start(program.clients, 0).await;
    let odd: [&[u8]; 4] = [
        b"a\nNode 1 executes op=fake at index=9",
        b"\xff\\\x1b[31m",
        "grün".as_bytes(),
        &[b'x'; 300],
    ];
    let log = Log::of(odd.map(<[u8]>::to_vec));
    node.feed(&log.0, 4).await;
    let lines = program
        .lines
        .wait("the executes lines", |lines| executed(lines).len() == 4);
    let shown: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("Node 1 executes op="))
        .collect();
    let cut = format!("{}…(+44 bytes) at index=4", "x".repeat(256));
    assert_eq!(
        shown,
        [
            "a\\x0aNode 1 executes op=fake at index=9 at index=1",
            "\\xff\\x5c\\x1b[31m at index=2",
            "grün at index=3",
            &cut,
        ]
    );
}

#[test]
fn a_port_that_is_taken_leaves_the_folder_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_raft-replicator"));
    let taken = holder.local_addr().unwrap().to_string();
    command
        .args(["--id", "1", "--listen", &taken, "--data-dir"])
        .arg(folder.path());
    refused("a port", &output(command), 1, &taken);
    drop(holder);
    Program::start(folder.path());
}
