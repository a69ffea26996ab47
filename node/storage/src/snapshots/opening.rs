//! What a start finds: snapshots that are whole, damaged ones, one that may go on coming in, and leftovers.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::format::{self, CHUNK_BYTES, FRAME_BYTES, ReadHead, SNAPSHOT_VERSION, START_BYTES_MAX};
use super::incoming::Incoming;
use super::{Damage, INCOMING, Manifest, SNAPSHOTS_MAX, Whole, place};
use crate::disk::{Disk, DiskErrorKind, FileName, Op, Outcome};
use crate::error::OpenError;

/// What a start goes on from.
pub(super) struct Opened {
    pub(super) kept: BTreeMap<u64, Manifest>,
    pub(super) damages: Vec<Damage>,
    pub(super) incoming: Option<Incoming>,
}

pub(super) fn open(disk: &mut dyn Disk) -> Result<Opened, OpenError> {
    let mut files = Files {
        folder: disk.folder(),
        disk,
    };
    let (found, incoming) = files.list()?;
    let mut kept = BTreeMap::new();
    let mut damages = Vec::new();
    for (&index, &bytes) in found.iter().rev() {
        // What is older than what is kept is left over, damaged or not.
        if kept.len() == SNAPSHOTS_MAX {
            files.remove(FileName::snapshot(index))?;
            continue;
        }
        match files.look(index, bytes)? {
            Ok(manifest) => {
                files.settle(&manifest)?;
                kept.insert(index, manifest);
            }
            Err(_) if !kept.is_empty() => files.remove(FileName::snapshot(index))?,
            Err(damage) => damages.push(damage),
        }
    }
    let newest = kept.keys().next_back().copied().unwrap_or(0);
    let incoming = match incoming {
        Some(bytes) => files.resume(bytes, newest)?,
        None => None,
    };
    Ok(Opened {
        kept,
        damages,
        incoming,
    })
}

struct Files<'a> {
    disk: &'a mut dyn Disk,
    folder: String,
}

impl Files<'_> {
    /// Snapshots by index, and the one that comes in, with the lengths of their files.
    fn list(&mut self) -> Result<(BTreeMap<u64, u64>, Option<u64>), OpenError> {
        let files = match self.disk.execute(&Op::List)? {
            Outcome::Files(files) => files,
            other => unreachable!("files were asked for, not {other:?}"),
        };
        let incoming = INCOMING.to_string();
        Ok((
            files
                .iter()
                .filter_map(|file| Some((FileName::parse_snapshot(&file.name)?, file.bytes)))
                .collect(),
            files
                .iter()
                .find(|file| file.name == incoming)
                .map(|file| file.bytes),
        ))
    }

    fn remove(&mut self, file: FileName) -> Result<(), OpenError> {
        self.disk.execute(&Op::Remove { file })?;
        Ok(())
    }

    fn read(&mut self, file: FileName, offset: u64, length: usize) -> Result<Bytes, OpenError> {
        match self.disk.execute(&Op::Read { file, offset, length }) {
            Ok(Outcome::Data(data)) => Ok(data),
            Ok(other) => unreachable!("data were asked for, not {other:?}"),
            Err(error) if error.kind == DiskErrorKind::Missing => Ok(Bytes::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn start(&mut self, file: FileName) -> Result<ReadHead, OpenError> {
        match format::decode_start(&self.read(file, 0, START_BYTES_MAX)?) {
            ReadHead::Version(found) => Err(OpenError::Version {
                file: format!("{}/{file}", self.folder),
                found,
                expected: SNAPSHOT_VERSION,
            }),
            head => Ok(head),
        }
    }

    /// Looks at head, metadata, length and last chunk.
    fn look(&mut self, index: u64, bytes: u64) -> Result<Result<Manifest, Damage>, OpenError> {
        let file = FileName::snapshot(index);
        let name = format!("{}/{file}", self.folder);
        let damage = |offset, problem: &str| {
            Ok(Err(Damage {
                index,
                file: name.clone(),
                offset,
                problem: problem.to_owned(),
            }))
        };
        let manifest = match self.start(file)? {
            ReadHead::Good(manifest, Some(_)) if manifest.index == index => manifest,
            ReadHead::Bad(offset, problem) => return damage(offset, problem),
            _ => return damage(0, "its head is that of another file"),
        };
        let (metadata, whole) = (manifest.metadata.len(), manifest.whole);
        if bytes < format::file_bytes(metadata, whole.bytes) {
            return damage(bytes, "the file is cut short");
        }
        if whole.bytes > 0 {
            let last = (whole.bytes - 1) / CHUNK_BYTES as u64;
            let offset = format::frame_offset(metadata, last);
            if self.chunk(file, &manifest, last, whole.bytes)? != Some(whole.crc) {
                return damage(offset, "the last chunk does not match its CRC");
            }
        }
        Ok(Ok(manifest))
    }

    /// The CRC of all data of a snapshot of that length up to the end of that chunk; `None` where the chunk is damaged.
    fn chunk(
        &mut self,
        file: FileName,
        manifest: &Manifest,
        number: u64,
        bytes: u64,
    ) -> Result<Option<u32>, OpenError> {
        let offset = format::frame_offset(manifest.metadata.len(), number);
        let data = self.read(file, offset, FRAME_BYTES)?;
        let length = format::chunk_length(bytes, number);
        Ok(format::decode_frame(place(manifest, number), length, &data).map(|(_, running)| running))
    }

    /// Makes sure of a name that may have been given without the folder having been synced.
    fn settle(&mut self, manifest: &Manifest) -> Result<(), OpenError> {
        let file = FileName::snapshot(manifest.index);
        self.disk.execute(&Op::Rename {
            file,
            head: format::encode_head(manifest, Some(manifest.whole)),
            to: file,
        })?;
        Ok(())
    }

    /// Goes on with a snapshot that was announced, after the last chunk that is known to be on disk; removes anything else.
    fn resume(&mut self, bytes: u64, newest: u64) -> Result<Option<Incoming>, OpenError> {
        let incoming = match self.start(INCOMING) {
            Ok(ReadHead::Good(manifest, Some(whole))) if manifest.index > newest => {
                self.resume_at(manifest, whole, bytes)?
            }
            // One of another version is of no use to this program.
            Ok(_) | Err(OpenError::Version { .. }) => None,
            Err(error) => return Err(error),
        };
        if incoming.is_none() {
            self.remove(INCOMING)?;
        }
        Ok(incoming)
    }

    /// `None` where nothing is known to be on disk. The last whole chunk is written again, and a file without two is begun
    /// again: if writing it failed before, it is shown, but no later sync puts it on disk. A chunk is written when what comes
    /// before it was synced; what was synced is looked at when it is read.
    fn resume_at(
        &mut self,
        manifest: Manifest,
        whole: Whole,
        bytes: u64,
    ) -> Result<Option<Incoming>, OpenError> {
        let room = bytes.saturating_sub(format::data_start(manifest.metadata.len()));
        let most = whole.bytes.div_ceil(CHUNK_BYTES as u64);
        let mut last = room.div_ceil(FRAME_BYTES as u64).min(most);
        while let Some(number) = last.checked_sub(1) {
            last = number;
            if self.chunk(INCOMING, &manifest, number, whole.bytes)?.is_some() {
                break;
            }
        }
        let Some(synced) = last.checked_sub(1) else {
            return Ok(None);
        };
        let crc = self.chunk(INCOMING, &manifest, synced, whole.bytes)?;
        Ok(crc.map(|crc| Incoming::resumed(manifest, last * CHUNK_BYTES as u64, crc)))
    }
}
