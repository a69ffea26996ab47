//! The command line of `raft-node`, as it is given.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use raftlog_telemetry::logging::LogFormat;
use raftlog_telemetry::quantity;

/// One Raft server: replicates operations to its peers and feeds those that are committed to its replicator.
#[derive(Debug, Clone, Parser)]
#[command(name = "raft-node", version)]
pub(crate) struct Flags {
    /// This node's number: 1, 2, 3, ...
    #[arg(long, env = "RAFT_ID", value_name = "N", value_parser = clap::value_parser!(u32).range(1..),
          conflicts_with = "id_from_hostname")]
    pub(crate) id: Option<u32>,

    /// Take the number from the host name: a StatefulSet's ordinal, plus 1
    #[arg(long)]
    pub(crate) id_from_hostname: bool,

    /// Address to serve clients on
    #[arg(
        long,
        env = "RAFT_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:5001"
    )]
    pub(crate) listen: SocketAddr,

    /// The initial voters, this node included; repeated or comma-separated. Without it the node waits to be bootstrapped or
    /// added
    #[arg(
        long = "peer",
        env = "RAFT_PEERS",
        value_name = "N=HOST:PORT",
        value_delimiter = ','
    )]
    pub(crate) peers: Vec<String>,

    /// Where clients reach this node [default: its own --peer entry]
    #[arg(long, env = "RAFT_ADVERTISE", value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,

    /// Address to serve other nodes on (services Raft and Cluster) [default: as --listen]
    #[arg(long, env = "RAFT_PEER_LISTEN", value_name = "ADDR")]
    pub(crate) peer_listen: Option<SocketAddr>,

    /// This node's replicator
    #[arg(
        long,
        env = "RAFT_REPLICATOR",
        value_name = "URL",
        default_value = "http://127.0.0.1:6001",
        help = "This node's replicator: http://HOST:PORT or unix:///PATH"
    )]
    pub(crate) replicator: String,

    /// What the replicator is called in log lines [default: q4nodeN for --id N]
    #[arg(long, env = "RAFT_REPLICATOR_NAME", value_name = "NAME")]
    pub(crate) replicator_name: Option<String>,

    /// Folder for everything that must survive a restart [default: ./data/nodeN for --id N]
    #[arg(long, env = "RAFT_DATA_DIR", value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Without word from a leader for a random time in this range, the node campaigns
    #[arg(
        long,
        env = "RAFT_ELECTION_TIMEOUT",
        value_name = "MIN..MAX",
        default_value = "1500ms..3000ms"
    )]
    pub(crate) election_timeout: String,

    /// Time between two heartbeats of a leader; at least 10ms, shorter than MIN
    #[arg(long, env = "RAFT_HEARTBEAT_INTERVAL", value_name = "DURATION", default_value = "1s",
          value_parser = quantity::duration)]
    pub(crate) heartbeat_interval: Duration,

    /// Take a snapshot after so many committed entries, and keep the log back to the one before the last; 0: never
    #[arg(
        long,
        env = "RAFT_SNAPSHOT_EVERY_OPERATIONS",
        value_name = "N",
        default_value_t = 100_000
    )]
    pub(crate) snapshot_every_operations: u64,

    /// Or after so many bytes of them, such as 256MiB, if that comes first; a log that weighs three times as much is full until
    /// the replicator has executed more [default: a 16th of the volume, at most 1GiB]
    #[arg(long, env = "RAFT_SNAPSHOT_EVERY_BYTES", value_name = "BYTES", value_parser = bytes)]
    pub(crate) snapshot_every_bytes: Option<u64>,

    /// As leader, answer reads by a lease where there is one; false where clocks may differ in rate by more than 10 %, or stop
    /// while a machine is paused
    #[arg(long, env = "RAFT_LEASE_READS", value_name = "true|false", default_value_t = true,
          action = clap::ArgAction::Set)]
    pub(crate) lease_reads: bool,

    /// Address to serve /livez, /readyz, /metrics and /status on
    #[arg(
        long,
        env = "RAFT_HTTP_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:8001"
    )]
    pub(crate) http_listen: SocketAddr,

    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "plain")]
    pub(crate) log_format: LogFormat,

    /// Reserved
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Reserved
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Reserved
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What it does instead of running.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// The last resort after a majority was lost for good: go on alone, as a new cluster, with what this folder holds
    Recover(RecoverFlags),
}

/// How to go on alone.
#[derive(Debug, Clone, Args)]
pub(crate) struct RecoverFlags {
    /// The folder of the node, which must not run
    #[arg(long, env = "RAFT_DATA_DIR", value_name = "FOLDER")]
    pub(crate) data_dir: PathBuf,

    /// The node becomes the only voter of a new cluster
    #[arg(long)]
    pub(crate) as_single_voter: bool,

    /// Do it without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Shortest log between two snapshots, in bytes: the longest operation fits, and some more.
const SNAPSHOT_EVERY_BYTES_MIN: u64 = 4 << 20;

/// A number of bytes that snapshots may be apart.
fn bytes(text: &str) -> Result<u64, String> {
    let bytes = quantity::bytes(text)?;
    if bytes < SNAPSHOT_EVERY_BYTES_MIN {
        return Err("give at least 4MiB".into());
    }
    Ok(bytes)
}
