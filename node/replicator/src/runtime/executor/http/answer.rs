//! What the status of an answer means: decided here, and nowhere else.
//!
//! | status | |
//! | --- | --- |
//! | 2xx | executed |
//! | 408, 425, 429, 5xx | later; not before `Retry-After`, but for 5xx other than 503 |
//! | 3xx | never: the URL is wrong |
//! | 412 | never; with `--execute-on leader` later: somebody else leads in a higher term |
//! | other 4xx | never |
//! | all else | later |

use std::time::{Duration, SystemTime};

use crate::runtime::executor::calling::{ASKED_WAIT_MAX, Kind, said};

/// What an endpoint says beside the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) status: u16,
    pub(super) retry_after: Option<&'a str>,
    pub(super) location: Option<&'a str>,
}

/// What that means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    Executed,
    /// What to do about it, for people, where more can be said than the endpoint says.
    Failed(Kind, Option<String>),
}

/// Of an answer to a call that says, or does not say, in which term its leader leads.
pub(super) fn meaning(head: Head<'_>, is_fenced: bool, now: SystemTime) -> Meaning {
    let asked = || {
        head.retry_after
            .and_then(|text| wait(text, now))
            .unwrap_or_default()
    };
    match head.status {
        200..=299 => Meaning::Executed,
        408 | 425 | 429 | 503 => Meaning::Failed(Kind::Later(asked()), None),
        412 if is_fenced => Meaning::Failed(Kind::Fenced, None),
        300..=399 => {
            let to = head.location.map_or_else(String::new, |location| {
                format!(" to {}", said(location.as_bytes()))
            });
            let what = format!(
                "it redirects{to}, which is not followed: give --http-url the address that executes operations"
            );
            Meaning::Failed(Kind::Never, Some(what))
        }
        400..=499 => Meaning::Failed(Kind::Never, None),
        _ => Meaning::Failed(Kind::Later(Duration::ZERO), None),
    }
}

/// Seconds or a date; what is neither asks for nothing.
fn wait(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than fit is more than is waited.
        return Some(text.parse().map_or(ASKED_WAIT_MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn head(status: u16, retry_after: Option<&str>) -> Head<'_> {
        Head {
            status,
            retry_after,
            location: None,
        }
    }

    #[test]
    fn each_status_means_one_thing() {
        let later = Meaning::Failed(Kind::Later(Duration::ZERO), None);
        let never = Meaning::Failed(Kind::Never, None);
        for (statuses, expected) in [
            (&[200, 201, 202, 204, 206, 299][..], &Meaning::Executed),
            (&[408, 425, 429, 500, 501, 502, 503, 504, 599], &later),
            (
                &[400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 422, 451, 499],
                &never,
            ),
            (&[100, 101, 199, 600, 999], &later),
        ] {
            for &status in statuses {
                assert_eq!(&meaning(head(status, None), false, now()), expected, "{status}");
            }
        }
    }

    #[test]
    fn who_is_fenced_off_has_not_failed_for_good() {
        for (is_fenced, kind) in [(true, Kind::Fenced), (false, Kind::Never)] {
            let expected = Meaning::Failed(kind, None);
            assert_eq!(meaning(head(412, None), is_fenced, now()), expected);
        }
    }

    #[test]
    fn a_redirect_says_what_to_change() {
        for location in [None, Some("https://other/")] {
            for status in [300, 301, 302, 303, 304, 307, 308] {
                let head = Head {
                    location,
                    ..head(status, Some("9"))
                };
                let Meaning::Failed(Kind::Never, Some(what)) = meaning(head, false, now()) else {
                    panic!("{status}");
                };
                assert!(
                    what.contains("--http-url") && what.contains(location.unwrap_or("redirects")),
                    "{what}"
                );
            }
        }
    }

    #[test]
    fn it_may_ask_for_time_in_seconds_or_by_a_date() {
        for (text, expected) in [
            ("7", 7),
            (" 7 ", 7),
            ("0", 0),
            ("18446744073709551616", ASKED_WAIT_MAX.as_secs()),
            ("Sun, 06 Nov 1994 08:50:00 GMT", 23),
            ("Sunday, 06-Nov-94 08:50:00 GMT", 23),
            ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
            ("", 0),
            ("-7", 0),
            ("7.5", 0),
            ("soon", 0),
        ] {
            for (status, heeded) in [(408, true), (425, true), (429, true), (503, true), (500, false)] {
                let asked = Duration::from_secs(if heeded { expected } else { 0 });
                let found = meaning(head(status, Some(text)), false, now());
                assert_eq!(
                    found,
                    Meaning::Failed(Kind::Later(asked), None),
                    "{status} {text:?}"
                );
            }
        }
    }
}
