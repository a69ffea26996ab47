//! Operations from standard input: a line each, pipelined in order through one stream.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fs::File,
    io::{BufReader, stdin},
    os::fd::AsFd as _,
    thread,
    time::Instant,
};

use indicatif::{ProgressBar, ProgressStyle};
use raftlog_client::{Answered, Client, Error, OperationReceiver, OperationSender};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    failed_after,
    lines::{Line, Lines},
};
use crate::{
    failure::Failure,
    output::{Format, Output},
    text,
};

/// Lines that were read and wait to be sent.
const QUEUE: usize = 256;

/// What the reading thread says.
enum Read {
    Line(Line),
    /// Standard input ended after so many empty lines.
    End {
        empty_lines: u64,
    },
    Failed(String),
}

/// What became of the lines so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Line number and bytes of each operation that has no answer yet.
    unanswered: VecDeque<(u64, u64)>,
    operations: u64,
    /// Of the last operation that is committed.
    last_line: u64,
    /// First and last index of each run of consecutive indexes: the first run, the last, and how many.
    first_index: u64,
    last_index: u64,
    runs: u64,
    empty_lines: u64,
}

impl Tally {
    /// Takes in answers; gives the bytes of the lines that they are for.
    fn answered(&mut self, answered: &Answered) -> u64 {
        let mut bytes = 0;
        for _ in 0..answered.count {
            if let Some((line, length)) = self.unanswered.pop_front() {
                self.last_line = line;
                bytes += length;
            }
        }
        if self.runs == 0 || answered.first_index != self.last_index.saturating_add(1) {
            self.runs += 1;
        }
        if self.operations == 0 {
            self.first_index = answered.first_index;
        }
        self.operations += answered.count;
        self.last_index = answered.first_index.saturating_add(answered.count - 1);
        bytes
    }
}

#[derive(Debug, Serialize, PartialEq)]
struct Summary {
    operations: u64,
    empty_lines: u64,
    first_index: Option<u64>,
    last_index: Option<u64>,
    /// Runs of consecutive indexes: more than one if others submitted in between.
    runs: u64,
    seconds: f64,
    operations_per_second: f64,
}

/// Submits the lines of standard input.
pub(super) async fn run(client: &Client, format: Format) -> Result<(), Failure> {
    let session = client.open_session().await?;
    let (sender, receiver) = session.into_stream();
    let bar = progress_bar();
    let tally = RefCell::new(Tally::default());
    let started = Instant::now();
    let ended = pump(read_stdin()?, sender, receiver, &tally, &bar).await;
    bar.finish_and_clear();
    let tally = tally.into_inner();
    if let Err(error) = ended {
        return Err(failed_after(
            &error,
            tally.operations,
            &format!("line {}", tally.last_line),
        ));
    }
    let summary = summary(&tally, started.elapsed().as_secs_f64());
    let printed = Output::stdout().whole(
        format,
        &summary,
        || render(&summary),
        || summary.operations.to_string(),
    );
    let committed = text::count(summary.operations, "operation");
    printed.map_err(|failure| failure.adding(&format!("{committed} are committed, all that were read")))
}

/// Sends lines and receives answers, both at once, until all are answered or something fails.
async fn pump(
    mut lines: mpsc::Receiver<Read>,
    sender: OperationSender,
    mut receiver: OperationReceiver,
    tally: &RefCell<Tally>,
    bar: &ProgressBar,
) -> Result<(), Error> {
    let sending = async {
        let ended = send(&mut lines, &sender, tally).await;
        drop(sender);
        ended
    };
    let receiving = async {
        while let Some(answered) = receiver.next().await {
            let bytes = tally.borrow_mut().answered(&answered?);
            bar.inc(bytes);
            bar.set_message(text::count(tally.borrow().operations, "operation"));
        }
        Ok(())
    };
    tokio::pin!(sending, receiving);
    tokio::select! {
        // Before the sender is gone only an error ends the answers.
        answered = &mut receiving => answered,
        sent = &mut sending => receiving.await.and(sent),
    }
}

/// Sends lines until there are no more. What was sent before a bad one is still answered.
async fn send(
    lines: &mut mpsc::Receiver<Read>,
    sender: &OperationSender,
    tally: &RefCell<Tally>,
) -> Result<(), Error> {
    while let Some(read) = lines.recv().await {
        match read {
            Read::Line(Line { number, operation }) => {
                let bytes = u64::try_from(operation.len())
                    .unwrap_or(u64::MAX)
                    .saturating_add(1);
                tally.borrow_mut().unanswered.push_back((number, bytes));
                if !sender.send(operation).await? {
                    return Ok(());
                }
            }
            Read::End { empty_lines } => tally.borrow_mut().empty_lines = empty_lines,
            Read::Failed(message) => return Err(Error::Invalid(message)),
        }
    }
    Ok(())
}

