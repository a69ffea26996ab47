//! A running raft-replicator.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use raftlog_proto::v1::operation_log_client::OperationLogClient;
use tonic::transport::Channel;

/// Longer than anything takes, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Lines seen so far, and a bell.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    fn push(&self, line: String) {
        self.0.0.lock().unwrap().push(line);
        self.0.1.notify_all();
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until `enough` of what was printed.
    pub(crate) fn wait(&self, what: &str, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let lines = self.0.0.lock().unwrap();
        let (lines, timeout) = self
            .0
            .1
            .wait_timeout_while(lines, LONG, |lines| !enough(lines))
            .unwrap();
        let last = lines.iter().rev().take(10).rev();
        assert!(
            !timeout.timed_out(),
            "waited for {what}; last lines: {:#?}",
            last.collect::<Vec<_>>()
        );
        lines.clone()
    }
}

/// One process; killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    reader: Option<JoinHandle<()>>,
    pub(crate) lines: Lines,
    pub(crate) clients: SocketAddr,
    pub(crate) http: SocketAddr,
}

pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raft-replicator"));
    command.args([
        "--id",
        "1",
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    command.arg(folder).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Runs it to its end, which must come.
pub(crate) fn output(mut command: Command) -> Output {
    command.stderr(Stdio::piped()).output().unwrap()
}

impl Program {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::spawn(command(folder))
    }

    pub(crate) fn spawn(command: Command) -> Self {
        Self::start_held_up(command).0
    }

    /// After its first line nobody reads its stdout until the sender is dropped.
    pub(crate) fn start_held_up(mut command: Command) -> (Self, Sender<()>) {
        let mut child = command.spawn().unwrap();
        let lines = Lines::default();
        let (held_up, reads) = channel();
        let (stdout, seen) = (child.stdout.take().unwrap(), lines.clone());
        let reader = thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            while stdout.read_line(&mut line).unwrap() > 0 {
                // Of a last line that a kill cut short nothing is known.
                if let Some(whole) = line.strip_suffix('\n') {
                    seen.push(whole.to_owned());
                }
                line.clear();
                // Fails once the sender is gone.
                let _ = reads.recv();
            }
        });
        let started = |lines: &[String]| lines.iter().any(|line| line.contains("its replicator"));
        let all = lines.wait("the start", started);
        let line = all.iter().find(|line| line.contains("its replicator")).unwrap();
        let address = |what: &str| {
            let (_, rest) = line.split_once(what)?;
            rest.split([',', ' ']).next()?.parse().ok()
        };
        let clients = address("clients and its node on ")
            .or_else(|| address("clients on "))
            .unwrap();
        let http = address("HTTP on ").unwrap();
        (
            Self {
                child,
                reader: Some(reader),
                lines,
                clients,
                http,
            },
            held_up,
        )
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.wait();
        self.lines.all()
    }

    /// SIGTERM, and its exit status.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        self.wait()
    }

    /// How it ends by itself; all that it said is in [`Program::lines`] then.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = most.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
        kib << 10
    }

    pub(crate) async fn operation_log(&self) -> OperationLogClient<Channel> {
        OperationLogClient::connect(format!("http://{}", self.clients))
            .await
            .unwrap()
    }

    /// Status code and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The indexes of the executes lines.
pub(crate) fn executed(lines: &[String]) -> Vec<u64> {
    let index = |line: &String| {
        line.strip_prefix("Node 1 executes ")?
            .rsplit_once("at index=")?
            .1
            .parse()
            .ok()
    };
    lines.iter().filter_map(index).collect()
}
