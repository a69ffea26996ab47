//! What the flags add up to, checked: everything after this can rely on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use raftlog_raft::config::ELECTION_TIMEOUT_MAX;
use raftlog_raft::feature::Supports;
use raftlog_raft::ids::NodeNumber;
use raftlog_telemetry::hostname;
use raftlog_telemetry::logging::LogFormat;

use crate::flags::Flags;
use crate::node::SnapshotPolicy;

/// Shortest minimum election timeout: below it, scheduling alone would cause elections.
const ELECTION_MIN_MIN: Duration = Duration::from_millis(20);
/// Shortest heartbeat interval: below it, a leader would do nothing else.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
/// Longest `HOST:PORT`: a DNS name and a port.
const ADDRESS_BYTES_MAX: usize = 260;
/// Most voters that a cluster may start with.
const PEERS_MAX: usize = 9;

/// How this node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) node: NodeNumber,
    pub(crate) listen: SocketAddr,
    /// Absent where one port serves all.
    pub(crate) peer_listen: Option<SocketAddr>,
    /// The initial voters' peer addresses, its own included; empty where the node waits.
    pub(crate) peers: BTreeMap<NodeNumber, String>,
    /// `HOST:PORT` at which peers reach this node.
    pub(crate) peer_address: String,
    /// `HOST:PORT` at which clients reach this node.
    pub(crate) client_address: String,
    pub(crate) replicator: String,
    pub(crate) replicator_name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) election_timeout_min: Duration,
    pub(crate) election_timeout_max: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) snapshots: SnapshotPolicy,
    pub(crate) lease_reads: bool,
    /// The feature levels that it supports: no flag, as a version supports what it does.
    pub(crate) supports: Supports,
    pub(crate) http_listen: SocketAddr,
    pub(crate) log_format: LogFormat,
}

impl Config {
    /// Checks the flags; the error is one line that says what to give instead.
    pub(crate) fn from_flags(flags: Flags, hostname: &str) -> Result<Self, String> {
        refuse_tls(&flags)?;
        let node = match (flags.id, flags.id_from_hostname) {
            (Some(node), _) => node,
            (None, true) => hostname::node_number(hostname)?,
            (None, false) => return Err("who am I? give --id N, or --id-from-hostname".into()),
        };
        let peers = parse_peers(&flags.peers)?;
        let own = peers.get(&node);
        if !peers.is_empty() && own.is_none() {
            let listed: Vec<String> = peers.keys().map(ToString::to_string).collect();
            return Err(format!(
                "--peer lists nodes {} but not this one, {node}; add {node}=HOST:PORT",
                listed.join(", ")
            ));
        }
        if let Some(advertise) = &flags.advertise {
            check_address("--advertise", advertise)?;
        }
        let (election_timeout_min, election_timeout_max) = parse_range(&flags.election_timeout)?;
        check_heartbeat(flags.heartbeat_interval, election_timeout_min)?;
        check_replicator(&flags.replicator)?;
        let peer_listen = flags.peer_listen.filter(|&address| address != flags.listen);
        let (peer_address, client_address) = addresses(
            own,
            flags.advertise.as_deref(),
            flags.listen,
            peer_listen,
            hostname,
        );
        Ok(Self {
            node,
            listen: flags.listen,
            peer_listen,
            peer_address,
            client_address,
            peers,
            replicator: flags.replicator,
            replicator_name: flags.replicator_name.unwrap_or_else(|| format!("q4node{node}")),
            data_dir: flags
                .data_dir
                .unwrap_or_else(|| PathBuf::from(format!("./data/node{node}"))),
            election_timeout_min,
            election_timeout_max,
            heartbeat_interval: flags.heartbeat_interval,
            snapshots: SnapshotPolicy {
                every_operations: flags.snapshot_every_operations,
                every_bytes: flags.snapshot_every_bytes,
            },
            lease_reads: flags.lease_reads,
            supports: Supports::default(),
            http_listen: flags.http_listen,
            log_format: flags.log_format,
        })
    }
}

