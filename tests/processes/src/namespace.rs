//! A network namespace, or one with mounts of its own too, that is there for as long as a process of ours holds it: nothing
//! of it is named anywhere, so nothing is left behind, not even by a test that is killed.

use crate::reaper::Registration;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The holder: it is in its namespaces once it says so, and ends with the process that holds its standard input.
const HOLDER: &str = "echo ready; exec cat";

/// The namespaces. Dropped, they vanish together with what is in them as soon as no process is in them any more.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    _registration: Registration,
}

impl Namespace {
    /// A network without any device that is up.
    ///
    /// # Errors
    /// Where this process may not make one.
    pub fn network() -> Result<Self, String> {
        Self::hold(&["--net"])
    }

    /// The same, with mounts that nobody outside sees.
    ///
    /// # Errors
    /// Where this process may not make one.
    pub fn network_and_mounts() -> Result<Self, String> {
        Self::hold(&["--net", "--mount"])
    }

    fn hold(kinds: &[&str]) -> Result<Self, String> {
        let mut holder = Command::new("unshare")
            .args(kinds)
            .args(["sh", "-c", HOLDER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot run unshare: {error}"))?;
        let registration = Registration::new(holder.id());
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(|error| format!("cannot read from unshare: {error}"))?;
        if line != "ready\n" {
            return Err(format!(
                "unshare failed: {}",
                said(
                    &holder
                        .wait_with_output()
                        .map_err(|error| error.to_string())?
                        .stderr
                )
            ));
        }
        Ok(Self {
            holder,
            _registration: registration,
        })
    }

    /// The process that holds it.
    pub fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// Where its files are, seen from outside.
    pub fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.holder()).into()
    }

    /// The command that runs a program in it.
    pub fn launcher(&self) -> Vec<String> {
        let holder = self.holder().to_string();
        ["nsenter", "--target", &holder, "--net", "--mount"]
            .map(str::to_owned)
            .to_vec()
    }

    /// Moves the calling thread into its network, and with it all threads and processes that this one starts from now on.
    ///
    /// # Errors
    /// Where this process may not.
    pub fn enter_network(&self) -> Result<(), String> {
        let file = format!("/proc/{}/ns/net", self.holder());
        let namespace = File::open(&file).map_err(|error| format!("cannot open {file}: {error}"))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("cannot enter {file}: {error}"))
    }

    /// Runs `command` in it, with `stdin`, to its end, and gives its stdout.
    ///
    /// # Errors
    /// When it fails: what it said.
    pub fn run(&self, command: &[&str], stdin: &str) -> Result<String, String> {
        let launcher = self.launcher();
        let (nsenter, flags) = launcher.split_first().expect("it names a program");
        let told = |why: String| format!("{}: {why}", command.join(" "));
        let mut child = Command::new(nsenter)
            .args(flags)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| told(error.to_string()))?;
        let mut pipe = child.stdin.take().expect("stdin is piped");
        // A command that fails early does not read it; what it says then is worth more.
        let written = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        let output = child
            .wait_with_output()
            .map_err(|error| told(error.to_string()))?;
        if !output.status.success() {
            return Err(told(said(&output.stderr)));
        }
        written.map_err(|error| told(error.to_string()))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn said(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).trim().replace('\n', "; ")
}
