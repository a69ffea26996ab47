//! What the flags of the executors add up to, checked.

use std::time::Duration;

use reqwest::Url;

use super::executor::{CommandLine, OnFailure, Policy};
use super::executor_flags::{ExecMode, Executor, ExecutorFlags};
use crate::core::ExecutorKind;

const STATE_MACHINE: &str = "http://127.0.0.1:7001";
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_LONGEST: Duration = Duration::from_secs(30);
const DEAD_LETTERS_BYTES_MAX: u64 = 16 << 20;

/// What executes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExecutorConfig {
    Log,
    Http {
        url: Url,
        calling: CallingConfig,
    },
    Exec {
        mode: ExecMode,
        command: CommandLine,
        calling: CallingConfig,
    },
    StateMachine {
        url: String,
    },
}

/// How something is called for each operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallingConfig {
    pub(super) attempt_timeout: Duration,
    pub(super) policy: Policy,
    pub(super) dead_letters_bytes_max: u64,
}

impl ExecutorConfig {
    /// What it is to the core.
    pub(super) fn kind(&self) -> ExecutorKind {
        match self {
            Self::Log => ExecutorKind::Log,
            Self::Http { .. } => ExecutorKind::Http,
            Self::Exec { .. } => ExecutorKind::Exec,
            Self::StateMachine { .. } => ExecutorKind::StateMachine,
        }
    }

    /// The error is one line that says what to give instead.
    pub(super) fn from_flags(flags: ExecutorFlags) -> Result<Self, String> {
        refuse_others(&flags)?;
        Ok(match flags.executor {
            Executor::Log => Self::Log,
            Executor::StateMachine => Self::StateMachine {
                url: flags
                    .state_machine
                    .map_or_else(|| STATE_MACHINE.to_owned(), |url| url.0),
            },
            Executor::Http => Self::Http {
                calling: calling(&flags)?,
                url: flags
                    .http_url
                    .ok_or("where are operations posted to? give --http-url URL with --executor http")?
                    .0,
            },
            Executor::Exec => Self::Exec {
                calling: calling(&flags)?,
                mode: flags.exec_mode.unwrap_or_default(),
                // What is typed counts more than what is in the environment.
                command: CommandLine::new(flags.command).or(flags.exec_command).ok_or(
                    "which command executes operations? give it behind --, or as --exec-command JSON, with --executor exec",
                )?,
            },
        })
    }
}

fn calling(flags: &ExecutorFlags) -> Result<CallingConfig, String> {
    let on_failure = flags.on_failure.map(OnFailure::from).unwrap_or_default();
    if flags.dead_letters_max.is_some() && on_failure != OnFailure::Skip {
        return Err("--dead-letters-max is for what is skipped: give --on-failure skip with it".to_owned());
    }
    let (wait_first, wait_longest) = flags.retry_backoff.map_or((WAIT_FIRST, WAIT_LONGEST), |backoff| {
        (backoff.first, backoff.longest)
    });
    Ok(CallingConfig {
        attempt_timeout: flags.attempt_timeout.unwrap_or(ATTEMPT_TIMEOUT),
        policy: Policy {
            wait_first,
            wait_longest,
            attempts_max: flags.attempts_max,
            on_failure,
        },
        dead_letters_bytes_max: flags.dead_letters_max.unwrap_or(DEAD_LETTERS_BYTES_MAX),
    })
}

