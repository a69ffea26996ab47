//! The file in which `watch` notes how far its output is, so that it goes on there when it is started again.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::failure::Failure;

/// More than a token has.
const BYTES_MAX: u64 = 4096;

/// `--resume-file`.
#[derive(Debug)]
pub(super) struct ResumeFile {
    path: PathBuf,
}

impl ResumeFile {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The token in it; `None` where there is no file, or nothing in it.
    pub(super) fn token(&self) -> Result<Option<String>, Failure> {
        let mut text = String::new();
        let read = File::open(&self.path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failure("read", &error)),
            Ok(_) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
        }
    }

    /// Where its token is from, and how to do without.
    pub(super) fn says_so(&self) -> String {
        let path = self.path.display();
        format!("the resume token is from {path}: to begin anew, remove that")
    }

    /// Notes that everything up to there is written. The file is there as a whole, before or after, whenever it is looked at.
    pub(super) fn note(&self, token: Option<&str>) -> Result<(), Failure> {
        let token = token.ok_or_else(|| {
            Failure::failed("the replicator is of an earlier version and gives no resume tokens: upgrade it, or leave out --resume-file")
        })?;
        self.replace(token).map_err(|error| self.failure("write", &error))
    }

    fn replace(&self, token: &str) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| *folder != Path::new(""));
        let mut aside = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        writeln!(aside, "{token}")?;
        aside.as_file().sync_all()?;
        aside.persist(&self.path)?;
        Ok(())
    }

    fn failure(&self, verb: &str, error: &io::Error) -> Failure {
        let path = self.path.display();
        Failure::failed(format!(
            "cannot {verb} {path}: {error}; name a file that can be written to with --resume-file"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursor");
        let file = ResumeFile::new(&path);
        assert_eq!(file.token(), Ok(None), "there is no file");
        std::fs::write(&path, " \n").unwrap();
        assert_eq!(file.token(), Ok(None), "as `touch` or `mktemp` make it");
        for token in ["1.abc", "1.def"] {
            file.note(Some(token)).unwrap();
            assert_eq!(file.token(), Ok(Some(token.to_owned())));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{token}\n"));
        }
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn what_cannot_be_read_or_written_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = ResumeFile::new(&folder.path().join("no/cursor"));
        let is_told = |failure: Failure| matches!(failure, Failure::Exit { code: 1, message } if message.contains("no/cursor"));
        assert!(nowhere.note(Some("1.abc")).is_err_and(is_told));
        assert!(ResumeFile::new(folder.path()).token().is_err());
        assert!(nowhere.note(None).is_err());
        let binary = folder.path().join("binary");
        std::fs::write(&binary, [0xff; 9]).unwrap();
        assert!(ResumeFile::new(&binary).token().is_err());
    }
}
