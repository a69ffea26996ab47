//! A snapshot on its way into a file by itself: written aside as one that comes in, checked, and given its name when it is whole
//! and on disk. Until then a file that had the name before stands.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{INCOMING, Manifest, Snapshots};
use crate::disk::{Disk as _, FileName, Op, Outcome};
use crate::error::OpenError;
use crate::file_disk::{FileDisk, LOCK_FILE};

/// What it is called until it is whole: a folder beside the file.
const ASIDE: &str = "part";

/// The snapshot. Dropped before its end, it leaves nothing behind. Every error is one line: what, where, what to do.
#[derive(Debug)]
pub struct Saving {
    path: PathBuf,
    aside: PathBuf,
    disk: FileDisk,
    snapshots: Snapshots,
    index: u64,
}

impl Saving {
    /// Begins to save it, or goes on with what a process left that was killed: data from the offset returned are wanted.
    pub fn begin(path: &Path, manifest: &Manifest) -> Result<(Self, u64), String> {
        let aside = aside_of(path)?;
        let name = path.display();
        let mut disk = FileDisk::open(&aside).map_err(|error| match error {
            OpenError::InUse { holder, .. } => {
                format!("{name} is being saved by {holder}: wait for it, or choose another name")
            }
            OpenError::Folder { folder, problem } => {
                format!("cannot save {name}: {folder}: {problem}; choose a folder that this user can write")
            }
            other => cannot_save(path, &other),
        })?;
        let opened = begin(&mut disk, manifest).map_err(|error| cannot_save(path, &error));
        let (path, index) = (path.to_owned(), manifest.index);
        match opened {
            Ok((snapshots, offset)) => {
                let saving = Self {
                    path,
                    aside,
                    disk,
                    snapshots,
                    index,
                };
                Ok((saving, offset))
            }
            Err(why) => {
                remove(&mut disk, &aside);
                Err(why)
            }
        }
    }

    /// The next data: they come in order, without gaps.
    pub fn receive(&mut self, offset: u64, data: &[u8]) -> Result<(), String> {
        let taken = self.snapshots.receive(offset, data);
        taken.map_err(|refused| cannot_save(&self.path, &refused))?;
        self.write()
    }

