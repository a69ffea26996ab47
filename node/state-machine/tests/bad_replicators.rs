//! What a replicator should not send, and what comes of it: a status that says why, and a state that is as it was.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use raftlog_proto::v1::state_machine_client::StateMachineClient;
use raftlog_proto::v1::{
    AppliedOperation, ApplyHello, ApplyOperations, ApplyPosition, ApplyRequest, ApplyResponse, RestoreHeader,
    RestoreRequest, StateMachineQueryRequest, StateMachineSnapshotRequest, apply_request, apply_response,
    restore_request,
};
use state_machine::{Batch, Failed, Listen, Position, QueryError, Snapshot, StateMachine, serve_until};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(30);

/// All that was applied, one after the other, with the position as it would be stored.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<(Position, Vec<u8>)>>);

impl StateMachine for Text {
    fn position(&mut self) -> Result<Position, Failed> {
        Ok(self.0.lock().unwrap().0)
    }

    fn apply(&mut self, batch: &Batch) -> Result<Vec<Vec<u8>>, Failed> {
        if let Some(bad) = batch.iter().find(|operation| &operation.data[..] == b"!") {
            return Err(Failed::at(bad.index, "no room for it"));
        }
        let mut state = self.0.lock().unwrap();
        for operation in batch {
            state.1.extend_from_slice(&operation.data);
        }
        state.0 = batch.position();
        Ok(batch.iter().map(|operation| operation.data.to_vec()).collect())
    }

    fn query(&mut self, query: &[u8]) -> Result<Vec<u8>, QueryError> {
        match query {
            b"all" => Ok(self.0.lock().unwrap().1.clone()),
            _ => Err(QueryError::Invalid("'all' is the only query".to_owned())),
        }
    }

    fn snapshot(&mut self) -> Result<Snapshot, Failed> {
        let copy = self.0.lock().unwrap().1.clone();
        Ok(Box::new(move |out| {
            out.write_all(&copy)?;
            assert!(!copy.ends_with(b"?"), "nobody can read it");
            Ok(())
        }))
    }

    fn restore(&mut self, position: Position, snapshot: &mut dyn Read) -> Result<(), Failed> {
        let mut state = Vec::new();
        snapshot.read_to_end(&mut state)?;
        *self.0.lock().unwrap() = (position, state);
        Ok(())
    }
}

struct Served {
    text: Text,
    client: StateMachineClient<Channel>,
    _folder: TempDir,
}

impl Served {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = Listen::Unix(folder.path().join("socket"));
        let url = listen.to_string();
        let text = Text::default();
        let machine = text.clone();
        let serving =
            tokio::spawn(async move { serve_until(&listen, machine, std::future::pending()).await });
        let client = loop {
            match StateMachineClient::connect(url.clone()).await {
                Ok(client) => break client,
                Err(error) => assert!(!serving.is_finished(), "{error}"),
            }
        };
        Self {
            text,
            client,
            _folder: folder,
        }
    }

    async fn apply(&mut self) -> Stream {
        let (requests, queue) = mpsc::channel(16);
        let responses = self.client.apply(ReceiverStream::new(queue)).await.unwrap();
        let responses = responses.into_inner();
        Stream { requests, responses }
    }

    /// A stream with the hello behind it.
    async fn greeted(&mut self) -> Stream {
        let mut stream = self.apply().await;
        stream.hello(1, 9).await;
        let first = stream.next().await.unwrap();
        assert!(matches!(first, apply_response::Message::Position(_)), "{first:?}");
        stream
    }

    fn state(&self) -> (u64, String) {
        let state = self.text.0.lock().unwrap();
        (state.0.applied_index, String::from_utf8(state.1.clone()).unwrap())
    }
}

struct Stream {
    requests: mpsc::Sender<ApplyRequest>,
    responses: Streaming<ApplyResponse>,
}

impl Stream {
    async fn say(&self, message: apply_request::Message) {
        let request = ApplyRequest {
            message: Some(message),
        };
        self.requests.send(request).await.unwrap();
    }

    async fn hello(&self, protocol_version: u32, cluster_id: u64) {
        self.say(apply_request::Message::Hello(ApplyHello {
            protocol_version,
            cluster_id,
            node: 1,
        }))
        .await;
    }

