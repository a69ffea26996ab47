//! What all of it was measured on.

use std::{fs, io, path::Path};

use serde::Serialize;

/// This machine, as far as it matters.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    memory_bytes: u64,
    kernel: String,
    /// Of the folder that the data are in.
    file_system: String,
}

impl Machine {
    /// With the file system of `folder`. What the kernel does not tell is `unknown`.
    pub(crate) fn describe(folder: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let unknown = || "unknown".to_owned();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            memory_bytes: memory_in(&read("/proc/meminfo")).unwrap_or_default(),
            kernel: Some(read("/proc/sys/kernel/osrelease").trim().to_owned())
                .filter(|kernel| !kernel.is_empty())
                .unwrap_or_else(unknown),
            file_system: file_system(folder).ok().flatten().unwrap_or_else(unknown),
        }
    }

    /// In one line.
    pub(crate) fn in_words(&self) -> String {
        format!(
            "{} cores of {}, {} MiB of memory, Linux {}, data on {}",
            self.cores,
            self.cpu,
            self.memory_bytes >> 20,
            self.kernel,
            self.file_system
        )
    }
}

/// `NAME : VALUE`
fn field(text: &str, name: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find_map(|(key, value)| (key.trim() == name).then(|| value.trim().to_owned()))
}

fn memory_in(meminfo: &str) -> Option<u64> {
    let kibibytes: u64 = field(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn file_system(folder: &Path) -> io::Result<Option<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(file_system_in(&mounts, &fs::canonicalize(folder)?))
}

/// The type of the innermost mount that holds `folder`; of two at one place the later one hides the other.
fn file_system_in(mounts: &str, folder: &Path) -> Option<String> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, kind) = (Path::new(words.next()?), words.next()?);
            folder
                .starts_with(place)
                .then(|| (place.components().count(), kind.to_owned()))
        })
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\n/dev/c /tmp/x btrfs rw 0 0\n";
        for (folder, expected) in [
            ("/home/user", "ext4"),
            ("/tmp/y", "tmpfs"),
            ("/tmpfile", "ext4"),
            ("/tmp/x/data", "btrfs"),
        ] {
            assert_eq!(
                file_system_in(mounts, Path::new(folder)).as_deref(),
                Some(expected),
                "{folder}"
            );
        }
        assert_eq!(file_system_in("", Path::new("/")), None);
    }

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: A CPU @ 2: fast\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU @ 2: fast"));
        assert_eq!(field(text, "model"), None);
        assert_eq!(memory_in("MemTotal:       2048 kB\n"), Some(2 << 20));
    }

    #[test]
    fn this_machine_can_be_described() {
        let machine = Machine::describe(Path::new("."));
        assert!(
            machine.cores > 0 && machine.file_system != "unknown",
            "{machine:?}"
        );
        assert!(!machine.in_words().contains('\n'));
    }
}