fn refuse_tls(flags: &Flags) -> Result<(), String> {
    let given = [
        ("--tls-cert", &flags.tls_cert),
        ("--tls-key", &flags.tls_key),
        ("--tls-ca", &flags.tls_ca),
    ];
    match given.iter().find(|(_, value)| value.is_some()) {
        Some((name, _)) => Err(format!(
            "{name} is reserved: TLS is not supported yet; leave it out"
        )),
        None => Ok(()),
    }
}

fn parse_peers(given: &[String]) -> Result<BTreeMap<NodeNumber, String>, String> {
    let mut peers = BTreeMap::new();
    for entry in given
        .iter()
        .map(|entry| entry.trim())
        .filter(|entry| !entry.is_empty())
    {
        let (node, address) = entry
            .split_once('=')
            .ok_or_else(|| format!("--peer '{entry}' is not N=HOST:PORT, for example 1=node1:5001"))?;
        let node = node
            .parse::<NodeNumber>()
            .ok()
            .filter(|&node| node > 0)
            .ok_or_else(|| format!("--peer '{entry}': '{node}' is not a node number: 1, 2, 3, ..."))?;
        check_address("--peer", address)?;
        if let Some((other, _)) = peers.iter().find(|&(_, at)| at == address) {
            return Err(format!(
                "--peer gives {address} to both node {other} and node {node}"
            ));
        }
        if peers.insert(node, address.to_owned()).is_some() {
            return Err(format!("--peer lists node {node} twice"));
        }
    }
    if peers.len() > PEERS_MAX {
        return Err(format!(
            "--peer lists {} nodes; a cluster starts with at most {PEERS_MAX}",
            peers.len()
        ));
    }
    Ok(peers)
}

fn check_address(flag: &str, address: &str) -> Result<(), String> {
    let (host, port) = split_address(address)
        .ok_or_else(|| format!("{flag} '{address}' is not HOST:PORT, for example node1:5001"))?;
    // What is no part of a URL's authority would end up somewhere else in it.
    let odd = |byte: u8| {
        byte.is_ascii_whitespace() || byte.is_ascii_control() || b"/@?#\\\"<>{}|^`%".contains(&byte)
    };
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if port == 0 || bare_v6 || !host.is_ascii() || host.bytes().any(odd) || address.len() > ADDRESS_BYTES_MAX
    {
        return Err(format!(
            "{flag} '{address}' is not HOST:PORT, for example node1:5001 or [::1]:5001"
        ));
    }
    Ok(())
}

fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !host.is_empty()).then_some(())?;
    Some((host, port.parse().ok()?))
}

fn parse_range(text: &str) -> Result<(Duration, Duration), String> {
    let bad =
        |why: &str| format!("--election-timeout '{text}' {why}; give MIN..MAX, for example 1500ms..3000ms");
    let (min, max) = text.split_once("..").ok_or_else(|| bad("is not a range"))?;
    let parse = |part: &str| {
        humantime::parse_duration(part).map_err(|error| bad(&format!("has a bad duration ({error})")))
    };
    let (min, max) = (parse(min)?, parse(max)?);
    if min >= max {
        return Err(bad("has a MIN that is not below its MAX"));
    }
    if min < ELECTION_MIN_MIN || max > ELECTION_TIMEOUT_MAX {
        return Err(bad("is out of bounds (20ms to 1h)"));
    }
    Ok((min, max))
}

fn check_heartbeat(interval: Duration, election_min: Duration) -> Result<(), String> {
    if interval < HEARTBEAT_MIN || interval >= election_min {
        return Err(format!(
            "--heartbeat-interval {} must be at least {} and below the minimum election timeout, {}",
            humantime::format_duration(interval),
            humantime::format_duration(HEARTBEAT_MIN),
            humantime::format_duration(election_min)
        ));
    }
    Ok(())
}

