//! This system: nodes and replicators, as many of each.

mod build;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::future::{FutureExt as _, LocalBoxFuture};
use processes::{address::Address, api, http, streams::Streams};
use raftlog_client::{Client, Endpoint, Options, Session};
use raftlog_load::Connection;

use super::{Clients, Cluster, Description, Kind, Place, System, flag, program, shared, version};
use crate::{
    arguments::{Arguments, ExecutorOutput, Target},
    failure::Failure,
    server::{Program, Servers, Voice},
    wait,
};

const NODE: u16 = 0;
const REPLICATOR: u16 = 1;
const NODE_HTTP: u16 = 2;
const REPLICATOR_HTTP: u16 = 3;

/// Streams that fill a log.
const STREAMS: u64 = 8;

pub(super) struct Raftlog {
    node: PathBuf,
    replicator: PathBuf,
    executor_output: ExecutorOutput,
    description: Description,
}

impl Raftlog {
    pub(super) fn find(kind: Kind, arguments: &Arguments) -> Result<Self, String> {
        let folder = match &arguments.programs.programs {
            Some(folder) => folder.clone(),
            None => build::programs()?,
        };
        let node = program(&folder.join("raft-node"), "--programs")?;
        let executor_output = arguments.settings.executor_output;
        let operation = match kind {
            Kind::RaftlogStream => "SubmitStream, 1024 under way in each stream, by raftlog-client",
            _ => "SubmitClientRequest, exactly once in a session for each connection, by raftlog-client",
        };
        let place = match executor_output {
            ExecutorOutput::Null => "/dev/null",
            ExecutorOutput::File => "a file beside the data",
        };
        Ok(Self {
            replicator: program(&folder.join("raft-replicator"), "--programs")?,
            executor_output,
            description: Description {
                system: kind,
                version: version(&node, "--version", "raft-node ")?,
                operation: operation.to_owned(),
                durability: "fdatasync at a majority",
                executor: format!("log, on every member, stdout to {place}"),
            },
            node,
        })
    }

