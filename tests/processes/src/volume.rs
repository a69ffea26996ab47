//! Small file systems of their own, to be filled up.

use crate::requirements;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A file system of its own, unmounted when dropped.
#[derive(Debug)]
pub struct Volume {
    folder: tempfile::TempDir,
    /// What a disk that can be frozen is made of.
    _image: Option<tempfile::NamedTempFile>,
}

/// A disk that completes no write, until dropped.
#[derive(Debug)]
pub struct Frozen {
    freezer: Child,
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

    /// Mounts a disk of `mebibytes` that can be frozen: an ext4 in a file. `None` as with [`Volume::mount`].
    pub fn mount_disk(test: &str, mebibytes: u32) -> Option<Self> {
        for tool in ["mkfs.ext4", "fsfreeze"] {
            if requirements::is_root() && requirements::tool(tool).is_none() {
                requirements::skip(test, &format!("{tool} is not installed"));
                return None;
            }
        }
        let image = tempfile::NamedTempFile::new().expect("cannot make a file for a disk");
        let bytes = u64::from(mebibytes) << 20;
        image.as_file().set_len(bytes).expect("cannot make a sparse file");
        let path = image
            .path()
            .to_str()
            .expect("temporary files have plain names")
            .to_owned();
        if requirements::is_root() {
            run("mkfs.ext4", &["-q", &path]).expect("a file system can be made in a file");
        }
        Self::mount_from(test, &["-t", "ext4", "-o", "loop", &path], Some(image))
    }

    /// From now on nothing that is written completes. Thaws again by itself when this process is gone: nothing that waits for
    /// a frozen disk could be killed.
    pub fn freeze(&self) -> Frozen {
        let script = r#"fsfreeze --freeze "$0" && echo frozen && cat; fsfreeze --unfreeze "$0""#;
        let mut freezer = Command::new("sh")
            .args(["-c", script])
            .arg(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cannot run sh");
        let mut said = String::new();
        let stdout = freezer.stdout.take().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut said)
            .expect("sh can be read");
        assert_eq!(said, "frozen\n", "fsfreeze failed on {}", self.path().display());
        Frozen { freezer }
    }

    fn mount_with(test: &str, options: &str) -> Option<Self> {
        Self::mount_from(test, &["-t", "tmpfs", "-o", options, "raftlog-test"], None)
    }

    fn mount_from(test: &str, arguments: &[&str], image: Option<tempfile::NamedTempFile>) -> Option<Self> {
        if !requirements::is_root() {
            requirements::skip(test, "mounting a file system of its own needs root");
            return None;
        }
        let folder = tempfile::tempdir().expect("cannot make a folder to mount on");
        let place = folder
            .path()
            .to_str()
            .expect("temporary folders have plain names");
        if let Err(why) = run("mount", &[arguments, &[place]].concat()) {
            requirements::skip(test, &format!("mount failed: {why}"));
            return None;
        }
        Some(Self {
            folder,
            _image: image,
        })
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

/// Runs a program to its end.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let ended = Command::new(program).args(arguments).output();
    let ended = ended.map_err(|error| format!("cannot run {program}: {error}"))?;
    if ended.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned())
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

/// Bytes that the files of a folder take on disk.
///
/// # Panics
/// When it cannot be listed.
pub fn used(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).expect("the folder is there");
    // A file may be removed meanwhile.
    let sizes = files.filter_map(|file| file.and_then(|file| file.metadata()).ok());
    sizes.map(|file| file.blocks() * 512).sum()
}

/// The files of a folder and their bytes, for people.
///
/// # Panics
/// When it cannot be listed.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let files = fs::read_dir(folder).expect("the folder is there").flatten();
    let sized = files.filter_map(|file| Some((file.path(), file.metadata().ok()?.blocks() * 512)));
    sized.collect()
}

fn ballast(folder: &Path) -> PathBuf {
    folder.join("ballast")
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // The end of its input is what it waits for.
        drop(self.freezer.stdin.take());
        let thawed = self.freezer.wait();
        if !thawed.is_ok_and(|status| status.success()) {
            eprintln!("could not thaw a disk");
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("could not unmount {}", self.path().display());
        }
    }
}
