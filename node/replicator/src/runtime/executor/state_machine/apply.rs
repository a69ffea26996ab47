//! Operations go one way, results the other, for as long as the connection holds.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use raftlog_proto::RESULT_BYTES_MAX;
use raftlog_proto::v1::state_machine_client::StateMachineClient;
use raftlog_proto::v1::{
    AppliedOperation, ApplyFailed, ApplyHello, ApplyOperations, ApplyPosition, ApplyRequest, ApplyResponse,
    ApplyResults, StateMachineQueryRequest, apply_request, apply_response,
};
use raftlog_raft::ids::{ClusterId, NodeNumber, OperationIndex};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::copy::{Copied, Copying};
use super::{Failure, FromMachine, Next, PATIENCE, StateMachine, ToMachine, connect, not_there};
use crate::core::Operation;
use crate::runtime::executor::Run;
use crate::runtime::query::{Answer, Query, Refused};

/// Of the service `StateMachine`.
const PROTOCOL_VERSION: u32 = 1;
/// Operations in one message, in bytes; a longer one goes alone.
const MESSAGE_BYTES: usize = 1 << 20;
/// Messages that wait for the other side's flow control.
const MESSAGES_MAX: usize = 2;
/// No query takes longer.
const QUERY_MAX: Duration = Duration::from_secs(30);

/// An open stream.
struct Applying {
    client: StateMachineClient<Channel>,
    requests: mpsc::Sender<ApplyRequest>,
    responses: Streaming<ApplyResponse>,
    runs: mpsc::Receiver<Run>,
    /// What is to be sent.
    queue: VecDeque<ApplyRequest>,
    /// The last operation that was sent, or is to be.
    queued: OperationIndex,
    applied: OperationIndex,
    copying: Copying,
}

enum Happened {
    Response(Result<Option<ApplyResponse>, Status>),
    Run(Run),
    Copied(Copied),
    Told(Option<ToMachine>),
    Query(Query),
}

impl StateMachine {
    /// Connects, learns where the state is, and has operations applied until something else is to be done.
    pub(super) async fn apply(&mut self) -> Next {
        let opening = async {
            let cluster = self.cluster.wait_for(Option::is_some).await;
            // The driver is gone where that fails.
            let cluster = cluster.ok().and_then(|cluster| *cluster)?;
            Some((cluster, open(&self.url, self.node, cluster).await))
        };
        let opened = tokio::select! {
            opened = opening => opened,
            next = something_else(&mut self.to) => return next,
            () = refuse_all(&mut self.queries) => return Next::Stop,
        };
        let (cluster, (client, requests, responses, position)) = match opened {
            Some((cluster, Ok(opened))) => (cluster, opened),
            Some((_, Err(failure))) => return Next::Wait(failure),
            None => return Next::Stop,
        };
        let (runs, queue) = mpsc::channel(self.runs_max.saturating_add(1));
        let attached = FromMachine::Attached {
            serves: cluster,
            applied: position.applied_index,
            cluster: ClusterId::new(position.cluster_id),
            runs,
        };
        if let Err(stop) = self.say(attached).await {
            return stop;
        }
        self.status.send_modify(|status| status.connected = true);
        if position.applied_index == 0 || position.cluster_id == cluster.get() {
            self.is_there(position.applied_index);
        }
        let mut applying = Applying {
            client,
            requests,
            responses,
            runs: queue,
            queue: VecDeque::new(),
            queued: position.applied_index,
            applied: position.applied_index,
            copying: Copying::default(),
        };
        let next = loop {
            match self.exchange(&mut applying).await {
                Ok(()) => {}
                Err(next) => break next,
            }
        };
        self.status.send_modify(|status| status.connected = false);
        match self.say(FromMachine::Detached).await {
            Ok(()) => next,
            Err(stop) => stop,
        }
    }

