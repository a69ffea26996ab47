//! Quantities with units, as flags take them.

use std::time::Duration;

/// A number of bytes, with or without a binary unit: `268435456`, `256MiB`, `1GiB`.
///
/// # Errors
/// One line that says what one looks like.
pub fn bytes(text: &str) -> Result<u64, String> {
    const EXAMPLES: &str = "a number of bytes is for example 268435456, 256MiB or 1GiB";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(EXAMPLES.into()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}; {EXAMPLES}"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "so many bytes there are not".into())
}

/// A time: `1500ms`, `2s`, `1day 12h`.
///
/// # Errors
/// One line that says what one looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; a duration is for example 1500ms, 2s or 7days"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("268435456", Some(256 << 20)),
            ("3KiB", Some(3 << 10)),
            ("256MiB", Some(256 << 20)),
            ("1GiB", Some(1 << 30)),
            ("2TiB", Some(2 << 40)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("18446744073709551615KiB", None),
            ("", None),
            ("MiB", None),
            ("1 MiB", None),
            ("-1", None),
            ("1MB", None),
            ("1.5GiB", None),
            ("1MiB1", None),
            ("1µ", None),
        ] {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("1500ms", Some(Duration::from_millis(1500))),
            ("7days", Some(Duration::from_hours(7 * 24))),
            ("1h 30m", Some(Duration::from_mins(90))),
            ("5", None),
            ("", None),
            ("-1s", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text}");
        }
    }
}
