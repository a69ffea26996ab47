//! Operations that were given up, in files of bounded size in the data folder: a line of JSON each.
//!
//! There are two files, each of half the size: when the newer one is full it takes the place of the older one. A line is on disk before
//! its operation counts as executed; so after a crash in between an operation may be there twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::core::Operation;

/// The newer file.
const FILE: &str = "dead-letters.jsonl";
/// The older one.
const OLD_FILE: &str = "dead-letters.old.jsonl";
/// Two of the longest letters have room.
pub(in crate::runtime) const BYTES_MIN: u64 = 4 << 20;

/// A line.
#[derive(Debug, Serialize)]
struct Letter<'a> {
    index: u64,
    term: u64,
    attempts: u64,
    /// Why the last one failed.
    error: &'a str,
    /// In base64.
    operation: String,
}

/// The files.
#[derive(Debug)]
pub(in crate::runtime) struct DeadLetters {
    folder: PathBuf,
    file_bytes_max: u64,
    file: File,
    bytes: u64,
}

impl DeadLetters {
    /// Takes the files of a folder. A line that a crash cut short is dropped: its operation does not count as executed. The last whole one is
    /// written again: if that failed before, it is shown, but no later sync puts it on disk.
    pub(in crate::runtime) fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        let mut file = open(folder)?;
        let bytes = whole_lines(&mut file, None)?;
        let last = whole_lines(&mut file, Some(bytes))?;
        let mut line = Vec::new();
        file.seek(SeekFrom::Start(last))?;
        io::Read::by_ref(&mut file)
            .take(bytes - last)
            .read_to_end(&mut line)?;
        // In place: to append is all that the other one can do.
        let again = OpenOptions::new().write(true).open(folder.join(FILE))?;
        again.write_all_at(&line, last)?;
        file.set_len(bytes)?;
        file.sync_data()?;
        Ok(Self {
            folder: folder.to_owned(),
            file_bytes_max: bytes_max / 2,
            file,
            bytes,
        })
    }

    /// Puts an operation on disk; whether the oldest letters had to go for it. After an error nothing can be said of the newer file, and
    /// nothing more is to be recorded.
    pub(super) fn record(&mut self, operation: &Operation, attempts: u64, error: &str) -> io::Result<bool> {
        let letter = Letter {
            index: operation.index,
            term: operation.term,
            attempts,
            error,
            operation: STANDARD.encode(&operation.data),
        };
        let mut line = serde_json::to_vec(&letter)?;
        line.push(b'\n');
        let bytes = line.len() as u64;
        if !self.is_in_place()? {
            *self = Self::open(&self.folder, self.file_bytes_max * 2)?;
        }
        let mut oldest_go = false;
        if self.bytes > 0 && self.bytes.saturating_add(bytes) > self.file_bytes_max {
            let old = self.folder.join(OLD_FILE);
            oldest_go = fs::exists(&old)?;
            fs::rename(self.folder.join(FILE), old)?;
            self.file = open(&self.folder)?;
            self.bytes = 0;
        }
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(oldest_go)
    }

    /// Whoever has seen to the letters may have removed or moved the file.
    fn is_in_place(&self) -> io::Result<bool> {
        let there = match fs::metadata(self.folder.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            there => there?,
        };
        let ours = self.file.metadata()?;
        Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }
}

