//! The executor `http`, and an endpoint that does whatever endpoints do.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use raftlog_proto::RESULT_BYTES_MAX;
use raftlog_proto::v1::replicate_log_request::Message;
use raftlog_proto::v1::{Leading, Place, QueryRefusal, ResultsWanted};
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::played_endpoint::{Act, Endpoint, Serving};
use crate::played_node::{Log, PlayedNode};
use crate::program::{Program, command};
use crate::runs::{self, Run};

/// With waits that no test has to wait for.
fn start(folder: &Path, url: &str, more: &[&str]) -> Program {
    let mut command = command(folder);
    command.args(["--executor", "http", "--http-url", url]);
    if !more.contains(&"--retry-backoff") {
        command.args(["--retry-backoff", "1ms..20ms"]);
    }
    command.args(more);
    Program::spawn(command)
}

fn is_done(_: u64, _: usize) -> Act {
    Act::status(200)
}

/// An endpoint, and what calls it.
struct Pod {
    folder: TempDir,
    endpoint: Endpoint,
    serving: Option<Serving>,
    url: String,
    program: Program,
}

impl Pod {
    fn start(script: impl FnMut(u64, usize) -> Act + Send + 'static, more: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let endpoint = Endpoint::new(script);
        let serving = endpoint.serve(None);
        let url = serving.url();
        let program = start(folder.path(), &url, more);
        Self {
            folder,
            endpoint,
            serving: Some(serving),
            url,
            program,
        }
    }