    async fn operations(&self, from: u64, data: &[&'static str]) {
        let operations = (from..).zip(data).map(|(index, data)| AppliedOperation {
            index,
            term: 1,
            data: Bytes::from_static(data.as_bytes()),
        });
        let operations = operations.collect();
        self.say(apply_request::Message::Operations(ApplyOperations { operations }))
            .await;
    }

    /// The error is how the stream ended.
    async fn next(&mut self) -> Result<apply_response::Message, Status> {
        let response = timeout(LONG, self.responses.message()).await.unwrap()?;
        let response = response.ok_or_else(|| Status::ok("it ended"))?;
        Ok(response.message.unwrap())
    }

    async fn results(&mut self) -> (u64, Vec<Bytes>) {
        match self.next().await.unwrap() {
            apply_response::Message::Results(results) => (results.applied_index, results.results),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_ends_the_stream_and_changes_nothing() {
    let mut served = Served::start().await;
    for (version, cluster) in [(0, 9), (1, 0)] {
        let mut stream = served.apply().await;
        stream.hello(version, cluster).await;
        assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
    }
    let mut stream = served.apply().await;
    stream.operations(1, &["a"]).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
    for from in [0, 2] {
        let mut stream = served.greeted().await;
        stream.operations(from, &["a"]).await;
        let status = stream.next().await.unwrap_err();
        assert!(
            status.message().contains("the one after 0 comes next"),
            "{status:?}"
        );
    }
    assert_eq!(served.state(), (0, String::new()));
    let mut stream = served.greeted().await;
    stream.operations(1, &["a", "b"]).await;
    assert_eq!(stream.results().await, (2, vec!["a".into(), "b".into()]));
    stream.hello(1, 9).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(served.state(), (2, "ab".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_an_operation_that_fails_is_applied_and_it_is_named() {
    let mut served = Served::start().await;
    let mut stream = served.greeted().await;
    stream.operations(1, &["a", "b", "!", "c"]).await;
    assert_eq!(stream.results().await.0, 2);
    let failed = stream.next().await.unwrap();
    assert!(
        matches!(&failed, apply_response::Message::Failed(failed) if failed.index == 3 && failed.message == "no room for it"),
        "{failed:?}"
    );
    assert_eq!(served.state(), (2, "ab".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_stream_takes_the_place_of_an_older_one() {
    let mut served = Served::start().await;
    let mut older = served.greeted().await;
    older.operations(1, &["a"]).await;
    older.results().await;
    let mut newer = served.apply().await;
    newer.hello(1, 9).await;
    let position = newer.next().await.unwrap();
    let expected = ApplyPosition {
        protocol_version: 1,
        applied_index: 1,
        cluster_id: 9,
    };
    assert_eq!(position, apply_response::Message::Position(expected));
    older.operations(2, &["x"]).await;
    let refused = older.next().await.unwrap();
    assert!(
        matches!(refused, apply_response::Message::Failed(_)),
        "{refused:?}"
    );
    newer.operations(2, &["b"]).await;
    newer.results().await;
    assert_eq!(served.state(), (2, "ab".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_goes_from_one_to_another_and_a_broken_one_leaves_what_is_there() {
    let mut served = Served::start().await;
    let mut stream = served.greeted().await;
    stream.operations(1, &["ab", "cd"]).await;
    stream.results().await;
    let response = served
        .client
        .snapshot(StateMachineSnapshotRequest {})
        .await
        .unwrap();
    let mut pieces = response.into_inner();
    let mut copy = Vec::new();
    let first = pieces.message().await.unwrap().unwrap();
    assert_eq!(first.applied_index, 2);
    while let Some(piece) = pieces.message().await.unwrap() {
        copy.extend_from_slice(&piece.data);
    }
    assert_eq!(copy, b"abcd");

    let header = |applied_index, size| {
        restore_request::Message::Header(RestoreHeader {
            applied_index,
            cluster_id: 9,
            size,
        })
    };
    let data = |text: &'static str| restore_request::Message::Data(Bytes::from_static(text.as_bytes()));
    for (messages, is_taken) in [
        (vec![data("abcd")], false),
        (vec![header(0, 4), data("abcd")], false),
        (vec![header(7, 5), data("abcd")], false),
        (vec![header(7, 3), data("abcd")], false),
        (vec![header(7, 4), data("wx"), header(7, 4)], false),
        (vec![header(7, 4), data("wx"), data("yz")], true),
    ] {
        let requests = messages.into_iter().map(|message| RestoreRequest {
            message: Some(message),
        });
        let requests: Vec<_> = requests.collect();
        let restored = served.client.restore(tokio_stream::iter(requests)).await;
        assert_eq!(restored.is_ok(), is_taken, "{restored:?}");
        let expected = if is_taken { (7, "wxyz") } else { (2, "abcd") };
        assert_eq!(served.state(), (expected.0, expected.1.to_owned()));
    }
    // What was on its way before is of another state.
    stream.operations(3, &["x"]).await;
    let refused = stream.next().await.unwrap();
    assert!(
        matches!(refused, apply_response::Message::Failed(_)),
        "{refused:?}"
    );
    let mut ask = async |query: &'static str| {
        let query = query.into();
        served.client.query(StateMachineQueryRequest { query }).await
    };
    assert_eq!(ask("all").await.unwrap().into_inner().result, "wxyz");
    assert_eq!(ask("what").await.unwrap_err().code(), Code::InvalidArgument);
}

/// A stream that only ended would be taken for a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_whose_writer_panics_is_none() {
    let mut served = Served::start().await;
    let mut stream = served.greeted().await;
    stream.operations(1, &["ab", "?"]).await;
    stream.results().await;
    let response = served.client.snapshot(StateMachineSnapshotRequest {}).await;
    let mut pieces = response.unwrap().into_inner();
    let end = loop {
        match pieces.message().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    let failed = end.unwrap_err();
    assert!(failed.message().contains("panicked"), "{failed:?}");
    // It goes on otherwise.
    stream.operations(3, &["c"]).await;
    stream.results().await;
    assert_eq!(served.state(), (3, "ab?c".to_owned()));
}
