//! What the flags add up to, checked: everything after this can rely on it.

use std::net::SocketAddr;
use std::path::PathBuf;

use raftlog_raft::ids::NodeNumber;
use raftlog_telemetry::hostname;
use raftlog_telemetry::logging::LogFormat;

use super::executor_config::ExecutorConfig;
use super::executor_flags::Executor;
use super::flags::{ExecuteOn, Flags};
use super::listen::ListenAddress;
use crate::core::Retention;

/// How this replicator runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) node: NodeNumber,
    pub(super) name: String,
    pub(super) listen: SocketAddr,
    /// Absent where one port serves both node and clients.
    pub(super) replicate_listen: Option<ListenAddress>,
    pub(super) data_dir: PathBuf,
    pub(super) executor: ExecutorConfig,
    pub(super) execute_on: ExecuteOn,
    pub(super) retention: Retention,
    pub(super) http_listen: SocketAddr,
    pub(super) log_format: LogFormat,
}

impl Config {
    /// Checks the flags; the error is one line that says what to give instead.
    pub(super) fn from_flags(flags: Flags, hostname: &str) -> Result<Self, String> {
        let node = match (flags.id, flags.id_from_hostname) {
            (Some(node), _) => node,
            (None, true) => hostname::node_number(hostname)?,
            (None, false) => return Err("whose replicator am I? give --id N, or --id-from-hostname".into()),
        };
        if (flags.executor.executor, flags.execute_on) == (Executor::StateMachine, ExecuteOn::Leader) {
            return Err(
                "--execute-on leader does not go with --executor state-machine, as each node's state machine has to execute everything \
                 to have the same state: leave out --execute-on, or give --execute-on every-node"
                    .into(),
            );
        }
        let own_port = ListenAddress::Tcp(flags.listen);
        Ok(Self {
            node,
            name: flags.name.unwrap_or_else(|| format!("q4node{node}")),
            listen: flags.listen,
            replicate_listen: flags.replicate_listen.filter(|address| *address != own_port),
            data_dir: flags
                .data_dir
                .unwrap_or_else(|| PathBuf::from(format!("./data/q4node{node}"))),
            executor: ExecutorConfig::from_flags(flags.executor)?,
            execute_on: flags.execute_on,
            retention: Retention {
                operations: flags.retain_operations,
                age: flags.retain_age,
                bytes: flags.retain_bytes,
            },
            http_listen: flags.http_listen,
            log_format: flags.log_format,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let args = ["raft-replicator"].iter().chain(args);
        Config::from_flags(Flags::try_parse_from(args).map_err(|e| e.to_string())?, "demo-2")
    }

    #[test]
    fn the_number_names_what_is_not_named() {
        for (args, node) in [(&["--id", "4"][..], 4), (&["--id-from-hostname"], 3)] {
            let config = config(args).unwrap();
            assert_eq!(config.node, node);
            assert_eq!(config.name, format!("q4node{node}"));
            assert_eq!(config.data_dir, PathBuf::from(format!("./data/q4node{node}")));
            assert_eq!(config.replicate_listen, None);
        }
    }

    #[test]
    fn what_is_kept_for_watchers() {
        let none = config(&["--id", "1"]).unwrap();
        assert_eq!(none.retention, Retention::default());
        let args = "--id 1 --retain-operations 5 --retain-age 36h --retain-bytes 3MiB";
        let args: Vec<_> = args.split(' ').collect();
        let expected = Retention {
            operations: Some(5),
            age: Some(std::time::Duration::from_hours(36)),
            bytes: Some(3 << 20),
        };
        assert_eq!(config(&args).unwrap().retention, expected);
    }

    #[test]
    fn one_port_for_both_is_one_server() {
        let same = config(&[
            "--id",
            "1",
            "--listen",
            "127.0.0.1:7",
            "--replicate-listen",
            "127.0.0.1:7",
        ]);
        assert_eq!(same.unwrap().replicate_listen, None);
        let socket = config(&["--id", "1", "--replicate-listen", "unix:///run/r.sock"]).unwrap();
        assert_eq!(
            socket.replicate_listen,
            Some(ListenAddress::Unix("/run/r.sock".into()))
        );
    }

    #[test]
    fn wrong_usage_is_refused() {
        for args in [
            &[][..],
            &["--id", "0"],
            &["--id", "x"],
            &["--id", "1", "--id-from-hostname"],
            &["--id", "1", "--executor", "frob"],
            &["--id", "1", "--execute-on", "followers"],
            &[
                "--id",
                "1",
                "--execute-on",
                "leader",
                "--executor",
                "state-machine",
            ],
            &["--id", "1", "--state-machine", "127.0.0.1:7001"],
            &["--id", "1", "--state-machine", "http:///path"],
            &["--id", "1", "--state-machine", "unix://relative"],
            &["--id", "1", "--state-machine", "unix:///"],
            &["--id", "1", "--listen", "nowhere"],
            &["--id", "1", "--replicate-listen", "unix:relative"],
            &["--id", "1", "--retain-operations", "many"],
            &["--id", "1", "--retain-operations", "-1"],
            &["--id", "1", "--retain-age", "7"],
            &["--id", "1", "--retain-bytes", "1MB"],
            &["--id", "1", "--frobnicate"],
        ] {
            assert!(config(args).is_err(), "{args:?}");
        }
    }
}
