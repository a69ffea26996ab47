//! A snapshot in a file by itself, of whatever name: a copy that was saved, or one taken from a data folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use crc32fast::Hasher;

use super::format::{self, ReadHead, SNAPSHOT_VERSION, START_BYTES_MAX};
use super::{Manifest, Whole, data_of, split};

/// The file, open for reading. Every error is one line: what, where, what to do.
#[derive(Debug)]
pub struct SnapshotFile {
    file: File,
    name: String,
    manifest: Manifest,
}

impl SnapshotFile {
    /// Opens it, and looks at its head, its metadata and its length.
    pub fn open(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let cannot = |error: io::Error| format!("cannot read {name}: {error}");
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if !metadata.is_file() {
            return Err(format!("{name} is no file: name the file of a snapshot"));
        }
        let bytes = metadata.len();
        let start = read(&file, 0, START_BYTES_MAX).map_err(cannot)?;
        let manifest = match format::decode_start(&start) {
            ReadHead::Good(manifest, Some(_)) => manifest,
            ReadHead::Good(_, None) => {
                return Err(format!(
                    "{name} is a snapshot that was never finished: use another"
                ));
            }
            ReadHead::Version(found) => {
                return Err(format!(
                    "{name} has format version {found}, this program reads version {SNAPSHOT_VERSION}: use the program that wrote it"
                ));
            }
            ReadHead::Bad(..) if !format::is_snapshot(&start) => {
                return Err(format!("{name} is no snapshot of this system: check the name"));
            }
            ReadHead::Bad(offset, problem) => return Err(corrupt(&name, offset, problem)),
        };
        let length = format::file_bytes(manifest.metadata.len(), manifest.whole.bytes);
        if bytes < length {
            let problem = format!("the file is cut short: it had {length} bytes");
            return Err(corrupt(&name, bytes, &problem));
        }
        Ok(Self { file, name, manifest })
    }

    /// As it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known of it without its data.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its data from that offset to the end of the chunk that it is in, checked; none only at the end of the data.
    pub fn read(&self, offset: u64) -> Result<Bytes, String> {
        let (number, _) = split(offset);
        let length = format::chunk_length(self.manifest.whole.bytes, number);
        let at = format::frame_offset(self.manifest.metadata.len(), number);
        let chunk = read(&self.file, at, format::frame_bytes(length))
            .map_err(|error| format!("cannot read {} at offset {at}: {error}", self.name))?;
        data_of(&self.manifest, offset, &chunk).map_err(|(at, problem)| corrupt(&self.name, at, &problem))
    }

    /// Reads all of it: whether it is what was written once. `seen` is told how many bytes of data were.
    pub fn check(&self, seen: &mut dyn FnMut(u64)) -> Result<(), String> {
        let whole = self.manifest.whole;
        let (mut crc, mut offset) = (Hasher::new(), 0);
        while offset < whole.bytes {
            let data = self.read(offset)?;
            crc.update(&data);
            offset += data.len() as u64;
            seen(offset);
        }
        let found = Whole {
            bytes: offset,
            crc: crc.finalize(),
        };
        if found != whole {
            let problem = "its data as a whole do not match their CRC";
            return Err(corrupt(&self.name, 0, problem));
        }
        Ok(())
    }
}

/// As much as there is.
fn read(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}

fn corrupt(name: &str, offset: u64, problem: &str) -> String {
    format!("{name} is corrupt at offset {offset}: {problem}: use another copy")
}
