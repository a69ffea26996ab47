//! An ordered, pipelined stream of operations under one session, over as many connections as it takes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use raftlog_proto::v1::{SubmitStreamHeader, SubmitStreamRequest, SubmitStreamResponse, WaitFor};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    client::{Call, Client, Failed, Stake, check_operation, operations},
    endpoint::Endpoint,
    error::{Class, Error},
    retry::{Attempts, Failure, Step},
    session::SEQUENCES_MAX,
    window::{Answered, Window},
};

/// The most bytes of operations without an answer; one more may always go, however large.
const WINDOW_BYTES: usize = 8 << 20;

/// How many operations wait between the caller and the window.
const INPUT_QUEUE: usize = 256;

/// How many answers wait for the caller.
const ANSWER_QUEUE: usize = 256;

/// How many messages wait between the window and the connection.
const MESSAGE_QUEUE: usize = 4;

/// The sending half of a stream. Dropping it ends the stream once everything is answered.
#[derive(Clone, Debug)]
pub struct OperationSender {
    operations: mpsc::Sender<Bytes>,
}

impl OperationSender {
    /// Hands over the next operation; waits while too much is unanswered. False once the stream has failed: the receiver
    /// says why. An operation of a length that is not allowed is refused here and leaves the stream as it is.
    pub async fn send(&self, operation: impl Into<Bytes>) -> Result<bool, Error> {
        let operation = operation.into();
        check_operation(&operation)?;
        Ok(self.operations.send(operation).await.is_ok())
    }
}

/// The receiving half of a stream. Dropping it gives the stream up.
#[derive(Debug)]
pub struct OperationReceiver {
    answers: mpsc::Receiver<Result<Answered, Error>>,
}

impl OperationReceiver {
    /// The next answers, in the order of sending; `None` when everything is answered and the sender is gone. After an
    /// error, which concerns every operation that has no answer yet, nothing follows.
    pub async fn next(&mut self) -> Option<Result<Answered, Error>> {
        self.answers.recv().await
    }
}

/// Opens a stream under a session whose next sequence is `first_sequence`.
pub(crate) fn open(
    client: Client,
    client_id: String,
    first_sequence: u64,
) -> (OperationSender, OperationReceiver) {
    let (operations, input) = mpsc::channel(INPUT_QUEUE);
    let (output, answers) = mpsc::channel(ANSWER_QUEUE);
    let window = Window::new(
        first_sequence,
        usize::try_from(SEQUENCES_MAX).unwrap_or(1),
        WINDOW_BYTES,
    );
    let attempts = Attempts::new(client.options().backoff, client.endpoints().len(), true, true);
    let driver = Driver {
        client,
        client_id,
        input,
        input_open: true,
        output,
        window,
        attempts,
        progress: Instant::now(),
    };
    tokio::spawn(driver.run());
    (OperationSender { operations }, OperationReceiver { answers })
}

/// Moves operations from the caller through the window to a node, and answers back.
struct Driver {
    client: Client,
    client_id: String,
    input: mpsc::Receiver<Bytes>,
    input_open: bool,
    output: mpsc::Sender<Result<Answered, Error>>,
    window: Window,
    attempts: Attempts,
    /// When there was last an answer, or nothing to wait for.
    progress: Instant,
}

/// How one connection ended.
enum Ended {
    /// Everything is answered and nothing more will come, or nobody wants the answers.
    Done,
    /// What has no answer has to be sent again.
    Broken(Failed),
}

