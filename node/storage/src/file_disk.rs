//! Real files.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::disk::{Disk, DiskError, DiskErrorKind, FileInfo, FileName, Op, Outcome};
use crate::error::OpenError;

/// Name of the file that is locked while a process has the folder.
pub const LOCK_FILE: &str = "LOCK";
/// How long a program that starts may wait for it: another one may have been told to stop and take its time.
pub const IN_USE_MAX: Duration = Duration::from_secs(20);
/// Whoever waits for it looks this often.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Files kept open at a time; of more, the one with the lowest name is closed.
const OPEN_FILES_MAX: usize = 64;
/// Zeros are written in pieces of this many bytes.
const ZEROS_BYTES: usize = 256 * 1024;
/// Buffers handed to one vectored write (`IOV_MAX` is 1024).
const SLICES_MAX: usize = 1024;

/// As long as one of these lives, no other process gets the folder. Clones are of the same lock.
#[derive(Debug, Clone)]
pub struct FolderLock(#[expect(dead_code, reason = "it is held, and nothing more")] Arc<File>);

/// A data folder, locked for as long as this lives. Give it to one I/O thread.
#[derive(Debug)]
pub struct FileDisk {
    folder: PathBuf,
    handle: File,
    files: BTreeMap<FileName, File>,
    zeros: Bytes,
    lock: FolderLock,
}

impl FileDisk {
    /// Takes the folder, which is made if it is not there. Files of others in it (`lost+found`) are left alone.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_within(folder, Duration::ZERO, |_| {})
    }

    /// The same; but who has the folder is waited for, as it may be about to end. `waits` hears of that.
    ///
    /// # Errors
    /// Where the folder is still in use after `patience`, or cannot be used.
    pub fn open_within(
        folder: &Path,
        patience: Duration,
        waits: impl FnOnce(&OpenError),
    ) -> Result<Self, OpenError> {
        let cannot = |problem: &io::Error| OpenError::Folder {
            folder: folder.display().to_string(),
            problem: problem.to_string(),
        };
        create_folder(folder).map_err(|e| cannot(&e))?;
        let handle = File::open(folder).map_err(|e| cannot(&e))?;
        let lock = wait_for_lock(folder, patience, waits)?;
        Ok(Self {
            folder: folder.to_owned(),
            handle,
            files: BTreeMap::new(),
            zeros: Bytes::from(vec![0; ZEROS_BYTES]),
            lock: FolderLock(Arc::new(lock)),
        })
    }

    /// For who has something else that the next process needs, such as ports, and lets go of it later than of this.
    pub fn lock(&self) -> FolderLock {
        self.lock.clone()
    }

    fn path(&self, file: FileName) -> PathBuf {
        self.folder.join(file.to_string())
    }

    /// An open handle of an existing file.
    fn file(&mut self, name: FileName) -> io::Result<&File> {
        if !self.files.contains_key(&name) {
            let file = OpenOptions::new().read(true).write(true).open(self.path(name))?;
            self.keep(name, file);
        }
        self.files
            .get(&name)
            .ok_or_else(|| io::Error::other("a handle was lost"))
    }

    fn keep(&mut self, name: FileName, file: File) {
        if self.files.len() >= OPEN_FILES_MAX {
            self.files.pop_first();
        }
        self.files.insert(name, file);
    }

    fn write(&mut self, name: FileName, offset: u64, data: &[Bytes]) -> Result<(), Failure> {
        let file = self.file(name).map_err(Failure::before)?;
        write_all(file, offset, data).map_err(Failure::before)?;
        // A sync that failed, whatever it says, may have dropped what it was to write.
        file.sync_data().map_err(Failure::sync)
    }

    fn create(&mut self, name: FileName, head: &Bytes, length: u64) -> Result<(), Failure> {
        let path = self.path(name);
        self.files.remove(&name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(Failure::before)?;
        let filled = write_all(&file, 0, std::slice::from_ref(head))
            .and_then(|()| write_zeros(&file, &self.zeros, head.len() as u64, length))
            .and_then(|()| file.sync_all());
        if let Err(error) = filled {
            // Gives back what was taken of a full disk; the error that counts is the first.
            let _ = file.set_len(0);
            return Err(Failure::before(error));
        }
        self.keep(name, file);
        self.handle.sync_all().map_err(Failure::sync)
    }

    fn fill(&mut self, name: FileName, from: u64, to: u64) -> Result<(), Failure> {
        let zeros = self.zeros.clone();
        let file = self.file(name).map_err(Failure::before)?;
        let length = file.metadata().map_err(Failure::before)?.len();
        let filled = write_zeros(file, &zeros, from, to).and_then(|()| file.sync_all());
        filled.map_err(|error| {
            // As in `create`, but never what was there before: batches speak of it.
            let _ = file.set_len(length);
            Failure::before(error)
        })
    }

    fn read(&mut self, name: FileName, offset: u64, length: usize) -> Result<Bytes, Failure> {
        let file = self.file(name).map_err(Failure::before)?;
        let mut buffer = vec![0; length];
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::before(error)),
            }
        }
        buffer.truncate(read);
        Ok(buffer.into())
    }

    fn replace(&mut self, name: FileName, data: &Bytes) -> Result<(), Failure> {
        let path = self.path(name);
        let aside = self.folder.join(format!("{name}.new"));
        self.files.remove(&name);
        let written = File::create(&aside).and_then(|mut file| {
            file.write_all(data)?;
            file.sync_all()
        });
        if let Err(error) = written {
            // The old file still stands; the error that counts is the first.
            let _ = fs::remove_file(&aside);
            return Err(Failure::before(error));
        }
        fs::rename(&aside, path).map_err(Failure::before)?;
        self.handle.sync_all().map_err(Failure::sync)
    }

    fn rename(&mut self, name: FileName, head: &Bytes, to: FileName) -> Result<(), Failure> {
        let (path, new_path) = (self.path(name), self.path(to));
        let file = self.file(name).map_err(Failure::before)?;
        write_all(file, 0, std::slice::from_ref(head)).map_err(Failure::before)?;
        file.sync_all().map_err(Failure::sync)?;
        fs::rename(path, new_path).map_err(Failure::before)?;
        // A handle of what had the new name would go on showing that.
        self.files.remove(&to);
        if let Some(file) = self.files.remove(&name) {
            self.keep(to, file);
        }
        self.handle.sync_all().map_err(Failure::sync)
    }

    fn remove(&mut self, name: FileName) -> Result<(), Failure> {
        self.files.remove(&name);
        match fs::remove_file(self.path(name)) {
            Ok(()) => self.handle.sync_all().map_err(Failure::sync),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Failure::before(error)),
        }
    }

    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push(FileInfo {
                    name,
                    bytes: metadata.len(),
                });
            }
        }
        Ok(files)
    }

    fn volume(&self) -> io::Result<u64> {
        let volume = rustix::fs::fstatvfs(&self.handle)?;
        Ok(volume.f_blocks.saturating_mul(volume.f_frsize))
    }

    fn error(&self, op: &Op, failure: &Failure) -> DiskError {
        let folder = self.folder.display();
        let what = match op {
            Op::Write { file, offset, data } => {
                let bytes: usize = data.iter().map(Bytes::len).sum();
                let verb = if failure.in_sync { "sync" } else { "write" };
                format!("cannot {verb} {bytes} bytes at offset {offset} of {folder}/{file}")
            }
            Op::Create { file, length, .. } => format!("cannot create {folder}/{file} with {length} bytes"),
            Op::Fill { file, from, to } => format!("cannot fill {folder}/{file} from offset {from} to {to}"),
            Op::Read { file, offset, .. } => format!("cannot read {folder}/{file} at offset {offset}"),
            Op::Replace { file, .. } => format!("cannot replace {folder}/{file}"),
            Op::Rename { file, to, .. } => format!("cannot make {folder}/{file} {folder}/{to}"),
            Op::Remove { file } => format!("cannot remove {folder}/{file}"),
            Op::List => format!("cannot list {folder}"),
            Op::Volume => format!("cannot tell the size of the volume of {folder}"),
        };
        DiskError {
            kind: failure.kind(),
            message: format!("{what}: {}", failure.error),
        }
    }
}

