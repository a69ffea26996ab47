//! What the test client says: the lines of the contract.

use std::{
    io::{self, Write as _},
    time::SystemTime,
};

use raftlog_client::Committed;
use raftlog_telemetry::logging::LogFormat;
use serde_json::Map;

use crate::failure::Failure;

/// Before each operation.
pub(super) const SENDS: &str = "Client sends RPC SubmitClientRequest to Node Cluster Leader.";

/// After each operation.
pub(super) fn accepted(committed: &Committed, operation: &str) -> String {
    let port = committed
        .leader_address
        .rsplit_once(':')
        .map_or("", |(_, port)| port);
    format!(
        "[CLIENT] Leader node{}:{port} accepted → Operation '{operation}' committed at index {}",
        committed.leader_node, committed.index
    )
}

/// Prints whole lines on stdout at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    format: LogFormat,
}

impl Voice {
    pub(super) fn new(format: LogFormat) -> Self {
        Self { format }
    }

    /// Says one line.
    pub(super) fn say(self, message: &str) -> Result<(), Failure> {
        let line = self
            .format
            .render(SystemTime::now(), tracing::Level::INFO, message, &Map::new());
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}")
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::output(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accepted_line_names_node_and_port_whatever_the_address() {
        for (leader_address, expected) in [
            (
                "127.0.0.1:5001",
                "[CLIENT] Leader node2:5001 accepted → Operation 'operation-7' committed at index 9",
            ),
            (
                "demo-1.demo-peers.x.svc:5001",
                "[CLIENT] Leader node2:5001 accepted → Operation 'operation-7' committed at index 9",
            ),
            (
                "[::1]:5002",
                "[CLIENT] Leader node2:5002 accepted → Operation 'operation-7' committed at index 9",
            ),
        ] {
            let committed = Committed {
                index: 9,
                term: 1,
                leader_node: 2,
                leader_address: leader_address.to_owned(),
                result: None,
            };
            assert_eq!(accepted(&committed, "operation-7"), expected);
        }
    }
}
