//! Wrong usage, ports that are taken, and folders that cannot be used: one clear line, the right code.

use processes::binaries;
use processes::cluster::{Cluster, Options};
use processes::process::{self, Finished};
use processes::volume::Volume;
use std::fs;
use std::net::TcpListener;

async fn run(program: &str, arguments: &[&str]) -> Finished {
    process::run(binaries::path(program), arguments, b"").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_usage_exits_with_2() {
    let table: &[(&str, &[&str], &str)] = &[
        ("raft-node", &["--id", "1", "--unheard-of"], "--unheard-of"),
        ("raft-node", &["--id", "0"], "--id"),
        ("raft-node", &["--id", "one"], "--id"),
        ("raft-node", &[], "--id"),
        ("raft-node", &["--id", "1", "--listen", "nowhere"], "--listen"),
        ("raft-node", &["--id", "1", "--peer", "localhost"], "--peer"),
        (
            "raft-node",
            &["--id", "1", "--peer", "1=127.0.0.1:1,1=127.0.0.1:2"],
            "--peer",
        ),
        (
            "raft-node",
            &["--id", "3", "--peer", "1=127.0.0.1:1,2=127.0.0.1:2"],
            "--peer",
        ),
        (
            "raft-node",
            &["--id", "1", "--election-timeout", "3s..1s"],
            "--election-timeout",
        ),
        (
            "raft-node",
            &[
                "--id",
                "1",
                "--election-timeout",
                "1s..2s",
                "--heartbeat-interval",
                "5s",
            ],
            "--heartbeat-interval",
        ),
        (
            "raft-node",
            &["--id", "1", "--snapshot-every-operations", "many"],
            "--snapshot-every-operations",
        ),
        (
            "raft-node",
            &["--id", "1", "--snapshot-every-bytes", "3MiB"],
            "--snapshot-every-bytes",
        ),
        (
            "raft-node",
            &["--id", "1", "--replicator", "ftp://x"],
            "--replicator",
        ),
        ("raft-replicator", &["--id", "1", "--unheard-of"], "--unheard-of"),
        (
            "raft-replicator",
            &["--id", "1", "--executor", "magic"],
            "--executor",
        ),
        (
            "raft-replicator",
            &["--id", "1", "--retain-operations", "some"],
            "--retain-operations",
        ),
        (
            "raft-replicator",
            &["--id", "1", "--retain-age", "7 apples"],
            "--retain-age",
        ),
        (
            "raft-replicator",
            &["--id", "1", "--retain-bytes", "7MB"],
            "--retain-bytes",
        ),
        ("raftctl", &["watch", "--resume", ""], "--resume"),
        ("raftctl", &["watch", "--resume", "1.0", "--from", "2"], "--from"),
        (
            "raft-replicator",
            &["--id", "1", "--executor", "http"],
            "--http-url",
        ),
        (
            "raft-replicator",
            &["--id", "1", "--executor", "exec"],
            "--exec-command",
        ),
        (
            "raft-replicator",
            &["--id", "1", "--http-url", "http://127.0.0.1:1"],
            "--executor http",
        ),
        (
            "raft-replicator",
            &[
                "--id",
                "1",
                "--executor",
                "exec",
                "--dead-letters-max",
                "16MiB",
                "--",
                "true",
            ],
            "--on-failure skip",
        ),
        ("raftctl", &["--unheard-of"], "--unheard-of"),
        ("raftctl", &["unheard-of"], "unheard-of"),
        ("raftctl", &["submit"], "OPERATION"),
        (
            "raftctl",
            &["--endpoints", "not an address", "status"],
            "--endpoints",
        ),
    ];
    for &(program, arguments, named) in table {
        println!("{program} {arguments:?}");
        run(program, arguments).await.expect(2, &[named]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_and_version_exit_with_0() {
    for program in ["raft-node", "raft-replicator", "raftctl"] {
        let help = run(program, &["--help"]).await;
        assert!(help.expect(0, &[]).text().contains("Usage"), "{program} --help");
        let version = run(program, &["--version"]).await;
        assert!(
            version.expect(0, &[]).text().contains(env!("CARGO_PKG_VERSION")),
            "{program} --version"
        );
    }
}

/// Every flag of the contract can be given by its environment variable, and `--help` says which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_names_the_flags_and_variables_of_the_contract() {
    let table: [(&str, &[&str]); 3] = [
        (
            "raft-node",
            &[
                "--id",
                "RAFT_ID",
                "--id-from-hostname",
                "--listen",
                "RAFT_LISTEN",
                "--peer",
                "RAFT_PEERS",
                "--advertise",
                "RAFT_ADVERTISE",
                "--peer-listen",
                "RAFT_PEER_LISTEN",
                "--replicator",
                "RAFT_REPLICATOR",
                "--replicator-name",
                "RAFT_REPLICATOR_NAME",
                "--data-dir",
                "RAFT_DATA_DIR",
                "--election-timeout",
                "RAFT_ELECTION_TIMEOUT",
                "--heartbeat-interval",
                "RAFT_HEARTBEAT_INTERVAL",
                "--snapshot-every-operations",
                "RAFT_SNAPSHOT_EVERY_OPERATIONS",
                "--snapshot-every-bytes",
                "RAFT_SNAPSHOT_EVERY_BYTES",
                "--lease-reads",
                "RAFT_LEASE_READS",
                "--http-listen",
                "RAFT_HTTP_LISTEN",
                "--log-format",
                "LOG_FORMAT",
                "0.0.0.0:5001",
                "0.0.0.0:8001",
                "1500ms..3000ms",
                "http://127.0.0.1:6001",
            ],
        ),
        (
            "raft-replicator",
            &[
                "--id",
                "RAFT_ID",
                "--id-from-hostname",
                "--name",
                "RAFT_REPLICATOR_NAME",
                "--listen",
                "REPLICATOR_LISTEN",
                "--replicate-listen",
                "REPLICATE_LISTEN",
                "--data-dir",
                "REPLICATOR_DATA_DIR",
                "--executor",
                "REPLICATOR_EXECUTOR",
                "--retain-operations",
                "REPLICATOR_RETAIN_OPERATIONS",
                "--retain-age",
                "REPLICATOR_RETAIN_AGE",
                "--retain-bytes",
                "REPLICATOR_RETAIN_BYTES",
                "--http-url",
                "REPLICATOR_HTTP_URL",
                "--exec-mode",
                "REPLICATOR_EXEC_MODE",
                "--exec-command",
                "REPLICATOR_EXEC_COMMAND",
                "--attempt-timeout",
                "REPLICATOR_ATTEMPT_TIMEOUT",
                "--retry-backoff",
                "REPLICATOR_RETRY_BACKOFF",
                "--attempts-max",
                "REPLICATOR_ATTEMPTS_MAX",
                "--on-failure",
                "REPLICATOR_ON_FAILURE",
                "--dead-letters-max",
                "REPLICATOR_DEAD_LETTERS_MAX",
                "REPLICATOR_STATE_MACHINE",
                "--execute-on",
                "REPLICATOR_EXECUTE_ON",
                "--http-listen",
                "REPLICATOR_HTTP_LISTEN",
                "--log-format",
                "0.0.0.0:6001",
                "0.0.0.0:9001",
            ],
        ),
        (
            "raftctl",
            &[
                "--endpoints",
                "RAFTCTL_ENDPOINTS",
                "--replicators",
                "RAFTCTL_REPLICATORS",
                "127.0.0.1:5001",
                "127.0.0.1:6001",
                "demo",
                "client",
                "submit",
                "status",
                "health",
                "watch",
                "leader",
                "bench",
                "completions",
            ],
        ),
    ];
    for (program, words) in table {
        let help = run(program, &["--help"]).await.text();
        for word in words {
            assert!(
                help.contains(word),
                "{program} --help does not name {word}:\n{help}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named() {
    let cluster = Cluster::prepare(Options::quick()).await;
    let taken = cluster.spare_port(0).to_string();
    let _holder = TcpListener::bind(format!("127.0.0.1:{taken}")).expect("the port is ours");
    let address = format!("127.0.0.1:{taken}");
    let free = |number: u16| format!("127.0.0.1:{}", cluster.spare_port(number));
    let table = [
        ("raft-node", "--listen"),
        ("raft-node", "--peer-listen"),
        ("raft-node", "--http-listen"),
        ("raft-replicator", "--listen"),
        ("raft-replicator", "--replicate-listen"),
        ("raft-replicator", "--http-listen"),
    ];
    for (program, flag) in table {
        let folder = cluster.folder().join(program).display().to_string();
        let mut arguments = vec!["--id".to_owned(), "1".into(), "--data-dir".into(), folder];
        for (number, other) in (1..).zip(["--listen", "--http-listen"]) {
            if other != flag {
                arguments.extend([other.to_owned(), free(number)]);
            }
        }
        arguments.extend([flag.to_owned(), address.clone()]);
        let finished = process::run(binaries::path(program), &arguments, b"").await;
        finished.expect(1, &[&taken, flag]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_is_named() {
    let test = "bad_flags::a_folder_that_cannot_be_written_is_named";
    let cluster = Cluster::prepare(Options::quick()).await;
    let file = cluster.folder().join("file");
    fs::write(&file, "not a folder").expect("the temporary folder can be written");
    let mut folders = vec![file.join("below"), file];
    let read_only = Volume::mount_read_only(test);
    folders.extend(read_only.iter().map(|volume| volume.path().join("data")));
    let (listen, http) = (
        format!("127.0.0.1:{}", cluster.spare_port(1)),
        format!("127.0.0.1:{}", cluster.spare_port(2)),
    );
    for folder in folders {
        let folder = folder.display().to_string();
        for program in ["raft-node", "raft-replicator"] {
            let arguments = [
                "--id",
                "1",
                "--listen",
                &listen,
                "--http-listen",
                &http,
                "--data-dir",
                &folder,
            ];
            run(program, &arguments).await.expect(1, &[&folder]);
        }
    }
}
