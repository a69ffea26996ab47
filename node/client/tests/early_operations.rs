//! Replicators that hold different parts of the operations: what one has dropped another may have, and what none has is told.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use raftlog_client::{Endpoint, Error, OperationLog, Options};
use raftlog_proto::{
    error::no_longer_held,
    v1::{
        GetLogStatusRequest, GetLogStatusResponse, LoggedOperation, ReadRequest, ReadResponse, WatchRequest,
        WatchResponse,
        operation_log_server::{OperationLog as Service, OperationLogServer},
    },
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};

/// Committed operations.
const LAST: u64 = 12;

/// Holds the operations from one index on. Each stream gives four of them and breaks.
struct Replicator {
    first: u64,
}

#[tonic::async_trait]
impl Service for Replicator {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;
    type ReadStream = ReceiverStream<Result<ReadResponse, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let from = request.into_inner().from_index;
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
    let mut endpoints = vec![Endpoint::parse("127.0.0.1:1").unwrap()];
    for &first in first_indexes {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        endpoints.push(Endpoint::parse(&address).unwrap());
        let service = OperationLogServer::new(Replicator { first });
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
    }
    let options = Options {
        timeout: Duration::from_secs(30),
        ..Options::default()
    };
    OperationLog::new(endpoints, options).unwrap()
}

/// The indexes that a watch gives, and how it ended if not well.
async fn watch(log: &OperationLog, from: u64) -> (Vec<u64>, Option<Error>) {
    let mut watch = log.watch(from, true, true);
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
