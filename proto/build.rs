//! Generates the messages, the services and the descriptor set for reflection. No system protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 10] = [
    "raftlog/v1/member.proto",
    "raftlog/v1/entry.proto",
    "raftlog/v1/executor.proto",
    "raftlog/v1/status.proto",
    "raftlog/v1/operations.proto",
    "raftlog/v1/cluster.proto",
    "raftlog/v1/raft.proto",
    "raftlog/v1/replicator.proto",
    "raftlog/v1/operation_log.proto",
    "raftlog/v1/state_machine.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let folder = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(folder.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
