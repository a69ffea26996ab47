//! Which program this binary is, by the name it is called by.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

/// Set for the children of a demo: the process ID of their parent. A child ends when its parent does, however that ends.
pub(crate) const PARENT_VARIABLE: &str = "RAFTCTL_DEMO_PARENT";

/// The programs that are linked into this binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Raftctl,
    RaftNode,
    RaftReplicator,
}

impl Program {
    /// By the file name of the first argument; any other name is `raftctl`.
    pub(crate) fn called_as(name: &OsStr) -> Self {
        match Path::new(name).file_name().and_then(OsStr::to_str) {
            Some("raft-node") => Self::RaftNode,
            Some("raft-replicator") => Self::RaftReplicator,
            _ => Self::Raftctl,
        }
    }

    /// Its name, which is also what it has to be called as.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raftctl => "raftctl",
            Self::RaftNode => "raft-node",
            Self::RaftReplicator => "raft-replicator",
        }
    }

    /// Runs it to its end.
    pub(crate) fn main(self, called_as: OsString, arguments: impl Iterator<Item = OsString>) -> ExitCode {
        if let Err(message) = end_with_parent() {
            return raftlog_telemetry::exit::failed(self.name(), &message);
        }
        let all = std::iter::once(called_as).chain(arguments);
        match self {
            Self::Raftctl => crate::run::main(all),
            Self::RaftNode => raftlog_server::main(all),
            Self::RaftReplicator => raftlog_replicator::main(all),
        }
    }
}

/// Where a demo's parent is named, asks the kernel to kill this process as soon as that parent is gone.
fn end_with_parent() -> Result<(), String> {
    let Some(parent) = std::env::var_os(PARENT_VARIABLE) else {
        return Ok(());
    };
    let parent = parent.to_str().and_then(|text| text.parse::<i32>().ok());
    let signal = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal).map_err(|error| {
        format!("cannot ask to end with the demo: {error}; unset {PARENT_VARIABLE} to run alone")
    })?;
    // It may have gone before the kernel was asked.
    let present = rustix::process::getppid()
        .map(rustix::process::Pid::as_raw_nonzero)
        .map(std::num::NonZeroI32::get);
    if parent.is_none() || present != parent {
        return Err(format!(
            "the demo that started this process is gone; unset {PARENT_VARIABLE} to run alone"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides() {
        for (name, expected) in [
            ("raftctl", Program::Raftctl),
            ("/usr/local/bin/raftctl", Program::Raftctl),
            ("raft-node", Program::RaftNode),
            ("./raft-node", Program::RaftNode),
            ("/bin/raft-replicator", Program::RaftReplicator),
            ("raft-node-2", Program::Raftctl),
            ("", Program::Raftctl),
        ] {
            assert_eq!(Program::called_as(OsStr::new(name)), expected, "{name}");
        }
        for program in [Program::Raftctl, Program::RaftNode, Program::RaftReplicator] {
            assert_eq!(Program::called_as(OsStr::new(program.name())), program);
        }
    }
}
