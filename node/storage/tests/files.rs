//! The log on real files: locks, folders of others, damage, and what `FileDisk` itself promises.

use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use raftlog_raft::entry::{Entry, Operation, Payload};
use raftlog_raft::ids::MemberId;
use raftlog_storage::identity::{Identity, Program};
use raftlog_storage::{
    Append, Disk, DiskErrorKind, FileDisk, FileName, Op, OpenError, Outcome, Recovery, Visit, Wal, WalEvent,
    WalOptions,
};
use tempfile::TempDir;

const FILE: FileName = FileName::named("some-file");

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: Some(0),
        fill_ahead_bytes: 64 << 10,
        ..WalOptions::new(7)
    }
}

fn entry(log_index: u64) -> Entry {
    let data = Bytes::from(format!("operation-{log_index}").repeat(100));
    let payload = Payload::Operation(Operation { data, session: None });
    Entry {
        log_index,
        term: 1,
        operation_index: log_index,
        running_hash: log_index,
        payload,
    }
}

type Opened = (FileDisk, Wal<Entry>, Recovery, Vec<Visit<Entry>>);

fn open(folder: &Path) -> Result<Opened, OpenError> {
    let mut disk = FileDisk::open(folder)?;
    let mut visits = Vec::new();
    let (wal, recovery) = Wal::open(&mut disk, options(), &mut |visit| {
        visits.push(visit);
        Ok(())
    })?;
    Ok((disk, wal, recovery, visits))
}

fn drive(wal: &mut Wal<Entry>, disk: &mut FileDisk) -> Vec<WalEvent<Entry>> {
    let mut events = Vec::new();
    while let Some((id, op)) = wal.next_op() {
        let result = disk.execute(&op);
        events.extend(wal.complete(id, result).expect("nothing fails"));
    }
    events
}

/// A folder with a log of that many entries, each in a batch of its own.
fn with_log(entries: u64) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut disk, mut wal, ..) = open(folder.path()).expect("it opens");
    for index in 1..=entries {
        let ticket = wal.append(Append {
            records: vec![entry(index)],
            ..Append::default()
        });
        assert!(drive(&mut wal, &mut disk).contains(&WalEvent::Persisted(ticket)));
    }
    folder
}

fn segment(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("log-{sequence:016x}"))
}

fn overwrite(file: &Path, offset: u64, data: &[u8]) {
    let file = OpenOptions::new().write(true).open(file).expect("it is there");
    file.write_all_at(data, offset).expect("it is writable");
}

/// The one line of why it does not open.
fn refusal(folder: &Path) -> String {
    let line = open(folder).expect_err("it is refused").to_string();
    assert!(
        !line.contains('\n') && line.contains(&folder.display().to_string()),
        "{line}"
    );
    line
}

fn records(visits: &[Visit<Entry>]) -> Vec<u64> {
    let index = |visit: &Visit<Entry>| match visit {
        Visit::Record(entry) => entry.log_index,
        other => panic!("{other:?} was never appended"),
    };
    visits.iter().map(index).collect()
}

#[test]
fn a_log_survives_and_goes_on_over_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for start in 0..3 {
        let (mut disk, mut wal, recovery, visits) = open(folder.path()).unwrap();
        assert_eq!(
            (recovery.last_index, &records(&visits)),
            (start * 1500, &expected)
        );
        for index in start * 1500 + 1..=(start + 1) * 1500 {
            expected.push(index);
            wal.append(Append {
                records: vec![entry(index)],
                ..Append::default()
            });
            if index % 50 == 0 {
                drive(&mut wal, &mut disk);
            }
        }
    }
    let (mut disk, mut wal, recovery, _) = open(folder.path()).unwrap();
    assert!(recovery.segments >= 3, "{recovery:?}");
    assert_eq!(wal.read(1, 1400, 1600, usize::MAX), None);
    let events = drive(&mut wal, &mut disk);
    let read = WalEvent::Read {
        id: 1,
        records: (1400..=1600).map(entry).collect(),
    };
    assert!(events.contains(&read));
}

