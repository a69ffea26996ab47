//! What the executor `log` can be asked. Its state is the list of the operations that it has executed:
//!
//! | query | result |
//! | --- | --- |
//! | `last` | the last operation that was executed, whose index comes with every answer; empty before the first |
//! | an index in decimal digits | the operation with that index |
//!
//! An index beyond the last operation executed, or before the first one held, is out of range.

use bytes::Bytes;
use raftlog_proto::RESULT_BYTES_MAX;
use raftlog_raft::ids::OperationIndex;
use tokio::sync::mpsc;

use crate::core::FetchError;
use crate::runtime::handle::{Fetched, Handle};
use crate::runtime::query::{Answer, Query, Refused};

/// Answers queries, one after the other, until there are no more. Execution may be held up meanwhile: it is not asked.
pub(super) async fn run(handle: Handle, mut queries: mpsc::Receiver<Query>) {
    while let Some(Query {
        executed,
        text,
        asker,
    }) = queries.recv().await
    {
        let result = match wanted(&text, executed.index) {
            Err(refused) => Err(refused),
            Ok(0) => Ok(Bytes::new()),
            Ok(index) => match handle.fetch(index, index, 1).await {
                Ok(fetched) => operation(index, fetched),
                // The process is stopping.
                Err(_) => return,
            },
        };
        asker.answer(Answer { executed, result });
    }
}

/// The index of the operation that is asked for; 0 stands for the last one where none is executed yet.
fn wanted(text: &[u8], executed: OperationIndex) -> Result<OperationIndex, Refused> {
    if text == b"last" {
        return Ok(executed);
    }
    let digits = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        None | Some(0) => Err(Refused::Invalid(
            "the executor log knows the query 'last', and operation indexes from 1 on".to_owned(),
        )),
        Some(index) if index > executed => Err(Refused::OutOfRange(format!(
            "operation {index} is not executed yet: the last one that is has index {executed}"
        ))),
        Some(index) => Ok(index),
    }
}

/// The operation at `index`, out of what the log answered.
fn operation(index: OperationIndex, fetched: Fetched) -> Result<Bytes, Refused> {
    let operations = match fetched {
        Ok((operations, _)) => operations,
        Err(FetchError::Busy(busy)) => return Err(Refused::Busy(busy.to_string())),
        Err(FetchError::Compacted { first }) => {
            return Err(Refused::OutOfRange(format!(
                "operation {index} is not held any more: the first one that is has index {first}"
            )));
        }
    };
    let found = operations
        .into_iter()
        .next()
        .filter(|found| found.index == index)
        .expect("what is executed is committed, and what is committed is held or was dropped");
    match found.data.len() {
        0..=RESULT_BYTES_MAX => Ok(found.data),
        bytes => Err(Refused::TooLong(format!(
            "operation {index} has {bytes} bytes, and a result at most {RESULT_BYTES_MAX}: read it from a replicator's log"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Busy, Operation};

    #[test]
    fn what_is_asked_for() {
        for (text, executed, expected) in [
            (&b"last"[..], 7, Ok(7)),
            (b"last", 0, Ok(0)),
            (b"7", 7, Ok(7)),
            (b"007", 7, Ok(7)),
            (b"8", 7, Err("out of range")),
            (b"1", 0, Err("out of range")),
            (b"18446744073709551615", 7, Err("out of range")),
            (b"18446744073709551616", 7, Err("invalid")),
            (b"0", 7, Err("invalid")),
            (b"", 7, Err("invalid")),
            (b"LAST", 7, Err("invalid")),
            (b"last\n", 7, Err("invalid")),
            (b"+7", 7, Err("invalid")),
            (b"-7", 7, Err("invalid")),
            (b" 7", 7, Err("invalid")),
            (b"\xff", 7, Err("invalid")),
        ] {
            let found = wanted(text, executed).map_err(|refused| match refused {
                Refused::Invalid(why) => {
                    assert!(why.contains("'last'") && why.contains("indexes"), "{why}");
                    "invalid"
                }
                Refused::OutOfRange(_) => "out of range",
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected, "{text:?} {executed}");
        }
    }

    #[test]
    fn what_the_log_answers() {
        let held = |bytes: usize| {
            let operation = Operation {
                index: 3,
                term: 1,
                running_hash: 0,
                data: vec![b'x'; bytes].into(),
            };
            Ok((vec![operation], 9))
        };
        assert_eq!(
            operation(3, held(RESULT_BYTES_MAX)).map(|data| data.len()),
            Ok(RESULT_BYTES_MAX)
        );
        assert!(matches!(
            operation(3, held(RESULT_BYTES_MAX + 1)),
            Err(Refused::TooLong(why)) if why.contains("65537")
        ));
        assert!(matches!(
            operation(3, Err(FetchError::Compacted { first: 5 })),
            Err(Refused::OutOfRange(why)) if why.contains("index 5")
        ));
        assert!(matches!(
            operation(3, Err(FetchError::Busy(Busy(9)))),
            Err(Refused::Busy(_))
        ));
    }
}
