//! What the log asks of a disk: operations as plain data, and the trait that carries them out.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

/// Name of a file in the data folder. Made only from numbers and constants of the program, never from input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(Name);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Name {
    Segment(u64),
    Snapshot(u64),
    Named(&'static str),
}

impl FileName {
    /// A file of the program's own beside the log, such as `executed`: lower-case letters and `-` only.
    ///
    /// Panics on another name, which is a mistake in the program.
    pub const fn named(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(
            !bytes.is_empty() && bytes.len() <= 32,
            "a file name has 1 to 32 characters"
        );
        let mut at = 0;
        while at < bytes.len() {
            assert!(
                bytes[at].is_ascii_lowercase() || bytes[at] == b'-',
                "a file name is made of a-z and -"
            );
            at += 1;
        }
        Self(Name::Named(name))
    }

    /// The segment of that sequence: `log-` and 16 hex digits.
    pub(crate) const fn segment(sequence: u64) -> Self {
        Self(Name::Segment(sequence))
    }

    /// The snapshot at that log index: `snapshot-` and 16 hex digits.
    pub(crate) const fn snapshot(index: u64) -> Self {
        Self(Name::Snapshot(index))
    }

    /// The index of the snapshot that a listed file is; `None` for any other file.
    pub(crate) fn parse_snapshot(name: &str) -> Option<u64> {
        let digits = name.strip_prefix("snapshot-")?;
        let index = u64::from_str_radix(digits, 16).ok()?;
        (Self::snapshot(index).to_string() == name).then_some(index)
    }

    /// The sequence of the segment that a listed file is; `None` for any other file.
    pub(crate) fn parse_segment(name: &str) -> Option<u64> {
        let digits = name.strip_prefix("log-")?;
        let sequence = u64::from_str_radix(digits, 16).ok()?;
        (Self::segment(sequence).to_string() == name).then_some(sequence)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Name::Segment(sequence) => write!(f, "log-{sequence:016x}"),
            Name::Snapshot(index) => write!(f, "snapshot-{index:016x}"),
            Name::Named(name) => f.write_str(name),
        }
    }
}

/// One thing for the disk to do. Each is over only when what it changed survives a power failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Write `data` at `offset` of an existing file in one go, then `fdatasync`.
    Write {
        /// Which file.
        file: FileName,
        /// Where, in bytes.
        offset: u64,
        /// Written one after the other.
        data: Vec<Bytes>,
    },
    /// Make a file, or empty the one of that name; write `head`, then zeros up to `length`; sync the file and the folder.
    Create {
        /// Which file.
        file: FileName,
        /// Its first bytes.
        head: Bytes,
        /// Its length, `head` included.
        length: u64,
    },
    /// Write zeros from `from` up to `to` of an existing file, and sync it with its length.
    Fill {
        /// Which file.
        file: FileName,
        /// First byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
    /// Read up to `length` bytes at `offset`; fewer at the end of the file.
    Read {
        /// Which file.
        file: FileName,
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: usize,
    },
    /// Put `data` in the place of a whole small file, or make it: written aside, synced, renamed, the folder synced.
    Replace {
        /// Which file.
        file: FileName,
        /// All of its new content.
        data: Bytes,
    },
    /// Write `head` over the first bytes of an existing file and sync it with its length; then give it the name `to`, in the
    /// place of whatever had that name, and sync the folder.
    Rename {
        /// Which file.
        file: FileName,
        /// Its first bytes from now on.
        head: Bytes,
        /// Its name from now on.
        to: FileName,
    },
    /// Remove a file, if it is there, and sync the folder.
    Remove {
        /// Which file.
        file: FileName,
    },
    /// Name the regular files of the folder.
    List,
    /// Tell the size of the volume.
    Volume,
}

/// What came of an [`Op`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Written, filled, created, replaced, renamed or removed, and synced.
    Done,
    /// Of [`Op::Read`].
    Data(Bytes),
    /// Of [`Op::List`]: in any order; names of others are among them.
    Files(Vec<FileInfo>),
    /// Of [`Op::Volume`]: its size in bytes.
    Volume(u64),
}

/// A listed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// As it stands in the folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// Why an [`Op`] failed, in the classes that the log tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No room (`ENOSPC`, `EDQUOT`) before anything counted as written: doing the same again later is safe.
    Full,
    /// There is no such file.
    Missing,
    /// Anything else. What a failed sync left behind is unknown: never try again.
    Failed,
}

/// A failed [`Op`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct DiskError {
    /// Its class.
    pub kind: DiskErrorKind,
    /// One line: what was tried, on which file, what the system said.
    pub message: String,
}

/// Carries out [`Op`]s, one after the other.
pub trait Disk {
    /// Does it, and returns when it is durable.
    fn execute(&mut self, op: &Op) -> Result<Outcome, DiskError>;

    /// The folder as messages name it.
    fn folder(&self) -> String {
        "data folder".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_segments() {
        assert_eq!(FileName::parse_segment("log-000000000000002a"), Some(42));
        for name in [
            "log-2a",
            "log-000000000000002A",
            "log-+00000000000002a",
            "lost+found",
            "log-",
            "identity",
        ] {
            assert_eq!(FileName::parse_segment(name), None, "{name}");
        }
    }
}
