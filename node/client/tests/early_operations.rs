//! Replicators that hold different parts of the operations: what one has dropped another may have, and what none has is told. And how a
//! watch goes on behind what was read, at those that give resume tokens and at those of an earlier version.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use raftlog_client::{Endpoint, Error, OperationLog, Options, Watch};
use raftlog_proto::{
    error::{no_longer_held, status},
    reason,
    v1::{
        GetLogStatusRequest, GetLogStatusResponse, LoggedOperation, ReadRequest, ReadResponse, WatchRequest,
        WatchResponse,
        operation_log_server::{OperationLog as Service, OperationLogServer},
    },
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Status, transport::Server};

/// Committed operations.
const LAST: u64 = 12;

/// Holds the operations from one index on. Each stream gives four of them and breaks.
#[derive(Clone, Copy)]
struct Replicator {
    first: u64,
    tokens: Tokens,
}

/// What it does with resume tokens, which are the index that they are behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tokens {
    /// Gives them and takes them.
    Known,
    /// Takes no notice of them.
    Unknown,
    /// Gives them, and finds none that is of its own past.
    Refused,
}

#[tonic::async_trait]
impl Service for Replicator {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;
    type ReadStream = ReceiverStream<Result<ReadResponse, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let from = match (self.tokens, request.resume_token.as_str()) {
            (_, "") | (Tokens::Unknown, _) => request.from_index.max(1),
            (Tokens::Refused, _) => {
                return Err(status(
                    Code::FailedPrecondition,
                    reason::OTHER_PAST,
                    "it is another one",
                ));
            }
            (Tokens::Known, token) => {
                assert_eq!(request.from_index, 0, "one or the other");
                token.parse::<u64>().unwrap() + 1
            }
        };
        if from < self.first {
            return Err(no_longer_held(
                self.first,
                format!("index {from} is not held any more"),
            ));
        }
        let (messages, queue) = mpsc::channel(2);
        let indexes = from..=LAST.min(from + 3);
        let operations = indexes.map(|index| LoggedOperation {
            index,
            ..LoggedOperation::default()
        });
        let message = WatchResponse {
            operations: operations.collect(),
            commit_index: LAST,
            resume_token: match self.tokens {
                Tokens::Unknown => String::new(),
                Tokens::Known | Tokens::Refused => LAST.min(from + 3).to_string(),
            },
        };
        messages.try_send(Ok(message)).unwrap();
        if from + 3 < LAST {
            messages.try_send(Err(Status::unavailable("it breaks"))).unwrap();
        }
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        Err(Status::unimplemented("nobody reads here"))
    }

    async fn get_log_status(
        &self,
        _: Request<GetLogStatusRequest>,
    ) -> Result<Response<GetLogStatusResponse>, Status> {
        Err(Status::unimplemented("nobody asks here"))
    }
}

/// Replicators that hold operations from these indexes on, and one that cannot be reached.
async fn replicators(first_indexes: &[u64]) -> OperationLog {
    let known = first_indexes.iter().map(|&first| Replicator {
        first,
        tokens: Tokens::Unknown,
    });
    serving(&known.collect::<Vec<_>>(), Duration::from_secs(30)).await
}

/// These, and one that cannot be reached.
async fn serving(replicators: &[Replicator], timeout: Duration) -> OperationLog {
    let mut endpoints = vec![Endpoint::parse("127.0.0.1:1").unwrap()];
    for &replicator in replicators {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        endpoints.push(Endpoint::parse(&address).unwrap());
        let service = OperationLogServer::new(replicator);
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
    }
    let options = Options {
        timeout,
        ..Options::default()
    };
    OperationLog::new(endpoints, options).unwrap()
}

/// The indexes that a watch gives, and how it ended if not well.
async fn watch(log: &OperationLog, from: u64) -> (Vec<u64>, Option<Error>) {
    read_all(log.watch(from, true, true)).await
}

