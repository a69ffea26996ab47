//! `watch`: committed operations from a replicator.

mod resume_file;

use raftlog_client::{Batch, Error, OperationLog, Options, Watch};
use raftlog_proto::v1::LoggedOperation;
use serde::Serialize;

use crate::{
    args::{Common, WatchArgs},
    failure::Failure,
    output::{Output, Records},
    text,
};
use resume_file::ResumeFile;

/// One committed operation. Bytes that are not UTF-8 are told in hex, so that nothing is lost.
#[derive(Serialize)]
struct Watched {
    index: u64,
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_hex: Option<String>,
    /// With the last operation of what came at once: for `--resume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    resume_token: Option<String>,
}

/// Prints what is committed from an index on: up to now, or on and on.
pub(crate) async fn run(common: &Common, arguments: &WatchArgs) -> Result<(), Failure> {
    let options = Options {
        timeout: arguments.timeout,
        ..Options::default()
    };
    let log = OperationLog::new(common.replicators.to_vec(), options)?;
    let file = arguments.resume_file.as_deref().map(ResumeFile::new);
    let noted = file.as_ref().map_or(Ok(None), ResumeFile::token)?;
    let is_noted = noted.is_some();
    let token = arguments.resume.clone().or(noted);
    let begun = begin(&log, arguments, token).await;
    let (mut watch, mut next) = begun.map_err(|failure| match &file {
        Some(file) if is_noted => failure.adding(&file.says_so()),
        _ => failure,
    })?;
    let (mut output, mut records) = (Output::stdout(), Records::new(common.output));
    while let Some(batch) = next {
        let last = batch.operations.last().map(|last| last.index);
        for operation in &batch.operations {
            let token = batch
                .resume_token
                .clone()
                .filter(|_| Some(operation.index) == last);
            print(operation, token, &mut output, &mut records)?;
        }
        if arguments.follow {
            output.flush()?;
        }
        // Only when it is written: whoever is killed between the two is given that again, and misses nothing.
        if let Some(file) = &file {
            output.sync()?;
            file.note(batch.resume_token.as_deref())?;
        }
        next = watch.next().await?;
    }
    output.flush()
}

/// A watch and what it gives first. Whoever names no index wants all that there is, and is told what is not there any more;
/// a named one that is gone is an error, and so is what follows a token.
async fn begin(
    log: &OperationLog,
    arguments: &WatchArgs,
    token: Option<String>,
) -> Result<(Watch, Option<Batch>), Failure> {
    if let Some(token) = token {
        let mut watch = log.resume(token, !arguments.follow, arguments.stale);
        let first = watch.next().await?;
        return Ok((watch, first));
    }
    let mut from = arguments.from.unwrap_or(1);
    loop {
        let mut watch = log.watch(from, !arguments.follow, arguments.stale);
        match watch.next().await {
            Err(Error::NoLongerHeld { first_index, .. })
                if arguments.from.is_none() && first_index > from =>
            {
                eprintln!(
                    "raftctl: operations before index {first_index} are not held any more, as snapshots hold what they did: \
                     this begins with {first_index}"
                );
                from = first_index;
            }
            first => return Ok((watch, first?)),
        }
    }
}

fn print(
    operation: &LoggedOperation,
    resume_token: Option<String>,
    output: &mut Output,
    records: &mut Records,
) -> Result<(), Failure> {
    let LoggedOperation {
        index, term, data, ..
    } = operation;
    let cells = [
        ("INDEX", 8, index.to_string()),
        ("TERM", 6, term.to_string()),
        ("OPERATION", 0, text::printable(data)),
    ];
    records.record(output, &watched(operation, resume_token), &cells, data)
}

fn watched(operation: &LoggedOperation, resume_token: Option<String>) -> Watched {
    let utf8 = std::str::from_utf8(&operation.data).ok();
    let hex = || text::hex(&operation.data);
    Watched {
        index: operation.index,
        term: operation.term,
        operation: utf8.map(str::to_owned),
        operation_hex: utf8.is_none().then(hex),
        resume_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_loses_nothing() {
        for (data, token, expected) in [
            (&b"a\nb"[..], None, r#"{"index":7,"term":2,"operation":"a\nb"}"#),
            (
                b"\xff\x00",
                None,
                r#"{"index":7,"term":2,"operation_hex":"ff00"}"#,
            ),
            (
                b"c",
                Some("1.f"),
                r#"{"index":7,"term":2,"operation":"c","resume_token":"1.f"}"#,
            ),
        ] {
            let operation = LoggedOperation {
                index: 7,
                term: 2,
                data: data.to_vec().into(),
                running_hash: 5,
            };
            assert_eq!(
                serde_json::to_string(&watched(&operation, token.map(str::to_owned))).unwrap(),
                expected
            );
        }
    }
}
