//! The guard: a process between the replicator and a command, so that nothing of the command outlives either of them.
//!
//! It is this very program, called by a word that no user types. Its stdin comes from the replicator and goes to the command; stdout and
//! stderr are the command's own. As stdin is open for as long as the replicator wants the command, and lives, its end is the order to
//! kill: a replicator that is killed by -9 gives it, too. What the command has started becomes a child of the guard's (a subreaper) when
//! its parent ends, whatever group or session it has moved to; so the guard finds all of it, and ends only when all of that is gone.
//! Nothing is left to whoever is process 1, which may be the replicator.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process, pidfd_open, set_child_subreaper,
    wait,
};

/// The first argument.
pub(in crate::runtime) const WORD: &str = "exec-guard";
/// In the place of a number of bytes: all that comes is for the command.
pub(super) const ALL: &str = "all";

/// The guard itself failed, as `env` and `timeout` say it.
const FAILED: u8 = 125;
/// There is such a command, but it cannot be run.
const NOT_RUNNABLE: u8 = 126;
/// There is none.
const NOT_FOUND: u8 = 127;
/// What a shell adds to the number of the signal that ended a command.
const SIGNALLED: i32 = 128;

/// What a process that runs for long leaves behind is waited for this often.
const REAP_EVERY: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// Where the kernel does not tell when a command ends.
const LOOK_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};
/// Between two looks at what has not ended yet.
const KILL_AGAIN: Duration = Duration::from_millis(2);
/// What cannot be killed in this time, this does not wait for.
const KILL_MAX: Duration = Duration::from_secs(10);

/// `arguments` are how much of stdin is for the command, and the command. Ends as the command does.
pub(in crate::runtime) fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let input = arguments.next();
    let input = input.as_ref().and_then(|input| input.to_str());
    let bytes = input.and_then(|input| input.parse::<usize>().ok());
    let (Some(input), Some(program)) = (input, arguments.next()) else {
        return failed("it is called by a replicator, and by nobody else");
    };
    if bytes.is_none() && input != ALL {
        return failed("it is called by a replicator, and by nobody else");
    }
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        return failed(&format!("cannot become a subreaper: {error}"));
    }
    let Ok(operation) = bytes.map(whole).transpose() else {
        // The replicator is gone, and has not said all: nothing is begun.
        return ExitCode::from(FAILED);
    };
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::piped());
    let mut command = match command.spawn() {
        Ok(command) => command,
        Err(error) => {
            say(&format!("cannot run {}: {error}", program.display()));
            let is_missing = error.kind() == io::ErrorKind::NotFound;
            return ExitCode::from(if is_missing { NOT_FOUND } else { NOT_RUNNABLE });
        }
    };
    if let Some(stdin) = command.stdin.take() {
        thread::spawn(move || pass_on(operation, stdin));
    }
    let ended = watch(&command);
    end_all();
    match ended {
        Some(status) => ExitCode::from(code(status)),
        None => ExitCode::from(FAILED),
    }
}

fn failed(why: &str) -> ExitCode {
    say(&format!("{WORD}: {why}"));
    ExitCode::from(FAILED)
}

fn say(what: &str) {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{what}");
}

/// So many bytes of stdin, and no less.
fn whole(bytes: usize) -> io::Result<Vec<u8>> {
    let mut operation = vec![0; bytes];
    io::stdin().read_exact(&mut operation)?;
    Ok(operation)
}

/// Gives the command what is for it. One that does not read it does not have to.
fn pass_on(operation: Option<Vec<u8>>, mut stdin: ChildStdin) {
    if let Some(operation) = operation {
        let _ = stdin.write_all(&operation);
        return;
    }
    let _ = io::copy(&mut io::stdin().lock(), &mut stdin);
    // The replicator is gone, or the command does not read. It must not take what came last for a whole line, and it is killed if it has to
    // be: so it does not see the end.
    loop {
        thread::park();
    }
}

/// Waits for the end of the command, which this answers, or for that of stdin. What else ends meanwhile is let go.
fn watch(command: &Child) -> Option<WaitStatus> {
    let command = i32::try_from(command.id()).ok().and_then(Pid::from_raw)?;
    let told: Option<OwnedFd> = pidfd_open(command, PidfdFlags::empty()).ok();
    let tick = if told.is_some() { REAP_EVERY } else { LOOK_EVERY };
    let stdin = io::stdin();
    loop {
        // Its end is told, whatever is still to be read.
        let mut looked_at = vec![PollFd::new(&stdin, PollFlags::empty())];
        looked_at.extend(told.as_ref().map(|told| PollFd::new(told, PollFlags::IN)));
        // An error is an interruption.
        let _ = poll(&mut looked_at, Some(&tick));
        let gone = looked_at.first().is_none_or(|stdin| {
            let end = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
            stdin.revents().intersects(end)
        });
        while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
            if ended == command {
                return Some(status);
            }
        }
        if gone {
            return None;
        }
    }
}

/// Kills all that was started and is still there, children of children as well: when their parents have ended, they are this one's.
fn end_all() {
    let begin = Instant::now();
    while begin.elapsed() < KILL_MAX {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            // None is left.
            Err(_) => return,
            Ok(None) => {
                for child in children() {
                    // Nobody else waits for it, so it is still that one.
                    let _ = kill_process(child, Signal::KILL);
                }
                thread::sleep(KILL_AGAIN);
            }
        }
    }
    say(&format!(
        "{WORD}: something that was started cannot be killed within {KILL_MAX:?}, and goes on"
    ));
}

fn children() -> Vec<Pid> {
    let me = getpid();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let children = processes.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        (parent(&stat)? == me.as_raw_nonzero()).then_some(Pid::from_raw(pid)?)
    });
    children.collect()
}

/// Of a process, by its `/proc/PID/stat`: `PID (NAME) STATE PARENT ...`, where a name may have anything in it.
fn parent(stat: &str) -> Option<NonZero<i32>> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(1)?.parse().ok()
}

/// As a shell says it.
fn code(status: WaitStatus) -> u8 {
    let code = status
        .exit_status()
        .or_else(|| Some(SIGNALLED + status.terminating_signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_whatever_a_process_is_called() {
        for (stat, expected) in [
            ("7 (sh) S 3 7 7 0", NonZero::new(3)),
            ("7 (a) b) (c) R 1 7", NonZero::new(1)),
            ("7 ()) 9) Z 42 7", NonZero::new(42)),
            ("1 (init) S 0 1", None),
            ("7 (sh) S", None),
            ("7 (sh", None),
            ("", None),
        ] {
            assert_eq!(parent(stat), expected, "{stat}");
        }
    }
}
