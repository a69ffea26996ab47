//! The command line of `raft-replicator`, as it is given.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use raftlog_telemetry::logging::LogFormat;
use raftlog_telemetry::quantity;

use super::executor_flags::ExecutorFlags;
use super::listen::ListenAddress;
use crate::core;

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

    /// What executes, and how
    #[command(flatten)]
    pub(super) executor: ExecutorFlags,

    /// Beside which nodes operations are executed
    #[arg(
        long,
        env = "REPLICATOR_EXECUTE_ON",
        value_name = "WHERE",
        default_value = "every-node"
    )]
    pub(super) execute_on: ExecuteOn,

    /// Keep committed operations for clients that watch until there are more than so many
    #[arg(
        long,
        env = "REPLICATOR_RETAIN_OPERATIONS",
        value_name = "N",
        long_help = "Keep committed operations for clients that watch until there are more than so many. Of several --retain flags the \
                     one counts that lets go first. Operations go by segments of the log, of 64 MiB or a 16th of the volume, so up \
                     to a segment more is kept; in all at most about a quarter of the volume [default: a segment, where no --retain \
                     flag is given]"
    )]
    pub(super) retain_operations: Option<u64>,

    /// Keep them until they were committed so long ago, such as 36h or 7days; see --retain-operations
    #[arg(long, env = "REPLICATOR_RETAIN_AGE", value_name = "DURATION", value_parser = quantity::duration)]
    pub(super) retain_age: Option<Duration>,

    /// Keep them until the log on disk has more than so many bytes, such as 512MiB; see --retain-operations
    #[arg(long, env = "REPLICATOR_RETAIN_BYTES", value_name = "BYTES", value_parser = quantity::bytes)]
    pub(super) retain_bytes: Option<u64>,

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

/// Beside which nodes operations are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ExecuteOn {
    /// Each replicator executes all operations
    EveryNode,
    /// Only the replicator of the node that leads executes, and the next leader's goes on behind what the log says is executed
    Leader,
}

impl ExecuteOn {
    /// What it is to the core.
    pub(super) fn rule(self) -> core::ExecuteOn {
        match self {
            Self::EveryNode => core::ExecuteOn::EveryNode,
            Self::Leader => core::ExecuteOn::Leader,
        }
    }
}