/// A flag without a meaning is a mistake.
fn refuse_others(flags: &ExecutorFlags) -> Result<(), String> {
    const CALLING: &[Executor] = &[Executor::Http, Executor::Exec];
    for (given, flag, executors) in [
        (
            flags.state_machine.is_some(),
            "--state-machine",
            &[Executor::StateMachine][..],
        ),
        (flags.http_url.is_some(), "--http-url", &[Executor::Http]),
        (flags.exec_mode.is_some(), "--exec-mode", &[Executor::Exec]),
        (flags.exec_command.is_some(), "--exec-command", &[Executor::Exec]),
        (
            !flags.command.is_empty(),
            "a command behind --",
            &[Executor::Exec],
        ),
        (flags.attempt_timeout.is_some(), "--attempt-timeout", CALLING),
        (flags.retry_backoff.is_some(), "--retry-backoff", CALLING),
        (flags.attempts_max.is_some(), "--attempts-max", CALLING),
        (flags.on_failure.is_some(), "--on-failure", CALLING),
        (flags.dead_letters_max.is_some(), "--dead-letters-max", CALLING),
    ] {
        if given && !executors.contains(&flags.executor) {
            let names: Vec<_> = executors
                .iter()
                .map(|executor| executor.kind().to_string())
                .collect();
            return Err(format!(
                "{flag} means nothing to --executor {}: leave it out, or give --executor {}",
                flags.executor.kind(),
                names.join(" or ")
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ExecutorFlags,
    }

    fn config(line: &str) -> Result<ExecutorConfig, String> {
        let words = ["program"]
            .into_iter()
            .chain(line.split(' '))
            .filter(|word| !word.is_empty());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        ExecutorConfig::from_flags(line.flags)
    }

    #[test]
    fn what_is_left_out_is_as_documented() {
        assert_eq!(config(""), Ok(ExecutorConfig::Log));
        assert_eq!(
            config("--executor state-machine"),
            Ok(ExecutorConfig::StateMachine {
                url: "http://127.0.0.1:7001".to_owned()
            })
        );
        let calling = CallingConfig {
            attempt_timeout: Duration::from_secs(30),
            policy: Policy {
                wait_first: Duration::from_millis(100),
                wait_longest: Duration::from_secs(30),
                attempts_max: None,
                on_failure: OnFailure::Stop,
            },
            dead_letters_bytes_max: 16 << 20,
        };
        assert_eq!(
            config("--executor http --http-url https://h/p"),
            Ok(ExecutorConfig::Http {
                url: Url::parse("https://h/p").unwrap(),
                calling
            })
        );
        let command = CommandLine::new(["do".into(), "--it".into()]).unwrap();
        let mode = ExecMode::Operation;
        let expected = ExecutorConfig::Exec {
            mode,
            command,
            calling,
        };
        assert_eq!(config("--executor exec -- do --it").as_ref(), Ok(&expected));
        assert_eq!(
            config(r#"--executor exec --exec-command ["do","--it"]"#).as_ref(),
            Ok(&expected)
        );
        // What is typed counts more.
        assert_eq!(
            config(r#"--executor exec --exec-command ["other"] -- do --it"#).as_ref(),
            Ok(&expected)
        );
    }

    #[test]
    fn what_is_given_counts() {
        let line = "--executor exec --exec-mode lines --attempt-timeout 2s --retry-backoff 1s..1m --attempts-max 4 --on-failure skip \
                    --dead-letters-max 4MiB -- do";
        let Ok(ExecutorConfig::Exec { mode, calling, .. }) = config(line) else {
            panic!("{line}")
        };
        assert_eq!(mode, ExecMode::Lines);
        let policy = Policy {
            wait_first: Duration::from_secs(1),
            wait_longest: Duration::from_mins(1),
            attempts_max: Some(4),
            on_failure: OnFailure::Skip,
        };
        assert_eq!(
            (calling.attempt_timeout, calling.policy),
            (Duration::from_secs(2), policy)
        );
        assert_eq!(calling.dead_letters_bytes_max, 4 << 20);
        // Without a limit of attempts, what never will be executed is skipped.
        assert!(config("--executor http --http-url http://h --on-failure skip").is_ok());
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        for (line, named) in [
            ("--executor http", "--http-url"),
            ("--executor exec", "--exec-command"),
            ("--executor exec --exec-command [] ", "--exec-command"),
            ("--executor exec --exec-command do", "--exec-command"),
            (r#"--executor exec --exec-command [""]"#, "--exec-command"),
            ("--executor log --http-url http://h", "--executor http"),
            ("--http-url http://h", "--executor http"),
            ("--state-machine unix:///s", "--executor state-machine"),
            (
                "--executor http --http-url http://h --exec-mode lines",
                "--exec-mode",
            ),
            ("--executor http --http-url http://h -- do", "--executor exec"),
            ("--executor exec --http-url http://h -- do", "--executor http"),
            (
                "--executor state-machine --attempts-max 3",
                "--executor http or exec",
            ),
            ("--attempt-timeout 1s", "--executor http or exec"),
            ("--on-failure stop", "--executor http or exec"),
            ("--retry-backoff 1s..2s", "--executor http or exec"),
            ("--dead-letters-max 16MiB", "--executor http or exec"),
            (
                "--executor exec --dead-letters-max 16MiB -- do",
                "--on-failure skip",
            ),
            ("--executor exec --on-failure frob -- do", "--on-failure"),
            ("--executor exec --exec-mode frob -- do", "--exec-mode"),
            ("--executor exec --attempts-max 0 -- do", "--attempts-max"),
            ("--executor exec --attempt-timeout 0s -- do", "--attempt-timeout"),
            ("--executor exec --attempt-timeout 25h -- do", "--attempt-timeout"),
            ("--executor exec --retry-backoff 1s -- do", "--retry-backoff"),
            ("--executor exec --retry-backoff 2s..1s -- do", "--retry-backoff"),
            ("--executor exec --retry-backoff 0s..1s -- do", "--retry-backoff"),
            ("--executor exec --retry-backoff 1s..2h -- do", "--retry-backoff"),
            (
                "--executor exec --on-failure skip --dead-letters-max 1MiB -- do",
                "--dead-letters-max",
            ),
            (
                "--executor exec --on-failure skip --dead-letters-max 16MB -- do",
                "--dead-letters-max",
            ),
            ("--executor http --http-url ftp://h", "--http-url"),
            ("--executor http --http-url h:80", "--http-url"),
            ("--executor http --http-url http://", "--http-url"),
        ] {
            let why = config(line).unwrap_err();
            assert!(why.contains(named), "{line}: {why}");
        }
    }
}
