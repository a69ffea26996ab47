//! The identity file from arbitrary bytes: what is taken survives being stored.
//!
//! The whole input is the file; and once more with the CRC that it should have.

use raftlog_storage::identity::Identity;
use raftlog_storage::simulated::MemoryDisk;
use raftlog_storage::{Disk, FileName};

const FILE: FileName = FileName::named("identity");
const VOLUME_BYTES: u64 = 1 << 20;

/// The target.
pub fn identity(data: &[u8]) {
    survives(data);
    let mut with_crc = data.to_vec();
    with_crc.extend_from_slice(format!("crc = {:08x}\n", crc32fast::hash(data)).as_bytes());
    survives(&with_crc);
}

fn survives(file: &[u8]) {
    let mut disk = MemoryDisk::new(VOLUME_BYTES);
    disk.overwrite(FILE, 0, file);
    let Ok(Some(identity)) = Identity::load(&mut disk) else {
        return;
    };
    if disk.execute(&identity.store()).is_err() {
        return;
    }
    let again = Identity::load(&mut disk);
    assert!(
        matches!(&again, Ok(Some(again)) if *again == identity),
        "{again:?} instead of {identity:?}"
    );
}
