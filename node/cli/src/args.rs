//! The command line: flags, environment variables, defaults.

use std::{ffi::OsString, ops::Deref, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use raftlog_client::Endpoint;
use raftlog_proto::OPERATION_BYTES_MAX;
use raftlog_telemetry::logging::LogFormat;

use crate::{member::Named, output::Format};

/// Controls and uses clusters of the Raft Log Replicator.
///
/// Exit codes: 0 done; 1 failed, unhealthy, diverged; 2 wrong usage; 3 refused with nothing appended, or no leader in time;
/// 4 outcome unknown.
#[derive(Debug, Parser)]
#[command(name = "raftctl", version, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all commands take.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Nodes to talk to, with ranges of ports; any of them forwards to the leader
    #[arg(long, global = true, env = "RAFTCTL_ENDPOINTS", value_name = "HOST:PORT,...")]
    #[arg(default_value = "127.0.0.1:5001..5005")]
    pub(crate) endpoints: Endpoints,
    /// Replicators to read from
    #[arg(
        long,
        global = true,
        env = "RAFTCTL_REPLICATORS",
        value_name = "HOST:PORT,..."
    )]
    #[arg(default_value = "127.0.0.1:6001..6005")]
    pub(crate) replicators: Endpoints,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// A list of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints(pub(crate) Vec<Endpoint>);

impl FromStr for Endpoints {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Endpoint::parse_list(text).map(Self)
    }
}

impl Deref for Endpoints {
    type Target = [Endpoint];