    fn programs(&self, place: &Place<'_>) -> Vec<Program<'_>> {
        let peers: Vec<String> = place
            .numbers()
            .map(|member| format!("{member}={}", place.address(NODE, member)))
            .collect();
        let peers = peers.join(",");
        let replicators = place.numbers().map(|member| self.replicator(place, member));
        let nodes = place.numbers().map(|member| self.node(place, member, &peers));
        replicators.chain(nodes).collect()
    }

    fn node(&self, place: &Place<'_>, member: u16, peers: &str) -> Program<'_> {
        let name = format!("node{member}");
        let arguments = [
            flag("id", member),
            flag("listen", place.address(NODE, member)),
            flag("peer", peers),
            flag(
                "replicator",
                format_args!("http://{}", place.address(REPLICATOR, member)),
            ),
            flag("http-listen", place.address(NODE_HTTP, member)),
            flag("data-dir", place.folder.join(&name).display()),
        ];
        Program::new(name, &self.node, arguments, Voice::Null)
    }

    fn replicator(&self, place: &Place<'_>, member: u16) -> Program<'_> {
        let name = format!("q4node{member}");
        let arguments = [
            flag("id", member),
            flag("name", &name),
            flag("listen", place.address(REPLICATOR, member)),
            flag("http-listen", place.address(REPLICATOR_HTTP, member)),
            flag("data-dir", place.folder.join(&name).display()),
        ];
        let voice = match self.executor_output {
            ExecutorOutput::Null => Voice::Null,
            ExecutorOutput::File => Voice::File(place.folder.join(format!("{name}.out"))),
        };
        Program::new(name, &self.replicator, arguments, voice)
    }
}

impl System for Raftlog {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn start<'a>(&'a self, place: Place<'a>) -> LocalBoxFuture<'a, Result<Box<dyn Cluster>, Failure>> {
        async move {
            let mut servers = Servers::start(&self.programs(&place), place.folder)?;
            for member in place.numbers() {
                for (what, purpose) in [("replicator", REPLICATOR_HTTP), ("node", NODE_HTTP)] {
                    let port = place.port(purpose, member);
                    wait::until(
                        &format!("{what} {member} to be ready"),
                        &mut servers,
                        async || ready(port).await,
                    )
                    .await?;
                }
            }
            Ok(Box::new(Running {
                ports: place.numbers().map(|member| place.port(NODE, member)).collect(),
                kind: self.description.system,
                target: place.target,
                servers,
            }) as Box<dyn Cluster>)
        }
        .boxed_local()
    }
}

async fn ready(port: u16) -> Result<(), String> {
    let answer = http::get(port, "/readyz").await?;
    if answer.status == 200 {
        Ok(())
    } else {
        Err(format!("{} {}", answer.status, answer.body.trim()))
    }
}

struct Running {
    ports: Vec<u16>,
    kind: Kind,
    target: Target,
    servers: Servers,
}

impl Running {
    /// A client with a connection of its own. With all members as targets, number `number` stays with the one whose turn it is.
    fn client(&self, number: usize) -> Result<Client, Failure> {
        let mut ports = self.ports.clone();
        let turn = number % ports.len().max(1);
        ports.rotate_left(turn);
        let endpoints = ports
            .iter()
            .map(|port| Endpoint::parse(&format!("127.0.0.1:{port}")))
            .collect::<Result<_, _>>()
            .map_err(Failure::new)?;
        let options = Options {
            follow_leader: self.target == Target::Leader,
            ..Options::default()
        };
        Client::new(endpoints, options).map_err(Failure::new)
    }

    async fn sessions(&self, connections: usize, sessions: usize) -> Result<Vec<Session>, Failure> {
        let clients: Vec<Client> = (0..connections)
            .map(|number| self.client(number))
            .collect::<Result<_, _>>()?;
        let mut opened = Vec::new();
        for client in clients.iter().cycle().take(sessions) {
            opened.push(client.open_session().await.map_err(Failure::new)?);
        }
        Ok(opened)
    }

    async fn fill_up_to(&mut self, operations: u64, bytes: usize) -> Result<(), Failure> {
        let committed = committed(&self.ports).await.map_err(Failure::new)?;
        let missing = operations.saturating_sub(committed);
        let addresses: Vec<Address> = self.ports.iter().map(|&port| port.into()).collect();
        let mut streams = Streams::start(&addresses, STREAMS, missing, bytes).await;
        while streams.acknowledged() < missing {
            self.servers.check()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What is left to execute would be executed while something is measured.
        let ports = &self.ports;
        wait::until("all operations to be executed", &mut self.servers, async || {
            executed(ports, operations).await
        })
        .await
    }
}

/// The most operations that any node knows to be committed.
async fn committed(ports: &[u16]) -> Result<u64, String> {
    let mut most = 0;
    for &port in ports {
        let status = api::status(port).await.map_err(|status| status.to_string())?;
        most = most.max(status.commit_index);
    }
    Ok(most)
}

/// Fails unless every replicator has executed so many.
async fn executed(ports: &[u16], operations: u64) -> Result<(), String> {
    for &port in ports {
        let status = api::status(port).await.map_err(|status| status.to_string())?;
        let executed = status
            .replicator
            .map_or(0, |replicator| replicator.executed_index);
        if executed < operations {
            return Err(format!("{executed} of {operations} are"));
        }
    }
    Ok(())
}

impl Cluster for Running {
    fn servers(&mut self) -> &mut Servers {
        &mut self.servers
    }

    fn connect(&self, connections: u16, clients: u16) -> LocalBoxFuture<'_, Result<Clients, Failure>> {
        async move {
            let connections = shared(connections, clients);
            if self.kind == Kind::RaftlogStream {
                let sessions = self.sessions(connections, clients.into()).await?;
                return Ok(Clients::Streams(sessions));
            }
            let sessions = self.sessions(connections, connections).await?;
            let shared = sessions
                .into_iter()
                .map(|session| Arc::new(session) as Arc<dyn Connection>);
            Ok(Clients::Shared(shared.collect()))
        }
        .boxed_local()
    }

    fn fill(&mut self, operations: u64, bytes: usize) -> LocalBoxFuture<'_, Result<(), Failure>> {
        self.fill_up_to(operations, bytes).boxed_local()
    }
}
