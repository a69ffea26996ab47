//! What commands and processes write, within bounds.

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

use crate::runtime::executor::calling::said;

/// What is kept of a line of stderr.
const LINE_BYTES_MAX: usize = 2 << 10;

/// The beginning of all that comes; the rest is read, so that nobody has to wait for it, and dropped.
pub(super) async fn beginning(mut from: impl AsyncRead + Unpin, bytes_max: usize) -> Bytes {
    let (mut kept, mut chunk) = (Vec::new(), vec![0; 8 << 10]);
    // What breaks has ended.
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let room = bytes_max.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
    }
    kept.into()
}

/// The last line of all that comes, as `keep` is told of each.
pub(super) async fn each_line(from: impl AsyncRead + Unpin, mut keep: impl FnMut(String)) {
    let mut from = BufReader::new(from);
    while let Some(line) = next_line(&mut from, LINE_BYTES_MAX).await {
        let line = said(line.beginning());
        if !line.is_empty() {
            keep(line);
        }
    }
}

/// A line without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// It is longer than what is kept of it.
    Cut(Vec<u8>),
}

impl Line {
    fn beginning(&self) -> &[u8] {
        match self {
            Self::Whole(line) | Self::Cut(line) => line,
        }
    }
}

/// The next line, or what there is before the end; `None` at the end. Of a line that is too long the rest is passed over.
pub(super) async fn next_line(from: &mut (impl AsyncBufRead + Unpin), bytes_max: usize) -> Option<Line> {
    let (mut line, mut is_cut, mut has_some) = (Vec::new(), false, false);
    loop {
        let chunk = from.fill_buf().await.unwrap_or_default();
        if chunk.is_empty() && !has_some {
            return None;
        }
        has_some = true;
        let newline = chunk.iter().position(|byte| *byte == b'\n');
        let part = chunk.get(..newline.unwrap_or(chunk.len())).unwrap_or_default();
        let room = bytes_max.saturating_sub(line.len()).min(part.len());
        is_cut |= room < part.len();
        line.extend_from_slice(part.get(..room).unwrap_or_default());
        let (is_last, taken) = (chunk.is_empty(), part.len() + usize::from(newline.is_some()));
        from.consume(taken);
        if newline.is_some() || is_last {
            return Some(if is_cut {
                Line::Cut(line)
            } else {
                Line::Whole(line)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_much_the_beginning_is_kept() {
        for (bytes, kept) in [(0, 0), (9, 9), (10, 10), (11, 10), (100_000, 10)] {
            let all = vec![b'x'; bytes];
            assert_eq!(beginning(&all[..], 10).await.len(), kept);
        }
    }

    #[tokio::test]
    async fn lines_come_one_by_one_and_long_ones_are_cut() {
        let mut from = &b"one\n\nlonger than ten\nten bytes.\nlast"[..];
        for expected in [
            Some(Line::Whole(b"one".to_vec())),
            Some(Line::Whole(Vec::new())),
            Some(Line::Cut(b"longer tha".to_vec())),
            Some(Line::Whole(b"ten bytes.".to_vec())),
            Some(Line::Whole(b"last".to_vec())),
            None,
            None,
        ] {
            assert_eq!(next_line(&mut from, 10).await, expected);
        }
    }

    #[tokio::test]
    async fn the_last_line_that_says_something_is_what_is_kept() {
        for (text, expected) in [
            ("", ""),
            ("one", "one"),
            ("one\ntwo\n", "two"),
            ("one\n\n  \n", "one"),
            ("\u{1b}[31mred\n", "[31mred"),
        ] {
            let mut last = String::new();
            each_line(text.as_bytes(), |line| last = line).await;
            assert_eq!(last, expected, "{text:?}");
        }
    }
}