    fn deref(&self) -> &[Endpoint] {
        &self.0
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster on this machine: nodes, replicators and the test client as real processes
    Demo(DemoArgs),
    /// The test client: submit operation-1, operation-2, ... for ever
    Client(ClientArgs),
    /// Submit operations, and wait until they are committed
    Submit(SubmitArgs),
    /// Ask the executor of any replicator, through its node
    Query(QueryArgs),
    /// Show every node's own view
    Status(StatusArgs),
    /// Exit with 0 if the cluster is healthy, with 1 if not
    Health(HealthArgs),
    /// Print committed operations from a replicator
    Watch(WatchArgs),
    /// Compare all replicas: exit with 0 if they hold the same operations, with 1 if not, naming the first that differs
    Verify(VerifyArgs),
    /// Who leads
    #[command(subcommand)]
    Leader(LeaderCommand),
    /// Who belongs to the cluster
    #[command(subcommand)]
    Member(MemberCommand),
    /// Backups: save what a node has executed to a file, look at it, and go on from it where all else is lost
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Measure operations per second and latency, beside the floor of this machine
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Nodes, each with its replicator
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) nodes: u16,
    /// Exit with 0 once this many operations are executed on all replicators; until Ctrl-C without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) operations: Option<u64>,
    /// Time between two operations of the test client
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// Where everything is kept; a fresh temporary folder, removed at the end, without it
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The first node's port. The others follow it; replicators are 1000 above, HTTP is 3000 and 4000 above
    #[arg(long, value_name = "PORT", default_value_t = 5001, value_parser = clap::value_parser!(u16).range(1..=61_000))]
    pub(crate) base_port: u16,
    /// Hide heartbeats
    #[arg(long)]
    pub(crate) no_heartbeats: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ClientArgs {
    /// Time between two operations
    #[arg(long, env = "RAFTCTL_INTERVAL", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// Session that the count belongs to: after a restart it goes on where the cluster says this session ended
    #[arg(long, env = "RAFTCTL_CLIENT_ID", value_name = "ID", default_value = "raftctl-client", value_parser = client_id)]
    pub(crate) client_id: String,
    /// Exit with 0 once this many operations were submitted; for ever without it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Plain)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SubmitArgs {
    /// Operations, submitted one after the other
    #[arg(
        value_name = "OPERATION",
        required_unless_present = "stdin",
        conflicts_with = "stdin"
    )]
    pub(crate) operations: Vec<OsString>,
    /// Each line of the standard input is an operation, without its newline; empty lines are skipped and counted
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Answer once it is committed, or once it is executed, with what came of it
    #[arg(
        long,
        value_name = "STATE",
        default_value = "committed",
        conflicts_with = "stdin"
    )]
    pub(crate) wait_for: WaitFor,
    /// How long one operation may take with all attempts; with --stdin, how long without any progress
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// What `submit` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// A majority holds it on disk
    Committed,
    /// The leader's replicator has executed it
    Executed,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct QueryArgs {
    /// What the executor is asked; log knows "last", the last operation executed, and operation indexes
    #[arg(value_name = "QUERY")]
    pub(crate) query: OsString,
    /// Take what is executed at any replicator, without asking the leader what is committed
    #[arg(long)]
    pub(crate) stale: bool,
    /// How long it may take with all attempts
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    /// How long a node may take to answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HealthArgs {
    /// Wait until it is healthy
    #[arg(long)]
    pub(crate) wait: bool,
    /// A leader and a majority of ready voters are enough
    #[arg(long)]
    pub(crate) available: bool,
    /// How long to wait; without --wait, how long a node may take to answer (2s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WatchArgs {
    /// First operation index [default: 1, or else the first one that is still held]
    #[arg(long, value_name = "INDEX", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from: Option<u64>,
    /// Go on behind an operation that was printed before, by the `resume_token` that -o json gave with it
    #[arg(long, value_name = "TOKEN", conflicts_with = "from", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) resume: Option<String>,
    /// Go on where FILE says that an earlier watch ended, if there is one (--from counts only where there is none), and note there how far
    /// the output is
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub(crate) resume_file: Option<PathBuf>,
    /// Go on with what is committed later
    #[arg(long)]
    pub(crate) follow: bool,
    /// End at what the replicator has, without asking the leader what is committed
    #[arg(long, conflicts_with = "follow")]
    pub(crate) stale: bool,
    /// How long to try without success
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// How long a node or replicator may take to answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LeaderCommand {
    /// Hand leadership over
    Transfer {
        /// Number of the node that shall lead; the most up-to-date voter without it
        #[arg(value_name = "NODE", value_parser = clap::value_parser!(u32).range(1..))]
        node: Option<u32>,
        /// How long it may take
        #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
        timeout: Duration,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Show all members as the leader sees them
    List {
        /// How long to look for a leader
        #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
        timeout: Duration,
    },
    /// Add a node as a learner: it receives the log and does not count
    Add {
        /// Where the new node serves clients; it was started empty, and waits
        #[arg(value_name = "HOST:PORT", value_parser = Endpoint::parse)]
        node: Endpoint,
        #[command(flatten)]
        change: MemberChange,
    },
    /// Make a learner that has caught up a voter
    Promote {
        /// Node number, or member ID
        #[arg(value_name = "MEMBER")]
        member: Named,
        #[command(flatten)]
        change: MemberChange,
    },
    /// Remove a voter or a learner
    Remove {
        /// Node number, or member ID
        #[arg(value_name = "MEMBER")]
        member: Named,
        #[command(flatten)]
        change: MemberChange,
    },
    /// Let a new node take a voter's place: added, caught up, and exchanged in one step
    Replace {
        /// Node number or member ID of the voter that goes
        #[arg(value_name = "MEMBER")]
        member: Named,
        /// Where the new node serves clients; where the old one did, if it lost its disk
        #[arg(value_name = "HOST:PORT", value_parser = Endpoint::parse)]
        with: Option<Endpoint>,
        #[command(flatten)]
        change: MemberChange,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Have a node take a snapshot of all that it has executed, and download it
    Save {
        /// Where to; a file that has the name stands until the new one is whole
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How long the node may take for it, and then, how long nothing may arrive
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
        timeout: Duration,
    },
    /// Check a file, and say what it holds
    Inspect {
        /// What was saved, or a snapshot in the data folder of a node
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// The last resort after all is lost: make a data folder of a file, of the only voter of a new cluster
    Restore(RestoreArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RestoreArgs {
    /// What was saved
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The data folder to make; it must be empty, if it is there
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: PathBuf,
    /// Number of the node that is to start with it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) id: u32,
    /// Where other nodes will reach it [default: where they reached the node of that number]
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::parse)]
    pub(crate) peer_address: Option<Endpoint>,
    /// Where clients will reach it [default: where they reached the node of that number]
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::parse)]
    pub(crate) client_address: Option<Endpoint>,
    /// Do it without asking
    #[arg(long)]
    pub(crate) yes: bool,
}

/// What all commands take that change the membership.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct MemberChange {
    /// Change nothing, and say what the quorum is before and would be after
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Even if who is promoted has not caught up, or no majority of the new voters answers
    #[arg(long)]
    pub(crate) force: bool,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    /// Clients, each with a connection of its own and one operation (with --stream: one stream) at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) clients: u16,
    /// Size of an operation in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = operation_size)]
    pub(crate) size: usize,
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = measured_duration)]
    pub(crate) duration: Duration,
    /// How long to run before measuring
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = measured_duration)]
    pub(crate) warm_up: Duration,
    /// Pipeline: each client streams, with up to 1024 operations under way
    #[arg(long)]
    pub(crate) stream: bool,
    /// Where the disk's part of the floor is measured; the system's folder for temporary files without it
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// The longest time that a flag can ask for.
const DURATION_MAX: Duration = Duration::from_hours(24);

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > DURATION_MAX => Err("more than a day".to_owned()),
        Ok(duration) if duration.is_zero() => Err("has to be more than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write for example 1500ms or 10s")),
    }
}