#[test]
fn a_folder_in_use_names_its_holder() {
    let folder = tempfile::tempdir().unwrap();
    let first = FileDisk::open(folder.path()).unwrap();
    let line = refusal(folder.path());
    assert!(
        line.contains(&format!("in use by process {}", std::process::id())),
        "{line}"
    );
    drop(first);
    FileDisk::open(folder.path()).unwrap();
}

/// A pod that was deleted by force has its successor beside it for a while, which ended again and again.
#[test]
fn a_folder_in_use_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let first = FileDisk::open(folder.path()).unwrap();
    let (told, heard) = mpsc::channel();
    let path = folder.path().to_owned();
    let second = thread::spawn(move || {
        let waits = |error: &OpenError| told.send(error.to_string()).unwrap();
        FileDisk::open_within(&path, Duration::from_mins(5), waits).map(drop)
    });
    let line = heard.recv().unwrap();
    assert!(line.contains("in use by process"), "{line}");
    drop(first);
    second.join().unwrap().unwrap();
}

#[test]
fn what_others_put_into_the_folder_is_left_alone() {
    let folder = with_log(3);
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    fs::create_dir(folder.path().join("log-0000000000000009")).unwrap();
    for name in [
        "log-1",
        "log-00000000000000zz",
        "LOG-0000000000000002",
        "identity.new",
        ".hidden",
    ] {
        fs::write(folder.path().join(name), "garbage").unwrap();
    }
    fs::write(
        folder.path().join(std::ffi::OsStr::from_bytes(b"log-\xff")),
        "garbage",
    )
    .unwrap();
    let (_, _, recovery, visits) = open(folder.path()).unwrap();
    assert_eq!((recovery.last_index, records(&visits)), (3, vec![1, 2, 3]));
    assert!(folder.path().join("log-1").exists() && folder.path().join("lost+found").exists());
}

#[test]
fn damage_in_the_middle_is_refused_with_file_and_offset() {
    let folder = with_log(10);
    // A batch of one entry takes 3 sectors; the third batch is behind the head and two of them.
    overwrite(&segment(folder.path(), 1), 512 + 2 * 3 * 512 + 100, b"damage");
    let line = refusal(folder.path());
    assert!(
        line.contains("log-0000000000000001 is corrupt at offset 3584"),
        "{line}"
    );
}

#[test]
fn damage_at_the_end_is_remembered() {
    let folder = with_log(3);
    overwrite(&segment(folder.path(), 1), 512 + 2 * 3 * 512 + 100, b"damage");
    for _ in 0..2 {
        let (_, _, recovery, visits) = open(folder.path()).unwrap();
        assert!(recovery.suspect_tail);
        assert_eq!(records(&visits), [1, 2]);
    }
    let mark = fs::read_to_string(folder.path().join("suspect-tail")).unwrap();
    assert!(
        mark.starts_with("batch 3 at offset 3584 of log-0000000000000001"),
        "{mark}"
    );
}

#[test]
fn a_segment_cut_short_is_refused() {
    // In the middle of the last batch, and between two.
    for length in [512 + 3 * 3 * 512 - 700, 512 + 2 * 3 * 512] {
        let folder = with_log(3);
        let file = OpenOptions::new()
            .write(true)
            .open(segment(folder.path(), 1))
            .unwrap();
        file.set_len(length).unwrap();
        let line = refusal(folder.path());
        assert!(
            line.contains(&format!(
                "log-0000000000000001 is corrupt at offset {length}: it ends here"
            )),
            "{line}"
        );
    }

    let folder = with_log(2000);
    let file = OpenOptions::new()
        .write(true)
        .open(segment(folder.path(), 1))
        .unwrap();
    file.set_len(100 * 512).unwrap();
    assert!(refusal(folder.path()).contains("log-0000000000000001 is corrupt at offset"));
    fs::remove_file(segment(folder.path(), 1)).unwrap();
    assert!(refusal(folder.path()).contains("log-0000000000000001 is corrupt at offset 0: it is missing"));
}

