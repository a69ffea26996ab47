//! Operations from the command line, one after the other.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use bytes::Bytes;
use raftlog_client::{Client, Committed};
use serde::Serialize;

use super::failed_after;
use crate::{
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
}

/// Submits each operation and prints its index.
pub(super) async fn run(client: &Client, format: Format, operations: &[OsString]) -> Result<(), Failure> {
    // An ID of its own is enough for so short a session, and saves the wait for one to be opened.
    let session = client.session(format!("raftctl-{:032x}", rand::random::<u128>()), 1)?;
    let (mut output, mut records) = (Output::stdout(), Records::new(format));
    for (appended, operation) in (0..).zip(operations) {
        let operation = operation.as_bytes();
        match session.submit(Bytes::copy_from_slice(operation)).await {
            Ok(committed) => print(&mut output, &mut records, &committed, operation)?,
            Err(error) => return Err(failed_after(&error, appended, &format!("argument {appended}"))),
        }
    }
    Ok(())
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
        ..
    } = committed;
    let submitted = Submitted {
        index: *index,
        term: *term,
        leader_node: *leader_node,
        leader_address,
        operation: printable(operation),
    };
    let cells = [
        ("INDEX", 8, index.to_string()),
        ("TERM", 6, term.to_string()),
        ("LEADER", 6, leader_node.to_string()),
        ("OPERATION", 0, printable(operation)),
    ];
    records.record(output, &submitted, &cells, index.to_string().as_bytes())?;
    output.flush()
}
