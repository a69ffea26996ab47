//! Breaking the cluster's machines, by a command that whoever runs the tests gives.
//!
//! It is called with a machine's name in Kubernetes and what is to be done: `isolate` (cut it off), `heal`, `crash` (kill all that
//! runs on it at once), `restart`, or `run COMMAND...`, which runs a program of this machine in that one's network.

use std::process::Command;

use crate::command::{root, run, try_run};
use crate::requirements;

/// Names the command.
pub const VARIABLE: &str = "RAFT_TEST_NODE_FAULT";

/// The command.
#[derive(Debug, Clone)]
pub struct Machines {
    command: String,
}

/// What can happen to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its cable is cut: what runs on it runs on.
    Isolation,
    /// All that runs on it is killed at once.
    Crash,
}

/// A machine that is broken, until this is dropped.
#[derive(Debug)]
pub struct Broken<'a> {
    machines: &'a Machines,
    machine: String,
    fault: Fault,
}

impl Machines {
    /// If the command is given; otherwise `test` is skipped.
    pub fn given(test: &str) -> Option<Self> {
        let command = requirements::variable(test, VARIABLE)?;
        Some(Self { command })
    }

    /// Breaks that machine.
    ///
    /// # Panics
    /// Where that does not work.
    pub fn break_it(&self, machine: &str, fault: Fault) -> Broken<'_> {
        let verb = match fault {
            Fault::Isolation => "isolate",
            Fault::Crash => "crash",
        };
        let broken = Broken {
            machines: self,
            machine: machine.to_owned(),
            fault,
        };
        run(&self.command, &[machine, verb]);
        broken
    }

    /// A command that runs a program of this machine in that machine's network.
    pub fn inside(&self, machine: &str, program: &str) -> Command {
        let mut command = Command::new(&self.command);
        command.args([machine, "run", program]).current_dir(root());
        command
    }
}

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        let verb = match self.fault {
            Fault::Isolation => "heal",
            Fault::Crash => "restart",
        };
        if let Err(why) = try_run(&self.machines.command, &[&self.machine, verb]) {
            println!("{} stays broken: {why}", self.machine);
        }
    }
}
