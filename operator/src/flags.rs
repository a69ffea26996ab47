//! The command line of `raft-operator`, as it is given.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use raftlog_telemetry::logging::LogFormat;

/// Makes clusters of nodes and replicators out of RaftCluster objects, and looks after them.
#[derive(Debug, Clone, Parser)]
#[command(name = "raft-operator", version)]
pub(crate) struct Flags {
    /// Namespaces to look after; repeated or comma-separated [default: all]
    #[arg(
        long,
        env = "WATCH_NAMESPACES",
        value_name = "NAMESPACE",
        value_delimiter = ','
    )]
    pub(crate) watch_namespaces: Vec<String>,

    /// Address to serve /livez, /readyz, /metrics and /status on
    #[arg(
        long,
        env = "OPERATOR_HTTP_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:8080"
    )]
    pub(crate) http_listen: SocketAddr,

    /// Be one of several: only the one that holds the Lease raft-operator acts
    #[arg(long, env = "LEADER_ELECT")]
    pub(crate) leader_elect: bool,

    /// Namespace of the Lease [default: the operator's own]
    #[arg(long, env = "LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,

    /// Namespace the operator runs in; a NetworkPolicy of a cluster lets it in from there only [default: its service account's]
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) pod_namespace: Option<String>,

    /// Image with raft-node and raftctl, where a RaftCluster names none
    #[arg(long, env = "DEFAULT_NODE_IMAGE", value_name = "IMAGE",
          default_value = concat!("raft-node:", env!("CARGO_PKG_VERSION")))]
    pub(crate) default_node_image: String,

    /// Image with raft-replicator, where a RaftCluster names none
    #[arg(long, env = "DEFAULT_REPLICATOR_IMAGE", value_name = "IMAGE",
          default_value = concat!("raft-replicator:", env!("CARGO_PKG_VERSION")))]
    pub(crate) default_replicator_image: String,

    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "plain")]
    pub(crate) log_format: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What it does instead of running.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Command {
    /// Print the CustomResourceDefinition, for kubectl apply
    Crd,
}
