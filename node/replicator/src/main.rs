//! The program `raft-replicator`.

fn main() -> std::process::ExitCode {
    raftlog_replicator::main(std::env::args_os())
}
