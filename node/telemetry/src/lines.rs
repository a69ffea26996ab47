//! Lines to stdout, in the order in which they are given, through a bounded queue and a thread of its own: a reader that
//! does not read stops nobody.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

/// Lines that wait for the reader at most.
pub const QUEUED_LINES_MAX: usize = 8_192;
/// Written lines are flushed when the queue is empty, and after this many bytes at the latest.
const BUFFER_BYTES: usize = 64 << 10;
/// How long the end waits for a reader that does not read.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// What waits in the queue.
enum Item {
    /// A line, or several, without the last newline.
    Line(String),
    /// Called once everything before it is flushed.
    Written(Box<dyn FnOnce() + Send>),
}

/// What the writing thread has done, for those who wait for it.
#[derive(Default)]
struct Written {
    /// What was taken from the queue and handed to the writer, flushed.
    lines: Mutex<u64>,
    changed: Condvar,
}

/// Where lines go. Clones share one queue.
#[derive(Clone)]
pub struct Lines {
    queue: mpsc::Sender<Item>,
    queued: Arc<AtomicU64>,
    written: Arc<Written>,
    dropped: Counter<u64, AtomicU64>,
    unwritable: Arc<AtomicU64>,
}

impl Lines {
    /// Lines to this process's stdout.
    pub fn stdout() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    /// Lines to a writer.
    pub fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = mpsc::channel(QUEUED_LINES_MAX);
        let this = Self {
            queue,
            queued: Arc::default(),
            written: Arc::default(),
            dropped: Counter::default(),
            unwritable: Arc::default(),
        };
        let (written, unwritable) = (Arc::clone(&this.written), Arc::clone(&this.unwritable));
        thread::Builder::new()
            .name("lines".into())
            .spawn(move || write_all(lines, writer, &written, &unwritable))?;
        Ok(this)
    }

    /// Queues a line (without its newline), or drops and counts it when the queue is full. Never waits.
    pub fn try_line(&self, line: String) {
        match self.queue.try_send(Item::Line(line)) {
            Ok(()) => self.count_queued(),
            Err(_) => {
                self.dropped.inc();
            }
        }
    }

    /// Queues a line (without its newline) as soon as there is room: never dropped.
    pub async fn line(&self, line: String) {
        // It fails only without the thread, which lives as long as this queue.
        if self.queue.send(Item::Line(line)).await.is_ok() {
            self.count_queued();
        }
    }

    /// The same from a thread that is not part of a tokio runtime.
    pub fn line_blocking(&self, line: String) {
        if self.queue.blocking_send(Item::Line(line)).is_ok() {
            self.count_queued();
        }
    }

    /// Calls `then` on the writing thread once everything queued before is out of this process: what was written so
    /// outlives a kill. It must not block.
    pub async fn once_written(&self, then: impl FnOnce() + Send + 'static) {
        if self.queue.send(Item::Written(Box::new(then))).await.is_ok() {
            self.count_queued();
        }
    }

    fn count_queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines dropped because the reader was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// How often the writer refused: nobody reads there any more.
    pub fn unwritable(&self) -> u64 {
        self.unwritable.load(Ordering::Relaxed)
    }

    /// Adds `log_lines_dropped_total` to the registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "log_lines_dropped",
            "Log lines dropped because stdout's reader was too slow",
            self.dropped.clone(),
        );
    }

    /// Waits until everything queued so far is written, a second at most. For the end of the process.
    pub fn drain(&self) {
        let queued = self.queued.load(Ordering::Relaxed);
        let written = self.written.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self
            .written
            .changed
            .wait_timeout_while(written, DRAIN_MAX, |written| *written < queued);
    }
}

fn write_all(mut lines: mpsc::Receiver<Item>, writer: impl Write, written: &Written, unwritable: &AtomicU64) {
    let mut writer = io::BufWriter::with_capacity(BUFFER_BYTES, writer);
    while let Some(first) = lines.blocking_recv() {
        let mut next = Some(first);
        let mut count = 0;
        while let Some(item) = next {
            match item {
                Item::Line(line) => {
                    // An error means that nobody reads; the program goes on without.
                    if writeln!(writer, "{line}").is_err() {
                        unwritable.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Item::Written(then) => {
                    let _ = writer.flush();
                    then();
                }
            }
            count += 1;
            next = lines.try_recv().ok();
        }
        if writer.flush().is_err() {
            unwritable.fetch_add(1, Ordering::Relaxed);
        }
        *written.lines.lock().unwrap_or_else(PoisonError::into_inner) += count;
        written.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Blocks in every write until it is told to go on.
    struct Stuck {
        go_on: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go_on.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_reader_costs_lines_and_never_time() {
        let (go_on, stuck) = channel();
        let (written, seen) = channel();
        let lines = Lines::to(Stuck {
            go_on: stuck,
            written,
        })
        .unwrap();
        // Twice what fits into queue and buffer.
        let count = 2 * (QUEUED_LINES_MAX + BUFFER_BYTES);
        for i in 0..count {
            lines.try_line(format!("{i}"));
        }
        assert!(lines.dropped() > 0);
        drop(go_on);
        lines.drain();
        let all: Vec<u8> = seen.try_iter().flatten().collect();
        let all = String::from_utf8(all).unwrap();
        let numbers: Vec<usize> = all.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers.len() as u64 + lines.dropped(), count as u64);
        assert!(numbers.is_sorted(), "lines keep their order");
    }

    #[test]
    fn a_reader_that_is_gone_stops_nobody() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let lines = Lines::to(Gone).unwrap();
        for _ in 0..3 * QUEUED_LINES_MAX {
            lines.line_blocking("x".repeat(100));
        }
        lines.drain();
        assert!(lines.unwritable() > 0);
        assert_eq!(lines.dropped(), 0);
    }

    #[tokio::test]
    async fn once_written_means_out_of_the_process() {
        let (go_on, stuck) = channel();
        let (written, seen) = channel();
        let lines = Lines::to(Stuck {
            go_on: stuck,
            written,
        })
        .unwrap();
        let (told, mut tells) = mpsc::channel(1);
        lines.line("first".into()).await;
        lines
            .once_written(move || told.try_send(()).expect("there is room"))
            .await;
        lines.line("second".into()).await;
        assert!(
            tells.try_recv().is_err(),
            "nothing is written while the reader does not read"
        );
        drop(go_on);
        tells.recv().await.expect("it is told");
        assert_eq!(seen.recv().unwrap(), b"first\n");
    }
}
