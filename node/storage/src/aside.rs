//! Moves data aside that are of no use any more: of a member that was removed, or of a cluster that went on without them. Whose
//! folder it is starts as with an empty one.
//!
//! The files go into a folder beside them, one by one, under a name that says it is not done yet; only then it gets its last
//! name. So a move that a crash interrupted is taken up by the next start, before anything looks at what is left.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::LOCK_FILE;

const UNDER_WAY: &str = "removing-";
const DONE: &str = "removed-";

/// Moves everything in the data folder, which is locked and of which no file is open, aside: into a folder with that identity in its
/// name. Answers where to.
pub fn move_aside(folder: &Path, identity: &impl Display) -> io::Result<PathBuf> {
    complete(folder, &begin(folder, identity)?)
}

/// Leaves it to the next start to move everything aside, by [`resume`]: files may be open.
pub fn begin(folder: &Path, identity: &impl Display) -> io::Result<PathBuf> {
    let under_way = folder.join(format!("{UNDER_WAY}{identity}"));
    fs::create_dir_all(&under_way)?;
    sync(folder)?;
    Ok(under_way)
}

/// Takes up a move that was begun, if one was, and answers where to. The folder is locked, and no file in it is open.
pub fn resume(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut moved = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() && name.to_string_lossy().starts_with(UNDER_WAY) {
            moved = Some(complete(folder, &entry.path())?);
        }
    }
    Ok(moved)
}

/// Whether data of a removed member are beside those in the folder.
pub fn holds_removed(folder: &Path) -> io::Result<bool> {
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
    use raftlog_raft::ids::MemberId;

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
                assert_eq!(resume(folder).unwrap(), Some(folder.join(aside)));
            } else {
                assert_eq!(resume(folder).unwrap(), None);
                assert_eq!(move_aside(folder, &member).unwrap(), folder.join(aside));
            }
            assert!(holds_removed(folder).unwrap());
            assert_eq!(names(folder), [LOCK_FILE, "lost+found", aside]);
            assert_eq!(names(&folder.join(aside)), ["identity", "log-1"]);
        }
    }
}
