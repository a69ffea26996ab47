//! Sizes as Kubernetes writes them.

/// The bytes of a size such as 1Gi or 500M; none where it is not one.
pub(crate) fn bytes(quantity: &str) -> Option<u128> {
    let digits = quantity.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u128 = digits.parse().ok()?;
    let factor: u128 = match quantity.get(digits.len()..)? {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_compared_in_bytes() {
        for (text, expected) in [
            ("1Gi", Some(1 << 30)),
            ("1024Mi", Some(1 << 30)),
            ("500M", Some(500_000_000)),
            ("7", Some(7)),
            ("1.5Gi", None),
            ("1Pi", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
