//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    plan::{Axis, LOG_LENGTH_MAX},
    system::Kind,
};

/// Of one operation, as the system under test allows it.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// The longest time that a flag can ask for.
const DURATION_MAX: Duration = Duration::from_hours(1);

/// Measures this system and its peers under one load generator, in turn.
#[derive(Debug, Parser)]
#[command(name = "benchmark", args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) trial: Option<Trial>,
    #[command(flatten)]
    pub(crate) asked: Asked,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) programs: ProgramArgs,
}

/// What else than a comparison is measured, of this system alone.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Trial {
    /// For how long nothing is committed when the leader is killed, hands over, or is told to stop
    Failover(FailoverArgs),
    /// Whether all watchers of one replicator see every operation while clients write as fast as they can
    Watch(WatchArgs),
    /// How much memory nodes take while clients write as fast as they can, with snapshots
    Memory(MemoryArgs),
    /// Where the time of one operation goes that comes alone, stage by stage
    Budget(BudgetArgs),
    /// How much of a core the demo takes while nothing happens
    Idle(IdleArgs),
    /// Answer every operation at once
    #[command(hide = true)]
    ServeEcho {
        /// Where to listen
        address: SocketAddr,
    },
}

/// How leaders are lost.
#[derive(Clone, Debug, Args)]
pub(crate) struct FailoverArgs {
    /// How often each
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) runs: u16,
    /// Members of the cluster
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=9))]
    pub(crate) members: u16,
    /// Clients in closed loops
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) clients: u16,
    /// Connections that the clients share
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) connections: u16,
    /// Of the nodes
    #[arg(long, value_name = "MIN..MAX", default_value = "150ms..300ms")]
    pub(crate) election_timeout: String,
    /// Of the nodes
    #[arg(long, value_name = "DURATION", default_value = "50ms")]
    pub(crate) heartbeat_interval: String,
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) own: OwnPrograms,
}

/// Who watches, and what is written meanwhile.
#[derive(Clone, Debug, Args)]
pub(crate) struct WatchArgs {
    /// Watchers of one replicator
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) watchers: u16,
    /// Whose replicator is watched
    #[arg(long, value_enum, default_value_t = Watched::Follower)]
    pub(crate) of: Watched,
    /// How often to measure without watchers, and with them
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,
    #[command(flatten)]
    pub(crate) load: FullLoad,
}

/// How long memory is watched.
#[derive(Clone, Debug, Args)]
pub(crate) struct MemoryArgs {
    /// Operations between two snapshots [default: as nodes have it]
    #[arg(long, value_name = "N")]
    pub(crate) snapshot_every: Option<u64>,
    #[command(flatten)]
    pub(crate) load: FullLoad,
}

/// Clients that write as fast as they can.
#[derive(Clone, Debug, Args)]
pub(crate) struct FullLoad {
    /// Members of the cluster
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) members: u16,
    /// Clients in closed loops
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) clients: u16,
    /// Bytes of an operation
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = payload)]
    pub(crate) payload: usize,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) own: OwnPrograms,
}

/// What is taken apart.
#[derive(Clone, Debug, Args)]
pub(crate) struct BudgetArgs {
    /// Members of the cluster
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=9))]
    pub(crate) members: u16,
    /// Bytes of an operation
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = payload)]
    pub(crate) payload: usize,
    /// How often to measure all of it
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,
    /// A folder in memory, where a sync costs nothing
    #[arg(long, value_name = "FOLDER", default_value = "/dev/shm")]
    pub(crate) memory: PathBuf,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) own: OwnPrograms,
}

/// How long the demo is watched.
#[derive(Clone, Debug, Args)]
pub(crate) struct IdleArgs {
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long the demo goes on before that
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) warm_up: Duration,
    /// The first node's port; others are up to 4,000 above
    #[arg(long, value_name = "PORT", default_value_t = 21_001)]
    pub(crate) base_port: u16,
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) own: OwnPrograms,
}

/// One of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Watched {
    /// The leader
    Leader,
    /// A follower
    Follower,
}

/// What to measure. Each of the lists multiplies the others.
#[derive(Clone, Debug, Args)]
pub(crate) struct Asked {
    /// Systems, by turns in each round [default: raftlog,etcd,nats,nats-default-sync,zookeeper; raftlog with --sweep]
    #[arg(long, value_name = "SYSTEM,...", value_delimiter = ',', value_enum)]
    pub(crate) systems: Vec<Kind>,
    /// Let one number grow, from little to much, with the others fixed
    #[arg(long, value_enum)]
    pub(crate) sweep: Option<Axis>,
    /// Members of a cluster [default: 5]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) members: Vec<u16>,
    /// Clients in closed loops, each with one operation at a time; streams, for raftlog-stream [default: 1,64,256; 64 with --sweep]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) clients: Vec<u16>,
    /// Open loops: so many operations a second, whether or not they are answered [default: 1000; none with --sweep]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rates: Vec<u32>,
    /// No open loops
    #[arg(long, conflicts_with = "rates")]
    pub(crate) no_rates: bool,
    /// Bytes of an operation [default: 256]
    #[arg(long, value_name = "BYTES,...", value_delimiter = ',', value_parser = payload)]
    pub(crate) payload: Vec<usize>,
    /// Operations in the log before it is measured; only raftlog [default: whatever there is]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=LOG_LENGTH_MAX))]
    pub(crate) log_length: Vec<u64>,
    /// Hundredths of the time that one follower runs, standing still for the rest of each 100 ms; only raftlog [default: all of it]
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) follower_runs: Vec<u8>,
    /// Operations between two snapshots; only raftlog [default: as nodes have it]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) snapshot_every: Vec<u64>,
    /// How often to measure all of it
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,
}

