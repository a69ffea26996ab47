//! A caller's deadline, as gRPC carries it.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// Answered this much before the caller gives up, so that the answer still arrives.
const MARGIN_MAX: Duration = Duration::from_millis(20);

/// How long this call may take: the caller's `grpc-timeout`, less a little for the way back; absent without one.
pub(crate) fn of(metadata: &MetadataMap) -> Option<Duration> {
    let timeout = parse(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    Some(timeout.saturating_sub(MARGIN_MAX.min(timeout / 10)))
}

/// `TimeoutValue TimeoutUnit` of the gRPC protocol: at most 8 digits and one of H, M, S, m, u, n.
fn parse(text: &str) -> Option<Duration> {
    let (value, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let digits = !value.is_empty() && value.len() <= 8 && value.bytes().all(|byte| byte.is_ascii_digit());
    let value: u64 = digits.then(|| value.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_as_grpc_writes_them() {
        for (text, expected) in [
            ("100m", Some(Duration::from_millis(100))),
            ("5S", Some(Duration::from_secs(5))),
            ("2M", Some(Duration::from_mins(2))),
            ("1H", Some(Duration::from_hours(1))),
            ("7u", Some(Duration::from_micros(7))),
            ("7n", Some(Duration::from_nanos(7))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("", None),
            ("S", None),
            ("5", None),
            ("5x", None),
            ("-5S", None),
            ("123456789S", None),
            ("5é", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn the_answer_leaves_before_the_caller_gives_up() {
        let mut metadata = MetadataMap::new();
        assert_eq!(of(&metadata), None);
        metadata.insert("grpc-timeout", "1S".parse().unwrap());
        assert_eq!(of(&metadata), Some(Duration::from_millis(980)));
        metadata.insert("grpc-timeout", "100m".parse().unwrap());
        assert_eq!(of(&metadata), Some(Duration::from_millis(90)));
    }
}