fn check_replicator(url: &str) -> Result<(), String> {
    let bad = || format!("--replicator '{url}' is neither http://HOST:PORT nor unix:///PATH");
    if let Some(path) = url.strip_prefix("unix://") {
        return if path.starts_with('/') && path.len() > 1 {
            Ok(())
        } else {
            Err(bad())
        };
    }
    let authority = url.strip_prefix("http://").ok_or_else(bad)?;
    check_address("--replicator", authority.strip_suffix('/').unwrap_or(authority)).map_err(|_| bad())
}

/// Where peers and where clients reach this node. With two ports, `--peer` names those for peers and `--advertise` the one
/// for clients; whichever is missing has the other's host and the port listened on.
fn addresses(
    own: Option<&String>,
    advertise: Option<&str>,
    listen: SocketAddr,
    peer_listen: Option<SocketAddr>,
    hostname: &str,
) -> (String, String) {
    let with_port = |address: &str, port: u16| {
        let host = split_address(address).map_or(address, |(host, _)| host);
        format!("{host}:{port}")
    };
    match (own.map(String::as_str), advertise, peer_listen) {
        (Some(own), Some(advertise), _) => (own.into(), advertise.into()),
        (Some(own), None, None) => (own.into(), own.into()),
        (Some(own), None, Some(_)) => (own.into(), with_port(own, listen.port())),
        (None, Some(advertise), None) => (advertise.into(), advertise.into()),
        (None, Some(advertise), Some(peer)) => (with_port(advertise, peer.port()), advertise.into()),
        (None, None, peer) => {
            let peer_port = peer.map_or(listen.port(), |peer| peer.port());
            (
                format!("{hostname}:{peer_port}"),
                format!("{hostname}:{}", listen.port()),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn config(flags: &str) -> Result<Config, String> {
        let arguments = std::iter::once("raft-node").chain(flags.split_whitespace());
        let flags = Flags::try_parse_from(arguments).map_err(|error| error.to_string())?;
        Config::from_flags(flags, "demo-2")
    }

    #[test]
    fn the_defaults_of_the_contract() {
        let config = config("--id 2 --peer 1=a:5001,2=b:5002 --peer 3=c:5003").unwrap();
        assert_eq!(config.node, 2);
        assert_eq!(config.listen.to_string(), "0.0.0.0:5001");
        assert_eq!(config.http_listen.to_string(), "0.0.0.0:8001");
        assert_eq!(
            (config.peer_address.as_str(), config.client_address.as_str()),
            ("b:5002", "b:5002")
        );
        assert_eq!(config.peers.len(), 3);
        assert_eq!(config.replicator, "http://127.0.0.1:6001");
        assert_eq!(config.replicator_name, "q4node2");
        assert_eq!(config.data_dir, PathBuf::from("./data/node2"));
        assert_eq!(config.election_timeout_min, Duration::from_millis(1_500));
        assert_eq!(config.election_timeout_max, Duration::from_secs(3));
        assert_eq!(config.heartbeat_interval, Duration::from_secs(1));
        assert_eq!(config.snapshots, SnapshotPolicy::default());
        assert!(config.lease_reads);
        assert_eq!(config.log_format, LogFormat::Plain);
        assert_eq!(config.peer_listen, None);
    }

    #[test]
    fn addresses_follow_from_what_is_given() {
        for (flags, peer, client) in [
            ("--peer 3=c:7", "c:7", "c:7"),
            ("--peer 3=c:7 --advertise x:8", "c:7", "x:8"),
            ("--peer 3=c:7 --peer-listen 0.0.0.0:5002", "c:7", "c:5001"),
            (
                "--peer 3=[::1]:7 --peer-listen 0.0.0.0:5002",
                "[::1]:7",
                "[::1]:5001",
            ),
            ("--advertise x:8", "x:8", "x:8"),
            ("--advertise x:8 --peer-listen 0.0.0.0:5002", "x:5002", "x:8"),
            ("", "demo-2:5001", "demo-2:5001"),
            (
                "--listen 127.0.0.1:9 --peer-listen 127.0.0.1:10",
                "demo-2:10",
                "demo-2:9",
            ),
            (
                "--listen 127.0.0.1:9 --peer-listen 127.0.0.1:9",
                "demo-2:9",
                "demo-2:9",
            ),
        ] {
            let config = config(&format!("--id-from-hostname {flags}")).unwrap();
            assert_eq!(
                (config.peer_address.as_str(), config.client_address.as_str()),
                (peer, client),
                "{flags}"
            );
        }
    }

    #[test]
    fn wrong_usage_is_refused_with_one_line_that_names_it() {
        for (flags, names) in [
            ("", "--id"),
            ("--id 1 --tls-cert x", "--tls-cert"),
            ("--id 1 --tls-ca x", "--tls-ca"),
            ("--id 1 --peer 2=b:1", "not this one, 1"),
            ("--id 1 --peer 1=a:1,1=b:1", "twice"),
            ("--id 1 --peer 1=a:1,2=a:1", "both node 1 and node 2"),
            ("--id 1 --peer a:1", "N=HOST:PORT"),
            ("--id 1 --peer 0=a:1", "node number"),
            ("--id 1 --peer x=a:1", "node number"),
            ("--id 1 --peer 1=a", "HOST:PORT"),
            ("--id 1 --peer 1=a:", "HOST:PORT"),
            ("--id 1 --peer 1=:5", "HOST:PORT"),
            ("--id 1 --peer 1=a:0", "HOST:PORT"),
            ("--id 1 --peer 1=a:65536", "HOST:PORT"),
            ("--id 1 --peer 1=::1:5001", "HOST:PORT"),
            ("--id 1 --peer 1=http://a:5001", "HOST:PORT"),
            ("--id 1 --advertise a", "--advertise"),
            (
                "--id 1 --peer 1=a:1,2=a:2,3=a:3,4=a:4,5=a:5,6=a:6,7=a:7,8=a:8,9=a:9,10=a:10",
                "at most 9",
            ),
            ("--id 1 --election-timeout 3s", "MIN..MAX"),
            ("--id 1 --election-timeout 3s..3s", "not below"),
            ("--id 1 --election-timeout 3s..1s", "not below"),
            ("--id 1 --election-timeout 3..5", "bad duration"),
            ("--id 1 --election-timeout 1ms..5s", "out of bounds"),
            ("--id 1 --heartbeat-interval 1500ms", "--heartbeat-interval"),
            ("--id 1 --heartbeat-interval 0s", "at least 10ms"),
            ("--id 1 --heartbeat-interval 1ns", "at least 10ms"),
            ("--id 1 --heartbeat-interval 9999us", "at least 10ms"),
            ("--id 1 --replicator localhost:6001", "--replicator"),
            ("--id 1 --replicator https://a:6001", "--replicator"),
            ("--id 1 --replicator unix://", "--replicator"),
            ("--id 1 --replicator unix://relative", "--replicator"),
        ] {
            let error = config(flags).expect_err(flags);
            assert!(error.contains(names), "{flags}: {error}");
            assert!(!error.contains('\n'), "{flags}: {error}");
        }
    }

    #[test]
    fn the_shortest_heartbeat_interval_goes_with_the_shortest_election_timeout() {
        let config = config("--id 1 --election-timeout 20ms..40ms --heartbeat-interval 10ms").unwrap();
        assert_eq!(config.heartbeat_interval, HEARTBEAT_MIN);
    }

    #[test]
    fn leases_can_be_done_without() {
        assert!(!config("--id 1 --lease-reads false").unwrap().lease_reads);
        assert!(
            config("--id 1 --lease-reads never")
                .unwrap_err()
                .contains("--lease-reads")
        );
    }

    #[test]
    fn a_replicator_may_be_a_unix_socket() {
        assert_eq!(
            config("--id 1 --replicator unix:///run/r.sock")
                .unwrap()
                .replicator,
            "unix:///run/r.sock"
        );
        assert!(config("--id 1 --replicator http://[::1]:6001/").is_ok());
    }
}