/// Reads on a thread of its own, as reading standard input blocks.
fn read_stdin() -> Result<mpsc::Receiver<Read>, Failure> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let read = move || {
        let mut lines = Lines::new(BufReader::with_capacity(256 << 10, stdin()));
        loop {
            let (read, more) = match lines.next() {
                Ok(Some(line)) => (Read::Line(line), true),
                Ok(None) => (
                    Read::End {
                        empty_lines: lines.empty(),
                    },
                    false,
                ),
                Err(message) => (Read::Failed(message), false),
            };
            if sender.blocking_send(read).is_err() || !more {
                return;
            }
        }
    };
    let started = thread::Builder::new().name("stdin".to_owned()).spawn(read);
    started
        .map(|_| receiver)
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}; see ulimit -u")))
}

/// On stderr, and only if that is a terminal; with an end where standard input is a file.
fn progress_bar() -> ProgressBar {
    let length = stdin()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|fd| File::from(fd).metadata());
    let length = length
        .ok()
        .filter(std::fs::Metadata::is_file)
        .map(|file| file.len());
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:40} {percent}%  {msg}, {elapsed}"),
        None => (ProgressBar::no_length(), "{spinner} {msg}, {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn summary(tally: &Tally, seconds: f64) -> Summary {
    let index = |index| (tally.operations > 0).then_some(index);
    Summary {
        operations: tally.operations,
        empty_lines: tally.empty_lines,
        first_index: index(tally.first_index),
        last_index: index(tally.last_index),
        runs: tally.runs,
        seconds,
        operations_per_second: rate(tally.operations, seconds),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people needs no more than 53 bits"
)]
fn rate(operations: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        operations as f64 / seconds
    } else {
        0.0
    }
}

fn render(summary: &Summary) -> String {
    let runs = if summary.runs > 1 {
        format!(" in {} runs", summary.runs)
    } else {
        String::new()
    };
    let indexes = match (summary.first_index, summary.last_index) {
        (Some(first), Some(last)) => format!(" at index {first}..{last}{runs}"),
        _ => String::new(),
    };
    format!(
        "{} committed{indexes}, {} skipped, {:.3} s, {:.0} operations/s",
        text::count(summary.operations, "operation"),
        text::count(summary.empty_lines, "empty line"),
        summary.seconds,
        summary.operations_per_second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(first_index: u64, count: u64) -> Answered {
        Answered {
            first_sequence: 1,
            first_index,
            count,
        }
    }

    #[test]
    fn answers_are_tallied() {
        let mut tally = Tally {
            unanswered: VecDeque::from([(1, 10), (2, 20), (4, 30)]),
            ..Tally::default()
        };
        assert_eq!(tally.answered(&answered(7, 2)), 30);
        assert_eq!(
            (
                tally.operations,
                tally.last_line,
                tally.first_index,
                tally.last_index,
                tally.runs
            ),
            (2, 2, 7, 8, 1)
        );
        assert_eq!(tally.answered(&answered(9, 1)), 30);
        assert_eq!(
            (tally.operations, tally.last_line, tally.last_index, tally.runs),
            (3, 4, 9, 1)
        );
        assert!(tally.unanswered.is_empty());
        tally.unanswered.push_back((5, 1));
        tally.answered(&answered(20, 1));
        assert_eq!((tally.first_index, tally.last_index, tally.runs), (7, 20, 2));
    }

    #[test]
    fn summaries() {
        let tally = Tally {
            operations: 1000,
            empty_lines: 1,
            first_index: 5,
            last_index: 1004,
            runs: 1,
            ..Tally::default()
        };
        assert_eq!(
            render(&summary(&tally, 0.5)),
            "1000 operations committed at index 5..1004, 1 empty line skipped, 0.500 s, 2000 operations/s"
        );
        let nothing = summary(
            &Tally {
                empty_lines: 2,
                ..Tally::default()
            },
            0.0,
        );
        assert_eq!((nothing.first_index, nothing.operations_per_second), (None, 0.0));
        assert_eq!(
            render(&nothing),
            "0 operations committed, 2 empty lines skipped, 0.000 s, 0 operations/s"
        );
    }
}
