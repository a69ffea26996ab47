//! This system: nodes and replicators, as many of each.

mod build;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::{FutureExt as _, LocalBoxFuture};
use processes::{address::Address, api, http, streams::Streams};
use raftlog_client::{Client, Endpoint, Options, Session};
use raftlog_load::Connection;
use raftlog_proto::v1::Role;
use rustix::process::Signal;

pub(crate) use build::programs as build;

use super::{Clients, Cluster, Description, Kind, Place, Snapshots, System, flag, program, shared, version};
use crate::{
    arguments::{ExecutorOutput, Target},
    disturbance::Disturbance,
    failure::Failure,
    plan::Follower,
    server::{Program, Servers, Voice},
    wait,
};

const NODE: u16 = 0;
const REPLICATOR: u16 = 1;
const NODE_HTTP: u16 = 2;
const REPLICATOR_HTTP: u16 = 3;

/// Streams that fill a log.
const STREAMS: u64 = 8;

/// Its programs, and how they are run.
pub(crate) struct Raftlog {
    node: PathBuf,
    replicator: PathBuf,
    executor_output: ExecutorOutput,
    node_flags: Vec<OsString>,
    description: Description,
}

impl Raftlog {
    /// In that folder, or wherever cargo builds them.
    pub(crate) fn find(
        kind: Kind,
        programs: Option<&Path>,
        executor_output: ExecutorOutput,
    ) -> Result<Self, String> {
        let folder = match programs {
            Some(folder) => folder.to_owned(),
            None => build::programs(&build::SERVERS)?,
        };
        let node = program(&folder.join("raft-node"), "--programs")?;
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
            node_flags: Vec::new(),
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

    /// The same with more flags for each node.
    pub(crate) fn with_node_flags(mut self, flags: impl IntoIterator<Item = OsString>) -> Self {
        self.node_flags.extend(flags);
        self
    }

    /// Starts a cluster, and waits until all of it is ready.
    pub(crate) async fn run(&self, place: &Place<'_>) -> Result<Running, Failure> {
        let replicators = place.numbers().map(|member| self.replicator(place, member));
        let nodes = place.numbers().map(|member| self.node(place, member));
        let programs: Vec<Program<'_>> = replicators.chain(nodes).collect();
        let mut running = Running {
            ports: place.numbers().map(|member| place.port(NODE, member)).collect(),
            http_ports: place
                .numbers()
                .map(|member| place.port(NODE_HTTP, member))
                .collect(),
            replicator_ports: place
                .numbers()
                .map(|member| place.port(REPLICATOR, member))
                .collect(),
            kind: self.description.system,
            target: place.target,
            servers: Servers::start(&programs, place.folder)?,
        };
        for member in place.numbers() {
            let port = place.port(REPLICATOR_HTTP, member);
            let what = format!("replicator {member} to be ready");
            wait::until(&what, &mut running.servers, async || ready(port).await).await?;
        }
        running.wait_until_ready().await?;
        Ok(running)
    }

    /// Starts a node again that has ended.
    pub(crate) fn start_again(
        &self,
        running: &mut Running,
        place: &Place<'_>,
        member: u16,
    ) -> Result<(), Failure> {
        running.servers.add(&self.node(place, member), place.folder)
    }

    fn node(&self, place: &Place<'_>, member: u16) -> Program<'_> {
        let peers: Vec<String> = place
            .numbers()
            .map(|member| format!("{member}={}", place.address(NODE, member)))
            .collect();
        let name = node_name(member);
        let mut arguments = vec![
            flag("id", member),
            flag("listen", place.address(NODE, member)),
            flag("peer", peers.join(",")),
            flag(
                "replicator",
                format_args!("http://{}", place.address(REPLICATOR, member)),
            ),
            flag("http-listen", place.address(NODE_HTTP, member)),
            flag("data-dir", place.folder.join(&name).display()),
        ];
        let every = place.snapshot_every;
        arguments.extend(every.map(|every| flag("snapshot-every-operations", every)));
        arguments.extend(self.node_flags.iter().cloned());
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
        async move { Ok(Box::new(self.run(&place).await?) as Box<dyn Cluster>) }.boxed_local()
    }
}

/// As a node's process is called.
pub(crate) fn node_name(member: u16) -> String {
    format!("node{member}")
}

async fn ready(port: u16) -> Result<(), String> {
    let answer = http::get(port, "/readyz").await?;
    if answer.status == 200 {
        Ok(())
    } else {
        Err(format!("{} {}", answer.status, answer.body.trim()))
    }
}

/// A cluster of this system.
pub(crate) struct Running {
    ports: Vec<u16>,
    http_ports: Vec<u16>,
    replicator_ports: Vec<u16>,
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

    /// Waits until all its nodes are ready, those included that were started again.
    pub(crate) async fn wait_until_ready(&mut self) -> Result<(), Failure> {
        for (member, port) in (1..).zip(self.http_ports.clone()) {
            let what = format!("node {member} to be ready");
            wait::until(&what, &mut self.servers, async || ready(port).await).await?;
        }
        Ok(())
    }

    /// Who leads in the highest term, of those that answer; an error while nobody does.
    pub(crate) async fn leader(&self) -> Result<Leader, String> {
        let mut latest: Option<Leader> = None;
        for (member, &port) in (1..).zip(&self.ports) {
            let Ok(status) = api::status(port).await else {
                continue;
            };
            let term = status.term;
            if status.role() == Role::Leader && latest.is_none_or(|leader| leader.term < term) {
                latest = Some(Leader { member, term });
            }
        }
        latest.ok_or_else(|| "nobody leads".to_owned())
    }

    /// The most operations that any node knows to be committed.
    pub(crate) async fn committed(&self) -> Result<u64, Failure> {
        committed(&self.ports).await.map_err(Failure::new)
    }

    /// Has another member lead, and waits until it does.
    pub(crate) async fn hand_over(&self) -> Result<(), Failure> {
        let handed_over = self.client(0)?.transfer_leadership(None).await;
        handed_over.map(drop).map_err(Failure::new)
    }

    /// kill -9 of a node.
    pub(crate) fn kill(&mut self, member: u16) {
        self.servers.kill(&node_name(member));
    }

    /// Tells a node to stop.
    pub(crate) fn terminate(&mut self, member: u16) -> Result<(), Failure> {
        self.servers.signal(&node_name(member), Signal::TERM)
    }

    /// Whether a node that was told to stop has done so.
    pub(crate) fn has_stopped(&mut self, member: u16) -> bool {
        self.servers.ended(&node_name(member)).is_some()
    }

    /// Where a member's replicator is.
    pub(crate) fn replicator_of(&self, member: u16) -> Option<u16> {
        let place = usize::from(member).checked_sub(1)?;
        self.replicator_ports.get(place).copied()
    }

    /// A counter of every node, added up.
    async fn counted(&self, metric: &str) -> Result<u64, Failure> {
        let mut sum = 0;
        for &port in &self.http_ports {
            let answer = http::get(port, "/metrics").await.map_err(Failure::new)?;
            sum += total_in(&answer.body, metric);
        }
        Ok(sum)
    }

    /// Sessions, each with a connection of its own, that clients share.
    pub(crate) async fn connections(&self, connections: u16) -> Result<Vec<Session>, Failure> {
        self.sessions(connections.into(), connections.into()).await
    }

    /// Of a follower, the first in the order of numbers.
    pub(crate) async fn follower(&self) -> Result<u16, Failure> {
        let leader = self.leader().await.map_err(Failure::new)?.member;
        Ok(if leader == 1 { 2 } else { 1 })
    }

    async fn disturbance(&self, follower: Follower) -> Result<Option<Disturbance>, Failure> {
        if follower == Follower::Well {
            return Ok(None);
        }
        let name = node_name(self.follower().await?);
        let group = self.servers.group(&name);
        let group = group.ok_or_else(|| Failure::new("a cluster of one has no follower; see --members"))?;
        Ok(Disturbance::new(group, follower))
    }

    async fn count_snapshots(&self) -> Result<Snapshots, Failure> {
        Ok(Snapshots {
            taken: self.counted("raftlog_node_snapshots_taken_total").await?,
            installed_bytes: self.counted("raftlog_node_snapshot_bytes_received_total").await?,
        })
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

/// A member, and the term in which it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) member: u16,
    pub(crate) term: u64,
}

/// The sum of a metric over all its labels; 0 where there is none.
fn total_in(metrics: &str, metric: &str) -> u64 {
    let of_metric = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(metric)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest,
        };
        value.strip_prefix(' ')?.split(' ').next()?.parse::<u64>().ok()
    });
    of_metric.sum()
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

    fn disturb(&self, follower: Follower) -> LocalBoxFuture<'_, Result<Option<Disturbance>, Failure>> {
        self.disturbance(follower).boxed_local()
    }

    fn snapshots(&self) -> LocalBoxFuture<'_, Result<Snapshots, Failure>> {
        self.count_snapshots().boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_added_up_over_their_labels() {
        let metrics = "# TYPE a counter\na_total 3\nb_total{peer=\"1\"} 4\nb_total{peer=\"2\"} 5 1700\nb_total_more 9\n";
        assert_eq!(
            ["a_total", "b_total", "c_total"].map(|name| total_in(metrics, name)),
            [3, 9, 0]
        );
    }
}
