//! Operations from the command line, one after the other.

use std::os::unix::ffi::OsStrExt as _;

use bytes::Bytes;
use raftlog_client::{Client, Committed, Error, WaitFor};
use serde::Serialize;

use super::failed_after;
use crate::{
    args::{self, SubmitArgs},
    failure::Failure,
    output::{Format, Output, Records},
    text::printable,
};

#[derive(Serialize)]
struct Submitted<'a> {
    index: u64,
    term: u64,
    leader_node: u32,
    leader_address: &'a str,
    /// As far as it can be printed.
    operation: String,
    /// As far as it can be printed; of what is executed and has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
}

/// Submits each operation and prints its index; of one that has a result, `-o raw` prints that.
pub(super) async fn run(client: &Client, format: Format, arguments: &SubmitArgs) -> Result<(), Failure> {
    let wait_for = match arguments.wait_for {
        args::WaitFor::Committed => WaitFor::Committed,
        args::WaitFor::Executed => WaitFor::Executed,
    };
    // An ID of its own is enough for so short a session, and saves the wait for one to be opened.
    let session = client.session(format!("raftctl-{:032x}", rand::random::<u128>()), 1)?;
    let (mut output, mut records) = (Output::stdout(), Records::new(format));
    for (appended, operation) in (0..).zip(&arguments.operations) {
        let operation = operation.as_bytes();
        let submitting = session.submit_and_wait(Bytes::copy_from_slice(operation), wait_for);
        match submitting.await {
            Ok(committed) => print(&mut output, &mut records, &committed, operation)
                .map_err(|failure| failure.adding(&is_committed(committed.index)))?,
            Err(error) => {
                let failure = failed_after(&error, appended, &format!("argument {appended}"));
                let may_be_stuck = wait_for == WaitFor::Executed && matches!(error, Error::Unknown { .. });
                return Err(if may_be_stuck {
                    failure.adding("`raftctl status` tells whether an executor fails at it")
                } else {
                    failure
                });
            }
        }
    }
    Ok(())
}

fn is_committed(index: u64) -> String {
    format!("the operation is committed, at index {index}: submitting it again would append it twice")
}

fn print(
    output: &mut Output,
    records: &mut Records,
    committed: &Committed,
    operation: &[u8],
) -> Result<(), Failure> {
    let Committed {
        index,
        term,
        leader_node,
        leader_address,
        result,
    } = committed;
    let submitted = Submitted {
        index: *index,
        term: *term,
        leader_node: *leader_node,
        leader_address,
        operation: printable(operation),
        result: result.as_deref().map(printable),
    };
    let mut cells = vec![
        ("INDEX", 8, index.to_string()),
        ("TERM", 6, term.to_string()),
        ("LEADER", 6, leader_node.to_string()),
        ("OPERATION", 0, printable(operation)),
    ];
    if let Some(result) = &submitted.result {
        cells.push(("RESULT", 0, result.clone()));
    }
    let index = index.to_string();
    let raw = result.as_deref().unwrap_or(index.as_bytes());
    records.record(output, &submitted, &cells, raw)?;
    output.flush()
}
