//! One process for all operations: each is a line of JSON on its stdin, and it answers with a line on stdout, before it is given the
//! next one. A process that dies, takes too long or answers something else is started again, with the operation that has no answer.

use std::fmt;
use std::future::ready;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::ChildStdout;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::guarded::{Guarded, Output};
use super::output::{self, Line};
use super::{CommandLine, answer, environment};
use crate::runtime::executor::calling::{Call, Endpoint, Failed, Outcome};

/// A result of the longest kind has room, and a lot beside it.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What has ended wrote what it had to say before; what it left running may hold its output open for ever.
const COMPLAINT_WAIT: Duration = Duration::from_secs(1);

/// One process at a time.
pub(in crate::runtime) struct ByLines {
    command: CommandLine,
    running: Option<Running>,
    /// Being killed, which tells what was wrong with it: whoever was waiting for that may have been told to wait no more.
    ending: Option<JoinHandle<String>>,
}

struct Running {
    guarded: Guarded,
    stdout: BufReader<ChildStdout>,
    /// The last line that it wrote on stderr, once it has ended.
    complaint: JoinHandle<String>,
}

/// What is wrong with a process.
enum Wrong {
    Ended,
    /// It is to be killed.
    Other(String),
}

/// An operation, as the process is given it.
#[derive(Debug, Serialize)]
struct OperationLine<'a> {
    index: u64,
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader_term: Option<u64>,
    key: &'a str,
    operation: String,
}

impl ByLines {
    pub(in crate::runtime) fn new(command: CommandLine) -> Self {
        Self {
            command,
            running: None,
            ending: None,
        }
    }

    /// The process, which is started where there is none.
    async fn running(&mut self, call: &Call<'_>) -> io::Result<&mut Running> {
        // One that ended while there was nothing to do has failed at nothing.
        if self.running.as_mut().is_some_and(|it| it.guarded.has_ended()) {
            self.end().await;
        }
        match &mut self.running {
            Some(running) => Ok(running),
            none => Ok(none.insert(Running::start(&self.command, call)?)),
        }
    }

    /// Waits until what is being killed is gone, and says why it was.
    async fn ended(&mut self) -> String {
        let Some(ending) = &mut self.ending else {
            return String::new();
        };
        // It only fails where this process ends, and then it is killed all the same.
        let why = ending.await.unwrap_or_default();
        self.ending = None;
        why
    }
}

impl Running {
    fn start(command: &CommandLine, call: &Call<'_>) -> io::Result<Self> {
        let (guarded, Output { stdout, stderr }) = Guarded::start(command, None, environment(call))?;
        let complaint = async {
            let mut last = String::new();
            output::each_line(stderr, |line| last = line).await;
            last
        };
        Ok(Self {
            guarded,
            stdout: BufReader::new(stdout),
            complaint: tokio::spawn(complaint),
        })
    }

    /// The answer to a line.
    async fn ask(&mut self, line: &[u8], call: &Call<'_>) -> Result<Outcome, Wrong> {
        // It may have answered what it was not asked yet; what is there already is found, before it is taken for an answer to this.
        let has_said_more = tokio::select! {
            biased;
            early = self.stdout.fill_buf() => early.is_ok_and(|early| !early.is_empty()),
            () = ready(()) => false,
        };
        if has_said_more {
            return Err(Wrong::Other(
                "it is killed, as it answers more than it was asked".to_owned(),
            ));
        }
        let (stdin, mut ending) = self.guarded.parts();
        let asking = async {
            // One that does not read it has ended, or does not answer.
            let writing = stdin.write_all(line);
            let answer = output::next_line(&mut self.stdout, ANSWER_BYTES_MAX);
            tokio::join!(writing, answer)
        };
        let limit = call.timeout;
        let answered = tokio::select! {
            // What it said before it ended counts.
            biased;
            answered = timeout(limit, asking) => answered,
            // What it has left running may hold its output open.
            _ = ending.wait() => return Err(Wrong::Ended),
        };
        let Ok((_, answer)) = answered else {
            return Err(Wrong::Other(format!(
                "it is killed, as it has not answered within {limit:?}"
            )));
        };
        match answer {
            None => Err(Wrong::Ended),
            Some(Line::Cut(_)) => Err(Wrong::Other(format!(
                "its answer is longer than {ANSWER_BYTES_MAX} bytes"
            ))),
            Some(Line::Whole(answer)) => {
                answer::of_line(&answer, call.operation.index, call.leader_term.is_some())
                    .map_err(Wrong::Other)
            }
        }
    }

    /// Ends it for what is wrong with it, which this tells.
    async fn end_for(mut self, wrong: Wrong) -> String {
        let end = self.guarded.end().await;
        let complaint = if let Ok(complaint) = timeout(COMPLAINT_WAIT, &mut self.complaint).await {
            complaint.unwrap_or_default()
        } else {
            self.complaint.abort();
            String::new()
        };
        let what = match (wrong, end) {
            (Wrong::Other(what), _) => what,
            (Wrong::Ended, Some(end)) => format!("it ended without an answer, by {end}"),
            (Wrong::Ended, None) => "it ended without an answer".to_owned(),
        };
        let says = if complaint.is_empty() { "" } else { ": " };
        format!("{what}{says}{complaint}")
    }
}

impl fmt::Display for ByLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the process {}", self.command)
    }
}

impl Endpoint for ByLines {
    async fn attempt(&mut self, call: &Call<'_>) -> Outcome {
        let line = line(call).map_err(|error| Failed::later(error.to_string()))?;
        let running = self.running(call).await;
        let running = running.map_err(|error| Failed::unreached(format!("it cannot be started: {error}")))?;
        match running.ask(&line, call).await {
            Ok(outcome) => outcome,
            Err(wrong) => {
                self.ending = self
                    .running
                    .take()
                    .map(|running| tokio::spawn(running.end_for(wrong)));
                Err(Failed::later(self.ended().await))
            }
        }
    }

    async fn end(&mut self) {
        if let Some(running) = self.running.take() {
            // Nobody asks what was wrong with it: its output is not waited for.
            self.ending = Some(tokio::spawn(async move {
                running.guarded.end().await;
                String::new()
            }));
        }
        self.ended().await;
    }
}

fn line(call: &Call<'_>) -> serde_json::Result<Vec<u8>> {
    let operation = call.operation;
    let mut line = serde_json::to_vec(&OperationLine {
        index: operation.index,
        term: operation.term,
        leader_term: call.leader_term,
        key: &call.key(),
        operation: STANDARD.encode(&operation.data),
    })?;
    line.push(b'\n');
    Ok(line)
}
