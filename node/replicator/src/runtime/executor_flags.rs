//! The flags of the executors, as they are given. Which of them go together is checked in [`super::executor_config`].

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use raftlog_telemetry::quantity;
use reqwest::Url;

use super::executor::{CommandLine, DEAD_LETTERS_MIN, OnFailure};
use crate::core::ExecutorKind;

/// What executes, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct ExecutorFlags {
    /// What executes committed operations
    #[arg(
        long,
        env = "REPLICATOR_EXECUTOR",
        value_name = "EXECUTOR",
        default_value = "log"
    )]
    pub(super) executor: Executor,

    /// Where the state machine serves, with --executor state-machine
    #[arg(
        long,
        help = "Where the state machine serves, with --executor state-machine: http://HOST:PORT or unix:///PATH \
                [default: http://127.0.0.1:7001]",
        env = "REPLICATOR_STATE_MACHINE",
        value_name = "URL"
    )]
    pub(super) state_machine: Option<StateMachineUrl>,

    /// Where operations are posted to, with --executor http: http:// or https://
    #[arg(long, env = "REPLICATOR_HTTP_URL", value_name = "URL", hide_env_values = true)]
    pub(super) http_url: Option<HttpUrl>,

    /// How operations get to the command, with --executor exec [default: operation]
    #[arg(long, env = "REPLICATOR_EXEC_MODE", value_name = "MODE")]
    pub(super) exec_mode: Option<ExecMode>,

    /// The command, as a JSON array of strings, with --executor exec; or give it behind --
    #[arg(
        long,
        env = "REPLICATOR_EXEC_COMMAND",
        value_name = "JSON",
        hide_env_values = true
    )]
    pub(super) exec_command: Option<CommandLine>,

    /// How long an attempt at an operation may take, with --executor http or exec [default: 30s]
    #[arg(long, env = "REPLICATOR_ATTEMPT_TIMEOUT", value_name = "DURATION", value_parser = attempt_timeout)]
    pub(super) attempt_timeout: Option<Duration>,

    /// The first wait after a failed attempt, and the longest, with --executor http or exec [default: 100ms..30s]
    #[arg(long, env = "REPLICATOR_RETRY_BACKOFF", value_name = "MIN..MAX")]
    pub(super) retry_backoff: Option<Backoff>,

    /// Give an operation up after so many attempts, with --executor http or exec [default: never]
    #[arg(long, env = "REPLICATOR_ATTEMPTS_MAX", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) attempts_max: Option<u64>,

    /// What to do with an operation that is given up, which is after --attempts-max attempts, or at once where it never will be executed
    /// (HTTP 3xx and 4xx but 408, 425, 429; exit code 65); without --attempts-max only the latter [default: stop]
    #[arg(long, env = "REPLICATOR_ON_FAILURE", value_name = "WHAT")]
    pub(super) on_failure: Option<OnFailureFlag>,

    /// How much of what was skipped is kept in the data folder, with --on-failure skip [default: 16MiB]
    #[arg(long, env = "REPLICATOR_DEAD_LETTERS_MAX", value_name = "SIZE", value_parser = dead_letters_max)]
    pub(super) dead_letters_max: Option<u64>,

    /// The command, with --executor exec
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// What executes committed operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Executor {
    /// Prints each operation as a line on stdout
    Log,
    /// Posts each operation to a URL
    Http,
    /// Runs a command for each operation, or gives one process a line for each
    Exec,
    /// Has each operation applied by a program of the user's own that serves raftlog.v1.StateMachine
    StateMachine,
}

impl Executor {
    /// What it is to the core.
    pub(super) fn kind(self) -> ExecutorKind {
        match self {
            Self::Log => ExecutorKind::Log,
            Self::Http => ExecutorKind::Http,
            Self::Exec => ExecutorKind::Exec,
            Self::StateMachine => ExecutorKind::StateMachine,
        }
    }
}

/// How operations get to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum ExecMode {
    /// A command per operation, which has it on stdin
    #[default]
    Operation,
    /// One process, which is given a line of JSON for each operation, and answers with a line
    Lines,
}

/// See [`OnFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnFailureFlag {
    /// Execute nothing more until the replicator is started again
    Stop,
    /// Record it in the data folder, and go on
    Skip,
}

impl From<OnFailureFlag> for OnFailure {
    fn from(flag: OnFailureFlag) -> Self {
        match flag {
            OnFailureFlag::Stop => Self::Stop,
            OnFailureFlag::Skip => Self::Skip,
        }
    }
}

/// `http://HOST:PORT` or `unix:///PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateMachineUrl(pub(super) String);

impl FromStr for StateMachineUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host = text.strip_prefix("http://");
        let has_host = host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'));
        let has_path = text
            .strip_prefix("unix://")
            .is_some_and(|path| path.len() > 1 && path.starts_with('/'));
        let is_url = tonic::transport::Endpoint::from_shared(text.to_owned()).is_ok();
        if is_url && (has_host || has_path) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a state machine is at http://HOST:PORT or unix:///PATH".to_owned())
        }
    }
}

/// `http://...` or `https://...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpUrl(pub(super) Url);

impl FromStr for HttpUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "an endpoint is for example http://127.0.0.1:8080/operations";
        let url = Url::parse(text).map_err(|error| format!("{error}; {EXAMPLE}"))?;
        match url.scheme() {
            "http" | "https" if url.has_host() => Ok(Self(url)),
            _ => Err(format!("it is neither http:// nor https://; {EXAMPLE}")),
        }
    }
}

/// From the first wait to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl FromStr for Backoff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "waits are for example 100ms..30s";
        let (first, longest) = text
            .split_once("..")
            .ok_or_else(|| format!("it is not MIN..MAX; {EXAMPLE}"))?;
        let (first, longest) = (quantity::duration(first)?, quantity::duration(longest)?);
        if first > longest {
            return Err(format!("its MIN is above its MAX; {EXAMPLE}"));
        }
        if first < Duration::from_millis(1) || longest > Duration::from_hours(1) {
            return Err(format!("a wait is 1ms at least and 1h at most; {EXAMPLE}"));
        }
        Ok(Self { first, longest })
    }
}

fn attempt_timeout(text: &str) -> Result<Duration, String> {
    let timeout = quantity::duration(text)?;
    if timeout < Duration::from_millis(1) || timeout > Duration::from_hours(24) {
        return Err("an attempt may take 1ms at least and 24h at most".to_owned());
    }
    Ok(timeout)
}

fn dead_letters_max(text: &str) -> Result<u64, String> {
    let bytes = quantity::bytes(text)?;
    if bytes < DEAD_LETTERS_MIN {
        return Err("give 4MiB at least: two of the longest operations have to have room".to_owned());
    }
    Ok(bytes)
}
