//! Submissions through nodes that refuse, break connections, and lose answers after the append: each operation is in the
//! log once, in order where a stream promises order, and every answer tells the right index.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use raftlog_client::{Backoff, Client, Endpoint, Error, Options, Submission};
use raftlog_proto::{
    error::status,
    reason,
    v1::{
        GetStatusRequest, GetStatusResponse, IndexRun, OpenSessionRequest, OpenSessionResponse, QueryRequest,
        QueryResponse, SubmitClientRequestRequest, SubmitClientRequestResponse, SubmitStreamRequest,
        SubmitStreamResponse,
        operations_server::{Operations, OperationsServer},
    },
};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};

/// What the cluster holds, whichever node is asked.
struct Cluster {
    log: Vec<Bytes>,
    indexes: BTreeMap<(String, u64), u64>,
    sessions: u64,
    has_hung: bool,
    random: ChaCha8Rng,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self {
            log: Vec::new(),
            indexes: BTreeMap::new(),
            sessions: 0,
            has_hung: false,
            random,
        }
    }

    /// Appends once for each (client ID, sequence), and always without a client ID; gives the operation index.
    fn append(&mut self, client_id: &str, sequence: u64, operation: Bytes) -> u64 {
        let next = u64::try_from(self.log.len()).unwrap() + 1;
        if client_id.is_empty() {
            self.log.push(operation);
            return next;
        }
        let index = *self
            .indexes
            .entry((client_id.to_owned(), sequence))
            .or_insert(next);
        if index == next {
            self.log.push(operation);
        }
        index
    }

    fn happens_once_in(&mut self, times: u32) -> bool {
        self.random.next_u32().is_multiple_of(times)
    }
}

/// One of several nodes of the same cluster.
#[derive(Clone)]
struct Node(Arc<Mutex<Cluster>>);

#[tonic::async_trait]
impl Operations for Node {
    type SubmitStreamStream = Pin<Box<dyn Stream<Item = Result<SubmitStreamResponse, Status>> + Send>>;

    async fn submit_client_request(
        &self,
        request: Request<SubmitClientRequestRequest>,
    ) -> Result<Response<SubmitClientRequestResponse>, Status> {
        let request = request.into_inner();
        let mut cluster = self.0.lock().unwrap();
        if cluster.happens_once_in(5) {
            return Err(status(Code::Unavailable, reason::NO_LEADER, "no leader is known"));
        }
        let index = cluster.append(&request.client_id, request.sequence, request.operation);
        if cluster.happens_once_in(5) {
            return Err(status(
                Code::Aborted,
                reason::LEADERSHIP_LOST,
                "leadership was lost",
            ));
        }
        if cluster.happens_once_in(10) {
            return Err(Status::unavailable("broken"));
        }
        Ok(Response::new(SubmitClientRequestResponse {
            index,
            term: 1,
            leader_node: 1,
            ..Default::default()
        }))
    }

