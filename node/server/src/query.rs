//! Queries of clients: how long they may take, and how they are counted. The way of one is in [`crate::node`].

use std::time::{Duration, Instant};

use raftlog_proto::v1::{QueryRequest, QueryResponse};
use raftlog_proto::{QUERY_BYTES_MAX, error, reason};
use raftlog_telemetry::clock;
use tonic::{Code, Status};

use crate::metrics::Metrics;
use crate::node::{Query, QueryResult};
use crate::operations_service::OperationsService;
use crate::refusal;

/// How long a query waits whose caller names no deadline.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// How long one waits at most: its place is taken meanwhile, even when its caller has gone.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A query under way, counted until it is dropped.
struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.queries_in_flight.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.queries_in_flight.dec();
    }
}

impl OperationsService {
    /// Asks the executor of this node's replicator, within `timeout`.
    pub(crate) async fn timed_query(
        &self,
        request: QueryRequest,
        timeout: Option<Duration>,
    ) -> Result<QueryResponse, Status> {
        let _in_flight = InFlight::new(&self.metrics);
        let since = Instant::now();
        let result = self.ask_executor(request, timeout).await;
        self.metrics.observe_query(&result, since.elapsed());
        result
    }

    async fn ask_executor(
        &self,
        request: QueryRequest,
        timeout: Option<Duration>,
    ) -> Result<QueryResponse, Status> {
        let QueryRequest { query, allow_stale } = request;
        if query.len() > QUERY_BYTES_MAX {
            let message = format!(
                "a query of {} bytes: at most {QUERY_BYTES_MAX} are allowed",
                query.len()
            );
            return Err(error::status(
                Code::InvalidArgument,
                reason::INVALID_QUERY,
                message,
            ));
        }
        let query = Query {
            // Given by the core.
            id: 0,
            query,
            allow_stale,
            until: clock::now() + timeout.unwrap_or(WAIT_DEFAULT).min(WAIT_MAX),
        };
        match self.core.query(query).await {
            Some(Ok(QueryResult { result, index, term })) => Ok(QueryResponse { result, index, term }),
            Some(Err(refusal)) => Err(refusal::query(refusal)),
            None => Err(error::status(
                Code::Unavailable,
                reason::STOPPING,
                "this node is stopping: ask another one",
            )),
        }
    }
}
