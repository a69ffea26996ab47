//! Reading the committed operations from a replicator, on through broken connections.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use raftlog_proto::{
    MESSAGE_BYTES_MAX,
    error::first_index_of,
    reason,
    v1::{
        GetLogStatusRequest, GetLogStatusResponse, LoggedOperation, ReadRequest, ReadResponse, WatchRequest,
        WatchResponse, operation_log_client::OperationLogClient,
    },
};
use tonic::{Status, Streaming, transport::Channel};

use crate::{
    channels::Channels,
    endpoint::Endpoint,
    error::{Error, describe, reason_of},
    options::Options,
    retry::{Attempts, Failure, Step},
    targets::Targets,
};

/// Reads from the first of these replicators that can be reached, and from the next one when that breaks.
#[derive(Clone, Debug)]
pub struct OperationLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    targets: Mutex<Targets>,
    channels: Channels,
}

/// Consecutive committed operations.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// In order, without gaps, within one watch or read also between batches.
    pub operations: Vec<LoggedOperation>,
    /// The replicator's commit index when it sent them.
    pub commit_index: u64,
    /// To go on behind them, later and at any replicator of the cluster: [`OperationLog::resume`]. `None` in a read, and of
    /// replicators of earlier versions.
    pub resume_token: Option<String>,
}

impl OperationLog {
    /// Replicators to read from. Connects when first used.
    pub fn new(replicators: Vec<Endpoint>, options: Options) -> Result<Self, Error> {
        if replicators.is_empty() {
            return Err(Error::Invalid(
                "reading needs at least one replicator: name its HOST:PORT".to_owned(),
            ));
        }
        let targets = Mutex::new(Targets::new(replicators, false));
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                targets,
                channels: Channels::default(),
            }),
        })
    }

    /// Everything committed from `from_index` (0 means 1) on, and then live; with `until_current`, only what is
    /// committed now. That is linearizable unless `allow_stale`, as with [`OperationLog::read`].
    ///
    /// Replicators drop early operations; where none holds the next one any more, [`Error::NoLongerHeld`] says which are.
    pub fn watch(&self, from_index: u64, until_current: bool, allow_stale: bool) -> Watch {
        self.start(
            from_index,
            Mode::Watch {
                until_current,
                allow_stale,
            },
        )
    }

    /// As [`OperationLog::watch`], behind the batch that this token came with, also in another process. Where the cluster has other
    /// operations than those that were read up to there, that is [`Error::OtherPast`].
    ///
    /// Each watch goes on like this by itself where a connection breaks, so it never goes over to another past in silence.
    pub fn resume(&self, resume_token: String, until_current: bool, allow_stale: bool) -> Watch {
        Watch {
            next_index: None,
            resume_token: Some(resume_token),
            ..self.watch(0, until_current, allow_stale)
        }
    }

    /// What is committed from `from_index` (0 means 1) to `to_index` (inclusive; 0 means all). Linearizable unless
    /// `allow_stale`: it then answers from what the replicator has, without asking how far the cluster is. Of operations that are not
    /// held any more see [`OperationLog::watch`].
    pub fn read(&self, from_index: u64, to_index: u64, allow_stale: bool) -> Watch {
        self.start(
            from_index,
            Mode::Read {
                to_index,
                allow_stale,
            },
        )
    }

    /// What that one replicator holds. Tried once.
    pub async fn status_of(
        &self,
        replicator: &Endpoint,
        timeout: Duration,
    ) -> Result<GetLogStatusResponse, Error> {
        let ask = async {
            let channel = self.shared.channel(replicator, timeout).await?;
            let mut client = OperationLogClient::new(channel);
            Ok(client.get_log_status(GetLogStatusRequest {}).await?.into_inner())
        };
        self.shared.once(replicator, timeout, ask).await
    }

    /// One committed operation as that one replicator has it. Tried once.
    pub async fn operation_of(
        &self,
        replicator: &Endpoint,
        index: u64,
        timeout: Duration,
    ) -> Result<LoggedOperation, Error> {
        let ask = async {
            let channel = self.shared.channel(replicator, timeout).await?;
            let mut client = OperationLogClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let request = ReadRequest {
                from_index: index,
                to_index: index,
                allow_stale: true,
            };
            let message = client.read(request).await?.into_inner().message().await?;
            let mut operations = message.unwrap_or_default().operations.into_iter();
            operations
                .find(|operation| operation.index == index)
                .ok_or_else(|| Status::not_found(format!("it did not send operation {index}")))
        };
        self.shared.once(replicator, timeout, ask).await
    }

    fn start(&self, from_index: u64, mode: Mode) -> Watch {
        let shared = Arc::clone(&self.shared);
        let endpoints = shared.targets().count();
        let attempts = Attempts::new(shared.options.backoff, endpoints, false, true);
        let (source, failing_since, dropped) = (None, None, None);
        Watch {
            shared,
            mode,
            next_index: Some(from_index.max(1)),
            resume_token: None,
            source,
            attempts,
            failing_since,
            dropped,
            ended: false,
        }
    }
}

