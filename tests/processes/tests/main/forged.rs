//! Logs that say something else than was written, and of which all checksums are right.

use bytes::Bytes;
use raftlog_storage::identity::Identity;
use raftlog_storage::{Append, Disk, FileDisk, Record, Visit, Wal, WalOptions};
use std::fs;
use std::path::Path;

/// Puts other records and another last state in the place of those in the log of a stopped program.
pub(crate) fn rewrite<R: Record>(folder: &Path, change: impl FnOnce(&mut Vec<R>, &mut Bytes)) {
    let mut disk = FileDisk::open(folder).expect("nobody else holds the folder");
    let identity = Identity::load(&mut disk)
        .expect("the identity can be read")
        .expect("there is one");
    let options = WalOptions::new(identity.log_owner().get());
    let (mut records, mut state) = (Vec::<R>::new(), Bytes::new());
    let opened = Wal::open(&mut disk, options, &mut |visit| {
        match visit {
            Visit::Truncate(from) => records.retain(|record: &R| record.index() < from),
            Visit::Record(record) => records.push(record),
            Visit::State(last) => state = last,
        }
        Ok(())
    });
    opened.expect("the log is sound");
    change(&mut records, &mut state);
    for file in fs::read_dir(folder).expect("the folder can be listed") {
        let file = file.expect("the folder can be listed");
        if file.file_name().to_string_lossy().starts_with("log-") {
            fs::remove_file(file.path()).expect("a segment can be removed");
        }
    }
    let (mut wal, _) = Wal::open(&mut disk, options, &mut |_| Ok(())).expect("an empty log can be opened");
    wal.append(Append {
        truncate_from: None,
        records,
        state: Some(state),
    });
    while let Some((id, op)) = wal.next_op() {
        let done = disk.execute(&op);
        wal.complete(id, done).expect("the disk works");
    }
    assert!(!wal.is_pending());
}
