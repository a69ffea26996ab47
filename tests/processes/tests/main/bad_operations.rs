//! Operations at the limits, beyond them, and with every byte there is.

use processes::cluster::{Cluster, Options};
use processes::seed;
use raftlog_proto::error::reason_of;
use raftlog_proto::v1::SubmitClientRequestRequest;
use raftlog_proto::{CLIENT_ID_BYTES_MAX, OPERATION_BYTES_MAX, reason};
use rand::Rng;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_at_the_limits() {
    let (_, mut random) = seed::announce("bad_operations::operations_at_the_limits");
    let mut cluster = Cluster::start(Options::quick()).await;
    let leader = cluster.leader().await;
    let follower = cluster.others(&[leader])[0];

    for node in [leader, follower] {
        for operation in [vec![], vec![b'x'; OPERATION_BYTES_MAX + 1]] {
            let length = operation.len();
            let refused = cluster
                .submit(node, operation)
                .await
                .expect_err("beyond the limits");
            let told = (refused.code(), reason_of(&refused));
            assert_eq!(
                told,
                (Code::InvalidArgument, Some(reason::INVALID_OPERATION.into())),
                "{length} bytes"
            );
            assert!(
                !refused.message().contains('\n'),
                "one line, not {:?}",
                refused.message()
            );
        }
    }
    let mut largest = vec![0; OPERATION_BYTES_MAX];
    random.fill_bytes(&mut largest);
    // No character lies across the place where its line is cut: that one would be cut before it.
    largest[252..256].fill(b'a');
    let accepted = [vec![b'x'], vec![0], largest];
    for (index, operation) in (1..).zip(&accepted) {
        let answer = cluster
            .submit(follower, operation.clone())
            .await
            .expect("within the limits");
        assert_eq!(answer.index, index, "refused operations take no index");
    }
    let logs = cluster.settled_logs(&cluster.numbers()).await;
    for (node, log) in logs {
        let held: Vec<&[u8]> = log.iter().map(|logged| logged.data.as_ref()).collect();
        assert!(
            held == accepted,
            "replicator {node} holds other bytes than were submitted"
        );
    }
    // The largest prints as its first 256 bytes and how many more there are.
    let cut = format!("…(+{} bytes) at index=3", OPERATION_BYTES_MAX - 256);
    let process = cluster.replicator(leader).process();
    process
        .says_after(0, "the largest operation, cut", |line| line.ends_with(&cut))
        .await;
}

/// However an operation looks, its line is one line, and the bytes stay what they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_of_all_bytes() {
    let mut cluster = Cluster::start(Options::quick()).await;
    let long = "ü".repeat(130);
    let cut = format!("{}…(+4 bytes)", "ü".repeat(128));
    let table: [(&[u8], &str); 8] = [
        (b"plain", "plain"),
        ("grüße → 世界".as_bytes(), "grüße → 世界"),
        (b"two\nlines\r\n", r"two\x0alines\x0d\x0a"),
        (b"\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        (b"back\\slash", r"back\x5cslash"),
        (b"\xff\xfe ok \xc3", r"\xff\xfe ok \xc3"),
        (b"nul\0 and del\x7f", r"nul\x00 and del\x7f"),
        (long.as_bytes(), &cut),
    ];
    for (operation, _) in table {
        cluster
            .submit(1, operation.to_vec())
            .await
            .expect("any bytes are an operation");
    }
    for node in cluster.numbers() {
        for (index, (_, shown)) in (1..).zip(table) {
            let line = format!("Node {node} executes op={shown} at index={index}");
            cluster.replicator(node).process().says(&line).await;
        }
    }
    let expected: Vec<u8> = table
        .iter()
        .flat_map(|(operation, _)| [*operation, b"\n"].concat())
        .collect();
    let watched = cluster.raftctl(&["-o", "raw", "watch"]).await;
    assert!(
        watched.expect(0, &[]).stdout == expected,
        "watch -o raw is the bytes and a newline"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_sessions_are_refused() {
    let cluster = Cluster::start(Options::quick()).await;
    let request = |client_id: &str, sequence: u64| SubmitClientRequestRequest {
        operation: "x".into(),
        client_id: client_id.to_owned(),
        sequence,
        ..Default::default()
    };
    let mut operations = processes::api::operations(cluster.port(1));
    let too_long = "c".repeat(CLIENT_ID_BYTES_MAX + 1);
    for (bad, code, reason) in [
        (
            request(&too_long, 1),
            Code::InvalidArgument,
            reason::INVALID_OPERATION,
        ),
        (
            request("~never-opened", 1),
            Code::FailedPrecondition,
            reason::SESSION_EXPIRED,
        ),
    ] {
        let shown = format!("{:?} {}", bad.client_id, bad.sequence);
        let refused = operations.submit_client_request(bad).await.expect_err(&shown);
        assert_eq!(
            (refused.code(), reason_of(&refused).as_deref()),
            (code, Some(reason)),
            "{shown}: {refused:?}"
        );
    }
    // What lies below acknowledged_through is forgotten, and never appended.
    let mut acknowledging = request("forgetful", 10);
    acknowledging.acknowledged_through = 9;
    operations
        .submit_client_request(acknowledging)
        .await
        .expect("a first sequence may be any");
    let forgotten = operations
        .submit_client_request(request("forgetful", 5))
        .await
        .expect_err("it is forgotten");
    let told = (forgotten.code(), reason_of(&forgotten));
    assert_eq!(
        told,
        (Code::FailedPrecondition, Some(reason::SEQUENCE_FORGOTTEN.into()))
    );
    let next = cluster.submit(2, "after all that").await.expect("all is well");
    assert_eq!(next.index, 2, "refused operations take no index");
}
