//! A command with its [`guard`](super::guard), as the replicator has it.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpgid};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use super::answer::End;
use super::{CommandLine, guard};

/// This very program, also where its file was replaced.
const MYSELF: &str = "/proc/self/exe";
/// By this name `raftctl`, which has it in it, knows it.
const MY_NAME: &str = "raft-replicator";
/// A guard that takes longer than this to kill is killed itself.
const END_MAX: Duration = Duration::from_secs(15);
/// How often, and how many times, what a killed guard leaves is waited for.
const REAP_EVERY: Duration = Duration::from_millis(10);
const REAP_TIMES: u32 = 100;

/// Killed, with all that it has started, when this is dropped, ends, or its process does.
#[derive(Debug)]
pub(super) struct Guarded {
    guard: Child,
    /// Its command is in it as well.
    group: Option<Pid>,
    /// While it is open, the command lives.
    stdin: ChildStdin,
}

/// What is between the two.
pub(super) struct Output {
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Guarded {
    /// Starts it. `bytes` is how many bytes of what is written are for the command, and then its input ends; absent: all are.
    pub(super) fn start(
        command: &CommandLine,
        bytes: Option<usize>,
        environment: Vec<(&'static str, String)>,
    ) -> io::Result<(Self, Output)> {
        let input = bytes.map_or_else(|| guard::ALL.to_owned(), |bytes| bytes.to_string());
        let mut guard = Command::new(MYSELF);
        guard
            .arg0(MY_NAME)
            .args([guard::WORD, &input])
            .args(command.words())
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut guard = guard.spawn()?;
        let group = guard
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let pipes = (guard.stdin.take(), guard.stdout.take(), guard.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("it has no pipes"));
        };
        let guarded = Self { guard, group, stdin };
        Ok((guarded, Output { stdout, stderr }))
    }

    /// Where to write, and a way to wait for the end meanwhile.
    pub(super) fn parts(&mut self) -> (&mut ChildStdin, Ending<'_>) {
        let ending = Ending {
            guard: &mut self.guard,
            group: self.group,
        };
        (&mut self.stdin, ending)
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.guard.try_wait(), Ok(None))
    }

    /// Kills it, and waits until it is gone.
    pub(super) async fn end(self) -> Option<End> {
        let Self {
            mut guard,
            group,
            stdin,
        } = self;
        drop(stdin);
        let mut ending = Ending {
            guard: &mut guard,
            group,
        };
        if let Ok(ended) = timeout(END_MAX, ending.wait()).await {
            return ended.ok();
        }
        if let Some(guard) = group {
            // Nobody has waited for it yet.
            let _ = kill_process(guard, Signal::KILL);
        }
        ending.wait().await.ok()
    }
}

/// A command that is about to end.
pub(super) struct Ending<'a> {
    guard: &'a mut Child,
    group: Option<Pid>,
}

impl Ending<'_> {
    /// How the command ended; nothing of it is left then.
    pub(super) async fn wait(&mut self) -> io::Result<End> {
        let status = self.guard.wait().await?;
        if let (Some(_), Some(group)) = (status.signal(), self.group) {
            end_orphans(group).await;
        }
        Ok(end(status))
    }
}

/// Somebody has killed the guard, and what it has guarded is left. Where this is process 1 it has to be waited for as well, which
/// is no child that anybody else here waits for.
async fn end_orphans(group: Pid) {
    for _ in 0..REAP_TIMES {
        // Fails where none is left.
        let _ = kill_process_group(group, Signal::KILL);
        match waitpgid(group, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Err(Errno::CHILD) => return,
            Ok(None) | Err(_) => sleep(REAP_EVERY).await,
        }
    }
}

fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}
