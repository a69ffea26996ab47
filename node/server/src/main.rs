//! The program `raft-node`.

fn main() -> std::process::ExitCode {
    raftlog_server::main(std::env::args_os())
}