async fn read_all(mut watch: Watch) -> (Vec<u64>, Option<Error>) {
    let mut indexes = Vec::new();
    loop {
        match watch.next().await {
            Ok(Some(batch)) => indexes.extend(batch.operations.iter().map(|operation| operation.index)),
            Ok(None) => return (indexes, None),
            Err(error) => return (indexes, Some(error)),
        }
    }
}

#[tokio::test]
async fn what_one_replicator_has_dropped_comes_from_another() {
    // Whichever is asked first, and also where a stream breaks at what the next one does not have.
    for first_indexes in [[9, 3, 5], [3, 5, 9], [5, 9, 3]] {
        let log = replicators(&first_indexes).await;
        for from in 3..=LAST {
            let (indexes, error) = watch(&log, from).await;
            assert_eq!(error, None, "{first_indexes:?} from {from}");
            assert!(
                indexes.into_iter().eq(from..=LAST),
                "{first_indexes:?} from {from}"
            );
        }
    }
}

#[tokio::test]
async fn what_no_replicator_has_is_told_with_the_lowest_index_that_one_has() {
    let log = replicators(&[9, 3, 5]).await;
    for from in [0, 1, 2] {
        let (indexes, error) = watch(&log, from).await;
        assert_eq!(indexes, [] as [u64; 0]);
        let Some(Error::NoLongerHeld {
            first_index: 3,
            message,
        }) = error
        else {
            panic!("{error:?}")
        };
        assert!(
            message.contains("--from 3") && !message.contains('\n'),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_watch_goes_on_behind_what_was_read_also_at_replicators_that_know_no_tokens() {
    let (new, old) = (Tokens::Known, Tokens::Unknown);
    for tokens in [[new, new], [new, old], [old, new], [old, old]] {
        let replicators = tokens.map(|tokens| Replicator { first: 1, tokens });
        let log = serving(&replicators, Duration::from_secs(30)).await;
        let (indexes, error) = watch(&log, 2).await;
        assert_eq!(error, None);
        assert!(indexes.into_iter().eq(2..=LAST));
    }
}

#[tokio::test]
async fn a_resumed_watch_goes_on_where_it_can_and_says_why_where_it_cannot() {
    let (new, old) = (Tokens::Known, Tokens::Unknown);
    for (tokens, expected) in [
        ([new, new], None),
        ([new, old], None),
        ([old, new], None),
        ([old, old], Some("does not know resume tokens")),
    ] {
        let replicators = tokens.map(|tokens| Replicator { first: 1, tokens });
        let timeout = Duration::from_secs(if expected.is_some() { 1 } else { 30 });
        let log = serving(&replicators, timeout).await;
        let (indexes, error) = read_all(log.resume("5".to_owned(), true, true)).await;
        match (expected, error) {
            (None, None) => assert!(indexes.into_iter().eq(6..=LAST)),
            (Some(expected), Some(Error::Failed(why))) => {
                assert_eq!(indexes, [] as [u64; 0], "nothing of what was read before");
                assert!(
                    why.contains(expected) && why.contains("the resume token"),
                    "{why}"
                );
            }
            (_, error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn another_past_ends_a_watch_at_once() {
    let other = Replicator {
        first: 1,
        tokens: Tokens::Refused,
    };
    // It breaks after four, and goes on behind them.
    let log = serving(&[other], Duration::from_secs(30)).await;
    let (indexes, error) = watch(&log, 2).await;
    assert!(indexes.into_iter().eq(2..=5));
    assert!(
        matches!(&error, Some(Error::OtherPast(why)) if why.contains("another one")),
        "{error:?}"
    );
    let gone = Replicator {
        first: 9,
        tokens: Tokens::Known,
    };
    let (_, error) = read_all(serving(&[gone], Duration::from_secs(30)).await.resume(
        "5".to_owned(),
        true,
        true,
    ))
    .await;
    assert!(
        matches!(error, Some(Error::NoLongerHeld { first_index: 9, .. })),
        "{error:?}"
    );
}