    /// One thing that happens; the error is what is to be done instead.
    async fn exchange(&mut self, applying: &mut Applying) -> Result<(), Next> {
        let may_send = applying.copying.lets_operations_pass();
        if applying.queue.is_empty() && applying.queued == applying.applied {
            let client = &applying.client;
            applying.copying.begin(client, applying.applied, &self.folder);
        }
        let Applying {
            requests,
            responses,
            runs,
            queue,
            copying,
            ..
        } = applying;
        let happened = tokio::select! {
            response = responses.message() => Happened::Response(response),
            permit = requests.reserve(), if !queue.is_empty() => {
                // Where the other end is gone, the responses say so.
                if let (Ok(permit), Some(request)) = (permit, queue.pop_front()) {
                    permit.send(request);
                }
                return Ok(());
            }
            Some(run) = runs.recv(), if queue.is_empty() && may_send => Happened::Run(run),
            copied = copying.happens() => Happened::Copied(copied),
            told = self.to.recv() => Happened::Told(told),
            Some(query) = self.queries.recv() => Happened::Query(query),
        };
        match happened {
            Happened::Response(response) => {
                let response = response.map_err(|status| Next::Wait(Failure::status(&status)))?;
                let response = response.ok_or_else(|| Next::Wait(Failure::of("it ended the stream")))?;
                self.responded(applying, response).await
            }
            Happened::Run(run) => {
                applying.take(run);
                self.given = self.given.max(applying.queued);
                Ok(())
            }
            Happened::Copied(copied) => self.copy_happens(copied).await,
            Happened::Told(told) => match told.ok_or(Next::Stop)? {
                ToMachine::Reattach => Err(Next::Apply),
                ToMachine::Refuse(why) => Err(Next::Wait(Failure::of(why))),
                ToMachine::Copy => {
                    applying.copying = Copying::Wanted;
                    Ok(())
                }
                ToMachine::RestoreBegin(restore) => Err(Next::Restore(restore)),
                // Of a restore that is over.
                ToMachine::RestorePiece(_) | ToMachine::RestoreAbort(_) => Ok(()),
            },
            Happened::Query(query) => {
                tokio::spawn(ask(applying.client.clone(), query));
                Ok(())
            }
        }
    }

    async fn responded(&mut self, applying: &mut Applying, response: ApplyResponse) -> Result<(), Next> {
        match response.message {
            Some(apply_response::Message::Results(results)) => {
                let applied = results.applied_index;
                let results = applying
                    .results(results)
                    .map_err(|what| Next::Wait(Failure::of(what)))?;
                self.results.put(results);
                self.say(FromMachine::Executed(applied)).await?;
                self.works();
                Ok(())
            }
            Some(apply_response::Message::Failed(ApplyFailed { index, message })) => {
                let message = first_line(&message);
                Err(Next::Wait(Failure { index, message }))
            }
            Some(apply_response::Message::Position(_)) | None => Err(Next::Wait(Failure::of(
                "it said its position again, or something that is not known here",
            ))),
        }
    }

    async fn copy_happens(&mut self, copied: Copied) -> Result<(), Next> {
        match copied {
            Copied::Begun => self.say(FromMachine::CopyBegun).await,
            Copied::Ended(Ok(spool)) => self.say(FromMachine::Copied(Some(spool))).await,
            Copied::Ended(Err(why)) => {
                tracing::warn!(
                    "Node {}: no snapshot of the state machine at {}: {why}",
                    self.node,
                    self.url
                );
                self.say(FromMachine::Copied(None)).await
            }
        }
    }
}

impl Applying {
    fn take(&mut self, run: Run) {
        let mut message: Vec<AppliedOperation> = Vec::new();
        let mut bytes = 0;
        for operation in run.operations {
            bytes += operation.weight();
            if bytes > MESSAGE_BYTES && !message.is_empty() {
                self.queue.push_back(operations(std::mem::take(&mut message)));
                bytes = operation.weight();
            }
            self.queued = operation.index;
            message.push(applied(operation));
        }
        self.queue.push_back(operations(message));
    }

    /// What came of which operations; the error is what is wrong with that.
    fn results(&mut self, results: ApplyResults) -> Result<Vec<(OperationIndex, Bytes)>, String> {
        let ApplyResults {
            applied_index,
            results,
        } = results;
        let before = std::mem::replace(&mut self.applied, applied_index);
        if applied_index <= before || applied_index > self.queued {
            return Err(format!(
                "it says that it has applied operation {applied_index}, after {before}, where {} was the last that it was sent",
                self.queued
            ));
        }
        let count = applied_index - before;
        if !results.is_empty() && results.len() as u64 != count {
            return Err(format!(
                "it has applied {count} operations, up to {applied_index}, and answers {} results",
                results.len()
            ));
        }
        Ok((before + 1..=applied_index).zip(results).collect())
    }
}

fn operations(operations: Vec<AppliedOperation>) -> ApplyRequest {
    let message = apply_request::Message::Operations(ApplyOperations { operations });
    ApplyRequest {
        message: Some(message),
    }
}

fn applied(operation: Operation) -> AppliedOperation {
    let Operation {
        index, term, data, ..
    } = operation;
    AppliedOperation { index, term, data }
}

type Opened = (
    StateMachineClient<Channel>,
    mpsc::Sender<ApplyRequest>,
    Streaming<ApplyResponse>,
    ApplyPosition,
);

