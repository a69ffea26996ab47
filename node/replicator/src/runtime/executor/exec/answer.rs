//! What the end of a command, or a line of a process, means: decided here, and nowhere else.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use raftlog_proto::RESULT_BYTES_MAX;
use raftlog_raft::ids::OperationIndex;
use serde::Deserialize;

use crate::runtime::executor::calling::{Executed, Failed, Outcome, said};

/// `EX_DATAERR` of `sysexits.h`: it is the operation that is wrong.
const NEVER: i32 = 65;
/// `EX_TEMPFAIL`: where it is told in which term its leader leads, it has seen a later one.
const FENCED: i32 = 75;

/// How a command came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Exit(i32),
    Signal(i32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a command's end means. `complaint` is the last line that it wrote on stderr; `is_fenced` says whether it was told in which term its
/// leader leads.
pub(super) fn of_command(end: End, stdout: Bytes, complaint: &str, is_fenced: bool) -> Outcome {
    let says = match complaint {
        "" => String::new(),
        complaint => format!(": {complaint}"),
    };
    match end {
        End::Exit(0) => Ok(Executed { result: Some(stdout) }),
        End::Exit(NEVER) => Err(Failed::never(format!("{end}{says}"))),
        End::Exit(FENCED) if is_fenced => Err(Failed::fenced(format!("{end}{says}"))),
        End::Exit(_) | End::Signal(_) => Err(Failed::later(format!("{end}{says}"))),
    }
}

/// A line of a process.
#[derive(Debug, Deserialize)]
struct Line {
    index: OperationIndex,
    #[serde(default)]
    ok: bool,
    /// In base64.
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    error: Option<String>,
    /// Whether to try again after an error.
    #[serde(default = "yes")]
    retry: bool,
    /// Whether the error is that a later leader was seen.
    #[serde(default)]
    fenced: bool,
}

fn yes() -> bool {
    true
}

/// What a process's line means as the answer to an operation; the error is what is wrong with the line. `is_fenced` as above.
pub(super) fn of_line(line: &[u8], index: OperationIndex, is_fenced: bool) -> Result<Outcome, String> {
    let what = || {
        format!(
            "it answers '{}'",
            said(line).chars().take(100).collect::<String>()
        )
    };
    let answer: Line = serde_json::from_slice(line)
        .map_err(|error| format!("{}, which is not the JSON of an answer: {error}", what()))?;
    if answer.index != index {
        return Err(format!(
            "{}, where operation {index} is without an answer",
            what()
        ));
    }
    match (answer.ok, answer.error) {
        (true, None) => {
            let result = STANDARD
                .decode(answer.result.unwrap_or_default())
                .map_err(|error| format!("{}, whose result is not base64: {error}", what()))?;
            let result = Bytes::from(result);
            let kept = result.len().min(RESULT_BYTES_MAX);
            let result = Some(result.slice(..kept));
            Ok(Ok(Executed { result }))
        }
        (false, Some(error)) => {
            let error = said(error.as_bytes());
            Ok(Err(match (answer.fenced && is_fenced, answer.retry) {
                (true, _) => Failed::fenced(error),
                (false, true) => Failed::later(error),
                (false, false) => Failed::never(error),
            }))
        }
        (true, Some(_)) | (false, None) => Err(format!(
            "{}, which has to have either \"ok\": true or an \"error\"",
            what()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::executor::calling::Kind;

    fn kind(outcome: &Outcome) -> &'static str {
        match outcome.as_ref().map_err(|failed| failed.kind) {
            Ok(_) => "executed",
            Err(Kind::Later(_)) => "later",
            Err(Kind::Never) => "never",
            Err(Kind::Fenced) => "fenced",
            Err(Kind::Unreached) => "unreached",
        }
    }

    #[test]
    fn how_a_command_ends_decides() {
        for (end, expected, says) in [
            (End::Exit(0), "executed", ""),
            (End::Exit(65), "never", "exit code 65: no such thing"),
            (End::Exit(1), "later", "exit code 1: no such thing"),
            (End::Exit(64), "later", "exit code 64: no such thing"),
            (End::Exit(66), "later", "exit code 66: no such thing"),
            (End::Exit(255), "later", "exit code 255: no such thing"),
            (End::Signal(9), "later", "signal 9: no such thing"),
            (End::Signal(15), "later", "signal 15: no such thing"),
        ] {
            let outcome = of_command(end, Bytes::from_static(b"out"), "no such thing", false);
            assert_eq!(kind(&outcome), expected, "{end:?}");
            match outcome {
                Ok(executed) => assert_eq!(executed.result.as_deref(), Some(&b"out"[..])),
                Err(failed) => assert_eq!(failed.why, says),
            }
        }
        let silent = of_command(End::Exit(2), Bytes::new(), "", false).unwrap_err();
        assert_eq!(silent.why, "exit code 2");
        for (code, is_fenced, expected) in [(75, true, "fenced"), (75, false, "later"), (1, true, "later")] {
            let outcome = of_command(End::Exit(code), Bytes::new(), "", is_fenced);
            assert_eq!(kind(&outcome), expected, "{code} {is_fenced}");
        }
    }

    #[test]
    fn a_line_answers_the_operation_whose_turn_it_is() {
        for (line, expected, says) in [
            (r#"{"index":7,"ok":true}"#, "executed", ""),
            (r#"{"index":7,"ok":true,"result":"aGk="}"#, "executed", "hi"),
            (r#"{"index":7,"error":"busy"}"#, "later", "busy"),
            (
                r#"{"index":7,"error":"busy","retry":true,"more":[]}"#,
                "later",
                "busy",
            ),
            (r#"{"index":7,"error":"no\nway","retry":false}"#, "never", "no"),
            (
                r#"{"index":7,"error":"term 6","fenced":true}"#,
                "fenced",
                "term 6",
            ),
        ] {
            let outcome = of_line(line.as_bytes(), 7, true).unwrap();
            assert_eq!(kind(&outcome), expected, "{line}");
            let found = match outcome {
                Ok(executed) => String::from_utf8(executed.result.unwrap().to_vec()).unwrap(),
                Err(failed) => failed.why,
            };
            assert_eq!(found, says, "{line}");
        }
        for (line, why) in [
            (
                r#"{"index":6,"ok":true}"#,
                "where operation 7 is without an answer",
            ),
            (
                r#"{"index":8,"error":"x"}"#,
                "where operation 7 is without an answer",
            ),
            (r#"{"index":7}"#, "either"),
            (r#"{"index":7,"ok":true,"error":"x"}"#, "either"),
            (r#"{"index":7,"ok":false}"#, "either"),
            (r#"{"index":7,"ok":true,"result":"?"}"#, "base64"),
            (r#"{"index":-7,"ok":true}"#, "JSON"),
            (r#"{"ok":true}"#, "JSON"),
            ("7 ok", "JSON"),
            ("", "JSON"),
            ("\u{1b}[31m", "JSON"),
        ] {
            let found = of_line(line.as_bytes(), 7, true).unwrap_err();
            assert!(
                found.contains(why) && !found.contains('\u{1b}'),
                "{line}: {found}"
            );
        }
    }

    #[test]
    fn a_long_result_is_cut() {
        let line = format!(
            r#"{{"index":1,"ok":true,"result":"{}"}}"#,
            STANDARD.encode(vec![b'x'; RESULT_BYTES_MAX + 9])
        );
        let executed = of_line(line.as_bytes(), 1, true).unwrap().unwrap();
        assert_eq!(executed.result.unwrap().len(), RESULT_BYTES_MAX);
    }
}
