//! raftctl by hand: what it prints, and how it exits.

use processes::binaries;
use processes::cluster::{Cluster, Options};
use processes::process::{self, Process};
use raftlog_proto::v1::Role;
use rustix::process::Signal;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tour() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let leader = cluster.leader().await;

    let status = cluster.raftctl(&["status"]).await;
    let table = status.expect(0, &[]).text();
    assert!(table.to_lowercase().contains("leader"), "{table}");
    let status = cluster.raftctl(&["status", "-o", "json"]).await;
    let status: Value = serde_json::from_str(&status.expect(0, &[]).text()).expect("-o json is JSON");
    assert!(status.to_string().contains("127.0.0.1"), "{status}");
    for format in ["yaml", "raw"] {
        assert!(
            !cluster
                .raftctl(&["status", "-o", format])
                .await
                .expect(0, &[])
                .stdout
                .is_empty(),
            "-o {format}"
        );
    }

    cluster.raftctl(&["health"]).await.expect(0, &[]);
    cluster
        .raftctl(&["submit", "first", "second"])
        .await
        .expect(0, &[]);
    let all = cluster.raftctl(&["-o", "raw", "watch"]).await;
    assert_eq!(all.expect(0, &[]).text(), "first\nsecond\n");
    let some = cluster.raftctl(&["-o", "raw", "watch", "--from", "2"]).await;
    assert_eq!(some.expect(0, &[]).text(), "second\n");
    let json = cluster.raftctl(&["-o", "json", "watch", "--from", "2"]).await;
    for line in json.expect(0, &[]).text().lines() {
        let _: Value = serde_json::from_str(line).expect("each line is JSON");
    }
    let watched = json.text();

    for (query, expected) in [("last", "second\n"), ("1", "first\n")] {
        for more in [&[][..], &["--stale"]] {
            let answer = cluster
                .raftctl(&[&["-o", "raw", "query", query], more].concat())
                .await;
            assert_eq!(answer.expect(0, &[]).text(), expected);
        }
    }
    let answer = cluster.raftctl(&["-o", "json", "query", "last"]).await;
    let answer: Value = serde_json::from_str(&answer.expect(0, &[]).text()).expect("-o json is JSON");
    assert_eq!(
        (&answer["index"], &answer["result"]),
        (&2.into(), &"second".into())
    );
    for format in ["table", "yaml"] {
        let answer = cluster.raftctl(&["-o", format, "query", "last"]).await;
        assert!(answer.expect(0, &[]).text().contains("second"), "-o {format}");
    }
    cluster.raftctl(&["query", "first"]).await.expect(3, &["'last'"]);
    cluster.raftctl(&["query", "3"]).await.expect(1, &["index 2"]);

    a_watch_goes_on_where_one_ended(&cluster, &watched).await;

    let follower = cluster.others(&[leader])[0];
    cluster.node(follower).kill().await;
    cluster
        .raftctl(&["health"])
        .await
        .expect(1, &[&follower.to_string()]);
    cluster
        .raftctl(&["submit", "four are enough"])
        .await
        .expect(0, &[]);
    cluster
        .raftctl(&["leader", "transfer", &follower.to_string()])
        .await
        .expect(1, &[]);
    cluster.node(follower).start();
    cluster
        .raftctl(&["health", "--wait", "--timeout", "60s"])
        .await
        .expect(0, &[]);
    cluster.check_history(&[]).await;
}

/// Behind the token of the last line, at any replicator; and where a file says.
async fn a_watch_goes_on_where_one_ended(cluster: &Cluster, json: &str) {
    let last: Value = serde_json::from_str(json.lines().last().expect("a line")).expect("it is JSON");
    let token = last["resume_token"].as_str().expect("the last line has a token");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cursor").display().to_string();
    let watch = |more: [&str; 2]| {
        let arguments = [&["-o", "raw", "watch"][..], &more].concat();
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            cluster.raftctl(&arguments).await
        }
    };
    assert_eq!(
        watch(["--resume-file", &file]).await.expect(0, &[]).text(),
        "first\nsecond\n"
    );
    for _ in 0..2 {
        assert_eq!(watch(["--resume-file", &file]).await.expect(0, &[]).text(), "");
    }
    cluster.raftctl(&["submit", "third"]).await.expect(0, &[]);
    for more in [["--resume", token], ["--resume-file", &file]] {
        assert_eq!(watch(more).await.expect(0, &[]).text(), "third\n");
    }
    let noted = std::fs::read_to_string(&file).expect("the file");
    let (_, place) = noted.trim().split_at("1.".len() + 16);
    let other = format!("1.00000000000000c1{place}");
    watch(["--resume", &other])
        .await
        .expect(1, &["cluster 00000000000000c1"]);
    watch(["--resume", &noted.trim()[1..]])
        .await
        .expect(1, &["resume_token"]);
    std::fs::write(&file, "no token").expect("the file");
    watch(["--resume-file", &file])
        .await
        .expect(1, &["resume_token", &file, "to begin anew"]);
}

