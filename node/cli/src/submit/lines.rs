//! Operations from a text: a line each, without its newline.

use std::io::{self, BufRead, Read as _};

use bytes::Bytes;
use raftlog_proto::OPERATION_BYTES_MAX;

/// Reads operations from lines; empty ones are skipped and counted. A line is any bytes, of at most an operation's length.
pub(crate) struct Lines<R> {
    reader: R,
    line: u64,
    empty: u64,
}

/// A line that is an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// 1-based, counting the empty ones.
    pub(crate) number: u64,
    pub(crate) operation: Bytes,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            line: 0,
            empty: 0,
        }
    }

    /// Empty lines so far.
    pub(crate) fn empty(&self) -> u64 {
        self.empty
    }

    /// The next operation; `None` at the end. The error is one line.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, String> {
        loop {
            let Some(operation) = self
                .read_line()
                .map_err(|error| format!("cannot read standard input: {error}"))?
            else {
                return Ok(None);
            };
            self.line += 1;
            match operation.len() {
                0 => self.empty += 1,
                1..=OPERATION_BYTES_MAX => {
                    return Ok(Some(Line {
                        number: self.line,
                        operation: operation.into(),
                    }));
                }
                _ => {
                    return Err(format!(
                        "line {} is longer than an operation's {OPERATION_BYTES_MAX} bytes: shorten it",
                        self.line
                    ));
                }
            }
        }
    }

    /// A line without its newline, or the beginning of one that is too long; `None` at the end.
    fn read_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let limit = u64::try_from(OPERATION_BYTES_MAX)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Numbered = Vec<(u64, Vec<u8>)>;

    /// Operations with their line numbers, empty lines, and the error at the end.
    fn operations(text: &[u8]) -> (Numbered, u64, Option<String>) {
        let mut lines = Lines::new(text);
        let mut operations = Vec::new();
        loop {
            match lines.next() {
                Ok(Some(line)) => operations.push((line.number, line.operation.to_vec())),
                Ok(None) => return (operations, lines.empty(), None),
                Err(error) => return (operations, lines.empty(), Some(error)),
            }
        }
    }

    #[test]
    fn a_line_is_an_operation() {
        for (text, expected, empty) in [
            (&b""[..], vec![], 0),
            (b"\n\n", vec![], 2),
            (b"a\n\nb\n", vec![(1, &b"a"[..]), (3, b"b")], 1),
            (
                b"no newline at the end",
                vec![(1, &b"no newline at the end"[..])],
                0,
            ),
            (b" \n\t\r\n", vec![(1, &b" "[..]), (2, b"\t\r")], 0),
            (b"\xff\xfe\x00\n", vec![(1, &b"\xff\xfe\x00"[..])], 0),
        ] {
            let expected: Numbered = expected
                .into_iter()
                .map(|(line, bytes)| (line, bytes.to_vec()))
                .collect();
            assert_eq!(
                operations(text),
                (expected, empty, None),
                "{:?}",
                text.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn the_longest_line_and_one_byte_more() {
        let mut text = vec![b'x'; OPERATION_BYTES_MAX];
        assert_eq!(operations(&text).0[0].1.len(), OPERATION_BYTES_MAX);
        text.extend(b"\nnext\n");
        assert_eq!(operations(&text).0.len(), 2);

        let mut text = b"first\n\n".to_vec();
        text.extend(vec![b'x'; 3 * OPERATION_BYTES_MAX]);
        let (before, empty, error) = operations(&text);
        assert_eq!((before.len(), empty), (1, 1));
        assert!(error.unwrap().starts_with("line 3 is longer"));
    }
}