async fn open(url: &str, node: NodeNumber, cluster: ClusterId) -> Result<Opened, Failure> {
    let mut client = connect(url).await?;
    let (requests, outgoing) = mpsc::channel(MESSAGES_MAX);
    let hello = apply_request::Message::Hello(ApplyHello {
        protocol_version: PROTOCOL_VERSION,
        cluster_id: cluster.get(),
        node,
    });
    let hello = ApplyRequest { message: Some(hello) };
    // There is room, and the other end is here.
    let _ = requests.try_send(hello);
    let greeting = async {
        let mut responses = client.apply(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = responses.message().await?;
        Ok::<_, Status>((responses, first))
    };
    let (responses, first) = match timeout(PATIENCE, greeting).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(status)) => return Err(Failure::status(&status)),
        Err(_) => {
            return Err(Failure::of(format!(
                "no answer to Apply's hello within {PATIENCE:?}"
            )));
        }
    };
    match first.and_then(|first| first.message) {
        Some(apply_response::Message::Position(position)) => {
            check(&position)?;
            Ok((client, requests, responses, position))
        }
        Some(apply_response::Message::Failed(ApplyFailed { index, message })) => Err(Failure {
            index,
            message: first_line(&message),
        }),
        _ => Err(Failure::of("its first answer on Apply is not its position")),
    }
}

fn check(position: &ApplyPosition) -> Result<(), Failure> {
    let version = position.protocol_version;
    if version != PROTOCOL_VERSION {
        return Err(Failure::of(format!(
            "it speaks version {version} of the service StateMachine, and this replicator {PROTOCOL_VERSION}"
        )));
    }
    if position.applied_index > 0 && position.cluster_id == 0 {
        return Err(Failure::of(format!(
            "it has operations up to {} in its state and does not say of which cluster: it has to store the hello's cluster_id \
             with them",
            position.applied_index
        )));
    }
    Ok(())
}

/// What users' programs say goes into lines and statuses.
pub(super) fn first_line(message: &str) -> String {
    const CHARS_MAX: usize = 500;
    let line = message.lines().next().unwrap_or_default();
    line.chars()
        .filter(|it| !it.is_control())
        .take(CHARS_MAX)
        .collect()
}

/// A restore may be ordered while the state machine does not answer; nothing else is of use then.
async fn something_else(to: &mut mpsc::Receiver<ToMachine>) -> Next {
    loop {
        match to.recv().await {
            None => return Next::Stop,
            Some(ToMachine::RestoreBegin(restore)) => return Next::Restore(restore),
            Some(ToMachine::Reattach) => return Next::Apply,
            Some(
                ToMachine::Refuse(_)
                | ToMachine::Copy
                | ToMachine::RestorePiece(_)
                | ToMachine::RestoreAbort(_),
            ) => {}
        }
    }
}

/// Until there will be no more.
async fn refuse_all(queries: &mut mpsc::Receiver<Query>) {
    while let Some(query) = queries.recv().await {
        not_there(query);
    }
}

/// The answer is of a state with all that was executed when it was asked, or of a later one.
async fn ask(mut client: StateMachineClient<Channel>, query: Query) {
    let Query {
        executed,
        text,
        asker,
    } = query;
    let asking = client.query(StateMachineQueryRequest { query: text });
    let result = match timeout(QUERY_MAX, asking).await {
        // A program that was started again since has not got so far yet.
        Ok(Ok(response)) if response.get_ref().applied_index < executed.index => Err(Refused::Busy(format!(
            "the state machine answers from operation {}, after it had applied {}: ask again later",
            response.get_ref().applied_index,
            executed.index
        ))),
        Ok(Ok(response)) => match response.into_inner().result {
            result if result.len() <= RESULT_BYTES_MAX => Ok(result),
            result => Err(Refused::TooLong(format!(
                "the result has {} bytes, and may have {RESULT_BYTES_MAX}",
                result.len()
            ))),
        },
        Ok(Err(status)) => Err(refused(&status)),
        Err(_) => Err(Refused::Busy(format!(
            "the state machine did not answer within {QUERY_MAX:?}"
        ))),
    };
    asker.answer(Answer { executed, result });
}

fn refused(status: &Status) -> Refused {
    let message = first_line(status.message());
    match status.code() {
        Code::InvalidArgument => Refused::Invalid(message),
        Code::OutOfRange | Code::NotFound => Refused::OutOfRange(message),
        code => Refused::Busy(format!("the state machine answers {code}: {message}")),
    }
}
