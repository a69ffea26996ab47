//! What clients submit and ask, as text:
//!
//! | operation | result |
//! | --- | --- |
//! | `put KEY VALUE` | `ok` |
//! | `get KEY` | `value VALUE`, or `none` |
//! | `delete KEY` | `ok`, or `none` where it was not there |
//! | `cas KEY EXPECTED VALUE` | `ok`, or `value VALUE` or `none`: what is there instead |
//!
//! A key has no space in it, neither has EXPECTED; a value is all that follows. What is none of these changes nothing, and its result begins
//! with `invalid`. `get KEY` can be asked as a query, too, which costs no entry in the log; `count` answers how many keys there are.

use std::fmt;

/// A change, or a look in between changes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Put {
        key: &'a str,
        value: &'a str,
    },
    Get {
        key: &'a str,
    },
    Delete {
        key: &'a str,
    },
    CompareAndSwap {
        key: &'a str,
        expected: &'a str,
        value: &'a str,
    },
}

/// What a query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Query<'a> {
    Get { key: &'a str },
    Count,
}

/// What comes of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Value(String),
    None,
    Count(u64),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Value(value) => write!(f, "value {value}"),
            Self::None => f.write_str("none"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl<'a> Command<'a> {
    pub(crate) fn parse(operation: &'a [u8]) -> Result<Self, &'static str> {
        const WRONG: &str = "invalid: put KEY VALUE, get KEY, delete KEY or cas KEY EXPECTED VALUE";
        let text = str::from_utf8(operation).map_err(|_| "invalid: no UTF-8")?;
        let (name, rest) = text.split_once(' ').ok_or(WRONG)?;
        let command = match (name, rest.split_once(' ')) {
            ("put", Some((key, value))) => Self::Put { key, value },
            ("get", None) => Self::Get { key: rest },
            ("delete", None) => Self::Delete { key: rest },
            ("cas", Some((key, rest))) => {
                let (expected, value) = rest.split_once(' ').ok_or(WRONG)?;
                Self::CompareAndSwap { key, expected, value }
            }
            _ => return Err(WRONG),
        };
        if command.key().is_empty() {
            Err(WRONG)
        } else {
            Ok(command)
        }
    }

    pub(crate) fn key(&self) -> &'a str {
        match self {
            Self::Put { key, .. }
            | Self::Get { key }
            | Self::Delete { key }
            | Self::CompareAndSwap { key, .. } => key,
        }
    }
}

impl<'a> Query<'a> {
    pub(crate) fn parse(query: &'a [u8]) -> Result<Self, &'static str> {
        const WRONG: &str = "the key-value store knows the queries 'get KEY' and 'count'";
        match str::from_utf8(query).map_err(|_| WRONG)?.split_once(' ') {
            Some(("get", key)) if !key.is_empty() && !key.contains(' ') => Ok(Self::Get { key }),
            None if query == b"count" => Ok(Self::Count),
            _ => Err(WRONG),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        for (text, expected) in [
            ("put a 1", Some(Command::Put { key: "a", value: "1" })),
            (
                "put a 1 2 3",
                Some(Command::Put {
                    key: "a",
                    value: "1 2 3",
                }),
            ),
            ("put a ", Some(Command::Put { key: "a", value: "" })),
            ("get a", Some(Command::Get { key: "a" })),
            ("delete a", Some(Command::Delete { key: "a" })),
            (
                "cas a 1 2",
                Some(Command::CompareAndSwap {
                    key: "a",
                    expected: "1",
                    value: "2",
                }),
            ),
            ("put a", None),
            ("put  1", None),
            ("get a b", None),
            ("get ", None),
            ("cas a 1", None),
            ("get", None),
            ("", None),
            ("steal a", None),
        ] {
            assert_eq!(Command::parse(text.as_bytes()).ok(), expected, "{text}");
        }
        assert!(Command::parse(b"get \xff").is_err());
    }

    #[test]
    fn queries() {
        for (text, expected) in [
            ("get a", Some(Query::Get { key: "a" })),
            ("count", Some(Query::Count)),
            ("get", None),
            ("get a b", None),
            ("count a", None),
            ("", None),
        ] {
            assert_eq!(Query::parse(text.as_bytes()).ok(), expected, "{text}");
        }
    }
}
