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
for group in $groups; do kill -9 -- "-$group"; done 2>/dev/null
"#;

/// Registers a process group for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Registration(u32);

impl Registration {
    pub(crate) fn new(group: u32) -> Self {
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
