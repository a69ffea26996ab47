//! The `log` executor: a line on stdout for each operation, never dropped.

use std::ops::RangeInclusive;
use std::time::SystemTime;

use raftlog_proto::v1::{ExecutorFailure, ExecutorStatus};
use raftlog_raft::ids::{NodeNumber, OperationIndex, Term};
use raftlog_telemetry::lines::{Lines, Problem};
use raftlog_telemetry::logging::LogFormat;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Level;

use super::Run;
use crate::core::Operation;
use crate::runtime::story::ExecutesLine;

/// Lines handed over at once, in bytes; a longer one goes alone.
const CHUNK_BYTES: usize = 64 << 10;

/// Prints what it is handed, in order.
pub(super) struct LogExecutor {
    pub(super) node: NodeNumber,
    pub(super) format: LogFormat,
    pub(super) lines: Lines,
    pub(super) status: watch::Sender<ExecutorStatus>,
}

impl LogExecutor {
    /// Runs until `runs` ends. `executed` follows what has left the process, so that what counts as executed outlives a
    /// kill. A reader of stdout who is slow slows this down, and nothing else: the core bounds what it hands out.
    pub(super) async fn run(self, mut runs: mpsc::Receiver<Run>, executed: watch::Sender<OperationIndex>) {
        while let Some(run) = runs.recv().await {
            // Small runs that queued up meanwhile are printed together.
            let mut given = vec![run];
            while let Ok(more) = runs.try_recv() {
                given.push(more);
            }
            self.print_all(&given, &executed).await;
        }
    }

    /// What was taken back meanwhile is not printed.
    async fn print_all(&self, given: &[Run], executed: &watch::Sender<OperationIndex>) {
        let (mut chunk, mut first, mut last) = (String::new(), None, None);
        for run in given {
            for operation in &run.operations {
                if run.revoked().is_cancelled() {
                    return;
                }
                self.render(operation, run.leader_term, &mut chunk);
                let from = *first.get_or_insert(operation.index);
                last = Some(operation.index);
                if chunk.len() >= CHUNK_BYTES {
                    self.print(std::mem::take(&mut chunk), from..=operation.index, executed)
                        .await;
                    first = None;
                }
            }
        }
        if let (Some(first), Some(last)) = (first, last) {
            self.print(chunk, first..=last, executed).await;
        }
    }

    fn render(&self, operation: &Operation, leader_term: Option<Term>, chunk: &mut String) {
        let line = ExecutesLine {
            node: self.node,
            operation,
        }
        .to_string();
        let fields = match self.format {
            LogFormat::Plain => Map::new(),
            LogFormat::Json => fields(self.node, operation, leader_term),
        };
        if !chunk.is_empty() {
            chunk.push('\n');
        }
        chunk.push_str(&self.format.render(SystemTime::now(), Level::INFO, &line, &fields));
    }

    /// Waits until the lines have left the process: so there is never more than one chunk in the queue for stdout, and
    /// there is room for other lines beside it.
    async fn print(
        &self,
        chunk: String,
        operations: RangeInclusive<OperationIndex>,
        executed: &watch::Sender<OperationIndex>,
    ) {
        let (written, mut left) = oneshot::channel();
        let mut problem = self.lines.problem();
        self.lines.line(chunk).await;
        let tell = move || {
            // Nobody waits for it only where this task was dropped.
            let _ = written.send(());
        };
        self.lines.once_written(tell).await;
        let was_written = loop {
            tokio::select! {
                written = &mut left => break written.is_ok(),
                Ok(()) = problem.changed() => {
                    let problem = problem.borrow_and_update().clone();
                    self.tell(problem, *operations.start());
                }
            }
        };
        if was_written {
            self.tell(None, 0);
            executed.send_replace(*operations.end());
        }
    }

    /// What holds it up, if something does, and at which operation.
    fn tell(&self, problem: Option<Problem>, index: OperationIndex) {
        let failure = problem.map(|Problem { why, attempts }| ExecutorFailure {
            index,
            message: why,
            attempts,
        });
        self.status
            .send_if_modified(|status| std::mem::replace(&mut status.failure, failure.clone()) != failure);
    }
}

