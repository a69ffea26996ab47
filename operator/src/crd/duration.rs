//! Durations as users write them: a whole number and `ms`, `s`, `m` or `h`, such as `1500ms`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What the API server lets pass: every such text is a duration for CEL's `duration()`, for humantime, and for people.
const PATTERN: &str = "^([1-9][0-9]{0,6}(ms|s|m)|[1-9][0-9]{0,4}h)$";

/// A duration, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationText(String);

impl DurationText {
    /// The text itself: flags of the node take it as it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How long it is. The schema refuses what is none; an object stored under an earlier schema may hold it all the same.
    pub fn parse(&self) -> Result<Duration, String> {
        humantime::parse_duration(&self.0).map_err(|error| {
            format!(
                "'{}' is no duration ({error}); write for example 1500ms or 3s",
                self.0
            )
        })
    }
}

impl From<&str> for DurationText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 9})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_durations_or_say_what_to_write() {
        for (text, milliseconds) in [
            ("1500ms", 1_500),
            ("3s", 3_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            let parsed = DurationText::from(text).parse().unwrap();
            assert_eq!(parsed, Duration::from_millis(milliseconds));
        }
        let error = DurationText::from("soon").parse().unwrap_err();
        assert!(error.contains("'soon'") && error.contains("1500ms"), "{error}");
    }
}
