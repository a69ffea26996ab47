//! A command per operation, which has it on stdin.

use std::fmt;

use raftlog_proto::RESULT_BYTES_MAX;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::answer::End;
use super::guarded::{Guarded, Output};
use super::{CommandLine, answer, environment, output};
use crate::runtime::executor::calling::{Call, Endpoint, Failed, Outcome};

/// One command at a time.
pub(in crate::runtime) struct PerOperation {
    command: CommandLine,
    running: Option<Guarded>,
    /// Being killed: whoever was waiting for that may have been told to wait no more.
    ending: Option<JoinHandle<Option<End>>>,
}

impl PerOperation {
    pub(in crate::runtime) fn new(command: CommandLine) -> Self {
        Self {
            command,
            running: None,
            ending: None,
        }
    }
}

impl fmt::Display for PerOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command {}", self.command)
    }
}

impl Endpoint for PerOperation {
    async fn attempt(&mut self, call: &Call<'_>) -> Outcome {
        let operation = call.operation;
        let mut environment = environment(call);
        environment.extend([
            ("RAFTLOG_INDEX", operation.index.to_string()),
            ("RAFTLOG_TERM", operation.term.to_string()),
            ("RAFTLOG_IDEMPOTENCY_KEY", call.key()),
        ]);
        environment.extend(
            call.leader_term
                .map(|term| ("RAFTLOG_LEADER_TERM", term.to_string())),
        );
        let started = Guarded::start(&self.command, Some(operation.data.len()), environment);
        let (running, Output { stdout, stderr }) =
            started.map_err(|error| Failed::unreached(format!("it cannot be started: {error}")))?;
        let running = self.running.insert(running);
        let (stdin, mut ending) = running.parts();
        let mut complaint = String::new();
        let running = async {
            // A command that does not read its input does not have to.
            let writing = stdin.write_all(&operation.data);
            let stdout = output::beginning(stdout, RESULT_BYTES_MAX);
            let stderr = output::each_line(stderr, |line| complaint = line);
            tokio::join!(ending.wait(), stdout, stderr, writing)
        };
        let ran = timeout(call.timeout, running).await;
        let Ok((end, stdout, ..)) = ran else {
            self.end().await;
            let says = if complaint.is_empty() { "" } else { ": " };
            let limit = call.timeout;
            return Err(Failed::later(format!(
                "it is killed, as it has not ended within {limit:?}{says}{complaint}"
            )));
        };
        self.running = None;
        let end = end.map_err(|error| Failed::later(format!("how it ended cannot be told: {error}")))?;
        answer::of_command(end, stdout, &complaint, call.leader_term.is_some())
    }

    async fn end(&mut self) {
        if let Some(running) = self.running.take() {
            self.ending = Some(tokio::spawn(running.end()));
        }
        if let Some(ending) = &mut self.ending {
            // It only fails where this process ends, and then it is killed all the same.
            let _ = ending.await;
            self.ending = None;
        }
    }
}