    /// All data came: it is on disk under its name, or an error says why it is not.
    pub fn finish(mut self) -> Result<(), String> {
        let whole = self.snapshots.finish();
        whole.map_err(|refused| cannot_save(&self.path, &refused))?;
        self.write()?;
        let named = fs::rename(self.snapshots.file(self.index), &self.path).and_then(|()| {
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        named.map_err(|error| cannot_save(&self.path, &error))
    }

    fn write(&mut self) -> Result<(), String> {
        let written = self.snapshots.write_now(&mut self.disk);
        written.map_err(|error| cannot_save(&self.path, &error))
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        remove(&mut self.disk, &self.aside);
    }
}

fn cannot_save(path: &Path, error: &impl std::fmt::Display) -> String {
    format!("cannot save {}: {error}; nothing was saved", path.display())
}

/// Where a file is until it is whole.
fn aside_of(path: &Path) -> Result<PathBuf, String> {
    let name = path.file_name().filter(|_| !path.is_dir());
    let Some(name) = name else {
        return Err(format!("{} is a folder: name a file in it", path.display()));
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(format!(
            "cannot save {}: there is no folder {}; make it first",
            path.display(),
            folder.display()
        ));
    }
    let mut aside = name.to_owned();
    aside.push(".");
    aside.push(ASIDE);
    Ok(path.with_file_name(aside))
}

/// Of what another process left, only what was not finished goes on: what was is of an earlier call.
fn begin(disk: &mut FileDisk, manifest: &Manifest) -> Result<(Snapshots, u64), OpenError> {
    for index in finished(disk) {
        let file = FileName::snapshot(index);
        disk.execute(&Op::Remove { file })?;
    }
    let (mut snapshots, _) = Snapshots::open(disk)?;
    let offset = snapshots
        .begin(manifest.clone(), true)
        .map_err(|refused| OpenError::Identity(refused.to_string()))?;
    Ok((snapshots, offset))
}

fn finished(disk: &mut FileDisk) -> Vec<u64> {
    let Ok(Outcome::Files(files)) = disk.execute(&Op::List) else {
        return Vec::new();
    };
    let names = files.iter().map(|file| file.name.as_str());
    names.filter_map(FileName::parse_snapshot).collect()
}

/// Removes what was written aside, and nothing else that may lie there. What cannot be removed takes room, and no more.
fn remove(disk: &mut FileDisk, aside: &Path) {
    let left = finished(disk)
        .into_iter()
        .map(FileName::snapshot)
        .chain([INCOMING]);
    for file in left {
        let _ = disk.execute(&Op::Remove { file });
    }
    let _ = fs::remove_file(aside.join(LOCK_FILE));
    let _ = fs::remove_dir(aside);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::snapshots::{SnapshotFile, Whole};

    fn data() -> Vec<u8> {
        (0..=250).cycle().take(700_000).collect()
    }

    fn manifest() -> Manifest {
        let data = data();
        Manifest {
            index: 9,
            term: 2,
            metadata: Bytes::from_static(b"whose"),
            whole: Whole {
                bytes: data.len() as u64,
                crc: crc32fast::hash(&data),
            },
        }
    }

    fn receive(saving: &mut Saving, from: u64, to: u64) {
        let (first, last) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
        let mut offset = from;
        for piece in data()[first..last].chunks(100_000) {
            saving.receive(offset, piece).unwrap();
            offset += piece.len() as u64;
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_once_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        fs::write(&path, "the one before").unwrap();
        let (mut saving, offset) = Saving::begin(&path, &manifest()).unwrap();
        assert_eq!(offset, 0);
        let busy = Saving::begin(&path, &manifest()).unwrap_err();
        assert!(busy.contains("is being saved by process"), "{busy}");
        receive(&mut saving, 0, 700_000);
        assert_eq!(fs::read(&path).unwrap(), b"the one before");
        saving.finish().unwrap();
        assert_eq!(names(folder.path()), ["backup"]);
        let file = SnapshotFile::open(&path).unwrap();
        assert_eq!(file.manifest(), &manifest());
        let mut seen = 0;
        file.check(&mut |bytes| seen = bytes).unwrap();
        assert_eq!(seen, 700_000);
        assert_eq!(file.read(5).unwrap()[..3], data()[5..8]);
    }

    #[test]
    fn what_is_not_whole_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let (mut saving, _) = Saving::begin(&path, &manifest()).unwrap();
        receive(&mut saving, 0, 600_000);
        let why = saving.finish().unwrap_err();
        assert!(why.contains("data at offset 600000 come next"), "{why}");
        let (mut saving, _) = Saving::begin(&path, &manifest()).unwrap();
        receive(&mut saving, 0, 600_000);
        saving.receive(600_000, &vec![0; 100_000]).unwrap();
        let why = saving.finish().unwrap_err();
        assert!(why.contains("do not match"), "{why}");
        assert_eq!(names(folder.path()), [""; 0]);
        for (path, part) in [
            (folder.path().to_owned(), "is a folder"),
            (folder.path().join("none").join("backup"), "there is no folder"),
        ] {
            let why = Saving::begin(&path, &manifest()).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn it_goes_on_where_a_killed_process_left_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let (mut saving, _) = Saving::begin(&path, &manifest()).unwrap();
        receive(&mut saving, 0, 600_000);
        let left = folder.path().join("left");
        fs::rename(&saving.aside, &left).unwrap();
        drop(saving);
        fs::rename(left, aside_of(&path).unwrap()).unwrap();
        let (mut saving, offset) = Saving::begin(&path, &manifest()).unwrap();
        assert_eq!(offset, crate::snapshots::CHUNK_BYTES as u64);
        receive(&mut saving, offset, 700_000);
        saving.finish().unwrap();
        SnapshotFile::open(&path).unwrap().check(&mut |_| {}).unwrap();
        assert_eq!(names(folder.path()), ["backup"]);
    }

    #[test]
    fn damage_anywhere_in_a_file_is_told_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let (mut saving, _) = Saving::begin(&path, &manifest()).unwrap();
        receive(&mut saving, 0, 700_000);
        saving.finish().unwrap();
        let whole = fs::read(&path).unwrap();
        let problem = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            let opened = SnapshotFile::open(&path);
            let why = opened.and_then(|file| file.check(&mut |_| {})).unwrap_err();
            assert!(!why.contains('\n') && why.contains("backup"), "{why}");
            why
        };
        for at in [0, 9, 20, 30, 45, 514, 1_100, 300_000, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            problem(&damaged);
        }
        for length in [0, 8, 100, 512, 1_024, 1_100, 500_000, whole.len() - 1] {
            problem(&whole[..length]);
        }
        assert!(problem(b"#!/bin/sh").contains("is no snapshot"));
        assert!(problem(&whole[..500_000]).contains("is cut short"));
        let none = SnapshotFile::open(&folder.path().join("none")).unwrap_err();
        assert!(none.contains("cannot read"), "{none}");
        let folder = SnapshotFile::open(folder.path()).unwrap_err();
        assert!(folder.contains("is no file"), "{folder}");
    }
}
