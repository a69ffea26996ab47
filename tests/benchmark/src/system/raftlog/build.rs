//! The programs as they are compiled for use.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Packages of raft-node and raft-replicator.
pub(super) const SERVERS: [&str; 2] = ["raftlog-server", "raftlog-replicator"];

/// Has cargo build what those packages have, raft-node among it, optimized, and gives its folder.
pub(crate) fn programs(packages: &[&str]) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--message-format=json-render-diagnostics",
            "--bins",
        ])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}; give --programs, a folder with raft-node"))?;
    if !output.status.success() {
        return Err(format!("cargo cannot build raft-node ({})", output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .find_map(folder_of_node)
        .ok_or_else(|| "cargo built no raft-node; give --programs, a folder with it".to_owned())
}

/// Of the message that tells where raft-node is.
fn folder_of_node(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let path = Path::new(message.get("executable")?.as_str()?);
    (path.file_name()? == "raft-node").then(|| path.parent().map(Path::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_where_the_node_is() {
        for (message, expected) in [
            (
                r#"{"reason":"compiler-artifact","executable":"/t/release/raft-node"}"#,
                Some("/t/release"),
            ),
            (
                r#"{"reason":"compiler-artifact","executable":"/t/release/raft-replicator"}"#,
                None,
            ),
            (r#"{"reason":"compiler-artifact","executable":null}"#, None),
            (r#"{"reason":"build-finished","success":true}"#, None),
            ("not json", None),
        ] {
            assert_eq!(
                folder_of_node(message).as_deref(),
                expected.map(Path::new),
                "{message}"
            );
        }
    }
}
