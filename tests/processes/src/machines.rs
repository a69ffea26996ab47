//! A program beside each replicator that is handed every operation: a state machine.

use crate::binaries;
use crate::cluster::{Options, Program};
use crate::ledger::Python;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tempfile::TempDir;

/// Which program.
#[derive(Debug)]
pub enum Kind {
    /// The store in Rust.
    KeyValue,
    /// The ledger in Python.
    Ledger(Python),
}

/// One for each node of a cluster.
#[derive(Debug)]
pub struct Machines {
    programs: BTreeMap<u32, Program>,
    // What they need while they run.
    _kind: Kind,
    _folder: TempDir,
}

impl Machines {
    /// Has the replicators of a cluster that is still to be started call these, of which none runs yet. Each has its data where its node has
    /// them, if that is said.
    ///
    /// # Panics
    /// When there is no room for a folder.
    pub fn beside(options: &mut Options, kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("cannot make a temporary folder");
        let url = format!("unix://{}/{{node}}", folder.path().display());
        let flags = ["--executor", "state-machine", "--state-machine", &url];
        options.replicator_flags.extend(flags.map(str::to_owned));
        let program = |node: u32| {
            let place = options.volumes.get(&node).map_or(folder.path(), PathBuf::as_path);
            let data = place.join(format!("machine{node}"));
            let host = options.hosts.get(&node);
            let mut launcher = host.map(|host| host.launcher.clone()).unwrap_or_default();
            let listen = url.replace("{node}", &node.to_string());
            launcher.extend([
                "env".to_owned(),
                format!("STATE_MACHINE_LISTEN={listen}"),
                format!("STATE_MACHINE_DATA_DIR={}", data.display()),
            ]);
            let binary = match &kind {
                Kind::KeyValue => binaries::path("key-value").to_owned(),
                Kind::Ledger(python) => {
                    launcher.extend(python.launcher());
                    python.script()
                }
            };
            (
                node,
                Program::launched(format!("machine{node}"), launcher, binary, data),
            )
        };
        Self {
            programs: (1..=options.nodes).map(program).collect(),
            _kind: kind,
            _folder: folder,
        }
    }

    /// Starts whatever is not running.
    pub fn start_all(&mut self) {
        for program in self.programs.values_mut() {
            if !program.is_running() {
                program.start();
            }
        }
    }

    /// A node's.
    ///
    /// # Panics
    /// Without such a node.
    pub fn of(&mut self, node: u32) -> &mut Program {
        self.programs
            .get_mut(&node)
            .expect("a node number of this cluster")
    }

    /// Several nodes'.
    pub fn of_all(&mut self, nodes: &BTreeSet<u32>) -> Vec<&mut Program> {
        let chosen = self.programs.iter_mut().filter(|(node, _)| nodes.contains(node));
        chosen.map(|(_, program)| program).collect()
    }
}