impl Disk for FileDisk {
    fn execute(&mut self, op: &Op) -> Result<Outcome, DiskError> {
        let done = |()| Outcome::Done;
        let result = match op {
            Op::Write { file, offset, data } => self.write(*file, *offset, data).map(done),
            Op::Create { file, head, length } => self.create(*file, head, *length).map(done),
            Op::Fill { file, from, to } => self.fill(*file, *from, *to).map(done),
            Op::Read { file, offset, length } => self.read(*file, *offset, *length).map(Outcome::Data),
            Op::Replace { file, data } => self.replace(*file, data).map(done),
            Op::Rename { file, head, to } => self.rename(*file, head, *to).map(done),
            Op::Remove { file } => self.remove(*file).map(done),
            Op::List => self.list().map(Outcome::Files).map_err(Failure::before),
            Op::Volume => self.volume().map(Outcome::Volume).map_err(Failure::before),
        };
        result.map_err(|failure| self.error(op, &failure))
    }

    fn folder(&self) -> String {
        self.folder.display().to_string()
    }
}

/// An error, and whether it came from a sync whose failure must count as final.
struct Failure {
    error: io::Error,
    in_sync: bool,
}

impl Failure {
    fn before(error: io::Error) -> Self {
        Self {
            error,
            in_sync: false,
        }
    }