    async fn submit_stream(
        &self,
        request: Request<Streaming<SubmitStreamRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let (answers, stream) = mpsc::channel(16);
        let node = self.clone();
        tokio::spawn(async move {
            if let Err(status) = node.answer(request.into_inner(), &answers).await {
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn open_session(
        &self,
        _: Request<OpenSessionRequest>,
    ) -> Result<Response<OpenSessionResponse>, Status> {
        let mut cluster = self.0.lock().unwrap();
        if cluster.happens_once_in(2) {
            return Err(status(Code::Unavailable, reason::NO_LEADER, "no leader is known"));
        }
        cluster.sessions += 1;
        Ok(Response::new(OpenSessionResponse {
            client_id: format!("~{}", cluster.sessions),
        }))
    }

    /// Knows two queries: `last`, which fails in every way that passes, and `hang`, which whoever is asked first never
    /// answers.
    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<QueryResponse>, Status> {
        let query = request.into_inner().query;
        let (way, hangs, index) = {
            let mut cluster = self.0.lock().unwrap();
            let index = u64::try_from(cluster.log.len()).unwrap();
            let hangs = query == "hang" && !std::mem::replace(&mut cluster.has_hung, true);
            (cluster.random.random_range(0..8), hangs, index)
        };
        let answer = |result: &'static str| QueryResponse {
            result: Bytes::from_static(result.as_bytes()),
            index,
            term: 1,
        };
        match (&*query, way) {
            _ if hangs => std::future::pending().await,
            (b"hang", _) => Ok(Response::new(answer("hung"))),
            (b"last", 0) => Err(status(Code::Unavailable, reason::NO_LEADER, "no leader")),
            (b"last", 1) => Err(status(Code::DeadlineExceeded, reason::NO_LEADER, "late")),
            (b"last", 2) | (b"stuck", _) => {
                Err(status(Code::DeadlineExceeded, reason::NOT_EXECUTED, "stuck"))
            }
            (b"last", 3) => Err(status(Code::Unavailable, reason::NO_REPLICATOR, "away")),
            (b"last", 4) => Err(status(Code::ResourceExhausted, reason::BACKPRESSURE, "too much")),
            (b"last", 5) => Err(status(Code::Unavailable, reason::STOPPING, "stopping")),
            (b"last", 6) => Err(Status::unavailable("broken")),
            (b"last", _) => Ok(Response::new(answer("op"))),
            (b"9", _) => Err(status(Code::OutOfRange, reason::OUT_OF_RANGE, "not yet")),
            _ => Err(status(
                Code::InvalidArgument,
                reason::INVALID_QUERY,
                "ask for last",
            )),
        }
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

impl Node {
    /// Appends a stream's operations in its order, and ends it at any point, with or without the answers so far.
    async fn answer(
        &self,
        mut messages: Streaming<SubmitStreamRequest>,
        answers: &mpsc::Sender<Result<SubmitStreamResponse, Status>>,
    ) -> Result<(), Status> {
        let (mut client_id, mut sequence) = (String::new(), 0);
        while let Some(message) = messages.message().await? {
            if let Some(header) = message.header {
                (client_id, sequence) = (header.client_id, header.first_sequence);
            }
            let mut runs = Vec::new();
            let mut ended = None;
            {
                let mut cluster = self.0.lock().unwrap();
                let forget_answers = cluster.happens_once_in(4);
                for operation in message.operations {
                    if cluster.happens_once_in(150) {
                        ended = Some(status(
                            Code::ResourceExhausted,
                            reason::BACKPRESSURE,
                            "too much is under way",
                        ));
                        break;
                    }
                    let first_index = cluster.append(&client_id, sequence, operation);
                    sequence += 1;
                    runs.push(IndexRun {
                        first_index,
                        count: 1,
                    });
                }
                if forget_answers {
                    runs.clear();
                    ended = Some(status(
                        Code::Aborted,
                        reason::FORWARD_BROKEN,
                        "the leader is gone",
                    ));
                }
            }
            let response = SubmitStreamResponse {
                runs,
                term: 1,
                leader_node: 1,
                ..Default::default()
            };
            let _ = answers.send(Ok(response)).await;
            if let Some(status) = ended {
                return Err(status);
            }
        }
        Ok(())
    }
}

async fn start(seed: u64, nodes: usize) -> (Client, Arc<Mutex<Cluster>>) {
    println!("seed {seed}; replay with SEED={seed} cargo test -p raftlog-client --test unreliable_nodes");
    let cluster = Arc::new(Mutex::new(Cluster::new(seed)));
    let mut endpoints = Vec::new();
    for _ in 0..nodes {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        endpoints.push(Endpoint::parse(&listener.local_addr().unwrap().to_string()).unwrap());
        let service = OperationsServer::new(Node(Arc::clone(&cluster)));
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
    }
    let backoff = Backoff {
        base: Duration::from_millis(1),
        cap: Duration::from_millis(5),
    };
    let options = Options {
        backoff,
        timeout: Duration::from_mins(1),
        ..Options::default()
    };
    (Client::new(endpoints, options).unwrap(), cluster)
}

fn with_timeout(client: &Client, timeout: Duration) -> Client {
    let options = Options {
        timeout,
        ..*client.options()
    };
    Client::new(client.endpoints(), options).unwrap()
}

fn seeds() -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..4).map(|_| rand::rng().random()).collect(),
    }
}

fn operation(number: u64) -> Bytes {
    format!("operation-{number}").into()
}

#[tokio::test]
async fn a_stream_appends_each_operation_once_and_in_order() {
    const OPERATIONS: u64 = 5000;
    for seed in seeds() {
        let (client, cluster) = start(seed, 3).await;
        let (sender, mut receiver) = client.open_session().await.unwrap().into_stream();
        let sending = tokio::spawn(async move {
            for number in 1..=OPERATIONS {
                assert!(
                    sender.send(operation(number)).await.unwrap(),
                    "the stream failed at {number}"
                );
            }
        });
        let mut answered = 0;
        while let Some(run) = receiver.next().await {
            let run = run.unwrap();
            assert_eq!(
                (run.first_sequence, run.first_index),
                (answered + 1, answered + 1)
            );
            answered += run.count;
        }
        sending.await.unwrap();
        assert_eq!(answered, OPERATIONS);
        let expected: Vec<Bytes> = (1..=OPERATIONS).map(operation).collect();
        assert!(
            cluster.lock().unwrap().log == expected,
            "the log is not what was sent, in order, once"
        );
    }
}

#[tokio::test]
async fn concurrent_submissions_under_one_session_are_appended_once_each() {
    const OPERATIONS: u64 = 500;
    for seed in seeds() {
        let (client, cluster) = start(seed, 3).await;
        let session = Arc::new(client.open_session().await.unwrap());
        let submit = |number| {
            let session = Arc::clone(&session);
            tokio::spawn(async move { (number, session.submit(operation(number)).await.unwrap().index) })
        };
        let tasks: Vec<_> = (1..=OPERATIONS).map(submit).collect();
        let mut indexes = BTreeSet::new();
        for task in tasks {
            let (number, index) = task.await.unwrap();
            indexes.insert(index);
            let held = cluster.lock().unwrap().log[usize::try_from(index).unwrap() - 1].clone();
            assert_eq!(held, operation(number));
        }
        assert_eq!(
            indexes,
            (1..=OPERATIONS).collect(),
            "indexes are dense and unique"
        );
    }
}

#[tokio::test]
async fn without_a_session_nothing_is_repeated_that_may_have_been_appended() {
    for seed in seeds() {
        let (client, cluster) = start(seed, 3).await;
        let (mut acknowledged, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        for number in 1..=300 {
            match client.submit(Submission::new(operation(number))).await {
                Ok(_) => acknowledged.insert(operation(number)),
                Err(Error::Unknown { .. }) => unknown.insert(operation(number)),
                Err(other) => panic!("{other}"),
            };
        }
        let cluster = cluster.lock().unwrap();
        let held: BTreeSet<Bytes> = cluster.log.iter().cloned().collect();
        assert_eq!(held.len(), cluster.log.len(), "nothing is there twice");
        assert!(held.is_superset(&acknowledged), "what was acknowledged is there");
        assert!(!unknown.is_empty() && held.is_subset(&acknowledged.union(&unknown).cloned().collect()));
    }
}

#[tokio::test]
async fn nobody_there_means_that_nothing_was_appended() {
    let endpoints = Endpoint::parse_list("127.0.0.1:1..3").unwrap();
    let options = Options {
        timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let client = Client::new(endpoints, options).unwrap();
    let error = client.submit(Submission::new("x")).await.unwrap_err();
    assert!(
        matches!(&error, Error::NoLeader(message) if message.contains("nothing was appended")),
        "{error:?}"
    );
    let session = client.session("me", 1).unwrap();
    let (sender, mut receiver) = session.into_stream();
    assert!(sender.send("x").await.unwrap());
    assert!(matches!(receiver.next().await, Some(Err(Error::NoLeader(_)))));
    assert!(receiver.next().await.is_none(), "nothing follows an error");
    assert!(!sender.send("y").await.unwrap(), "the stream is over");
}

#[tokio::test]
async fn operations_of_a_bad_length_never_leave() {
    let client = Client::new(Endpoint::parse_list("127.0.0.1:1").unwrap(), Options::default()).unwrap();
    for operation in [Vec::new(), vec![0; raftlog_proto::OPERATION_BYTES_MAX + 1]] {
        let error = client
            .submit(Submission::new(operation.clone()))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        let (sender, _receiver) = client.session("me", 1).unwrap().into_stream();
        assert!(matches!(sender.send(operation).await, Err(Error::Invalid(_))));
    }
    assert!(matches!(client.session("", 1), Err(Error::Invalid(_))));
    assert!(matches!(
        client.session("x".repeat(257), 1),
        Err(Error::Invalid(_))
    ));
}

#[tokio::test]
async fn a_port_that_speaks_something_else_means_at_once_that_nothing_was_appended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer)
                .await
                .unwrap();
            // Until the caller has enough.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    let client = Client::new(Endpoint::parse_list(&address).unwrap(), Options::default()).unwrap();
    let error = client.submit(Submission::new("x")).await.unwrap_err();
    assert!(matches!(error, Error::NoLeader(_)), "{error:?}");
    let expected = format!("{address} is not a node's client port; check --endpoints");
    assert!(error.to_string().contains(&expected), "{error}");
}

#[tokio::test]
async fn a_query_is_asked_anywhere_until_it_is_answered() {
    for seed in seeds() {
        let (client, _) = start(seed, 3).await;
        for _ in 0..50 {
            let answer = client.query("last", false).await.unwrap();
            assert_eq!((&*answer.result, answer.index, answer.term), (&b"op"[..], 0, 1));
        }
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_costs_a_query_a_part_of_its_time() {
    let (client, cluster) = start(1, 2).await;
    let client = with_timeout(&client, Duration::from_secs(4));
    let answer = client.query("hang", true).await.unwrap();
    assert!(cluster.lock().unwrap().has_hung);
    assert_eq!(answer.result, "hung");
}

#[tokio::test]
async fn what_no_node_can_answer_is_told_at_once_or_when_time_is_out() {
    let (client, _) = start(1, 3).await;
    for (query, expected) in [("first", "ask for last"), ("9", "not yet")] {
        let error = client.query(query, false).await.unwrap_err();
        let is_invalid = matches!(error, Error::Invalid(_));
        assert_eq!(is_invalid, query == "first", "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    // Time enough for one answer, also on a busy machine.
    let impatient = with_timeout(&client, Duration::from_secs(2));
    let error = impatient.query("stuck", false).await.unwrap_err();
    assert!(
        matches!(&error, Error::Failed(why) if why.contains("stuck")),
        "{error:?}"
    );
    let too_long = client.query(vec![b'x'; 70_000], false).await.unwrap_err();
    assert!(matches!(too_long, Error::Invalid(_)), "{too_long:?}");
}
