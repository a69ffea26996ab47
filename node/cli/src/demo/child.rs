//! A process of the demo: started, read from, stopped, and never left behind.

use std::{
    io,
    path::Path,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::{mpsc, watch},
};

use super::plan::Process;
use crate::program::{PARENT_VARIABLE, Program};

/// A longer line of a child is broken into several, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Variables with these prefixes would change what the children do.
const FOREIGN_PREFIXES: [&str; 5] = ["RAFT_", "RAFTCTL_", "REPLICATOR_", "REPLICATE_", "LOG_FORMAT"];

/// What children are told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Order {
    Run,
    /// Stop gracefully, if it is your turn: those whose [`super::plan::Role::stops`] is not above.
    Stop(u8),
    Die,
}

/// What a child does. `child` is its place in the plan.
#[derive(Debug)]
pub(super) enum Event {
    Line {
        child: usize,
        line: String,
        is_error: bool,
    },
    Ended {
        child: usize,
        status: io::Result<ExitStatus>,
    },
}

/// Starts a process: this very binary under another name. It has a process group of its own, so that Ctrl-C on a terminal
/// reaches the demo alone, and ends with the thread that calls this, however that ends.
pub(super) fn spawn(binary: &Path, process: &Process) -> io::Result<Child> {
    let mut command = Command::new(binary);
    command.arg0(process.program.name()).args(&process.arguments);
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        {
            command.env_remove(name);
        }
    }
    command.env(PARENT_VARIABLE, std::process::id().to_string());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true).spawn()
}

/// Reports every line of a child, in order for each of its outputs, and then its end; follows orders meanwhile.
pub(super) async fn attend(
    place: usize,
    stops: u8,
    mut child: Child,
    mut orders: watch::Receiver<Order>,
    events: mpsc::Sender<Event>,
) {
    let stdout = child
        .stdout
        .take()
        .map(|pipe| tokio::spawn(read_lines(place, pipe, false, events.clone())));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| tokio::spawn(read_lines(place, pipe, true, events.clone())));
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Ok(()) = orders.changed() => follow(*orders.borrow_and_update(), stops, &mut child),
        }
    };
    // Nothing holds the pipes any more: what is left in them is the child's last words.
    for reader in [stdout, stderr].into_iter().flatten() {
        let _ = reader.await;
    }
    let _ = events.send(Event::Ended { child: place, status }).await;
}

/// A child that ended meanwhile needs no signal; its end is reported.
fn follow(order: Order, stops: u8, child: &mut Child) {
    match order {
        Order::Run => {}
        Order::Stop(turn) if turn < stops => {}
        Order::Stop(_) => {
            let pid = child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        Order::Die => {
            let _ = child.start_kill();
        }
    }
}

async fn read_lines(child: usize, pipe: impl AsyncRead + Unpin, is_error: bool, events: mpsc::Sender<Event>) {
    let mut reader = BufReader::with_capacity(LINE_BYTES_MAX, pipe);
    while let Ok(Some(line)) = read_line(&mut reader).await {
        if events
            .send(Event::Line {
                child,
                line,
                is_error,
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

/// The next line without its newline, or the next part of a very long one; `None` at the end.
async fn read_line(reader: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then(|| text(&line)));
        }
        let newline = available.iter().position(|byte| *byte == b'\n');
        if line.len() == LINE_BYTES_MAX && newline != Some(0) {
            return Ok(Some(text(&line)));
        }
        let wanted = newline
            .unwrap_or(available.len())
            .min(LINE_BYTES_MAX - line.len());
        line.extend_from_slice(&available[..wanted]);
        let ends = newline == Some(wanted);
        reader.consume(wanted + usize::from(ends));
        if ends {
            return Ok(Some(text(&line)));
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

/// How a process ended, in words.
pub(super) fn in_words(status: &io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("lost sight of it: {error}"),
    }
}

/// Whether the client did all that it was asked to.
pub(super) fn is_success(status: &io::Result<ExitStatus>) -> bool {
    matches!(status, Ok(status) if status.success())
}

/// The program of a child is named where it fails, as `raftctl client` is not called `client`.
pub(super) fn program_of(process: &Process) -> &'static str {
    match process.program {
        Program::Raftctl => "raftctl client",
        other => other.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8]) -> Vec<String> {
        let mut reader = BufReader::with_capacity(16, text);
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut reader).await.unwrap() {
            lines.push(line);
        }
        lines
    }

    #[tokio::test]
    async fn lines_are_whole() {
        for (text, expected) in [
            (&b""[..], vec![]),
            (b"one\n", vec!["one"]),
            (
                b"one\ntwo longer than the buffer is\n\nlast",
                vec!["one", "two longer than the buffer is", "", "last"],
            ),
            (b"bad \xff\n", vec!["bad \u{fffd}"]),
        ] {
            assert_eq!(lines(text).await, expected);
        }
    }

    #[tokio::test]
    async fn a_line_without_end_is_broken_up() {
        let mut text = vec![b'x'; LINE_BYTES_MAX + 5];
        text.extend(b"\nnext\n");
        let lengths: Vec<usize> = lines(&text).await.iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_BYTES_MAX, 5, 4]);
        let mut exact = vec![b'x'; LINE_BYTES_MAX];
        exact.extend(b"\nnext\n");
        let lengths: Vec<usize> = lines(&exact).await.iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_BYTES_MAX, 4]);
    }
}
