//! How an operation's bytes are shown in a line (design 4.4).

use std::fmt::Write as _;

/// Bytes of an operation that a line shows.
const SHOWN_BYTES_MAX: usize = 256;

/// UTF-8 as it is, with control characters, backslash and invalid bytes as `\xNN`; after 256 bytes of the operation the
/// rest is counted: `…(+N bytes)`. A character that does not fit into the 256 bytes is left to the rest.
pub(super) fn shown(data: &[u8]) -> String {
    let cut = cut(data);
    let (kept, rest) = data.split_at_checked(cut).unwrap_or((data, &[]));
    let mut text = String::with_capacity(kept.len() + 16);
    for chunk in kept.utf8_chunks() {
        // Most operations have nothing to escape: they go over in one piece.
        let mut plain = chunk.valid();
        while let Some((at, character)) = plain.char_indices().find(|(_, c)| c.is_control() || *c == '\\') {
            let (before, from) = plain.split_at(at);
            let (escaped, after) = from.split_at(character.len_utf8());
            text.push_str(before);
            escape(escaped.as_bytes(), &mut text);
            plain = after;
        }
        text.push_str(plain);
        escape(chunk.invalid(), &mut text);
    }
    if !rest.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(text, "…(+{} bytes)", rest.len());
    }
    text
}

fn escape(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Where to cut: at 256 bytes, or up to three earlier so that no character is cut in two.
fn cut(data: &[u8]) -> usize {
    if data.len() <= SHOWN_BYTES_MAX {
        return data.len();
    }
    let continues = |at: usize| data.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    let start = (SHOWN_BYTES_MAX - 3..=SHOWN_BYTES_MAX)
        .rev()
        .find(|&at| !continues(at));
    let Some(start) = start else {
        return SHOWN_BYTES_MAX;
    };
    let around = data.get(start..data.len().min(start + 4)).unwrap_or_default();
    let character = around
        .utf8_chunks()
        .next()
        .and_then(|chunk| chunk.valid().chars().next());
    match character {
        Some(character) if start + character.len_utf8() > SHOWN_BYTES_MAX => start,
        // Bytes that are no character are cut anywhere.
        _ => SHOWN_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_on_one_line() {
        for (data, expected) in [
            (&b"operation-1"[..], "operation-1"),
            ("grün → ✓".as_bytes(), "grün → ✓"),
            (b"a\nb\r\tc\0", "a\\x0ab\\x0d\\x09c\\x00"),
            (b"back\\slash", "back\\x5cslash"),
            (b"\x1b[31mred\x7f", "\\x1b[31mred\\x7f"),
            // C1 control characters have two bytes each.
            ("\u{85}\u{9b}".as_bytes(), "\\xc2\\x85\\xc2\\x9b"),
            (b"\xff\xfeok\xc3", "\\xff\\xfeok\\xc3"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
            (b" 'quoted' \"too\" ", " 'quoted' \"too\" "),
        ] {
            assert_eq!(shown(data), expected);
        }
    }

    #[test]
    fn after_256_bytes_the_rest_is_counted() {
        let a = |count: usize| "a".repeat(count);
        for (data, expected) in [
            (a(256), a(256)),
            (a(257), format!("{}…(+1 bytes)", a(256))),
            (a(1 << 20), format!("{}…(+{} bytes)", a(256), (1 << 20) - 256)),
            // A character is never cut in two.
            (format!("{}é", a(254)), format!("{}é", a(254))),
            (format!("{}é", a(255)), format!("{}…(+2 bytes)", a(255))),
            (format!("{}😀z", a(253)), format!("{}…(+5 bytes)", a(253))),
            (format!("{}😀z", a(252)), format!("{}😀…(+1 bytes)", a(252))),
        ] {
            assert_eq!(shown(data.as_bytes()), expected);
        }
    }

    #[test]
    fn bytes_that_are_no_characters_are_cut_anywhere() {
        for byte in [0x80, 0xff, 0xf0] {
            let text = shown(&[byte; 300]);
            assert_eq!(
                text,
                format!("{}…(+44 bytes)", format!("\\x{byte:02x}").repeat(256))
            );
        }
    }
}