impl Shared {
    async fn channel(&self, replicator: &Endpoint, timeout: Duration) -> Result<Channel, Status> {
        let connected = self.channels.get(replicator, &self.options, timeout).await;
        connected.map_err(|message| Status::unavailable(format!("cannot connect: {message}")))
    }

    /// Whatever fails names the replicator.
    async fn once<T>(
        &self,
        replicator: &Endpoint,
        timeout: Duration,
        ask: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Error> {
        let answer = match tokio::time::timeout(timeout, ask).await {
            Ok(answer) => answer.map_err(|status| describe(&status)),
            Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
        };
        answer.map_err(|message| {
            self.channels.forget(replicator);
            Error::Failed(format!("{replicator}: {message}"))
        })
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Watch { until_current: bool, allow_stale: bool },
    Read { to_index: u64, allow_stale: bool },
}

/// A watch or a read under way.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    mode: Mode,
    /// `None` behind a token that nothing has followed yet.
    next_index: Option<u64>,
    /// To go on behind the last batch, where that brought one.
    resume_token: Option<String>,
    source: Option<Connection>,
    attempts: Attempts,
    /// Since when nothing could be had; `None` while all is well.
    failing_since: Option<Instant>,
    /// A replicator said that it does not hold the next operation any more.
    dropped: Option<Dropped>,
    ended: bool,
}

/// How the replicators are asked one after the other for what one of them does not hold any more.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    /// The lowest index that one of them holds.
    first_index: u64,
    /// Attempts that failed since, in this way or another.
    attempts: usize,
}

/// An open stream.
#[derive(Debug)]
struct Connection {
    endpoint: Endpoint,
    source: Source,
    /// It goes on behind a token.
    resumes: bool,
    since: Instant,
}

#[derive(Debug)]
enum Source {
    Watch(Streaming<WatchResponse>),
    Read(Streaming<ReadResponse>),
}

impl Source {
    async fn message(&mut self) -> Result<Option<Batch>, Status> {
        Ok(match self {
            Self::Watch(stream) => stream.message().await?.map(|message: WatchResponse| Batch {
                operations: message.operations,
                commit_index: message.commit_index,
                resume_token: Some(message.resume_token).filter(|token| !token.is_empty()),
            }),
            Self::Read(stream) => stream.message().await?.map(|message: ReadResponse| Batch {
                operations: message.operations,
                commit_index: message.commit_index,
                resume_token: None,
            }),
        })
    }
}

impl Watch {
    /// The index of the next operation; `None` until something has followed the token that it was resumed with.
    pub fn next_index(&self) -> Option<u64> {
        self.next_index
    }

    /// To go on behind what was read so far: [`OperationLog::resume`]. `None` until something was, and where
    /// [`Batch::resume_token`] is.
    pub fn resume_token(&self) -> Option<&str> {
        self.resume_token.as_deref()
    }

    /// The replicator that is being read from; `None` while there is no connection.
    pub fn replicator(&self) -> Option<&Endpoint> {
        self.source.as_ref().map(|connection| &connection.endpoint)
    }