/// Bounds what a benchmark may take, in time and so in memory.
fn measured_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration > Duration::from_hours(1) {
        Err("more than an hour".to_owned())
    } else {
        Ok(duration)
    }
}

fn client_id(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("must not be empty".to_owned()),
        1..=raftlog_proto::CLIENT_ID_BYTES_MAX if text.starts_with('~') => {
            Err("IDs that start with ~ are the cluster's own: choose another".to_owned())
        }
        1..=raftlog_proto::CLIENT_ID_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!(
            "longer than {} bytes",
            raftlog_proto::CLIENT_ID_BYTES_MAX
        )),
    }
}

fn operation_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ 1..=OPERATION_BYTES_MAX) => Ok(bytes),
        _ => Err(format!("an operation has 1 to {OPERATION_BYTES_MAX} bytes")),
    }
}

/// What clap says, as one line without usage and hints.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let told: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = told.join(" ");
    format!(
        "{}; see raftctl --help",
        line.strip_prefix("error: ").unwrap_or(&line)
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        let all = std::iter::once(&"raftctl").chain(arguments);
        Arguments::try_parse_from(all).map_err(|error| one_line(&error))
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn common_flags_go_before_and_after_the_command() {
        for arguments in [
            ["--endpoints", "a:1..2", "-o", "json", "status"],
            ["status", "-o", "json", "--endpoints", "a:1..2"],
        ] {
            let parsed = parse(&arguments).unwrap();
            assert_eq!(parsed.common.output, Format::Json);
            assert_eq!(
                parsed
                    .common
                    .endpoints
                    .iter()
                    .map(Endpoint::as_str)
                    .collect::<Vec<_>>(),
                ["a:1", "a:2"]
            );
            assert_eq!(parsed.common.replicators.len(), 5);
        }
    }

    #[test]
    fn wrong_usage_is_told_in_one_line() {
        for (arguments, part) in [
            (&["--unknown"][..], "--unknown"),
            (&["submit"], "<OPERATION>"),
            (&["submit", "--stdin", "x"], "cannot be used with"),
            (&["status", "--endpoints", "nonsense"], "nonsense"),
            (&["demo", "--nodes", "10"], "10"),
            (&["demo", "--operations", "0"], "0"),
            (&["demo", "--interval", "fast"], "fast"),
            (&["demo", "--base-port", "62000"], "62000"),
            (&["bench", "--size", "1048577"], "1048576"),
            (&["bench", "--duration", "2h"], "more than an hour"),
            (&["client", "--client-id", "~1"], "~"),
            (&["client", "--interval", "0s"], "more than 0"),
            (&["completions", "tcsh"], "tcsh"),
            (&["member", "remove", "x"], "16 hex digits"),
            (&["member", "add", "6"], "6"),
            (&["member", "promote"], "<MEMBER>"),
            (&["no-such-command"], "no-such-command"),
        ] {
            let message = parse(arguments).unwrap_err();
            assert!(
                message.contains(part) && !message.contains('\n') && message.ends_with("--help"),
                "{arguments:?}: {message}"
            );
        }
    }
}