fn fields(node: NodeNumber, operation: &Operation, leader_term: Option<Term>) -> Map<String, Value> {
    let mut fields = Map::from_iter([
        ("node".to_owned(), node.into()),
        ("index".to_owned(), operation.index.into()),
        ("term".to_owned(), operation.term.into()),
    ]);
    fields.extend(leader_term.map(|term| ("leader_term".to_owned(), term.into())));
    fields
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;

    use super::super::Given;
    use super::*;
    use crate::core;

    /// Stdout, which nobody reads until the sender is dropped.
    struct Reader {
        reads: Receiver<()>,
        seen: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.reads.recv();
            self.seen.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn executor(format: LogFormat, writer: impl Write + Send + 'static) -> LogExecutor {
        LogExecutor {
            node: 2,
            format,
            lines: Lines::to(writer).unwrap(),
            status: watch::channel(ExecutorStatus::default()).0,
        }
    }

    /// One that nobody reads until the sender is dropped, and what is read then.
    fn held_up() -> (LogExecutor, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (held_up, reads) = channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let reader = Reader {
            reads,
            seen: Arc::clone(&seen),
        };
        (executor(LogFormat::Plain, reader), held_up, seen)
    }

    fn run(from: u64, to: u64) -> Vec<Operation> {
        let data = Bytes::from_static(b"op");
        let operations = (from..=to).map(|index| Operation {
            index,
            term: 1,
            running_hash: 0,
            data: data.clone(),
        });
        operations.collect()
    }

    fn given_of(given: &Given, from: u64, to: u64) -> Run {
        let run = core::Run {
            operations: run(from, to),
            leader_term: None,
        };
        given.give(run).unwrap()
    }

    #[tokio::test]
    async fn what_was_taken_back_is_not_printed_and_let_go_of() {
        let (executor, held_up, seen) = held_up();
        let mut given = Given::default();
        let (runs, queue) = mpsc::channel(8);
        let (executed, done) = watch::channel(0);
        let task = tokio::spawn(executor.run(queue, executed));
        // More than a chunk: the first one is on its way to a reader who does not read.
        for (from, to) in [(1, 5_000), (5_001, 5_002)] {
            runs.try_send(given_of(&given, from, to)).unwrap();
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        given.take_back();
        drop(held_up);
        given.let_go().await;
        let through = *done.borrow();
        assert!((1..5_000).contains(&through), "{through}");
        runs.try_send(given_of(&given, 3, 3)).unwrap();
        drop(runs);
        task.await.unwrap();
        let seen = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = seen.lines().collect();
        assert_eq!(lines.len() as u64, through + 1, "what is printed is reported");
        assert_eq!(lines.last(), Some(&"Node 2 executes op=op at index=3"));
    }

    #[tokio::test]
    async fn an_operation_is_executed_once_its_line_is_out_and_not_before() {
        let (executor, held_up, seen) = held_up();
        let given = Given::default();
        let (runs, queue) = mpsc::channel(8);
        let (executed, mut done) = watch::channel(0);
        let task = tokio::spawn(executor.run(queue, executed));
        for (from, to) in [(1, 1), (2, 5_000), (5_001, 5_002)] {
            runs.try_send(given_of(&given, from, to)).unwrap();
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*done.borrow(), 0);
        drop(held_up);
        done.wait_for(|through| *through == 5_002).await.unwrap();
        drop(runs);
        task.await.unwrap();
        let seen = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
        let expected: Vec<String> = (1..=5_002)
            .map(|index| format!("Node 2 executes op=op at index={index}"))
            .collect();
        assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn json_is_one_object_a_line() {
        let executor = executor(LogFormat::Json, io::sink());
        let mut chunk = String::new();
        for (operation, leader_term) in run(1, 2).iter().zip([None, Some(7)]) {
            executor.render(operation, leader_term, &mut chunk);
        }
        let objects: Vec<Value> = chunk
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0]["message"], "Node 2 executes op=op at index=1");
        assert_eq!(objects[1]["fields"]["index"], 2);
        assert_eq!(objects[0]["fields"].get("leader_term"), None);
        assert_eq!(objects[1]["fields"]["leader_term"], 7);
    }
}