#[test]
fn another_version_and_another_owner_are_refused() {
    let folder = with_log(1);
    let mut disk = FileDisk::open(folder.path()).unwrap();
    let other = WalOptions {
        owner: 8,
        ..options()
    };
    let line = Wal::<Entry>::open(&mut disk, other, &mut |_| Ok(()))
        .unwrap_err()
        .to_string();
    assert!(
        line.contains("belongs to member 0000000000000007, not to 0000000000000008"),
        "{line}"
    );
    drop(disk);
    let other = raftlog_storage::FORMAT_VERSION + 1;
    overwrite(&segment(folder.path(), 1), 8, &other.to_le_bytes());
    let line = refusal(folder.path());
    assert!(
        line.contains(&format!("has format version {other}, this program reads version")),
        "{line}"
    );
    assert!(
        segment(folder.path(), 1).exists(),
        "what is refused is left as it is"
    );
}

#[test]
fn a_visitor_that_refuses_stops_it_with_the_place() {
    let folder = with_log(3);
    let mut disk = FileDisk::open(folder.path()).unwrap();
    let refused = Wal::<Entry>::open(&mut disk, options(), &mut |visit| match visit {
        Visit::Record(entry) if entry.log_index == 2 => Err("its hash is wrong".to_owned()),
        _ => Ok(()),
    });
    let line = refused.unwrap_err().to_string();
    assert!(
        line.contains("log-0000000000000001 is corrupt at offset 2048: its hash is wrong"),
        "{line}"
    );
}

#[test]
fn a_folder_that_cannot_be_made_or_written_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let line = FileDisk::open(&path).unwrap_err().to_string();
        assert!(
            line.starts_with(&format!("cannot use data folder {}: ", path.display())),
            "{line}"
        );
    }
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may write to read-only folders");
        return;
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let line = FileDisk::open(folder.path()).unwrap_err().to_string();
    assert!(line.contains("ermission denied"), "{line}");
}

#[test]
fn files_are_written_filled_read_replaced_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(&folder.path().join("new/folder")).unwrap();
    let head = Bytes::from_static(b"head");
    let mut done = |op: Op| disk.execute(&op).unwrap();
    done(Op::Create {
        file: FILE,
        head,
        length: 1_000_000,
    });
    done(Op::Fill {
        file: FILE,
        from: 1_000_000,
        to: 1_500_000,
    });
    let pieces: Vec<Bytes> = (0..3000_u32)
        .map(|n| Bytes::copy_from_slice(&n.to_le_bytes()))
        .collect();
    done(Op::Write {
        file: FILE,
        offset: 999_999,
        data: pieces.clone(),
    });
    let read = done(Op::Read {
        file: FILE,
        offset: 999_999,
        length: 12_000,
    });
    assert_eq!(
        read,
        Outcome::Data(pieces.concat().into()),
        "more pieces than one call takes"
    );
    let Outcome::Data(end) = done(Op::Read {
        file: FILE,
        offset: 1_499_000,
        length: 5000,
    }) else {
        panic!("data was asked for");
    };
    assert_eq!(end, Bytes::from(vec![0; 1000]), "no more than there is");
    done(Op::Replace {
        file: FILE,
        data: Bytes::from_static(b"small"),
    });
    let read = done(Op::Read {
        file: FILE,
        offset: 0,
        length: 100,
    });
    assert_eq!(read, Outcome::Data(Bytes::from_static(b"small")));
    done(Op::Remove { file: FILE });
    done(Op::Remove { file: FILE });
    let missing = disk
        .execute(&Op::Read {
            file: FILE,
            offset: 0,
            length: 1,
        })
        .unwrap_err();
    assert_eq!(missing.kind, DiskErrorKind::Missing);
    assert!(matches!(disk.execute(&Op::Volume), Ok(Outcome::Volume(1..))));
}

