//! Lines to stdout, in the order in which they are given, through a bounded queue and a thread of its own: a reader that
//! does not read stops nobody. What cannot be written for now, as the disk is full, waits like what nobody reads.

use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

/// Lines that wait for the reader at most.
pub const QUEUED_LINES_MAX: usize = 8_192;
/// Written lines are flushed when the queue is empty, and after this many bytes at the latest.
const BUFFER_BYTES: usize = 64 << 10;
/// How long the end waits for a reader that does not read.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// After a write that failed; each time twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// No wait is longer.
const RETRY_LONGEST: Duration = Duration::from_secs(1);

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
    failures: Counter<u64, AtomicU64>,
    reader_is_gone: Arc<AtomicBool>,
    problem: watch::Receiver<Option<Problem>>,
}

/// Why what is written waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One line.
    pub why: String,
    /// Writes that failed in a row.
    pub attempts: u64,
}

impl Lines {
    /// Lines to this process's stdout.
    pub fn stdout() -> io::Result<Self> {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Self::start(stdout, is_terminal)
    }

    /// Lines to a writer.
    pub fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start(writer, false)
    }

    fn start(writer: impl Write + Send + 'static, is_terminal: bool) -> io::Result<Self> {
        let (queue, lines) = mpsc::channel(QUEUED_LINES_MAX);
        let (tells, problem) = watch::channel(None);
        let this = Self {
            queue,
            queued: Arc::default(),
            written: Arc::default(),
            dropped: Counter::default(),
            failures: Counter::default(),
            reader_is_gone: Arc::default(),
            problem,
        };
        let written = Arc::clone(&this.written);
        let out = Out {
            writer,
            is_terminal,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            failures: this.failures.clone(),
            reader_is_gone: Arc::clone(&this.reader_is_gone),
            problem: tells,
        };
        thread::Builder::new()
            .name("lines".into())
            .spawn(move || write_all(lines, out, &written))?;
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

    /// Nobody reads there any more, and lines go nowhere.
    pub fn reader_is_gone(&self) -> bool {
        self.reader_is_gone.load(Ordering::Relaxed)
    }

    /// What holds lines up at the moment, if something does.
    pub fn problem(&self) -> watch::Receiver<Option<Problem>> {
        self.problem.clone()
    }

    /// Adds `log_lines_dropped_total` and `log_write_failures_total` to the registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "log_write_failures",
            "Writes to stdout that failed; they are tried again until they work or nobody reads any more",
            self.failures.clone(),
        );
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

fn write_all(mut lines: mpsc::Receiver<Item>, mut out: Out<impl Write>, written: &Written) {
    while let Some(first) = lines.blocking_recv() {
        let mut next = Some(first);
        let mut count = 0;
        while let Some(item) = next {
            match item {
                Item::Line(line) => out.line(&line),
                Item::Written(then) => {
                    out.flush();
                    then();
                }
            }
            count += 1;
            next = lines.try_recv().ok();
        }
        out.flush();
        *written.lines.lock().unwrap_or_else(PoisonError::into_inner) += count;
        written.changed.notify_all();
    }
}

/// The writer, with what it was not given yet.
struct Out<W> {
    writer: W,
    is_terminal: bool,
    buffer: Vec<u8>,
    failures: Counter<u64, AtomicU64>,
    reader_is_gone: Arc<AtomicBool>,
    problem: watch::Sender<Option<Problem>>,
}

impl<W: Write> Out<W> {
    fn line(&mut self, line: &str) {
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// Until all is written, or nobody reads any more: the program goes on without.
    fn flush(&mut self) {
        let (mut done, mut attempts, mut wait) = (0, 0_u64, RETRY_FIRST);
        loop {
            let before = done;
            let Err(error) = self.flush_from(&mut done) else {
                break;
            };
            if done > before {
                (attempts, wait) = (0, RETRY_FIRST);
            }
            // A reader of a pipe that does not block is only slow.
            if error.kind() != ErrorKind::WouldBlock {
                self.failures.inc();
                if self.is_gone(&error) {
                    self.reader_is_gone.store(true, Ordering::Relaxed);
                    break;
                }
                attempts += 1;
                self.tell(&error, attempts);
            }
            thread::sleep(wait);
            wait = wait.saturating_mul(2).min(RETRY_LONGEST);
        }
        self.buffer.clear();
        self.problem
            .send_if_modified(|problem| std::mem::take(problem).is_some());
    }

    fn flush_from(&mut self, done: &mut usize) -> io::Result<()> {
        while let Some(rest) = self.buffer.get(*done..).filter(|rest| !rest.is_empty()) {
            match self.writer.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => *done += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.writer.flush()
    }

    /// A terminal that was closed is not there any more; a disk that fails may be again.
    fn is_gone(&self, error: &io::Error) -> bool {
        use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
        let gone = [BrokenPipe, ConnectionReset, ConnectionAborted, NotConnected];
        gone.contains(&error.kind()) || self.is_terminal
    }

    fn tell(&self, error: &io::Error, attempts: u64) {
        if attempts == 1 {
            // Where that cannot be written either, there is nobody to tell.
            let _ = writeln!(
                io::stderr(),
                "cannot write to stdout: {error}; it is tried again, and what must not be lost waits: see where it goes"
            );
        }
        let why = format!("cannot write to stdout: {error}");
        self.problem.send_replace(Some(Problem { why, attempts }));
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
        assert!(lines.reader_is_gone());
        assert_eq!(lines.dropped(), 0);
    }

    /// Has room for a little at a time, and mostly for nothing.
    struct Full {
        calls: u32,
        room: Receiver<()>,
        seen: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls > 3 {
                let _ = self.room.recv();
            } else if self.calls > 1 {
                return Err(ErrorKind::StorageFull.into());
            }
            let some = bytes.len().min(7);
            self.seen.lock().unwrap().extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_finds_no_room_waits_and_is_written_once() {
        let (makes_room, room) = channel();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let full = Full {
            calls: 0,
            room,
            seen: Arc::clone(&seen),
        };
        let lines = Lines::to(full).unwrap();
        let mut problem = lines.problem();
        lines.line("the first line".into()).await;
        lines.line("the second line".into()).await;
        let (told, tells) = tokio::sync::oneshot::channel();
        lines.once_written(move || told.send(()).unwrap()).await;
        let is_full = |problem: &Option<Problem>| {
            problem
                .as_ref()
                .is_some_and(|problem| problem.attempts == 2 && problem.why.starts_with("cannot write"))
        };
        problem.wait_for(is_full).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), b"the fir", "not all of it is written");
        drop(makes_room);
        tells.await.unwrap();
        assert_eq!(*seen.lock().unwrap(), b"the first line\nthe second line\n");
        problem.wait_for(Option::is_none).await.unwrap();
        assert_eq!((lines.failures.get(), lines.reader_is_gone()), (2, false));
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
