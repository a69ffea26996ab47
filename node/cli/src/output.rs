//! Results on stdout, in the format that was asked for.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::fd::AsFd as _;

use clap::ValueEnum;
use comfy_table::Table;
use serde::Serialize;

use crate::failure::Failure;

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON object, or one a line
    Json,
    /// One YAML document
    Yaml,
    /// The bare result: operations as their bytes and a newline, indexes as numbers
    Raw,
}

/// Buffered stdout; a reader that has gone away ends the command quietly.
pub(crate) struct Output {
    writer: BufWriter<io::Stdout>,
}

impl Output {
    pub(crate) fn stdout() -> Self {
        Self {
            writer: BufWriter::with_capacity(64 << 10, io::stdout()),
        }
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.bytes(line.as_bytes())
    }

    /// The bytes, and a newline.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self
            .writer
            .write_all(bytes)
            .and_then(|()| self.writer.write_all(b"\n"));
        written.map_err(|error| Failure::output(&error))
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|error| Failure::output(&error))
    }

    /// Flushes; and where that is a file, what was written survives a power failure.
    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        self.flush()?;
        let synced = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        let synced = synced.and_then(|file| {
            if file.metadata()?.is_file() {
                file.sync_data()?;
            }
            Ok(())
        });
        synced.map_err(|error| Failure::output(&error))
    }

    /// One whole result. `table` and `raw` give what those formats print.
    pub(crate) fn whole(
        &mut self,
        format: Format,
        value: &impl Serialize,
        table: impl FnOnce() -> String,
        raw: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = match format {
            Format::Table => table(),
            Format::Json => json(value)?,
            Format::Yaml => yaml(value)?,
            Format::Raw => raw(),
        };
        self.line(text.trim_end_matches('\n'))?;
        self.flush()
    }
}

/// Results that come one after the other: a line each, under one heading.
pub(crate) struct Records {
    format: Format,
    headed: bool,
}

impl Records {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            headed: false,
        }
    }

    /// One result. `cells` are titles with their widths and texts; the last one has no width.
    pub(crate) fn record(
        &mut self,
        output: &mut Output,
        value: &impl Serialize,
        cells: &[(&str, usize, String)],
        raw: &[u8],
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                if !self.headed {
                    output.line(&row(cells.iter().map(|(title, width, _)| (*width, *title))))?;
                    self.headed = true;
                }
                output.line(&row(cells.iter().map(|(_, width, text)| (*width, text.as_str()))))
            }
            Format::Json => output.line(&json(value)?),
            Format::Yaml => output.line(yaml(&[value])?.trim_end_matches('\n')),
            Format::Raw => output.bytes(raw),
        }
    }
}

fn row<'a>(cells: impl Iterator<Item = (usize, &'a str)>) -> String {
    let cells: Vec<String> = cells.map(|(width, text)| format!("{text:<width$}")).collect();
    cells.join("  ").trim_end().to_owned()
}

/// A table with a heading, for people: columns two spaces apart, no lines.
pub(crate) fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(titles.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table
        .to_string()
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::failed(format!("cannot write the result as JSON: {error}; use -o table")))
}

fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(value)
        .map_err(|error| Failure::failed(format!("cannot write the result as YAML: {error}; use -o json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let text = table(
            &["NODE", "ROLE"],
            vec![
                vec!["1".to_owned(), "leader".to_owned()],
                vec!["12".to_owned(), String::new()],
            ],
        );
        assert_eq!(text, "NODE  ROLE\n1     leader\n12");
    }

    #[test]
    fn rows_of_records_line_up() {
        assert_eq!(
            row([(6, "INDEX"), (0, "OPERATION")].into_iter()),
            "INDEX   OPERATION"
        );
        assert_eq!(row([(6, "1"), (0, "x")].into_iter()), "1       x");
    }

    #[test]
    fn yaml_records_join_into_one_list() {
        #[derive(Serialize)]
        struct Record {
            index: u64,
        }
        assert_eq!(yaml(&[&Record { index: 1 }]).unwrap(), "- index: 1\n");
    }
}