/// The newer file, to be appended to, and its name on disk.
fn open(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .append(true)
        .create(true)
        .open(folder.join(FILE))?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// Bytes up to and with the last newline; with `before`, the last one before the one that ends there.
fn whole_lines(file: &mut File, before: Option<u64>) -> io::Result<u64> {
    const CHUNK: u64 = 64 << 10;
    let mut end = match before {
        Some(before) => before.saturating_sub(1),
        None => file.metadata()?.len(),
    };
    while end > 0 {
        let begin = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(begin))?;
        let mut chunk = Vec::new();
        io::Read::by_ref(file).take(end - begin).read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tempfile::TempDir;

    use super::*;

    fn operation(index: u64, bytes: usize) -> Operation {
        Operation {
            index,
            term: 7,
            running_hash: 0,
            data: vec![b'x'; bytes].into(),
        }
    }

    fn indexes(folder: &Path, file: &str) -> Vec<u64> {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        let letters = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        letters.map(|letter| letter["index"].as_u64().unwrap()).collect()
    }

    #[test]
    fn letters_may_be_taken_away_at_any_time() {
        let folder = TempDir::new().unwrap();
        let mut letters = DeadLetters::open(folder.path(), BYTES_MIN).unwrap();
        letters.record(&operation(1, 1), 1, "no").unwrap();
        fs::rename(folder.path().join(FILE), folder.path().join("handled")).unwrap();
        letters.record(&operation(2, 1), 1, "no").unwrap();
        assert_eq!(indexes(folder.path(), "handled"), [1]);
        assert_eq!(indexes(folder.path(), FILE), [2]);
        fs::remove_file(folder.path().join(FILE)).unwrap();
        letters.record(&operation(3, 1), 1, "no").unwrap();
        assert_eq!(indexes(folder.path(), FILE), [3]);
        // Also one that is full.
        letters.record(&operation(4, 1 << 20), 1, "no").unwrap();
        fs::remove_file(folder.path().join(FILE)).unwrap();
        letters.record(&operation(5, 1 << 20), 1, "no").unwrap();
        assert_eq!(indexes(folder.path(), FILE), [5]);
        fs::remove_file(folder.path().join(FILE)).unwrap();
        fs::create_dir(folder.path().join(FILE)).unwrap();
        assert!(letters.record(&operation(6, 1), 1, "no").is_err());
    }

    #[test]
    fn a_letter_says_what_was_given_up_and_why() {
        let folder = TempDir::new().unwrap();
        let mut letters = DeadLetters::open(folder.path(), BYTES_MIN).unwrap();
        let error = "410 Gone: \"no\"\nmore";
        letters.record(&operation(4, 3), 2, error).unwrap();
        let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(text.lines().count(), 1);
        let letter: Value = serde_json::from_str(&text).unwrap();
        let expected =
            serde_json::json!({"index": 4, "term": 7, "attempts": 2, "error": error, "operation": "eHh4"});
        assert_eq!(letter, expected);
    }

    #[test]
    fn both_files_together_stay_within_the_bound_and_the_oldest_letters_go() {
        let folder = TempDir::new().unwrap();
        let mut letters = DeadLetters::open(folder.path(), BYTES_MIN).unwrap();
        for index in 1..=40 {
            let oldest_go = letters.record(&operation(index, 300_000), 1, "no").unwrap();
            assert_eq!(oldest_go, index > 10 && index % 5 == 1, "{index}");
            let size = |file| fs::metadata(folder.path().join(file)).map_or(0, |file| file.len());
            assert!(size(FILE) + size(OLD_FILE) <= BYTES_MIN, "{index}");
        }
        // Five to a file.
        assert_eq!(indexes(folder.path(), FILE), [36, 37, 38, 39, 40]);
        assert_eq!(indexes(folder.path(), OLD_FILE), [31, 32, 33, 34, 35]);
        letters.record(&operation(41, 1), 1, "no").unwrap();
        letters.record(&operation(42, 1 << 20), 1, "no").unwrap();
        assert_eq!(indexes(folder.path(), OLD_FILE), [36, 37, 38, 39, 40, 41]);
    }

    #[test]
    fn a_line_that_was_cut_short_is_dropped() {
        let folder = TempDir::new().unwrap();
        for (left, index) in [("", 1), ("{\"index\":2,\"ter", 2), (&"x".repeat(200_000), 3)] {
            let before = fs::read_to_string(folder.path().join(FILE)).unwrap_or_default();
            fs::write(folder.path().join(FILE), before + left).unwrap();
            let mut letters = DeadLetters::open(folder.path(), BYTES_MIN).unwrap();
            letters.record(&operation(index, 1), 1, "no").unwrap();
        }
        assert_eq!(indexes(folder.path(), FILE), [1, 2, 3]);
    }
}