/// Code 1 alone would have a script do it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_and_what_was_not_is_told() {
    let cluster = Cluster::start(Options::quick().of(1)).await;
    cluster
        .raftctl_to_a_full_disk(&["submit", "once"])
        .await
        .expect(1, &["cannot write to stdout", "is committed, at index 1"]);
    for no_node in [
        cluster.replicator_address(1).to_string(),
        cluster
            .address(1)
            .to_string()
            .replace(&cluster.port(1).to_string(), "1"),
    ] {
        cluster
            .raftctl(&["member", "add", &no_node])
            .await
            .expect(1, &[&no_node, "nothing was changed"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_one_line_and_a_code() {
    let cluster = Cluster::prepare(Options::quick()).await;
    let table: [(&[&str], i32, &str); 6] = [
        (&["submit", "--timeout", "1s", "x"], 3, "127.0.0.1"),
        (&["query", "--timeout", "1s", "last"], 3, "127.0.0.1"),
        (&["status", "--timeout", "1s"], 1, "127.0.0.1"),
        (&["health"], 1, "unavailable"),
        (&["watch", "--timeout", "1s"], 1, "127.0.0.1"),
        (&["leader", "transfer", "--timeout", "1s"], 3, "127.0.0.1"),
    ];
    for (command, code, named) in table {
        println!("{command:?}");
        cluster.raftctl(command).await.expect(code, &[named]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_are_for_this_program() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = process::run(binaries::path("raftctl"), &["completions", shell], b"").await;
        assert!(script.expect(0, &[]).text().contains("raftctl"), "{shell}");
    }
}

/// The test client takes up its count where it was, so that nothing is submitted twice under one number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_resumes_its_count() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let start = |cluster: &Cluster| cluster.start_raftctl("client", &["client", "--interval", "50ms"]);
    let accepted = async |client: &mut Process, number: u64| {
        let operation = format!("Operation 'operation-{number}' committed at index {number}");
        client
            .says_after(0, &operation, |line| line.ends_with(&operation))
            .await;
    };
    let mut client = start(&cluster);
    accepted(&mut client, 5).await;
    client.kill().await;
    let held = cluster.settled_logs(&cluster.numbers()).await[&1].len() as u64;
    let mut client = start(&cluster);
    accepted(&mut client, held + 3).await;
    client.signal(Signal::TERM);
    assert_eq!(
        client.wait().await.code(),
        Some(0),
        "a client that is asked to stop is done"
    );
    let log = cluster.check_history(&[]).await;
    for logged in log {
        assert_eq!(
            logged.data,
            format!("operation-{}", logged.index),
            "the count has no gap and no repeat"
        );
    }
}

/// To all endpoints in turn, never to the leader by choice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_goes_round_all_nodes() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let mut client = cluster.start_raftctl("client", &["client", "--interval", "50ms", "--count", "10"]);
    assert_eq!(client.wait().await.code(), Some(0));
    for node in cluster.numbers() {
        let called = format!("Node {node} runs RPC SubmitClientRequest called by a client.");
        cluster.node(node).process().says(&called).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench_prints_throughput_latency_and_the_floor() {
    let mut cluster = Cluster::start(Options::quick()).await;
    for more in [&[][..], &["--stream"]] {
        let bench = [
            "bench",
            "--clients",
            "4",
            "--size",
            "64",
            "--duration",
            "1s",
            "--warm-up",
            "100ms",
        ];
        let finished = cluster.raftctl(&[&bench, more].concat()).await;
        let text = finished.expect(0, &[]).text();
        for word in ["p50", "p99", "max", "fdatasync", "echo"] {
            assert!(text.to_lowercase().contains(word), "no {word} in {text}");
        }
    }
    // The same bytes over and over are no history; that all replicators agree is seen all the same.
    let logs = cluster.settled_logs(&cluster.numbers()).await;
    assert!(logs.values().all(|log| log == &logs[&1]));
    assert_eq!(
        cluster
            .status(1)
            .await
            .map(|status| status.role() == Role::Unformed)
            .ok(),
        Some(false)
    );
    assert!(cluster.node(1).is_running());
}