    fn sync(error: io::Error) -> Self {
        Self { error, in_sync: true }
    }

    fn kind(&self) -> DiskErrorKind {
        match self.error.kind() {
            _ if self.in_sync => DiskErrorKind::Failed,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::Full,
            io::ErrorKind::NotFound => DiskErrorKind::Missing,
            _ => DiskErrorKind::Failed,
        }
    }
}

/// Makes the folder and those above it, and syncs the one above so that it stays.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn wait_for_lock(
    folder: &Path,
    patience: Duration,
    waits: impl FnOnce(&OpenError),
) -> Result<File, OpenError> {
    let until = Instant::now() + patience;
    let mut waits = Some(waits);
    loop {
        let taken = take_lock(folder);
        let Err(error @ OpenError::InUse { .. }) = &taken else {
            return taken;
        };
        if Instant::now() >= until {
            return taken;
        }
        if let Some(waits) = waits.take() {
            waits(error);
        }
        thread::sleep(LOCK_POLL);
    }
}

fn take_lock(folder: &Path) -> Result<File, OpenError> {
    let cannot = |problem: io::Error| OpenError::Folder {
        folder: folder.display().to_string(),
        problem: format!("{LOCK_FILE}: {problem}"),
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(LOCK_FILE))
        .map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse {
                folder: folder.display().to_string(),
                holder: holder(&mut file),
            });
        }
        Err(TryLockError::Error(error)) => return Err(cannot(error)),
    }
    // Who holds the lock is a help for people only: a full disk must not keep a member from starting.
    let _ = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    // What cannot be read, or is no number, names nobody.
    let read = lock.take(32).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".to_owned(),
    }
}

fn write_all(file: &File, mut offset: u64, data: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = data.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let (now, _) = rest.split_at(rest.len().min(SLICES_MAX));
        match rustix::io::pwritev(file, now, offset) {
            Ok(0) if now.iter().all(|slice| slice.is_empty()) => IoSlice::advance_slices(&mut rest, 0),
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn write_zeros(file: &File, zeros: &Bytes, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(zeros.len());
        write_all(file, at, &[zeros.slice(..length)])?;
        at += length as u64;
    }
    Ok(())
}
