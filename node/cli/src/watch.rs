//! `watch`: committed operations from a replicator.

use raftlog_client::{OperationLog, Options};
use raftlog_proto::v1::LoggedOperation;
use serde::Serialize;

use crate::{
    args::{Common, WatchArgs},
    failure::Failure,
    output::{Output, Records},
    text,
};

/// One committed operation. Bytes that are not UTF-8 are told in hex, so that nothing is lost.
#[derive(Serialize)]
struct Watched {
    index: u64,
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_hex: Option<String>,
}

/// Prints what is committed from an index on: up to now, or on and on.
pub(crate) async fn run(common: &Common, arguments: &WatchArgs) -> Result<(), Failure> {
    let options = Options {
        timeout: arguments.timeout,
        ..Options::default()
    };
    let log = OperationLog::new(common.replicators.to_vec(), options)?;
    let mut watch = log.watch(arguments.from, !arguments.follow, arguments.stale);
    let (mut output, mut records) = (Output::stdout(), Records::new(common.output));
    while let Some(batch) = watch.next().await? {
        for operation in &batch.operations {
            print(operation, &mut output, &mut records)?;
        }
        if arguments.follow {
            output.flush()?;
        }
    }
    output.flush()
}

fn print(operation: &LoggedOperation, output: &mut Output, records: &mut Records) -> Result<(), Failure> {
    let LoggedOperation { index, term, data } = operation;
    let cells = [
        ("INDEX", 8, index.to_string()),
        ("TERM", 6, term.to_string()),
        ("OPERATION", 0, text::printable(data)),
    ];
    records.record(output, &watched(operation), &cells, data)
}

fn watched(operation: &LoggedOperation) -> Watched {
    let utf8 = std::str::from_utf8(&operation.data).ok();
    let hex = || text::hex(&operation.data);
    Watched {
        index: operation.index,
        term: operation.term,
        operation: utf8.map(str::to_owned),
        operation_hex: utf8.is_none().then(hex),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_loses_nothing() {
        for (data, expected) in [
            (&b"a\nb"[..], r#"{"index":7,"term":2,"operation":"a\nb"}"#),
            (b"\xff\x00", r#"{"index":7,"term":2,"operation_hex":"ff00"}"#),
        ] {
            let operation = LoggedOperation {
                index: 7,
                term: 2,
                data: data.to_vec().into(),
            };
            assert_eq!(serde_json::to_string(&watched(&operation)).unwrap(), expected);
        }
    }
}
