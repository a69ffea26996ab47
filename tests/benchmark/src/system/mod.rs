//! The systems that are compared: how each is started, connected to and written to. All else is the same for all.

pub(crate) mod echo;
mod etcd;
mod nats;
pub(crate) mod raftlog;
mod zookeeper;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use clap::ValueEnum;
use futures::future::LocalBoxFuture;
use processes::{ports::Ports, requirements};
use raftlog_client::Session;
use raftlog_load::Connection;
use serde::Serialize;

use crate::{
    arguments::{Arguments, Target},
    disturbance::Disturbance,
    failure::Failure,
    plan::{Follower, Load},
    server::Servers,
};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A server that answers at once: the ceiling
    Echo,
    /// This system, one operation a call
    Raftlog,
    /// This system, by `SubmitStream`
    RaftlogStream,
    /// etcd
    Etcd,
    /// NATS JetStream, which syncs before it acknowledges
    Nats,
    /// NATS JetStream as it comes, which syncs every two minutes
    NatsDefaultSync,
    /// ZooKeeper
    Zookeeper,
}

impl Kind {
    /// As it is called here.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Raftlog => "raftlog",
            Self::RaftlogStream => "raftlog-stream",
            Self::Etcd => "etcd",
            Self::Nats => "nats",
            Self::NatsDefaultSync => "nats-default-sync",
            Self::Zookeeper => "zookeeper",
        }
    }

    /// Whether it can be given a long log, a slow follower and snapshots.
    pub(crate) fn is_own(self) -> bool {
        matches!(self, Self::Raftlog | Self::RaftlogStream | Self::Echo)
    }

    /// Whether there is a way to bring that load.
    pub(crate) fn takes(self, load: Load) -> bool {
        self != Self::RaftlogStream || matches!(load, Load::Clients(_))
    }
}

/// What is to be known about a system beside its numbers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Description {
    pub(crate) system: Kind,
    pub(crate) version: String,
    /// What a client sends, and with which client.
    pub(crate) operation: String,
    /// Where an operation is when it is acknowledged.
    pub(crate) durability: &'static str,
    /// What executes operations, and where that prints to.
    pub(crate) executor: String,
}

/// A system whose programs are there.
pub(crate) trait System {
    fn describe(&self) -> &Description;

    /// Starts a cluster, and waits until it takes operations.
    fn start<'a>(&'a self, place: Place<'a>) -> LocalBoxFuture<'a, Result<Box<dyn Cluster>, Failure>>;
}

/// Where a cluster goes.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Its own, and empty.
    pub(crate) folder: &'a Path,
    pub(crate) ports: &'a Ports,
    pub(crate) members: u16,
    pub(crate) target: Target,
    /// Operations between two snapshots, if that is given.
    pub(crate) snapshot_every: Option<u64>,
}

impl Place<'_> {
    /// 1, 2, ...
    pub(crate) fn numbers(&self) -> std::ops::RangeInclusive<u16> {
        1..=self.members
    }

    /// The port that a member has for the purpose of this number.
    pub(crate) fn port(&self, purpose: u16, member: u16) -> u16 {
        self.ports.at(purpose * 10 + member)
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self, purpose: u16, member: u16) -> String {
        format!("127.0.0.1:{}", self.port(purpose, member))
    }

    /// The members to connect to, in turn.
    pub(crate) fn targets(&self, leader: u16) -> Vec<u16> {
        match self.target {
            Target::Leader => vec![leader],
            Target::All => self.numbers().collect(),
        }
    }
}

/// What a load goes through.
pub(crate) enum Clients {
    /// Shared by all clients, whose number is up to the load.
    Shared(Vec<Arc<dyn Connection>>),
    /// A stream for each.
    Streams(Vec<Session>),
}

/// A cluster that runs. It is gone when this is dropped.
pub(crate) trait Cluster {
    fn servers(&mut self) -> &mut Servers;

    /// Connects `clients` clients by that many connections, or fewer where there are fewer clients.
    fn connect(&self, connections: u16, clients: u16) -> LocalBoxFuture<'_, Result<Clients, Failure>>;

