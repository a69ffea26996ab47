//! `query`: what the executor makes of the operations.

use std::os::unix::ffi::OsStrExt as _;

use bytes::Bytes;
use raftlog_client::{Client, Options, QueryAnswer};
use serde::Serialize;

use crate::{
    args::{Common, QueryArgs},
    failure::Failure,
    output::{Output, Records},
    text,
};

/// An answer. Bytes that are not UTF-8 are told in hex, so that nothing is lost.
#[derive(Serialize)]
struct Queried {
    index: u64,
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_hex: Option<String>,
}

/// Asks, and prints the answer with the last operation that was executed then.
pub(crate) async fn run(common: &Common, arguments: &QueryArgs) -> Result<(), Failure> {
    let options = Options {
        timeout: arguments.timeout,
        ..Options::default()
    };
    let client = Client::new(common.endpoints.to_vec(), options)?;
    let query = Bytes::copy_from_slice(arguments.query.as_bytes());
    let answer = client.query(query, arguments.stale).await?;
    let cells = [
        ("INDEX", 8, answer.index.to_string()),
        ("TERM", 6, answer.term.to_string()),
        ("RESULT", 0, text::printable(&answer.result)),
    ];
    let (mut output, mut records) = (Output::stdout(), Records::new(common.output));
    records.record(&mut output, &queried(&answer), &cells, &answer.result)?;
    output.flush()
}

fn queried(answer: &QueryAnswer) -> Queried {
    let utf8 = std::str::from_utf8(&answer.result).ok();
    let hex = || text::hex(&answer.result);
    Queried {
        index: answer.index,
        term: answer.term,
        result: utf8.map(str::to_owned),
        result_hex: utf8.is_none().then(hex),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_loses_nothing() {
        for (result, expected) in [
            (&b"a\nb"[..], r#"{"index":7,"term":2,"result":"a\nb"}"#),
            (b"", r#"{"index":7,"term":2,"result":""}"#),
            (b"\xff\x00", r#"{"index":7,"term":2,"result_hex":"ff00"}"#),
        ] {
            let answer = QueryAnswer {
                result: Bytes::copy_from_slice(result),
                index: 7,
                term: 2,
            };
            assert_eq!(serde_json::to_string(&queried(&answer)).unwrap(), expected);
        }
    }
}
