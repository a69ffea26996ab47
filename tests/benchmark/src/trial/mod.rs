//! What is measured of this system alone, each by a command of its own. Results are written as the comparison's are.

pub(crate) mod budget;
pub(crate) mod failover;
pub(crate) mod idle;
pub(crate) mod memory;
pub(crate) mod watch;

use std::{io::Write as _, path::Path};

use processes::ports::Ports;
use serde::Serialize;
use tempfile::TempDir;

use crate::{
    arguments::{Folders, Target},
    failure::Failure,
    machine::Machine,
    report, run,
    system::Place,
};

/// Where a cluster runs.
struct Stage {
    folder: TempDir,
    ports: Ports,
    members: u16,
}

impl Stage {
    fn new(folders: &Folders, members: u16) -> Result<Self, Failure> {
        Ok(Self {
            folder: run::data_folder(folders)?,
            ports: Ports::claim(),
            members,
        })
    }

    fn place(&self) -> Place<'_> {
        Place {
            folder: self.folder.path(),
            ports: &self.ports,
            members: self.members,
            target: Target::Leader,
            snapshot_every: None,
        }
    }

    /// Removes what it left, unless that is to be kept.
    fn end(self, folders: &Folders) {
        if folders.keep {
            eprintln!("data and logs are in {}", self.folder.keep().display());
        }
    }
}

/// As it is written to a file.
#[derive(Serialize)]
struct Findings<'a, T> {
    /// The command that all of this comes from.
    command: String,
    machine: Machine,
    /// Whether the load generator was.
    optimized: bool,
    found: &'a T,
}

/// Prints the table, and writes it with everything as JSON, and further files beside them.
fn publish<T: Serialize>(
    name: &str,
    folders: &Folders,
    table: &str,
    found: &T,
    further: &[(String, String)],
) -> Result<(), Failure> {
    let Folders { folder, output, .. } = folders;
    let findings = Findings {
        command: run::command(),
        machine: Machine::describe(folder),
        optimized: !cfg!(debug_assertions),
        found,
    };
    let mut text = format!("{table}\n{}\n{}\n", findings.machine.in_words(), findings.command);
    if !findings.optimized {
        text.push_str("The load generator is not optimized: run with --release.\n");
    }
    let json = serde_json::to_string_pretty(&findings)
        .map_err(|error| Failure::new(format!("cannot write results as JSON: {error}")))?;
    let mut files = vec![
        (format!("{name}.md"), text.clone()),
        (format!("{name}.json"), json + "\n"),
    ];
    files.extend_from_slice(further);
    for (file, content) in &files {
        report::write(&output.join(file), content)?;
    }
    // Whoever has read enough of it is not told the rest.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let names: Vec<&str> = files.iter().map(|(file, _)| file.as_str()).collect();
    eprintln!("written to {}: {}", output.display(), names.join(", "));
    Ok(())
}

/// In the folder that was given, or wherever cargo builds it: raftctl starts the programs beside it.
fn demo_program(programs: Option<&Path>) -> Result<std::path::PathBuf, String> {
    let folder = match programs {
        Some(folder) => folder.to_owned(),
        None => crate::system::raftlog::build(&["raftlog-server", "raftlog-replicator", "raftctl"])?,
    };
    crate::system::program(&folder.join("raftctl"), "--programs")
}
