//! The command line of `raft-replicator`, as it is given.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use raftlog_telemetry::logging::LogFormat;

use super::listen::ListenAddress;

/// The sidecar of one raft-node: holds the operations that the node feeds it, executes the committed ones in order, and
/// serves them to clients.
#[derive(Debug, Clone, Parser)]
#[command(name = "raft-replicator", version)]
pub(super) struct Flags {
    /// Number of the node that it belongs to: 1, 2, 3, ...
    #[arg(long, env = "RAFT_ID", value_name = "N", value_parser = clap::value_parser!(u32).range(1..),
          conflicts_with = "id_from_hostname")]
    pub(super) id: Option<u32>,

    /// Take the number from the host name: a `StatefulSet`'s ordinal, plus 1
    #[arg(long)]
    pub(super) id_from_hostname: bool,

    /// What it is called in log lines and status [default: q4nodeN for --id N]
    #[arg(long, env = "RAFT_REPLICATOR_NAME", value_name = "NAME")]
    pub(super) name: Option<String>,

    /// Address to serve clients on (service `OperationLog`)
    #[arg(
        long,
        env = "REPLICATOR_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:6001"
    )]
    pub(super) listen: SocketAddr,

    /// Address to serve its node on (service Replicator)
    #[arg(
        long,
        env = "REPLICATE_LISTEN",
        value_name = "ADDR",
        help = "Address to serve its node on (service Replicator): IP:PORT or unix:///PATH [default: as --listen]"
    )]
    pub(super) replicate_listen: Option<ListenAddress>,

    /// Folder for everything that must survive a restart [default: ./data/q4nodeN for --id N]
    #[arg(long, env = "REPLICATOR_DATA_DIR", value_name = "FOLDER")]
    pub(super) data_dir: Option<PathBuf>,

    /// What executes committed operations
    #[arg(
        long,
        env = "REPLICATOR_EXECUTOR",
        value_name = "EXECUTOR",
        default_value = "log"
    )]
    pub(super) executor: Executor,

    /// Address to serve /livez, /readyz, /metrics and /status on
    #[arg(
        long,
        env = "REPLICATOR_HTTP_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:9001"
    )]
    pub(super) http_listen: SocketAddr,

    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "plain")]
    pub(super) log_format: LogFormat,
}

/// What executes committed operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Executor {
    /// Prints each operation as a line on stdout
    Log,
}
