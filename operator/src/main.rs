//! The program `raft-operator`.

fn main() -> std::process::ExitCode {
    raft_operator::main(std::env::args_os())
}
