//! The whole program, with real clusters, too short to say anything about speed.

use processes::binaries;
use processes::process::{self, Process};
use processes::wait::eventually;
use rustix::process::Signal;
use std::fs;
use std::path::Path;

const BENCHMARK: &str = env!("CARGO_BIN_EXE_benchmark");

/// Flags for little of everything, in a folder.
fn flags(folder: &Path) -> Vec<String> {
    let programs = binaries::path("raft-node").parent();
    let programs = programs.expect("a program is in a folder");
    [
        ("--programs", programs.display().to_string()),
        ("--folder", folder.join("data").display().to_string()),
        ("--output", folder.join("results").display().to_string()),
        ("--systems", "raftlog".to_owned()),
        ("--members", "3".to_owned()),
        ("--clients", "1,4".to_owned()),
        ("--rates", "50".to_owned()),
        ("--warm-up", "200ms".to_owned()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut files| files.next().is_none())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_run_writes_all_results_and_leaves_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = flags(folder.path());
    flags.extend(["--duration", "300ms", "--rounds", "2"].map(str::to_owned));
    let finished = process::run(Path::new(BENCHMARK), &flags, b"").await;
    finished.expect(0, &[]);
    let text = finished.text();
    for part in [
        "| echo ",
        "| raftlog ",
        "| 4 clients ",
        "| 50/s open ",
        "2nd of 3 fdatasyncs",
        "/dev/null",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let results = folder.path().join("results");
    let json = fs::read_to_string(results.join("results.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let rows = json
        .pointer("/rows")
        .and_then(serde_json::Value::as_array)
        .unwrap();
    assert_eq!(rows.len(), 6, "{json}");
    for row in rows {
        assert_eq!(row.pointer("/errors").unwrap(), 0, "{row}");
        assert_eq!(
            row.pointer("/rounds")
                .and_then(|rounds| rounds.as_array())
                .unwrap()
                .len(),
            2
        );
        // What an open loop of a few operations takes may be less than the kernel counts in.
        let cpu = row.pointer("/server_cpu_microseconds/median").unwrap();
        assert!(row.get("rate").is_some() || cpu.as_f64().unwrap() > 0.0, "{row}");
    }
    let plot = fs::read_to_string(results.join("clients-3-members-256-bytes.svg")).unwrap();
    assert!(plot.contains("</svg>"), "{plot}");
    assert!(is_empty(&folder.path().join("data")));
}

/// Runs a trial, and gives what it found.
async fn try_out(trial: &[&str], results: &str) -> serde_json::Value {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let programs = binaries::path("raft-node").parent();
    let programs = programs.expect("a program is in a folder").display().to_string();
    let (data, output) = (folder.path().join("data"), folder.path().join("results"));
    let (data_flag, output_flag) = (data.display().to_string(), output.display().to_string());
    let places = [
        "--programs",
        &programs,
        "--folder",
        &data_flag,
        "--output",
        &output_flag,
    ];
    let flags: Vec<&str> = trial.iter().copied().chain(places).collect();
    let finished = process::run(Path::new(BENCHMARK), &flags, b"").await;
    finished.expect(0, &[]);
    assert!(is_empty(&data));
    let json = fs::read_to_string(output.join(results)).expect("results are written");
    let json: serde_json::Value = serde_json::from_str(&json).expect("they are JSON");
    json.get("found").expect("it found something").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_lost_and_others_lead() {
    let trial = ["failover", "--runs", "1", "--members", "3", "--clients", "4"];
    let found = try_out(&trial, "failover.json").await;
    let rows = found.pointer("/rows").and_then(|rows| rows.as_array()).unwrap();
    assert_eq!(rows.len(), 3, "{found}");
    for row in rows {
        assert!(row.pointer("/gap/max").unwrap().as_f64().unwrap() > 0.0, "{row}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_what_is_written() {
    let short = [
        "--duration",
        "500ms",
        "--warm-up",
        "100ms",
        "--clients",
        "4",
        "--members",
        "3",
    ];
    let watch = [&["watch", "--rounds", "1", "--watchers", "2"], short.as_slice()].concat();
    let found = try_out(&watch, "watch.json").await;
    assert!(
        found.pointer("/with/0/operations").unwrap().as_u64().unwrap() > 0,
        "{found}"
    );

    let memory = [&["memory", "--snapshot-every", "50"], short.as_slice()].concat();
    let found = try_out(&memory, "memory.json").await;
    assert!(
        found.pointer("/snapshots_taken").unwrap().as_u64().unwrap() > 0,
        "{found}"
    );
    assert_eq!(
        found
            .pointer("/peaks")
            .and_then(|peaks| peaks.as_array())
            .unwrap()
            .len(),
        6
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_run_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = flags(folder.path());
    flags.extend(["--duration", "1h", "--rounds", "1"].map(str::to_owned));
    // The echo would be measured for an hour before anything else.
    let mut benchmark = Process::spawn("benchmark", Path::new(BENCHMARK), &flags);
    eventually("the first measurement to begin", async || {
        assert!(benchmark.is_running(), "it ended: {:?}", benchmark.stderr());
        match children_of(benchmark.id()).as_slice() {
            [] => Err("no server runs".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    let servers = children_of(benchmark.id());
    benchmark.signal(Signal::INT);
    let status = benchmark.wait().await;
    assert_eq!(status.code(), Some(1), "{:?}", benchmark.stderr());
    assert!(is_empty(&folder.path().join("data")));
    eventually("all its children to be gone", async || {
        let left: Vec<&String> = servers
            .iter()
            .filter(|id| Path::new("/proc").join(id).exists())
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

/// IDs of the servers among a process's children: the shell that would kill them is one, too.
fn children_of(id: i32) -> Vec<String> {
    let children = fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let children: Vec<String> = children
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .collect();
    children
        .iter()
        .flat_map(|children| children.split_whitespace())
        .filter(|child| {
            fs::read_to_string(format!("/proc/{child}/cmdline"))
                .is_ok_and(|command| command.contains("serve-echo"))
        })
        .map(str::to_owned)
        .collect()
}