/// How to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// How long to measure each time
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long the load goes on before that
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    pub(crate) warm_up: Duration,
    /// Connections that the clients share
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) connections: u16,
    /// Operations under way at most in open loops
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) under_way: u16,
    /// Which members the connections go to, of every system
    #[arg(long, value_enum, default_value_t = Target::Leader)]
    pub(crate) connect: Target,
    /// Where the replicators of raftlog, whose executor prints every operation, write to
    #[arg(long, value_enum, default_value_t = ExecutorOutput::Null)]
    pub(crate) executor_output: ExecutorOutput,
    #[command(flatten)]
    pub(crate) folders: Folders,
}

/// Where everything is kept.
#[derive(Clone, Debug, Args)]
pub(crate) struct Folders {
    /// Where the data folders are made: on the disk to measure
    #[arg(long, value_name = "FOLDER", default_value = "target/benchmark/data")]
    pub(crate) folder: PathBuf,
    /// Leave data and logs behind
    #[arg(long)]
    pub(crate) keep: bool,
    /// Where the results are written to
    #[arg(long, value_name = "FOLDER", default_value = "target/benchmark")]
    pub(crate) output: PathBuf,
}

/// Where the programs are. Those without a path are looked for on PATH.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProgramArgs {
    #[command(flatten)]
    pub(crate) own: OwnPrograms,
    /// etcd
    #[arg(long, value_name = "PROGRAM", default_value = "etcd")]
    pub(crate) etcd: PathBuf,
    /// nats-server, 2.12 or newer: `go install github.com/nats-io/nats-server/v2@latest`
    #[arg(long, value_name = "PROGRAM", default_value = "nats-server")]
    pub(crate) nats_server: PathBuf,
    /// Java, for ZooKeeper
    #[arg(long, value_name = "PROGRAM", default_value = "java")]
    pub(crate) java: PathBuf,
    /// Class path of ZooKeeper; the default is that of Debian's package
    #[arg(
        long,
        value_name = "JAR:...",
        default_value = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar"
    )]
    pub(crate) zookeeper: PathBuf,
    /// Memory of each ZooKeeper; the default is that of its own scripts, and not enough for operations of 1 MiB
    #[arg(long, value_name = "SIZE", default_value = "1000m")]
    pub(crate) zookeeper_heap: String,
}

/// Where this system's own programs are.
#[derive(Clone, Debug, Args)]
pub(crate) struct OwnPrograms {
    /// Folder of raft-node, raft-replicator and raftctl [default: cargo builds them]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) programs: Option<PathBuf>,
}

/// Which members are connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The leader alone, which saves every system a hop
    Leader,
    /// All members in turn
    All,
}

/// Where an executor prints to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExecutorOutput {
    /// /dev/null
    Null,
    /// A file beside the data
    File,
}

fn payload(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ 1..=PAYLOAD_BYTES_MAX) => Ok(bytes),
        _ => Err(format!("an operation has 1 to {PAYLOAD_BYTES_MAX} bytes")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > DURATION_MAX => Err("more than an hour".to_owned()),
        Ok(duration) if duration.is_zero() => Err("has to be more than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write for example 1500ms or 10s")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once(&"benchmark").chain(arguments))
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn lists_and_what_is_internal() {
        let parsed = parse(&[
            "--clients",
            "1,64",
            "--systems",
            "etcd,nats",
            "--payload",
            "16,1048576",
        ])
        .unwrap();
        assert_eq!(parsed.asked.clients, [1, 64]);
        assert_eq!(parsed.asked.systems, [Kind::Etcd, Kind::Nats]);
        assert_eq!(parsed.asked.payload, [16, 1 << 20]);
        assert!(parsed.trial.is_none());
        let internal = parse(&["serve-echo", "127.0.0.1:1234"]).unwrap().trial;
        assert!(matches!(internal, Some(Trial::ServeEcho { address }) if address.port() == 1234));
    }

    #[test]
    fn trials_have_flags_of_their_own() {
        let failover = parse(&["failover", "--runs", "3"]).unwrap().trial;
        assert!(matches!(
            failover,
            Some(Trial::Failover(FailoverArgs { runs: 3, .. }))
        ));
        let watch = parse(&["watch", "--clients", "4", "--of", "leader"])
            .unwrap()
            .trial;
        let Some(Trial::Watch(watch)) = watch else {
            panic!("{watch:?}");
        };
        assert_eq!((watch.load.clients, watch.of), (4, Watched::Leader));
        assert!(
            parse(&["--clients", "4", "watch"]).is_err(),
            "whose flags are those?"
        );
    }

    #[test]
    fn wrong_usage_is_refused() {
        for arguments in [
            &["--clients", "0"][..],
            &["--clients", "1;2"],
            &["--payload", "0"],
            &["--payload", "1048577"],
            &["--members", "10"],
            &["--duration", "0s"],
            &["--duration", "2h"],
            &["--rounds", "0"],
            &["--rates", "5", "--no-rates"],
            &["--systems", "none"],
            &["--log-length", "0"],
            &["--follower-runs", "0"],
            &["--snapshot-every", "0"],
            &["--unknown"],
        ] {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }
}
