//! Messages of another cluster, for another member, or of no sense: refused, with nothing changed.

use bytes::Bytes;
use processes::api;
use processes::cluster::{Cluster, Options};
use raftlog_proto::error::reason_of;
use raftlog_proto::reason;
use raftlog_proto::v1::cluster_client::ClusterClient;
use raftlog_proto::v1::raft_client::RaftClient;
use raftlog_proto::v1::replicate_log_request::Message;
use raftlog_proto::v1::replicator_client::ReplicatorClient;
use raftlog_proto::v1::{
    AppendEntriesRequest, BootstrapRequest, Entry, Header, Member, NodeHello, NodeStatus, Noop, Operation,
    ReplicateLogRequest, RequestVoteRequest, TimeoutNowRequest, entry,
};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

/// A cluster, the leader's view, and a follower's.
async fn cluster_and_views() -> (Cluster, NodeStatus, NodeStatus) {
    let cluster = Cluster::start(Options::with_default_timings()).await;
    cluster.submit(1, "before").await.expect("all is well");
    let leader = cluster.leader_among(&cluster.numbers()).await;
    let follower = cluster.others(&[leader.node])[0];
    let follower = cluster.status(follower).await.expect("it runs");
    (cluster, leader, follower)
}

/// Sees to it that nobody was impressed: the same leader in the same term, and the log goes on.
async fn expect_undisturbed(cluster: &mut Cluster, before: &NodeStatus) {
    let after = cluster.leader_among(&cluster.numbers()).await;
    assert_eq!((after.node, after.term), (before.node, before.term));
    cluster.submit(1, "after").await.expect("all is well");
    let log = cluster.check_history(&[]).await;
    let held: Vec<&[u8]> = log.iter().map(|logged| logged.data.as_ref()).collect();
    assert_eq!(held, [&b"before"[..], b"after"]);
}

