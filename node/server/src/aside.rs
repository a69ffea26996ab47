//! Moves the data of a removed member aside: its identity is never used again, and its node starts as a new member.
//!
//! The files go into a folder beside them, one by one, under a name that says it is not done yet; only then it gets its last
//! name. So a move that a crash interrupted is taken up by the next start, before anything looks at what is left.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use raftlog_raft::ids::MemberId;
use raftlog_storage::LOCK_FILE;

const UNDER_WAY: &str = "removing-";
const DONE: &str = "removed-";

/// Moves everything in the data folder, which is locked and of which no file is open, aside. Answers where to.
pub(crate) fn move_aside(folder: &Path, member: MemberId) -> io::Result<PathBuf> {
    let under_way = folder.join(format!("{UNDER_WAY}{member}"));
    fs::create_dir_all(&under_way)?;
    sync(folder)?;
    complete(folder, &under_way)
}

/// Takes up a move that was interrupted.
pub(crate) fn resume(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() && name.to_string_lossy().starts_with(UNDER_WAY) {
            complete(folder, &entry.path())?;
        }
    }
    Ok(())
}

/// Whether data of a removed member are beside those in the folder.
pub(crate) fn holds_removed(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name().to_string_lossy().starts_with(DONE) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn complete(folder: &Path, under_way: &Path) -> io::Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != LOCK_FILE {
            fs::rename(entry.path(), under_way.join(entry.file_name()))?;
        }
    }
    sync(under_way)?;
    sync(folder)?;
    let name = under_way.file_name().unwrap_or_default().to_string_lossy();
    let done = folder.join(name.replacen(UNDER_WAY, DONE, 1));
    fs::rename(under_way, &done)?;
    sync(folder)?;
    Ok(done)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn everything_but_the_lock_is_moved_also_after_an_interruption() {
        let member = MemberId::new(0xab).unwrap();
        let aside = "removed-00000000000000ab";
        for interrupted in [false, true] {
            let temporary = tempfile::tempdir().unwrap();
            let folder = temporary.path();
            for name in [LOCK_FILE, "identity", "log-1"] {
                fs::write(folder.join(name), name).unwrap();
            }
            fs::create_dir(folder.join("lost+found")).unwrap();
            assert!(!holds_removed(folder).unwrap());
            if interrupted {
                let under_way = folder.join("removing-00000000000000ab");
                fs::create_dir(&under_way).unwrap();
                fs::rename(folder.join("identity"), under_way.join("identity")).unwrap();
                resume(folder).unwrap();
            } else {
                resume(folder).unwrap();
                assert_eq!(move_aside(folder, member).unwrap(), folder.join(aside));
            }
            assert!(holds_removed(folder).unwrap());
            assert_eq!(names(folder), [LOCK_FILE, "lost+found", aside]);
            assert_eq!(names(&folder.join(aside)), ["identity", "log-1"]);
        }
    }
}
