//! The demo: ten processes and a client, started, told apart and cleaned up by one command.

use processes::binaries;
use processes::ports::Ports;
use processes::process::{self, Finished, Process};
use processes::wait::eventually;
use rustix::process::{Pid, Signal, test_kill_process};
use std::fs;
use std::net::TcpListener;
use std::process::Stdio;
use tempfile::TempDir;

/// Where replicators and the two kinds of HTTP ports are, above the nodes.
const DISTANCES: [u16; 3] = [1_000, 3_000, 4_000];

struct Demo {
    ports: Ports,
    /// What the demo takes for the system's folder for temporary files.
    temporary: TempDir,
}

impl Demo {
    fn prepare() -> Self {
        Self {
            ports: Ports::claim_with(&DISTANCES),
            temporary: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let mut arguments = vec![
            "demo".to_owned(),
            "--base-port".into(),
            self.ports.at(1).to_string(),
        ];
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        arguments
    }

    fn start(&self, more: &[&str]) -> Process {
        let temporary = self.temporary.path().display().to_string();
        let raftctl = binaries::path("raftctl");
        Process::spawn_with(
            "demo",
            raftctl,
            &self.arguments(more),
            &[("TMPDIR", &temporary)],
            Stdio::null(),
        )
    }

    async fn run(&self, more: &[&str]) -> Finished {
        process::run(binaries::path("raftctl"), &self.arguments(more), b"").await
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.temporary.path())
            .expect("the folder is ours")
            .count()
    }
}

/// The process IDs of a process's children.
fn children(of: i32) -> Vec<i32> {
    let listed = fs::read_dir(format!("/proc/{of}/task")).expect("/proc is mounted");
    let tasks = listed.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    tasks
        .flat_map(|children| {
            children
                .split_whitespace()
                .map(|id| id.parse().expect("a number"))
                .collect::<Vec<_>>()
        })
        .collect()
}

async fn all_gone(processes: &[i32]) {
    eventually("the demo's children to be gone", async || {
        let lives = |&&id: &&i32| Pid::from_raw(id).is_some_and(|pid| test_kill_process(pid).is_ok());
        let left: Vec<&i32> = processes.iter().filter(lives).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?} still run"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_operations_from_start_to_end() {
    let demo = Demo::prepare();
    let mut process = demo.start(&["--operations", "3", "--interval", "200ms"]);
    let status = process.wait().await;
    assert!(status.success(), "{status}: {:?}", process.stderr());
    let story = process.stdout();
    let said = |line: &str| {
        story
            .iter()
            .any(|said| said.split_once("| ").is_some_and(|_| said == line))
    };
    for number in 1..=3 {
        for node in 1..=5 {
            let line = format!("q4node{node} | Node {node} executes op=operation-{number} at index={number}");
            assert!(said(&line), "nobody said '{line}': {story:#?}");
        }
    }
    assert!(
        said("client | Client sends RPC SubmitClientRequest to Node Cluster Leader."),
        "{story:#?}"
    );
    for line in &story {
        let speaker = line.split_once(" | ").map(|(speaker, _)| speaker.trim_end());
        let known = speaker.is_some_and(|speaker| {
            ["client", "demo"].contains(&speaker) || speaker.trim_start_matches("q4").starts_with("node")
        });
        assert!(known, "a line that nobody said: {line}");
        assert!(!line.contains('\u{1b}'), "colour is for terminals: {line:?}");
    }
    assert_eq!(demo.leftovers(), 0, "the temporary data are removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_can_be_hidden() {
    let demo = Demo::prepare();
    let mut process = demo.start(&[
        "--nodes",
        "3",
        "--operations",
        "2",
        "--interval",
        "1500ms",
        "--no-heartbeats",
    ]);
    assert!(process.wait().await.success());
    let story = process.stdout();
    assert!(
        !story
            .iter()
            .any(|line| line.contains("(Heartbeat)") || line.contains("runs RPC AppendEntries")),
        "{story:#?}"
    );
    assert!(story.iter().any(|line| line.contains("executes op=operation-2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_it_cleanly() {
    let demo = Demo::prepare();
    let mut process = demo.start(&["--interval", "100ms"]);
    process
        .says_after(0, "that the second operation was executed", |line| {
            line.contains("executes op=operation-2")
        })
        .await;
    let children = children(process.id());
    assert_eq!(children.len(), 11, "five nodes, five replicators and the client");
    process.signal(Signal::INT);
    let status = process.wait().await;
    assert_eq!(status.code(), Some(0), "{:?}", process.stderr());
    all_gone(&children).await;
    assert_eq!(demo.leftovers(), 0, "the temporary data are removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_its_own_is_kept_and_taken_up_again() {
    let demo = Demo::prepare();
    let folder = demo.temporary.path().join("kept");
    let folder = folder.to_str().expect("UTF-8");
    for last in ["operation-2", "operation-4"] {
        let mut process = demo.start(&[
            "--nodes",
            "3",
            "--data-dir",
            folder,
            "--operations",
            "2",
            "--interval",
            "100ms",
        ]);
        assert!(process.wait().await.success(), "{:?}", process.stderr());
        let story = process.stdout();
        assert!(
            story
                .iter()
                .any(|line| line.contains(&format!("executes op={last} "))),
            "no {last}: {story:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_port_is_named() {
    let demo = Demo::prepare();
    for distance in [0, 1_000, 3_000, 4_000] {
        let port = demo.ports.at(3) + distance;
        let _holder = TcpListener::bind(("127.0.0.1", port)).expect("the port is ours");
        demo.run(&["--operations", "1"])
            .await
            .expect(1, &[&port.to_string()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_childs_death_is_named() {
    let demo = Demo::prepare();
    let mut process = demo.start(&["--interval", "100ms"]);
    process
        .says_after(0, "that the first operation was executed", |line| {
            line.contains("executes op=operation-1")
        })
        .await;
    let children = children(process.id());
    let victim = children[0];
    let name = fs::read_to_string(format!("/proc/{victim}/cmdline")).expect("it runs");
    println!("killing {name:?}");
    rustix::process::kill_process(Pid::from_raw(victim).expect("not 0"), Signal::KILL).expect("it runs");
    let status = process.wait().await;
    assert_eq!(status.code(), Some(1));
    let stderr = process.stderr();
    let [line] = stderr.as_slice() else {
        panic!("one line on stderr, not {stderr:#?}")
    };
    assert!(
        line.contains("node") || line.contains("client"),
        "nobody is named: {line}"
    );
    all_gone(&children).await;
    assert_eq!(demo.leftovers(), 0, "the temporary data are removed");
}