impl Driver {
    async fn run(mut self) {
        loop {
            if self.window.is_empty() && !self.wait_for_input().await {
                return;
            }
            let target = self.client.target();
            let Ended::Broken(failed) = self.connection(&target).await else {
                return;
            };
            self.window.broken();
            self.client.targets().failed(&target);
            match self
                .attempts
                .failed(failed.failure, self.remaining(), rand::random())
            {
                Step::Again(delay) => tokio::time::sleep(delay).await,
                Step::Stop(verdict) => {
                    let error = self.call().give_up(verdict, &target, failed);
                    let _ = self.output.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    fn call(&self) -> Call {
        let timeout = self.client.options().timeout;
        Call {
            what: "submit the operations that have no answer yet",
            timeout,
            stake: Stake::Log,
            repeatable: true,
        }
    }

    /// What is left of the patience since there was last any progress.
    fn remaining(&self) -> Duration {
        self.client
            .options()
            .timeout
            .saturating_sub(self.progress.elapsed())
    }

    /// Waits for the first operation of an empty window. False: none will come.
    async fn wait_for_input(&mut self) -> bool {
        let operation = tokio::select! {
            operation = self.input.recv(), if self.input_open => operation,
            () = self.output.closed() => None,
        };
        self.progressed();
        operation.map(|operation| self.window.push(operation)).is_some()
    }

    fn progressed(&mut self) {
        self.progress = Instant::now();
        self.attempts.progressed();
    }

    /// Sends and receives over one connection until it ends.
    async fn connection(&mut self, target: &Endpoint) -> Ended {
        let channel = match self.client.connect(target, self.remaining()).await {
            Ok(channel) => channel,
            Err(failed) => return Ended::Broken(failed),
        };
        let (messages, queue) = mpsc::channel(MESSAGE_QUEUE);
        let mut messages = Some(messages);
        if let Some(messages) = &messages {
            // The queue is empty yet, so there is a place for the first message.
            let _ = messages.try_send(self.first_message());
        }
        let mut client = operations(channel);
        let opening = client.submit_stream(ReceiverStream::new(queue));
        let mut answers = match tokio::time::timeout(self.remaining(), opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Ended::Broken(self.client.note(target, &status)),
            Err(_) => return Ended::Broken(Failed::unanswered()),
        };
        loop {
            self.fill_window();
            if !self.input_open && !self.window.has_unsent() {
                messages = None;
            }
            match self.step(messages.as_ref(), &mut answers).await {
                Happening::Input(Some(operation)) => self.window.push(operation),
                Happening::Input(None) => self.input_open = false,
                Happening::Sent => {}
                Happening::NoRoom => messages = None,
                Happening::Answer(Ok(Some(response))) => match self.answered(response, target).await {
                    Ok(true) => {}
                    Ok(false) => return Ended::Done,
                    Err(message) => return Ended::Broken(protocol_error(message)),
                },
                Happening::Answer(Ok(None)) if self.window.is_empty() && !self.input_open => {
                    return Ended::Done;
                }
                Happening::Answer(Ok(None)) => {
                    return Ended::Broken(protocol_error("the node ended the stream early".to_owned()));
                }
                Happening::Answer(Err(status)) => return Ended::Broken(self.client.note(target, &status)),
                Happening::Unwanted => return Ended::Done,
                Happening::OutOfPatience => return Ended::Broken(Failed::unanswered()),
            }
        }
    }

    /// Waits for the next thing to happen.
    async fn step(
        &mut self,
        messages: Option<&mpsc::Sender<SubmitStreamRequest>>,
        answers: &mut Streaming<SubmitStreamResponse>,
    ) -> Happening {
        let patience = self.remaining();
        let room = async {
            match messages {
                Some(messages) => messages.reserve().await.ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = answers.message() => Happening::Answer(answer),
            permit = room, if self.window.has_unsent() => match permit {
                Some(permit) => {
                    permit.send(self.message());
                    Happening::Sent
                }
                None => Happening::NoRoom,
            },
            operation = self.input.recv(), if self.input_open && self.window.has_room() => Happening::Input(operation),
            () = self.output.closed() => Happening::Unwanted,
            () = tokio::time::sleep(patience), if !self.window.is_empty() => Happening::OutOfPatience,
        }
    }

    /// Takes whatever is waiting, so that messages get full.
    fn fill_window(&mut self) {
        while self.window.has_room() {
            let was_empty = self.window.is_empty();
            let Ok(operation) = self.input.try_recv() else {
                return;
            };
            if was_empty {
                self.progressed();
            }
            self.window.push(operation);
        }
    }

    fn first_message(&mut self) -> SubmitStreamRequest {
        let header = SubmitStreamHeader {
            client_id: self.client_id.clone(),
            first_sequence: self.window.first_sequence(),
            wait_for: WaitFor::Committed.into(),
        };
        SubmitStreamRequest {
            header: Some(header),
            ..self.message()
        }
    }

    fn message(&mut self) -> SubmitStreamRequest {
        SubmitStreamRequest {
            header: None,
            operations: self.window.next_message(),
            acknowledged_through: self.window.first_sequence().saturating_sub(1),
        }
    }

    /// Hands answers to the caller. False: nobody wants them. The error says what is wrong with them.
    async fn answered(&mut self, response: SubmitStreamResponse, target: &Endpoint) -> Result<bool, String> {
        for run in response.runs {
            let answered = self.window.answered(run)?;
            self.progressed();
            if self.output.send(Ok(answered)).await.is_err() {
                return Ok(false);
            }
            // A slow caller is not a slow cluster.
            self.progressed();
        }
        self.client.consider_leader(target, &response.leader_address);
        Ok(true)
    }
}

/// What a stream's driver waits for.
enum Happening {
    Input(Option<Bytes>),
    Sent,
    /// The connection takes no more messages; its answers tell why.
    NoRoom,
    Answer(Result<Option<SubmitStreamResponse>, Status>),
    Unwanted,
    OutOfPatience,
}

fn protocol_error(message: String) -> Failed {
    Failed {
        failure: Failure::Answered(Class::Unknown { repeat: true }),
        reason: String::new(),
        message,
    }
}
