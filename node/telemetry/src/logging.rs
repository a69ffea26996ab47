//! `--log-format plain|json`: plain is the message as a whole line, exactly; json is one object a line. `RUST_LOG` filters
//! both.

use std::fmt::{self, Write as _};
use std::io;
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::lines::Lines;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// The message as a whole line
    #[default]
    Plain,
    /// One JSON object a line: timestamp, level, message, fields
    Json,
}

impl LogFormat {
    /// One line, without its newline. Line breaks in a plain message are written as `\n`, so that a line stays a line.
    pub fn render(self, at: SystemTime, level: Level, message: &str, fields: &Map<String, Value>) -> String {
        match self {
            Self::Plain if message.contains(['\n', '\r']) => {
                message.replace('\n', "\\n").replace('\r', "\\r")
            }
            Self::Plain => message.to_owned(),
            Self::Json => json!({
                "timestamp": humantime::format_rfc3339_micros(at).to_string(),
                "level": level.as_str(),
                "message": message,
                "fields": fields,
            })
            .to_string(),
        }
    }
}

/// Logging could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// No thread for the lines.
    #[error("cannot start the thread that writes log lines: {0}")]
    Thread(#[from] io::Error),
    /// `RUST_LOG` is not a filter.
    #[error("RUST_LOG is not a filter ({0}); try RUST_LOG=info")]
    Filter(#[from] tracing_subscriber::filter::FromEnvError),
    /// Twice in one process.
    #[error("logging is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// What [`init`] set up. Keep it until the end of `main`: dropping it waits for the last lines, a second at most.
pub struct Logging {
    format: LogFormat,
    lines: Lines,
}

impl Logging {
    /// The queue that all lines pass.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// How they look.
    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// Renders a line that `RUST_LOG` does not filter, for [`Lines::line`].
    pub fn render(&self, message: &str) -> String {
        self.format
            .render(SystemTime::now(), Level::INFO, message, &Map::new())
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.lines.drain();
    }
}

/// Sends what `tracing` records to stdout, from level info on unless `RUST_LOG` says otherwise. Once per process.
pub fn init(format: LogFormat) -> Result<Logging, LoggingError> {
    let lines = Lines::stdout()?;
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()?;
    tracing_subscriber::registry()
        .with(filter)
        .with(LineLayer {
            format,
            lines: lines.clone(),
        })
        .try_init()?;
    Ok(Logging { format, lines })
}

struct LineLayer {
    format: LogFormat,
    lines: Lines,
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = *event.metadata().level();
        self.lines.try_line(
            self.format
                .render(SystemTime::now(), level, &parts.message, &parts.fields),
        );
    }
}

#[derive(Default)]
struct Parts {
    message: String,
    fields: Map<String, Value>,
}

impl Parts {
    fn put(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string does not fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.put(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.put(field, value.into());
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let seen = Seen::default();
        let lines = Lines::to(seen.clone()).unwrap();
        let subscriber = tracing_subscriber::registry().with(LineLayer {
            format,
            lines: lines.clone(),
        });
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(
                node = 1_u64,
                index = 7_u64,
                "Node {} executes op={} at index={}",
                1,
                "a\"b",
                7
            );
            tracing::warn!(why = "gone", "two\nlines");
        });
        lines.drain();
        let bytes = seen.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn plain_is_the_message_and_nothing_else() {
        assert_eq!(
            logged(LogFormat::Plain),
            "Node 1 executes op=a\"b at index=7\ntwo\\nlines\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let objects: Vec<Value> = logged(LogFormat::Json)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let [first, second] = objects.as_slice() else {
            panic!("two lines")
        };
        assert_eq!(first["message"], "Node 1 executes op=a\"b at index=7");
        assert_eq!(first["level"], "INFO");
        assert_eq!(first["fields"], json!({"node": 1, "index": 7}));
        assert!(
            first["timestamp"]
                .as_str()
                .is_some_and(|text| text.ends_with('Z'))
        );
        assert_eq!(second["message"], "two\nlines");
        assert_eq!(second["level"], "WARN");
    }
}
