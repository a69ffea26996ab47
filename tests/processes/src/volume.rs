//! Small file systems of their own, to be filled up.

use crate::requirements;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs, unmounted when dropped.
#[derive(Debug)]
pub struct Volume {
    folder: tempfile::TempDir,
}

impl Volume {
    /// Mounts a file system of `mebibytes`. `None`, after saying that `test` is skipped, where this process may not mount.
    pub fn mount(test: &str, mebibytes: u32) -> Option<Self> {
        Self::mount_with(test, &format!("size={mebibytes}m,mode=0755"))
    }

    /// Mounts a file system that cannot be written to, not even by root.
    pub fn mount_read_only(test: &str) -> Option<Self> {
        Self::mount_with(test, "size=1m,ro")
    }

    fn mount_with(test: &str, options: &str) -> Option<Self> {
        if !requirements::is_root() {
            requirements::skip(test, "mounting a file system of its own needs root");
            return None;
        }
        let folder = tempfile::tempdir().expect("cannot make a folder to mount on");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "raftlog-test"])
            .arg(folder.path())
            .output()
            .expect("cannot run mount");
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
            requirements::skip(test, &format!("mount failed: {why}"));
            return None;
        }
        Some(Self { folder })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room that is left, but for less than `spare` bytes.
    pub fn fill(&self, spare: usize) {
        fill(self.path(), spare);
    }

    /// Gives back what [`Volume::fill`] took.
    pub fn make_room(&self) {
        make_room(self.path());
    }
}

/// Takes all the room that is left on the file system of `folder`, but for less than `spare` bytes.
///
/// # Panics
/// When the folder cannot be written to.
pub fn fill(folder: &Path, spare: usize) {
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(ballast(folder))
        .expect("cannot make the ballast");
    let mut chunk = vec![0xbb; 1 << 20];
    loop {
        match file.write(&chunk) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                if chunk.len() <= spare.max(1) {
                    return;
                }
                chunk.truncate(chunk.len() / 2);
            }
            Err(error) => panic!("cannot fill {}: {error}", folder.display()),
        }
    }
}

/// Gives back what [`fill`] took.
///
/// # Panics
/// When it took nothing.
pub fn make_room(folder: &Path) {
    fs::remove_file(ballast(folder)).expect("cannot remove the ballast");
}

fn ballast(folder: &Path) -> PathBuf {
    folder.join("ballast")
}

impl Drop for Volume {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("could not unmount {}", self.path().display());
        }
    }
}
