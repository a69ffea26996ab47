//! Which processes a demo consists of, and how each is called: pure.

use std::{ffi::OsString, path::Path, time::Duration};

use crate::program::Program;

/// How far above the nodes' ports the replicators' are.
const REPLICATORS_ABOVE: u16 = 1000;
/// How far above the nodes' ports the nodes' HTTP ports are.
const NODE_HTTP_ABOVE: u16 = 3000;
/// How far above the nodes' ports the replicators' HTTP ports are.
const REPLICATOR_HTTP_ABOVE: u16 = 4000;

/// The session of the demo's test client.
const CLIENT_ID: &str = "demo";

/// What a process of the demo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Node,
    /// With the number of its node.
    Replicator(u16),
    Client,
}

impl Role {
    /// When it stops, from 1 on: first whoever uses the others.
    pub(super) fn stops(self) -> u8 {
        match self {
            Self::Client => 1,
            Self::Node => 2,
            Self::Replicator(_) => 3,
        }
    }
}

/// One process of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// As its lines are prefixed.
    pub(super) name: String,
    pub(super) role: Role,
    /// Of its node; 0 for the client.
    pub(super) number: u16,
    pub(super) program: Program,
    pub(super) arguments: Vec<OsString>,
    /// What it listens on, on 127.0.0.1.
    pub(super) ports: Vec<u16>,
}

/// What to start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options<'a> {
    pub(super) nodes: u16,
    pub(super) base_port: u16,
    pub(super) data: &'a Path,
    pub(super) interval: Duration,
    pub(super) operations: Option<u64>,
}

/// All processes, in the order in which to start them: replicators first, as nodes look for them at once.
pub(super) fn processes(options: &Options<'_>) -> Vec<Process> {
    let numbers = || 1..=options.nodes;
    numbers()
        .map(|number| replicator(options, number))
        .chain(numbers().map(|number| node(options, number)))
        .chain([client(options)])
        .collect()
}

fn port(options: &Options<'_>, number: u16, above: u16) -> u16 {
    let port = options
        .base_port
        .checked_add(above)
        .and_then(|base| base.checked_add(number - 1));
    port.expect("the flag's range leaves room for all ports")
}

fn address(port: u16) -> OsString {
    format!("127.0.0.1:{port}").into()
}

fn replicator(options: &Options<'_>, number: u16) -> Process {
    let name = format!("q4node{number}");
    let (listen, http) = (
        port(options, number, REPLICATORS_ABOVE),
        port(options, number, REPLICATOR_HTTP_ABOVE),
    );
    let arguments = vec![
        "--id".into(),
        number.to_string().into(),
        "--name".into(),
        name.clone().into(),
        "--listen".into(),
        address(listen),
        "--http-listen".into(),
        address(http),
        "--data-dir".into(),
        options.data.join(&name).into(),
    ];
    Process {
        name,
        role: Role::Replicator(number),
        number,
        program: Program::RaftReplicator,
        arguments,
        ports: vec![listen, http],
    }
}

fn node(options: &Options<'_>, number: u16) -> Process {
    let name = format!("node{number}");
    let (listen, http) = (port(options, number, 0), port(options, number, NODE_HTTP_ABOVE));
    let peers: Vec<String> = (1..=options.nodes)
        .map(|peer| format!("{peer}=127.0.0.1:{}", port(options, peer, 0)))
        .collect();
    let replicator = port(options, number, REPLICATORS_ABOVE);
    let arguments = vec![
        "--id".into(),
        number.to_string().into(),
        "--listen".into(),
        address(listen),
        "--peer".into(),
        peers.join(",").into(),
        "--replicator".into(),
        format!("http://127.0.0.1:{replicator}").into(),
        "--replicator-name".into(),
        format!("q4node{number}").into(),
        "--http-listen".into(),
        address(http),
        "--data-dir".into(),
        options.data.join(&name).into(),
    ];
    Process {
        name,
        role: Role::Node,
        number,
        program: Program::RaftNode,
        arguments,
        ports: vec![listen, http],
    }
}

fn client(options: &Options<'_>) -> Process {
    let (first, last) = (port(options, 1, 0), port(options, options.nodes, 0));
    let mut arguments = vec![
        "--endpoints".into(),
        format!("127.0.0.1:{first}..{last}").into(),
        "client".into(),
        "--interval".into(),
        humantime::format_duration(options.interval).to_string().into(),
        "--client-id".into(),
        CLIENT_ID.into(),
    ];
    if let Some(operations) = options.operations {
        arguments.extend(["--count".into(), operations.to_string().into()]);
    }
    Process {
        name: "client".to_owned(),
        role: Role::Client,
        number: 0,
        program: Program::Raftctl,
        arguments,
        ports: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn options(nodes: u16, base_port: u16) -> Options<'static> {
        let data = Path::new("/data");
        Options {
            nodes,
            base_port,
            data,
            interval: Duration::from_millis(1500),
            operations: Some(3),
        }
    }

    fn line(process: &Process) -> String {
        let arguments: Vec<&str> = process
            .arguments
            .iter()
            .map(|argument| argument.to_str().unwrap())
            .collect();
        format!("{} {}", process.program.name(), arguments.join(" "))
    }

    #[test]
    fn every_process_is_called_as_by_hand() {
        let processes = processes(&options(2, 5001));
        let names: Vec<&str> = processes.iter().map(|process| process.name.as_str()).collect();
        assert_eq!(names, ["q4node1", "q4node2", "node1", "node2", "client"]);
        assert_eq!(
            line(&processes[1]),
            "raft-replicator --id 2 --name q4node2 --listen 127.0.0.1:6002 --http-listen 127.0.0.1:9002 --data-dir /data/q4node2"
        );
        assert_eq!(
            line(&processes[2]),
            "raft-node --id 1 --listen 127.0.0.1:5001 --peer 1=127.0.0.1:5001,2=127.0.0.1:5002 --replicator \
             http://127.0.0.1:6001 --replicator-name q4node1 --http-listen 127.0.0.1:8001 --data-dir /data/node1"
        );
        assert_eq!(
            line(&processes[4]),
            "raftctl --endpoints 127.0.0.1:5001..5002 client --interval 1s 500ms --client-id demo --count 3"
        );
    }

    #[test]
    fn no_two_processes_share_a_port_up_to_the_highest_base() {
        for base_port in [1, 5001, 61_000] {
            let ports: Vec<u16> = processes(&options(9, base_port))
                .into_iter()
                .flat_map(|process| process.ports)
                .collect();
            assert_eq!(
                ports.iter().collect::<BTreeSet<_>>().len(),
                36,
                "{base_port}: {ports:?}"
            );
        }
    }
}
