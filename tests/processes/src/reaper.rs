//! The last resort against stray processes: a shell that waits for this process to end, however it ends, and then kills
//! every process group that is still registered.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
groups=' '
while read -r change group; do
  case $change in
    add) groups="$groups$group " ;;
    remove) groups="${groups%% "$group" *} ${groups#* "$group" }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done 2>/dev/null
"#;

/// Registers a process group for as long as the value lives.
#[derive(Debug)]
pub struct Registration(u32);

impl Registration {
    /// From now on.
    ///
    /// # Panics
    /// At a group that is not one's own, and where the shell cannot be told.
    pub fn new(group: u32) -> Self {
        assert!(
            group > 1,
            "killing group {group} would kill more than was started here"
        );
        tell("add", group);
        Self(group)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        tell("remove", self.0);
    }
}

fn tell(change: &str, group: u32) {
    static SHELL: OnceLock<Mutex<Child>> = OnceLock::new();
    let shell = SHELL.get_or_init(|| Mutex::new(start()));
    let mut shell = shell.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = shell.stdin.as_mut().expect("its stdin is piped and never taken");
    writeln!(pipe, "{change} {group}").expect("the reaper shell reads until this process ends");
}

fn start() -> Child {
    Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("cannot start sh, which kills stray processes after a killed test run")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};

    /// `kill -9 -- -GROUP` is an error to dash, which ended without having killed anything.
    #[test]
    fn what_is_still_registered_ends_with_the_test() {
        let sleeper = || {
            let mut command = Command::new("sleep");
            command.arg("3600").process_group(0);
            command.spawn().expect("sleep can be started")
        };
        let (mut gone, mut registered, mut removed) = (sleeper(), sleeper(), sleeper());
        let mut shell = start();
        let mut pipe = shell.stdin.take().expect("its stdin is piped");
        for (change, child) in [
            ("add", &gone),
            ("add", &removed),
            ("add", &registered),
            ("remove", &removed),
        ] {
            writeln!(pipe, "{change} {}", child.id()).expect("the shell reads");
        }
        gone.kill().expect("it can be killed");
        gone.wait().expect("it can be waited for");
        drop(pipe);
        shell.wait().expect("it can be waited for");
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut status = None;
        while status.is_none() && Instant::now() < deadline {
            status = registered.try_wait().expect("it can be waited for");
            std::thread::sleep(Duration::from_millis(10));
        }
        let spared = removed.try_wait().expect("it can be waited for").is_none();
        for mut child in [registered, removed] {
            let _ = child.kill();
            let _ = child.wait();
        }
        assert_eq!(status.and_then(|status| status.signal()), Some(9));
        assert!(spared, "what is not registered any more is nobody's to kill");
    }
}
