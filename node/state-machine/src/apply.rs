//! One Apply stream: what has come while the last batch was applied is the next batch.

use bytes::Bytes;
use raftlog_proto::v1::{
    ApplyFailed, ApplyHello, ApplyOperations, ApplyPosition, ApplyRequest, ApplyResponse, ApplyResults,
    apply_request, apply_response,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::failure::{invalid, stopping};
use crate::worker::{Applied, Call, Worker};
use crate::{Batch, Operation, Position};

/// Of the service `StateMachine`.
const PROTOCOL_VERSION: u32 = 1;
/// Messages that are received while a batch is applied.
const RECEIVED_MAX: usize = 4;
/// Results in one message, in bytes, about.
const RESULTS_BYTES: usize = 1 << 20;
/// What a result takes besides its bytes, about.
const RESULT_FIXED_BYTES: usize = 8;

pub(crate) type Responses = mpsc::Sender<Result<ApplyResponse, Status>>;

/// Until the stream ends, by whichever side.
pub(crate) async fn run(worker: Worker, mut requests: Streaming<ApplyRequest>, responses: Responses) {
    let ended = async {
        let hello = hello(&mut requests).await?;
        let begun = worker.ask(Call::Begin).await.map_err(|_| stopping())?;
        let (stream, position) = begun.map_err(|failed| failed.status())?;
        say(&responses, position_message(position)).await?;
        let position = Position {
            cluster_id: hello.cluster_id,
            ..position
        };
        let session = Session {
            worker,
            stream,
            position,
            responses: responses.clone(),
        };
        session.run(receive(requests)).await
    };
    if let Err(status) = ended.await {
        // The replicator may have left.
        let _ = responses.send(Err(status)).await;
    }
}

async fn hello(requests: &mut Streaming<ApplyRequest>) -> Result<ApplyHello, Status> {
    match requests.message().await?.and_then(|request| request.message) {
        Some(apply_request::Message::Hello(hello)) if hello.protocol_version >= PROTOCOL_VERSION => {
            if hello.cluster_id == 0 {
                return Err(invalid("the hello names no cluster"));
            }
            Ok(hello)
        }
        Some(apply_request::Message::Hello(hello)) => Err(invalid(format!(
            "the replicator speaks version {} of StateMachine, and this program {PROTOCOL_VERSION}",
            hello.protocol_version
        ))),
        _ => Err(invalid("the first message of Apply is a hello")),
    }
}

fn position_message(position: Position) -> apply_response::Message {
    apply_response::Message::Position(ApplyPosition {
        protocol_version: PROTOCOL_VERSION,
        applied_index: position.applied_index,
        cluster_id: position.cluster_id,
    })
}

/// Reads ahead, a little.
fn receive(mut requests: Streaming<ApplyRequest>) -> mpsc::Receiver<Result<ApplyOperations, Status>> {
    let (sender, received) = mpsc::channel(RECEIVED_MAX);
    tokio::spawn(async move {
        loop {
            let operations = match requests.message().await {
                Ok(Some(ApplyRequest {
                    message: Some(apply_request::Message::Operations(operations)),
                })) => Ok(operations),
                Ok(Some(_)) => Err(invalid("operations follow the hello on Apply, and nothing else")),
                // It has left.
                Ok(None) | Err(_) => return,
            };
            let is_end = operations.is_err();
            if sender.send(operations).await.is_err() || is_end {
                return;
            }
        }
    });
    received
}

async fn say(responses: &Responses, message: apply_response::Message) -> Result<(), Status> {
    let response = ApplyResponse {
        message: Some(message),
    };
    let gone = |_| Status::cancelled("the replicator has left");
    responses.send(Ok(response)).await.map_err(gone)
}

struct Session {
    worker: Worker,
    stream: u64,
    /// Where the state is, and of which cluster it is from now on.
    position: Position,
    responses: Responses,
}

impl Session {
    async fn run(
        mut self,
        mut received: mpsc::Receiver<Result<ApplyOperations, Status>>,
    ) -> Result<(), Status> {
        while let Some(operations) = received.recv().await {
            let mut batch = Batch::empty(self.position);
            take(&mut batch, operations?)?;
            while let Ok(more) = received.try_recv() {
                take(&mut batch, more?)?;
            }
            let stream = self.stream;
            let applied = self.worker.ask(|answer| Call::Apply {
                stream,
                batch,
                answer,
            });
            let applied = applied.await.map_err(|_| stopping())?;
            if !self.tell(applied).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether it can go on.
    async fn tell(&mut self, applied: Applied) -> Result<bool, Status> {
        let Applied {
            last,
            results,
            failed,
        } = applied;
        let before = self.position.applied_index;
        let last = last.unwrap_or(before);
        for message in messages(before, last, results) {
            say(&self.responses, apply_response::Message::Results(message)).await?;
        }
        self.position.applied_index = last;
        let Some(failed) = failed else { return Ok(true) };
        let next = last.saturating_add(1);
        let failed = ApplyFailed {
            index: failed.operation().unwrap_or(next),
            message: failed.to_string(),
        };
        say(&self.responses, apply_response::Message::Failed(failed)).await?;
        Ok(false)
    }
}

fn take(batch: &mut Batch, operations: ApplyOperations) -> Result<(), Status> {
    for operation in operations.operations {
        let last = batch.position().applied_index;
        if last.checked_add(1) != Some(operation.index) {
            return Err(invalid(format!(
                "operation {} came where the one after {last} comes next",
                operation.index
            )));
        }
        batch.push(Operation {
            index: operation.index,
            term: operation.term,
            data: operation.data,
        });
    }
    Ok(())
}

/// Results of what was applied behind one operation and up to another, in messages of a bounded size.
fn messages(before: u64, applied_index: u64, results: Vec<Vec<u8>>) -> Vec<ApplyResults> {
    if applied_index <= before {
        return Vec::new();
    }
    if results.is_empty() {
        let results = Vec::new();
        return vec![ApplyResults {
            applied_index,
            results,
        }];
    }
    let (mut messages, mut message, mut bytes) = (Vec::new(), ApplyResults::default(), 0);
    for (index, result) in (before + 1..).zip(results) {
        bytes += result.len() + RESULT_FIXED_BYTES;
        if bytes > RESULTS_BYTES && !message.results.is_empty() {
            messages.push(std::mem::take(&mut message));
            bytes = result.len() + RESULT_FIXED_BYTES;
        }
        message.applied_index = index;
        message.results.push(Bytes::from(result));
    }
    messages.push(message);
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_go_in_messages_of_a_bounded_size() {
        let told = |before, applied, results| {
            let messages = messages(before, applied, results);
            let told = messages.iter().map(|it| (it.applied_index, it.results.len()));
            told.collect::<Vec<_>>()
        };
        assert_eq!(told(4, 4, vec![]), []);
        assert_eq!(told(4, 9, vec![]), [(9, 0)]);
        assert_eq!(told(4, 6, vec![vec![1], vec![2]]), [(6, 2)]);
        let long = vec![0; RESULTS_BYTES / 2];
        assert_eq!(
            told(4, 7, vec![long.clone(), long.clone(), long]),
            [(5, 1), (6, 1), (7, 1)]
        );
        assert_eq!(told(0, 1, vec![vec![0; 2 * RESULTS_BYTES]]), [(1, 1)]);
    }

    #[test]
    fn what_does_not_follow_is_refused() {
        let operations = |indexes: &[u64]| ApplyOperations {
            operations: indexes
                .iter()
                .map(|&index| raftlog_proto::v1::AppliedOperation {
                    index,
                    term: 1,
                    data: Bytes::new(),
                })
                .collect(),
        };
        for (indexes, follows) in [
            (&[5, 6][..], true),
            (&[6], false),
            (&[4], false),
            (&[5, 7], false),
            (&[5, 5], false),
            (&[0], false),
        ] {
            let mut batch = Batch::empty(Position {
                applied_index: 4,
                cluster_id: 1,
            });
            assert_eq!(
                take(&mut batch, operations(indexes)).is_ok(),
                follows,
                "{indexes:?}"
            );
        }
    }
}