#[test]
fn an_identity_is_stored_as_text_and_damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(folder.path()).unwrap();
    assert_eq!(Identity::load(&mut disk).unwrap(), None);
    let identity = Identity::new(Program::Node, 1, MemberId::new(7).unwrap());
    disk.execute(&identity.store()).unwrap();
    assert_eq!(Identity::load(&mut disk).unwrap(), Some(identity));
    let file = folder.path().join("identity");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\nnode = 1\nmember = 0000000000000007\n"), "{text}");
    fs::write(&file, text.replace("node = 1", "node = 2")).unwrap();
    let line = Identity::load(&mut disk).unwrap_err().to_string();
    assert!(line.contains("identity is corrupt at offset"), "{line}");
}

/// Needs a file system that can be filled: a small tmpfs, which only root may mount.
#[test]
fn a_full_disk_holds_appends_back_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) = Tmpfs::mount(folder.path(), "size=4m") else {
        eprintln!("skipped: mounting a tmpfs takes root");
        return;
    };
    let hog = folder.path().join("hog");
    fs::write(&hog, vec![1; 3 << 20]).unwrap();
    let (mut disk, mut wal, ..) = open(folder.path()).unwrap();
    let mut full = false;
    for index in 1..=2000 {
        wal.append(Append {
            records: vec![entry(index)],
            ..Append::default()
        });
        full |= drive(&mut wal, &mut disk).contains(&WalEvent::Full(true));
    }
    assert!(full && wal.is_pending());
    let replace = disk.execute(&Op::Replace {
        file: FILE,
        data: Bytes::from(vec![1; 2 << 20]),
    });
    assert_eq!(replace.unwrap_err().kind, DiskErrorKind::Full);
    assert!(
        !folder.path().join("some-file.new").exists(),
        "what did not fit is given back"
    );
    fs::remove_file(hog).unwrap();
    assert_eq!(wal.retry(), None);
    let events = drive(&mut wal, &mut disk);
    assert!(events.contains(&WalEvent::Full(false)), "{events:?}");
    assert!(wal.is_pending() || events.contains(&WalEvent::Persisted(2000)));
    drop(disk);
    let (.., visits) = open(folder.path()).unwrap();
    let records = records(&visits);
    assert!(records.len() > 500 && records.iter().copied().eq(1..=records.len() as u64));
}

/// Unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(folder: &Path, options: &str) -> Option<Self> {
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder);
        let mounted = command
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then(|| Self(folder.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}

/// What is dropped of a log on real files becomes new segments, also across starts.
#[test]
fn a_log_on_real_files_is_bounded() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut index = 0;
    for _ in 0..3 {
        let (mut disk, mut wal, recovery, visits) = open(folder.path()).expect("it opens");
        assert_eq!(recovery.last_index, index);
        assert_eq!(visits.len() as u64, index - recovery.compacted_through);
        for _ in 0..20 {
            let records: Vec<Entry> = (index + 1..=index + 200).map(entry).collect();
            index += 200;
            wal.append(Append {
                records,
                ..Append::default()
            });
            wal.compact(index - 200);
            drive(&mut wal, &mut disk);
        }
        assert_eq!(wal.first_index(), index - 199);
        wal.read(1, index - 199, index, usize::MAX);
        let read: Vec<Entry> = (index - 199..=index).map(entry).collect();
        assert_eq!(
            drive(&mut wal, &mut disk),
            [WalEvent::Read { id: 1, records: read }]
        );
    }
    let segments: Vec<String> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|file| file.expect("a file").file_name().into_string().expect("a name"))
        .filter(|name| name.starts_with("log-0"))
        .collect();
    assert!(segments.len() <= 5, "{segments:?}");
    assert!(
        segments.iter().all(|name| name.as_str() > "log-0000000000000003"),
        "{segments:?}"
    );
    assert!(folder.path().join("log-start").exists());
}
