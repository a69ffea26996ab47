//! Runs `kubectl`, `helm` and the like.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Whether that program is on PATH.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// What it says on stdout; or all that it says, where it fails. It runs in the checkout.
pub fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = in_checkout(program, arguments).stdin(Stdio::null()).output();
    judge(program, arguments, output)
}

/// The same for a program that reads `input`.
pub fn try_run_with(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let spawned = in_checkout(program, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let output = spawned.and_then(|mut child| {
        // What it reads is short: it fits into the pipe, whatever it writes meanwhile.
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    });
    judge(program, arguments, output)
}

/// With a bound: `kubectl delete` may wait for ever for a pod that was made anew in the same moment.
fn in_checkout(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["5m", program]).args(arguments).current_dir(root());
    command
}

fn judge(program: &str, arguments: &[&str], output: std::io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "`{program} {}` failed: {}\n{complaint}{said}",
        arguments.join(" "),
        output.status
    ))
}

/// What it says on stdout.
///
/// # Panics
/// Where it fails, with all that it says.
pub fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).unwrap_or_else(|why| panic!("{why}"))
}