    /// The next operations, never none; `None` at the end. Goes on at the next index, at another replicator if need be,
    /// when a connection breaks; fails when none could be had for as long as the options' timeout.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        while !self.ended {
            let Some(mut connection) = self.source.take() else {
                if let Err((endpoint, status)) = self.connect().await {
                    self.failed(&endpoint, &status).await?;
                }
                continue;
            };
            match self.message(&mut connection.source).await {
                Ok(Some(batch)) if connection.resumes && batch.resume_token.is_none() => {
                    self.not_resumed(&connection).await?;
                }
                Ok(Some(batch)) => {
                    self.source = Some(connection);
                    self.progressed();
                    let batch = self.accept(batch)?;
                    if !batch.operations.is_empty() {
                        return Ok(Some(batch));
                    }
                }
                Ok(None) if self.is_finite() => self.ended = true,
                Ok(None) => {
                    self.broken(
                        &connection,
                        &Status::unavailable("the replicator ended the stream"),
                    )
                    .await?;
                }
                Err(status) => self.broken(&connection, &status).await?,
            }
        }
        Ok(None)
    }

    /// A replicator of an earlier version took no notice of the token and began with index 1. It can be asked by index, if that is
    /// known.
    async fn not_resumed(&mut self, connection: &Connection) -> Result<(), Error> {
        if self.next_index.is_some() {
            self.resume_token = None;
            return Ok(());
        }
        let status = Status::unimplemented("it does not know resume tokens: upgrade it, or give an index");
        self.broken(connection, &status).await
    }

    /// The next message; on a stream that ends by itself, within the options' timeout.
    async fn message(&self, source: &mut Source) -> Result<Option<Batch>, Status> {
        if !self.is_finite() {
            return source.message().await;
        }
        match tokio::time::timeout(self.shared.options.timeout, source.message()).await {
            Ok(message) => message,
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    /// Whether the end of the stream is the end of what was asked for.
    fn is_finite(&self) -> bool {
        !matches!(
            self.mode,
            Mode::Watch {
                until_current: false,
                ..
            }
        )
    }

    fn progressed(&mut self) {
        (self.failing_since, self.dropped) = (None, None);
        self.attempts.progressed();
    }

    /// A stream broke. One that held for a while was well until now, even if there was nothing to send.
    async fn broken(&mut self, connection: &Connection, status: &Status) -> Result<(), Error> {
        if connection.since.elapsed() >= self.shared.options.timeout {
            self.progressed();
        }
        self.failed(&connection.endpoint, status).await
    }

    fn remaining(&self) -> Duration {
        let failing = self.failing_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.shared.options.timeout.saturating_sub(failing)
    }

    async fn connect(&mut self) -> Result<(), (Endpoint, Status)> {
        let target = self.shared.targets().current();
        let options = &self.shared.options;
        let timeout = options.connect_timeout.min(self.remaining());
        let connected = self.shared.channels.get(&target, options, timeout).await;
        let opened = match connected {
            Ok(channel) => match tokio::time::timeout(self.remaining(), self.open(channel)).await {
                Ok(opened) => opened,
                Err(_) => Err(Status::deadline_exceeded("no answer in time")),
            },
            Err(message) => Err(Status::unavailable(format!("cannot connect: {message}"))),
        };
        match opened {
            Ok(source) => {
                self.source = Some(Connection {
                    endpoint: target,
                    source,
                    resumes: matches!(self.mode, Mode::Watch { .. }) && self.resume_token.is_some(),
                    since: Instant::now(),
                });
                Ok(())
            }
            Err(status) => Err((target, status)),
        }
    }

    async fn open(&self, channel: Channel) -> Result<Source, Status> {
        let mut client = OperationLogClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let next_index = self.next_index.unwrap_or_default();
        Ok(match self.mode {
            Mode::Watch {
                until_current,
                allow_stale,
            } => Source::Watch(
                client
                    .watch(WatchRequest {
                        from_index: if self.resume_token.is_some() {
                            0
                        } else {
                            next_index
                        },
                        until_current,
                        allow_stale,
                        resume_token: self.resume_token.clone().unwrap_or_default(),
                    })
                    .await?
                    .into_inner(),
            ),
            Mode::Read {
                to_index,
                allow_stale,
            } => Source::Read(
                client
                    .read(ReadRequest {
                        from_index: next_index,
                        to_index,
                        allow_stale,
                    })
                    .await?
                    .into_inner(),
            ),
        })
    }

    /// Checks that a batch goes on where the last one ended.
    fn accept(&mut self, batch: Batch) -> Result<Batch, Error> {
        let first = batch.operations.first().map(|first| first.index);
        let Some(expected) = self.next_index.or(first) else {
            return Ok(batch);
        };
        match next_after(expected, &batch) {
            Ok(next) => {
                self.next_index = Some(next);
                self.resume_token.clone_from(&batch.resume_token);
                if let Mode::Read { to_index, .. } = self.mode
                    && to_index != 0
                    && next > to_index
                {
                    self.ended = true;
                }
                Ok(batch)
            }
            Err(got) => {
                let at = self
                    .replicator()
                    .map_or_else(|| "a replicator".to_owned(), Endpoint::to_string);
                Err(Error::Failed(format!(
                    "{at} sent operation {got} where {expected} had to follow: do not use its answers, see its log"
                )))
            }
        }
    }

    /// For people.
    fn what_is_next(&self) -> String {
        self.next_index.map_or_else(
            || "what follows the resume token".to_owned(),
            |index| format!("operation {index}"),
        )
    }

    /// Waits before another attempt, or gives up.
    async fn failed(&mut self, target: &Endpoint, status: &Status) -> Result<(), Error> {
        self.shared.channels.forget(target);
        self.shared.targets().failed(target);
        self.failing_since.get_or_insert_with(Instant::now);
        let message = describe(status);
        let what = self.what_is_next();
        let give_up = |advice: &str| {
            Err(Error::Failed(format!(
                "cannot read {what} from {target}: {message}; {advice}"
            )))
        };
        let reason = reason_of(status);
        if [reason::OTHER_PAST, reason::WRONG_CLUSTER].contains(&reason.as_str()) {
            return Err(Error::OtherPast(format!("cannot go on at {target}: {message}")));
        }
        if reason == reason::INVALID_REQUEST {
            return give_up("correct what is asked for");
        }
        let held_from = first_index_of(status);
        if reason == reason::OUT_OF_RANGE && held_from.is_none() {
            return give_up("ask for what is committed");
        }
        if let Some(first_index) = held_from.or(self.dropped.map(|dropped| dropped.first_index)) {
            let so_far = self.dropped.unwrap_or(Dropped {
                first_index,
                attempts: 0,
            });
            let first_index = so_far.first_index.min(first_index);
            let attempts = so_far.attempts + 1;
            if attempts >= self.shared.targets().count() {
                return Err(no_longer_held(&what, first_index));
            }
            self.dropped = Some(Dropped {
                first_index,
                attempts,
            });
        }
        match self
            .attempts
            .failed(Failure::NotConnected, self.remaining(), rand::random())
        {
            Step::Again(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Step::Stop(_) => give_up("check --replicators and that one of them is ready"),
        }
    }
}

fn no_longer_held(what: &str, first_index: u64) -> Error {
    let message = format!(
        "{what} is not held any more by any replicator that answers, as snapshots hold what it did: the first \
         one held is {first_index}; start there (--from {first_index})"
    );
    Error::NoLongerHeld { first_index, message }
}

/// The index that follows a batch which has to begin at `expected`; the error is the index that is out of place.
fn next_after(expected: u64, batch: &Batch) -> Result<u64, u64> {
    batch.operations.iter().try_fold(expected, |next, operation| {
        if operation.index == next {
            next.checked_add(1).ok_or(next)
        } else {
            Err(operation.index)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_to_follow_without_gaps() {
        for (expected, indexes, next) in [
            (1, vec![1, 2, 3], Ok(4)),
            (4, vec![4], Ok(5)),
            (4, vec![], Ok(4)),
            (1, vec![2], Err(2)),
            (1, vec![1, 3], Err(3)),
            (3, vec![2, 3], Err(2)),
            (1, vec![1, 1], Err(1)),
            (u64::MAX, vec![u64::MAX], Err(u64::MAX)),
        ] {
            let operations = indexes
                .iter()
                .map(|&index| LoggedOperation {
                    index,
                    ..LoggedOperation::default()
                })
                .collect();
            assert_eq!(
                next_after(
                    expected,
                    &Batch {
                        operations,
                        commit_index: 0,
                        resume_token: None,
                    }
                ),
                next,
                "{expected} {indexes:?}"
            );
        }
    }
}
