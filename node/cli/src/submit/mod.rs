//! `submit`: operations from the command line, or from standard input.

mod each;
mod lines;
mod piped;

use raftlog_client::{Client, Error, Options};

use crate::{
    args::{Common, SubmitArgs},
    failure::{FAILED, Failure},
    text,
};

/// Submits what is given, each operation exactly once.
pub(crate) async fn run(common: &Common, arguments: &SubmitArgs) -> Result<(), Failure> {
    let options = Options {
        timeout: arguments.timeout,
        ..Options::default()
    };
    let client = Client::new(common.endpoints.to_vec(), options)?;
    if arguments.stdin {
        piped::run(&client, common.output).await
    } else {
        each::run(&client, common.output, arguments).await
    }
}

/// A failure after `appended` operations, the last of them at `place`: it is not one where nothing was appended then.
fn failed_after(error: &Error, appended: u64, place: &str) -> Failure {
    let failure = Failure::from(error.clone());
    if appended == 0 {
        return failure;
    }
    let Failure::Exit { code, message } = failure else {
        return failure;
    };
    let code = if matches!(error, Error::Unknown { .. }) {
        code
    } else {
        FAILED
    };
    let before = text::count(appended, "operation");
    Failure::Exit {
        code,
        message: format!("{message}; {before} up to {place} had been committed before"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{REFUSED, UNKNOWN};

    #[test]
    fn nothing_appended_means_nothing_at_all() {
        let no_leader = Error::NoLeader("no leader".to_owned());
        let unknown = Error::Unknown {
            reason: String::new(),
            message: "unknown".to_owned(),
        };
        for (error, appended, code) in [
            (&no_leader, 0, REFUSED),
            (&no_leader, 2, FAILED),
            (&unknown, 0, UNKNOWN),
            (&unknown, 2, UNKNOWN),
        ] {
            let Failure::Exit { code: got, message } = failed_after(error, appended, "line 3") else {
                unreachable!()
            };
            assert_eq!(got, code, "{error:?} {appended}");
            assert_eq!(
                message.contains("2 operations up to line 3"),
                appended > 0,
                "{message}"
            );
        }
    }
}
