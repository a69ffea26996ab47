//! Bytes and numbers as people read them.

use std::fmt::Write as _;

/// The longest part of an operation that is printed for people, in bytes of the operation.
const PRINTED_BYTES_MAX: usize = 256;

/// An operation for a line of text: UTF-8, with control characters, backslash and invalid bytes as `\xNN`, cut after 256
/// bytes with `…(+N bytes)`.
pub(crate) fn printable(operation: &[u8]) -> String {
    let (shown, rest) = operation.split_at(cut(operation));
    let mut text = String::with_capacity(shown.len());
    for chunk in shown.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() || letter == '\\' {
                escape(&mut text, letter.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(letter);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    if !rest.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(text, "…(+{} bytes)", rest.len());
    }
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02X}");
    }
}

/// Where to cut: at the limit, or just before a character that reaches across it.
fn cut(operation: &[u8]) -> usize {
    if operation.len() <= PRINTED_BYTES_MAX {
        return operation.len();
    }
    let start = (PRINTED_BYTES_MAX - 3..PRINTED_BYTES_MAX)
        .rev()
        .find(|&at| is_character_across_limit(operation, at));
    start.unwrap_or(PRINTED_BYTES_MAX)
}

/// Whether a valid character begins at `at` and ends beyond the limit.
fn is_character_across_limit(operation: &[u8], at: usize) -> bool {
    let length = match operation.get(at) {
        Some(0xc0..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf7) => 4,
        _ => return false,
    };
    let character = operation.get(at..at + length);
    at + length > PRINTED_BYTES_MAX && character.is_some_and(|bytes| std::str::from_utf8(bytes).is_ok())
}

/// Feature levels that a node supports, as `1` or `1-2`; `-` where it has not told.
pub(crate) fn levels(min: u32, max: u32) -> String {
    match (min, max) {
        (0, _) | (_, 0) => "-".to_owned(),
        (min, max) if min == max => min.to_string(),
        (min, max) => format!("{min}-{max}"),
    }
}

/// An ID as it is written outside the wire format: 16 hex digits; empty for 0, which stands for none.
pub(crate) fn id(id: u64) -> String {
    if id == 0 {
        String::new()
    } else {
        format!("{id:016x}")
    }
}

/// Bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// `1 operation`, `2 operations`.
pub(crate) fn count(number: u64, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_in_one_line() {
        for (operation, expected) in [
            (&b"operation-1"[..], "operation-1"),
            ("naïve 漢字 🦀".as_bytes(), "naïve 漢字 🦀"),
            (b"a\nb\tc", "a\\x0Ab\\x09c"),
            (b"back\\slash", "back\\x5Cslash"),
            (b"\x1b[2J", "\\x1B[2J"),
            (b"bad \xff\xfe end", "bad \\xFF\\xFE end"),
            ("\u{85}".as_bytes(), "\\xC2\\x85"),
            (b"cut \xe6\xbc", "cut \\xE6\\xBC"),
        ] {
            assert_eq!(printable(operation), expected);
        }
    }

    #[test]
    fn long_operations_are_cut_between_characters() {
        let ascii = vec![b'a'; 300];
        assert_eq!(printable(&ascii), format!("{}…(+44 bytes)", "a".repeat(256)));
        assert_eq!(printable(&ascii[..256]), "a".repeat(256));
        let mut across = vec![b'a'; 255];
        across.extend("漢字".bytes());
        assert_eq!(printable(&across), format!("{}…(+6 bytes)", "a".repeat(255)));
    }

    #[test]
    fn ids_and_counts() {
        assert_eq!(
            [id(0), id(1), id(u64::MAX)],
            ["", "0000000000000001", "ffffffffffffffff"]
        );
        assert_eq!(
            [count(0, "line"), count(1, "line"), count(2, "line")],
            ["0 lines", "1 line", "2 lines"]
        );
    }
}
