//! `raft-node` of a later version, as far as tests need one: it supports one feature level more than the program does.

use raftlog_raft::feature::Supports;

fn main() -> std::process::ExitCode {
    raftlog_server::main_of_version(Supports::REHEARSAL, std::env::args_os())
}