async fn append(port: u16, request: AppendEntriesRequest) -> Result<(), Status> {
    let mut client = RaftClient::new(api::channel(port));
    let mut answers = api::call(client.append_entries(tokio_stream::once(request))).await?;
    while answers.message().await?.is_some() {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_for_others_are_refused() {
    let (mut cluster, leader, follower) = cluster_and_views().await;
    let header = |cluster_id, to_member| {
        Some(Header {
            cluster_id,
            from_member: leader.member_id,
            to_member,
            feature_level: 0,
        })
    };
    let table = [
        (
            header(follower.cluster_id ^ 1, follower.member_id),
            reason::WRONG_CLUSTER,
        ),
        (
            header(follower.cluster_id, follower.member_id ^ 1),
            reason::WRONG_MEMBER,
        ),
    ];
    let term = leader.term + 1_000;
    let port = cluster.port(follower.node);
    for (header, reason) in table {
        let mut raft = RaftClient::new(api::channel(port));
        let vote = RequestVoteRequest {
            header,
            term,
            last_log_index: 1 << 40,
            last_log_term: term,
            ..Default::default()
        };
        let refused = api::call(raft.request_vote(vote)).await.expect_err("RequestVote");
        assert_eq!(
            reason_of(&refused).as_deref(),
            Some(reason),
            "RequestVote: {refused:?}"
        );
        let refused = api::call(raft.timeout_now(TimeoutNowRequest { header, term }))
            .await
            .expect_err("TimeoutNow");
        assert_eq!(
            reason_of(&refused).as_deref(),
            Some(reason),
            "TimeoutNow: {refused:?}"
        );
        let heartbeat = AppendEntriesRequest {
            header,
            term,
            round: 1,
            heartbeat: true,
            ..Default::default()
        };
        let refused = append(port, heartbeat).await.expect_err("AppendEntries");
        assert_eq!(
            reason_of(&refused).as_deref(),
            Some(reason),
            "AppendEntries: {refused:?}"
        );
    }
    expect_undisturbed(&mut cluster, &leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstrap_of_a_formed_node_is_refused() {
    let (mut cluster, leader, follower) = cluster_and_views().await;
    let member = |view: &NodeStatus| Member {
        member_id: view.member_id,
        node: view.node,
        peer_address: view.peer_address.clone(),
        client_address: view.client_address.clone(),
        voter: true,
    };
    let mut client = ClusterClient::new(api::channel(cluster.port(follower.node)));
    for (cluster_id, members) in [
        (follower.cluster_id ^ 1, vec![member(&follower)]),
        (follower.cluster_id, vec![member(&follower)]),
        (follower.cluster_id ^ 1, vec![member(&leader)]),
        (0, vec![]),
    ] {
        let request = BootstrapRequest {
            cluster_id,
            members,
            to_member: follower.member_id,
        };
        let refused = api::call(client.bootstrap(request.clone()))
            .await
            .expect_err("Bootstrap");
        let explained = reason_of(&refused).is_some() || refused.code() == Code::InvalidArgument;
        assert!(explained, "{request:?} is refused with a reason: {refused:?}");
    }
    expect_undisturbed(&mut cluster, &leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicator_refuses_another_clusters_node() {
    let (mut cluster, leader, follower) = cluster_and_views().await;
    let hello = NodeHello {
        cluster_id: follower.cluster_id ^ 1,
        member_id: follower.member_id,
        node: follower.node,
        parent: None,
        protocol_version: 1,
    };
    let request = ReplicateLogRequest {
        message: Some(Message::Hello(hello)),
    };
    let mut client = ReplicatorClient::new(api::channel(cluster.replicator_port(follower.node)));
    // The stream stays open, as a node's does.
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let refused = async {
        let mut answers = api::call(client.replicate_log(requests)).await?;
        while answers.message().await?.is_some() {}
        Ok::<(), Status>(())
    };
    let refused = refused.await.expect_err("a node of another cluster");
    assert_eq!(
        reason_of(&refused).as_deref(),
        Some(reason::WRONG_CLUSTER),
        "{refused:?}"
    );
    cluster.wait_until_ready().await;
    expect_undisturbed(&mut cluster, &leader).await;
}

/// Well-formed protobuf from the right sender that no node would ever send: an error, never a panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_from_the_leader_is_refused() {
    let (mut cluster, leader, follower) = cluster_and_views().await;
    let header = Header {
        cluster_id: follower.cluster_id,
        from_member: leader.member_id,
        to_member: follower.member_id,
        feature_level: 0,
    };
    let good = AppendEntriesRequest {
        header: Some(header),
        term: leader.term,
        previous_log_index: leader.last_log_index,
        previous_log_term: leader.term,
        round: 1,
        ..Default::default()
    };
    let next = leader.last_log_index + 1;
    let operation = Operation {
        data: Bytes::from_static(b"x"),
        ..Default::default()
    };
    let entry = |log_index, kind| Entry {
        log_index,
        term: leader.term,
        operation_index: leader.last_index + 1,
        running_hash: 1,
        kind,
    };
    let noop = Some(entry::Kind::Noop(Noop {}));
    let with = |entries| AppendEntriesRequest {
        entries,
        ..good.clone()
    };
    let too_long = Operation {
        data: vec![0; raftlog_proto::OPERATION_BYTES_MAX + 1].into(),
        ..Default::default()
    };
    let empty = Operation::default();
    let table = [
        (
            "no header",
            AppendEntriesRequest {
                header: None,
                ..good.clone()
            },
        ),
        ("no kind", with(vec![entry(next, None)])),
        (
            "a gap",
            with(vec![entry(next, noop.clone()), entry(next + 2, noop.clone())]),
        ),
        (
            "not after the previous",
            with(vec![entry(next + 5, noop.clone())]),
        ),
        ("log index 0", with(vec![entry(0, noop.clone())])),
        ("the last index there is", {
            let mut request = with(vec![entry(u64::MAX, noop.clone())]);
            request.previous_log_index = u64::MAX;
            request
        }),
        (
            "an entry of a later term",
            with(vec![Entry {
                term: leader.term + 7,
                ..entry(next, noop.clone())
            }]),
        ),
        (
            "a wrong running hash",
            with(vec![entry(next, Some(entry::Kind::Operation(operation.clone())))]),
        ),
        (
            "an operation that is too long",
            with(vec![entry(next, Some(entry::Kind::Operation(too_long)))]),
        ),
        (
            "an empty operation",
            with(vec![entry(next, Some(entry::Kind::Operation(empty)))]),
        ),
    ];
    for (what, request) in table {
        // What counts is that nothing comes of it; how it is refused may differ.
        let answer = append(cluster.port(follower.node), request).await;
        println!("{what}: {answer:?}");
        assert!(cluster.node(follower.node).is_running(), "{what} ended the node");
    }
    cluster.wait_until_ready().await;
    expect_undisturbed(&mut cluster, &leader).await;
}
