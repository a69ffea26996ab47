//! The `log` executor: a line on stdout for each operation, never dropped.

use std::time::SystemTime;

use raftlog_raft::ids::{NodeNumber, OperationIndex};
use raftlog_telemetry::lines::Lines;
use raftlog_telemetry::logging::LogFormat;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Level;

use super::story::ExecutesLine;
use crate::core::Operation;

/// Lines handed over at once, in bytes; a longer one goes alone.
const CHUNK_BYTES: usize = 64 << 10;

/// Prints what it is handed, in order.
pub(super) struct LogExecutor {
    pub(super) node: NodeNumber,
    pub(super) format: LogFormat,
    pub(super) lines: Lines,
}

impl LogExecutor {
    /// Runs until `runs` ends. `executed` follows what has left the process, so that what counts as executed outlives a
    /// kill. A reader of stdout who is slow slows this down, and nothing else: the core bounds what it hands out.
    pub(super) async fn run(
        self,
        mut runs: mpsc::Receiver<Vec<Operation>>,
        executed: watch::Sender<OperationIndex>,
    ) {
        while let Some(mut run) = runs.recv().await {
            // Small runs that queued up meanwhile are printed together.
            while let Ok(more) = runs.try_recv() {
                run.extend(more);
            }
            let mut chunk = String::new();
            for operation in &run {
                self.render(operation, &mut chunk);
                if chunk.len() >= CHUNK_BYTES {
                    self.print(std::mem::take(&mut chunk), operation.index, &executed)
                        .await;
                }
            }
            if let (false, Some(last)) = (chunk.is_empty(), run.last()) {
                self.print(chunk, last.index, &executed).await;
            }
        }
    }

    fn render(&self, operation: &Operation, chunk: &mut String) {
        let line = ExecutesLine {
            node: self.node,
            operation,
        }
        .to_string();
        let fields = match self.format {
            LogFormat::Plain => Map::new(),
            LogFormat::Json => fields(self.node, operation),
        };
        if !chunk.is_empty() {
            chunk.push('\n');
        }
        chunk.push_str(&self.format.render(SystemTime::now(), Level::INFO, &line, &fields));
    }

    /// Waits until the lines have left the process: so there is never more than one chunk in the queue for stdout, and
    /// there is room for other lines beside it.
    async fn print(&self, chunk: String, through: OperationIndex, executed: &watch::Sender<OperationIndex>) {
        let (written, left) = oneshot::channel();
        self.lines.line(chunk).await;
        let tell = move || {
            // Nobody waits for it only where this task was dropped.
            let _ = written.send(());
        };
        self.lines.once_written(tell).await;
        if left.await.is_ok() {
            executed.send_replace(through);
        }
    }
}

fn fields(node: NodeNumber, operation: &Operation) -> Map<String, Value> {
    Map::from_iter([
        ("node".to_owned(), node.into()),
        ("index".to_owned(), operation.index.into()),
        ("term".to_owned(), operation.term.into()),
    ])
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;

    use super::*;

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

    fn run(from: u64, to: u64) -> Vec<Operation> {
        let data = Bytes::from_static(b"op");
        (from..=to)
            .map(|index| Operation {
                index,
                term: 1,
                running_hash: 0,
                data: data.clone(),
            })
            .collect()
    }

    #[tokio::test]
    async fn an_operation_is_executed_once_its_line_is_out_and_not_before() {
        let (held_up, reads) = channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let lines = Lines::to(Reader {
            reads,
            seen: Arc::clone(&seen),
        })
        .unwrap();
        let executor = LogExecutor {
            node: 2,
            format: LogFormat::Plain,
            lines,
        };
        let (runs, queue) = mpsc::channel(8);
        let (executed, mut done) = watch::channel(0);
        let task = tokio::spawn(executor.run(queue, executed));
        for (from, to) in [(1, 1), (2, 5_000), (5_001, 5_002)] {
            runs.try_send(run(from, to)).unwrap();
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
        let executor = LogExecutor {
            node: 2,
            format: LogFormat::Json,
            lines: Lines::to(io::sink()).unwrap(),
        };
        let mut chunk = String::new();
        for operation in &run(1, 2) {
            executor.render(operation, &mut chunk);
        }
        let objects: Vec<Value> = chunk
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0]["message"], "Node 2 executes op=op at index=1");
        assert_eq!(objects[1]["fields"]["index"], 2);
    }
}