    /// Writes until there are so many operations of so many bytes.
    fn fill(&mut self, operations: u64, bytes: usize) -> LocalBoxFuture<'_, Result<(), Failure>> {
        let _ = (operations, bytes);
        Box::pin(async { Ok(()) })
    }

    /// What is to be done to one of the followers meanwhile.
    fn disturb(&self, follower: Follower) -> LocalBoxFuture<'_, Result<Option<Disturbance>, Failure>> {
        let _ = follower;
        Box::pin(async { Ok(None) })
    }

    /// What it has counted so far.
    fn snapshots(&self) -> LocalBoxFuture<'_, Result<Snapshots, Failure>> {
        Box::pin(async { Ok(Snapshots::default()) })
    }
}

/// What nodes have counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshots {
    /// Taken, by all of them.
    pub(crate) taken: u64,
    /// Of snapshots that followers were sent.
    pub(crate) installed_bytes: u64,
}

/// The system, if its programs are there; otherwise why not.
pub(crate) fn find(kind: Kind, arguments: &Arguments) -> Result<Box<dyn System>, String> {
    let programs = &arguments.programs;
    Ok(match kind {
        Kind::Echo => Box::new(echo::Echo::find()?),
        Kind::Raftlog | Kind::RaftlogStream => {
            let executor_output = arguments.settings.executor_output;
            let folder = programs.own.programs.as_deref();
            Box::new(raftlog::Raftlog::find(kind, folder, executor_output)?)
        }
        Kind::Etcd => Box::new(etcd::Etcd::find(&programs.etcd)?),
        Kind::Nats | Kind::NatsDefaultSync => Box::new(nats::Nats::find(kind, &programs.nats_server)?),
        Kind::Zookeeper => Box::new(zookeeper::Zookeeper::find(programs)?),
    })
}

/// Where a program is: itself, where it has a folder, otherwise on PATH.
pub(crate) fn program(name: &Path, flag: &str) -> Result<PathBuf, String> {
    let place = if name.components().count() > 1 {
        Some(name.to_owned()).filter(|path| path.is_file())
    } else {
        name.to_str().and_then(requirements::tool)
    };
    place.ok_or_else(|| {
        format!(
            "there is no program {}; install it, or say where it is with {flag}",
            name.display()
        )
    })
}

/// The first line that a program says about its version, behind `prefix`.
fn version(program: &Path, flag: &str, prefix: &str) -> Result<String, String> {
    version_of(Command::new(program).arg(flag), prefix)
}

fn version_of(command: &mut Command, prefix: &str) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.output();
    let output = output.map_err(|error| format!("cannot run {shown}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(format!("{shown} says nothing: is it the right program?"));
    }
    Ok(line.strip_prefix(prefix).unwrap_or(line).trim().to_owned())
}

/// Formats as `--flag=value`.
pub(crate) fn flag(name: &str, value: impl std::fmt::Display) -> OsString {
    format!("--{name}={value}").into()
}

/// How many connections so many clients share.
fn shared(connections: u16, clients: u16) -> usize {
    usize::from(connections.min(clients).max(1))
}

/// So many connections to these targets in turn, each with its number, shared by all clients.
async fn connect_each<'a, T, C: Connection + 'static>(
    targets: &'a [T],
    count: usize,
    connect: impl AsyncFn(usize, &'a T) -> Result<C, String>,
) -> Result<Clients, Failure> {
    let mut made: Vec<Arc<dyn Connection>> = Vec::new();
    for (number, target) in targets.iter().cycle().take(count).enumerate() {
        made.push(Arc::new(connect(number, target).await.map_err(Failure::new)?));
    }
    Ok(Clients::Shared(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for kind in Kind::value_variants() {
            let value = kind.to_possible_value().unwrap();
            assert_eq!(value.get_name(), kind.name());
        }
    }

    #[test]
    fn programs_are_found_on_path_or_where_they_are_said_to_be() {
        assert!(program(Path::new("sh"), "--sh").unwrap().is_absolute());
        assert_eq!(
            program(Path::new("/bin/sh"), "--sh").unwrap(),
            Path::new("/bin/sh")
        );
        for missing in ["no-such-program", "/bin/no-such-program"] {
            let why = program(Path::new(missing), "--flag").unwrap_err();
            assert!(why.contains(missing) && why.contains("--flag"), "{why}");
        }
    }

    #[test]
    fn a_connection_without_clients_is_not_made() {
        assert_eq!(
            [shared(8, 1), shared(8, 8), shared(8, 256), shared(8, 0)],
            [1, 8, 8, 1]
        );
    }
}