    /// The node feeds all of a log.
    async fn node(&self, log: &Log) -> PlayedNode {
        let commit = log.0.len() as u64;
        let (node, position) = PlayedNode::start(self.program.clients, commit).await;
        let held = usize::try_from(position.last.unwrap_or_default().index).unwrap();
        for batch in log.0[held..].chunks(100) {
            node.feed(batch, commit).await;
        }
        node
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.program.get("/status").1).unwrap()
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.program.get("/metrics").1;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_is_posted_as_a_cloud_event_whose_key_tells_repeats() {
    let answer = |index: u64, _| Act::Answer(200, "", format!("did {index}").into_bytes());
    let pod = Pod::start(answer, &[]);
    let any_bytes: Vec<u8> = (0..=255).collect();
    let longest = vec![7; 1 << 20];
    let log = Log::of([any_bytes.clone(), longest.clone(), b"x".to_vec()]);
    let mut node = pod.node(&log).await;
    let results = node.results(&[1, 2, 3]).await;
    let results: Vec<_> = results.iter().map(|result| &result.result[..]).collect();
    assert_eq!(results, [b"did 1", b"did 2", b"did 3"]);
    assert_eq!(pod.endpoint.state().connections, 1, "a connection is used again");
    let calls = pod.endpoint.state().calls.clone();
    assert_eq!(calls.len(), 3);
    for (call, (index, body)) in calls
        .iter()
        .zip([(1, any_bytes), (2, longest), (3, b"x".to_vec())])
    {
        assert_eq!((call.index, &call.body), (index, &body));
        for (name, value) in [
            ("idempotency-key", format!("00000000000000c1/{index}")),
            ("raftlog-index", index.to_string()),
            ("raftlog-term", "1".to_owned()),
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", format!("00000000000000c1/{index}")),
            ("ce-source", "/raftlog/00000000000000c1".to_owned()),
            ("ce-type", "io.raftlog.operation".to_owned()),
            ("ce-raftlogindex", index.to_string()),
            ("ce-raftlogterm", "1".to_owned()),
            ("content-type", "application/octet-stream".to_owned()),
            ("content-length", body.len().to_string()),
        ] {
            assert_eq!(call.headers.get(name), Some(&value), "{name}");
        }
    }
    let refused = node.query(1, "last").await.refused.unwrap();
    assert_eq!(refused.why(), QueryRefusal::Invalid);
    let state = node.take_snapshot(1).await;
    assert_eq!(
        &state.data[..],
        [1, 2],
        "a snapshot holds the index, and no state"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_endpoint_does_order_is_kept_and_nothing_is_lost() {
    let script = |index: u64, times: usize| match (index % 12, times) {
        (1, 1) => Act::status(503),
        (2, 1) => Act::Answer(429, "Retry-After: 0\r\n", b"slowly\nplease".to_vec()),
        (3, 1..=2) => Act::Close,
        (4, 1) => Act::Hang,
        (5, 1) => Act::Slow(Duration::from_millis(20)),
        (6, 1) => Act::status(408),
        (7, 1) => Act::status(425),
        (8, 1..=3) => Act::status(500),
        (9, _) => Act::HalfBody,
        (10, 1) => Act::Answer(502, "", vec![b'x'; 1 << 20]),
        _ => Act::status(204),
    };
    let pod = Pod::start(script, &["--attempt-timeout", "300ms"]);
    let log = Log::numbered(36);
    let mut node = pod.node(&log).await;
    node.progress(|progress| progress.executed_index == 36).await;
    let all = Run {
        executed_before: 0,
        indexes: pod.endpoint.indexes(),
    };
    runs::check(&[all]).unwrap();
    assert_eq!(pod.endpoint.state().done, (1..=36).collect::<Vec<_>>());
    node.executor(|status| status.failure.is_none() && status.connected)
        .await;
    let calls = pod.endpoint.indexes().len() as u64;
    assert_eq!(pod.metric("raft_replicator_attempts_total"), calls);
    assert_eq!(pod.metric("raft_replicator_retries_total"), calls - 36);
    assert_eq!(pod.metric("raft_replicator_attempts_failed_total"), calls - 36);
    assert_eq!(pod.metric("raft_replicator_attempt_seconds_count"), calls);
    assert_eq!(pod.metric("raft_replicator_execution_stopped"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_restarts_is_found_again() {
    let log = Log::numbered(33);
    let mut pod = Pod::start(is_done, &[]);
    let (mut node, _) = PlayedNode::start(pod.program.clients, 0).await;
    for last in [10, 21, 32] {
        for index in last - 9..=last {
            node.feed(&log.0[index - 1..index], index as u64).await;
        }
        node.progress(|progress| progress.executed_index == last as u64)
            .await;
        let address = pod.serving.take().unwrap().address;
        node.feed(&log.0[last..=last], last as u64 + 1).await;
        let status = node.executor(|status| status.failure.is_some()).await;
        assert!(!status.connected, "{status:?}");
        assert_eq!(status.failure.unwrap().index, last as u64 + 1);
        pod.serving = Some(pod.endpoint.serve(Some(address)));
        node.executor(|status| status.failure.is_none() && status.connected)
            .await;
        node.progress(|progress| progress.executed_index == last as u64 + 1)
            .await;
    }
    assert_eq!(pod.endpoint.indexes(), (1..=33).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_body_the_beginning_is_the_result_and_a_broken_one_is_none() {
    let script = |index: u64, _| match index {
        1 => Act::Endless,
        2 => Act::HalfBody,
        3 => Act::Answer(200, "", vec![b'y'; RESULT_BYTES_MAX]),
        _ => Act::status(204),
    };
    let pod = Pod::start(script, &[]);
    let mut node = pod.node(&Log::numbered(4)).await;
    let results = node.results(&[1, 2, 3, 4]).await;
    let found: Vec<_> = results
        .iter()
        .map(|result| (result.available, result.result.len()))
        .collect();
    assert_eq!(
        found,
        [
            (true, RESULT_BYTES_MAX),
            (false, 0),
            (true, RESULT_BYTES_MAX),
            (true, 0)
        ]
    );
    assert_eq!(pod.endpoint.indexes(), [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_never_will_be_executed_stops_execution_until_it_is_started_again() {
    let script = |index: u64, _| match index {
        3 => Act::Answer(422, "", b"no such account\nat all".to_vec()),
        _ => Act::status(200),
    };
    let mut pod = Pod::start(script, &[]);
    let log = Log::numbered(5);
    let mut node = pod.node(&log).await;
    let status = node.executor(|status| status.stopped).await;
    assert!(!status.connected);
    let failure = status.failure.unwrap();
    assert_eq!((failure.index, failure.attempts), (3, 1));
    assert!(
        failure.message.starts_with("422") && failure.message.ends_with(": no such account"),
        "{failure:?}"
    );
    assert_eq!(pod.endpoint.indexes(), [1, 2, 3]);
    let (code, body) = pod.program.get("/readyz");
    assert_eq!(code, 200, "{body}");
    assert!(
        body.contains("executor http stopped at index 3 after 1 attempt: 422"),
        "{body}"
    );
    let executor = &pod.status()["executor"];
    assert_eq!(executor["kind"], "http");
    assert_eq!(
        (&executor["stopped"], &executor["failure"]["index"]),
        (&true.into(), &3.into())
    );
    assert_eq!(pod.metric("raft_replicator_execution_stopped"), 1);
    // It stays so, and stops in good order.
    assert!(pod.program.terminate().success());
    pod.endpoint.follow(is_done);
    pod.program = start(pod.folder.path(), &pod.url, &[]);
    let mut node = pod.node(&log).await;
    node.progress(|progress| progress.executed_index == 5).await;
    assert_eq!(pod.endpoint.indexes(), [1, 2, 3, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_most_attempts_execution_stops() {
    let script = |index: u64, _| Act::status(if index == 2 { 500 } else { 200 });
    let pod = Pod::start(script, &["--attempts-max", "4"]);
    let mut node = pod.node(&Log::numbered(3)).await;
    let status = node.executor(|status| status.stopped).await;
    assert_eq!(status.failure.unwrap().attempts, 4);
    assert_eq!(pod.endpoint.indexes(), [1, 2, 2, 2, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_skipped_is_recorded_before_the_next_one_is_executed() {
    let script = |index: u64, _| match index {
        2 => Act::Answer(404, "", b"nobody".to_vec()),
        4 => Act::status(503),
        _ => Act::status(200),
    };
    let more = ["--on-failure", "skip", "--attempts-max", "3"];
    let pod = Pod::start(script, &more);
    let mut node = pod.node(&Log::numbered(5)).await;
    node.progress(|progress| progress.executed_index == 5).await;
    assert_eq!(pod.endpoint.indexes(), [1, 2, 3, 4, 4, 4, 5]);
    let text = std::fs::read_to_string(pod.folder.path().join("dead-letters.jsonl")).unwrap();
    let letters: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let found: Vec<_> = letters
        .iter()
        .map(|letter| {
            let operation = STANDARD.decode(letter["operation"].as_str().unwrap()).unwrap();
            let number = |name: &str| letter[name].as_u64().unwrap();
            let text = String::from_utf8(operation).unwrap();
            (number("index"), number("term"), number("attempts"), text)
        })
        .collect();
    assert_eq!(
        found,
        [
            (2, 1, 1, "operation-2".to_owned()),
            (4, 1, 3, "operation-4".to_owned())
        ]
    );
    assert!(letters[0]["error"].as_str().unwrap().contains("nobody"), "{text}");
    let status = node.executor(|status| status.skipped_operations == 2).await;
    assert!(status.failure.is_none() && !status.stopped, "{status:?}");
    assert_eq!(pod.status()["executor"]["skipped_operations"], 2);
    assert_eq!(pod.metric("raft_replicator_operations_skipped_total"), 2);
    // What is skipped has no result, and nobody waits for one.
    let results = node.results(&[2, 4]).await;
    assert!(results.iter().all(|result| !result.available), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_says_what_to_change() {
    let script = |_, _| Act::Answer(307, "Location: http://127.0.0.1:1/elsewhere\r\n", Vec::new());
    let pod = Pod::start(script, &[]);
    let mut node = pod.node(&Log::numbered(1)).await;
    let status = node.executor(|status| status.stopped).await;
    let why = status.failure.unwrap().message;
    assert!(
        why.contains("http://127.0.0.1:1/elsewhere") && why.contains("--http-url"),
        "{why}"
    );
}

/// It asks for more than the longest wait of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asks_for_time_gets_it() {
    let script = |_, times| match times {
        1 => Act::Answer(429, "Retry-After: 1\r\n", Vec::new()),
        _ => Act::status(200),
    };
    let begin = std::time::Instant::now();
    let pod = Pod::start(script, &[]);
    let mut node = pod.node(&Log::numbered(1)).await;
    node.progress(|progress| progress.executed_index == 1).await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(pod.endpoint.indexes(), [1, 1]);
}

/// Whatever the environment says of proxies.
#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_comes_in_between() {
    let endpoint = Endpoint::new(is_done);
    let (serving, folder) = (endpoint.serve(None), TempDir::new().unwrap());
    let mut command = command(folder.path());
    command.args(["--executor", "http", "--http-url", &serving.url()]);
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(variable, "http://127.0.0.1:1");
    }
    let program = Program::spawn(command);
    let (mut node, _) = PlayedNode::start(program.clients, 1).await;
    node.feed(&Log::numbered(1).0, 1).await;
    node.progress(|progress| progress.executed_index == 1).await;
}

/// Its certificate is of an authority of its own, as inside of a company.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_with_a_certificate_is_called_where_its_authority_is_known() {
    let endpoint = Endpoint::new(is_done);
    let (tls, authority) = certified("127.0.0.1");
    let (serving, folder) = (endpoint.serve_tls(tls), TempDir::new().unwrap());
    let log = Log::numbered(3);
    {
        let unknown = start(&folder.path().join("first"), &serving.url(), &[]);
        let (mut node, _) = PlayedNode::start(unknown.clients, 3).await;
        node.feed(&log.0, 3).await;
        let status = node.executor(|status| status.failure.is_some()).await;
        let failure = status.failure.unwrap();
        assert!(failure.message.contains("certificate"), "{failure:?}");
        assert!(
            endpoint.indexes().is_empty(),
            "nothing is said to who is not known"
        );
    }
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let data = folder.path().join("second");
    let mut command = command(&data);
    command.args(["--executor", "http", "--http-url", &serving.url()]);
    command.env("SSL_CERT_FILE", &file);
    let known = Program::spawn(command);
    let (mut node, _) = PlayedNode::start(known.clients, 3).await;
    node.feed(&log.0, 3).await;
    node.progress(|progress| progress.executed_index == 3).await;
    assert_eq!(endpoint.indexes(), [1, 2, 3]);
}

/// What serves with a certificate for that name, and the authority's certificate that says so.
fn certified(name: &str) -> (TlsAcceptor, String) {
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(params, authority_key);
    let certificate = CertificateParams::new([name.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(
        vec![certificate.der().clone()],
        PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    );
    (TlsAcceptor::from(Arc::new(config.unwrap())), pem)
}

/// One that hangs holds up execution and nothing else: not memory, not readiness, not a good end.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_costs_neither_memory_nor_readiness_nor_a_good_end() {
    let script = |index: u64, _| if index == 1 { Act::status(200) } else { Act::Hang };
    let mut pod = Pod::start(script, &[]);
    let log = Log::of(std::iter::repeat_n(vec![7; 1 << 20], 96));
    let (mut node, _) = PlayedNode::start(pod.program.clients, 0).await;
    for operation in &log.0 {
        node.feed(std::slice::from_ref(operation), operation.index).await;
    }
    node.progress(|progress| progress.commit_index == 96).await;
    pod.endpoint.wait("the second", |state| state.calls.len() == 2);
    let memory = pod.metric("process_resident_memory_bytes");
    assert!(memory < 80 << 20, "{memory} bytes");
    let (code, body) = pod.program.get("/readyz");
    assert_eq!(code, 200, "{body}");
    node.say(Message::ResultsWanted(ResultsWanted { indexes: vec![2, 3] }))
        .await;
    while pod.metric("raft_replicator_results_waiting") < 2 {
        tokio::task::yield_now().await;
    }
    assert!(pod.program.terminate().success());
    assert_eq!(pod.endpoint.indexes(), [1, 2]);
    // What was done was written down before the end.
    pod.endpoint.follow(is_done);
    pod.program = start(pod.folder.path(), &pod.url, &[]);
    let mut node = pod.node(&log).await;
    node.progress(|progress| progress.executed_index == 96).await;
    assert_eq!(pod.endpoint.state().done, (1..=96).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_only_what_was_not_written_down_is_repeated_and_nothing_is_lost() {
    let seed = std::env::var("RAFT_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("RAFT_TEST_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut of_endpoint = ChaCha8Rng::from_rng(&mut random);
    let script = move |_, times: usize| match (times, of_endpoint.next_u32() % 40) {
        (1, 0) => Act::status(503),
        (1, 1) => Act::Close,
        (1, 2) => Act::Slow(Duration::from_millis(30)),
        (_, 3) => Act::HalfBody,
        _ => Act::status(200),
    };
    let (folder, endpoint) = (TempDir::new().unwrap(), Endpoint::new(script));
    let serving = endpoint.serve(None);
    let log = Log::numbered(6_000);
    let mut executed_before = Vec::new();
    loop {
        let run = executed_before.len();
        let program = start(folder.path(), &format!("{}?run={run}", serving.url()), &[]);
        let (mut node, position) = PlayedNode::start(program.clients, 6_000).await;
        let at = |place: Option<Place>| place.unwrap_or_default().index;
        executed_before.push(at(position.executed));
        let held = usize::try_from(at(position.last)).unwrap();
        let feeding = async {
            for batch in log.0[held..].chunks(50) {
                node.feed(batch, 6_000).await;
            }
            node.progress(|progress| progress.executed_index == 6_000).await;
        };
        if run == 8 {
            feeding.await;
            break;
        }
        // Whatever it is doing by then.
        let life = Duration::from_millis(random.random_range(0..400));
        let _ = tokio::time::timeout(life, feeding).await;
        program.kill();
    }
    let calls = endpoint.state().calls.clone();
    let runs: Vec<Run> = executed_before
        .iter()
        .enumerate()
        .map(|(run, &executed_before)| {
            let name = format!("?run={run}");
            let of_run = calls.iter().filter(|call| call.run == name);
            Run {
                executed_before,
                indexes: of_run.map(|call| call.index).collect(),
            }
        })
        .collect();
    runs::check(&runs).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    for index in 1..=6_000 {
        assert!(
            calls.iter().any(|call| call.index == index),
            "seed {seed}: {index} is lost"
        );
    }
}

/// A call says in which term its leader leads. One that is refused for that, or under way when the node leads no more, is neither given
/// up nor said to fail afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_fenced_off_lets_go_and_executes_when_it_leads_again() {
    let leading = |leads, term, execute_after| {
        Message::Leading(Leading {
            leads,
            term,
            execute_after,
        })
    };
    // Somebody in term 6 was here.
    let answers = |index, _| match index {
        1 => Act::status(200),
        2 => Act::status(412),
        _ => Act::Hang,
    };
    let pod = Pod::start(answers, &["--execute-on", "leader", "--attempts-max", "1000000"]);
    let (mut node, _) = PlayedNode::start(pod.program.clients, 0).await;
    node.feed(&Log::numbered(3).0, 3).await;
    node.say(leading(true, 5, 0)).await;
    pod.endpoint.wait("2 to be refused twice", |state| {
        state.calls.iter().filter(|call| call.index == 2).count() > 1
    });
    node.executor(|status| status.failure.is_some() && !status.stopped)
        .await;
    node.say(leading(false, 6, 1)).await;
    node.executor(|status| status.failure.is_none() && status.connected)
        .await;
    assert_eq!(pod.endpoint.state().done, [1]);

    // It leads again, and loses it while 3 hangs.
    pod.endpoint
        .follow(|index, _| if index < 3 { Act::status(200) } else { Act::Hang });
    node.say(leading(true, 7, 1)).await;
    pod.endpoint.wait("3 to be called", |state| {
        state.calls.iter().any(|call| call.index == 3)
    });
    node.say(leading(false, 7, 2)).await;
    node.progress(|progress| progress.leading_term == 0).await;
    pod.endpoint.follow(is_done);
    node.say(leading(true, 9, 2)).await;
    node.progress(|progress| progress.executed_index == 3 && progress.leading_term == 9)
        .await;
    let state = pod.endpoint.state();
    assert_eq!(state.done, [1, 2, 3]);
    let terms: BTreeSet<_> = state
        .calls
        .iter()
        .map(|call| (call.index, call.headers["raftlog-leader-term"].clone()))
        .collect();
    let expected = [(1, "5"), (2, "5"), (2, "7"), (3, "7"), (3, "9")];
    assert_eq!(
        terms,
        expected.map(|(index, term)| (index, term.to_owned())).into()
    );
}
