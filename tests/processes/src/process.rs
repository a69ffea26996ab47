//! One running program: what it says, the signals it gets, how it ends.

use crate::reaper::Registration;
use crate::wait::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Lines of each stream that a failed test shows, heartbeats aside.
const TAIL_LINES: usize = 60;

/// A program in a process group of its own, killed with all its children when dropped. A test that is failing shows the
/// tail of its output.
#[derive(Debug)]
pub struct Process {
    name: String,
    command: String,
    child: Child,
    group: Pid,
    status: Option<ExitStatus>,
    output: Output,
    readers: Vec<JoinHandle<()>>,
    _registration: Registration,
}

/// The streams of a process, as far as they have been read.
#[derive(Debug, Clone, Default)]
struct Output {
    stdout: Arc<Mutex<Stream>>,
    stderr: Arc<Mutex<Stream>>,
}

#[derive(Debug, Default)]
struct Stream {
    /// Whole lines, without their newlines.
    lines: Vec<String>,
    /// Bytes after the last newline: a killed program may leave a torn line.
    torn: String,
}

impl Process {
    /// Starts `binary`. Of this process's environment only PATH, HOME and TMPDIR are passed on.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn<A: AsRef<OsStr>>(name: &str, binary: &Path, arguments: &[A]) -> Self {
        Self::spawn_with(name, binary, arguments, &[], Stdio::null())
    }

    /// As [`Process::spawn`], with more environment variables and a standard input.
    pub fn spawn_with<A: AsRef<OsStr>>(
        name: &str,
        binary: &Path,
        arguments: &[A],
        environment: &[(&str, &str)],
        stdin: Stdio,
    ) -> Self {
        let (mut command, shown) = prepare(binary, arguments, environment);
        let mut child = command
            .stdin(stdin)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let id = child.id().expect("a child that nobody waited for has an ID");
        let output = Output::default();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let readers = vec![
            capture(stdout, Arc::clone(&output.stdout)),
            capture(stderr, Arc::clone(&output.stderr)),
        ];
        Self {
            name: name.to_owned(),
            command: shown,
            child,
            group: Pid::from_raw(i32::try_from(id).expect("process IDs fit an i32"))
                .expect("process IDs are not 0"),
            status: None,
            output,
            readers,
            _registration: Registration::new(id),
        }
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process ID.
    pub fn id(&self) -> i32 {
        self.group.as_raw_nonzero().get()
    }

    /// Bytes of its memory that are in use and not on disk.
    ///
    /// # Panics
    /// When the system does not tell: it has ended.
    pub fn resident_bytes(&self) -> u64 {
        let file = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.unwrap_or_else(|| panic!("{file} tells no VmRSS: {status}")) << 10
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.try_status().is_none()
    }

    /// How it ended, if it has.
    pub fn try_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    /// Sends it a signal, unless it has ended. After SIGSTOP it stands still, which takes a moment on a busy machine: until its
    /// first thread gets to run, the others go on.
    ///
    /// # Panics
    /// When it does not stand still within [`PATIENCE`].
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            kill_process(self.group, signal).expect("a running child can be signalled");
        }
        let since = Instant::now();
        while signal == Signal::STOP && self.is_running() && !stands_still(self.group) {
            assert!(since.elapsed() < PATIENCE, "{} does not stop", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until it has ended and all it wrote has been read.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`].
    pub async fn wait(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("{} still runs after {PATIENCE:?}", self.name));
        let status = status.expect("a child can be waited for");
        self.status = Some(status);
        for reader in self.readers.drain(..) {
            let read = timeout(PATIENCE, reader).await;
            read.unwrap_or_else(|_| panic!("{} left a process that holds its output", self.name))
                .expect("reading a child's output does not panic");
        }
        status
    }

    /// kill -9 of it and of all it started.
    pub fn strike(&mut self) {
        if self.is_running() {
            kill_process_group(self.group, Signal::KILL).expect("a running group can be killed");
        }
    }

    /// kill -9, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.strike();
        self.wait().await;
    }

    /// The whole lines on stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        lock(&self.output.stdout).lines.clone()
    }

    /// The whole lines on stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        lock(&self.output.stderr).lines.clone()
    }

    /// How many lines are on stdout so far: where to begin to look for what happens from now on.
    pub fn mark(&self) -> usize {
        lock(&self.output.stdout).lines.len()
    }

    /// Waits for `line`, whole, anywhere on stdout.
    pub async fn says(&mut self, line: &str) {
        self.says_after(0, &format!("the line '{line}'"), |said| said == line)
            .await;
    }

    /// Waits for a line on stdout, at or after `mark`, that `wanted` accepts, and gives it.
    ///
    /// # Panics
    /// After [`PATIENCE`], or as soon as the process has ended without it.
    pub async fn says_after(&mut self, mark: usize, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut next = mark;
        let what = format!("{} to say {what}", self.name);
        eventually(&what, async || {
            // Asked first: what it wrote before it ended is still to be looked at.
            let ended = self
                .try_status()
                .filter(|_| self.readers.iter().all(JoinHandle::is_finished));
            let stdout = lock(&self.output.stdout);
            let unread = stdout.lines.get(next..).unwrap_or_default();
            if let Some(line) = unread.iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            next = stdout.lines.len().max(next);
            assert!(ended.is_none(), "waited for {what}, but it ended: {ended:?}");
            Err("not said yet".to_owned())
        })
        .await
    }

    fn show_tail(&self) {
        eprintln!("\n==== {} ({:?}): {}", self.name, self.status, self.command);
        for (stream, label) in [(&self.output.stdout, "stdout"), (&self.output.stderr, "stderr")] {
            let stream = lock(stream);
            let told: Vec<&String> = stream.lines.iter().filter(|line| !is_heartbeat(line)).collect();
            let skipped = told.len().saturating_sub(TAIL_LINES);
            let heartbeats = stream.lines.len() - told.len();
            eprintln!("---- {label}, {skipped} lines before these, and {heartbeats} of heartbeats");
            for line in told.iter().skip(skipped) {
                eprintln!("{line}");
            }
            if !stream.torn.is_empty() {
                eprintln!("{} (no newline)", stream.torn);
            }
        }
    }
}

/// Whether all threads of a process are stopped, as the state behind their names in `/proc` says (proc(5)).
fn stands_still(process: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()));
    let stats = threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats
        .filter_map(|stat| Some(stat.rsplit_once(") ")?.1.starts_with('T')))
        .all(|stopped| stopped)
}

fn is_heartbeat(line: &str) -> bool {
    line.contains("sends AppendEntries (Heartbeat)") || line.contains("runs RPC AppendEntries called by")
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group outlives its leader where the program left children behind, which hold on to its output. Otherwise the
        // ID of a process that ended may be somebody else's by now.
        let left_behind = self.readers.iter().any(|reader| !reader.is_finished());
        if self.is_running() || left_behind {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
        for _ in 0..500 {
            if !self.is_running() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if std::thread::panicking() {
            self.show_tail();
            return;
        }
        let panicked = lock(&self.output.stderr)
            .lines
            .iter()
            .find(|line| line.contains("panicked at"))
            .cloned();
        if let Some(line) = panicked {
            self.show_tail();
            panic!("{} panicked: {line}", self.name);
        }
    }
}

/// A command in a process group of its own with piped output, and how to show it. Of this process's environment only what
/// programs in general need is passed on.
fn prepare<A: AsRef<OsStr>>(
    binary: &Path,
    arguments: &[A],
    environment: &[(&str, &str)],
) -> (Command, String) {
    let mut command = Command::new(binary);
    command.args(arguments);
    let shown = format!("{:?} with {environment:?}", command.as_std());
    command.env_clear();
    for variable in ["PATH", "HOME", "TMPDIR"] {
        command.envs(std::env::var_os(variable).map(|value| (variable, value)));
    }
    command.envs(environment.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    (command, shown)
}

fn capture(stream: impl AsyncRead + Unpin + Send + 'static, into: Arc<Mutex<Stream>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while reader
            .read_until(b'\n', &mut bytes)
            .await
            .is_ok_and(|length| length > 0)
        {
            let whole = bytes.last() == Some(&b'\n');
            if whole {
                bytes.pop();
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let mut stream = lock(&into);
            if whole {
                stream.lines.push(text);
            } else {
                stream.torn = text;
            }
            bytes.clear();
        }
    })
}

fn lock(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program that ran to its end.
#[derive(Debug)]
pub struct Finished {
    /// Exit code.
    pub code: i32,
    /// The bytes of stdout.
    pub stdout: Vec<u8>,
    /// The lines of stderr.
    pub stderr: Vec<String>,
}

impl Finished {
    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Sees to it that the program ended with `code` and, unless that is 0, said why in exactly one line on stderr that
    /// names each of `words`.
    ///
    /// # Panics
    /// When it did not.
    pub fn expect(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(
            self.code,
            code,
            "stdout: {}\nstderr: {:#?}",
            self.text(),
            self.stderr
        );
        if code != 0 {
            let [line] = self.stderr.as_slice() else {
                panic!(
                    "an error is one line on stderr, not {}: {:#?}",
                    self.stderr.len(),
                    self.stderr
                );
            };
            for word in words {
                assert!(line.contains(word), "the error does not name '{word}': {line}");
            }
        }
        self
    }
}

/// Runs `binary` to its end with `stdin`.
///
/// # Panics
/// When it does not end within [`PATIENCE`], ends by a signal, or panics.
pub async fn run<A: AsRef<OsStr>>(binary: &Path, arguments: &[A], stdin: &[u8]) -> Finished {
    let (mut command, shown) = prepare(binary, arguments, &[]);
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
    let _registration = Registration::new(child.id().expect("a child that nobody waited for has an ID"));
    let mut input = child.stdin.take().expect("stdin is piped");
    let stdin = stdin.to_vec();
    let writer = tokio::spawn(async move {
        // A program that refuses its flags does not read its input.
        let _ = input.write_all(&stdin).await;
    });
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{shown} still runs after {PATIENCE:?}"))
        .expect("output can be read");
    writer.abort();
    let stderr: Vec<String> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .map(str::to_owned)
        .collect();
    let finished = Finished {
        code: output
            .status
            .code()
            .unwrap_or_else(|| panic!("{shown} was ended by {}", output.status)),
        stdout: output.stdout,
        stderr,
    };
    assert!(
        !finished.stderr.iter().any(|line| line.contains("panicked at")),
        "{shown}: {:#?}",
        finished.stderr
    );
    finished
}
